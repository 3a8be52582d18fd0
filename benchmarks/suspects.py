"""Ways to suspect a label, on classes that curation.py does not measure: what each catches and what it loses.

    python benchmarks/suspects.py --data-root DIR --kept DIR2 [--seeds 2]

Traffic signs (14 of the classes whose number leaves 1, or 2, when divided by three; one frame of each track) and
Caltech 101 (20 of the classes after the twentieth), 15 or 20 pictures of each; a fifth of the labels is swapped.
`photos` features of all pictures are embedded once and kept in DIR2. All ways read the cross-fitted logistic regression
of `augforge.curate.labels` after its two rounds, m being the log odds of the likeliest other class:

- `odds > 1` (what `check` takes) and `odds > 2`: m above it;
- `neighbours agree`: m > 1, and ten nearest rows of other folds, weighted, name another class too;
- `confident learning`: another class is as likely as it is for its own rows on average (Northcutt et al. 2021);
- `every division`: m > 1 in each of the two divisions into folds;
- `planted`: the level that finds nine of ten swaps that were planted among unsuspected rows;
- `class median`: m is three robust deviations above the median of the class's unsuspected rows.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from record import append, facts
from safetensors.torch import load_file, save_file
from torch import Tensor

from augforge.curate import labels
from augforge.data.source import open_source
from augforge.inputs import embed_pictures

SHARE, REPEATS = 0.2, 2


def main() -> None:
    """Measure, append, and show the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    rows_out = []
    for name, each in (("gtsrb_small", 20), ("caltech101_small", 15)):
        x, y = features(name, given.data_root, given.kept)
        found: dict[str, list[tuple[float, float]]] = {}
        for part in (1, 2) if name == "gtsrb_small" else (0,):
            for seed in range(given.seeds):
                rng = np.random.default_rng((seed, part))
                classes = np.array([c for c in range(int(y.max()) + 1) if (c % 3 == part if part else c >= 20)])
                chosen = rng.permutation(classes)[: 14 if part else 20]
                rows = torch.from_numpy(np.concatenate([rng.permutation(np.flatnonzero(y == c))[:each]
                                                        for c in chosen]))  # fmt: skip
                for way, rates in rates_of(x[rows], y[rows], rng, seed).items():
                    found.setdefault(way, []).append(rates)
        for way, rates in found.items():
            caught, lost = (round(100 * float(np.mean(side)), 1) for side in zip(*rates, strict=True))
            rows_out.append({"set": name, "way": way, "trials": len(rates), "caught": caught, "lost": lost} | facts(0))
    append("suspects", rows_out)


def features(name: str, root: Path, kept: Path) -> tuple[Tensor, Tensor]:
    """Features [n, d] and labels [n] of a data set; of signs the first frame of each track."""
    path = kept / f"{name}.safetensors"
    bank = next(iter(open_source(str(root / f"{name}.tar")).values()))
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        save_file({"x": embed_pictures(bank, "photos")[0].x.contiguous()}, path)
    x, y = load_file(path)["x"].float(), bank.y
    if name != "gtsrb_small":
        return x, y
    seen, rows = set(), []
    for row in range(len(bank)):
        track = re.search(r"/(\d{5})_", bank.name(row))
        key = int(y[row]), track[1] if track else ""
        if key not in seen:
            seen.add(key)
            rows.append(row)
    return x[rows], y[rows]


def rates_of(x: Tensor, y: Tensor, rng: np.random.Generator, seed: int) -> dict[str, tuple[float, float]]:
    """The shares of swapped and of right labels that each way suspects."""
    label = torch.unique(y, return_inverse=True)[1]
    way = int(label.max()) + 1
    bad = torch.zeros(len(label), dtype=torch.bool)
    bad[torch.from_numpy(rng.permutation(len(label))[: round(SHARE * len(label))])] = True
    label = swapped(label, bad.nonzero()[:, 0], way, rng)
    return {name: (float(one[bad].float().mean()), float(one[~bad].float().mean()))
            for name, one in suspects(x, label, rng, seed).items()}  # fmt: skip


def swapped(label: Tensor, rows: Tensor, way: int, rng: np.random.Generator) -> Tensor:
    """The labels with those of `rows` replaced by other ones."""
    label = label.clone()
    label[rows] = (label[rows] + torch.from_numpy(rng.integers(1, way, len(rows)))) % way
    return label


def cross_fitted(x: Tensor, label: Tensor, seed: int) -> tuple[list[Tensor], Tensor]:
    """Log probabilities [n, k] of the second round, of each division, and which rows were kept after it."""
    counts, kept, parts = torch.bincount(label), torch.ones(len(label), dtype=torch.bool), []
    for round_ in range(labels.ROUNDS):
        parts = [labels._held_out(x, label, kept, labels._folds(label, counts, seed, round_ * REPEATS + i))
                 for i in range(REPEATS)]  # fmt: skip
        kept = labels._kept(margins(sum(parts) / REPEATS, label), label, counts)
    return parts, kept


def margins(scores: Tensor, label: Tensor) -> Tensor:
    """The log odds [n] of the likeliest other class over that of the label."""
    own = scores.gather(1, label[:, None])[:, 0]
    return scores.scatter(1, label[:, None], -torch.inf).max(1).values - own


def neighbours(x: Tensor, label: Tensor, kept: Tensor, seed: int) -> Tensor:
    """Log votes [n, k] of the ten nearest kept rows of other folds."""
    folds, way = labels._folds(label, torch.bincount(label), seed, 50), int(label.max()) + 1
    found = torch.zeros(len(label), way)
    for fold in range(labels.FOLDS):
        asked, shown = folds == fold, kept & (folds != fold)
        rows = F.normalize(x - x[shown].mean(0), dim=1)
        near = (rows[asked] @ rows[shown].T).topk(10, 1)
        votes = torch.zeros(int(asked.sum()), way).scatter_add_(1, label[shown][near.indices],
                                                                torch.exp(10 * (near.values - 1)))  # fmt: skip
        found[asked] = torch.log((votes + 1e-3) / (votes + 1e-3).sum(1, keepdim=True))
    return found


def suspects(x: Tensor, label: Tensor, rng: np.random.Generator, seed: int) -> dict[str, Tensor]:
    """The rows [n] that each way suspects."""
    parts, kept = cross_fitted(x, label, seed)
    scores: Tensor = sum(parts) / REPEATS  # type: ignore[assignment]
    m, share = margins(scores, label), scores.softmax(1)
    usual = torch.stack([share[label == c, c].mean() for c in range(share.shape[1])])
    confident = torch.where(share >= usual, share, 0.0)
    planted = torch.from_numpy(rng.permutation(np.flatnonzero(m <= 0))[: max(10, len(m) // 10)])
    again = swapped(label, planted, share.shape[1], rng)
    tried = margins(sum(cross_fitted(x, again, seed + 1)[0]) / REPEATS, again)
    limits = torch.zeros(len(m))
    for c in range(share.shape[1]):
        usual_m = m[(label == c) & kept]
        limits[label == c] = usual_m.median() + 3 * 1.4826 * (usual_m - usual_m.median()).abs().median()
    return {
        "odds > 1": m > 1,
        "odds > 2": m > 2,
        "neighbours agree": (m > 1) & (margins(neighbours(x, label, kept, seed), label) > 0),
        "confident learning": (confident.max(1).values > 0) & (confident.argmax(1) != label),
        "every division": torch.stack([margins(part, label) for part in parts]).min(0).values > 1,
        "planted": m > max(0.0, float(np.quantile(tried[planted].numpy(), 0.1))),
        "class median": m > limits.clamp(min=0),
    }


if __name__ == "__main__":
    main()
