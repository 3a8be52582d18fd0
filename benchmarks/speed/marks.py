"""What it costs that files of made pictures say so: coding with the mark against coding without it.

    OMP_NUM_THREADS=1 python benchmarks/speed/marks.py [--json] [--rounds 15]

Photographs of 32 and 224 px as PNG, and of 224 px as JPEG; CPU time of 200 and 10 pictures.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from paired import paired, show

from augforge.synth.encode import encode
from augforge.synth.marks import BY_FORMULA, marked, packet


def main() -> None:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    xmp, found = packet(BY_FORMULA, "classical"), []
    for side, encoding, count in ((32, "png", 200), (224, "png", 10), (224, "jpeg", 10)):
        small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        picture = np.clip(picture + np.random.default_rng(1).normal(0, 4, picture.shape), 0, 255).astype(np.uint8)

        def with_mark(picture=picture, encoding=encoding, count=count):
            for _ in range(count):
                marked(encode(picture, encoding), encoding, xmp)

        def without(picture=picture, encoding=encoding, count=count):
            for _ in range(count):
                encode(picture, encoding)

        found.append({"case": f"{encoding} {side} px", "peer": "the same without a mark",
                      **paired(with_mark, without, given.rounds), "bytes": len(xmp)})  # fmt: skip
    show(found, given.json)


if __name__ == "__main__":
    main()
