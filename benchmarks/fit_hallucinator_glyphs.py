"""Make the shipped part `hallucinator-glyphs`: our hallucinator, for features of the shipped `conv4-glyphs`.

    python benchmarks/fit_hallucinator_glyphs.py [--seed 0] [--out augforge/weights/hallucinator-glyphs]

It learns from the scripts of "train" and the Cyrillic letters of "val"; the novel scripts of "test" are not looked
at. part.json tells the command, the seed and what was seen while fitting. Make it anew whenever conv4-glyphs changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from augforge.episodes.named_tasks import open_task
from augforge.generators.hallucinator import Hallucinator
from augforge.machine import machine, versions
from augforge.parts.saving import made_by, open_part, save_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions

WEIGHTS = Path(__file__).parent.parent / "augforge" / "weights" / "hallucinator-glyphs"


def main() -> None:
    """Fit, save, and write down how it was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    task, representation = open_task("glyphs"), open_part("conv4-glyphs", None, "representation")
    assert task.val is not None
    base, val = (embed_bank(representation, bank, BankOptions()) for bank in (task.base, task.val))
    part = Hallucinator().fit(base, torch.Generator().manual_seed(options.seed), val)
    save_part(part, options.out)
    record = json.loads((options.out / "part.json").read_text())
    score = "; ".join(f"{seen['shot']} shots: {seen['gain']:+.2f} points over the best plain classifier"
                      for seen in part.history)  # fmt: skip
    record["made_by"] = {"command": " ".join(["python", *sys.argv]), "seed": options.seed,
                         "score": f"on held-out halves of val, {score}", "representation": made_by(representation),
                         "machine": machine(), "versions": versions()}  # fmt: skip
    (options.out / "part.json").write_text(json.dumps(record, indent=2) + "\n")
    print(record["made_by"]["score"])


if __name__ == "__main__":
    main()
