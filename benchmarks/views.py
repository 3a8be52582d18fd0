"""What random views of the support gain as rows, before logistic regression and nearest means, on photographs.

    python benchmarks/views.py --data-root DIR [--set NAME]

Features are those of `photos`, of each picture alone ("none") or the mean over four crops of it, on both sides
("crops-4"). Beside every support picture its views stand, 8 of them in single features and 2 in averaged ones, as
`views` makes them by default; those of a class weigh one real row together, as `imagine.usual_share` says. The control
`copies` has the support itself again at that weight. There are up to 20 classes with 8 pictures each, of the signs each
of another track; they are those that benchmarks/pool.py reports on. Rows go to results/views.jsonl: gains over the same
classifier on the support alone, with 95 % intervals over classes.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from record import append, facts
from torch import Tensor

from augforge import chance
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import PictureBank, take_rows
from augforge.data.source import open_source
from augforge.generators.views import Views
from augforge.imagine import usual_share, weight_of_each
from augforge.parts.saving import open_part
from augforge.representations.bank import as_seen, averaged_features
from augforge.representations.options import BankOptions
from augforge.statistics import class_interval
from augforge.types import Examples, Family, capabilities

SETS = {"caltech101_small": (slice(20, 40), r"(.*)"), "gtsrb_small": (slice(1, 43, 2), r"(.*)_")}
CLASSES, PICTURES, WAY, QUERIES = 20, 8, 10, 3  # at most so many classes
MADE = {"none": 8, "crops-4": 2}  # views of each support picture
CLASSIFIERS = {"logistic": Logistic(C=100.0, normalise="l2"), "prototype": Prototype()}


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", choices=tuple(SETS))
    parser.add_argument("--shots", default="1,2,5")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    how = facts(given.seed)
    for name in given.sets or SETS:
        bank = pictures(name, given.data_root)
        for views in MADE:
            x, made = embedded(bank, views, given.seed)
            for shot in map(int, given.shots.split(",")):
                for row in measured(bank.y, (x, made), shot, given):
                    append("views", [{"set": name, "way": WAY, "views": views, "shot": shot, **row, **how}])


def pictures(name: str, root: Path) -> PictureBank:
    """Up to 20 classes with 8 pictures of each, no two of one group."""
    bank, (reported, group) = next(iter(open_source(str(root / f"{name}.tar"), None).values())), SETS[name]
    rows: list[int] = []
    found = 0
    for k in list(range(len(bank.classes)))[reported]:
        of_group = {re.match(group, bank.name(row))[1]: row for row in bank.rows_of(k).tolist()}  # type: ignore[index]
        if len(of_group) >= PICTURES and found < CLASSES:
            rows += sorted(of_group.values())[:PICTURES]
            found += 1
    return take_rows(bank, torch.tensor(rows))  # type: ignore[type-var, return-value]


def embedded(bank: PictureBank, views: str, seed: int) -> tuple[Tensor, Tensor]:
    """The features [n, d] of the pictures and [n, m, d] of the views that are made of each."""
    part, options = open_part("photos", None, "representation"), BankOptions(views=views, precision="float32")
    seen, real, made = as_seen(part, bank), [], []
    for row in range(len(bank)):
        shown = Examples(seen.examples(torch.tensor([row])).x, torch.zeros(1, dtype=torch.int64))
        want = torch.zeros(MADE[views], dtype=torch.int64)
        keys = chance.row_keys(seed, bank.name(row), torch.arange(len(want)))
        new = Views().synthesize(shown, want, keys).x
        real.append(averaged_features(part, shown.x, torch.tensor([row]), options))
        made.append(averaged_features(part, new, torch.arange(len(want)), options))
    return torch.cat(real), torch.stack(made)


def measured(y: Tensor, features: tuple[Tensor, Tensor], shot: int, given: argparse.Namespace) -> list[dict]:
    """A row for each classifier: its accuracy, and what views and copies gain."""
    x, made = features
    right: dict[tuple[str, str], list[Tensor]] = {}
    seen = []
    for i in range(given.episodes):
        rng = np.random.default_rng((given.seed, shot, i))
        classes = torch.from_numpy(rng.permutation(int(y.max()) + 1)[:WAY])
        rows = torch.stack([torch.from_numpy(rng.permutation((y == k).nonzero()[:, 0].numpy())) for k in classes])
        support, query = rows[:, :shot], rows[:, shot : shot + QUERIES]
        labels = torch.arange(WAY)[:, None]
        known = Examples(x[support.flatten()], labels.expand(WAY, shot).flatten())
        seen.append(classes)
        for name, classifier in CLASSIFIERS.items():
            family = capabilities(classifier).family
            new = made[support].flatten(0, 2)
            arms = {
                "plain": known,
                "copies": known + light(known.x, known.y, shot, family),
                "gain": known + light(new, labels.expand(WAY, len(new) // WAY).flatten(), shot, family),
            }
            for arm, shown in arms.items():
                answers = classifier.scores(shown, x[query.flatten()]).argmax(1).view(WAY, QUERIES)
                right.setdefault((name, arm), []).append(100 * (answers == labels).double().mean(1))
    rows_out = []
    for name in CLASSIFIERS:
        plain = torch.stack(right[name, "plain"])
        row: dict[str, object] = {"classifier": name, "episodes": given.episodes, "plain": float(plain.mean())}
        for arm in ("gain", "copies"):
            found = class_interval((torch.stack(right[name, arm]) - plain).numpy(), torch.stack(seen).numpy())
            row |= {arm: found.value, f"{arm}_ci95": [found.low, found.high]}
        rows_out.append(row)
    return rows_out


def light(x: Tensor | list[Tensor], y: Tensor, shot: int, family: Family) -> Examples:
    """Rows of which those of a class weigh together what made pictures do beside `shot` real ones."""
    real, count = torch.tensor(float(shot)), torch.tensor(len(y) / WAY)
    weight = weight_of_each(usual_share(family, real, pictures=True), real, count)
    return Examples(x, y, weight=weight.expand(len(y)))


if __name__ == "__main__":
    main()
