"""Run the notebooks of this folder and keep what their cells print and draw, as small PNG.

    python docs/notebooks/run.py [NAME.ipynb ...]

The cells of a notebook run in their order in one namespace; Jupyter is not needed. The tests run them in the same way.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

FOLDER = Path(__file__).parent
_DPI, _COLOURS = 72, 64  # of the figures: a few kB each


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook (nbformat 4)."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def run(path: Path) -> tuple[list[list[dict[str, Any]]], dict[str, Any]]:
    """Run the code of a notebook; the outputs of each of its code cells, and the names that it left."""
    mpl.use("Agg", force=True)
    from matplotlib import pyplot as plt

    names: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    for number, cell in enumerate(cell for cell in cells_of(path) if cell["cell_type"] == "code"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), names)
        found = [{"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)}]
        found = found if printed.getvalue() else []
        for figure in map(plt.figure, plt.get_fignums()):
            data = {"image/png": _small_png(figure), "text/plain": ["<Figure>"]}
            found.append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")
        outputs.append(found)
    return outputs, names


def _small_png(figure: Any) -> str:
    """A figure as PNG of few colours, in base64."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def write(path: Path, outputs: list[list[dict[str, Any]]]) -> None:
    """Keep the outputs of the code cells in a notebook, which has no other trace of having been run."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell, found in zip(code, outputs, strict=True):
        cell["outputs"], cell["execution_count"] = found, None
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for one in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        write(one, run(one)[0])
