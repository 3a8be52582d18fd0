"""What every part promises, as checks that anyone can run on a part of their own: `augforge.contracts.check(part)`.

In the manner of scikit-learn's `check_estimator`. `LAWS[kind]` are the laws of a kind of part, by name: plain functions
that take a case (a part and made-up rows for it) and raise AssertionError with what they found. `cases` makes the cases
that `check` goes through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch

from augforge.data.banks import AnyBank
from augforge.parts.catalog import VERBS
from augforge.parts.contracts import classifiers, representations, synthesizers
from augforge.parts.contracts.cases import (
    FLOATS,
    ClassifierCase,
    RepresentationCase,
    SynthesizerCase,
)
from augforge.types import InputError, Part, capabilities

Case = SynthesizerCase | ClassifierCase | RepresentationCase
LAWS: Mapping[str, Mapping[str, Callable[[Any], None]]] = {
    synthesizers.KIND: synthesizers.LAWS,
    classifiers.KIND: classifiers.LAWS,
    representations.KIND: representations.LAWS,
}


class BrokenLaw(AssertionError):
    """A part that does not keep a promise. Its text names the part, the law, the rows, and what was found."""


def check(part: Part, kind: str | None = None, widths: Sequence[int] = (16, 3), base: AnyBank | None = None) -> None:
    """Check all laws of its kind on a part that is not fitted, with settings that make fitting short.

    `kind` is needed only for a part with the verbs of two kinds. Features have the `widths`, and pictures have 16 px. A
    part that needs a bank of its own - other columns, attributes, pictures of another size - is fitted on `base` and
    handed rows of it; its first three classes need 3 rows each. Raises BrokenLaw for the first law that is broken, and
    InputError for what is no part.
    """
    kind = kind_of(part) if kind is None else kind
    for case in cases(part, kind, widths, base):
        for name, law in LAWS[kind].items():
            try:
                law(case)
            except Exception as error:  # of the part's own code too
                found = str(error) if type(error) is AssertionError else f"{type(error).__name__}: {error}"
                says = (law.__doc__ or "").splitlines()[0]
                raise BrokenLaw(f"{type(part).__name__} breaks {name} ({says}) on {case}: {found}") from error


def kind_of(part: Part) -> str:
    """The kind of a part by its verbs; a synthesizer where it has `scores` as well. Raises InputError for no part."""
    kinds = [kind for kind, verb in VERBS.items() if callable(getattr(part, verb, None))]
    if not kinds:
        raise InputError(f"{type(part).__qualname__} has none of {', '.join(VERBS.values())}; expected a part")
    return kinds[0]


def cases(part: Part, kind: str, widths: Sequence[int] = (16, 3), base: AnyBank | None = None) -> list[Any]:
    """The cases that `check` goes through: every type of rows that a part of the kind is to take."""
    if kind == classifiers.KIND:
        known = [_width(base)] if base is not None else list(widths)
        return [ClassifierCase(cast(Any, part), width=width, base=base) for width in known]
    if kind == representations.KIND:
        return [RepresentationCase(cast(Any, part), dtype, base=base) for dtype in (torch.uint8, torch.float32)]
    space = capabilities(part).space if base is None else base.space
    found = _feature_cases(part, widths, base) if space != "image" else []
    return found + (_picture_cases(part, base) if space != "feature" else [])


def _feature_cases(part: Any, widths: Sequence[int], base: AnyBank | None) -> list[Any]:
    if base is not None:
        return [SynthesizerCase(part, "feature", dtype, _width(base), base=base) for dtype in FLOATS]
    first = [SynthesizerCase(part, "feature", dtype, widths[0]) for dtype in FLOATS]
    return first + [SynthesizerCase(part, "feature", width=width) for width in widths[1:]]


def _picture_cases(part: Any, base: AnyBank | None) -> list[Any]:
    space: Literal["image"] = "image"
    if base is not None:
        return [SynthesizerCase(part, space, dtype, base=base) for dtype in (torch.uint8, *FLOATS)]
    found = [SynthesizerCase(part, space, dtype, 16, c) for dtype in (torch.uint8, *FLOATS) for c in (1, 3)]
    return found + [SynthesizerCase(part, space, dtype, 16, 3, (16, 12, 9)) for dtype in (torch.uint8, torch.float32)]


def _width(base: AnyBank) -> int:
    return int(torch.as_tensor(base.examples(torch.arange(1)).x).shape[1])
