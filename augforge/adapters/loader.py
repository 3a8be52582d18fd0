"""Augmentation inside a torch DataLoader: every visit to a row gives another picture, and every run the same ones.

A made picture is a pure function of (seed, row, visit). `visit` counts the earlier visits to that row, in memory
that all workers share; a loader visits each row once an epoch, so it is the number of the epoch, without anyone
having to say so. It holds for any number of workers, persistent or not, forked or spawned.

Three things are beyond it. A sampler that draws with replacement can have two workers at the same row at once: which
of them comes first is then not fixed. With DistributedSampler each process counts for itself, while a row changes
processes from epoch to epoch: call `set_epoch` here where you call the sampler's. And two loaders over one dataset
share its counts: give each its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from augforge import chance
from augforge.data.containers import Defect
from augforge.data.decode import to_pixels
from augforge.data.items import pair_of
from augforge.networks.pixels import check_levels
from augforge.types import Examples, InputError, Synthesizer, capabilities, whole_seed


class LabelledPictures(Protocol):
    """What is augmented: any map-style dataset of pairs (picture, label), or dictionaries with "image" and "label"."""

    def __getitem__(self, row: int, /) -> Any:
        """The item of a row."""
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...


class Item(NamedTuple):
    """A picture [c, h, w] that is still to be augmented, its label, and the int64 key [] of this visit."""

    picture: Tensor
    label: Any
    key: Tensor


class Keyed(Dataset[Item]):
    """A dataset of (picture, label) as one of (picture, label, key), for `AugmentBatch`.

    A picture is a tensor [h, w] or [c, h, w], uint8 or floating in [0, 1], so normalise afterwards; a uint8 array
    [h, w] or [h, w, c]; or a Pillow image, of which transparency is laid on white. Each time an item is read counts as
    a visit. Raises InputError for a seed that is no whole number of 64 bits.
    """

    def __init__(self, dataset: LabelledPictures, seed: int = 0):
        self.dataset, self.seed = dataset, whole_seed(seed)
        self.visits = torch.zeros(len(dataset), dtype=torch.int64).share_memory_()  # [n]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.visits)

    def __getitem__(self, row: int) -> Item:
        """The item of a row, counted; raises InputError for what is no picture and no pair."""
        row = range(len(self.visits))[row]  # so that -1 has the key of the last row, and n raises IndexError
        picture, label = pair_of(self.dataset[row], row)
        pixels = _as_picture(picture, row)
        visit = int(self.visits[row])
        self.visits[row] = visit + 1
        key = chance.row_keys(self.seed, f"visit {visit}", torch.tensor([row]))[0]
        return Item(pixels, label, key)

    def set_epoch(self, epoch: int) -> None:
        """Make every row's next visit number `epoch` (from 0): to resume, or after an epoch that was broken off.

        Workers fetch ahead of the loop, so how far the counts of a broken-off epoch got depends on their number.
        Call it while no worker is at work: after a whole epoch, or once the broken-off iterator is gone. Persistent
        workers outlive it and still finish what they fetched ahead: there, make a new DataLoader first.
        """
        self.visits.fill_(epoch)


class Augmented(Dataset[tuple[Tensor, Any]]):
    """A dataset of (picture, label), see `Keyed`, as one of (augmented picture [c, h, w], label).

    `synthesizer` makes pictures from one parent: Classical, AlbumentationsCompose, Copies, Noise. A DataLoader asks
    for a batch at a time, and gets it from one call. Raises InputError for any other synthesizer.
    """

    def __init__(self, dataset: LabelledPictures, synthesizer: Synthesizer, seed: int = 0):
        _check(synthesizer)
        self.synthesizer, self.keyed = synthesizer, Keyed(dataset, seed)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.keyed)

    def __getitem__(self, row: int) -> tuple[Tensor, Any]:
        """The next picture of a row, and its label."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Tensor, Any]]:
        """The same for several rows at once; torch's DataLoader looks for this method."""
        items = [self.keyed[row] for row in rows]
        return [(made, item.label) for made, item in zip(_augment(self.synthesizer, items), items, strict=True)]

    def set_epoch(self, epoch: int) -> None:
        """Make every row's next visit number `epoch`; see `Keyed.set_epoch`."""
        self.keyed.set_epoch(epoch)


class AugmentBatch:
    """The `collate_fn` for `Keyed`: n items -> (augmented pictures [n, c, h, w], labels as torch collates them).

    Pictures are a list of n [c, h, w] where their sizes differ. Raises InputError where `synthesizer` does not make
    pictures from one parent.
    """

    def __init__(self, synthesizer: Synthesizer):
        _check(synthesizer)
        self.synthesizer = synthesizer

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor | list[Tensor], Any]:
        """Augment and collate a batch."""
        return _augment(self.synthesizer, items), default_collate([item.label for item in items])


def _check(synthesizer: Synthesizer) -> None:
    says = capabilities(synthesizer)
    if not says.one_parent or says.space == "feature" or says.support_needed != 1:
        raise InputError(
            f"{type(synthesizer).__name__} cannot augment the pictures of a loader; expected a synthesizer that makes "
            "a picture from one picture, such as Classical"
        )


def _augment(synthesizer: Synthesizer, items: Sequence[Item]) -> Tensor | list[Tensor]:
    """One made picture for each item: [n, c, h, w], or a list of n where sizes or types differ."""
    pictures = [item.picture for item in items]
    alike = len({(picture.shape, picture.dtype) for picture in pictures}) == 1
    rows = torch.arange(len(items))  # every item is a class of its own, and so its own parent
    support = Examples(torch.stack(pictures) if alike else pictures, rows)
    made = synthesizer.synthesize(support, rows, torch.stack([item.key for item in items])).x
    if isinstance(made, list) and len({(picture.shape, picture.dtype) for picture in made}) == 1:
        return torch.stack(made)
    return made


def _as_picture(value: Any, row: int) -> Tensor:
    """A dataset's picture as a tensor [c, h, w], uint8 or floating."""
    pixels = _pixels(value, row)
    if isinstance(pixels, np.ndarray) and pixels.ndim in (2, 3) and pixels.dtype == np.uint8:
        pixels = torch.from_numpy(pixels.copy())  # torch takes no negative strides, and warns of read-only arrays
        pixels = rearrange(pixels, "h w c -> c h w") if pixels.ndim == 3 else pixels
    if isinstance(pixels, Tensor) and (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
            check_levels([pixels], f"row {row} of the dataset")
            return pixels
    found = " ".join(str(part) for part in (type(value).__name__, *_shape_and_type(value)))
    raise InputError(
        f"row {row} of the dataset holds a {found}; expected a tensor [c, h, w], uint8 or floating, a uint8 array "
        "[h, w] or [h, w, c], or a Pillow image, with 1 or 3 channels"
    )


def _pixels(value: Any, row: int) -> Any:
    """The pixels of a Pillow image [h, w] or [h, w, 3] uint8; anything else as it is."""
    if not isinstance(value, Image.Image):
        return value
    try:
        return to_pixels(value)
    except Defect as defect:
        raise InputError(f"row {row} of the dataset holds a Pillow image that {defect}") from defect


def _shape_and_type(value: Any) -> tuple[Any, ...]:
    return (list(value.shape), value.dtype) if hasattr(value, "shape") and hasattr(value, "dtype") else ()
