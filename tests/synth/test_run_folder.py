"""The manifests of many shards become one."""

import os
import resource

import numpy as np
import pytest

from augforge.synth.plan import ClassPlan, Plan
from augforge.synth.run_folder import whole_manifest
from augforge.types import InputError

SHARDS = 61


def _plan(total: int, unit: int) -> Plan:
    return Plan((ClassPlan("a", 0, np.arange(1), total, 0),), unit)


@pytest.fixture
def out(tmp_path):
    """The finished manifests of all shards of 1,000 rows in units of 3; the lines are the numbers of the rows."""
    for shard in range(SHARDS):
        units = range(shard, -(-1000 // 3), SHARDS)
        rows = [row for unit in units for row in range(3 * unit, min(3 * unit + 3, 1000))]
        (tmp_path / f"manifest-{shard}-of-{SHARDS}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("at_once", [1, 400, 1_000_000])
def test_more_shards_than_file_handles_are_joined_in_the_order_of_the_plan(out, at_once):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        whole = whole_manifest(out, _plan(1000, 3), (0, SHARDS), at_once)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert whole.read_text() == "".join(f"{row}\n" for row in range(1000))


def test_a_shard_that_lacks_lines_is_named_and_one_that_is_not_done_is_waited_for(out):
    path = out / f"manifest-7-of-{SHARDS}.jsonl"
    path.write_text(path.read_text()[:-1])
    with pytest.raises(InputError, match=r"manifest-7-of-61.jsonl' is cut short"):
        whole_manifest(out, _plan(1000, 3), (0, SHARDS))
    path.unlink()
    assert whole_manifest(out, _plan(1000, 3), (0, SHARDS)) is None
