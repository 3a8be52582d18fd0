"""What a user should know of a source that is no error: a warning, which the command line prints as one line."""

import warnings
from collections.abc import Iterable

_MOST = 10  # names in one note


class Note(UserWarning):
    """A sentence for the user; on the command line one line on stderr, "note: ..."."""


def note(sentence: str) -> None:
    """Say a sentence; the same one is said once in a command."""
    warnings.warn(sentence, Note, stacklevel=2)


def listed(names: Iterable[str]) -> str:
    """Names with commas, in order: the first ten, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(map(repr, names[:_MOST])) + more
