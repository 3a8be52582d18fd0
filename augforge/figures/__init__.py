"""How all figures of augforge are drawn: colours, sizes, and files of PNG, SVG and PDF that are the same each time.

A figure is a `matplotlib.figure.Figure` that a function made of records; nothing global of matplotlib is moved for
longer than a file is written, and matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augforge.data.durable import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
# Okabe and Ito's colours, which people with any colour vision tell apart; each with a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P")
INK, GREY, FAINT = "#222222", "#8a8a8a", "#d9d9d9"
_DPI = 150
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.labelsize": 9, "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
    "text.parse_math": False, "axes.unicode_minus": False, "svg.fonttype": "none", "svg.hashsalt": "augforge",
    "pdf.fonttype": 42,
}  # fmt: skip
_NO_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None}, "svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Producer": None}
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """The settings that a figure is made and written with."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")  # a name in a script that the font does not have
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; made within `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def folded(text: str, width: int) -> str:
    """Text on lines of at most `width` characters, cut behind words and commas where it can be; at most three lines."""
    lines = textwrap.wrap(
        re.sub(r",(?=\S)", ", ", text), width, break_on_hyphens=False, max_lines=3, placeholder=" ..."
    )
    return "\n".join(lines)


def as_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as "png", "svg" or "pdf"; the same bytes each time."""
    data = io.BytesIO()
    with style():
        figure.savefig(data, format=kind, dpi=_DPI, metadata=_NO_DATES[kind])
    return data.getvalue()


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png, STEM.svg and STEM.pdf, each whole or not at all; gives them. Raises OSError."""
    files = []
    for kind in FORMATS:
        path = stem.with_name(f"{stem.name}.{kind}")
        write_file(path, as_bytes(figure, kind))
        files.append(path)
    return files
