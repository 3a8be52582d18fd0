"""Run a speed benchmark with --json and append its rows to benchmarks/results, with commit, machine and command.

python benchmarks/record.py speed/classical.py [options of the benchmark]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from augforge.machine import machine, versions

HERE = Path(__file__).parent


def main() -> None:
    """Measure, append, and show the rows."""
    script, *options = sys.argv[1:]
    command = [sys.executable, str(HERE / script), "--json", *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent).stdout
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    facts = {"command": f"python benchmarks/{script} {' '.join(options)}".strip(), "commit": commit.strip(),
             "date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}  # fmt: skip
    path = HERE / "results" / f"{script.removesuffix('.py').replace('/', '_')}.jsonl"
    with path.open("a", encoding="utf-8") as results:
        for row in json.loads(printed.splitlines()[-1])["rows"]:
            results.write(json.dumps(row | facts) + "\n")
            print(json.dumps(row))


if __name__ == "__main__":
    main()
