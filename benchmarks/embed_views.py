"""Features of a task averaged over views of its pictures, beside those that train_representation.py left in a folder.

    python benchmarks/embed_views.py runs/glyphs conv4-glyphs --task glyphs --views handwriting

FOLDER gets train-views.safetensors, val-views.safetensors and test-views.safetensors, in the order of the rows of
train.safetensors ..., in float16: each the mean over the views of augforge.representations.bank, or over a picture and
`--n-views` bends of it where `--views` is a classical preset. PART is the representation, a shipped name or a folder.
Then `imagination.py FOLDER --views` reads them, in every arm.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from train_representation import open_banks

from augforge.bench.features import preset_views
from augforge.data.features import write_features
from augforge.parts.saving import open_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions


def main() -> None:
    """Embed and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("part")
    parser.add_argument("--task", required=True)
    parser.add_argument("--views", default="handwriting")
    parser.add_argument("--n-views", type=int, default=10)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    part = open_part(options.part, kind="representation")
    task = open_banks(options.task, options.data_root, 0)
    wanted = BankOptions(views=options.views, n_views=options.n_views)
    for split, bank in (("val", task.val), ("test", task.novel), ("train", task.base)):
        assert bank is not None
        found = embed_bank(part, bank, wanted, views=preset_views(wanted))
        path = options.folder / f"{split}-views.safetensors"
        write_features(path, replace(found, x=found.x.half()))
        print(f"{path}: {len(found.y)} rows", flush=True)


if __name__ == "__main__":
    main()
