"""What the README and the pages of docs/ show works as shown."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from mxnet import gluon, nd
from serving.processes import serving

import center_loss
import gmloss
from training.machine import devices

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
BLOCKS = [
    (page, language, text)
    for page in PAGES
    for language, text in re.findall(r'```(\w*)\n(.*?)```', page.read_text(), re.DOTALL)
]
COMMANDS = dict.fromkeys(
    line.partition('#')[0].strip()
    for _, language, text in BLOCKS
    if not language
    for line in text.splitlines()
    if line.startswith('python ')
)
SMALL = ['--num-samples', '256', '--epochs', '1', '--batch-size', '64', '--dtype', 'float32', '--lr', '0.01']
DEFAULTS = {'train_cifar.py': 'fast', 'train_mnist.py': 'softmax-center'}


@pytest.fixture(scope='module')
def scratch(tmp_path_factory):
    """Stands for output/, so that commands find the runs of those before them."""
    return tmp_path_factory.mktemp('output')


def own_place(word, scratch):
    """The paths that a word of a command stands for: those to be written are in `scratch`."""
    if word.startswith('docs/'):
        return [shutil.copy(ROOT / word, scratch)]
    if word.startswith('output/') and not word.startswith('output/record'):
        return sorted(scratch.glob(Path(word).name)) or [scratch / Path(word).name]
    return sorted(ROOT.glob(word)) if '*' in word else [word]


@pytest.mark.parametrize('command', [command for command in COMMANDS if '--hosts' not in command])
def test_commands_run_in_their_order_on_a_small_budget(command, run_script, run_here, scratch, capsys):
    script, *words = [str(path) for word in command.split()[1:] for path in own_place(word, scratch)]
    if script in ('compare.py', 'detect.py', 'export.py'):
        words += ['--output-dir', str(scratch / 'written')]
    elif script == 'predict.py':
        words += ['--output', str(scratch / 'predictions.csv')]
    elif script in DEFAULTS and not {'--help', '--output-dir'} & set(words):
        version = 'center' if '--second-train' in words else DEFAULTS[script]
        version = words[words.index('--version') + 1] if '--version' in words else version
        words += ['--output-dir', str(scratch / f'{script[6:-3]}-{version}')]
    if script == 'ablate.py':
        if '--output-dir' not in words:
            words += ['--output-dir', str(scratch / Path(words[0]).stem)]
        words += ['--only', 'baseline', '--seeds', '0']
    if script == 'detect.py':
        words += ['--samples', '20'] + ['--fit', '500'] * ('--fit' in words)
    if script == 'launch.py':
        words += ['--output-dir', str(scratch / 'distributed')]
    if script in (*DEFAULTS, 'ablate.py', 'launch.py') and not {'--help', '--resume', '--test'} & set(words):
        words += SMALL + ['--holdout', '64'] * ('--holdout' in words)
    if script in ('launch.py', 'ablate.py'):  # they start processes of their own
        result = run_script(script, *words)
        code, output = result.returncode, result.stdout + result.stderr
    elif script == 'serve.py':  # it ends only when it is told to
        with serving(*words) as (process, address):
            process.terminate()
            code, output = process.wait(), f'written: {address}'
    else:
        code = run_here(Path(script).stem, *words)
        output = ''.join(capsys.readouterr())
    assert code == 0, f'{command}\n{output}'
    assert re.search('val acc|accuracy|written|images in', output) or '--help' in words, command


def test_targets_of_make_exist():
    targets = {name for _, _, text in BLOCKS for name in re.findall(r'^make ([\w-]+)', text, re.MULTILINE)}
    phony = re.search(r'\.PHONY: (.*)', (ROOT / 'Makefile').read_text())[1].split()
    assert {'train', 'test', 'bench'} <= targets <= set(phony)


@pytest.mark.parametrize(
    'page', [page for page in dict.fromkeys(page for page, language, _ in BLOCKS if language == 'python')]
)
def test_python_examples_run_as_printed(page, monkeypatch):
    monkeypatch.setattr(devices, 'prepare', devices.choose)  # mxnet is imported already
    net = gluon.nn.Dense(64)
    net.initialize()
    names = {'net': net, 'x': nd.random.normal(shape=(8, 5)), 'y': nd.arange(8)}
    exec('\n'.join(text for owner, language, text in BLOCKS if (owner, language) == (page, 'python')), names)
    if page.name == 'README.md':
        assert names['loss'].shape == (8,) and names['logits'].shape == (8, 10)
        assert net.weight.grad().abs().sum().asscalar() > 0
    if page.name == 'using.md':
        assert names['accuracy'] > 0.902  # in float32 0.912
    if page.name == 'tutorial.md':
        assert names['accuracy'] > 0.97 and names['center_accuracy'] > 0.97
        assert names['detected'] > 0.95 and names['separated'] and names['split_accuracy'] > 0.97
        assert names['estimated']['training accuracy'] > 0.97
        zero, nan = names['zero_and_nan']
        assert zero == 0 and nan != nan and 'label 7.0 of sample 2' in names['message']
        assert (names['weighted'].asnumpy() != 0).tolist() == [True, False, True]
        assert abs(names['loss_fn'].margin.data().asscalar() - 0.2) < 1e-6


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = re.findall(r'^#+ (.*)', target.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings]
        assert not anchor or anchor in anchors, link
    for path in re.findall(
        r'`((?:configs|output/record|training|gmloss|tests|benchmarks|docs)/[\w./-]*)', text
    ):
        assert (ROOT / path).exists(), path


def test_readme_is_one_page_and_names_every_other():
    text = (ROOT / 'README.md').read_text()
    assert len(text.splitlines()) <= 150
    assert all(f'(docs/{page.name})' in text for page in PAGES[1:])
    first_screen = '\n'.join(text.splitlines()[:25])
    for words in (
        'make train',
        'make test',
        'train_cifar.py --version v4',
        'train_mnist.py --plotting',
        '.png)',
    ):
        assert words in first_screen
    tree = re.search(r'```\n(gmloss/.*?)```', text, re.DOTALL)[1]
    for folder in (ROOT / 'training').iterdir():
        if folder.is_dir() and not folder.name.startswith('__'):
            assert f'{folder.name}/' in tree
    assert all(path.name in text for path in ROOT.glob('*.py'))
    blocks = [
        name for name in (*gmloss.__all__, *center_loss.__all__) if not re.search('logit|one_hot|^log_', name)
    ]
    assert all(f'{name}`' in text for name in blocks)
