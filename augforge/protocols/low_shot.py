"""Low-shot recognition in one label space, after Hariharan and Girshick (ICCV 2017), on any feature bank.

Base classes keep all their training rows, novel classes have n = 1, 2, 5, 10, 20, in five fixed draws, and a query may
be of either kind. Results are top-1 and top-5 accuracy on queries of novel classes, of base classes, of all, and of all
with a prior (Wang et al., CVPR 2018): one number added to the scores of every novel class. Most of what a generator
seems to gain in a joint label space is the balance of the two kinds, which a prior gives for nothing.

Differs from their code: scores are asked for base and novel classes only, not for classes of the other setup; a class
whose score equals that of the right one counts as above it, so that constant scores are never right. The prior is
found exactly, as accuracy is a step function of it, for top-1 and for top-5 by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from augforge import chance
from augforge.data.banks import FeatureBank, take_rows
from augforge.episodes import draw_episodes
from augforge.types import Examples, InputError

SHOTS = (1, 2, 5, 10, 20)
Scores = Callable[[Examples, Tensor], Tensor]


@dataclass(frozen=True)
class LowShot:
    """A low-shot task: `train` and `test` rows of the same classes, and which of these are base and which novel.

    `base` [b] and `novel` [v] are class ids, `draws` [draws, v, most] rows of `train`: the first n of a line are the
    support of a novel class at n shots. Raises InputError where a class is both, or a row is not of its class.
    """

    train: FeatureBank
    test: FeatureBank
    base: Tensor
    novel: Tensor
    draws: Tensor

    def __post_init__(self) -> None:
        """Check what the docstring promises."""
        classes = self.train.classes
        if tuple(self.test.classes) != tuple(classes):
            raise InputError("the training and the test features of a low-shot task have different classes")
        both = set(self.base.tolist()) & set(self.novel.tolist())
        if both:
            raise InputError(f"the class {classes[min(both)]!r} is both base and novel; expected no class to be both")
        if not len(self.base) or not len(self.novel) or self.draws.ndim != 3 or self.draws.shape[1] != len(self.novel):
            raise InputError(
                f"a low-shot task has {len(self.base)} base and {len(self.novel)} novel classes and draws "
                f"{list(self.draws.shape)}; expected some of each and [draws, novel, rows]"
            )
        if int(self.draws.min()) < 0 or int(self.draws.max()) >= len(self.train):
            raise InputError(f"a draw has rows that are not among the {len(self.train)} training rows")
        wrong = self.train.y[self.draws] != self.novel[:, None]  # [draws, v, most]
        if bool(wrong.any()):
            draw, line, place = wrong.nonzero()[0].tolist()
            row = int(self.draws[draw, line, place])
            raise InputError(
                f"draw {draw + 1} names row {row} for the class {classes[int(self.novel[line])]!r}, but that row is of "
                f"{classes[int(self.train.y[row])]!r}; were the features saved in another order?"
            )


@dataclass(frozen=True)
class Accuracies:
    """Shares of queries, in 0..1: of novel classes, of base classes, of both, and of both with `prior` added."""

    novel: float
    base: float
    all: float
    all_prior: float
    prior: float


@dataclass(frozen=True)
class LowShotResult:
    """The accuracies of one draw (from 0) at one number of shots."""

    shot: int
    draw: int
    top1: Accuracies
    top5: Accuracies


def concatenate_banks(base: FeatureBank, novel: FeatureBank) -> FeatureBank:
    """The features of two banks with different classes as one bank, base classes first; raises InputError."""
    both = sorted(set(base.classes) & set(novel.classes))
    if both or base.x.shape[1] != novel.x.shape[1]:
        found = f"the class {both[0]!r} in both" if both else f"features of {base.x.shape[1]} and {novel.x.shape[1]}"
        raise InputError(
            f"two banks with {found} cannot be one bank; expected different classes and features of one size"
        )
    x, y = torch.cat([base.x, novel.x]), torch.cat([base.y, novel.y + len(base.classes)])
    return FeatureBank(x, y, (*base.classes, *novel.classes), f"{base.origin} and {novel.origin}")


def held_out(bank: FeatureBank, per_class: int, seed: int = 0) -> tuple[FeatureBank, FeatureBank]:
    """(train, test): `per_class` rows of every class drawn for testing, the others for training; raises InputError.

    A row's part depends on (labels, seed) alone.
    """
    if not 1 <= per_class < int(bank.counts().min()):
        raise InputError(
            f"{per_class} rows of each class were to be held out; the smallest has {int(bank.counts().min())}"
        )
    chosen = _rank_in_class(bank.y, seed, "held out") < per_class
    parts = [take_rows(bank, mask.nonzero(as_tuple=True)[0]) for mask in (~chosen, chosen)]
    return parts[0], parts[1]


def draw_low_shot(
    train: FeatureBank, test: FeatureBank, novel: Sequence[str], *, draws: int = 5, most: int = 20, seed: int = 0
) -> LowShot:
    """A low-shot task in which the classes called `novel` are novel and all others base.

    `draws` times `most` rows of each novel class are drawn, a pure function of (labels, most, seed, draw). Raises
    InputError for an unknown class and for one with fewer than `most` training rows.
    """
    ids = {name: i for i, name in enumerate(train.classes)}
    unknown = [name for name in novel if name not in ids]
    if unknown:
        raise InputError(f"the novel class {unknown[0]!r} is not among the {len(ids)} classes of {train.origin!r}")
    wanted = torch.tensor(sorted({ids[name] for name in novel}), dtype=torch.int64)
    base = torch.tensor([i for i in ids.values() if i not in set(wanted.tolist())], dtype=torch.int64)
    rows = torch.isin(train.y, wanted).nonzero(as_tuple=True)[0]
    drawn = draw_episodes(train.y[rows], way=len(wanted), shot=most, n_query=0, trials=draws, seed=seed)
    sorted_rows = [rows[e.support[torch.argsort(e.classes)]] for e in drawn]  # an episode's classes are in random order
    return LowShot(train, test, base, wanted, torch.stack(sorted_rows))


def evaluate(
    task: LowShot, scores: Scores, shots: Sequence[int] = SHOTS, priors: Mapping[tuple[int, int], float] | None = None
) -> list[LowShotResult]:
    """The accuracies of a way to score, for each draw and number of shots.

    `scores(support, query)` is that of a classifier: Examples with x [n, d] and y [n] in 0..b+v-1, base classes first,
    and query [q, d] -> [q, b + v]. The support has all base rows and `shot` rows of each novel class; what adds made
    rows does so inside of `scores`. `priors[shot, k]` is the number to add for top-k, as `mean_priors` of a validation
    task gives it. Without, it is tuned on one half of the queries of each class and applied to the other, both ways
    round. Raises InputError for more shots than were drawn and for scores of another shape or that are no numbers.
    """
    if not shots or min(shots) < 1 or max(shots) > task.draws.shape[2]:
        raise InputError(f"shots {tuple(shots)} were asked for; expected numbers of 1 to {task.draws.shape[2]}")
    position = torch.full((len(task.train.classes),), -1, dtype=torch.int64)
    position[torch.cat([task.base, task.novel])] = torch.arange(len(task.base) + len(task.novel))
    queries = (position[task.test.y] >= 0).nonzero(as_tuple=True)[0]
    query, y = task.test.x[queries], position[task.test.y[queries]]
    base_rows = torch.isin(task.train.y, task.base).nonzero(as_tuple=True)[0]
    results = []
    for draw in range(len(task.draws)):
        for shot in shots:
            rows = torch.cat([base_rows, rearrange(task.draws[draw, :, :shot], "v n -> (v n)")])
            found = task.train.examples(rows)
            given = scores(Examples(found.x, position[found.y], weight=found.weight), query)
            _check_scores(given, (len(query), len(task.base) + len(task.novel)))
            top1, top5 = (_accuracies(given.cpu(), y, len(task.base), k, (priors or {}).get((shot, k))) for k in (1, 5))
            results.append(LowShotResult(shot, draw, top1, top5))
    return results


def mean_priors(results: Sequence[LowShotResult]) -> dict[tuple[int, int], float]:
    """The mean prior over draws by (shot, k): tuned on one task, to be given to `evaluate` on another."""
    priors: dict[tuple[int, int], float] = {}
    for shot in dict.fromkeys(r.shot for r in results):
        of_shot = [r for r in results if r.shot == shot]
        priors[shot, 1] = math.fsum(r.top1.prior for r in of_shot) / len(of_shot)
        priors[shot, 5] = math.fsum(r.top5.prior for r in of_shot) / len(of_shot)
    return priors


def _check_scores(found: Tensor, shape: tuple[int, int]) -> None:
    if found.shape != shape or bool(torch.isnan(found).any()):
        what = f"of shape {list(found.shape)}" if found.shape != shape else "that are no numbers"
        raise InputError(f"scores {what} were given; expected numbers {list(shape)}, one for each query and class")


def _accuracies(scores: Tensor, y: Tensor, n_base: int, k: int, prior: float | None) -> Accuracies:
    """The top-k accuracies of `scores` [q, b + v] for queries of the classes `y` [q], of which 0..n_base-1 are base."""
    novel = y >= n_base
    need = _needed(scores.detach().double(), y, n_base, k)
    now = need < 0
    if prior is not None:
        tuned, used = _right(need, novel, prior), prior
    else:
        half = _rank_in_class(y, 0, "halves") % 2 == 0
        one, other = best_prior(need[half], novel[half]), best_prior(need[~half], novel[~half])
        tuned = torch.where(half, _right(need, novel, other), _right(need, novel, one))
        used = (one + other) / 2
    of_novel, of_base, of_all, of_tuned = (float(t.double().mean()) for t in (now[novel], now[~novel], now, tuned))
    return Accuracies(of_novel, of_base, of_all, of_tuned, used)


def _needed(scores: Tensor, y: Tensor, n_base: int, k: int) -> Tensor:
    """How much the kind of a query's class must gain on the other kind for it to be among the top k: [q].

    It is right where the gain is greater. Infinite where no gain helps, minus infinity where none is needed.
    """
    own = scores.gather(1, y[:, None])  # [q, 1]
    need = torch.empty(len(y), dtype=scores.dtype)
    for kind, among, against in (
        (y < n_base, scores[:, :n_base], scores[:, n_base:]),
        (y >= n_base, scores[:, n_base:], scores[:, :n_base]),
    ):
        ahead = (among[kind] >= own[kind]).sum(1) - 1  # its own class is counted once
        left = k - ahead  # places in the top k that the classes of its own kind leave
        rivals = torch.topk(against[kind], min(k, against.shape[1]), dim=1).values
        nobody = torch.full((len(rivals), k), -math.inf, dtype=scores.dtype)
        nobody[:, : rivals.shape[1]] = rivals
        rival = nobody.gather(1, left.clamp(min=1)[:, None] - 1)  # [q of the kind, 1]
        gap = (rival - own[kind])[:, 0].nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
        need[kind] = torch.where(left > 0, gap, math.inf)
    return need


def _right(need: Tensor, novel: Tensor, prior: float) -> Tensor:
    return torch.where(novel, prior, -prior) > need


def best_prior(need: Tensor, novel: Tensor) -> float:
    """The number that, added to novel scores, makes most queries right; the one nearest to 0 of several.

    `need` [q] is what a query's kind must gain to be right, `novel` [q] bool says of which kind it is.
    """
    up, down = need[novel].sort().values, (-need[~novel]).sort().values  # right above, and right below
    steps = torch.cat([up, down])
    steps = torch.unique(steps[torch.isfinite(steps)])
    if not len(steps):
        return 0.0
    between = torch.cat([steps[:1] - 1, (steps[1:] + steps[:-1]) / 2, steps[-1:] + 1, torch.zeros(1).to(steps)])
    right = torch.searchsorted(up, between) + len(down) - torch.searchsorted(down, between, right=True)
    best = between[right == right.max()]
    return float(best[best.abs().argmin()])


def _rank_in_class(y: Tensor, seed: int, purpose: str) -> Tensor:
    """The place of each row in a random order of the rows of its class, from 0: [n] int64."""
    keys = chance.integers(chance.fork(chance.row_keys(seed, "rows", torch.arange(len(y))), purpose), 1)[:, 0]
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(y[order], stable=True)]
    counts = torch.bincount(y)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(y)) - starts[y[order]]
    return rank
