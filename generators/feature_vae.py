"""A conditional VAE of features: Sohn, Lee & Yan, "Learning structured output representation using deep conditional
generative models", NeurIPS 2015, conditioned on another row of the class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from augforge import chance
from augforge.classifiers.base_statistics import base_rows, check_positive, check_range
from augforge.generators.shared.feature_learning import Perceptron, RowPairs, collapse_on, cpu_generator, typical_size
from augforge.generators.shared.support import checked_rows, choose_parents, like_support, not_fitted
from augforge.networks.products import in_tiles
from augforge.training.loop import Loop, Run, Stage, fast_arithmetic
from augforge.types import Bank, Examples, Space

_WHO = "feature-vae"
_LOG_EVERY = 50


@dataclass
class FeatureVae:
    """A conditional VAE of features, given a support row (after Sohn et al. 2015).

    An encoder gives the mean and the log variance of q(z | x, c) for a pair (x, c) of rows of one base class, a decoder
    the mean of p(x | z, c); the prior of z is N(0, I) for every c. The loss is the negative evidence lower bound
    (equation 4), with one variance of p for all features, which is always the one that fits best (Rybkin, Daniilidis
    & Levine, "Simple and effective VAE training with calibrated decoders", ICML 2021): d/2 log MSE + KL. So there is
    no weight to set between its terms. A made row is the decoder's mean for a support row c and z from the prior.

    Both networks have one hidden layer of leaky ReLUs. `history` holds losses and, last, the statistics of `collapse`.

    Differs from the paper: the prior does not depend on c, and c is a row of the class, not a picture to be labelled;
    features are divided by their root mean square.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = True
    one_class: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    code_width: int = 16  # numbers of z, >= 1
    width: int | None = None  # hidden units, >= 1; None: two for each feature
    steps: int = 800  # of Adam, >= 1
    rate: float = 1e-3  # learning rate of Adam, > 0, falling along a cosine
    batch: int = 256  # pairs in a step, >= 1
    noise_scale: float = 1.0  # multiplies z when rows are made, >= 0
    encoder_: Perceptron | None = field(default=None, init=False, repr=False)
    decoder_: Perceptron | None = field(default=None, init=False, repr=False)
    size_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "rate")
        check_range(self, "noise_scale", 0)
        for name in ("code_width", "steps", "batch"):
            check_range(self, name, 1)
        if self.width is not None:
            check_range(self, "width", 1)
        self.history: list[dict[str, Any]] = []

    def build(self, facts: dict[str, int]) -> None:
        """Make both networks without numbers, for rows of facts["features"] numbers."""
        self._build(facts, None)

    def _build(self, facts: dict[str, int], generator: torch.Generator | None) -> tuple[Perceptron, Perceptron]:
        self.facts_ = dict(facts)
        features = facts["features"]
        width = self.width or 2 * features
        self.encoder_ = Perceptron.started((2 * features, width, 2 * self.code_width), generator)
        self.decoder_ = Perceptron.started((self.code_width + features, width, features), generator)
        return self.encoder_, self.decoder_

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Train on pairs of base rows.

        Raises InputError for pictures, where no class has two rows, and for a loss that is not finite.
        """
        x = base_rows(base, _WHO).to(torch.float32)
        pairs, generator = RowPairs.of(base.y, _WHO), cpu_generator(rng)
        encoder, decoder = self._build({"features": x.shape[1]}, generator)
        self.size_ = typical_size(x)
        x_small = x / self.size_
        both = torch.nn.ModuleList([encoder, decoder]).to(x.device)
        stage = Stage(_WHO, self.steps, {}, clip=100.0)
        loop = Loop(both, torch.optim.Adam(both.parameters(), self.rate, fused=True), stage, Run(str(x.device)))
        self.history = []
        for step in loop:
            rows, others = pairs.draw(self.batch, generator)
            noise = torch.randn(self.batch, self.code_width, generator=generator).to(x.device)
            with torch.enable_grad():
                with fast_arithmetic(x.device):
                    target, condition = x_small[rows], x_small[others]
                    mean, log_variance = encoder(torch.cat([target, condition], 1)).float().chunk(2, 1)
                    z = mean + noise * torch.exp(log_variance / 2)
                    found = decoder(torch.cat([z, condition], 1))
                loss = negative_bound(target, found.float(), mean, log_variance)
                loop.step(loss)
            if step % _LOG_EVERY == 0:
                self.history.append({"step": step, "loss": float(loss.detach())})
        both.eval().zero_grad(set_to_none=True)
        self.history.append({"collapse": collapse_on(self, x, base.y)})
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Decode z ~ N(0, I) with a support row of each wanted class: features [n, d], with parents.

        Raises InputError before `fit`, and where a wanted class has no support row.
        """
        decoder, size, features = self._ready()
        x = checked_rows(support, features, _WHO)
        parent, size = choose_parents(support.y, want, chance.pair_of(keys)), size.to(x.device)
        z = self.noise_scale * chance.paired_noise(keys, "noise", (self.code_width,)).to(x.device)
        made = in_tiles(decoder.to(x.device), torch.cat([z, x[parent.to(x.device)] / size], 1)) * size
        return Examples(like_support(made, support), want, parent)

    def _ready(self) -> tuple[Perceptron, Tensor, int]:
        """The fitted decoder the size of features and how many there are."""
        if self.decoder_ is None or self.size_ is None or self.facts_ is None:
            raise not_fitted(_WHO)
        return self.decoder_, self.size_, self.facts_["features"]


def negative_bound(target: Tensor, found: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """d/2 log MSE + KL(N(mean, variance) || N(0, I)), the mean over rows, for x and its decoded mean [n, d]."""
    error = (target - found).square().mean().clamp(min=1e-8)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    return target.shape[1] / 2 * error.log() + divergence
