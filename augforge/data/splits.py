"""Which folders are splits (train, val, test) and which are classes.

A split is named like one, in any case and any of the usual spellings ("Training", "test_set", "valid", "dev",
"train2017", "seg_train" beside "seg_test"), and holds class folders. A folder "train" that holds pictures is a class:
of toys, say. What could be either is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

ORDER = ("train", "val", "test")
EXPECTED = "expected root/class/picture or root/{train,val,test}/class/picture"

_SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development", "eval", "evaluation"),
    "test": ("test", "testing", "holdout"),
}
_SPLIT_OF = {word: split for split, words in _SPELLINGS.items() for word in words}
_PLAIN = "set|data|dataset|images?|imgs?|pictures?|photos?|files?|folder|dir|split"  # words that say nothing more
_NAME = re.compile(
    rf"(?:(?P<before>.+?)[\s_.-]+)?(?P<word>{'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})"
    rf"(?:[\s_.-]*(?:{_PLAIN}))?[\s_.-]*\d*",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"(?:(?:un)?label+ed|samples?|examples?|demo|preview|pred|predict|inference|extra)(?:[\s_.-].*)?|"
                     r".*[\s_.-](?:pred|predict|unlabel+ed)", re.IGNORECASE)  # fmt: skip


def split_of(name: str) -> str | None:
    """The split that a name alone means, as "Training set" is "train"; None for a name that means none."""
    found = _NAME.fullmatch(name.strip())
    if found is None or (found["before"] and not re.fullmatch(f"(?:{_PLAIN})s?", found["before"], re.IGNORECASE)):
        return None
    return _SPLIT_OF[found["word"].lower()]


def says_nothing(name: str, outer: str) -> bool:
    """Whether a folder in the folder `outer` is no class by its name: "images", or `outer` once more."""
    return re.fullmatch(f"(?:{_PLAIN})s?", name, re.IGNORECASE) is not None or name.lower() == outer.lower()


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """{name: split} of those names that mean one, alone or together, as "seg_train" and "seg_test" do."""
    table = {name: split for name in names if (split := split_of(name)) is not None}
    alike: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        found = _NAME.fullmatch(name)
        if name not in table and found is not None:
            alike[found["before"].lower()][name] = _SPLIT_OF[found["word"].lower()]
    for some in alike.values():
        if len(set(some.values())) > 1:
            table |= some
    return table


def find_splits(by_top: Mapping[str, Collection[str]]) -> dict[str, str]:
    """{folder: split} of the folders of a root that are splits; none where all are classes.

    `by_top` has the pictures of every folder that has some, by their paths with "/" below the root. Raises ValueError
    for what could be either, for two folders that are the same split, and for splits inside of classes; its text is
    what the root "has ...".
    """
    named = splits_among(sorted(by_top))
    holds = {top for top in named if any(name.count("/") > 1 for name in by_top[top])}
    flat = {top for top in named if any(name.count("/") == 1 for name in by_top[top])}
    others = sorted(by_top.keys() - named.keys())
    found = {top: named[top] for top in sorted(holds)} if others else named
    if others:
        _refuse_flat(named, flat - holds, others)
        if len(set(named.values())) == 1 and found and not all(_BESIDE.fullmatch(other) for other in others):
            if not holds <= flat:
                raise ValueError(
                    f"has {min(holds)!r}, which is named like a split and holds folders of pictures, beside "
                    f"{others[0]!r}, which is not; expected another name if it is a class, and else splits alone: "
                    "root/{train,val,test}/class/picture"
                )
            found = {}
    _refuse_twice(found)
    if not found:
        _refuse_inside(by_top)
    return found


def _refuse_flat(named: Mapping[str, str], flat: set[str], others: list[str]) -> None:
    """Two folders or more that are named like different splits, and hold pictures like the classes beside them."""
    if len({named[top] for top in flat}) > 1:
        names = " and ".join(repr(top) for top in sorted(flat))
        raise ValueError(
            f"has {names}, which are named like splits and hold pictures but no class folders, beside "
            f"{others[0]!r}; {EXPECTED}"
        )


def _refuse_twice(found: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for top, split in found.items():
        other = first.setdefault(split, top)
        if other != top:
            raise ValueError(
                f"has both {other!r} and {top!r}, and both are the split {split!r}; expected one of them, "
                "or the names train, val and test"
            )


def _refuse_inside(by_top: Mapping[str, Collection[str]]) -> None:
    """Class folders that hold splits: root/class/{train,test}/picture."""
    for top in sorted(by_top):
        inner = {name.split("/")[1] for name in by_top[top] if name.count("/") > 1}
        found = splits_among(sorted(inner)) if len(inner) <= len(_SPLIT_OF) else {}
        if len(set(found.values())) > 1:
            raise ValueError(
                f"has splits inside of its class folders, as '{top}/{min(found)}'; expected "
                "root/{train,val,test}/class/picture"
            )
