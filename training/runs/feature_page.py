"""features.html: the feature space of one run or of several, epoch by epoch, on a page of its own."""

import base64
import gzip
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from contourpy import contour_generator

from training.errors import UserError
from training.runs.features import Snapshot, principal_axes
from training.runs.folder import RunFolder
from training.runs.sample import COLUMNS, Sample

PARTS = Path(__file__).with_name('page')
STEPS = 2**16 - 1  # of a coordinate, between its lowest and highest value of an epoch
OUTSIDE = 5  # percent of the test images that lie outside the contour of the likelihood
GRID = 2**21  # classes times points on which the likelihood is evaluated for a contour


def has_record(folder: RunFolder) -> bool:
    """Whether a run has what the page needs: features of its epochs, and their images."""
    return bool(folder.snapshots) and folder.sample.exists()


def write(file: IO[bytes], runs: Sequence[tuple[str, Path]]) -> None:
    """Write the page of runs to a binary file.

    It needs no network: Bokeh's script, the images and the points are in it.

    Parameters
    ----------
    file : binary file
    runs : sequence of (str, Path)
        Titles and folders; each `has_record`.

    Raises
    ------
    UserError
        If the runs are of different images, or a file is damaged.
    """
    from bokeh.embed import json_item
    from bokeh.resources import Resources

    samples = [Sample.load(RunFolder(path).sample) for _, path in runs]
    for (_, path), other in zip(runs, samples):
        if other.digest != samples[0].digest:
            raise UserError(
                f'{path}: its images are not those of {runs[0][1]}; runs on one page must share data set, '
                '--holdout and --num-samples'
            )
    records = [
        _record(name, [Snapshot.load(file) for file in RunFolder(path).snapshots]) for name, path in runs
    ]
    sample = samples[0]
    content = {
        'runs': records,
        'maps': [json_item(_figure(number)) for number in range(len(runs))],
        'classes': sample.class_names.tolist(),
        'test': sample.test_name,
        'sheet': base64.b64encode(sample.sheet.tobytes()).decode(),
        'tile': sample.tile.tolist(),
        'columns': COLUMNS,
    }
    page = (PARTS / 'features.html').read_text()
    for place, text in (
        ('title', html.escape(', '.join(name for name, _ in runs))),
        ('style', (PARTS / 'features.css').read_text()),
        ('bokeh', Resources('inline', components=['bokeh']).render_js()),
        ('content', json.dumps(content, separators=(',', ':')).replace('<', '\\u003c')),
        ('script', (PARTS / 'features.js').read_text()),
    ):
        page = page.replace(f'<!-- {place} -->', text)
    file.write(page.encode(errors='backslashreplace'))


def _record(name: str, snapshots: list[Snapshot]) -> dict[str, Any]:
    """What the page holds of a run."""
    last = snapshots[-1]
    axes, share = principal_axes(last.train_features)
    views = [_View(snapshot, axes) for snapshot in snapshots]
    most_classes = 2**8
    kind = np.uint8 if max(view.snapshot.predicted.max() for view in views) < most_classes else np.uint16
    likelihoods = [view.snapshot.log_likelihood for view in views]
    return {
        'name': name,
        'dimensions': last.dimensions,
        'share': share,
        'train': len(last.train_labels),
        'labels': np.concatenate([last.train_labels, last.test_labels]).tolist(),
        'epochs': [view.outline() for view in views],
        'points': _pack([view.steps() for view in views], np.uint16),
        'predicted': _pack([view.snapshot.predicted for view in views], kind),
        'classBytes': np.dtype(kind).itemsize,
        'probability': _pack([view.snapshot.probability * STEPS for view in views], np.uint16),
        'likelihood': None if last.log_likelihood is None else _pack(likelihoods, np.float32),
    }


def _pack(arrays: Sequence[np.ndarray], kind: Any) -> str:
    """Arrays of one shape, compressed, as text."""
    array = np.stack(arrays)
    if kind is np.float32:  # 12 bits are three digits
        array = (array.astype(np.float32).view(np.uint32) + 0x800 & 0xFFFFF000).view(np.float32)
    else:
        array = np.rint(array)
    return base64.b64encode(gzip.compress(array.astype(kind).tobytes(), 6, mtime=0)).decode()


class _View:
    """A snapshot on two axes (D, 2)."""

    def __init__(self, snapshot: Snapshot, axes: np.ndarray) -> None:
        self.snapshot, self._axes = snapshot, axes
        features = np.concatenate([snapshot.train_features, snapshot.test_features])
        self.points = np.nan_to_num(features.astype(np.float64) @ axes)
        self.low, self.high = self.points.min(axis=0), self.points.max(axis=0)
        self.high = np.where(self.high > self.low, self.high, self.low + 1)

    def steps(self) -> np.ndarray:
        """The points, (2, N), from 0 to STEPS."""
        return ((self.points - self.low) / (self.high - self.low) * STEPS).T

    def outline(self) -> dict[str, Any]:
        """All but the points, in coordinates of the map."""
        snapshot = self.snapshot
        about = {'epoch': snapshot.epoch, 'low': _short(self.low), 'high': _short(self.high)}
        if snapshot.centers is None:
            return about
        means = np.nan_to_num(snapshot.centers.astype(np.float64) @ self._axes)
        about['centers'] = _short(means.T)
        if snapshot.deviations is None:
            return about
        variances = snapshot.deviations.astype(np.float64) ** 2
        covariances = np.einsum('di,kd,dj->kij', self._axes, variances, self._axes)
        values = np.linalg.eigvalsh(np.nan_to_num(covariances))
        if np.isfinite(covariances).all() and (values[:, 0] > 0).all():
            values, vectors = np.linalg.eigh(covariances)
            about['ellipses'] = _short(
                [*(2 * np.sqrt(values.T[::-1])), np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1])]
            )
            about['contour'] = self._contour(means, covariances * snapshot.spread)
        return about

    def _contour(self, means: np.ndarray, covariances: np.ndarray) -> list[list[list[float]]]:
        """Lines around where the mixture's density on the map is that of 95 % of the test images."""
        inverses = np.linalg.inv(covariances)
        offsets = np.log(self.snapshot.priors) - np.log(np.linalg.det(covariances)) / 2

        def density(points: np.ndarray) -> np.ndarray:
            total = np.full(len(points), -np.inf)
            for mean, inverse, offset in zip(means, inverses, offsets):
                apart = points - mean
                total = np.logaddexp(total, offset - ((apart @ inverse) * apart).sum(axis=1) / 2)
            return total

        level = np.percentile(density(self.points[len(self.snapshot.train_labels) :]), OUTSIDE)
        margin = (self.high - self.low) / 3
        side = int(np.clip((GRID / len(means)) ** 0.5, 64, 256))
        x, y = (np.linspace(*ends, side) for ends in zip(self.low - margin, self.high + margin))
        z = density(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).reshape(side, side)
        lines: Any = contour_generator(x, y, z).lines(level)
        return [_short(line.T) for line in lines]


def _short(values: Any) -> Any:
    """Numbers as a list, with six digits."""
    flat = np.asarray(values, dtype=np.float64)
    return np.array([float(f'{value:.6g}') for value in flat.ravel()]).reshape(flat.shape).tolist()


def _figure(number: int) -> Any:
    """An empty map; the page's script fills its sources, which it finds by their names."""
    from bokeh.models import ColumnDataSource, CustomJS, Range1d
    from bokeh.plotting import figure

    def source(name: str, columns: str) -> Any:
        return ColumnDataSource({column: [] for column in columns.split()}, name=name)

    plot = figure(
        name='map',
        sizing_mode='stretch_both',
        min_width=0,
        tools='pan,wheel_zoom',
        active_scroll='wheel_zoom',
        toolbar_location=None,
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        lod_threshold=None,
    )
    plot.ellipse(
        'x', 'y', 'width', 'height', 'angle',
        source=source('ellipses', 'x y width height angle colour'),
        fill_color='colour', fill_alpha=0.07, line_color='colour', line_width=1.5,
    )  # fmt: skip
    plot.scatter(
        'x', 'y', size='size', marker='marker',
        source=source('points', 'x y size marker colour alpha edge'),
        fill_color='colour', fill_alpha='alpha', line_color='edge', line_width=1.2,
    )  # fmt: skip
    plot.multi_line(
        'xs', 'ys', source=source('contour', 'xs ys'), name='contour-lines', line_dash='5 4', line_width=1.3
    )
    plot.multi_line(
        'xs', 'ys', source=source('trails', 'xs ys'), name='trail-lines', line_width=1.5, line_alpha=0.8
    )
    plot.scatter(
        'x', 'y', size=11, marker='cross', source=source('centers', 'x y'), name='center-marks', line_width=2
    )
    plot.text(
        'x', 'y', 'text',
        source=source('names', 'x y text'), name='name-marks',
        x_offset=7, y_offset=-5, background_fill_alpha=0.65, padding=1, border_radius=3,
        text_font_size='13px', text_font_style='bold', text_font={'value': 'system-ui, sans-serif'},
    )  # fmt: skip
    plot.scatter(
        'x', 'y', size='size',
        source=source('rings', 'x y size'), name='ring-marks', fill_alpha=0, line_width=2.5,
    )  # fmt: skip
    send = CustomJS(
        code='document.dispatchEvent(new CustomEvent("map", {detail: '
        f'{{map: {number}, kind: cb_obj.event_name, x: cb_obj.x, y: cb_obj.y}}}}))'
    )
    for event in ('mousemove', 'mouseleave', 'tap'):
        plot.js_on_event(event, send)
    return plot
