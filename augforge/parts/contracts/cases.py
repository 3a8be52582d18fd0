"""What the laws of `contracts` are checked on: a part and made-up rows for it, of one kind and one width."""

from __future__ import annotations

import copy
import functools
import pickle
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from augforge import chance
from augforge.data.banks import AnyBank, ArrayPictures, FeatureBank
from augforge.parts import catalog, plugins
from augforge.parts.learning import learn
from augforge.parts.saving import load_part, save_part
from augforge.types import Classifier, Examples, Part, Representation, Synthesizer

SUPPORT_Y = torch.tensor([0, 2, 1, 2, 0, 2])
WANT = torch.tensor([2, 0, 0, 1, 2, 1, 0, 2, 2, 1, 0, 2])
KEYS = chance.row_keys(0, "contract", torch.arange(len(WANT)))
WAY, SHOT, QUERIES, EPISODES = 3, 3, 7, 4
FLOATS = (torch.float32, torch.float64, torch.bfloat16)
_SHIFT = 3  # base class means lie this many classes to one standard deviation apart
P = TypeVar("P", bound=Part)


@dataclass(frozen=True, eq=False)
class SynthesizerCase:
    """A synthesizer that is not fitted, and the rows that it is handed: features, or pictures of a type and size.

    Without a `base` bank it is fitted on made-up rows. With one, the support is made of its first three classes, which
    need 2, 1 and 3 rows.
    """

    part: Synthesizer
    space: Literal["image", "feature"] = "feature"
    dtype: torch.dtype = torch.float32
    width: int = 16  # features of a row, or the side of a picture in px
    channels: int = 3  # of pictures
    sizes: tuple[int, ...] = ()  # the sides of the support's pictures where they differ
    base: AnyBank | None = None

    def __str__(self) -> str:
        """The kind of rows, as "feature-float32-16"."""
        several = "-sizes" if self.sizes else ""
        channels = self.channels if self.space == "image" else ""
        return f"{self.space}{channels}-{_spell(self.dtype)}-{self.width}{several}"

    def support(self) -> Examples:
        """Six rows of three classes, new tensors each time."""
        if self.base is not None:
            rows = torch.stack([self.base.rows_of(k)[i] for k, i in zip(SUPPORT_Y.tolist(), _places(), strict=True)])
            x = self.base.examples(rows).x
            return Examples(
                [_cast(p, self.dtype) for p in x] if isinstance(x, list) else _cast(x, self.dtype), SUPPORT_Y
            )
        rng = torch.Generator().manual_seed(11)
        if self.space == "feature":
            x = torch.randn(len(SUPPORT_Y), self.width, generator=rng).relu()
            return Examples(x.to(self.dtype), SUPPORT_Y)
        sizes = self.sizes or (self.width,)
        sizes = tuple(sizes[i % len(sizes)] for i in range(len(SUPPORT_Y)))
        pictures = [_cast(torch.randint(0, 256, (self.channels, size, size), generator=rng).to(torch.uint8), self.dtype)
                    for size in sizes]  # fmt: skip
        return Examples(pictures if self.sizes else torch.stack(pictures), SUPPORT_Y)

    @functools.cached_property
    def fitted(self) -> Synthesizer:
        """The part, fitted; the same one each time."""
        return self.fit_again()

    def fit_again(self) -> Synthesizer:
        """A copy of the part, fitted with the same numbers."""
        return fitted_copy(self.part, self.base or base_bank(self.space, self.width, self.channels))

    def made(self, rows: Tensor | None = None) -> Examples:
        """What the fitted part makes for the places `rows` [m] of what is wanted; for all of them without."""
        rows = torch.arange(len(WANT)) if rows is None else rows
        return self.fitted.synthesize(self.support(), WANT[rows], KEYS[rows])


@dataclass(frozen=True, eq=False)
class ClassifierCase:
    """A classifier that is not fitted, and the features of episodes for it."""

    part: Classifier
    dtype: torch.dtype = torch.float64
    width: int = 8
    base: AnyBank | None = None

    def __str__(self) -> str:
        """The kind of features, as "float64-8"."""
        return f"{_spell(self.dtype)}-{self.width}"

    def episodes(self, dtype: torch.dtype | None = None) -> tuple[Examples, Tensor]:
        """Supports [b, n, d] and queries [b, q, d] of `EPISODES` episodes, new tensors each time."""
        dtype, rng = dtype or self.dtype, torch.Generator().manual_seed(8)
        labels = torch.arange(WAY).repeat(SHOT)
        y = torch.stack([labels[torch.randperm(len(labels), generator=rng)] for _ in range(EPISODES)])
        centres = torch.randn(EPISODES, WAY, self.width, generator=rng, dtype=torch.float64)
        spread = torch.randn(EPISODES, len(labels), self.width, generator=rng) / 2
        x = centres.gather(1, y[..., None].expand(-1, -1, self.width)) + spread
        query = torch.randn(EPISODES, QUERIES, self.width, generator=rng, dtype=torch.float64)
        return Examples(x.to(dtype), y), query.to(dtype)

    @functools.cached_property
    def fitted(self) -> Classifier:
        """The part, fitted; the same one each time."""
        return self.fit_again()

    def fit_again(self) -> Classifier:
        """A copy of the part, fitted with the same numbers."""
        return fitted_copy(self.part, self.base or base_bank("feature", self.width))

    def scores(self, support: Examples, query: Tensor, part: Classifier | None = None) -> Tensor:
        """The scores of a part, or of the fitted one, without gradients."""
        part = part or self.fitted  # fitted with gradients, and used without
        with torch.no_grad():
            return part.scores(support, query)


@dataclass(frozen=True, eq=False)
class RepresentationCase:
    """A representation that is not fitted, and pictures for it."""

    part: Representation
    dtype: torch.dtype = torch.uint8
    width: int = 16  # the side of the pictures in px
    channels: int = 3
    base: AnyBank | None = None

    def __str__(self) -> str:
        """The kind of pictures, as "3-uint8-16"."""
        return f"{self.channels}-{_spell(self.dtype)}-{self.width}"

    def pictures(self) -> Tensor:
        """Seven pictures [7, c, h, w], a new tensor each time."""
        if self.base is not None:
            x = self.base.examples(torch.arange(7)).x
            return _cast(torch.as_tensor(x), self.dtype)
        rng = torch.Generator().manual_seed(12)
        shape = (7, self.channels, self.width, self.width)
        return _cast(torch.randint(0, 256, shape, generator=rng).to(torch.uint8), self.dtype)

    @functools.cached_property
    def fitted(self) -> Representation:
        """The part, fitted; the same one each time."""
        return self.fit_again()

    def fit_again(self) -> Representation:
        """A copy of the part, fitted with the same numbers."""
        return fitted_copy(self.part, self.base or base_bank("image", self.width, self.channels))

    def embed(self, pictures: Tensor, part: Representation | None = None) -> Tensor:
        """The features of a part, or of the fitted one, without gradients."""
        part = part or self.fitted  # fitted with gradients, and used without
        with torch.no_grad():
            return part.embed(pictures)


def base_bank(space: str, width: int, channels: int = 3) -> AnyBank:
    """Six base classes of eight made-up rows: features [48, width], or pictures of `width` px with a column "half"."""
    rng = np.random.default_rng(3)
    y = torch.arange(6).repeat_interleave(8)
    classes = tuple("abcdef")
    if space == "feature":
        x = torch.from_numpy(rng.normal(size=(len(y), width)).astype(np.float32)) + y[:, None] / _SHIFT
        return FeatureBank(x.relu(), y, classes, "base")
    pixels = rng.integers(0, 256, (len(y), width, width, channels), dtype=np.uint8)
    return ArrayPictures(y, classes, pixels, "base", groups={"half": ("left", "right") * 24})


def fitted_copy(part: P, base: AnyBank) -> P:
    """A copy of a part, fitted on a bank with the random numbers of seed 0."""
    return learn(copy.deepcopy(part), base, torch.Generator().manual_seed(0), None)


def saved_and_packed(part: P, kind: str) -> Iterator[tuple[str, P]]:
    """The part as it comes back from a folder, and from the bytes that another process would be sent."""
    with tempfile.TemporaryDirectory() as folder, _trusted(part):
        save_part(part, Path(folder) / "part", kind)
        yield "saved and loaded", load_part(Path(folder) / "part", kind)
    yield "packed and unpacked", pickle.loads(pickle.dumps(part))


def require_description(part: Part, kind: str) -> None:
    """Raise AssertionError unless a part's description makes a part of the same description."""
    with _trusted(part):
        described = catalog.describe(part, kind)
        again = catalog.describe(catalog.make(described["name"], described["settings"], kind), kind)
    require(again == described, f"{described} made {again}")


def _trusted(part: Part) -> AbstractContextManager[None]:
    """Its class is here already, and may be found again by its name."""
    return plugins.trusting(f"{type(part).__module__}:{type(part).__qualname__}")


def random_state() -> tuple[Any, ...]:
    """The state of all global random numbers."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch.get_rng_state().numpy().tobytes()


def require(truth: bool, found: str) -> None:
    """Raise AssertionError with what was found, unless it is as it should be."""
    if not truth:
        raise AssertionError(found)


def require_same(found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor], what: str) -> None:
    """Raise AssertionError unless rows are the same to the bit, and of one type."""
    require(isinstance(found, list) == isinstance(expected, list), f"{what}: {type(found).__name__} is no longer "
            f"{type(expected).__name__}")  # fmt: skip
    require(len(found) == len(expected), f"{what}: {len(found)} rows are no longer {len(expected)}")
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        require(a.dtype == b.dtype and a.shape == b.shape, f"{what}: row {i} is {_spell(a.dtype)} {list(a.shape)}, and "
                f"was {_spell(b.dtype)} {list(b.shape)}")  # fmt: skip
        require(torch.equal(a, b), f"{what}: {int((a != b).sum())} of {a.numel()} numbers of row {i} differ, by up to "
                f"{float((a.detach().double() - b.detach().double()).abs().max()):.3g}")  # fmt: skip


def require_close(found: Tensor, expected: Tensor, what: str, most: float = 1e-5) -> None:
    """Raise AssertionError unless numbers are the same but for rounding, `most` absolute and relative."""
    require(found.shape == expected.shape, f"{what}: {list(found.shape)} is no longer {list(expected.shape)}")
    far = (found - expected).abs() > most + most * expected.abs()
    require(not bool(far.any()), f"{what}: {int(far.sum())} of {found.numel()} numbers differ, by up to "
            f"{float((found - expected).detach().abs().max()) if found.numel() else 0:.3g}")  # fmt: skip


def _places() -> list[int]:
    """Which row of its class each row of the support is."""
    return [int((SUPPORT_Y[:i] == k).sum()) for i, k in enumerate(SUPPORT_Y.tolist())]


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Pictures of 0..255 as floats in [0, 1] where floats are wanted; features as they are."""
    return (x / 255).to(dtype) if x.dtype == torch.uint8 and dtype != torch.uint8 else x.to(dtype)


def _spell(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
