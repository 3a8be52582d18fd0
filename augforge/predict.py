"""A classifier in production: a support set embedded once, saved in a folder, and applied to pictures.

The folder holds `predictor.json` (class names and options), `support.safetensors` (features, labels and weights of
the support), and the parts that it needs as `saving` writes them, in `classifier/` and `representation/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from augforge import __version__, chance
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.pool import PoolOptions, with_pool
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import AnyBank, FeatureBank, PictureBank
from augforge.data.durable import read_file, write_file
from augforge.data.embeddings import read_rows
from augforge.data.strict_json import MOST_JSON, parse_json
from augforge.imagine import concatenate, weighed
from augforge.metrics.calibration import fitted_temperature
from augforge.parts import catalog
from augforge.parts.saving import load_part, save_part
from augforge.representations.bank import as_seen, averaged_features, embed_bank
from augforge.representations.options import BankOptions
from augforge.types import Classifier, Examples, InputError, Representation, Synthesizer, capabilities

_RECORD, _SUPPORT, _CLASSIFIER, _REPRESENTATION = (
    "predictor.json",
    "support.safetensors",
    "classifier",
    "representation",
)
_LATER: dict[str, Any] = {"views": "none", "temperature": 1.0, "pool": 0, "scorer": "classifier"}
_FOLDS = 5  # of the support, to calibrate by

# The temperature of logistic regression (C = 100, rows of length 1) on features of photographs where the support says
# little, and how many nats it weighs. At one shot 0.21 to 0.77, on average (of logarithms) 0.36, over 5 and 20 classes
# of Caltech 101 and of traffic signs, and cats and dogs (benchmarks/photographs.py).
PRIOR, PRIOR_ROWS = 0.36, 5.0

Ranking = list[tuple[str, float]]


@dataclass(frozen=True)
class Predictor:
    """What it takes to name the class of a picture.

    `support` are features [n, d] with labels that index `classes`, each of which has a row. `representation` embeds
    pictures; without one it takes features only. `superclasses` names the superclass of every class; with
    a `shortlist` of m > 0 a query is first compared with the superclasses' prototypes, and only the classes of the
    nearest m are scored (coarse to fine). `views` of `BankOptions` are averaged, of support and queries alike.
    Probabilities are softmax(scores / `temperature`). The last `pool` rows of the support were unlabelled.
    Raises InputError where these do not go together.
    """

    representation: Representation | None
    classifier: Classifier
    support: Examples
    classes: tuple[str, ...]
    superclasses: tuple[str, ...] | None = None
    shortlist: int = 0
    views: str = "none"
    temperature: float = 1.0
    pool: int = 0

    def __post_init__(self) -> None:
        """Check what was given."""
        missing = sorted(set(range(len(self.classes))) - set(self.support.y.tolist()))
        if missing:
            raise InputError(f"class {self.classes[missing[0]]!r} has no support row; expected at least one of each")
        if len(self.support) and int(self.support.y.max()) >= len(self.classes):
            raise InputError(
                f"the support has labels up to {int(self.support.y.max())}; classes are {len(self.classes)}"
            )
        if self.superclasses is not None and len(self.superclasses) != len(self.classes):
            raise InputError(f"there are {len(self.superclasses)} superclasses for {len(self.classes)} classes")
        if self.shortlist < 0 or (self.shortlist and self.superclasses is None):
            raise InputError(
                f"shortlist={self.shortlist} was given; expected at least 0, and superclasses to choose from"
            )

    @property
    def pool_weight(self) -> float:
        """How many real rows the pool weighs, on average over classes: near 0 where it was not believed."""
        if not self.pool or self.support.weight is None:
            return 0.0
        return float(self.support.weight[-self.pool :].sum()) / len(self.classes)

    def predict(self, pictures: Tensor | list[Tensor]) -> list[Ranking]:
        """For each of the pictures [n, c, h, w], or a list of [c, h, w], its classes and their probabilities, best
        first; only those of the shortlist where there is one. Raises InputError without a representation.
        """
        if self.representation is None:
            raise InputError(
                "this predictor has no representation, so it knows features only; expected a file of embeddings"
            )
        options = BankOptions(views=self.views, precision="float32")
        rows = torch.arange(len(pictures))
        return self.predict_features(averaged_features(self.representation, pictures, rows, options))

    @torch.no_grad()
    def predict_features(self, query: Tensor) -> list[Ranking]:
        """The same for features [n, d]."""
        scores = self.class_scores(query) / self.temperature
        ranked = []
        for row, p in zip(scores, torch.softmax(scores.to(torch.float64), -1), strict=True):
            order = torch.argsort(row, descending=True, stable=True).tolist()
            ranked.append([(self.classes[k], float(p[k])) for k in order if row[k] > -torch.inf])
        return ranked

    @torch.no_grad()
    def class_scores(self, query: Tensor) -> Tensor:
        """The classifier's scores [n, classes] of features [n, d]; -inf for a class that is not in the shortlist."""
        support = replace(self.support, x=_on(self.support.x, query))
        if not self.shortlist:
            return self.classifier.scores(support, query)
        kept = self._shortlisted(query)
        found = query.new_full((len(query), len(self.classes)), -torch.inf)
        # Queries with the same shortlist are scored together.
        for mask, rows in _groups(kept):
            classes = mask.nonzero()[:, 0]
            number = torch.full((len(self.classes),), -1, dtype=torch.int64)
            number[classes] = torch.arange(len(classes))
            part = support.take(mask[self.support.y])
            scores = self.classifier.scores(replace(part, y=number[part.y]), query[rows])
            found[rows[:, None], classes] = scores
        return found

    def _shortlisted(self, query: Tensor) -> Tensor:
        """Which classes are scored, bool [n, classes]: those of the m superclasses with the nearest prototypes."""
        superclasses = self.superclasses or ()  # a shortlist comes with superclasses
        names = list(dict.fromkeys(superclasses))
        of_class = torch.tensor([names.index(name) for name in superclasses])
        coarse = replace(self.support, x=_on(self.support.x, query), y=of_class[self.support.y])
        best = Prototype().scores(coarse, query).topk(min(self.shortlist, len(names)), -1).indices.cpu()
        return (best[:, :, None] == of_class).any(1)


def make_predictor(
    bank: AnyBank,
    classifier: Classifier,
    representation: Representation | None = None,
    shortlist: int = 0,
    views: str = "none",
    pool: AnyBank | None = None,
    options: PoolOptions | None = None,
) -> Predictor:
    """A predictor with all rows of a bank as its support; pictures are embedded once, here.

    The rows of a `pool`, whatever their labels, join the support with the labels and weights of `with_pool`, which is
    given the `options`.

    Its temperature is fitted on held-out rows of the support (`calibrated_temperature`). With a `shortlist` the
    superclass of a class is the bank's column "superclass". Raises InputError where that is missing or differs within a
    class, for pictures without a representation, and for a pool with a classifier that counts no weights.
    """
    if pool is not None:
        if not capabilities(classifier).counts_weights:
            raise InputError(
                "a pool was given for a classifier that counts no weights; expected one that does, as logistic"
            )
        if representation is None and not isinstance(pool, FeatureBank):
            raise InputError(f"the pool {pool.origin!r} holds pictures, and the support features; expected features")
    superclasses = _superclasses(bank) if shortlist else None
    support = Examples(features_of(bank, representation, views), bank.y, weight=getattr(bank, "weight", None))
    temperature = calibrated_temperature(classifier, support)
    if pool is not None:
        support = with_pool(support, features_of(pool, representation, views), options)
    return Predictor(representation, classifier, support, tuple(bank.classes), superclasses, shortlist, views,
                     temperature, 0 if pool is None else len(pool))  # fmt: skip


@torch.no_grad()
def add_made(predictor: Predictor, bank: PictureBank, part: Synthesizer, count: int = 8, seed: int = 0) -> Predictor:
    """The predictor with `count` pictures of each class more, made by a method from the bank that its support is of.

    Row i of a class comes from its picture i modulo n. They are embedded as the support was, over the same views, and
    weigh what suits the classifier (`imagine.weighed`). The temperature stays: it is fitted on real rows. Raises
    InputError for a classifier that counts no weights, a method of features, and a predictor without a representation.
    """
    if not capabilities(predictor.classifier).counts_weights:
        raise InputError("pictures were made for a classifier that counts no weights; expected one that does")
    if predictor.representation is None or capabilities(part).space == "feature":
        raise InputError(
            f"{type(part).__name__} or the support is of features; expected pictures, and a method for them"
        )
    options, rows, known = BankOptions(views=predictor.views, precision="float32"), [], predictor.support
    real = Examples(torch.as_tensor(known.x)[: len(bank)], known.y[: len(bank)],
                    weight=None if known.weight is None else known.weight[: len(bank)])  # fmt: skip
    one_parent = capabilities(part).one_parent
    for label, name in enumerate(bank.classes):
        own = bank.rows_of(label)
        index = torch.arange(count)
        support = Examples(as_seen(predictor.representation, bank).examples(own).x,
                           torch.arange(len(own)) if one_parent else torch.zeros_like(own))  # fmt: skip
        want = index % len(own) if one_parent else torch.zeros_like(index)
        made = part.synthesize(support, want, chance.row_keys(seed, name, index))
        x = averaged_features(predictor.representation, made.x, torch.arange(len(made)), options)
        rows.append(Examples(x.to(torch.as_tensor(real.x)), torch.full((len(made),), label), weight=made.weight))
    family = capabilities(predictor.classifier).family
    joined = real + weighed(concatenate(rows), real, part, family)
    return replace(predictor, support=joined + known.take(torch.arange(len(bank), len(known))))


@torch.no_grad()
def calibrated_temperature(classifier: Classifier, support: Examples) -> float:
    """The temperature of a classifier's scores: fitted on rows of the support [n, d] that were held out, five folds.

    A fold holds out every fifth row of each class (each row of a class of five or fewer), and never the last row of a
    class. Few rows say little: the temperature is pulled towards PRIOR, which is all there is at one row a class.
    """
    x, y = torch.as_tensor(support.x), support.y
    place = torch.zeros_like(y)
    for k in y.unique():
        place[y == k] = torch.arange(int((y == k).sum()), device=y.device)
    alone = (y[:, None] == y).sum(1) == 1
    found, labels = [torch.zeros(0, int(y.max()) + 1)], [torch.zeros(0, dtype=torch.int64)]
    for fold in range(_FOLDS):
        out = (place % _FOLDS == fold) & ~alone
        if bool(out.any()):
            found.append(classifier.scores(support.take(~out), x[out]).float().cpu())
            labels.append(y[out].cpu())
    prior = PRIOR if isinstance(classifier, Logistic) else 1.0
    return fitted_temperature(torch.cat(found), torch.cat(labels), prior, PRIOR_ROWS)


def predict_rows(predictor: Predictor, path: str | Path) -> list[tuple[str, Ranking]]:
    """The name of each row of a file of embeddings, and its classes and their probabilities, best first.

    A row without a name is "FILE[3]". Raises InputError where the rows are not as long as those of the support.
    """
    rows = read_rows(path)
    support = torch.as_tensor(predictor.support.x)
    if rows.x.shape[1] != support.shape[1]:
        raise InputError(
            f"{str(path)!r} has rows of {rows.x.shape[1]} numbers, and the support has {support.shape[1]}; expected "
            "embeddings that the same network made"
        )
    names = rows.names or tuple(f"{Path(path).name}[{i}]" for i in range(len(rows.x)))
    ranked = predictor.predict_features(rows.x.to(support.dtype))
    return list(zip(names, ranked, strict=True))


def features_of(bank: AnyBank, representation: Representation | None, views: str = "none") -> Tensor:
    """All features [n, d] of a bank; pictures are embedded, the mean over their views.

    Raises InputError for pictures and no representation.
    """
    if isinstance(bank, FeatureBank):
        return bank.x
    if representation is None:
        raise InputError("the support holds pictures; expected a representation to embed them")
    return embed_bank(representation, bank, BankOptions(views=views, precision="float32")).x


def save_predictor(predictor: Predictor, folder: Path) -> None:
    """Save a predictor; its record is written last, so that a folder with one is whole.

    Raises InputError where the folder cannot be written, or a part is not of the catalog.
    """
    scorer = scorer_name(predictor.classifier)[0]
    record = {
        "augforge": __version__, "kind": "predictor", "classes": list(predictor.classes),
        "superclasses": None if predictor.superclasses is None else list(predictor.superclasses),
        "shortlist": predictor.shortlist, "representation": predictor.representation is not None,
        "views": predictor.views, "temperature": predictor.temperature, "pool": predictor.pool,
        "scorer": scorer,
    }  # fmt: skip
    support = predictor.support
    tensors = {"features": torch.as_tensor(support.x), "labels": support.y}
    if support.weight is not None:
        tensors["weight"] = support.weight
    save_part(predictor.classifier, folder / _CLASSIFIER, scorer)
    if predictor.representation is not None:
        save_part(predictor.representation, folder / _REPRESENTATION, "representation")
    try:
        write_file(folder / _SUPPORT, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
        write_file(folder / _RECORD, (json.dumps(record, indent=2) + "\n").encode())
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be written ({error.strerror})") from error


def load_predictor(folder: Path) -> Predictor:
    """The predictor that `save_predictor` left in a folder; raises InputError where there is none, or it is damaged."""
    try:
        record = parse_json(read_file(folder / _RECORD, MOST_JSON))
        classes, superclasses = _names(record["classes"]), record["superclasses"]
        superclasses = None if superclasses is None else _names(superclasses)
        shortlist, embeds = record["shortlist"], record["representation"]
        # Predictors of before had none of these.
        views, temperature, pool, scorer = (record.get(key, usual) for key, usual in _LATER.items())
        sound = (
            isinstance(shortlist, int)
            and isinstance(embeds, bool)
            and isinstance(views, str)
            and isinstance(pool, int)
            and pool >= 0
            and scorer in ("classifier", "synthesizer")
        )
        if not sound or isinstance(shortlist, bool) or not isinstance(temperature, float) or not temperature > 0:
            raise ValueError("its entries are of a wrong kind")
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} has no {_RECORD}; expected a folder that --save wrote") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder / _RECORD)!r} is damaged ({error})") from error
    support = _read_support(folder / _SUPPORT)
    classifier = load_part(folder / _CLASSIFIER, scorer)
    representation = load_part(folder / _REPRESENTATION, "representation") if embeds else None
    return Predictor(representation, classifier, support, classes, superclasses, shortlist, views, temperature, pool)


def scorer_name(classifier: Classifier) -> tuple[str, str]:
    """The kind and the name of what scores: a classifier, or a synthesizer with scores of its own."""
    entry = catalog.entry_of(classifier)
    return entry or ("classifier", catalog.describe(classifier, "classifier")["name"])


def is_predictor(folder: str | Path) -> bool:
    """Whether a folder holds a saved predictor."""
    return (Path(folder) / _RECORD).is_file()


def _read_support(path: Path) -> Examples:
    try:
        tensors = load(read_file(path))
        x, y, weight = tensors["features"], tensors["labels"], tensors.get("weight")
        sound = x.ndim == 2 and x.is_floating_point() and y.dtype == torch.int64 and y.shape == x.shape[:1]
        if not sound or bool((y < 0).any()) or not bool(torch.isfinite(x).all()):
            raise ValueError("its tensors are not as expected")
        return Examples(x, y, weight=weight)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a support set ({error})") from error


def _names(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError("its names are not a list of strings")
    return tuple(found)


def _groups(kept: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The different rows of a bool [n, classes], each with the places [m] where it is."""
    different, which = torch.unique(kept, dim=0, return_inverse=True)
    return [(mask, (which == i).nonzero()[:, 0]) for i, mask in enumerate(different)]


def _on(x: Tensor | list[Tensor], like: Tensor) -> Tensor:
    return torch.as_tensor(x).to(like.device)


def _superclasses(bank: AnyBank) -> tuple[str, ...]:
    """The superclass of every class, from the bank's column "superclass"."""
    if "superclass" not in bank.groups:
        raise InputError(f"a shortlist was asked for; {bank.origin!r} has no column 'superclass' to make it from")
    column = [str(name) for name in bank.groups["superclass"]]
    found: dict[int, str] = {}
    for y, name in zip(bank.y.tolist(), column, strict=True):
        if found.setdefault(y, name) != name:
            raise InputError(f"class {bank.classes[y]!r} has rows of the superclasses {found[y]!r} and {name!r}")
    return tuple(found.get(k, "") for k in range(len(bank.classes)))
