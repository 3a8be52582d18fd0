"""What made rows gain at their default weights, by data set, method, classifier and shot, also where the base classes
are of another domain than the novel ones.

    python benchmarks/row_table.py letters --data-root DIR [--with noise] [--classifier logistic] [--trials 200]
    python benchmarks/row_table.py caltech-letters --data-root DIR --kept build/row_table

SETS names the data sets: letters, also beside base classes of Caltech-101, and alphabets in features of the shipped
`conv4-glyphs`; photographs in those of `photos`; and with a folder of train_representation.py (`--folder`) CIFAR-FS,
and signs beside base classes of CIFAR-FS, in those of its network. Tracks of signs are kept apart. The gain of rows is
over the same classifier with nothing made, on the same episodes, and that of exact scores (classifier "gaussian") over
the plain classifier that is best on these very episodes; both with intervals over classes. Fitted methods stay in
`--kept`, one for each base. Appends to benchmarks/results/row_table.jsonl and prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from data_sets import RESULTS, append, open_data_set
from torch.nn import functional as F

from augforge import statistics
from augforge.bench.plan import BenchPlan
from augforge.bench.recipe_result import ends, percent
from augforge.bench.recipes import Recipe
from augforge.bench.run import Results, run
from augforge.data.banks import AnyBank, FeatureBank
from augforge.data.selection import Selection, grouped
from augforge.data.source import open_source
from augforge.episodes.named_tasks import open_task
from augforge.episodes.tasks import Task
from augforge.generators.nothing import Nothing
from augforge.parts import catalog
from augforge.parts.learning import learn
from augforge.parts.saving import open_part, save_part
from augforge.representations.bank import embed_bank
from augforge.representations.options import BankOptions

_L2 = {"C": 100.0, "normalise": "l2"}  # as `predict` reads rows
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "prototype": ("prototype", {}),
    "prototype-cosine": ("prototype", {"distance": "cosine"}),
    "simpleshot": ("simpleshot", {}),
    "matching": ("matching", {}),
    "logistic-spread": ("logistic", {"C": 5.0, "normalise": "spread"}),
    "logistic": ("logistic", _L2),
    "mlp": ("mlp", {}),
}
_BEST_OF = tuple(name for name in PLAIN if name != "mlp")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "copies": ("copies", {}), "noise": ("noise", {}), "mixup": ("mixing", {"how": "mixup"}),
    "smote": ("mixing", {"how": "smote"}), "extrapolate": ("mixing", {"how": "extrapolate"}),
    "calibration": ("calibration", {}), "support-gaussian": ("support-gaussian", {}), "posterior": ("posterior", {}),
    "hallucinator": ("hallucinator", {}), "wang-hallucinator": ("wang-hallucinator", {}),
    "analogies": ("analogies", {}),
    "delta-encoder": ("delta-encoder", {}), "feature-gan": ("feature-gan", {}), "feature-vae": ("feature-vae", {}),
}  # fmt: skip
_EXACT = ("hallucinator", "posterior")


def main() -> None:
    """Measure, print and append."""
    given = _options()
    base, task = SETS[given.set](given)
    names = given.classifiers or ["prototype", "matching", "logistic"]
    parts = {name: _fitted(name, base, task, given) for name in given.methods or METHODS}
    recipes = [_recipe(Nothing(), None, name, 0) for name in dict.fromkeys([*_BEST_OF, *names])]
    for name, part in parts.items():
        recipes += [_recipe(part, name, classifier, given.made) for classifier in names]
        if name in _EXACT:
            recipes.append(Recipe(None, part, catalog.make("gaussian", {}, "classifier"), given.made,
                                  names=("features", name, "gaussian")))  # fmt: skip
    shots = tuple(map(int, given.shot.split(",")))
    plan = BenchPlan(given.way, shots, given.query, given.trials, seed=given.seed, controls=not given.no_controls)
    found = run(task, recipes, plan, given.kept)
    rows = _rows(found)
    for row in rows:
        low, high = row["gain_ci95"]
        print(f"{given.set:16} {row['synthesizer']:18.18} {row['classifier']:15.15} {row['shot']:>3} share "
              f"{row.get('made_share')!s:7} {row['accuracy']:6.2f} {row['gain']:+6.2f} ({low:+.2f} to {high:+.2f})"
              f"{row.get('best_plain_here', '')!s:>18}", flush=True)  # fmt: skip
    append(RESULTS / "row_table.jsonl", rows, {"set": given.set, "base": base, "seed": given.seed})


def _rows(found: Results) -> list[dict[str, Any]]:
    """The rows of the table that make something, those of exact scores with their gain over the best plain one."""
    arms = list(zip(found.rows, found.by_recipe, strict=True))
    rows = []
    for row, arm in arms:
        if arm.recipe.plain:
            continue
        if row["synthesizer"] in _EXACT and row["classifier"] == "gaussian":
            plain = [other for _, other in arms if other.recipe.plain and other.shot == arm.shot
                     and other.recipe.shown()["classifier"] in _BEST_OF]  # fmt: skip
            best = max(plain, key=lambda other: float(other.correct.mean()))
            over = statistics.class_interval(arm.correct - best.correct, arm.trials.clusters)
            row = row | {"gain": percent(over.value), "gain_ci95": ends(over),
                         "best_plain_here": best.recipe.shown()["classifier"]}  # fmt: skip
        rows.append(row)
    return rows


def _recipe(part: Any, name: str | None, classifier: str, made: int) -> Recipe:
    return Recipe(
        None, part, catalog.make(*PLAIN[classifier], "classifier"), made, names=("features", name, classifier)
    )


def _fitted(name: str, base: str, task: Task, given: argparse.Namespace) -> Any:
    """A method fitted on the base classes of a task, from `--kept` where it is there."""
    folder = given.kept / f"{base}-{name}"
    if name == "hallucinator" and base in ("letters", "alphabets"):
        return open_part("hallucinator-glyphs")
    if not folder.exists():
        print(f"fitting {name} on {base}", flush=True)
        part = catalog.make(*METHODS[name])
        save_part(learn(part, task.base, torch.Generator().manual_seed(0), task.val), folder)  # type: ignore[arg-type]
    return open_part(str(folder))


def _letters(given: argparse.Namespace) -> tuple[str, Task]:
    return "letters", _embedded(open_task("glyphs", given.data_root), given)


def _alphabets(given: argparse.Namespace) -> tuple[str, Task]:
    task = open_task("omniglot-alphabet", given.data_root)
    return "alphabets", _embedded(task, given)


def _embedded(task: Task, given: argparse.Namespace) -> Task:
    part = open_part("conv4-glyphs", None, "representation")
    banks = {name: getattr(task, name) for name in ("base", "val", "novel")}
    return replace(task, **{name: embed_bank(part, bank, BankOptions(), given.cache) for name, bank in banks.items()})


def _cifar(given: argparse.Namespace) -> tuple[str, Task]:
    return "cifar-fs", open_data_set(given.folder, "cifar-fs", given.data_root)


def _cifar_signs(given: argparse.Namespace) -> tuple[str, Task]:
    """Base classes of CIFAR-FS, and signs, in features of a network that was trained on CIFAR-FS."""
    base, task = _cifar(given)
    part = open_part(str(given.folder / "part"), None, "representation")
    assert isinstance(task.base, FeatureBank)
    assert isinstance(task.val, FeatureBank)
    base_bank, val = (replace(bank, groups={}) for bank in (task.base, task.val))  # signs have no digest of the network
    return base, Task("cifar-fs, signs", base_bank, val, _resized(part, _sign_pictures(given), (3, 32)))


def _resized(representation: Any, bank: AnyBank, form: tuple[int, int]) -> FeatureBank:
    """Features of pictures of all sizes by a network of one: squares of `form`, which is channels and side in px."""
    channels, side = form
    parts = []
    for rows in torch.arange(len(bank)).split(256):
        pictures = [picture.float() for picture in bank.examples(rows).x]
        grey = [picture.mean(0, keepdim=True) if channels == 1 else picture for picture in pictures]
        small = [F.interpolate(one[None], (side, side), mode="bilinear", antialias=True)[0] for one in grey]
        parts.append(representation.embed(torch.stack(small).round().clamp(0, 255).to(torch.uint8)).float())
    return FeatureBank(torch.cat(parts), bank.y, bank.classes, groups=bank.groups)


def _photos(bank: AnyBank, given: argparse.Namespace) -> FeatureBank:
    options = BankOptions(precision="float32")
    return embed_bank(open_part("photos", None, "representation"), bank, options, given.cache)


def _sign_pictures(given: argparse.Namespace) -> AnyBank:
    return grouped(open_source(str(given.data_root / "gtsrb_small.tar"), None, Selection(60))["all"], r"([^/]*)_")


def _signs(given: argparse.Namespace) -> tuple[str, Task]:
    bank = _photos(_sign_pictures(given), given)
    return "signs", Task("signs", bank.only(bank.classes[::2]), bank.only(bank.classes[1::4]),
                         bank.only(bank.classes[3::4]))  # fmt: skip


def _caltech(given: argparse.Namespace) -> tuple[str, Task]:
    bank = _photos(open_source(str(given.data_root / "caltech101_small.tar"), None, Selection(30))["all"], given)
    return "caltech", Task("caltech", bank.only(bank.classes[:60]), bank.only(bank.classes[60:80]),
                           bank.only(bank.classes[80:]))  # fmt: skip


def _caltech_letters(given: argparse.Namespace) -> tuple[str, Task]:
    """Base photographs, in grey at 28 px, and novel letters, in features of `conv4-glyphs`."""
    part = open_part("conv4-glyphs", None, "representation")
    source = open_source(str(given.data_root / "caltech101_small.tar"), None, Selection(30))["all"]
    bank = _resized(part, source, (1, 28))
    novel = replace(embed_bank(part, open_task("glyphs").novel, BankOptions()), groups={})
    return "caltech-grey", Task("caltech, letters", bank.only(bank.classes[:80]), bank.only(bank.classes[80:]), novel)


def _photo_signs(given: argparse.Namespace) -> tuple[str, Task]:
    """Base classes of CIFAR-FS, 20 pictures of each, and signs, in features of `photos`."""
    source = open_source("cifar-fs", given.data_root, Selection(20))
    base, val = (_photos(source[part], given) for part in ("train", "val"))
    return "cifar-photos", Task("cifar-fs, signs, photos", base, val, _photos(_sign_pictures(given), given))


SETS: dict[str, Callable[[argparse.Namespace], tuple[str, Task]]] = {
    "letters": _letters, "alphabets": _alphabets, "cifar-fs": _cifar, "caltech": _caltech, "signs": _signs,
    "cifar-signs": _cifar_signs, "photo-signs": _photo_signs, "caltech-letters": _caltech_letters,
}  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--folder", type=Path, help="of train_representation.py on cifar-fs, with --train")
    parser.add_argument("--with", dest="methods", action="append", choices=tuple(METHODS))
    parser.add_argument("--classifier", dest="classifiers", action="append", choices=tuple(PLAIN))
    parser.add_argument("--way", type=int, default=10)
    parser.add_argument("--shot", default="1,2,5,10")
    parser.add_argument("--query", type=int, default=8)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--made", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-controls", action="store_true", help="leave out copies, noise and methods without noise")
    parser.add_argument("--kept", type=Path, default=Path("build/row_table"))
    parser.add_argument("--cache", type=Path, default=Path("build/photographs"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
