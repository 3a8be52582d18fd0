"""The laws of synthesizers. Each takes a case and raises AssertionError with what was found."""

from __future__ import annotations

import torch
from torch import Tensor

from augforge.parts import catalog
from augforge.parts.contracts.cases import (
    KEYS,
    SUPPORT_Y,
    WANT,
    SynthesizerCase,
    random_state,
    require,
    require_description,
    require_same,
    saved_and_packed,
)
from augforge.parts.saving import part_digest
from augforge.types import Examples, InputError, capabilities

KIND = "synthesizer"


def makes_what_is_wanted(case: SynthesizerCase) -> None:
    """Made rows are labelled as wanted, of the support's type and device, finite, and pictures within their range."""
    made, support = case.made(), case.support()
    want = WANT[:0] if _makes_no_rows(case) else WANT
    require(torch.equal(made.y, want), f"the labels {want.tolist()} were wanted, and {made.y.tolist()} were made")
    require(isinstance(made.x, list) == isinstance(support.x, list), "a list of rows is made of a tensor, or the "
            "other way round")  # fmt: skip
    if case.space == "feature" and len(made):
        require(made.x[0].shape == support.x[0].shape, f"rows of {list(support.x[0].shape)} features became "
                f"{list(made.x[0].shape)}")  # fmt: skip
    for row in made.x:
        require(row.dtype == case.dtype, f"rows of {case.dtype} became {row.dtype}")
        require(row.device == support.x[0].device, f"rows on {support.x[0].device} became rows on {row.device}")
        require(bool(torch.isfinite(row.double()).all()), "a made number is not finite")
        if case.space == "image" and case.dtype != torch.uint8:
            low, high = float(row.min()), float(row.max())
            require(low >= 0 and high <= 1, f"pixels lie between {low:g} and {high:g}; expected 0 to 1")


def parents_are_of_the_class(case: SynthesizerCase) -> None:
    """`parent` is a support row of the wanted class, or -1 for no single one where `one_parent` is not declared."""
    made, one = case.made(), capabilities(case.fitted).one_parent
    if made.parent is None:
        require(not one, "one_parent is declared, and made rows have no parent")
        return
    require(made.parent.shape == made.y.shape, f"{len(made)} rows have parents {list(made.parent.shape)}")
    require(bool((made.parent >= (0 if one else -1)).all()), f"the parents {made.parent.tolist()} are no support rows")
    known = made.parent >= 0
    of = SUPPORT_Y[made.parent[known]]
    require(
        torch.equal(of, made.y[known]), f"rows of the classes {made.y[known].tolist()} have parents of {of.tolist()}"
    )


def rows_do_not_depend_on_their_batch(case: SynthesizerCase) -> None:
    """A row is the same to the bit in any order and any company."""
    whole = case.made()
    if _makes_no_rows(case):
        return
    order = torch.randperm(len(WANT), generator=torch.Generator().manual_seed(2))
    shuffled = case.made(order)
    _require_rows(shuffled, whole.take(order), "in another order")
    for i in range(len(WANT)):
        one = torch.tensor([i])
        _require_rows(case.made(one), whole.take(one), f"row {i} made alone")


def one_parent_is_enough(case: SynthesizerCase) -> None:
    """Where `one_parent` is declared, the parent alone gives the same row, to the bit."""
    if not capabilities(case.fitted).one_parent:
        return
    made, support, zero = case.made(), case.support(), torch.zeros(1, dtype=torch.int64)
    assert made.parent is not None or not len(made)
    for i in range(len(made)):
        alone = Examples(support.take(made.parent[i : i + 1]).x, zero)  # type: ignore[index]
        one = case.fitted.synthesize(alone, zero, KEYS[i : i + 1])
        require_same(one.x, made.take(torch.tensor([i])).x, f"row {i} made of its parent alone")


def one_class_is_enough(case: SynthesizerCase) -> None:
    """Where `one_class` is declared, the support rows of the class alone give the same rows, to the bit."""
    if not capabilities(case.fitted).one_class:
        return
    made, support = case.made(), case.support()
    for label in WANT.unique().tolist():
        own, rows = label == SUPPORT_Y, (label == WANT).nonzero()[:, 0]
        alone = Examples(support.take(own).x, torch.zeros(int(own.sum()), dtype=torch.int64))
        found = case.fitted.synthesize(alone, torch.zeros_like(rows), KEYS[rows])
        require_same(found.x, made.take(rows).x, f"class {label} made of its own rows alone")


def the_support_is_untouched(case: SynthesizerCase) -> None:
    """Support, wanted labels and keys stay as they were, and no made row shares memory with the support."""
    support, want, keys = case.support(), WANT.clone(), KEYS.clone()
    made = case.fitted.synthesize(support, want, keys)
    for row in made.x.detach() if isinstance(made.x, Tensor) else made.x:
        row.zero_()
    require_same(support.x, case.support().x, "the support after rows were made of it and overwritten")
    for name, after, before in (("labels", support.y, SUPPORT_Y), ("wanted", want, WANT), ("keys", keys, KEYS)):
        require(torch.equal(after, before), f"the {name} {before.tolist()} became {after.tolist()}")


def global_random_state_stays(case: SynthesizerCase) -> None:
    """Neither fitting nor making touches the global random numbers of Python, NumPy or torch."""
    before = random_state()
    case.fit_again().synthesize(case.support(), WANT, KEYS)
    require(random_state() == before, "global random state moved; take numbers from `rng` and `keys` alone")


def wanting_nothing_makes_nothing(case: SynthesizerCase) -> None:
    """No label wanted gives no row, of the support's type, that can be joined to the support."""
    support, none = case.support(), torch.zeros(0, dtype=torch.int64)
    made = case.fitted.synthesize(support, none, none)
    require(len(made) == 0, f"nothing was wanted, and {len(made)} rows were made")
    require(torch.equal((support + made).y, SUPPORT_Y), "nothing joined to the support changes its labels")
    if isinstance(support.x, Tensor):
        x = torch.as_tensor(made.x)
        require(x.dtype == case.dtype and x.ndim == support.x.ndim, f"nothing is {x.dtype} {list(x.shape)}; expected "
                f"{case.dtype} with {support.x.ndim} axes")  # fmt: skip


def a_class_without_support_is_refused(case: SynthesizerCase) -> None:
    """InputError where a wanted class has no support row, unless `support_needed` is 0."""
    if capabilities(case.fitted).support_needed == 0:
        return
    try:
        case.fitted.synthesize(case.support(), torch.tensor([3]), KEYS[:1])
    except InputError:
        return
    raise AssertionError("class 3 has no support row and was wanted; expected an InputError")


def saving_and_packing_go_on(case: SynthesizerCase) -> None:
    """A part that was saved and loaded, or sent to another process, makes the same rows to the bit."""
    made, digest = case.made(), part_digest(case.fitted, KIND)
    for how, other in saved_and_packed(case.fitted, KIND):
        require(part_digest(other, KIND) == digest, f"{how}, its settings or fitted tensors are no longer the same")
        require_same(other.synthesize(case.support(), WANT, KEYS).x, made.x, how)


def fitting_again_gives_the_same(case: SynthesizerCase) -> None:
    """The same bank and the same `rng` give the same settings and fitted tensors, to the bit."""
    require(part_digest(case.fit_again(), KIND) == part_digest(case.fitted, KIND), "it learnt something else")


def the_description_makes_the_same_part(case: SynthesizerCase) -> None:
    """Name and settings are JSON values, and make the same part again."""
    require_description(case.part, KIND)


def rows_of_the_other_space_are_refused(case: SynthesizerCase) -> None:
    """InputError where pictures are handed to a part for features, or the other way round."""
    if capabilities(case.part).space == "any":
        return
    other = Examples(torch.zeros(6, 3, 8, 8, dtype=torch.uint8) if case.space == "feature" else torch.zeros(6, 16),
                     SUPPORT_Y)  # fmt: skip
    try:
        case.part.synthesize(other, WANT, KEYS)
    except InputError:
        return
    raise AssertionError(f"it declares space={case.space!r} and takes rows of the other; expected an InputError")


def _makes_no_rows(case: SynthesizerCase) -> bool:
    """The one exception to "exactly what is wanted": the control that makes nothing."""
    return catalog.known_name(case.part, KIND) == "nothing"


def _require_rows(found: Examples, expected: Examples, what: str) -> None:
    require_same(found.x, expected.x, what)
    parents = [None if made.parent is None else made.parent.tolist() for made in (found, expected)]
    require(parents[0] == parents[1], f"{what}: the parents {parents[1]} became {parents[0]}")


LAWS = {law.__name__: law for law in (
    makes_what_is_wanted, parents_are_of_the_class, rows_do_not_depend_on_their_batch, one_parent_is_enough,
    one_class_is_enough, the_support_is_untouched, global_random_state_stays, wanting_nothing_makes_nothing,
    a_class_without_support_is_refused, saving_and_packing_go_on, fitting_again_gives_the_same,
    the_description_makes_the_same_part, rows_of_the_other_space_are_refused,
)}  # fmt: skip
