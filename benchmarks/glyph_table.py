"""Choose the letters of the `glyphs` source: prints the table that `augforge/data/glyphs/classes.py` holds.

    python benchmarks/glyph_table.py

Candidates are the letters of each script that DejaVu Sans has; what looks like a letter that was kept before, in the
order Latin, novel scripts, other base scripts, validation, is left out. Eleven more were left out by eye. The table is
committed because it must not change with matplotlib's fonts; run this to see what another version would choose.
"""

from __future__ import annotations

import re
import unicodedata

from augforge.data.glyphs.faces import face_characters, letter_mask
from augforge.data.glyphs.shapes import distinct

FACE = "DejaVuSans"
BLOCKS = {
    "latin": [(0x41, 0x7A), (0xC0, 0x17F)],
    "greek": [(0x370, 0x3FF)],
    "hebrew": [(0x5D0, 0x5EA)],
    "arabic": [(0x621, 0x64A), (0x679, 0x6D3)],
    "lao": [(0xE81, 0xEDD)],
    "nko": [(0x7CA, 0x7EA)],
    "tifinagh": [(0x2D30, 0x2D6F)],
    "ogham": [(0x1681, 0x169A)],
    "old-italic": [(0x10300, 0x1031F)],
    "canadian": [(0x1401, 0x166C), (0x166F, 0x167F)],
    "georgian": [(0x10D0, 0x10FF), (0x10A0, 0x10C5), (0x2D00, 0x2D25)],
    "armenian": [(0x531, 0x556), (0x561, 0x587)],
    "cyrillic": [(0x400, 0x52F), (0xA640, 0xA66E)],
}
ORDER = [
    ("train", ["latin"]),
    ("test", ["georgian", "armenian"]),
    ("train", ["greek", "hebrew", "arabic", "lao", "nko", "tifinagh", "ogham", "old-italic", "canadian"]),
    ("val", ["cyrillic"]),
]
LEFT_OUT_BY_EYE = {0x41A, 0x43A, 0x470, 0x471, 0xA64C, 0xA64D, 0x42A, 0x44A, 0x10A8, 0x2D08, 0x3BD}
# Syllables with a dot for w differ from those without by that dot alone.
W_DOT = re.compile(r"CANADIAN(?!.*CARRIER).*W(E|I|II|O|OO|A|AA|AAI)$")


def is_candidate(code_point: int) -> bool:
    """Whether a code point is a letter of its own that the face draws, and draws as more than a box."""
    letter = chr(code_point)
    if unicodedata.category(letter) not in ("Lu", "Ll", "Lo") or unicodedata.decomposition(letter):
        return False
    if code_point in LEFT_OUT_BY_EYE or W_DOT.match(unicodedata.name(letter)):
        return False
    if code_point not in face_characters(FACE):
        return False
    mask = letter_mask(code_point, FACE, 64)
    return not (mask.mean() > 0.9 and min(mask.shape) > 40)


def candidates(script: str) -> list[int]:
    """The candidate code points of a script, ascending."""
    return [c for low, high in BLOCKS[script] for c in range(low, high + 1) if is_candidate(c)]


def as_ranges(code_points: list[int]) -> str:
    """Ascending code points as hexadecimal ranges: 41-43 45."""
    runs: list[list[int]] = []
    for c in code_points:
        if runs and c == runs[-1][1] + 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return " ".join(f"{low:x}" if low == high else f"{low:x}-{high:x}" for low, high in runs)


def main() -> None:
    """Print a line of the table for each script."""
    kept = distinct([(split, [c for script in scripts for c in candidates(script)]) for split, scripts in ORDER])
    for split, scripts in ORDER:
        for script in scripts:
            mine = sorted(set(candidates(script)) & set(kept[split]))
            print(f'{split}: "{script}": "{as_ranges(mine)}",  # {len(mine)} of {len(candidates(script))}')


if __name__ == "__main__":
    main()
