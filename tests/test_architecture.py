"""The house as it is drawn: who may import whom, and what is imported where.

`FLOORS` is the drawing. A module imports from lower floors only, never sideways; inside a package (`data`, ...) files
may import each other, but a method of the catalog never imports a sibling method. Add a new module to its floor.
"""

import ast
import functools
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from augforge.parts import catalog

ROOT = Path(__file__).parent.parent
FLOORS = (
    {"types", "chance", "machine"},
    {"data"},
    {"statistics", "imagine", "training", "figures"},
    {"parts", "metrics", "networks"},
    {"episodes"},
    {"classifiers", "representations"},
    {"generators", "inputs", "adapters", "protocols", "curate"},
    {"bench", "synth", "measure", "check", "fit", "predict"},
    {"auto", "suggest", "report"},
    {"cli"},
)
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}
ALL_MAY_IMPORT = {"augforge"}  # the package itself holds the version
PACKAGE_DIRS = {"augforge": "augforge", "generators": "augforge.generators", "cli": "augforge.cli"}
METHODS = {place.partition(":")[0] for table in catalog.TABLES.values() for place in table.values()}
MOST_AT_ROOT, MOST_METHODS, LONGEST_CHAIN = 10, 20, 10
SMALL_MODULE = 60  # lines; a module of fewer that one other imports says "a module of its own because" in its docstring
SLOW = {"matplotlib", "torchvision", "rich", "pandas"}  # half a second and more each: imported where they are used


def _sources() -> dict[str, Path]:
    """Module name -> file, for everything that is installed."""
    found = {}
    for folder, package in PACKAGE_DIRS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


SOURCES = _sources()


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def _imported(node: ast.AST) -> list[str]:
    """The modules that one statement imports; `from augforge import catalog` is augforge.parts.catalog."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom) or node.level:
        return []
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in SOURCES else str(node.module) for name in inner]


def _imports(module: str) -> set[str]:
    return {name for node in ast.walk(_tree(module)) for name in _imported(node)}


def _part(module: str) -> str:
    """The name in FLOORS that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def _complain(offences: list[str]) -> None:
    assert not offences, "\n" + "\n".join(sorted(set(offences)))


def test_every_module_has_a_floor():
    unknown = [module for module in SOURCES if _part(module) not in FLOOR_OF and module not in ALL_MAY_IMPORT]
    _complain(
        [
            f"{module} is on no floor: add {_part(module)!r} to FLOORS in tests/test_architecture.py"
            for module in unknown
        ]
    )


def test_imports_go_down():
    offences = []
    for module in SOURCES:
        for name in _imports(module):
            if name.split(".")[0] != "augforge" or name in ALL_MAY_IMPORT:
                continue
            here, there = _part(module), _part(name)
            if name not in SOURCES:
                offences.append(f"{module} imports {name}, which is not there")
            elif here != there and FLOOR_OF.get(here, 99) <= FLOOR_OF.get(there, 99):
                offences.append(f"{module} (floor {FLOOR_OF.get(here)}) imports {name} (floor {FLOOR_OF.get(there)})")
    _complain(offences)


def test_methods_do_not_import_their_siblings():
    offences = [
        f"{module} imports {name}"
        for module in METHODS
        for name in _imports(module)
        if name in METHODS and name != module
    ]
    _complain(offences)


def test_imports_are_absolute_and_have_one_identity():
    offences = []
    for module in SOURCES:
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.ImportFrom) and node.level:
                offences.append(f"{module}:{node.lineno} imports relatively")
            tops = {name.split(".")[0] for name in _imported(node)}
            offences += [f"{module}:{node.lineno} imports {top}" for top in tops & {"generators", "cli", "tests"}]
    _complain(offences)


def _inner_imports(module: str) -> set[str]:
    """Installed modules that a module imports anywhere: at its top, in functions, for type checkers only.

    A package counts for what its `__init__` imports, and no module imports its own package by lying in it.
    """
    return {name for name in _imports(module) if name in SOURCES and name != module} - ALL_MAY_IMPORT


def test_there_is_no_circle():
    state: dict[str, int] = {}
    circles: list[str] = []

    def visit(module: str, path: tuple[str, ...]) -> None:
        if state.get(module) == 2:
            return
        if module in path:
            circles.append(" -> ".join((*path[path.index(module) :], module)))
            return
        for name in sorted(_inner_imports(module)):
            visit(name, (*path, module))
        state[module] = 2

    for module in SOURCES:
        visit(module, ())
    _figure("circles of imports", len(circles), 0)
    _complain(circles)


@functools.cache
def _longest(module: str) -> tuple[str, ...]:
    """The longest chain of imports that begins with a module; there must be no circle."""
    return (module, *max((_longest(name) for name in sorted(_inner_imports(module))), key=len, default=()))


def _figure(what: str, found: int, most: int) -> None:
    """Print a figure of the house: `pytest -s tests/test_architecture.py` shows them."""
    print(f"{what}: {found} (at most {most})")


def test_chains_of_imports_are_short():
    chain = max(map(_longest, SOURCES), key=len)
    _figure("longest chain of imports", len(chain), LONGEST_CHAIN)
    assert len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


def test_the_root_and_the_catalog_of_methods_are_not_crowded():
    root = sorted(path.name for path in (ROOT / "augforge").glob("*.py"))
    methods = sorted(p.name for p in (ROOT / "generators").iterdir() if not p.name.startswith("_"))
    _figure("files at the root of augforge/", len(root), MOST_AT_ROOT)
    _figure("entries of generators/", len(methods), MOST_METHODS)
    assert len(root) <= MOST_AT_ROOT, root
    assert len(methods) <= MOST_METHODS, methods


def test_a_small_module_with_one_importer_says_why_it_stands_alone():
    importers: dict[str, set[str]] = {module: set() for module in SOURCES}
    for module in SOURCES:
        for name in _inner_imports(module):
            importers[name].add(module)
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in SOURCES.items()}
    found = [
        module
        for module, path in SOURCES.items()
        if len(importers[module]) == 1
        and lines[module] < SMALL_MODULE
        and path.name != "__init__.py"
        and module not in METHODS
        and not module.startswith("augforge.cli.")  # one command, one file
        and "a module of its own because" not in " ".join((ast.get_docstring(_tree(module)) or "").lower().split())
    ]
    _figure(f"modules under {SMALL_MODULE} lines with one importer and no reason", len(found), 0)
    _complain(
        [f"{m} ({lines[m]} lines) is imported by {next(iter(importers[m]))} alone: merge it there" for m in found]
    )


def _run(node: ast.AST) -> list[ast.AST]:
    """The statements that run when a module is imported."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return []
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return [inner for child in node.orelse for inner in _run(child)]
    return [node, *(inner for child in ast.iter_child_nodes(node) for inner in _run(child))]


def test_albumentations_is_imported_in_one_module():
    users = {module for module in SOURCES if any(name.split(".")[0] == "albumentations" for name in _imports(module))}
    assert users == {"augforge.generators.albumentations"}


def test_slow_packages_are_imported_inside_functions():
    offences = [
        f"{module}:{node.lineno} imports {name} at its top"
        for module in SOURCES
        for node in _run(_tree(module))
        for name in _imported(node)
        if name.split(".")[0] in SLOW
    ]
    _complain(offences)


def test_packages_are_listed_as_the_folders_are():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts)): str(path.parent.relative_to(ROOT))
        for folder, package in PACKAGE_DIRS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(settings["packages"]) == sorted(folders)
    assert settings["package-dir"] == folders
    without = {str(path.parent.relative_to(ROOT)) for path in SOURCES.values()} - set(folders.values())
    assert not without, f"{without} has no __init__.py"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in catalog.TABLES.items() for name in table])
def test_every_catalog_entry_resolves(kind, name):
    cls = catalog.part_class(name, kind)
    assert f"{cls.__module__}:{cls.__qualname__}" == catalog.TABLES[kind][name]
    assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize("slow", ["torch", "numpy", "cv2"])
def test_the_command_line_answers_without(slow, modules_of_the_command_line):
    assert slow not in modules_of_the_command_line


@pytest.fixture(scope="module")
def modules_of_the_command_line():
    """What `augforge --help` imports."""
    code = "import sys, augforge.cli.main; print(*sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV_CORE")}
    # Not in the checkout: there `augforge` would be the folder, and not what is installed.
    command, elsewhere = [sys.executable, "-c", code], tempfile.gettempdir()
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=elsewhere)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())
