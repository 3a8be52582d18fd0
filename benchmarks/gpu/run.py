"""Everything that wants a CUDA device, in one go of at most nine minutes: the tests marked `gpu`, and what is measured.

    make gpu [WHEELS=DIR] [PARTS=tests,image-gan]        make gpu SMOKE=1
    python benchmarks/gpu/run.py [--wheels DIR] [--parts tests,image-gan] [--budget 540] [--smoke] [--device cuda]

Takes Python, torch and a driver as it finds them, and no network: the project is used from this tree, and packages that
do not import are installed from a folder of wheels into build/gpu/site. What lacks is said in a sentence each, with
exit code 4. Every part runs in a process of its own, under a limit of seconds; build/gpu/result.json is written anew
after each, so that a run that is cut short leaves what it had, and a part's output is in build/gpu/PART.log.
`benchmarks/record.py build/gpu/result.json` files the rows. This file needs no package itself.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "gpu"
# Seconds that a part may take; what one leaves over is not handed on, so that the sum holds.
PARTS = {"tests": 160, "classical": 105, "image-gan": 70, "conditional-gan": 70, "conv4": 50, "embedding": 50}
_SMOKE_LIMIT = 150.0  # of each, on a machine that may be busy; they take some ten seconds
# Module: package. Those that others import stand before them, as wheels are installed without what they depend on.
NEEDS = {
    "typing_extensions": "typing-extensions", "numpy": "numpy", "packaging": "packaging", "PIL": "Pillow",
    "einops": "einops", "click": "click", "safetensors": "safetensors", "tqdm": "tqdm", "cv2": "opencv-python-headless",
    "yaml": "PyYAML", "annotated_types": "annotated-types", "typing_inspection": "typing-inspection",
    "pydantic_core": "pydantic-core", "pydantic": "pydantic", "scipy": "scipy", "stringzilla": "stringzilla",
    "simsimd": "simsimd", "albucore": "albucore", "albumentations": "albumentations", "dateutil": "python-dateutil",
    "contourpy": "contourpy", "cycler": "cycler", "fontTools": "fonttools", "kiwisolver": "kiwisolver",
    "pyparsing": "pyparsing", "matplotlib": "matplotlib", "torchvision": "torchvision",
}  # fmt: skip
FOR_PARTS = {
    "tests": {"iniconfig": "iniconfig", "pluggy": "pluggy", "pygments": "Pygments", "pytest": "pytest"},
    "classical": {"kornia_rs": "kornia-rs", "kornia": "kornia"},
}


def main() -> int:
    """Check the needs, run the parts, write the result; 0, 1 where a part failed, or 4 where something lacks."""
    options = _options()
    if options.imports:
        return _try_imports(options.imports.split(","))
    BUILD.mkdir(parents=True, exist_ok=True)
    _lay_out_tree()
    wanted = [name for name in PARTS if name in options.parts]
    facts, lacks = check_needs(wanted, options)
    if lacks:
        print("\n".join(lacks), file=sys.stderr)
        return 4
    result = {
        "device": facts["device"], "versions": facts["versions"], "machine": facts["machine"], "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"), "command": " ".join(["python", *sys.argv]), "smoke": options.smoke,
        "finished": False, "parts": {},
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in facts["device"].items()), flush=True)
    started = time.monotonic()
    for name in wanted:
        left = options.budget - (time.monotonic() - started)
        limit = _SMOKE_LIMIT if options.smoke else PARTS[name]
        result["parts"][name] = run_part(name, min(limit, left), options)
        _write(result)
        print(_line(name, result["parts"][name]), flush=True)
    result["finished"] = all(part["status"] == "done" for part in result["parts"].values())
    _write(result)
    print(f"{BUILD / 'result.json'}: {time.monotonic() - started:.0f} s")
    return 0 if result["finished"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for what does not import")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for all parts together (540)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU: whether the script itself works")
    parser.add_argument("--imports", help=argparse.SUPPRESS)  # what a child of this script does
    options = parser.parse_args()
    options.parts = [name for name in options.parts.split(",") if name]
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"--parts {unknown[0]!r}: expected some of {', '.join(PARTS)}")
    if options.smoke:
        options.device = "cpu"
    if options.budget is None:
        options.budget = 900 if options.smoke else 540
    return options


def _lay_out_tree() -> None:
    """Links that look as the installed package does, so that `augforge.generators` and `augforge.cli` are found."""
    package = BUILD / "tree" / "augforge"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for path in [*(ROOT / "augforge").iterdir(), ROOT / "generators", ROOT / "cli"]:
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)


def _environment() -> dict[str, str]:
    """That of a child: the tree and the wheels before what is installed, and not the working folder."""
    scripts = [str(ROOT / "benchmarks" / folder) for folder in ("gpu", "speed")]
    paths = [str(BUILD / "tree"), str(BUILD / "site"), *scripts, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }


# Needs


def check_needs(wanted: list[str], options: argparse.Namespace) -> tuple[dict, list[str]]:
    """What the machine is, and a sentence for everything that it lacks."""
    found = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may not know yet
        return {}, [f"Python {found} was found; expected 3.11 to 3.13"]
    if sys.version_info >= (3, 14):
        print(f"Python {found} was found; 3.11 to 3.13 are what is tried", file=sys.stderr)
    needs = NEEDS | {module: package for name in wanted for module, package in FOR_PARTS.get(name, {}).items()}
    if options.smoke:
        needs = {module: package for module, package in needs.items() if module not in FOR_PARTS["classical"]}
    failing = failing_imports({"torch": "torch"} | needs)
    if "torch" in failing:
        return {}, [f"torch does not import ({failing['torch']}); expected version 2.11 or later"]
    if failing and options.wheels is not None:
        failing = install(failing, needs, options.wheels)
    lacks = [f"{needs[module]} does not import ({error})" for module, error in failing.items()]
    if lacks and options.wheels is None:
        lacks.append("WHEELS=DIR (--wheels DIR) names a folder of wheels to take packages from")
    if lacks:
        return {}, lacks
    facts = json.loads(_child("facts", options).stdout.splitlines()[-1])
    version = tuple(int(n) for n in re.findall(r"\d+", facts["versions"]["torch"])[:2])
    if version < (2, 11):
        lacks.append(f"torch {facts['versions']['torch']} was found; expected 2.11 or later")
    if not options.smoke and not facts["cuda"]:
        lacks.append(f"torch {facts['versions']['torch']} sees no CUDA device ({facts['device']['why']})")
    return facts, lacks


def failing_imports(needs: dict[str, str]) -> dict[str, str]:
    """Which modules do not import, and why; tried in a process of its own, as a broken one may end it."""
    command = [sys.executable, str(Path(__file__).resolve()), "--imports", ",".join(needs)]
    run = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(run.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return dict.fromkeys(needs, f"the process that tried it ended with {run.returncode}")


def _try_imports(modules: list[str]) -> int:
    failed = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            failed[module] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    print(json.dumps(failed))
    return 0


def install(failing: dict[str, str], needs: dict[str, str], wheels: Path) -> dict[str, str]:
    """Install what does not import from a folder of wheels, and give what still does not.

    One by one, so that one that lacks stops no other, and without what they depend on: pip would want torch for kornia.
    What they turn out to need besides (`six`, in older wheels) is taken in a second and third round.
    """
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    tried: set[str] = set()
    for _ in range(3):
        packages = [needs[module] for module in failing]
        packages += [name for error in failing.values() for name in re.findall(r"No module named '(\w+)", error)
                     if name not in needs]  # fmt: skip
        for package in packages:
            if package not in tried:
                _install_one(package, wheels)
        tried.update(packages)
        failing = failing_imports(needs)
        if not failing:
            break
    return failing


def _install_one(package: str, wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links",
               str(wheels), "--target", str(BUILD / "site"), "--upgrade", package]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        why = (run.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        print(f"{package} was not installed from {wheels}: {why}", file=sys.stderr)


def _child(part: str, options: argparse.Namespace) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(part, options), env=_environment(), stdout=subprocess.PIPE, text=True, check=True)


def _command(part: str, options: argparse.Namespace) -> list[str]:
    script = Path(__file__).resolve().parent / "measure.py"
    smoke = ["--smoke"] if options.smoke else []
    return [sys.executable, str(script), part, "--device", options.device, "--out", str(BUILD / f"{part}.json"), *smoke]


# Parts


def run_part(name: str, limit: float, options: argparse.Namespace) -> dict:
    """Run a part for at most `limit` seconds: its status, seconds, rows, and the end of its output if it failed."""
    if limit < 10:
        return {"status": "left out", "seconds": 0.0, "why": "the budget was spent", "rows": []}
    out, log = BUILD / f"{name}.json", BUILD / f"{name}.log"
    out.unlink(missing_ok=True)
    command = _test_command() if name == "tests" else _command(name, options)
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        try:
            code = subprocess.run(
                command, env=_environment(), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=limit, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    seconds = round(time.monotonic() - started, 1)
    printed = log.read_text(encoding="utf-8", errors="replace")
    part = _tested(printed) if name == "tests" else {"rows": json.loads(out.read_text()) if out.exists() else []}
    status = "cut off" if code is None else "failed" if code else "done"
    part = {"status": status, "seconds": seconds, **part}
    if code != 0:
        part["why"] = f"{limit:.0f} s were over" if code is None else f"exit code {code}"
        part["tail"] = printed.splitlines()[-40:]
    return part


def _test_command() -> list[str]:
    """Only the files that hold a marked test are collected: others may need packages that are not here."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    names = [str(path.relative_to(ROOT)) for path in files]
    return [sys.executable, "-u", "-m", "pytest", "-o", "addopts=", "-v", "--strict-markers", "--durations=5",
            "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "gpu", *names]  # fmt: skip


def _tested(printed: str) -> dict:
    """How many tests ended how, and which failed, as far as pytest came."""
    found = re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", printed, re.MULTILINE)
    counts = {
        word.lower(): sum(ended == word for _, ended in found) for word in ("PASSED", "FAILED", "ERROR", "SKIPPED")
    }
    failed = list(dict.fromkeys(name for name, ended in found if ended in ("FAILED", "ERROR")))
    return {"rows": [{"case": "tests marked gpu", **counts}], "failed": failed}


def _write(result: dict) -> None:
    partial = BUILD / "result.json.partial"
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(BUILD / "result.json")


def _line(name: str, part: dict) -> str:
    rows = "".join(f"\n    {json.dumps(row)}" for row in part["rows"])
    return f"{name}: {part['status']} in {part['seconds']} s{' - ' + part['why'] if 'why' in part else ''}{rows}"


def _commit() -> str:
    """The commit of the tree, with a + where it was changed since; nothing where there is no git or repository."""
    try:
        run = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True,
                             check=False)  # fmt: skip
    except OSError:
        return ""
    return run.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
