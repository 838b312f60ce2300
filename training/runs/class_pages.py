"""What a run's folder says of classes: a table, a figure, and a page of the worst mistakes."""

import base64
import csv
import html
import io
from typing import Any, Callable

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from training.metrics.classes import ClassReport
from training.runs.folder import RunFolder, write_text
from training.runs.fonts import save_png

MISTAKES = 60
NAMED, NUMBERED = 60, 25  # classes whose names, and whose counts, have room in the figure
PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: mistakes</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; background: Canvas; color: CanvasText;
  color-scheme: light dark; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} img {{ width: 100%; border-radius: 4px; }} small {{ overflow-wrap: anywhere; }}
</style>
<h1>{title}: the surest mistakes</h1>
<p>{wrong} of {count} {split} images were taken for another class; here are the {shown} that the net was
surest of.</p>
<main>{figures}</main></html>
"""
FIGURE = """<figure><img alt="" src="data:image/jpeg;base64,{image}"><figcaption>{true}, taken for
<strong>{predicted}</strong> ({probability:.0%})<br><small>{file}</small></figcaption></figure>
"""


def write_classes(folder: RunFolder, report: ClassReport) -> None:
    """classes.csv: a row for each class."""
    text = io.StringIO()
    rows = report.rows()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder.path / 'classes.csv', text.getvalue())


def write_mistakes(
    folder: RunFolder,
    report: ClassReport,
    labels: np.ndarray,
    split: str,
    image: Callable[[int], np.ndarray],
    file_of: Callable[[int], str],
) -> None:
    """mistakes.html, a page with its images in it.

    Parameters
    ----------
    folder : training.runs.folder.RunFolder
    report : training.metrics.classes.ClassReport
    labels : int array (N,)
    split : str
        What the images are of, such as 'test'.
    image : callable
        Number to uint8 (3, H, W).
    file_of : callable
        Number to the file's name.
    """
    figures = [
        FIGURE.format(
            image=_jpeg(image(number)),
            true=html.escape(report.names[labels[number]]),
            predicted=html.escape(report.names[report.predicted[number]]),
            probability=report.probability[number],
            file=html.escape(file_of(number)),
        )
        for number in report.wrong[:MISTAKES]
    ]
    page = PAGE.format(
        title=html.escape(folder.path.name),
        wrong=len(report.wrong),
        count=len(labels),
        split=split,
        shown=len(figures),
        figures=''.join(figures),
    )
    write_text(folder.path / 'mistakes.html', page)


def _jpeg(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, 'JPEG', quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def class_figure(file: Any, report: ClassReport, title: str) -> None:
    """Write a PNG of the accuracy of each class and of the confusion matrix."""
    count = len(report.names)
    side = min(16.0, max(4.0, 1.5 + 0.32 * count))
    figure = Figure(figsize=(1.6 * side, side), layout='constrained')
    bars, matrix = figure.subplots(1, 2, width_ratios=(0.6, 1))
    order = np.argsort(np.nan_to_num(report.recalls, nan=-1))
    bars.barh(range(count), np.nan_to_num(report.recalls[order]), color='#44AA99')
    bars.axvline(report.top1, color='#332288', label=f'top-1 {report.top1:.3f}')
    bars.axvline(report.balanced, color='#CC6677', linestyle='--', label=f'balanced {report.balanced:.3f}')
    bars.set_xlim(0, 1)
    bars.set_xlabel('accuracy')
    bars.legend(loc='lower right', fontsize='small')
    with np.errstate(invalid='ignore'):
        shares = np.nan_to_num(report.confusion / report.counts[:, None])
    matrix.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    matrix.grid(False)
    matrix.set_xlabel('taken for')
    matrix.set_ylabel('class')
    if count <= NAMED:
        bars.set_yticks(range(count), [f'{report.names[k]} ({report.counts[k]})' for k in order])
        matrix.set_xticks(range(count), report.names, rotation=90)
        matrix.set_yticks(range(count), report.names)
    if count <= NUMBERED:
        for (row, column), images in np.ndenumerate(report.confusion):
            if images:
                colour = 'white' if shares[row, column] > 0.5 else 'black'
                matrix.text(column, row, images, ha='center', va='center', fontsize='small', color=colour)
    figure.suptitle(title)
    save_png(figure, file, dpi=90)
