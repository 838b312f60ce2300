"""Compare runs with each other and with what their sources reported.

    python compare.py output/cifar-*
    python compare.py output/mnist-softmax output/mnist-softmax-center
    python compare.py output/mnist-softmax output/mnist-softmax-center --html
    python compare.py output/record --page docs/results.md --output-dir output/record

Writes comparison.md: tables of recipes beside reported accuracies, of runs, of what detect.py and
verify.py measured, and those of ablate.py; accuracy-DATASET.png (accuracies beside the reported ones,
and by epoch); and, where runs have what it takes, feature-maps.png (one map of each MNIST recipe, in a row),
feature-maps-all.png (those of all runs) and covariance.png (log-determinant and smallest variance of
trained covariances by epoch). With --page the tables go between the lines `<!-- table: TITLE -->` and
`<!-- end -->` of a page instead. With --html, feature-maps.html shows the feature spaces of runs that
were trained with --plotting side by side, epoch by epoch.
"""

import re
from pathlib import Path
from typing import Callable

from boltons.fileutils import atomic_save

from training import errors
from training.config.options import Parser
from training.errors import UserError, naming
from training.runs import comparison_plots, feature_page, plots, tables
from training.runs.features import Snapshot
from training.runs.folder import RunFolder, check_writable, write_text
from training.runs.run import Run, by_recipe, read_runs

ROW = {  # recipes of configs/mnist in the row of feature maps, and their titles there
    'softmax': 'softmax',
    'softmax-center': 'softmax + center loss',
    'center': 'center loss alone',
    'lgm-off': 'L-GM, no likelihood',
    'lgm-distance': 'L-GM, distance',
    'lgm-full': 'L-GM, full likelihood',
}
ABLATION = 'ablation.md'


def expand(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Folders of runs, and of ablations, that the paths on the command line stand for.

    A folder without a run stands for the runs and ablations in it. Files are left out, as a shell's
    * also names those beside the runs, and so are runs in their first epoch, if there are others.
    """
    folders, ablations = [], []
    for path in dict.fromkeys(paths):
        with naming(path):
            if path.is_file():
                continue
            inside = sorted(path.iterdir()) if path.is_dir() and not RunFolder(path).config.exists() else []
            runs = [child for child in inside if RunFolder(child).config.exists()]
            plans = [child for child in (path, *inside) if (child / ABLATION).exists()]
            folders += runs if runs or plans else [path]
            ablations += plans
    begun = [
        path for path in folders if RunFolder(path).config.exists() and not RunFolder(path).metrics.exists()
    ]
    if not folders and not ablations:
        raise UserError(f'{paths[0]}: a run folder is expected')
    for path in begun if len(begun) < len(folders) else ():
        print(f'{path}: left out, it has not ended its first epoch')
        folders.remove(path)
    return folders, ablations


def all_tables(runs: list[Run], ablations: list[Path]) -> dict[str, str]:
    """{title: Markdown table} of runs and of ablation folders."""
    written = {}
    for data in dict.fromkeys(run.data for run in runs):
        group = [run for run in runs if run.data == data]
        photographs = group[0].recipe.data.dataset == 'images'
        by_seeds = tables.photograph_table if photographs else tables.recipe_table
        written[f'{data} by recipe'] = by_seeds(by_recipe(group))
        written[f'{data} run by run'] = tables.run_table(group)
    for repeats in by_recipe(runs):
        if repeats.redoes_v6:
            written['v6 beside its published plot'] = tables.published_table(repeats.first)
    for repeats in by_recipe(run for run in runs if 'detection' in run.summary):
        written[f'AUROC under {repeats.name}'] = tables.detection_table(repeats.runs)
    verified = [run for run in runs if 'verification' in run.summary]
    for data in dict.fromkeys(run.summary['verification']['data'] for run in verified):
        same = (run for run in verified if run.summary['verification']['data'] == data)
        written[f'Verification on {data}'] = tables.verification_table(by_recipe(same))
    for path in ablations:
        written[f'ablation {path.name}'] = (path / ABLATION).read_text()
    return written


def all_figures(runs: list[Run]) -> dict[str, tuple[Callable, list]]:
    """{file name: (function that draws it, its content)} of runs."""
    figures: dict[str, tuple[Callable, list]] = {}
    for data in dict.fromkeys(run.data for run in runs):
        groups = by_recipe(run for run in runs if run.data == data)
        dataset = groups[0].first.recipe.data.dataset
        name = dataset if dataset != 'images' else re.sub(r'\W+', '-', data.lower())
        figures[f'accuracy-{name}.png'] = comparison_plots.accuracies, groups
    trained = by_recipe(run for run in runs if 'mean_log_det' in run.metrics[0])
    if trained:
        figures['covariance.png'] = comparison_plots.covariances, trained
    mapped = [run for run in runs if run.on_mnist and run.folder.features.exists()]
    if mapped:
        figures['feature-maps-all.png'] = plots.feature_maps, [feature_map(run) for run in mapped]
    firsts = {run.summary['version']: run for run in reversed(mapped)}
    row = [feature_map(firsts[version], title) for version, title in ROW.items() if version in firsts]
    if row:
        figures['feature-maps.png'] = plots.feature_row, row
    return figures


def html_page(runs: list[Run]) -> dict[str, tuple]:
    """As `all_figures`, the page of the runs whose features were recorded; UserError without any."""
    recorded = [run for run in runs if feature_page.has_record(run.folder)]
    if not recorded:
        raise UserError('--html: no run given has recorded features; train with --plotting')
    for run in runs:
        if run not in recorded:
            print(f'{run.folder.path}: left out of feature-maps.html, it was trained without --plotting')
    return {'feature-maps.html': (feature_page.write, [(run.name, run.folder.path) for run in recorded])}


def feature_map(run: Run, title: str = '') -> plots.FeatureMap:
    """The panel of a run's test features; its title, unless given, has name and accuracies."""
    flat = Snapshot.load(run.folder.features).in_plane()
    last = run.metrics[-1]
    row = next((row for row in run.metrics if row['epoch'] == flat.epoch), last)
    facts = [f'accuracy {row["val_acc"]:.4f}']
    if 'knn_acc' in row:
        facts.append(f'nearest center {row["knn_acc"]:.4f}')
    if row is not last:  # the run went on without --plotting
        facts.insert(0, f'epoch {row["epoch"]:.0f}')
    title = title or f'{run.name}\n{", ".join(facts)}'
    return plots.FeatureMap(title, flat.test_features, flat.test_labels, flat.centers, flat.deviations)


def fill(page: Path, written: dict[str, str]) -> str:
    """The text of a page with its tables replaced; says which tables it has no place for."""
    missing = dict(written)

    def replace(match: re.Match) -> str:
        title = match[1]
        if title not in written:
            raise UserError(f'{page}: no run given is of the table {title}; there are {", ".join(written)}')
        missing.pop(title, None)
        return f'<!-- table: {title} -->\n{written[title]}<!-- end -->'

    text = re.sub(r'<!-- table: (.*?) -->\n.*?<!-- end -->', replace, page.read_text(), flags=re.DOTALL)
    for title in missing:
        print(f'{page}: has no place for the table "{title}"')
    return text


def make_parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='run folders, or folders of them')
    parser.add_argument('--page', type=Path, help='Markdown page whose tables to replace')
    parser.add_argument(
        '--html', action='store_true', help='also write feature-maps.html, where samples can be pointed at'
    )
    parser.add_argument(
        '--output-dir', type=Path, default=Path('output'), help='where to write (default output)'
    )
    return parser


def main(argv: list[str]) -> int:
    options = make_parser().parse_args(argv)
    check_writable(options.output_dir)
    folders, ablations = expand(options.runs)
    runs = read_runs(folders)
    written, figures = all_tables(runs, ablations), all_figures(runs)
    if options.html:
        figures.update(html_page(runs))
    page = options.page or options.output_dir / 'comparison.md'
    text = ''.join(f'## {title}\n\n{table}\n' for title, table in written.items())
    if options.page:
        with naming(options.page):
            text = fill(options.page, written)
            write_text(options.page, text)
    else:
        print(text)
    with naming(options.output_dir, '; choose another --output-dir'):
        options.output_dir.mkdir(parents=True, exist_ok=True)
        if not options.page:
            write_text(page, text)
        for name, (draw, content) in figures.items():
            with atomic_save(str(options.output_dir / name), overwrite_part=True) as part:
                draw(part, content)
    print('written:', ', '.join(map(str, (page, *(options.output_dir / name for name in figures)))))
    return 0


if __name__ == '__main__':
    errors.exit_with(main)
