"""A conditional GAN of features: Li, Zhang, Li & Fu, "Adversarial feature hallucination networks for few-shot
learning", CVPR 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, check_positive, check_range
from augforge.generators.shared.feature_learning import (
    EpisodeSettings,
    Perceptron,
    collapse_on,
    cpu_generator,
    typical_size,
)
from augforge.generators.shared.support import checked_rows, choose_parents, like_support, not_fitted, whole_numbers
from augforge.networks.products import in_tiles
from augforge.types import Bank, Examples, InputError, Space

_WHO = "feature-gan"
_LOG_EVERY = 50
_FAKES = 2  # z_1 and z_2 of the paper, for each class


@dataclass
class FeatureGan:
    """A conditional GAN of features, round the mean of a class's support (AFHN, Li et al. 2020).

    The generator G(s, z) sees the mean s and noise z ~ N(0, I), the critic D(x, s) a real or fake row x. In each step
    two fakes are made for each class of `episodes` episodes. The critic goes down the Wasserstein loss with gradient
    penalty, E D(fake, s) - E D(real, s) + `penalty` E (||grad_x D|| - 1)^2, and this `critic_steps` times for each
    step of the generator, which goes down -E D(fake, s), plus `classify` times the cross-entropy of base queries
    under a softmax of cosines to the fakes, plus `spread` times 1 / E[(1 - cos(fake_1, fake_2)) / (1 - cos(z_1, z_2))],
    so that different z make different rows. Both networks have one hidden layer of leaky ReLUs; the generator's last
    layer is linear, as behind a ReLU whole features died. `history` holds losses and, last, the statistics of
    `collapse`.

    Differs from the paper: the softmax of cosines has a temperature (`scale`), without which it is nearly flat; the
    weights of the two regularisers, rate and steps are ours (with 1 for `spread` rows lay 2.7 times as far apart as
    real ones); z is as long as the features; real rows are the queries of an episode; features are divided by their
    root mean square.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = False
    one_class: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    width: int | None = None  # hidden units, >= 1; None: two for each feature, at least 256
    steps: int = 400  # of the generator, >= 1
    critic_steps: int = 5  # of the critic for each step of the generator, >= 1
    rate: float = 1e-3  # learning rate of Adam, > 0
    penalty: float = 10.0  # weight of the gradient penalty, >= 0
    classify: float = 1.0  # weight of the cross-entropy of base queries, >= 0
    spread: float = 0.01  # weight of the term that keeps rows of different z apart, >= 0
    scale: float = 10.0  # what cosines are multiplied by in the cross-entropy, > 0
    way: int = 20  # classes of an episode in training, >= 2, or as many as have enough rows
    shots: str = "1,2,5"  # support rows of a class, numbers with commas, which the steps take in turn
    episodes: int = 4  # in a step, >= 1
    noise_scale: float = 1.0  # multiplies z when rows are made, >= 0
    generator_: Perceptron | None = field(default=None, init=False, repr=False)
    size_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        for name in ("rate", "scale"):
            check_positive(self, name)
        for name in ("penalty", "classify", "spread", "noise_scale"):
            check_range(self, name, 0)
        check_range(self, "way", 2)
        for name in ("steps", "critic_steps", "episodes"):
            check_range(self, name, 1)
        if self.width is not None:
            check_range(self, "width", 1)
        whole_numbers(self, "shots")
        self.history: list[dict[str, Any]] = []

    def build(self, facts: dict[str, int]) -> None:
        """Make the generator without numbers, for rows of facts["features"] numbers."""
        self._build(facts, None)

    def _build(self, facts: dict[str, int], rng: torch.Generator | None) -> tuple[Perceptron, int]:
        """Make the generator; returns it and the width of hidden layers."""
        self.facts_ = dict(facts)
        features = facts["features"]
        width = self.width or max(256, 2 * features)
        self.generator_ = Perceptron.started((2 * features, width, features), rng)
        return self.generator_, width

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Train the generator against its critic on episodes of base features.

        Raises InputError for pictures, for classes too few or too small for an episode, and for a loss that is not
        finite.
        """
        x = base_rows(base, _WHO).to(torch.float32)
        chooser = cpu_generator(rng)
        generator, width = self._build({"features": x.shape[1]}, chooser)
        generator = generator.to(x.device)
        critic = Perceptron.started((2 * x.shape[1], width, 1), chooser).to(x.device)
        self.size_ = typical_size(x)
        x_small = x / self.size_
        of_generator, of_critic = (
            torch.optim.Adam(net.parameters(), self.rate, (0.5, 0.9), fused=True) for net in (generator, critic)
        )
        settings = EpisodeSettings(self.way, whole_numbers(self, "shots"), _FAKES, self.episodes, 0).within(base.y)
        batches = settings.batches(base.y, chooser.initial_seed())
        self.history = []
        for step in range(self.steps * (self.critic_steps + 1)):
            support, query = (x_small[rows] for rows in next(batches))
            means = support.mean(2, keepdim=True).expand_as(query)  # [b, way, 2, d]
            z = torch.randn(query.shape, generator=chooser).to(x.device)
            turn, place = divmod(step, self.critic_steps + 1)
            on_critic = place < self.critic_steps
            optimiser = of_critic if on_critic else of_generator
            with torch.set_grad_enabled(not on_critic):
                fake = generator(torch.cat([means, z], -1))
            with torch.enable_grad():
                if on_critic:
                    part = torch.rand(*query.shape[:3], 1, generator=chooser).to(x.device)
                    loss = critic_loss(critic, query, fake, means, part, self.penalty)
                else:
                    loss = self._generator_loss(critic, query, fake, means, z)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
            optimiser.step()
            if not on_critic and (turn % _LOG_EVERY == 0 or turn == self.steps - 1 or x.device.type == "cpu"):
                now = float(loss.detach())  # each look waits for a device, where a NaN stays one until the next look
                if not math.isfinite(now):
                    raise InputError(f"the loss became {now} at step {turn}; expected a smaller rate")
                if turn % _LOG_EVERY == 0:
                    self.history.append({"step": turn, "loss": now})
        generator.zero_grad(set_to_none=True)
        self.history.append({"collapse": collapse_on(self, x, base.y)})
        return self

    def _generator_loss(self, critic: Perceptron, query: Tensor, fake: Tensor, means: Tensor, z: Tensor) -> Tensor:
        """Of fakes [b, way, 2, d] for queries [b, way, 2, d]."""
        way = fake.shape[1]
        adversarial = -critic(torch.cat([fake, means], -1)).mean()
        directions = F.normalize(fake, dim=-1).transpose(1, 2)  # [b, 2, way, d]: each fake in turn is the prototype
        queries = F.normalize(query, dim=-1).flatten(1, 2)[:, None]  # [b, 1, way * 2, d]
        logits = self.scale * queries @ directions.mT  # [b, 2, way * 2, way]
        target = torch.arange(way, device=fake.device).repeat_interleave(_FAKES).repeat(_FAKES * len(fake))
        loss = adversarial + self.classify * F.cross_entropy(logits.flatten(0, 2), target)
        return loss + self.spread / diversity(fake, z).clamp(min=1e-3)

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """G(s, z) of the mean s of each wanted class's support: features [n, d], without parents (-1).

        Raises InputError before `fit`, and where a wanted class has no support row.
        """
        generator, size, features = self._ready()
        x = checked_rows(support, features, _WHO)
        choose_parents(support.y, want, keys)  # refuses classes without support
        size, y = size.to(x.device), support.y.to(x.device)
        classes = int(y.max()) + 1 if len(y) else 0
        sums = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device).index_add(0, y, x.double())
        means = (sums / torch.bincount(y, minlength=classes).clamp(min=1)[:, None]).float()
        z = self.noise_scale * chance.paired_noise(keys, "noise", (x.shape[1],)).to(x.device)
        made = in_tiles(generator.to(x.device), torch.cat([means[want.to(x.device)] / size, z], 1)) * size
        return Examples(like_support(made, support), want, torch.full_like(want, -1))

    def _ready(self) -> tuple[Perceptron, Tensor, int]:
        """The fitted generator the size of features and how many there are."""
        if self.generator_ is None or self.size_ is None or self.facts_ is None:
            raise not_fitted(_WHO)
        return self.generator_, self.size_, self.facts_["features"]


def critic_loss(
    critic: torch.nn.Module, real: Tensor, fake: Tensor, means: Tensor, part: Tensor, penalty: float
) -> Tensor:
    """WGAN-GP (Gulrajani et al., NeurIPS 2017, equation 3) of rows [..., d], conditioned on `means` [..., d].

    The gradient is taken at `part` [..., 1] of the way from a fake row to a real one.
    """
    between = (part * real + (1 - part) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(torch.cat([between, means], -1)).sum(), between, create_graph=True)
    gradient_penalty = (torch.linalg.vector_norm(gradient, dim=-1) - 1).square().mean()
    scores = critic(torch.cat([torch.stack([fake, real]), torch.stack([means, means])], -1))  # [2, ..., 1]
    return scores[0].mean() - scores[1].mean() + penalty * gradient_penalty


def diversity(fake: Tensor, z: Tensor) -> Tensor:
    """E[(1 - cos(fake_1, fake_2)) / (1 - cos(z_1, z_2))] of pairs [..., 2, d]: 0 where z makes no difference."""
    unlike = [1 - F.cosine_similarity(pair[..., 0, :], pair[..., 1, :], dim=-1) for pair in (fake, z)]
    return (unlike[0] / unlike[1].clamp(min=1e-3)).mean()
