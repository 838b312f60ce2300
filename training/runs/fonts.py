"""Figures whose texts, such as the names of runs, may be in any script."""

import functools
import re
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

# Of the fonts with Chinese and Japanese characters, those that are installed; names of runs may need them.
FONTS = ['DejaVu Sans'] + sorted(
    {
        font.name
        for font in font_manager.fontManager.ttflist
        if re.search(
            'CJK|WenQuanYi|Source Han|IPA|Takao|Hiragino|PingFang|Heiti|YaHei|SimHei|Gothic', font.name
        )
    }
)
matplotlib.rcParams['font.family'] = FONTS


@functools.cache
def _characters() -> set[int]:
    """Numbers of the characters that FONTS have."""
    paths = [font_manager.findfont(name) for name in FONTS]
    return {number for path in paths for number in FT2Font(path).get_charmap()}


def save_png(figure: Figure, file: Any, dpi: int) -> None:
    """Write a figure as PNG, with an escape for each character that no font has, and no formulas in names."""
    for text in figure.findobj(Text):
        if text.get_text():  # ticks have none yet
            drawable = (
                letter if ord(letter) in _characters() or letter == '\n' else ascii(letter)[1:-1]
                for letter in text.get_text()
            )
            text.set_text(''.join(drawable))
            text.set_parse_math(False)
    figure.savefig(file, format='png', dpi=dpi)
