"""Fine-tuning against logistic regression on frozen features, on the same photographs; and the four steps of a recipe.

    AUGFORGE_DATA=DIR python benchmarks/finetuning.py --sets caltech101_small --shots 5,20 --seeds 0,1,2
    AUGFORGE_DATA=DIR python benchmarks/finetuning.py --recipe --sets dogs_vs_cats_small_s160 --shots 20

Every cell trains on `--shots` pictures of each class, or as many as there are, and is tested on `--query` others; of
gtsrb_small no track is on both sides. "frozen" is `photos` with logistic regression, "tuned" is `photos` fine-tuned on
the same pictures, with logistic regression on its features (what is held out to end it early is of other tracks too).
`--recipe` adds a network from scratch, an MLP on frozen features, and logistic regression on frozen features of the
pictures and four augmented copies of each. Rows are appended to results/finetuning.jsonl as they come: accuracy in
percent, and the seconds of learning and embedding, by the clock and of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from data_sets import RESULTS, append
from torch import Tensor

from augforge import chance
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.mlp import Mlp
from augforge.data.banks import AnyBank, keep_rows, take_rows
from augforge.data.selection import group_numbers, grouped
from augforge.data.source import open_source
from augforge.generators.classical import Classical
from augforge.parts import catalog
from augforge.parts.learning import learn
from augforge.training.loop import Run
from augforge.types import Examples

TRACK = r"(\d{5})_\d+"  # of gtsrb_small: frames of one track are near-copies
COPIES = 4


def main() -> None:
    """Measure and append."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", default="dogs_vs_cats_small_s160,caltech101_small,gtsrb_small")
    parser.add_argument("--shots", default="5,20")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--way", type=int, default=20)
    parser.add_argument("--query", type=int, default=10, help="of each class")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="of fine-tuning")
    parser.add_argument("--recipe", action="store_true", help="the other three steps too")
    parser.add_argument("--minutes", type=float, default=1e9, help="no cell is begun after that time")
    options = parser.parse_args()
    settings = dict(catalog.read_assignment(text) for text in options.settings)
    started = time.monotonic()
    for seed in map(int, options.seeds.split(",")):
        for shot in map(int, options.shots.split(",")):
            for name in options.sets.split(","):
                if time.monotonic() - started > 60 * options.minutes:
                    print(f"not run: {name}, {shot} shots, seed {seed}", flush=True)
                    continue
                support, query = sides(name, options.way, shot, options.query, seed)
                facts = {"set": name, "way": len(support.classes), "shot": shot, "queries": len(query.y), "seed": seed}
                given = settings | ({"flip": "false"} if name == "gtsrb_small" else {})
                for row in measure(support, query, given, seed, options.recipe):
                    append(RESULTS / "finetuning.jsonl", [row], facts)
                    print(facts | row, flush=True)


def sides(name: str, way: int, shot: int, n_query: int, seed: int) -> tuple[Any, Any]:
    """The support and the queries of a set, of the same `way` classes."""
    banks: dict[str, Any] = open_source(Path(os.environ["AUGFORGE_DATA"]) / f"{name}.tar")
    if len(banks) > 1:
        return pick(banks["train"], shot, seed), pick(banks["val"], n_query, 0)
    (bank,) = banks.values()
    order = chance.uniform(chance.row_keys(seed, "classes", torch.arange(len(bank.classes)))).argsort()
    bank = bank.only([bank.classes[k] for k in sorted(order[:way].tolist())])
    if name == "gtsrb_small":
        tracks = group_numbers(grouped(bank, TRACK))
        assert tracks is not None
        tracks = bank.y * len(tracks) + tracks
    else:
        tracks = torch.arange(len(bank.y))
    query_side = torch.zeros(len(bank.y), dtype=torch.bool)
    for k in range(len(bank.classes)):
        mine = tracks[bank.y == k].unique()
        order = chance.uniform(chance.row_keys(seed, "tracks", mine)).argsort()
        sizes = torch.stack([(tracks == track).sum() for track in mine[order]]).cumsum(0)
        count = int((sizes < n_query).sum()) + 1  # the fewest tracks that have so many pictures
        query_side |= torch.isin(tracks, mine[order[:count]])
    rows = torch.arange(len(bank.y))
    support = pick(keep_rows(bank, rows[~query_side]), shot, seed)
    if name == "gtsrb_small":
        support = grouped(support, TRACK)  # so that those held out in training are of other tracks too
    return support, pick(keep_rows(bank, rows[query_side]), n_query, seed)


def pick(bank: AnyBank, count: int, seed: int) -> Any:
    """So many rows of each class."""
    order = chance.uniform(chance.row_keys(seed, "rows", torch.arange(len(bank.y)))).argsort()
    rows = torch.cat([order[bank.y[order] == k][:count] for k in range(len(bank.classes))])
    return take_rows(bank, rows.sort().values)  # type: ignore[type-var]


def measure(support: Any, query: Any, settings: dict[str, str], seed: int, recipe: bool) -> Any:
    """The rows of a cell, as they come."""
    folder = Path(tempfile.mkdtemp())
    asked = {"finetune": "last", **settings}
    arms: dict[str, tuple[str, dict[str, str], Any]] = {
        "frozen": ("photos", {}, Logistic()),
        "tuned": ("photos", asked, Logistic()),
    }
    if recipe:
        arms = {
            "scratch": ("conv4", {"size": "64", "augment": "colour"}, Logistic()),
            "bottleneck-mlp": ("photos", {}, Mlp()),
            "frozen-augmented": ("photos", {}, Logistic()),
        } | arms
    x, y = pictures(support)
    unseen, truth = pictures(query)
    for name, (method, given, classifier) in arms.items():
        started, cpu = time.monotonic(), time.process_time()
        representation = learn(catalog.make(method, given, "representation"), support,
                               torch.Generator().manual_seed(seed), None, Run(folder=folder / name))  # fmt: skip
        shown, labels = augmented(x, y, seed) if name == "frozen-augmented" else (x, y)
        examples = Examples(representation.embed(shown), labels)
        found = classifier.scores(examples, representation.embed(unseen)).argmax(1)
        row: dict[str, Any] = {"arm": name, "accuracy": round(100 * float((found == truth).float().mean()), 2),
               "seconds": round(time.monotonic() - started, 1),
               "cpu_seconds": round(time.process_time() - cpu, 1)}  # fmt: skip
        if name == "tuned":
            curve = json.loads((folder / name / "learning-rate.json").read_text(encoding="utf-8"))
            row |= {
                "settings": asked,
                "steps": representation.steps,
                "kept_start": bool(representation.alarms),
                "lr": curve["chosen"],
            }
        yield row


def pictures(bank: AnyBank) -> tuple[list[Tensor], Tensor]:
    """All pictures of a bank and their labels."""
    examples = bank.examples(torch.arange(len(bank.y)))
    return list(examples.x), examples.y


def augmented(x: list[Tensor], y: Tensor, seed: int) -> tuple[list[Tensor], Tensor]:
    """The pictures and COPIES augmented ones of each, made as `synth` makes them of photographs."""
    want = y.repeat(COPIES)
    keys = chance.row_keys(seed, "copies", torch.arange(len(want)))
    made = Classical("photographs").synthesize(Examples(x, y), want, keys)
    return [*x, *made.x], torch.cat([y, made.y])


if __name__ == "__main__":
    main()
