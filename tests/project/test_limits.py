"""Sizes that keep the project easy to find one's way in; the README's is in test_pages.py."""

from conftest import ROOT

MOST_LINES = 300  # of a file
MOST_MODULES = 6  # beside the folders of training/


def test_files_are_short():
    files = [*ROOT.glob('*.py')]
    for folder in ('gmloss', 'center_loss', 'training', 'benchmarks', 'tests'):
        files += (ROOT / folder).rglob('*.py')
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_stages_of_a_training_are_folders():
    modules = [path.name for path in (ROOT / 'training').glob('*.py')]
    assert len(modules) <= MOST_MODULES, modules
