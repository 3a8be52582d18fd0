"""The features of several representations side by side, each at unit length: "photos+photos-lite2"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.parts.saving import open_part
from augforge.types import Bank, InputError, Space, capabilities


@dataclass
class Joined:
    """Representations that are fitted already, or bring their weights, one beside the other.

    A member is what `--representation` takes: a name, or a folder that `fit` made. A saved `Joined` holds the weights
    of all; the folders of members that came from folders have to stay where they are.
    """

    space: ClassVar[Space] = "image"
    pretrained: ClassVar[bool] = True

    name: str = "photos+photos-lite2"  # two members or more, with + between them
    net_: nn.ModuleList | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _members: list[Any] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for fewer than two members, or one twice."""
        names = self.name.split("+")
        if len(names) < 2 or not all(names) or len(set(names)) < len(names):
            raise InputError(f"the representation {self.name!r} joins {names}; expected two or more different ones")

    @property
    def any_size(self) -> bool:
        """Whether all members take pictures of any size."""
        return bool(self._members) and all(capabilities(member).any_size for member in self._members)

    @property
    def short_side(self) -> int:
        """The largest of the members'; 0 where one looks at all pixels."""
        sides = [capabilities(member).short_side for member in self._members]
        return max(sides) if sides and all(sides) else 0

    def fit(self, base: Bank | None, rng: torch.Generator | None) -> Self:
        """Open the members; nothing is learnt.

        Raises InputError for one that is not fitted and brings no weights, and what opening a member raises.
        """
        self.build({"members": self.name.count("+") + 1})
        return self

    def build(self, facts: dict[str, int]) -> None:
        """Open the members; `facts` has their number for the record."""
        self.facts_ = dict(facts)
        self._members = [open_part(name, None, "representation") for name in self.name.split("+")]
        for name, member in zip(self.name.split("+"), self._members, strict=True):
            if getattr(member, "net_", None) is None and not capabilities(member).pretrained:
                raise InputError(f"{name!r} of {self.name!r} is not fitted; expected a folder that `augforge fit` made")
        self.net_ = nn.ModuleList([member.net_ for member in self._members if isinstance(member.net_, nn.Module)])

    def embed(self, x: Tensor | list[Tensor]) -> Tensor:
        """Pictures [n, c, h, w], or a list of [c, h, w], to the members' features [n, d_1 + ... + d_k] float32.

        Raises InputError before `fit`, and what a member raises.
        """
        if not self._members:
            raise InputError(f"{self.name} is not fitted yet; expected fit(base, rng)")
        return torch.cat([F.normalize(member.embed(x), dim=1) for member in self._members], 1)
