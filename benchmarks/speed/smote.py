"""SMOTE by `Resampler` against imbalanced-learn's on the same rows.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/smote.py [--json]
"""

from __future__ import annotations

import argparse
import resource

import numpy as np
import torch
from imblearn.over_sampling import SMOTE
from paired import paired, show

from augforge.adapters.sklearn import Resampler

CASES = ((10_000, 1_000, 30), (50_000, 10_000, 30), (2_000, 500, 1_280))  # rows of two classes, features


def main() -> None:
    """Measure each case."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rows = []
    for many, few, d in CASES:
        x = np.random.default_rng(0).normal(size=(many + few, d)).astype(np.float32)
        y = np.repeat([0, 1], [many, few])
        ours, peer = Resampler("mixing", settings={"how": "smote"}), SMOTE(random_state=0)
        measured = paired(lambda: ours.fit_resample(x, y), lambda: peer.fit_resample(x, y))  # noqa: B023
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        case = f"{many} and {few} rows of {d}"
        rows.append({"case": case, "peer": "imbalanced-learn", **measured, "peak_gib": round(peak, 2)})
    show(rows, options.json)


if __name__ == "__main__":
    main()
