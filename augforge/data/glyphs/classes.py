"""The classes of `glyphs`: which letters, in which split, under which names. A frozen table.

It was made once by `augforge.data.glyphs.shapes.distinct` from the letters that DejaVu Sans has - Latin first, then the
novel scripts, then the other base scripts, then Cyrillic - so that no two classes share a shape, within a split
or across splits. It is written out here, so that another version of matplotlib or Unicode cannot change what the
classes are. Left out before that: letters with a decomposition (accented ones), combining marks, lone dots,
syllabics that differ from a plain one by the dot of a `w`, and eleven that the eye calls homoglyphs though the
criterion does not: Greek nu; Cyrillic ka, psi, broad omega and hard sign, and Georgian capital in, in both cases.
Latin stops at U+017F.

Scripts whose capital and small letters differ in shape have both; c/C, o/O and their like count once.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# Code points in hexadecimal, and first-last for a run of them; characters themselves would reorder the line
# wherever a script is written from right to left.
TABLE = {
    "train": {
        "latin": "41-46 48-5a 61-62 64-68 6b 6d-6e 72 74 79 c6 d8 de e6 f0 126 141 14a 152",
        "greek": (
            "370 372 376 394 39e 3a3 3a8 3b1-3b2 3b6 3bb-3bc 3be 3c0 3c2 3c5 3cf 3d7 3de-3e0 3e2 3e6-3e7 3eb 3ee 3fa"
        ),
        "hebrew": "5d0-5d4 5da 5dc 5de 5e2-5e4 5e6-5e7 5e9-5ea",
        "arabic": (
            "621 628 62a 62c 62e-631 633-634 637 63a 641 643 645-646 648-64a 679 67c 688-68b 692-693 695 6a2 "
            "6a5 6a9-6aa 6ae 6b0 6b2 6b8-6b9 6bc 6be 6c6 6ce 6d0"
        ),
        "lao": "e81-e82 e84 e88 e8a e8d e94-e97 e9b-e9c e9e ea1 ea3 ea5 ea7 eaa eae-eb0 eb2 ec0-ec1",
        "nko": "7cd-7d2 7d4 7d6-7d8 7da-7db 7dd-7df 7e1 7e4 7e6",
        "tifinagh": "2d31 2d3a-2d3f 2d42-2d44 2d46-2d48 2d4a-2d4c 2d50 2d52 2d55 2d57-2d58 2d5a-2d5b 2d5e 2d62-2d64",
        "ogham": "1682-1683 1686-1688 168c-168d 1690-1691 1696 169a",
        "old-italic": "10302 1030b-1030e 10310 10315-10316 10319 1031c",
        "canadian": (
            "1401 1405-1406 140a-140b 141f-1420 1423 1425 1428 142b-142e 1433-1434 1449 144d 144f 1451 "
            "1467-146a 146e 1470 1483-1488 14a7 14c0-14c1 14c3-14c5 14c7-14c8 14d3-14d8 14da-14db 14ec-14f0 "
            "14f5 1510-1513 1525-152b 152d-152e 1542-1545 154a-154d 1552 1556-1557 1559 155f 1562-1567 "
            "1574-157a 157e-1585 158a-158f 1591-1593 1595-1596 15a0 15a2-15a5 15ae 1647 166f-1670 1672-1673"
        ),
    },
    "val": {
        "cyrillic": (
            "402 409-40b 40f 414 416 42e-42f 43b 446 44b 452 460 463-464 466 469-46a 46c 478-479 47c 47e 48a "
            "490 497-498 49b 4a0 4a2 4a4 4a6 4a8 4b4 4b8 4ba 4bc 4be 4c3 4c5 4cd 4e0 4fb 502 505 508 50a 50e "
            "514 517-518 51f-520 522 a650 a657 a662 a666"
        ),
    },
    "test": {
        "georgian": (
            "10a1-10a2 10a5-10a7 10a9-10ac 10ae-10b0 10b5 10bc 10be 10c0-10c1 10c3-10c5 10d0 10d3 10d5 10d7 "
            "10da 10dc 10de 10e0 10e3-10e4 10e6 10ed 10f1 10f4 10f6 10fa 2d00 2d06 2d09 2d0d 2d0f 2d13 2d15 "
            "2d17 2d1a 2d1e-2d1f 2d21-2d25"
        ),
        "armenian": "532 534 536-539 53d-541 543-544 546-547 549-54c 54e 552-554 556 569 56d 577 57b 583 586",
    },
}


@dataclass(frozen=True)
class GlyphClass:
    """One letter."""

    name: str  # such as "latin-capital-a"
    script: str  # as in TABLE
    code_point: int


def class_name(code_point: int) -> str:
    """A readable folder name of [a-z0-9-] from the Unicode name, in which the word "letter" is left out."""
    words = re.findall(r"[a-z0-9]+", unicodedata.name(chr(code_point)).lower())
    return "-".join(w for w in words if w not in ("letter", "syllabics"))


def glyph_classes(split: str) -> tuple[GlyphClass, ...]:
    """The classes of "train" (base), "val" or "test" (novel), by script and code point."""
    found = []
    for script, runs in TABLE[split].items():
        for run in runs.split():
            first, last = (int(v, 16) for v in (run.split("-") * 2)[:2])
            found += [GlyphClass(class_name(c), script, c) for c in range(first, last + 1)]
    return tuple(found)
