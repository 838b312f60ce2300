"""The run folder: what ran, epoch by epoch, and what came of it."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Callable, Union

from boltons.fileutils import atomic_save
from filelock import FileLock, Timeout

from training.config import recipe as recipes
from training.config.schema import Recipe
from training.errors import UserError, naming
from training.runs import plots

ADDED = 'detection', 'test', 'verification'  # to a summary, by other commands than the training


class RunFolder:
    """Paths and writers of one run's files; every file is replaced atomically.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        path = Path(path)
        self.path = path if path.name.strip('.') else path.resolve()  # `.` has no name to change
        self.config = self.path / 'config.yaml'
        self.checkpoint = self.path / 'checkpoint.npz'
        self.best_weights = self.path / 'best.params'
        self.last_weights = self.path / 'last.params'
        self.metrics = self.path / 'metrics.csv'
        self.summary = self.path / 'summary.json'
        self.features = self.path / 'features.npz'
        self.animation = self.path / 'features.gif'
        self.feature_page = self.path / 'features.html'
        self.sample = self.path / 'features' / 'sample.npz'
        self.detection = self.path / 'detection.json'
        self.verification = self.path / 'verification.json'

    @property
    def weights(self) -> Path:
        """The last weights, whose figures summary.json holds; the best ones of an unfinished run."""
        return self.last_weights if self.last_weights.exists() else self.best_weights

    @property
    def frames(self) -> list[Path]:
        """Paths of the feature maps there are, epoch by epoch."""
        return self._by_epoch('.png')

    @property
    def snapshots(self) -> list[Path]:
        """Paths of the recorded features, epoch by epoch."""
        return self._by_epoch('.npz')

    def _by_epoch(self, ending: str) -> list[Path]:
        return sorted((self.path / 'features').glob(f'epoch-*{ending}'), key=epoch_of)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from, be it the one before the last."""
        return any(self.path.glob('checkpoint*.npz'))

    def start(self, recipe: Recipe) -> AbstractContextManager:
        """Make the folder for a new run; an earlier run in it is moved aside, never overwritten.

        Returns, raises
        ---------------
        As `lock`.
        """
        with naming(self.path, '; choose another --output-dir'):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self.lock()
            if self.config.exists():
                with lock:
                    number = 1
                    while (aside := self.path.with_name(f'{self.path.name}.{number}')).exists():
                        number += 1
                    self.path.rename(aside)
                print(f'the earlier run in {self.path} is now in {aside}')
                self.path.mkdir(exist_ok=True)
                lock = self.lock()
            write_text(self.config, recipes.to_yaml(recipe), overwrite=False)
        return lock

    def lock(self) -> AbstractContextManager:
        """Keep all other processes from training in this folder.

        Returns
        -------
        context manager
            The folder is free again at its end, or when this process ends.

        Raises
        ------
        UserError
            If another process trains there, or the folder cannot hold a lock.
        """
        try:
            return FileLock(self.path / '.lock', thread_local=False).acquire(timeout=0)
        except Timeout:
            raise UserError(
                f'{self.path}: another process is training in this folder; wait for it, '
                'or choose another --output-dir'
            ) from None
        except OSError as error:
            raise UserError(
                f'{self.path}: cannot be locked ({error.strerror}); choose another --output-dir'
            ) from None

    def require_run(self) -> Path:
        """Path of the config.yaml of the run in this folder; UserError where there is none."""
        with naming(self.path):
            if not self.config.is_file():
                raise UserError(f'{self.path}: there is no run in this folder')
        return self.config

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context in which a file that cannot be written is a UserError that says how to go on."""
        try:
            yield
        except OSError as error:
            way = 'continue from the last checkpoint with --resume' if self.has_checkpoint else 'start again'
            raise UserError(
                f'{error.filename or self.path}: cannot be written ({error.strerror or error}); stopped. '
                f'Once that is mended, {way}'
            ) from None

    def write_metrics(self, history: list[dict]) -> None:
        """metrics.csv from a list of rows, dicts, any of which may lack columns that others have."""
        text = io.StringIO()
        columns = dict.fromkeys(name for row in [history[-1], *history] for name in row)
        writer = csv.DictWriter(text, list(columns), lineterminator='\n')
        writer.writeheader()
        for row in history:
            writer.writerow(
                {name: f'{value:.6g}' if isinstance(value, float) else value for name, value in row.items()}
            )
        write_text(self.metrics, text.getvalue())

    def write_summary(self, summary: dict[str, Any]) -> None:
        self.write_report(self.summary, summary)

    def read_summary(self) -> dict[str, Any]:
        """What `write_summary` wrote; UserError if it is not there or damaged."""
        try:
            summary = json.loads(self.summary.read_text())
            if not isinstance(summary, dict):
                raise ValueError('no JSON object')
            return summary
        except FileNotFoundError:
            raise UserError(f'{self.summary}: is missing; the run is not finished') from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f'{self.summary}: damaged ({error})') from None

    def found_since(self, epochs: int) -> dict[str, Any]:
        """What other commands have added to the summary of a run of so many epochs, as a dict."""
        try:
            summary = self.read_summary()
        except UserError:
            return {}
        return {name: summary[name] for name in ADDED if name in summary and summary.get('epochs') == epochs}

    def read_calibration(self) -> tuple[float, dict[str, float]]:
        """What the summary holds for judging likelihoods: (spread, {false-alarm rate: threshold}).

        Of a run that has none, (1.0, {}).
        """
        summary = self.read_summary() if self.summary.exists() else {}
        spread = summary.get('likelihood_spread', 1.0)
        thresholds = summary.get('likelihood_thresholds', {})
        if (
            not isinstance(spread, float)
            or not spread > 0
            or not isinstance(thresholds, dict)
            or not all(isinstance(value, float) for value in thresholds.values())
        ):
            raise UserError(f'{self.summary}: damaged (likelihood_spread or likelihood_thresholds)')
        return spread, thresholds

    def write_report(self, path: Path, report: dict[str, Any]) -> None:
        """One of the folder's JSON files from a dict."""
        write_text(path, json.dumps(report, indent=2) + '\n')

    def write_figure(self, name: str, draw: Callable, *content: Any) -> None:
        """Have `draw(file, *content)` write the file of this name below the folder.

        For training.runs.background_plots too: it can be pickled where `draw` and its content can.
        """
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        with atomic_save(str(path), overwrite_part=True) as part:
            draw(part, *content)

    def animate_features(self) -> None:
        """features.gif from all feature maps there are, if any."""
        if self.frames:
            self.write_figure(self.animation.name, plots.animation, self.frames)

    def event_writer(self, epochs_done: int) -> Any:
        """A tensorboardX writer that replaces events of epochs not yet done."""
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self.path / 'tensorboard'), purge_step=epochs_done + 1)


def epoch_of(path: Path) -> int:
    """The epoch in the name of a file of features."""
    return int(path.stem.partition('-')[2])


def check_writable(folder: Path, option: str = '--output-dir') -> None:
    """Find out, before any long work, whether files can be written into a folder.

    It need not exist. Nothing is left behind.

    Raises
    ------
    UserError
        If they cannot; asks for another value of the option.
    """
    missing = []
    try:
        with naming(folder, f'; choose another {option}'):
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()


def write_text(path: Path, text: str, overwrite: bool = True) -> None:
    """Write a text file whole or not at all; OSError if there is one that must not be replaced."""
    with atomic_save(str(path), text_mode=True, overwrite=overwrite, overwrite_part=True) as part:
        part.write(text)
