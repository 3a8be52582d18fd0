"""Data sets of features: what train_representation.py left in a folder, as a task; and rows for benchmarks/results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from augforge.data.banks import FeatureBank
from augforge.data.features import open_features
from augforge.episodes.named_tasks import open_task
from augforge.episodes.tasks import Task
from augforge.machine import machine, versions

RESULTS = Path(__file__).parent / "results"


def open_data_set(folder: Path, name: str, data_root: Path | None, views: bool = False) -> Task:
    """The task `name` in the features of a folder; `views` takes those that were averaged over ten views.

    Columns such as the alphabet, and lake-runs' fixed episodes, come from the task itself.
    """
    pictures = open_task(name, data_root)
    suffix = "-views" if views else ""
    banks = {split: open_features(folder / f"{split}{suffix}.safetensors")["all"] for split in ("train", "val", "test")}
    novel, val = pictures.novel, pictures.val
    assert val is not None
    return Task(name, _float(banks["train"]), _like(banks["val"], val), _like(banks["test"], novel), pictures.groups,
                pictures.fixed)  # fmt: skip


def _like(features: FeatureBank, pictures: Any) -> FeatureBank:
    """The features with the columns of the pictures that they were made of, row by row."""
    assert list(features.classes) == list(pictures.classes)
    assert features.y.equal(pictures.y)
    return replace(_float(features), groups=pictures.groups)


def _float(bank: FeatureBank) -> FeatureBank:
    return replace(bank, x=bank.x.float())


def append(path: Path, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Add rows to a file of results, with the command, the commit and the machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS).stdout
    facts = {"command": " ".join(["python", *sys.argv]), "commit": commit.strip(), "date": time.strftime("%Y-%m-%d"),
             "machine": machine(), "versions": versions(), **facts}  # fmt: skip
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row | facts) + "\n")
