"""A class-conditional GAN on base classes: trained for some minutes, and what its pictures are like.

    python benchmarks/conditional_gan.py --task cifar-fs --minutes 15 --folder FOLDER --representation DIR --record

A second call with the same folder and settings goes on, or only measures. The measures compare, in the features of a
representation, made pictures with real ones of the same classes, beside other real pictures of them: Fréchet and kernel
distance, precision, recall, density, coverage, diversity within classes, and how many of the pictures lie nearest to
their own class's mean of all (top-1, of as many classes as there are). Rows go to results/conditional_gan.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import RESULTS, append
from torch import Tensor

from augforge import chance
from augforge.episodes.named_tasks import open_task
from augforge.imagine import more_of_each
from augforge.metrics.by_class import by_class
from augforge.metrics.coverage import density_coverage, precision_recall
from augforge.metrics.diversity import diversity
from augforge.metrics.frechet import frechet_distance
from augforge.metrics.kid import kid
from augforge.metrics.rows import squared_distances
from augforge.parts.catalog import make
from augforge.parts.saving import load_part, open_part, part_digest, save_part
from augforge.training.loop import Run
from augforge.types import Examples

_EACH = 100  # pictures of each class that are compared


def trained(base: Any, options: argparse.Namespace) -> Any:
    """The part, fitted for the minutes that are asked for; saved in FOLDER/part."""
    settings = dict(text.split("=", 1) for text in options.set)
    part = make("conditional-gan", settings)
    run = Run(options.device, options.folder, options.minutes)
    part.fit(base, torch.Generator().manual_seed(options.seed), None, run)
    save_part(part, options.folder / "part")
    return load_part(options.folder / "part")


def measured(part: Any, base: Any, representation: Any, seed: int) -> list[dict[str, Any]]:
    """A row for made pictures and one for other real ones."""
    way = len(base.classes)
    order = torch.argsort(chance.uniform(chance.row_keys(seed, "rows", torch.arange(len(base.y)))), stable=True)
    rows = [order[base.y[order] == label] for label in range(way)]
    real, other, rest = (torch.cat([r[i * _EACH : (i + 1) * _EACH] for r in rows]) for i in range(3))
    features = {name: representation.embed(base.examples(some).x) for name, some in (("real", real), ("other", other))}
    means = torch.stack([part.mean(0) for part in representation.embed(base.examples(rest).x).split(_EACH)])
    want = more_of_each(way, _EACH)
    keys = torch.cat([chance.row_keys(seed, name, torch.arange(_EACH)) for name in base.classes])
    like = Examples(base.examples(real[:1]).x, torch.tensor([0]))
    made = part.named(base.classes).synthesize(like, want, keys)
    features["made"] = representation.embed(made.x)
    return [row_of(name, features["real"], features[name], want, means) for name in ("made", "other")]


def row_of(name: str, real: Tensor, x: Tensor, y: Tensor, means: Tensor) -> dict[str, Any]:
    """All measures of rows x [n, d] of classes y [n] against real ones [n, d] of the same classes."""
    spread = by_class(diversity, [(real, y), (x, y)]).values.values()
    within = by_class(kid, [(real, y), (x, y)]).values.values()
    right = squared_distances(x, means).argmin(1) == y
    return {
        "set": name, "rows": len(x), "classes": len(means), "width": x.shape[1],
        "frechet": frechet_distance(real, x), "kid": kid(real, x), "kid_within_class": float(np.mean(list(within))),
        **vars(precision_recall(real, x)), **vars(density_coverage(real, x)),
        "diversity_within_class": float(np.median([each.ratio for each in spread])),
        "top1_by_class_mean": 100 * float(right.float().mean()),
    }  # fmt: skip


def main() -> None:
    """Train, measure, print, and record where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="glyphs")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--representation", default="conv4-glyphs")
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = open_task(options.task, options.data_root).base
    part = trained(base, options)
    name = options.representation
    opened = load_part(Path(name), "representation") if Path(name).is_dir() else open_part(name, None, "representation")
    rows = measured(part, base, opened, options.seed)
    for row in rows:
        print(row)
    if options.record:
        facts = {"task": options.task, "seed": options.seed, "minutes": options.minutes, "settings": options.set,
                 "representation": name, "generator": part_digest(part)}  # fmt: skip
        append(RESULTS / "conditional_gan.jsonl", rows, facts)


if __name__ == "__main__":
    main()
