"""The order of the packages and stages that pyproject.toml gives to import-linter."""

import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name('lint-imports')
    result = subprocess.run([linter, '--no-logo', '--no-cache'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
