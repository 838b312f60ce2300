"""The code of docs/tutorial.md runs from top to bottom and does what the text says."""

import re

from conftest import ROOT


def test_tutorial_runs_and_learns():
    code = '\n'.join(
        re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'tutorial.md').read_text(), re.DOTALL)
    )
    names = {}
    exec(code, names)
    assert names['accuracy'] > 0.97 and names['center_accuracy'] > 0.97
    assert names['detected'] > 0.95
    assert abs(names['loss_fn'].margin.data().asscalar() - 0.2) < 1e-6
