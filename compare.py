"""Compare runs with each other and with what their sources reported.

    python compare.py output/cifar-*
    python compare.py output/mnist-softmax output/mnist-softmax-center

Writes comparison.md (tables of the runs, and of what detect.py found), comparison.png (validation
accuracy by epoch) and, where runs have what it takes, feature-maps.png (the last feature maps of
MNIST runs made with --plotting, side by side) and covariance.png (log-determinant and smallest
variance of trained covariances by epoch).
"""

from pathlib import Path

from boltons.fileutils import atomic_save

from training import errors
from training.config.options import Parser
from training.data import datasets
from training.errors import UserError, naming
from training.runs import plots, tables
from training.runs.features import Snapshot
from training.runs.folder import RunFolder, check_writable, write_text


def feature_map(run):
    """The panel of a run's test features, with its accuracies in the title."""
    flat = Snapshot.load(run.folder.features).in_plane()
    last = run.metrics[-1]
    row = next((row for row in run.metrics if row['epoch'] == flat.epoch), last)
    facts = [f'accuracy {row["val_acc"]:.4f}']
    if 'knn_acc' in row:
        facts.append(f'nearest center {row["knn_acc"]:.4f}')
    if row is not last:  # the run went on without --plotting
        facts.insert(0, f'epoch {row["epoch"]:.0f}')
    return plots.FeatureMap(
        f'{run.name}\n{", ".join(facts)}', flat.test_features, flat.test_labels, flat.centers, flat.deviations
    )


def main(argv):
    parser = Parser(__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='run folders, in the order to show, each once')
    parser.add_argument(
        '--output-dir', type=Path, default=Path('output'), help='where to write (default output)'
    )
    options = parser.parse_args(argv)
    check_writable(options.output_dir)
    paths, begun = [], []
    for path in dict.fromkeys(map(Path, options.runs)):
        with naming(path):
            if not path.is_file():  # a shell's * also names files beside the runs
                paths.append(path)
                if RunFolder(path).config.exists() and not RunFolder(path).metrics.exists():
                    begun.append(path)
    if not paths:
        raise UserError(f'{options.runs[0]}: a run folder is expected')
    for path in begun if len(begun) < len(paths) else ():
        print(f'{path}: left out, it has not ended its first epoch')
        paths.remove(path)
    runs = tables.read_all(paths)

    families = [
        (title, [run for run in runs if run.data == title])
        for title in datasets.TITLES.values()
        if title in {run.data for run in runs}
    ]
    text = '\n'.join(f'## {name}\n\n{tables.table(group)}' for name, group in families)
    for group in tables.by_recipe(run for run in runs if 'detection' in run.summary):
        text += (
            f'\n### Abnormal images by `{"`, `".join(run.name for run in group)}`, AUROC\n\n'
            f'{tables.detection_table(group)}'
        )
    figures = {
        'comparison.png': (plots.accuracies, [(name, tables.curves(group)) for name, group in families])
    }
    trained = tables.named([run for run in runs if 'mean_log_det' in run.metrics[0]])
    if trained:
        figures['covariance.png'] = plots.covariances, trained
    drawn = [feature_map(run) for run in runs if run.on_mnist and run.folder.features.exists()]
    if drawn:
        figures['feature-maps.png'] = plots.feature_maps, drawn
    print(text)
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        write_text(options.output_dir / 'comparison.md', text)
        for name, (draw, content) in figures.items():
            with atomic_save(str(options.output_dir / name), overwrite_part=True) as part:
                draw(part, content)
    except OSError as error:
        raise UserError(f'{options.output_dir}: {error.strerror}; choose another --output-dir') from None
    print('written:', ', '.join(str(options.output_dir / name) for name in ('comparison.md', *figures)))
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
