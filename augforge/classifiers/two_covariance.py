"""The two-covariance model of features: how class means lie, how rows spread, and what both say of a new class.

Brümmer and de Villiers, "The speaker partitioning problem", Odyssey 2010; Ioffe, "Probabilistic linear discriminant
analysis", ECCV 2006. Class means are N(m, S_b) and rows N(mean of the class, S_w). One linear map makes S_w the
identity and S_b diagonal, psi. A class with N rows of mean z and prior mean m_0 has there, coordinate by coordinate,
    posterior mean        mu = m_0 + pull (z - m_0),    pull = N psi / (s + N psi),
    predictive variance   v = s + s psi / (s + N psi),    s = 1 in the model.

Eight parameters (`numbers` in files) change this, and at their start do not: psi becomes e^SCALE psi^(1 + POWER), taken
round psi's geometric mean; a support row's own variance is e^NOISE; v is divided by psi^TILT, round the same mean; s is
the spread of the class's own rows, round a guess of 1 that counts as e^SPREAD rows; BIAS is added times |mu|^2 / 2v;
and the logarithm of the density is multiplied by e^(WEIGHT + WEIGHT_SLOPE log N) where several transforms of the
features are added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from augforge.classifiers.adaptation import Adapted
from augforge.classifiers.base_statistics import symmetric_eigen
from augforge.classifiers.feature_transforms import Transform, transformed
from augforge.networks.products import row_product
from augforge.types import InputError

PARAMETERS = ("SCALE", "POWER", "NOISE", "TILT", "SPREAD", "BIAS", "WEIGHT", "WEIGHT_SLOPE")
SCALE, POWER, NOISE, TILT, SPREAD, BIAS, WEIGHT, WEIGHT_SLOPE = range(len(PARAMETERS))
IGNORE_SPREAD = math.log(1e9)  # SPREAD from which on a class's own spread is ignored
_MOST_SPREAD_ROWS = 19.0  # rows beyond the first that count towards a class's own spread, at most
_ROWS_AT_ONCE = 2048  # more do not stay in the cache
_ROWS_WIDENED = 256  # the same for rows in float64
_COLUMNS_AT_ONCE = 256  # fewer save more of a symmetric product, and no longer give the whole one's bits
_LEAST = 1e-12  # a smaller share is none


@dataclass(frozen=True)
class Gathered:
    """Sums over classes, in float64."""

    means: Tensor  # [c, d]
    counts: Tensor  # [c], rows of each class
    scatter: Tensor  # [d, d], of rows round the mean of their class

    @property
    def free(self) -> float:
        """Degrees of freedom of the scatter."""
        return float((self.counts - 1).sum())

    def within(self) -> Tensor:
        """The pooled covariance of rows round the mean of their class, [d, d]."""
        return self.scatter / max(1.0, self.free)

    def __add__(self, other: Gathered) -> Gathered:
        """The sums over the classes of both, which are different ones."""
        return Gathered(torch.cat([self.means, other.means]), torch.cat([self.counts, other.counts]),
                        self.scatter + other.scatter)  # fmt: skip


def gather(x: Tensor, y: Tensor, exact: bool = False) -> Gathered:
    """The sums of rows [n, d] of classes [n]; products are taken in float32 by blocks, or in float64 where they shall
    be `exact`, and added up in float64.
    """
    ids, y = torch.unique(y.to(x.device), return_inverse=True)
    counts = torch.bincount(y, minlength=len(ids)).to(torch.float64)
    means = torch.zeros(len(ids), x.shape[1], dtype=torch.float64, device=x.device)
    for rows, labels in zip(x.split(_ROWS_WIDENED), y.split(_ROWS_WIDENED), strict=True):
        means.index_add_(0, labels, rows.to(torch.float64))
    means /= counts[:, None]
    scatter = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    dtype = torch.float64 if exact else torch.float32
    near = means.to(dtype)
    spare = torch.empty(min(len(x), _ROWS_AT_ONCE), x.shape[1], dtype=dtype, device=x.device)
    for rows, labels in zip(x.split(_ROWS_AT_ONCE), y.split(_ROWS_AT_ONCE), strict=True):
        apart = torch.index_select(near, 0, labels, out=spare[: len(rows)])
        torch.sub(rows, apart, out=apart)
        for end in range(_COLUMNS_AT_ONCE, x.shape[1] + _COLUMNS_AT_ONCE, _COLUMNS_AT_ONCE):
            some = slice(end - _COLUMNS_AT_ONCE, end)  # what lies above the diagonal is the same as below
            scatter[some, :end] += apart[:, some].T @ apart[:, :end]
    return Gathered(means, counts, scatter.tril() + scatter.tril(-1).T)


def check_enough(found: Gathered, who: str) -> None:
    """Raise InputError, naming `who`, where there are fewer than two classes, or none has two rows."""
    if found.free < 1:
        raise InputError(f"{who} needs a base class with at least 2 rows to learn their spread; every class has 1")
    if len(found.counts) < 2:
        raise InputError(f"{who} learns how classes differ; expected at least 2 base classes with rows, found 1")


class TwoCovariance(nn.Module):
    """The model in r coordinates of one transform of d features; tensors are buffers, `numbers` is a parameter [8]."""

    centre: Tensor  # [d], what the transform takes away
    mean: Tensor  # [d], the mean of the class means
    map: Tensor  # [d, r], features to coordinates
    back: Tensor  # [r, d], coordinates to features
    psi: Tensor  # [r], the variance of class means, where that of rows is 1
    rest: Tensor  # [d], standard deviation of what the coordinates leave out
    rest_psi: Tensor  # [1], psi of what the coordinates leave out
    classes: Tensor  # [c, r], class means, for the mixture prior
    tau: Tensor  # [1], how far a class lies from one of `classes`, in parts of psi; 0: one Gaussian is the prior

    def __init__(self, transform: Transform, features: int, rank: int, classes: int) -> None:
        super().__init__()
        self.transform = transform
        shapes = {"centre": (features,), "mean": (features,), "map": (features, rank), "back": (rank, features),
                  "psi": (rank,), "rest": (features,), "rest_psi": (1,), "classes": (classes, rank),
                  "tau": (1,)}  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.numbers = nn.Parameter(torch.zeros(len(PARAMETERS)))
        self._host: dict[str, tuple[Tensor, int, float]] = {}  # numbers read from tensors
        with torch.no_grad():
            self.numbers[SPREAD] = IGNORE_SPREAD

    def transformed(self, x: Tensor) -> Tensor:
        """Rows [..., d] as the transform says."""
        return transformed(x, self.transform, self.centre.to(x))

    def mapped(self, x: Tensor) -> Tensor:
        """Rows [..., d] in the model's coordinates, [..., r]."""
        return (self.transformed(x) - self.mean.to(x)) @ self.map.to(x)

    def predictive(
        self, z: Tensor, counts: Tensor, scatter: Tensor | None = None, turned: Adapted | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance [..., r] of what comes next of classes; see the function of this name.

        With `turned` all are in its coordinates, for z [b, way, r].
        """
        tau = self._read("tau", self.tau, 0)
        classes, psi = self.classes.to(z), self.psi.to(z)
        if turned is not None:
            psi = turned.psi.to(z)
            classes = turned.rows(classes) if tau > 0 else classes
        mixture = (classes, tau) if tau > 0 else None
        return predictive(psi, self.numbers.to(z)[None], z, counts, scatter, mixture)

    def spread_is_ignored(self) -> bool:
        """Whether a class's own spread makes no difference."""
        return self._read("spread", self.numbers, SPREAD) >= IGNORE_SPREAD

    def _read(self, name: str, tensor: Tensor, place: int) -> float:
        """One number of a tensor [n], read again only where it was written since: each reading waits for a device."""
        known = self._host.get(name)
        if known is None or known[0] is not tensor or known[1] != tensor._version:
            known = self._host[name] = (tensor, tensor._version, float(tensor.detach()[place]))
        return known[2]

    def log_density(self, query: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Log densities [b, q, way] of mapped queries [b, q, r]; see the function of this name."""
        return log_density(self.numbers.to(query)[None], query, mean, variance)

    def places(self, mean: Tensor, known: Tensor, z: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [c, d] of what comes next of classes as transformed features, and its deviation [c, d] outside of the
        coordinates, whose own psi is the same in all directions.

        `mean` [c, r] is that of `predictive`; `known` [c, d] are means of transformed rows, `z` [c, r] the same in
        the coordinates, of `counts` [c] rows.
        """
        back, psi, n = self.back.to(z), self.rest_psi.to(z), counts[:, None]
        place = self.mean.to(z) + row_product(mean, back)
        if len(back) == len(self.mean):  # all coordinates: nothing lies outside
            return place, torch.zeros_like(place)
        outside = known - (self.mean.to(z) + row_product(z, back))
        deviation = self.rest.to(z) * (1 + psi / (1 + n * psi)).sqrt()
        return place + n * psi / (1 + n * psi) * outside, deviation

    def project_back(self, noise: Tensor, rest: Tensor | None) -> Tensor:
        """Noise [n, r] along the coordinates, projected back to transformed features [n, d], plus the part of the
        noise `rest` [n, d] that lies outside of them (None: nothing does). No row depends on what comes with it.
        """
        if rest is None:
            return row_product(noise, self.back.to(noise))
        there, back = self.map.to(rest), self.back.to(rest)
        return row_product(noise - row_product(rest, there), back) + rest


def predictive(psi: Tensor, parameters: Tensor, z: Tensor, counts: Tensor, scatter: Tensor | None,
               mixture: tuple[Tensor, float] | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean and variance [..., r] of what comes next of classes with mean `z` [..., r], `counts` [...] rows and the sum
    of squares `scatter` [..., r] of their rows round the mean (None: their own spread is ignored). It counts as that of
    20 rows at most, as parameters are learnt on no more: base classes, whose rows the backbone drew together, would
    otherwise take all queries.

    `psi` [..., r] and `parameters` [..., 1, 8] may be of several models at once. `mixture` is class means [c, r] round
    which, in parts tau of psi, a class lies.
    """
    number, n, level = parameters.unbind(-1), counts[..., None], (psi + 1e-6).log()
    middle = level.mean(-1, keepdim=True)
    psi = torch.exp(number[SCALE] + middle + (1 + number[POWER]) * (level - middle))
    s = torch.ones_like(number[SPREAD])
    if scatter is not None:
        guess, more = torch.exp(number[SPREAD]), (n - 1).clamp(min=0)
        used = more.clamp(max=_MOST_SPREAD_ROWS)
        s = (guess + scatter * torch.where(more > used, used / more, 1)) / (guess + used)
    own = s * torch.exp(number[NOISE])
    tilt = torch.exp(-number[TILT] * (level - middle))
    if mixture is None:
        pull = n * psi / (own + n * psi)
        return pull * z, (s + own * psi / (own + n * psi)) * tilt
    psi = psi * mixture[1]
    prior, between = nearest(mixture[0], z, psi + own / n)
    pull = n * psi / (own + n * psi)
    variance = s + own * psi / (own + n * psi) + (1 - pull).square() * between
    return prior + pull * (z - prior), variance * tilt


def nearest(classes: Tensor, z: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [..., r] of the `classes` [c, r] that `z` [..., r] may be a draw of, with `variance` round.

    Classes may be [b, c, r], others for each episode.
    """
    precision = 1 / variance
    squares = precision @ classes.square().mT - 2 * (z * precision) @ classes.mT  # [..., c], but for what all have
    share = F.threshold(torch.softmax(-squares / 2, -1), _LEAST, 0.0)  # denormal numbers multiply 20 times as slowly
    mean = share @ classes
    return mean, (share @ classes.square() - mean.square()).clamp(min=0)


def log_density(parameters: Tensor, query: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(query; mean, variance) [..., q, way], but for what is the same for all classes of an episode.

    `query` [..., q, r], `mean` and `variance` [..., way, r]; `parameters` [..., 1, 8] as for `predictive`.
    """
    precision = 1 / variance
    pulled = precision * mean
    size = (pulled * mean).sum(-1)
    found = _products(query, pulled)  # [..., q, way]
    if precision.shape[-2] > 1:  # else it is the same for all classes
        found = found - query.square() @ (precision / 2).mT
    of_class = (1 - parameters[..., 0, BIAS]) * size + variance.log().sum(-1)
    return found - of_class[..., None, :] / 2


def _products(query: Tensor, points: Tensor) -> Tensor:
    """[..., q, r] and [..., way, r] -> [..., q, way]; one set of queries for several models is multiplied once."""
    if query.ndim < 4 or len(query) == len(points):
        return query @ points.mT
    both = query[0] @ rearrange(points, "k e way r -> e (k way) r").mT
    return rearrange(both, "e q (k way) -> k e q way", k=len(points))


def subspace(found: Gathered, rank: int) -> Tensor | None:
    """The `rank` directions [d, rank] in which rows spread most, within classes and between; None for all of them."""
    if rank >= len(found.scatter):
        return None
    apart = (found.means - found.means.mean(0)).to(torch.float32)
    total = found.within().to(torch.float32) + apart.T @ apart / max(1, len(apart) - 1)
    return symmetric_eigen(total)[1][:, -rank:].to(torch.float64)


def learn(model: TwoCovariance, found: Gathered, within: Tensor, shrinkage: float,
          mean_shrinkage: float | None = None, whole: Tensor | None = None) -> None:  # fmt: skip
    """Fill in the model from class means and a covariance `within` [d, d], drawn towards a sphere by `shrinkage`, in
    whose dtype everything is reckoned.

    S_b is the covariance of class means, less what S_w adds to it, and psi is drawn towards its mean by
    `mean_shrinkage`, or by as much as Chen et al. say ("Shrinkage algorithms for MMSE covariance estimation", 2010,
    equation 23). `whole` is a subspace known before. Raises InputError where features do not spread.
    """
    rank, middle, excess = model.map.shape[1], found.means.mean(0), float((1 / found.counts).mean())
    whole = subspace(found, rank) if whole is None else whole
    sphere = torch.eye(len(within), dtype=within.dtype, device=within.device) * within.diagonal().mean()
    within, apart = (1 - shrinkage) * within + shrinkage * sphere, (found.means - middle).to(within)
    model.rest = torch.zeros_like(model.centre)
    if whole is not None:
        whole = whole.to(within)
        wide, within, apart_wide, apart = within, whole.T @ within @ whole, apart, apart @ whole
        model.rest, model.rest_psi = _outside(whole, wide, apart_wide, excess)
    between = apart.T @ apart / max(1, len(apart) - 1)
    values, vectors = symmetric_eigen(within)
    if not float(values[0]) > 1e-12 * float(values[-1]):
        raise InputError("the base features do not spread in every direction; expected a shrinkage over 0")
    whiten = vectors / values.sqrt()
    psi, turn = symmetric_eigen(whiten.T @ between @ whiten)
    psi = (psi - excess).clamp(min=0)  # means of n rows scatter by S_w / n, here I / n, more than class means do
    amount = oracle_shrinkage(psi, len(apart) - 1) if mean_shrinkage is None else mean_shrinkage
    mapped, back = whiten @ turn, turn.T @ (vectors * values.sqrt()).T
    model.classes = (apart @ mapped).float()
    model.psi = ((1 - amount) * psi + amount * psi.mean()).float()
    model.mean = middle.float()
    model.map = (mapped if whole is None else whole @ mapped).float()
    model.back = (back if whole is None else back @ whole.T).float()


def _outside(whole: Tensor, within: Tensor, apart: Tensor, excess: float) -> tuple[Tensor, Tensor]:
    """Outside of a subspace [d, r]: standard deviations [d] within classes, one psi [1] for all directions.

    `within` is [d, d], `apart` [c, d] class means round their mean, and 1 / `excess` how many rows have a mean.
    """
    inside = whole.T @ within @ whole
    left = within.diagonal() + ((whole @ inside - 2 * within @ whole) * whole).sum(1)  # [d], of P S_w P
    share = (1 - whole.square().sum(1)).clamp(min=1e-6)  # how much of each feature lies outside
    between = (apart.square().sum() - (apart @ whole).square().sum()) / max(1, len(apart) - 1)
    psi = (between / left.sum().clamp(min=1e-30) - excess).clamp(min=0)
    return (left.clamp(min=0) / share).sqrt().float(), psi.reshape(1).float()


def oracle_shrinkage(values: Tensor, free: int) -> float:
    """How far to draw a covariance with eigenvalues [d] from `free` degrees of freedom towards a sphere, 0..1."""
    d, trace, squares = len(values), float(values.sum()), float(values.square().sum())
    apart = (free + 1 - 2 / d) * (squares - trace**2 / d)
    return 1.0 if apart <= 0 else min(1.0, ((1 - 2 / d) * squares + trace**2) / apart)
