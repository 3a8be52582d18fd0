"""Meta-training of a hallucinator through a classifier, several episodes in one step (Wang et al., CVPR 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge.classifiers.matching import Matching
from augforge.classifiers.pmn import PrototypeMatching
from augforge.classifiers.prototype import Prototype
from augforge.generators.shared.feature_learning import EpisodeSettings
from augforge.generators.wang_hallucinator.network import Hallucination, RowEmbedding
from augforge.training.loop import Loop, Run, Stage, fast_arithmetic
from augforge.types import Classifier, Examples

_VAL_EPISODES, _VALIDATIONS, _LOG_EVERY = 64, 10, 50


def classifier_through(through: str) -> Prototype | Matching | PrototypeMatching:
    """The classifier that "prototype", "matching" or "pmn" names; the latter two with full contexts.

    Their own `fit` takes one short step, which starts their layers.
    """
    if through == "prototype":
        return Prototype()
    if through == "matching":
        return Matching(full_context=True, train_steps=1, train_way=2, train_shot=1)
    return PrototypeMatching(full_context=True, train_steps=1, train_way=2, train_shot=1)


class ThroughClassifier(nn.Module):
    """The model in training: the hallucinator, and the layers of the classifier that it is trained through.

    `embedding` is what the classifier sees real and made rows and queries through, None for the rows themselves.
    `context` are the classifier's own layers. Where it has none, its scores are distances, and a temperature is
    learnt in their place, which starts at `temperature`. `size` is what features are divided by for the network alone,
    and made rows multiplied by.
    """

    def __init__(
        self,
        net: Hallucination,
        context: nn.Module | None,
        size: float,
        temperature: float,
        embedding: RowEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.net, self.context, self.size, self.embedding = net, context, size, embedding
        self.log_temperature = None if context is not None else nn.Parameter(torch.tensor(math.log(temperature)))

    def scores(self, classifier: Classifier, support: Tensor, query: Tensor, z: Tensor) -> Tensor:
        """Logits [b, q, way] of queries [b, q, d] in b episodes at once.

        `support` [b, way, shot, d] is enlarged by G(x, z) for noise [b, way, made, noise]; made row i of a class
        comes from its support row i mod shot, so that all are used alike.
        """
        b, way, shot, _ = support.shape
        with fast_arithmetic(support.device):
            seeds = support if self.size == 1 else support / self.size
            first = self.net.first(seeds)  # once for each seed: [b, way, shot, width]
            if shot > 1:
                first = first[:, :, torch.arange(z.shape[2], device=z.device) % shot]
            made, size = self.net.rest(first, z), self.size
            if self.embedding is not None:
                made, size = made if size == 1 else made * size, 1.0
                support, query, made = (self.embedding(rows) for rows in (support, query, made))
        rows, weight = self._enlarged(classifier, support.float(), made, size)
        labels = torch.arange(way, device=rows.device).repeat_interleave(rows.shape[2]).expand(b, -1)
        found = classifier.scores(Examples(rows.flatten(1, 2), labels, weight=weight), query.float())
        return found if self.log_temperature is None else found * torch.exp(-self.log_temperature)

    def _enlarged(
        self, classifier: Classifier, support: Tensor, made: Tensor, size: float
    ) -> tuple[Tensor, Tensor | None]:
        """All rows [b, way, n, d] in float32, as the support is, and their weights [b, way * n].

        Made rows are multiplied by `size`. Prototypes ask only for means: there the mean of made rows, weighted by
        their number, stands for all of them.
        """
        if not isinstance(classifier, Prototype):
            return torch.cat([support, made if size == 1 else made.float() * size], 2), None
        (b, way, shot, _), count = support.shape, made.shape[2]
        mean = made.float().sum(2, keepdim=True) * (size / count)
        weight = torch.tensor([1.0] * shot + [float(count)], device=support.device)
        return torch.cat([support, mean], 2), weight.repeat(way).expand(b, -1)

    def loss(self, classifier: Classifier, support: Tensor, query: Tensor, z: Tensor) -> Tensor:
        """The mean cross-entropy of queries [b, way, n_query, d], which lie class by class."""
        b, way, n_query, _ = query.shape
        found = self.scores(classifier, support, query.flatten(1, 2), z)  # [b, way * n_query, way]
        target = torch.arange(way, device=found.device).repeat_interleave(n_query).repeat(b)
        return F.cross_entropy(found.flatten(0, 1), target)


@dataclass
class MetaTraining:
    """Trains a model through a classifier."""

    model: ThroughClassifier
    classifier: Classifier
    episodes: EpisodeSettings
    steps: int  # of Adam
    rate: float  # its learning rate at the start
    generator: torch.Generator  # on the CPU, as CPU and CUDA generators draw other numbers

    def run(self, base: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor] | None) -> list[dict[str, Any]]:
        """Train in place on rows and labels ([n, d], [n]) of base classes; returns the history.

        With rows and labels of validation classes the best of 10 points of training is kept; the accuracy of the
        start, which makes copies, is in the history too, but the start is never kept. Raises InputError where classes
        are too few or too small for an episode, and where the loss is not finite.
        """
        (x, y), model, settings = base, self.model.to(base[0].device), self.episodes.within(base[1])
        history: list[dict[str, Any]] = []
        stage = Stage("meta-training", self.steps, {}, clip=5.0, evaluations=_VALIDATIONS)
        optimiser = torch.optim.Adam(model.parameters(), self.rate, fused=True)
        loop = Loop(model, optimiser, stage, Run(str(x.device)))
        if val is not None:
            accuracy = self._validation(*val)
            history.append({"step": 0, "val_accuracy": accuracy()})

            def validate(_: nn.Module) -> float:
                history.append({"step": loop.done, "val_accuracy": accuracy()})
                return history[-1]["val_accuracy"]

            stage.evaluate = validate
        seed = int(torch.randint(1 << 62, (1,), generator=self.generator))
        for step, (support, query) in zip(loop, settings.batches(y, seed), strict=False):
            z = settings.noise(support.shape[2], model.net.noise.in_features, self.generator)
            with torch.enable_grad():
                loss = model.loss(self.classifier, x[support], x[query], z.to(x.device))
                loop.step(loss)
            if step % _LOG_EVERY == 0:
                history.append({"step": step, "loss": float(loss.detach())})
        loop.result()
        optimiser.zero_grad(set_to_none=True)
        return history

    def _validation(self, x: Tensor, y: Tensor) -> Callable[[], float]:
        """The mean accuracy, in percent, on fixed episodes of validation rows with fixed noise."""
        settings = self.episodes.within(y)
        support, query = settings.draw(y, _VAL_EPISODES, int(torch.randint(1 << 62, (1,), generator=self.generator)))
        width = self.model.net.noise.in_features
        most = replace(settings, episodes=_VAL_EPISODES).noise(0, width, self.generator)  # [episodes, way, fill, width]
        target = torch.arange(settings.way).repeat_interleave(settings.queries).to(x.device)

        @torch.no_grad()
        def accuracy() -> float:
            right = []
            for shot in settings.shots:
                parts = zip(*(part.split(settings.episodes) for part in (support, query, most)), strict=True)
                for s, q, z in parts:
                    given, noise = x[s[:, :, :shot]], z[:, :, : settings.fill - shot].to(x.device)
                    found = self.model.scores(self.classifier, given, x[q].flatten(1, 2), noise)
                    right.append((found.argmax(-1) == target).double().mean())
            return 100 * float(torch.stack(right).mean())

        return accuracy
