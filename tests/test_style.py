"""The house rules that a program can check. Every test lists all offenders at once."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALLED = ("augforge", "generators", "cli")
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 7
# Patterns are cut in two so that this file does not find itself.
FORBIDDEN = {
    r"torch\.manual" + r"_seed\(": "seeds torch for everyone; pass a generator or keys",
    r"torch\.cuda\.manual" + r"_seed": "seeds torch for everyone; pass a generator or keys",
    r"np\.random\." + r"seed\(": "seeds numpy for everyone; pass a generator",
    r"(?<![\w.])random\." + r"seed\(": "seeds Python for everyone; pass a generator",
    r"\.cu" + r"da\(": "decides the device; follow that of the input",
    r"\bpic" + r"kle\b": "can run a stranger's code; use JSON and safetensors",
    r"allow_pic" + r"kle\s*=\s*True": "can run a stranger's code",
    r"weights_on" + r"ly\s*=\s*False": "can run a stranger's code",
    r"\btorch\.lo" + r"ad\((?!.*weights_only=True)": "can run a stranger's code; use safetensors",
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b": "is unfinished",
}
# The contract battery packs and unpacks the part that it was handed, as a worker process would: its own bytes.
OWN_BYTES = {("augforge/parts/contracts/cases.py", r"\bpic" + r"kle\b")}
# A word in a docstring or message is no use of it, and tests check what the library must not do.
IN_TESTS_TOO = [pattern for pattern, reason in FORBIDDEN.items() if "seeds" in reason or "unfinished" in reason]


def _files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


EVERYWHERE = _files(*INSTALLED, "tests", "benchmarks")
LIBRARY = _files(*INSTALLED)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, Function, bool]]:
    """(qualified name, function, whether it is a method), methods and inner functions included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield inside + child.name, child, isinstance(node, ast.ClassDef)
        if isinstance(child, Function | ast.ClassDef):
            yield from _functions(child, f"{inside}{child.name}.")
        else:
            yield from _functions(child, inside)


def _is_command(function: Function) -> bool:
    """Whether a function's parameters are command-line options, one decorator each."""
    return any(re.search(r"\b(command|group|option|argument)\b", ast.unparse(d)) for d in function.decorator_list)


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def _complain(offences: list[str]) -> None:
    assert not offences, "\n" + "\n".join(offences)


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYWHERE}
    _complain([f"{_name(p)} has {n} lines, more than {LONGEST_FILE}" for p, n in lengths.items() if n > LONGEST_FILE])


def test_functions_are_short():
    offences = []
    for path in EVERYWHERE:
        for name, function, _ in _functions(_tree(path)):
            lines = (function.end_lineno or 0) - function.lineno + 1  # decorators not counted
            if lines > LONGEST_FUNCTION:
                offences.append(f"{_name(path)}: {name} has {lines} lines, more than {LONGEST_FUNCTION}")
    _complain(offences)


def test_functions_have_few_parameters():
    offences = []
    for path in EVERYWHERE:
        for name, function, is_method in _functions(_tree(path)):
            if _is_command(function):
                continue
            a = function.args
            static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
            count = len(a.posonlyargs + a.args + a.kwonlyargs) + (a.vararg is not None) - (is_method and not static)
            if count > MOST_PARAMETERS:
                offences.append(f"{_name(path)}: {name} has {count} parameters, more than {MOST_PARAMETERS}")
    _complain(offences)


def test_public_functions_name_their_parameters():
    _complain(
        [
            f"{_name(path)}: {name} takes **{function.args.kwarg.arg}"
            for path in LIBRARY
            for name, function, _ in _functions(_tree(path))
            if function.args.kwarg is not None and _is_public(name) and not _is_command(function)
        ]
    )


def test_public_names_have_docstrings():
    offences = []
    for path in [*LIBRARY, *_files("benchmarks")]:
        tree = _tree(path)
        if not ast.get_docstring(tree):
            offences.append(f"{_name(path)} has no docstring")
        nodes = [(name, node) for name, node, _ in _functions(tree) if _is_outer(tree, node)]
        nodes += [(node.name, node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for name, node in nodes:
            if _is_public(name) and not node.name.startswith("__") and not ast.get_docstring(node):
                offences.append(f"{_name(path)}: {name} has no docstring")
    _complain(offences)


def _is_outer(tree: ast.Module, function: Function) -> bool:
    """Whether a function stands in a module or a class: one inside of a function is nobody's business."""
    homes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    return any(function in home.body for home in homes)


def _code(path: Path) -> str:
    """The source with docstrings and other bare strings left out; comments stay."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = ""
    return "\n".join(lines)


def test_nothing_forbidden_is_used():
    offences = []
    for path in EVERYWHERE:
        code = _code(path)
        in_library = path.parts[len(ROOT.parts)] in INSTALLED
        for pattern, reason in FORBIDDEN.items():
            for match in re.finditer(pattern, code) if in_library or pattern in IN_TESTS_TOO else ():
                if (_name(path), pattern) in OWN_BYTES:
                    continue
                line = code.count("\n", 0, match.start()) + 1
                offences.append(f"{_name(path)}:{line}: {match.group()} {reason}")
    _complain(offences)


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=["check", "format"])
def test_ruff_is_content(arguments):
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed here")
    folders = [folder for folder in (*INSTALLED, "tests", "benchmarks") if (ROOT / folder).is_dir()]
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--quiet", *folders]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
