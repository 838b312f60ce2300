"""What the README and the pages of docs/ show works as shown."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from mxnet import gluon, nd
from photos import write_set
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
SMALL = ['--num-samples', '32', '--epochs', '1', '--batch-size', '16', '--dtype', 'float32', '--lr', '0.01']
SMALL_IMAGES = [
    *('--version', 'scratch-small', '--model', 'mobilenet0.25', '--image-size', '32'),
    *('--epochs', '1', '--batch-size', '9', '--warmup', 'none', '--dtype', 'float32'),
]
DEFAULTS = {'train_cifar.py': 'fast', 'train_mnist.py': 'softmax-center'}


def commands_by_page():
    """{page: its commands}; those that only read runs of the record are left to the first page with them."""
    pages, read_record = {}, set()
    for page, language, text in BLOCKS:
        for line in text.splitlines() if not language else ():
            command = line.partition('#')[0].strip()
            if command.startswith('python ') and '--hosts' not in command and command not in read_record:
                pages.setdefault(page, []).append(command)
                if 'output/record' in command:
                    read_record.add(command)
    return pages


def own_place(word, scratch):
    """The paths that a word of a command stands for: those to be written are in `scratch`."""
    if word.startswith('docs/'):
        return [shutil.copy(ROOT / word, scratch)]
    if Path(word).parts[:1] == ('photos',):
        return [scratch / word]
    if word.startswith('output/') and not word.startswith('output/record'):
        return sorted(scratch.glob(Path(word).name)) or [scratch / Path(word).name]
    return sorted(ROOT.glob(word)) if '*' in word else [word]


@pytest.mark.parametrize(
    'page, commands', commands_by_page().items(), ids=lambda value: getattr(value, 'name', '')
)
def test_commands_of_a_page_run_in_their_order_on_a_small_budget(page, commands, run_page_command, request):
    if page.name != 'detection.md':  # its figures are of all scores; the scripts have tests of their own
        request.getfixturevalue('no_figures')
    for command in commands:
        code, output = run_page_command(command)
        assert code == 0, f'{command}\n{output}'
        assert re.search('val acc|accuracy|written|images in', output) or '--help' in command, command


@pytest.fixture
def run_page_command(run_script, run_here, in_place_of_processes, cifar, tmp_path, capsys):
    """Run a command with little data; returns exit code and output. Files go to a folder of the test's."""

    def run(command):
        script, *words = own_words(command, tmp_path)
        if 'photos' in command and not (tmp_path / 'photos').exists():
            write_set(tmp_path / 'photos', cifar, names=['cat', 'dog', 'ship'])
        if script == 'launch.py':
            result = run_script(script, *words)
            return result.returncode, result.stdout + result.stderr
        if script == 'serve.py':  # it ends only when it is told to
            with serving(*words) as (process, address):
                process.terminate()
                return process.wait(), f'written: {address}'
        code = run_here(Path(script).stem, *words)
        return code, ''.join(capsys.readouterr())

    return run


def own_words(command, scratch):
    """The words of a command, with little data and with `scratch` in place of output/."""
    script, *words = [str(path) for word in command.split()[1:] for path in own_place(word, scratch)]
    if script in ('compare.py', 'detect.py', 'export.py', 'verify.py'):
        words += ['--output-dir', str(scratch / 'written')]
    elif script == 'predict.py':
        words += ['--output', str(scratch / 'predictions.csv')]
    elif script in DEFAULTS and not {'--help', '--output-dir'} & set(words):
        version = 'center' if '--second-train' in words else DEFAULTS[script]
        version = words[words.index('--version') + 1] if '--version' in words else version
        words += ['--output-dir', str(scratch / f'{script[6:-3]}-{version}')]
    if script == 'train_images.py':
        words += ['--output-dir', str(scratch / 'images-finetune')] * ('--output-dir' not in words)
        words += SMALL_IMAGES * (not {'--resume', '--test'} & set(words))
    if script == 'ablate.py':
        if '--output-dir' not in words:
            words += ['--output-dir', str(scratch / Path(words[0]).stem)]
        words += ['--only', 'baseline', '--seeds', '0']
    if script == 'detect.py':
        words += ['--samples', '3'] + ['--fit', '200'] * ('--fit' in words)
    if script == 'launch.py':
        words += ['--output-dir', str(scratch / 'distributed')]
    if script in DEFAULTS and '--test' in words:
        words += ['--num-samples', '32']
    words = [re.sub(r'^(\d+):[\d.]+$', r'\1:0.3', word) for word in words]  # sizes of a short run
    if '--warmup-epochs' in words:
        words[words.index('--warmup-epochs') + 1] = '0.3'
    if script in (*DEFAULTS, 'ablate.py', 'launch.py') and not {'--help', '--resume', '--test'} & set(words):
        words += SMALL + ['--holdout', '16'] * ('--holdout' in words)
    return [script, *words]


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
