"""The meta-learned hallucinator: Wang, Girshick, Hebert & Hariharan, "Low-shot learning from imaginary data", 2018."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, base_statistics, check_positive, check_range
from augforge.classifiers.weighted import as_rows, like_query
from augforge.generators.shared.feature_learning import EpisodeSettings, collapse_on, cpu_generator, typical_size
from augforge.generators.shared.support import checked_rows, choose_parents, like_support, not_fitted, whole_numbers
from augforge.generators.wang_hallucinator.meta_training import MetaTraining, ThroughClassifier, classifier_through
from augforge.generators.wang_hallucinator.network import Hallucination, RowEmbedding
from augforge.networks.products import in_tiles
from augforge.types import Bank, Examples, InputError, Space

_WHO = "wang-hallucinator"


@dataclass
class WangHallucinator:
    """A network G(x, z), trained through a classifier to make rows that help it (Wang et al. 2018).

    G is `Hallucination`: three layers with ReLU, as wide as the features, that start as G(x, z) = relu(x). In each
    step of meta-training (section 4) every class of an episode of base classes is filled up to `fill` rows with
    G(x, z), z ~ N(0, I), and the cross-entropy of held-out base queries goes back through the classifier into G and
    the classifier's own layers. No loss asks for likeness. A made row has one parent, drawn from its class's support.

    The classifier sees real and made rows and queries through a learnt `embedding` of two layers, as in the paper. It
    is left, trained, in `embedding_` and `classifier_`; `scores` is both with made rows before them, which is the
    published system. The rows of `synthesize` lie among the features, before the embedding: any classifier reads them.

    With validation classes the best of 10 points of training is kept, by accuracy on 64 of their episodes for each
    number of shots; the start is no candidate, as it only makes copies. `history` holds losses, validation accuracies
    (percent) and, last, the statistics of `collapse`.

    Differs from the paper, which gives neither learning rate nor steps nor how many rows were made in training (a
    re-implementation took Adam(0.5, 0.999), 1e-5, 60,000 episodes and 10 rows): Adam(0.9, 0.999) with a rate that
    falls along a cosine, several episodes in a step, the rows of a class used in turn in training; through prototypes
    the temperature of the softmax is learnt, and features are divided by their root mean square in training, which is
    multiplied back into G. The hidden ReLUs stay where features are negative, so that G loses these at its start. The
    embedding starts as the identity (`RowEmbedding`), and stands before `matching` and `pmn` too.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = True
    one_class: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    through: Literal["prototype", "matching", "pmn"] = "prototype"  # classifier; the last two take long
    fill: int = 20  # rows of a class, real and made, in training, > every number of `shots`
    embedding: bool = True  # whether the classifier sees rows through two learnt layers
    steps: int = 400  # of Adam, >= 1
    rate: float = 3e-4  # learning rate of Adam, > 0, falling along a cosine
    way: int = 20  # classes of an episode in training, >= 2, or as many as have enough rows
    shots: str = "1,2,5"  # support rows of a class, numbers with commas, which the steps take in turn
    queries: int = 5  # of each class in training, >= 1
    episodes: int = 8  # in a step, >= 1
    noise_width: int | None = None  # length of z, >= 1; None: that of the features
    noise_scale: float = 1.0  # multiplies z when rows are made, >= 0; 0: a row is a fixed function of its parent
    final_relu: bool | None = None  # whether the last layer has a ReLU; None: where no base feature is negative
    net_: Hallucination | None = field(default=None, init=False, repr=False)
    embedding_: RowEmbedding | None = field(default=None, init=False, repr=False)
    context_: nn.Module | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "rate")
        check_range(self, "noise_scale", 0)
        check_range(self, "way", 2)
        for name in ("steps", "queries", "episodes"):
            check_range(self, name, 1)
        if self.noise_width is not None:
            check_range(self, "noise_width", 1)
        if self.fill <= max(whole_numbers(self, "shots")):
            raise InputError(f"fill={self.fill} was given; expected more rows than the most of shots={self.shots!r}")
        self.classifier_: Any = None
        self.history: list[dict[str, Any]] = []

    def build(self, facts: dict[str, int]) -> None:
        """Make G at its start, and the classifier with empty layers, for rows of facts["features"] numbers.

        facts["relus"] is 3 with the final ReLU and 2 without.
        """
        self._build(facts)

    def _build(self, facts: dict[str, int]) -> Hallucination:
        self.facts_ = dict(facts)
        self.net_ = Hallucination(facts["features"], self.noise_width, relus=3 if facts["relus"] == 3 else 2)
        self.embedding_ = RowEmbedding(facts["features"]) if self.embedding else None
        self.classifier_ = classifier_through(self.through)
        if self.through != "prototype":
            self.classifier_.build({"features": facts["features"]})
            self.context_ = self.classifier_.context_
        return self.net_

    def fit(self, base: Bank, rng: torch.Generator, val: Bank | None = None) -> Self:
        """Meta-train on episodes of base features, through the classifier; `val` are validation classes.

        Raises InputError for pictures, for classes too few or too small for an episode, and for a loss that is not
        finite.
        """
        x = base_rows(base, _WHO).to(torch.float32)
        final = bool((x >= 0).all()) if self.final_relu is None else self.final_relu
        net = self._build({"features": x.shape[1], "relus": 3 if final else 2})
        if self.through != "prototype":
            self.context_ = self.classifier_.fit(base, rng).context_
        episodes = EpisodeSettings(self.way, whole_numbers(self, "shots"), self.queries, self.episodes, self.fill)
        size, known = float(typical_size(x)), None if val is None else base_rows(val, _WHO).to(x)
        inner, temperature = size, 1.0
        if self.context_ is None:  # only classifiers with layers of their own need features in their own size
            inner, x, known = 1.0, x / size, None if known is None else known / size
            # for rows with this spread in every direction the softmax of prototypes is then Bayes' rule
            temperature = 2 * max(float(base_statistics(x, base.y, _WHO).within.diagonal().mean()), 1e-12)
        model = ThroughClassifier(net, self.context_, inner, temperature, self.embedding_)
        training = MetaTraining(model, self.classifier_, episodes, self.steps, self.rate, cpu_generator(rng))
        chosen_on = None if val is None or known is None else (known, val.y)
        self.history = training.run((x, base.y), chosen_on)
        net.rescale_(size)
        if self.embedding_ is not None and model.log_temperature is not None:
            # squared distances are then those over the temperature: softmax of `scores` is what was trained
            self.embedding_.rescale_(size, float(torch.exp(-model.log_temperature.detach() / 2)))
        self.history.append({"collapse": collapse_on(self, base_rows(base, _WHO), base.y)})
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """G(x, z) of a support row x for each wanted class: features [n, d], with parents; a pair of keys has x and -z.

        Raises InputError before `fit`, and where a wanted class has no support row.
        """
        net, features = self._ready()
        x = checked_rows(support, features, _WHO)
        net = net.to(x.device)
        parent = choose_parents(support.y, want, chance.pair_of(keys))
        used, place = torch.unique(parent, return_inverse=True)
        z = self.noise_scale * chance.paired_noise(keys, "noise", (net.noise.in_features,))
        first = in_tiles(net.first, x[used.to(x.device)])  # once for each parent
        made = in_tiles(partial(net.rest, turned=net.turned()), first[place.to(x.device)], z.to(x.device))
        return Examples(like_support(made, support), want, parent)

    def scores(self, support: Examples, query: Tensor) -> Tensor:
        """Scores [q, way] of queries [q, d], or [b, q, way] for b episodes, by the classifier it was trained through.

        Every class is filled up to `fill` rows, as in training: the rows made of each of its real rows have the same
        noise, in antithetic pairs, whatever the queries are, and weigh together what is missing. Raises InputError
        before `fit`, and for rows that do not go together.
        """
        net, features = self._ready()
        rows = as_rows(support, query)
        if rows.x.shape[-1] != features:
            raise InputError(f"{_WHO} was fitted on {features} features; these rows have {rows.x.shape[-1]}")
        net, x, asked = net.to(rows.x), rows.x, rows.query
        each = max(2, 2 * round(self.fill / (2 * float(rows.counts.max()))))  # rows made of a real one
        keys = chance.in_pairs(chance.row_keys(0, "own scores", torch.arange(each)).__getitem__, torch.arange(each))
        z = self.noise_scale * chance.paired_noise(keys, "noise", (net.noise.in_features,)).to(x)
        made = net.rest(net.first(x)[:, :, None], z)  # [b, n, each, d]
        missing = (self.fill - rows.counts).clamp(min=0) / rows.counts  # of a real row of each class: [b, way]
        weight = rows.weight * (rows.member * missing[:, None]).sum(2) / rows.weight.clamp(min=1e-12) / each
        y = rows.member.argmax(2)
        if self.embedding_ is not None:
            embed = self.embedding_.to(x)
            x, made, asked = embed(x), embed(made), embed(asked)
        x, y = torch.cat([x, made.flatten(1, 2)], 1), torch.cat([y, y.repeat_interleave(each, 1)], 1)
        weight = torch.cat([rows.weight, weight.repeat_interleave(each, 1)], 1)
        return like_query(self.classifier_.scores(Examples(x, y, weight=weight), asked), query)

    def _ready(self) -> tuple[Hallucination, int]:
        """The fitted network, and for how many features."""
        if self.net_ is None or self.facts_ is None:
            raise not_fitted(_WHO)
        return self.net_, self.facts_["features"]
