"""The command that names the class of pictures: `predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("support")
@click.argument("pictures", nargs=-1, type=_PATH, metavar="[PICTURE]...")
@click.option("--representation", metavar="R|DIR",
              help="What embeds pictures: a name of `augforge list`, or a folder [default: conv4-glyphs].")  # fmt: skip
@click.option("--classifier", metavar="C|DIR", help="A name of `augforge list`, or a folder [default: prototype].")
@click.option(
    "--set", "assignments", multiple=True, metavar="K=V", help="A setting of the classifier; may be repeated."
)
@click.option("--base", metavar="SOURCE", help="Classes that the classifier learns from first, if it needs any.")
@click.option("--split", metavar="NAME", help="Which part of the support's source is shown [default: train].")
@click.option("--shortlist", type=int, default=0, metavar="M", help="Look into the M nearest superclasses only.")
@click.option("--save", type=_PATH, metavar="DIR", help="Keep the support, embedded, for the next call.")
@click.option("--top", type=int, default=5, show_default=True, help="How many classes to name.")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of what is learnt from --base.")
@click.option("--data-root", type=_PATH, metavar="DIR",
              help="Where the data of named sources lies [default: $AUGFORGE_DATA].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def predict(**given: Any) -> None:
    """Name the class of each PICTURE, shown SUPPORT: a few examples of every class.

    SUPPORT is a source (a folder of class folders, an archive, ...) or a folder that --save wrote.
    """
    from augforge import predict as production
    from augforge.types import InputError

    if given["top"] < 1:
        raise InputError(f"--top {given['top']} was given; expected at least 1")
    if not given["pictures"] and given["save"] is None:
        raise InputError("there is no PICTURE to name and no --save; expected one of them")
    predictor = _saved(given) if production.is_predictor(given["support"]) else _made(given)
    if given["save"] is not None:
        production.save_predictor(predictor, given["save"])
    found = predictor.predict(_decoded(given["pictures"])) if given["pictures"] else []
    rows: list[dict[str, Any]] = [
        {"picture": str(path), "classes": [{"class": name, "probability": p} for name, p in ranking[: given["top"]]]}
        for path, ranking in zip(given["pictures"], found, strict=True)
    ]
    if given["as_json"]:
        out = None if given["save"] is None else str(given["save"])
        click.echo(json.dumps({"classes": len(predictor.classes), "out": out, "rows": rows}))
        return
    if given["save"] is not None:
        click.echo(f"the support of {len(predictor.classes)} classes is in {click.format_filename(given['save'])}")
    for row in rows:
        named = ", ".join(f"{pair['class']} {100 * pair['probability']:.1f} %" for pair in row["classes"])
        click.echo(f"{click.format_filename(row['picture'])}: {named}")


def _saved(given: dict[str, Any]) -> Any:
    """The predictor of a folder; options that would make another one are refused."""
    from augforge.predict import load_predictor
    from augforge.types import InputError

    for option in ("representation", "classifier", "assignments", "base", "split", "shortlist"):
        if given[option]:
            name = "set" if option == "assignments" else option
            raise InputError(f"--{name} was given for {given['support']!r}, which was saved with its own")
    return load_predictor(Path(given["support"]))


def _made(given: dict[str, Any]) -> Any:
    """A predictor from a source, with the classifier fitted on --base where there is one."""
    import torch

    from augforge.data.banks import FeatureBank
    from augforge.parts.catalog import read_assignment
    from augforge.parts.saving import open_part
    from augforge.predict import features_of, make_predictor

    representation = open_part(given["representation"] or "conv4-glyphs", None, "representation")
    settings = dict(map(read_assignment, given["assignments"]))
    classifier = open_part(given["classifier"] or "prototype", settings, "classifier")
    if given["base"] is not None:
        base = _bank(given["base"], None, given["data_root"])
        features = FeatureBank(features_of(base, representation), base.y, tuple(base.classes), base.origin)
        classifier.fit(features, torch.Generator().manual_seed(given["seed"]))
    bank = _bank(given["support"], given["split"], given["data_root"])
    return make_predictor(bank, classifier, representation, given["shortlist"])


def _bank(source: str, split: str | None, data_root: Path | None) -> Any:
    from augforge.data.source import open_source
    from augforge.types import InputError

    banks = open_source(source, data_root)
    split = split or (next(iter(banks)) if len(banks) == 1 else "train")
    if split not in banks:
        raise InputError(f"--split {split!r}: {source!r} has {', '.join(map(repr, banks))}")
    return banks[split]


def _decoded(paths: tuple[Path, ...]) -> list[Any]:
    """The pictures [c, h, w] uint8."""
    import torch

    from augforge.data.decode import UnreadablePicture, decode

    pictures = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UnreadablePicture(str(path), f"cannot be read ({error.strerror or error})") from error
        pictures.append(
            torch.from_numpy(decode(data, str(path))).permute(2, 0, 1).contiguous()
        )  # [h, w, c] -> [c, h, w]
    return pictures
