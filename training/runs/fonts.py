"""Figures whose texts, such as the names of runs, may be in any script."""

from functools import cache
from typing import Any, Optional

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

USUAL = 'DejaVu Sans'  # matplotlib's own font


def save_png(figure: Figure, file: Any, dpi: int) -> None:
    """Write a figure as PNG; letters that its font lacks come from one that has them.

    Where no installed font does, as for Chinese without any such font, the letter's code is written.
    """
    for text in figure.findobj(Text):
        families = {letter: _family(letter) for letter in text.get_text() if not letter.isspace()}
        for letter in (letter for letter, family in families.items() if family is None):
            text.set_text(text.get_text().replace(letter, f'\\u{ord(letter):04x}'))
        if any(families.values()):
            text.set_fontfamily([USUAL, *dict.fromkeys(filter(None, families.values()))])
        if '$' in text.get_text():  # a run's name may hold some
            text.set_parse_math(False)
    figure.savefig(file, format='png', dpi=dpi)


@cache
def _family(letter: str) -> Optional[str]:
    """An installed font family that has a letter: '' for the usual one, None where there is none."""
    if ord(letter) in _letters(font_manager.findfont(USUAL)):
        return ''
    fonts = font_manager.fontManager.ttflist
    return next((font.name for font in fonts if ord(letter) in _letters(font.fname)), None)


@cache
def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or not one that it can draw
        return frozenset()
