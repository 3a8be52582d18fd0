"""Translation from one typeface to another, learnt on base scripts and used on novel ones.

    python benchmarks/translation.py --minutes 10 --device cuda --sheet sheet.png --record

Trains `translation` on the base letters of `glyphs` that both faces have, each hand drawing a letter in both, with
Cyrillic as validation; then, on Georgian and Armenian: the mean absolute error of translated pictures
against the real ones of the target face, beside that of the untranslated source and of the best of k draws
of classical augmentation (an oracle: it
is chosen by the target itself); and low-shot accuracy with one support picture in the source face and queries in the
target face, drawn by other hands, nearest class mean on conv4-glyphs: paired episodes, gains against the support alone.
The representation was trained on base letters in all faces, so it knows of typefaces. Intervals are 95 %, over novel
classes. `--record` adds rows to results/translation.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import RESULTS, append
from torch import Tensor

from augforge.chance import row_keys
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import ArrayPictures
from augforge.data.glyphs import glyph_pairs
from augforge.episodes import draw_episodes
from augforge.generators.classical import Classical
from augforge.generators.shared.gan.validation import write_sheet
from augforge.generators.translation import Translation
from augforge.parts.saving import load_part, open_part, part_digest, save_part
from augforge.statistics import Interval, class_interval, episode_interval
from augforge.training.loop import Run
from augforge.types import Examples

_SHEET = (24, 4)  # classes in the sheet, and blocks of them side by side


def main() -> None:
    """Train or load, measure, print, and append where it is asked for."""
    options = _options()
    faces = (options.source, options.target)
    part = _part(options, faces)
    source, target, y = _sides(glyph_pairs("test", faces, options.hands, options.seed))
    made = _made(part, source, 1, "translated")
    handwriting = Classical(preset="handwriting")
    rows = [
        *_errors(source, target, y, made, _made(handwriting, source, options.best_of, "best")),
        *_low_shot(source, target, y, {"translated": made, "classical": _made(handwriting, source, 1, "classical")},
                   options),
    ]  # fmt: skip
    for row in rows:
        print(row)
    if options.sheet is not None:
        _write_sheet(source, made, target, y, options.sheet)
    if options.record:
        facts = {"mode": part.mode, "source": faces[0], "target": faces[1], "seed": options.seed,
                 "minutes": options.minutes, "device": options.device, "hands": options.hands,
                 "base_classes": len(_bank("train", faces, options).classes), "novel_classes": int(y.max()) + 1,
                 "part": part_digest(part), "alarms": len(part.alarms)}  # fmt: skip
        append(RESULTS / "translation.jsonl", rows, facts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mode", choices=("paired", "unpaired"), default="paired")
    parser.add_argument("--source", default="DejaVuSans", help="a face of glyphs")
    parser.add_argument("--target", default="DejaVuSerif", help="a face of glyphs")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--steps", type=int, default=100000, help="of training, at most")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-4, help="Adam's, of both networks")
    parser.add_argument("--augment", default="translation", help="what of DiffAugment is used")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hands", type=int, default=20, help="in which each letter is drawn")
    parser.add_argument("--best-of", type=int, default=20, help="draws of classical augmentation")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="of the log, the sheets of the training, and the fitted part")
    parser.add_argument("--sheet", type=Path, help="a PNG: source | translated | real target of novel letters")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def _bank(split: str, faces: tuple[str, str], options: argparse.Namespace) -> ArrayPictures:
    return glyph_pairs(split, faces, options.hands, options.seed)


def _part(options: argparse.Namespace, faces: tuple[str, str]) -> Translation:
    """The part that lies in the folder, or a new one, trained."""
    if options.folder is not None and (options.folder / "part" / "part.json").exists():
        part = load_part(options.folder / "part")
        assert isinstance(part, Translation)
        return part
    pair = "hand" if options.mode == "paired" else ""
    part = Translation(options.mode, domain="face", source=faces[0], target=faces[1], pair=pair, width=options.width,
                       batch=options.batch, steps=options.steps, rate=options.rate, judge_rate=options.rate,
                       augment=options.augment)  # fmt: skip
    run = Run(options.device, options.folder, options.minutes)
    part.fit(_bank("train", faces, options), torch.Generator().manual_seed(options.seed),
             _bank("val", faces, options), run)  # fmt: skip
    if options.folder is not None:
        save_part(part, options.folder / "part")
    return part


def _sides(bank: ArrayPictures) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [n, 1, 28, 28] uint8 of source and target, row by row of one letter and hand, and their classes [n]."""
    faces = list(dict.fromkeys(bank.groups["face"]))
    rows = [torch.tensor([row for row, face in enumerate(bank.groups["face"]) if face == name]) for name in faces]
    assert torch.equal(bank.y[rows[0]], bank.y[rows[1]])
    return bank.examples(rows[0]).x, bank.examples(rows[1]).x, bank.y[rows[0]]  # type: ignore[return-value]


def _made(part: Any, x: Tensor, each: int, purpose: str) -> Tensor:
    """`each` pictures made of every row of x [n, c, h, w]: [n, each, c, h, w], every row a class of its own."""
    want = torch.arange(len(x)).repeat_interleave(each)
    made = part.synthesize(Examples(x, torch.arange(len(x))), want, row_keys(0, purpose, torch.arange(len(want)))).x
    return made.unflatten(0, (len(x), each))


def _errors(source: Tensor, target: Tensor, y: Tensor, made: Tensor, classical: Tensor) -> list[dict[str, Any]]:
    """Mean absolute errors against the real target, in parts of the range of a pixel."""

    def of(x: Tensor) -> Tensor:
        return (x.float() - target[:, None].float()).abs().mean((2, 3, 4)) / 255  # [n, k]

    found = {"source": of(source[:, None])[:, 0], "translated": of(made)[:, 0], "classical, one": of(classical)[:, 0],
             f"classical, best of {classical.shape[1]}": of(classical).min(1).values}  # fmt: skip
    rows = []
    for name, error in found.items():
        gain = class_interval((found["source"] - error)[:, None].numpy(), y[:, None].numpy())
        rows.append(
            {
                "measure": "error",
                "rows": name,
                "value": round(float(error.mean()), 5),
                **_limits("less", gain, 5),
            }
        )
    return rows


def _low_shot(
    source: Tensor, target: Tensor, y: Tensor, made: dict[str, Tensor], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """20-way 1-shot accuracies in percent, and gains over the support alone."""
    network = open_part("conv4-glyphs", kind="representation")
    embed = lambda x: torch.cat([network.embed(part) for part in x.split(500)])  # noqa: E731
    real, queries = embed(source), embed(target)
    others = {name: embed(x[:, 0]) for name, x in made.items()}
    arms = {"support": [real], "support + translated": [real, others["translated"]],
            "translated alone": [others["translated"]], "support + classical": [real, others["classical"]],
            "a real target picture": [queries]}  # fmt: skip
    episodes = draw_episodes(y, way=20, shot=1, n_query=5, trials=options.episodes, seed=options.seed)
    right = {name: np.stack([_accuracy(e, parts, queries) for e in episodes]) for name, parts in arms.items()}
    classes = np.stack([episode.classes.numpy() for episode in episodes])
    rows = []
    for name, values in right.items():
        gain = 100 * (values - right["support"])  # [trials, way]
        accuracy = episode_interval(100 * values.mean(1))
        rows.append({"measure": "accuracy", "rows": name, "way": 20, "shot": 1, "trials": len(episodes),
                     "value": round(accuracy.value, 2), "ci95": round(accuracy.high - accuracy.value, 2),
                     **_limits("gain", class_interval(gain, classes), 2)})  # fmt: skip
    return rows


def _accuracy(episode: Any, parts: list[Tensor], queries: Tensor) -> np.ndarray:
    """The share [way] of each class's queries that are classified right."""
    way, each = episode.query.shape
    support = torch.cat([part[episode.support[:, 0]] for part in parts])
    scores = Prototype().scores(
        Examples(support, torch.arange(way).repeat(len(parts))), queries[episode.query.flatten()]
    )
    predicted = scores.argmax(1).unflatten(0, (way, each))
    return (predicted == torch.arange(way)[:, None]).double().mean(1).numpy()


def _limits(name: str, interval: Interval, digits: int) -> dict[str, float]:
    return {name: round(interval.value, digits), f"{name}_low": round(interval.low, digits),
            f"{name}_high": round(interval.high, digits)}  # fmt: skip


def _write_sheet(source: Tensor, made: Tensor, target: Tensor, y: Tensor, path: Path) -> None:
    """The first hand of some novel letters, in columns source | translated | real target."""
    count, blocks = _SHEET
    classes = torch.linspace(0, int(y.max()), count).round().long()
    rows = torch.stack([(y == label).nonzero()[0, 0] for label in classes])
    columns = torch.stack([source[rows], made[rows, 0], target[rows]], 1).float() / 255  # [count, 3, c, h, w]
    parts = columns.unflatten(0, (blocks, count // blocks)).transpose(0, 1)
    write_sheet(parts.flatten(1, 2), str(path))


if __name__ == "__main__":
    main()
