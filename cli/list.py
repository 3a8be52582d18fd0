"""The command `list` (a file for each command): the names there are, and the settings of a part by its name."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import json
import re
import textwrap
import tokenize
import typing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from augforge.cli import options

_SHIPPED = "Shipped with its weights; part.json beside them says how they were made."
# The part of a comment that says which values a setting may have: "learning rate of Adam, > 0".
_RANGE = re.compile(
    r"(?:^|[,;:(] ?)"
    r"((?:[<>]=? ?[-\d]|(?:at least|at most|over|above|below|from|between) -?\d|-?\d[\d.e-]* (?:to|or more)\b)[^,;()]*)"
)


@click.command("list")
@click.argument("name", required=False)
@options.as_json
def list_parts(name: str | None, as_json: bool) -> None:
    """List the methods, classifiers, representations and named sources; with a NAME the settings of that part."""
    found = _names() if name is None else _part(name)
    if as_json:
        click.echo(json.dumps(found))
    elif name is None:
        _print_names(found)
    else:
        _print_part(found)


def _names() -> dict[str, Any]:
    """Every name there is, by kind, with the first line of what its class says of itself."""
    from augforge.data.source import SOURCE_NAMES
    from augforge.parts.catalog import PREFIXES, SHIPPED, TABLES
    from augforge.parts.plugins import installed, origin

    found: dict[str, Any] = {f"{kind}s": {n: _first_line(p) for n, p in t.items()} for kind, t in TABLES.items()}
    for kind, table in PREFIXES.items():
        found[f"{kind}s"] |= {f"{prefix}NAME": _first_line(place) for prefix, place in table.items()}
    for name, kind in SHIPPED.items():
        found[f"{kind}s"][name] = _SHIPPED
    for kind in TABLES:
        for name, place in installed(kind).items():
            found[f"{kind}s"].setdefault(name, f"{place}, of the installed package {origin(kind, name)}.")
    found["sources"] = list(SOURCE_NAMES)
    return found


def _print_names(found: dict[str, Any]) -> None:
    for kind, table in found.items():
        if table:
            click.echo(f"{kind}:")
        for name in table:
            click.echo(f"  {name:19s} {table[name]}" if isinstance(table, dict) else f"  {name}")


def _first_line(place: str) -> str:
    """The first line of what a catalog entry's class says of itself, read without importing it."""
    module, _, name = place.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return (ast.get_docstring(classes[0]) or "").splitlines()[0] if classes else ""


def _part(name: str) -> dict[str, Any]:
    """The kind of a part, what it is, and its settings; those of a shipped one are what it was fitted with."""
    from augforge.parts import catalog, saving

    kind = catalog.kind_of(name)
    given = catalog.PRESETS.get(name, {})
    cls: Any
    if name in catalog.SHIPPED:
        described = catalog.describe(saving.open_part(name, None, kind), kind)
        cls, given = catalog.part_class(described["name"], kind), described["settings"]
    else:
        cls = catalog.part_class(name, kind)
    return {
        "name": name,
        "kind": kind,
        "about": (inspect.getdoc(cls) or "").partition("\n")[0],
        "fitted": name in catalog.SHIPPED,
        "settings": _settings(cls, given),
    }


def _settings(cls: Any, given: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of a class: its dataclass fields, with the comment that stands behind each in the source."""
    from augforge.parts.catalog import type_text

    hints, comments = typing.get_type_hints(cls), _comments(cls)
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        comment = comments.get(field.name, "")
        made = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = given.get(field.name, made if field.default is dataclasses.MISSING else field.default)
        bounds = _RANGE.search(comment)
        found.append({
            "name": field.name,
            "type": type_text(hints[field.name]),
            "default": default,
            "range": bounds[1].strip() if bounds else "",
            "comment": comment,
        })  # fmt: skip
    return found


def _comments(cls: Any) -> dict[str, str]:
    """The comment behind each field of a class and of those it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is object:
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made at run time, or not written in Python
            continue
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        behind = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        (definition,) = ast.parse(source).body
        for node in definition.body if isinstance(definition, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno in behind:
                found[node.target.id] = re.sub(r"(^| *# *)(fmt|noqa|type):.*$", "", behind[node.end_lineno])
    return found


def _print_part(found: dict[str, Any]) -> None:
    click.echo(f"{found['name']} ({found['kind']}): {found['about']}")
    if not found["settings"]:
        click.echo("  it has no settings")
        return
    click.echo(f"settings, and {'what it was fitted with' if found['fitted'] else 'their defaults'}:")
    shown = [f"{setting['name']}={_value(setting['default'])}" for setting in found["settings"]]
    width = min(max(map(len, shown)), 32)
    for text, setting in zip(shown, found["settings"], strict=True):
        comment = f"; {setting['comment']}" if setting["comment"] else ""
        click.echo(f"  {text:{width}s}  {setting['type'] or 'none'}{comment}")


def _value(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
