"""The laws of representations. Each takes a case and raises AssertionError with what was found."""

from __future__ import annotations

import torch

from augforge.parts.contracts.cases import (
    RepresentationCase,
    random_state,
    require,
    require_close,
    require_description,
    require_same,
    saved_and_packed,
)
from augforge.parts.saving import part_digest

KIND = "representation"


def features_are_rows(case: RepresentationCase) -> None:
    """Pictures [n, c, h, w] become finite floats [n, d]; no picture becomes [0, d]."""
    pictures = case.pictures()
    found = case.embed(pictures)
    require(found.ndim == 2 and len(found) == len(pictures), f"{len(pictures)} pictures became {list(found.shape)}; "
            f"expected [{len(pictures)}, d]")  # fmt: skip
    require(found.is_floating_point(), f"features are {found.dtype}; expected floats")
    require(found.device == pictures.device, f"pictures on {pictures.device} became features on {found.device}")
    require(bool(torch.isfinite(found).all()), "a feature is not finite")
    none = case.embed(pictures[:0])
    require(none.shape == (0, found.shape[1]), f"no picture became {list(none.shape)}")


def pictures_do_not_see_each_other(case: RepresentationCase) -> None:
    """The features of a picture are the same, but for rounding, in any order and any company."""
    pictures = case.pictures()
    whole = case.embed(pictures)
    require_close(case.embed(pictures.flip(0)), whole.flip(0), "pictures in another order")
    for i in range(len(pictures)):
        require_close(case.embed(pictures[i : i + 1]), whole[i : i + 1], f"picture {i} alone")


def pictures_and_part_are_untouched(case: RepresentationCase) -> None:
    """Embedding changes neither the pictures nor the part."""
    pictures, before = case.pictures(), part_digest(case.fitted, KIND)
    first = case.embed(pictures)
    require_same(pictures, case.pictures(), "the pictures after embedding")
    require(part_digest(case.fitted, KIND) == before, "the part changed")
    require_same(case.embed(pictures), first, "the same pictures once more")


def global_random_state_stays(case: RepresentationCase) -> None:
    """Neither fitting nor embedding touches the global random numbers, and fitting again learns the same."""
    before = random_state()
    again = case.fit_again()
    case.embed(case.pictures(), again)
    require(random_state() == before, "global random state moved; take numbers from `rng` alone")
    require(part_digest(again, KIND) == part_digest(case.fitted, KIND), "fitting again learnt something else")


def saving_and_packing_go_on(case: RepresentationCase) -> None:
    """A part that was saved and loaded, or sent to another process, gives the same features to the bit."""
    pictures, digest = case.pictures(), part_digest(case.fitted, KIND)
    for how, other in saved_and_packed(case.fitted, KIND):
        require(part_digest(other, KIND) == digest, f"{how}, its settings or fitted tensors are no longer the same")
        require_same(case.embed(pictures, other), case.embed(pictures), how)


def the_description_makes_the_same_part(case: RepresentationCase) -> None:
    """Name and settings are JSON values, and make the same part again."""
    require_description(case.part, KIND)


LAWS = {law.__name__: law for law in (
    features_are_rows, pictures_do_not_see_each_other, pictures_and_part_are_untouched, global_random_state_stays,
    saving_and_packing_go_on, the_description_makes_the_same_part,
)}  # fmt: skip
