"""`photos` with more of its last map than the mean: where in the picture things are.

One pass through the network gives both, so that it costs nothing beside `photos`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from augforge.parts import catalog
from augforge.parts.saving import open_part
from augforge.types import Bank, InputError, Space

OF_NETWORK = {"lite0": "photos", "lite2": "photos-lite2"}


@dataclass
class PhotoParts:
    """EfficientNet-Lite (d = 5 * 1,280): the mean of its last map, and the means of its four quarters.

    The first 1,280 columns are the features of `photos`, but for their length. The network and its weights are those of
    `photos` as they come; nothing is learnt.
    """

    space: ClassVar[Space] = "image"
    any_size: ClassVar[bool] = True
    pretrained: ClassVar[bool] = True

    network: Literal["lite0", "lite2"] = "lite0"  # lite2 takes twice as long, and an extra package
    net_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _photos: Any = field(default=None, init=False, repr=False)

    def fit(self, base: Bank | None, rng: torch.Generator | None) -> Self:
        """Read the weights. Raises LackError where their package is not installed, InputError for another file."""
        return self._of(open_part(OF_NETWORK[self.network], None, "representation"))

    def build(self, facts: dict[str, int]) -> None:
        """Make the empty network; `facts` has the side of its pictures for the record."""
        part = catalog.make(OF_NETWORK[self.network], None, "representation")
        part.build(facts)
        self._of(part)

    def _of(self, part: Any) -> Self:
        self._photos, self.net_, self.facts_ = part, part.net_, part.facts_
        return self

    @property
    def short_side(self) -> int:
        """Px of the shorter side before the middle is cut out."""
        part = self._photos or catalog.make(OF_NETWORK[self.network], None, "representation")
        return part.short_side

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], uint8 or floats in [0, 1], or a list of [c, h, w], to features [n, 6400] float32.

        As `Photos.embed_parts`. Raises InputError before `fit`.
        """
        if self._photos is None:
            raise InputError("photos-parts is not fitted yet; expected fit(base, rng)")
        return self._photos.embed_parts(x)
