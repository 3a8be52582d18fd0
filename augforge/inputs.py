"""What `fit`, `predict` and `synth` are given - a source, a method, a representation, a device - checked and opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from augforge.data.banks import AnyBank, FeatureBank, PictureBank, take_rows
from augforge.data.embeddings import is_renamed, read_rows
from augforge.data.folder import open_flat
from augforge.data.selection import Selection
from augforge.data.source import open_source
from augforge.networks.pixels import LARGEST_LETTER
from augforge.parts import catalog, saving
from augforge.parts.learning import learn, sees_validation, training_time
from augforge.representations.bank import RunItems, embed_bank
from augforge.representations.options import BankOptions
from augforge.training.loop import Run
from augforge.types import InputError, Inputs, LackError, UnreadablePicture, capabilities

Skipped = list[tuple[str, str]]
_LOOKED_AT = 8  # pictures that tell what a source holds
_FEW_STEPS, _LONG = 100, 60.0  # of a training that simply runs; seconds of one that is asked about
_OPTIONS = BankOptions(precision="float32")  # files of features should not depend on what a processor is fast at


def _banks(inputs: Inputs) -> dict[str, AnyBank]:
    selection = Selection(inputs.max_per_class, inputs.group_by, inputs.seed)
    return open_source(inputs.source, inputs.data_root, selection)


def open_split(inputs: Inputs) -> AnyBank:
    """The split of the source that is named, with all its classes; raises InputError."""
    banks = _banks(inputs)
    split = inputs.split or (next(iter(banks)) if len(banks) == 1 else "train")
    if split not in banks and inputs.split is None:
        raise InputError(f"{inputs.source!r} has the splits {', '.join(map(repr, banks))}; "
                         "expected --split with one of them")  # fmt: skip
    if split not in banks:
        raise InputError(f"--split {split!r}: {inputs.source!r} has {', '.join(map(repr, banks))}")
    return banks[split]


def open_pool(source: str, data_root: Path | None = None) -> AnyBank:
    """Unlabelled rows: any source, also a folder of pictures without class folders, or embeddings without labels.

    Of a source with splits it is "train". Labels mean nothing. Raises InputError for what cannot be read.
    """
    path = Path(source)
    flat = open_flat(path) if path.is_dir() else None
    if flat is not None:
        return flat
    if path.is_file() and (path.suffix.lower() in (".npy", ".csv", ".parquet") or is_renamed(path)):
        x = read_rows(path).x
        return FeatureBank(x, torch.zeros(len(x), dtype=torch.int64), ("",), source)
    return open_split(Inputs(source, data_root=data_root))


def open_bank(inputs: Inputs) -> AnyBank:
    """The split and the classes of the source that are named; raises InputError."""
    bank = open_split(inputs)
    return bank.only(inputs.classes) if inputs.classes else bank


# The ranges of `classical` where none were named, by the kind of pictures.
PRESETS = {"letters": "handwriting", "photographs": "photographs"}


def kind_of_pictures(bank: PictureBank) -> Literal["letters", "photographs"]:
    """What the defaults of commands go by: grey pictures of at most 32 px a side are letters, all else photographs.

    Looks at up to 8 pictures that can be read, spread over the rows of `bank`; one photograph among them decides.
    A bank without a picture that can be read holds photographs.
    """
    seen = 0
    for channels, height, width in _shapes(bank):
        if channels > 1 or max(height, width) > LARGEST_LETTER:
            return "photographs"
        seen += 1
    return "letters" if seen else "photographs"


def _shapes(bank: PictureBank) -> Iterator[tuple[int, ...]]:
    """[c, h, w] of a few pictures that can be read, spread over the rows."""
    for row in torch.linspace(0, len(bank) - 1, min(_LOOKED_AT, len(bank))).round().long().tolist():
        with suppress(UnreadablePicture):
            yield tuple(bank.examples(torch.tensor([row])).x[0].shape)


def default_representation(*banks: PictureBank) -> str:
    """The representation of pictures where none was named: `conv4-glyphs` for letters as it takes them, of 28 x 28 px
    in grey, and `photos` for all else.
    """
    found = {shape for bank in banks for shape in _shapes(bank)}
    return "conv4-glyphs" if found == {(1, 28, 28)} else "photos"


def default_classifier(bank: AnyBank) -> tuple[str, dict[str, Any]]:
    """The classifier of predictions where none was named, and its settings.

    Logistic regression on rows of length 1 for photographs and for features that people bring, nearest means for
    letters.
    """
    if not isinstance(bank, FeatureBank) and default_representation(bank) == "conv4-glyphs":
        return "prototype", {}
    return "logistic", {"C": 100.0, "normalise": "l2"}


def default_views(representation: Any) -> str:
    """The views of a picture to average where none were named: four crops where a representation takes any size.

    Eight take twice as long, and gain up to 1.7 points more on traffic signs.
    """
    return "crops-4" if capabilities(representation).any_size else "none"


def fetch_weights(representation: str) -> None:
    """Download the pretrained weights of `timm:NAME` and `torchvision:NAME`, also of several joined by +.

    They go to the library's own cache, where later calls find them; what lies there is not fetched again. Raises
    LackError where they cannot be had.
    """
    for name in representation.split("+"):
        library, _, network = name.partition(":")
        try:
            if library == "timm":
                import timm

                with torch.random.fork_rng(devices=[]):
                    timm.create_model(network, pretrained=True)
            elif library == "torchvision":
                from torchvision import models

                with torch.random.fork_rng(devices=[]):
                    models.get_model(network, weights="DEFAULT")
        except Exception as error:  # of many kinds: no network, an unknown name, weights that need a login
            reason = " ".join(str(error).split())[:200]
            raise LackError(f"--download: the weights of {name!r} cannot be fetched ({reason})") from error


def validation_bank(inputs: Inputs, device: str = "cpu") -> AnyBank | None:
    """The validation classes of the source, embedded on `device` and left there where a representation is named.

    None where the source has none, or where a split of it was named.
    """
    if inputs.split is not None:
        return None
    banks = _banks(inputs)
    bank = banks.get("val") if len(banks) > 1 else None
    if bank is not None and inputs.representation is not None:
        bank = embed_pictures(bank, inputs.representation, device)[0]
    return None if bank is None else on_device(bank, device)


def on_device(bank: AnyBank, device: str) -> AnyBank:
    """A bank to learn from, its features and labels moved to a device; pictures stay files until they are asked for."""
    if device == "cpu" or not isinstance(bank, FeatureBank):
        return bank
    weight = None if bank.weight is None else bank.weight.to(device)
    return replace(bank, x=bank.x.to(device), y=bank.y.to(device), weight=weight)


def open_method(inputs: Inputs, bank: AnyBank, run: Run | None = None) -> Any:
    """The method: loaded from a folder, or made by name and fitted on the bank where that is its way.

    One that chooses by validation classes or trains is shown those of the source, and trains as `run` says. Raises
    InputError for an unknown name or setting, where the method does not work on such a source, and for a name that
    must be trained for more than a minute, unless `inputs.train` allows it.
    """
    if saving.is_folder(inputs.method):
        if inputs.settings:
            raise InputError(f"--set was given for {inputs.method!r}, which was fitted with settings of its own")
        part = saving.load_part(Path(inputs.method))
    elif inputs.method in catalog.SHIPPED:
        part = saving.open_part(inputs.method, dict(inputs.settings))
    else:
        part = catalog.make(inputs.method, dict(inputs.settings))
        _check_space(inputs, part, bank)
        device = str(bank.x.device) if isinstance(bank, FeatureBank) else "cpu"
        val = validation_bank(inputs, device) if sees_validation(part) else None
        if capabilities(part).trains and not inputs.train:
            _check_time(inputs, part, bank, Run() if run is None else run)
        part = learn(part, bank, torch.Generator().manual_seed(inputs.seed), val, run)
    _check_space(inputs, part, bank)
    return part


def _check_time(inputs: Inputs, part: Any, bank: AnyBank, run: Run) -> None:
    """Raise InputError for a method that trains for long, saying for how long here and what would be quicker."""
    if getattr(part, "steps", _FEW_STEPS + 1) <= _FEW_STEPS:
        return
    seconds = training_time(part, bank, inputs.seed, run)
    if seconds is not None and seconds <= _LONG:
        return
    about = "for a time that is not known" if seconds is None else f"for {in_words(seconds)} here"
    steps = f"{part.steps:,} steps, " if seconds is not None else ""
    ready = [name for name in catalog.SHIPPED if name.startswith(f"{inputs.method}-")]
    shipped = f"; {', '.join(map(repr, ready))} is trained already, on letters" if ready else ""
    raise InputError(
        f"{inputs.method} must be trained before it makes anything, {steps}{about} on {run.device}{shipped}; expected "
        f"a folder of `augforge fit {inputs.method} {inputs.source} --out DIR --minutes M`, which keeps it, or --fit "
        "to train it now, for this run alone"
    )


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> in_words(95), in_words(4000), in_words(90_000)
    ('about 2 minutes', 'about 1.1 hours', 'about 25 hours')
    """
    if seconds < 100 * 60:
        return f"about {max(1, round(seconds / 60))} minutes" if seconds >= 90 else "about a minute"
    hours = seconds / 3600
    return f"about {hours:.1f} hours" if hours < 10 else f"about {hours:,.0f} hours"


def _check_space(inputs: Inputs, part: Any, bank: AnyBank) -> None:
    """Raise InputError where the method is not for what the source holds, or what was made of it."""
    space = capabilities(part).space
    if space in ("any", bank.space):
        return
    if inputs.representation is not None:
        raise InputError(f"--representation makes features, and {inputs.method} makes {space}s")
    hint = "; --representation makes features of them" if bank.space == "image" else ""
    raise InputError(f"{inputs.method} makes {space}s, and {inputs.source!r} holds {bank.space}s{hint}")


def device_of(name: str, best: str | None = None) -> str:
    """The device of `--device` as torch calls it: "auto" is `best`, or CUDA where it works and else the CPU.

    Raises InputError for a word that is no device's, as cuda:-3, and LackError for a device that is not there.
    """
    found = re.fullmatch(r"auto|cpu|cuda(?::(0|[1-9]\d*))?", name)
    if found is None and name.startswith(("cuda", "cpu", "auto")):
        raise InputError(f"--device {name!r} was given; expected auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return name
    if name == "auto" and best is not None:
        return best
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count else "cpu"
    if found is None or not count:
        raise LackError(f"--device {name}: this machine has none; expected auto or cpu")
    if int(found[1] or 0) >= count:
        raise LackError(f"--device {name}: this machine has cuda:0 to cuda:{count - 1}")
    return name


def embed_pictures(
    bank: AnyBank, name: str, device: str = "cpu", run_items: RunItems | None = None
) -> tuple[FeatureBank, Skipped]:
    """The pictures of a bank as features float32 on the CPU, and the (name, reason) of those that cannot be read.

    `name` is a representation: a folder that `fit` made, a shipped one, or torchvision's; rows keep their names and
    their places in the source. With `run_items` workers embed them, as in `embed_bank`. Raises InputError for a bank
    that holds features already, a representation that is not fitted or does not take these pictures, and a class
    without a picture that can be read.
    """
    if isinstance(bank, FeatureBank):
        raise InputError(f"--representation {name!r} was given; {bank.origin!r} holds features already")
    representation = saving.open_part(name, None, "representation")
    skipped = list(bank.skipped)
    try:
        features = embed_bank(representation, bank, _OPTIONS, device=device, run_items=run_items)
    except UnreadablePicture:
        bank, unreadable = _without_unreadable(bank)
        skipped += unreadable
        features = embed_bank(representation, bank, _OPTIONS, device=device, run_items=run_items)
    return replace(features, index=bank.index), skipped


def _without_unreadable(bank: PictureBank) -> tuple[PictureBank, Skipped]:
    """The rows that can be read, and the (name, reason) of the others; InputError for a class that has none left."""
    good, bad = readable_rows(bank)
    counts = torch.bincount(bank.y[good], minlength=len(bank.classes))
    if not bool((counts > 0).all()):
        lost = bank.classes[int((counts == 0).nonzero()[0])]
        raise InputError(f"class {lost!r} has no picture that can be read; the method needs at least 1")
    return take_rows(bank, good), bad  # type: ignore[type-var]


def readable_rows(bank: PictureBank) -> tuple[Tensor, Skipped]:
    """The rows [m] int64 whose pictures can be read, and the (name, reason) of the others."""
    good, bad = [], []
    for row in range(len(bank)):
        try:
            bank.load(row)
        except UnreadablePicture as error:
            bad.append((error.name, error.reason))
        else:
            good.append(row)
    return torch.tensor(good, dtype=torch.int64), bad
