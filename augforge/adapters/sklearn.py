"""Any feature synthesizer as a sampler for scikit-learn's users: `fit_resample(X, y)`, as in imbalanced-learn.

Needs scikit-learn (extra `sklearn`); imbalanced-learn's pipeline takes it as a step, and is not needed otherwise.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from augforge import chance
from augforge.adapters.sklearn_arrays import Labels, Strategy, flat_labels, in_container, number_classes, rows_to_make
from augforge.classifiers.pool import label_pool
from augforge.data.banks import FeatureBank
from augforge.data.source import open_source
from augforge.imagine import check_space, concatenate, trust_of, weighed
from augforge.parts import saving
from augforge.parts.catalog import family_of
from augforge.parts.learning import learn
from augforge.parts.saving import fitted_tensors
from augforge.types import Examples, InputError, LackError, Weighing, capabilities, whole_seed

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin
    from sklearn.utils import InputTags, Tags
    from sklearn.utils.validation import validate_data
except ImportError as missing:
    raise LackError(
        "Resampler needs the package scikit-learn, at least 1.6; `pip install augforge[sklearn]` installs it"
    ) from missing

_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 8192, 1 << 22  # made at a time: so many rows, or more where they are short


@dataclass(slots=True)
class _InputTags(InputTags):
    """Scikit-learn's tags of what goes in, and the one that imbalanced-learn adds."""

    dataframe: bool = True


@dataclass(slots=True)
class _SamplerTags:
    """What imbalanced-learn asks of a sampler: whether what comes out is rows of what went in alone."""

    sample_indices: bool = False


@dataclass(slots=True)
class _Tags(Tags):
    """Scikit-learn's tags, and imbalanced-learn's."""

    sampler_tags: _SamplerTags | None = None


class Resampler(OneToOneFeatureMixin, BaseEstimator):
    """Makes more rows of the classes that have few, with any feature synthesizer of the catalog.

    `synthesizer` is a name (`augforge list`) with `settings`, a folder that `augforge fit` made, or a part. What a
    part learns it learns from `base`: a FeatureBank, or a source of features (its "train" and, for parts that choose
    by them, "val" classes); without one from X and y themselves, so mostly from the classes that have many rows. A part
    or folder that is fitted already is used as it is. `sampling_strategy` says how many rows a class has in the end:

    - "auto" or "not majority": every class but the largest as many as the largest; "minority": the smallest alone;
      "not minority": every class but the smallest; "all" is like "auto";
    - a dictionary {class: rows}, or a function that makes one of y: classes that it does not name stay;
    - a number over 0 and up to 1, for two classes: rows of the smaller one for each of the larger one;
    - a whole number over 1, which imbalanced-learn does not know: at least so many of every class.

    `random_state` is a whole number, a generator of numpy's that a number is drawn from, or None, which makes other
    rows every time. A made row depends on it, on the rows given and on its place among the made ones of its class:
    more of them keep what fewer made.

    How much to trust a made row depends on the `classifier` that will read it, by name (`imagine.weighed`). A pipeline
    has no way to hand that on: rows of weight 0 are left out, with a warning, so there may be fewer than was asked for,
    and the weights of the others are in `sample_weight_`.

    After `fit`: `sampling_strategy_` {class: rows to make}, `synthesizer_` the fitted part, `classes_`,
    `n_features_in_`. After `fit_resample` also `sample_weight_` [m], how much to trust each row (1 for real rows), and
    `parents_` [m], the row of X that each was made from (-1 for real rows, and where there is no single one), and
    `pool_rows_` [m], the row of the pool that each is (-1 for all others).
    """

    def __init__(
        self,
        synthesizer: Any = "mixing",
        *,
        sampling_strategy: Strategy = "auto",
        settings: Mapping[str, Any] | None = None,
        base: FeatureBank | str | Path | None = None,
        classifier: str = "logistic",
        random_state: Any = 0,
    ) -> None:
        self.synthesizer = synthesizer
        self.sampling_strategy = sampling_strategy
        self.settings = settings
        self.base = base
        self.classifier = classifier
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Check X [n, d] and y [n], fit the synthesizer, and count what is to be made; raises InputError."""
        self._prepare(X, y)
        return self

    def fit_resample(self, X: Any, y: Any, pool: Any = None) -> tuple[Any, Any]:
        """The rows of X [n, d] with made ones behind them, [m, d], and their labels [m], in containers as given.

        The rows of an unlabelled `pool` [k, d] come last, with the labels and weights that `pool.label_pool` finds for
        them from X and y; what is not believed at all is left out.

        X is of floats (whole numbers become floats), an array, list, frame or sparse matrix; sparse rows are made
        dense meanwhile. y are any labels, or a matrix [n, classes] of zeros and ones. Raises InputError, a ValueError,
        for what does not fit together, and ValueError for what scikit-learn refuses.
        """
        x, labels, seed = self._prepare(X, y)
        support = Examples(torch.from_numpy(x), torch.from_numpy(labels.codes))
        made = self._make(support, labels, seed)
        if not isinstance(made.x, Tensor) or made.x.shape[1:] != x.shape[1:]:
            raise InputError(f"{type(self.synthesizer_).__name__} makes rows of another size than those of X")
        if made.weight is not None and bool((made.weight == 0).any()):
            name, none = type(self.synthesizer_).__name__, int((made.weight == 0).sum())
            why = _why_none(self.synthesizer_, support, self.classifier)
            said = f"{name} gave {none} of {len(made)} made rows the weight 0, as {why}; they are left out"
            warnings.warn(said, stacklevel=2)
            made = made.take(made.weight != 0)
        real = Examples(support.x, support.y, torch.full_like(support.y, -1), torch.ones(len(x)))
        found, self.pool_rows_ = _from_pool(support, pool)
        self.pool_rows_ = np.concatenate([np.full(len(real) + len(made), -1), self.pool_rows_])
        whole = concatenate([real, made, *([] if found is None else [found])])
        self.parents_ = torch.as_tensor(whole.parent).numpy()
        self.sample_weight_ = torch.as_tensor(whole.weight).double().numpy()
        return in_container(torch.as_tensor(whole.x).numpy(), X), in_container(labels.back(whole.y.numpy()), y)

    def _prepare(self, X: Any, y: Any) -> tuple[np.ndarray, Labels, int]:
        """Rows [n, d], a writable array of floats; labels; and the seed. Sets all that `fit` learns."""
        flat, matrix = (None, None) if y is None else flat_labels(y)
        kinds = {"accept_sparse": ["csr", "csc"], "dtype": [np.float64, np.float32]}
        checked, flat = validate_data(self, X, flat, **kinds)
        dense = checked.toarray() if hasattr(checked, "toarray") else checked
        x = np.require(dense, requirements=["C", "W"])
        labels = number_classes(flat, matrix)
        self.sampling_strategy_ = rows_to_make(self.sampling_strategy, labels, flat)
        self.classes_ = np.array(labels.classes)
        seed = _seed(self.random_state)
        bank = FeatureBank(torch.from_numpy(x), torch.from_numpy(labels.codes), labels.names, "X")
        self.synthesizer_ = self._fitted(bank, seed)
        return x, labels, seed

    def _fitted(self, bank: FeatureBank, seed: int) -> Any:
        """The synthesizer: fitted on `base` or on the given rows, unless it is fitted already."""
        part = self.synthesizer
        if isinstance(part, str | Path):
            part = saving.open_part(str(part), dict(self.settings or {}))
        elif self.settings:
            raise InputError("settings were given with a part; expected them on the part itself")
        check_space(part, Examples(bank.x, bank.y), type(part).__name__)
        if fitted_tensors(part):
            if self.base is not None:
                raise InputError("base was given for a synthesizer that is fitted already; expected one of them")
            return part
        base, val = (bank, None) if self.base is None else _base(self.base)
        return learn(copy.deepcopy(part), base, torch.Generator().manual_seed(seed), val)

    def _make(self, support: Examples, labels: Labels, seed: int) -> Examples:
        """The rows that are to be made, class by class; raises InputError for a class that has too few."""
        part = self.synthesizer_
        counts = torch.bincount(support.y, minlength=len(labels.classes)).tolist()
        want, keys = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
        for code, (label, name) in enumerate(zip(labels.classes, labels.names, strict=True)):
            count = self.sampling_strategy_.get(label, 0)
            if count and counts[code] < capabilities(part).support_needed:
                raise InputError(f"class {label!r} has {counts[code]} rows; {type(part).__name__} needs at least "
                                 f"{capabilities(part).support_needed}")  # fmt: skip
            want.append(torch.full((count,), code))
            keys.append(chance.pair_keys(seed, name, torch.arange(count)))
        assert isinstance(support.x, Tensor)
        at_once = max(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // support.x.shape[1])
        with torch.no_grad():
            pieces = [
                part.synthesize(support, some, own)
                for some, own in zip(torch.cat(want).split(at_once), torch.cat(keys).split(at_once), strict=True)
            ]
        return weighed(concatenate(pieces), support, part, family_of(self.classifier))

    def __sklearn_tags__(self) -> _Tags:
        """What scikit-learn and imbalanced-learn may expect."""
        usual = super().__sklearn_tags__()
        usual.target_tags.required = True
        return _Tags(
            estimator_type="sampler",
            target_tags=usual.target_tags,
            input_tags=_InputTags(sparse=True),
            sampler_tags=_SamplerTags(),
        )


def _why_none(part: Any, support: Examples, classifier: str) -> str:
    """Why rows that a method made of a support have the weight 0."""
    if trust_of(part, support) == 0:
        return "the rows of X do not bear out what it learnt from other classes"
    if isinstance(part, Weighing):
        return f"it gained nothing before {classifier} on held-out classes"
    tested = capabilities(part).tested_on_support
    return "held-out rows of X do not gain by them" if tested else "it does not trust them"


def _from_pool(support: Examples, pool: Any) -> tuple[Examples | None, np.ndarray]:
    """The rows of a pool that weigh something, and which rows of it they are; InputError where it does not fit X."""
    if pool is None:
        return None, np.zeros(0, np.int64)
    given = np.asarray(pool.toarray() if hasattr(pool, "toarray") else pool)
    like = torch.as_tensor(support.x)
    if given.ndim != 2 or given.dtype.kind not in "fiu" or given.shape[1] != like.shape[1]:
        raise InputError(
            f"pool is of {given.dtype} {list(given.shape)} and X {list(like.shape)}; expected as many columns"
        )
    x = torch.from_numpy(np.array(given)).to(like)
    if not len(x):
        return None, np.zeros(0, np.int64)
    found = label_pool(support, x)
    kept = (found.weight > 0).nonzero()[:, 0]
    rows = Examples(x[kept], found.y[kept], torch.full_like(kept, -1), found.weight[kept].float())
    return rows, kept.numpy()


def _base(base: FeatureBank | str | Path) -> tuple[FeatureBank, FeatureBank | None]:
    """The base classes to learn from, and validation classes where the source has some; raises InputError."""
    banks = {"all": base} if isinstance(base, FeatureBank) else open_source(base)
    found = banks.get("train", next(iter(banks.values())))
    val = banks.get("val")
    if not isinstance(found, FeatureBank) or not (val is None or isinstance(val, FeatureBank)):
        raise InputError(f"base={str(base)!r} holds pictures; expected features, as `augforge synth` writes them")
    return found, val


def _seed(random_state: Any) -> int:
    """The seed that a `random_state` means; for None one of the machine's. No global state is read."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**63))
    if hasattr(random_state, "integers"):
        return int(random_state.integers(2**63))
    if hasattr(random_state, "randint"):
        return int(random_state.randint(2**31 - 1))
    return whole_seed(random_state, "random_state")
