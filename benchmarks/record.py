"""Append rows to benchmarks/results, with commit, machine and command: of a speed benchmark, or of `make gpu`.

python benchmarks/record.py speed/classical.py [options of the benchmark]      runs it with --json
python benchmarks/record.py build/gpu/result.json                              files what was measured elsewhere
"""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from augforge.machine import machine, versions

HERE = Path(__file__).parent


def main() -> None:
    """Measure, or read what was measured; append, and show the rows."""
    script, *options = sys.argv[1:]
    if script.endswith(".json"):
        append("gpu", gpu_rows(json.loads(Path(script).read_text(encoding="utf-8"))))
        return
    command = [sys.executable, str(HERE / script), "--json", *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent).stdout
    facts = {"command": f"python benchmarks/{script} {' '.join(options)}".strip(), "commit": commit(),
             "date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}  # fmt: skip
    rows = [row | facts for row in json.loads(printed.splitlines()[-1])["rows"]]
    append(script.removesuffix(".py").replace("/", "_"), rows)


def facts(seed: int | None = None) -> dict[str, Any]:
    """What a row says of how it was made: the command that this process is, and where; the seed, where there is one."""
    of_seed = {} if seed is None else {"seed": seed}
    return {"command": command(), "commit": commit(), **of_seed, "date": time.strftime("%Y-%m-%d"),
            "machine": machine(), "versions": versions()}  # fmt: skip


def command() -> str:
    """The command that this process is, as one types it in the project: no path of this machine is in it.

    The folder of `--data-root` is DIR, and of any other absolute path the last name is left.
    """
    words = [f"benchmarks/{Path(sys.argv[0]).name}"]
    for before, word in itertools.pairwise(sys.argv):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if value and (before if not equals else option) == "--data-root":
            value = "DIR"
        elif value and Path(value).is_absolute():
            value = Path(value).name
        words.append(f"{option}{equals}{value}")
    return shlex.join(["python", *words])


def commit() -> str:
    """The commit of the tree."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()


def gpu_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run of `benchmarks/gpu/run.py`, with the device; where it knew no commit, that of this tree.

    Raises SystemExit for a run that only tried the script out.
    """
    if result["smoke"]:
        raise SystemExit("this is a run of `make gpu SMOKE=1`, which measures nothing; expected one on a device")
    facts = {key: result[key] for key in ("device", "command", "date", "machine", "versions")}
    facts["commit"] = result["commit"] or commit()
    return [
        {"part": name, "status": part["status"], **row, **facts}
        for name, part in result["parts"].items()
        for row in part["rows"]
    ]


def append(name: str, rows: list[dict[str, Any]]) -> None:
    """Append rows to benchmarks/results/NAME.jsonl, and show them."""
    with (HERE / "results" / f"{name}.jsonl").open("a", encoding="utf-8") as results:
        for row in rows:
            results.write(json.dumps(row) + "\n")
            print(json.dumps({key: value for key, value in row.items() if key not in ("machine", "versions")}))


if __name__ == "__main__":
    main()
