"""What the README shows works as shown."""

import ast
import glob
import re
from pathlib import Path

import pytest
from conftest import ROOT
from mxnet import gluon, nd

BLOCKS = re.findall(r'```(\w*)\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
COMMANDS = [
    line
    for language, text in BLOCKS
    if not language
    for line in text.splitlines()
    if line.startswith('python ')
]
SMALL = ['--num-samples', '256', '--epochs', '1', '--batch-size', '64', '--dtype', 'float32', '--lr', '0.01']
DEFAULTS = {'train_cifar.py': 'fast', 'train_mnist.py': 'softmax-center', 'ablate.py': 'ablation'}


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 9


def test_commands_run_in_the_order_shown_on_a_small_budget(run_script, run_here, tmp_path, capsys):
    for command in COMMANDS:
        script, *words = [
            part
            for word in command.split('#')[0].split()[1:]
            for part in sorted(glob.glob(str(ROOT / word))) or [word]
        ]
        script = Path(script).name
        if '--hosts' in words:
            continue  # in tests/test_launch.py, with a stand-in for ssh
        words = [
            word
            if not word.startswith('output/') or word.startswith('output/record')
            else str(tmp_path / Path(word).name)
            for word in words
        ]
        if script in ('compare.py', 'detect.py', 'export.py'):
            words += ['--output-dir', str(tmp_path / 'written')]
        elif script == 'predict.py':
            words += ['--output', str(tmp_path / 'predictions.csv')]
        elif script in DEFAULTS and not {'--help', '--output-dir'} & set(words):
            version = 'center' if '--second-train' in words else DEFAULTS[script]
            version = words[words.index('--version') + 1] if '--version' in words else version
            words += ['--output-dir', str(tmp_path / f'mnist-{version}')]
        if script == 'ablate.py':
            words += ['--only', 'baseline', '--seeds', '0']
        if script == 'detect.py':
            words += ['--samples', '20']
        if script == 'launch.py':
            words += ['--output-dir', str(tmp_path / 'distributed')]
        if script in (*DEFAULTS, 'launch.py') and not {'--help', '--resume', '--test'} & set(words):
            words += SMALL
        if script in ('launch.py', 'ablate.py'):  # they start processes of their own
            result = run_script(script, *words)
            code, output = result.returncode, result.stdout + result.stderr
        else:
            code = run_here(Path(script).stem, *words)
            output = ''.join(capsys.readouterr())
        assert code == 0, f'{command}\n{output}'
        assert re.search('val acc|accuracy|written|images in', output) or '--help' in words, command


def test_python_example_runs_as_printed():
    (example,) = [text for language, text in BLOCKS if language == 'python']
    net = gluon.nn.Dense(64)
    net.initialize()
    names = {'net': net, 'x': nd.random.normal(shape=(8, 5)), 'y': nd.arange(8)}
    exec(example, names)
    assert names['loss'].shape == (8,) and names['logits'].shape == (8, 10)
    assert net.weight.grad().abs().sum().asscalar() > 0


@pytest.mark.parametrize(
    'path',
    sorted(
        set(
            re.findall(
                r'(?:`|\]\()((?:configs|output/record|training|gmloss|tests|benchmarks|docs)/[\w./-]*)(?:`|\))',
                (ROOT / 'README.md').read_text(),
            )
        )
    ),
)
def test_paths_named_in_the_readme_exist(path):
    assert (ROOT / path).exists()


def test_imports_go_the_way_the_readme_says():
    listed = re.search(
        r'each file uses only those before it:\n(.*?)\ntrain_cifar',
        (ROOT / 'README.md').read_text(),
        re.DOTALL,
    )[1]
    order = re.findall(r'\w+', listed)
    files = {path.stem: path for path in (ROOT / 'training').glob('*.py')}
    assert sorted(order) == sorted(set(files) - {'__init__'})
    for name in order:
        tree = ast.parse(files[name].read_text())
        used = {
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level
            for part in ([node.module] if node.module else [a.name for a in node.names])
        }
        assert used <= set(order[: order.index(name)]), name
    for package in ('gmloss', 'center_loss'):
        for path in (ROOT / package).glob('*.py'):
            assert not re.search(r'^\s*(from|import) training', path.read_text(), re.MULTILINE)
