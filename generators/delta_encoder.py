"""The Delta-encoder: Schwartz, Karlinsky, Shtok, Harary, Marder, Kumar, Feris, Giryes & Bronstein, "Delta-encoder: an
effective sample synthesis method for few-shot object recognition", NeurIPS 2018.
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

_WHO = "delta-encoder"
_LOG_EVERY = 50


@dataclass
class DeltaEncoder:
    """What sets two rows of a base class apart, applied to a support row (Schwartz et al. 2018).

    An encoder makes a short code z of a pair (X, Y) of rows of one base class, and a decoder gives X back from z and
    Y (section 3). As z has few numbers, it can only hold the difference. Both have one hidden layer of leaky ReLUs
    with dropout; the loss is sum_i w_i |X_i - X^_i| with w_i = (X_i - X^_i)^2 / ||X - X^||^2,
    which presses on the features that fit worst. A made row is decoded from a support row and the code of a random
    base pair, of which `fit` keeps some. With a code of 16 numbers for 64 features z held the class itself, so that by
    default there is one number for each 32 features. `history` holds losses and, last, the statistics of `collapse`.

    Differs from the paper: a fixed number of steps, none of it chosen on anything (the published code takes the epoch
    that is best on the test classes); `rate` falls along a cosine from 3e-4 and not 1e-5 throughout; w is a constant
    for the derivative; features are divided by their root mean square. Dropout is on the hidden layers.
    """

    space: ClassVar[Space] = "feature"
    one_parent: ClassVar[bool] = True
    one_class: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    code_width: int | None = None  # numbers of a code, >= 1; None: one for each 32 features, from 2 to the paper's 16
    width: int | None = None  # hidden units, >= 1; None: 8 for each feature, but not over the paper's 8192
    dropout: float = 0.5  # share of hidden units left out in training, 0..0.99
    steps: int = 500  # of Adam, >= 1
    rate: float = 3e-4  # learning rate of Adam, > 0, falling along a cosine
    batch: int = 256  # pairs in a step, >= 1
    codes: int = 4096  # codes of base pairs that are kept, >= 1
    noise_scale: float = 1.0  # multiplies how far a code lies from the mean code, >= 0
    encoder_: Perceptron | None = field(default=None, init=False, repr=False)
    decoder_: Perceptron | None = field(default=None, init=False, repr=False)
    codes_: Tensor | None = field(default=None, init=False, repr=False)
    size_: Tensor | None = field(default=None, init=False, repr=False)
    facts_: dict[str, int] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise InputError for settings out of range."""
        check_positive(self, "rate")
        check_range(self, "noise_scale", 0)
        check_range(self, "dropout", 0, 0.99)
        for name in ("steps", "batch", "codes"):
            check_range(self, name, 1)
        for name in ("code_width", "width"):
            if getattr(self, name) is not None:
                check_range(self, name, 1)
        self.history: list[dict[str, Any]] = []

    def build(self, facts: dict[str, int]) -> None:
        """Make both networks without numbers, for rows of facts["features"] numbers."""
        self._build(facts, None)

    def _build(self, facts: dict[str, int], generator: torch.Generator | None) -> tuple[Perceptron, Perceptron]:
        self.facts_ = dict(facts)
        features = facts["features"]
        width, code = self.width or min(8192, 8 * features), self.code_width or min(16, max(2, features // 32))
        self.encoder_ = Perceptron.started((2 * features, width, code), generator, self.dropout)
        self.decoder_ = Perceptron.started((code + features, width, features), generator, self.dropout)
        return self.encoder_, self.decoder_

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Train on pairs of base rows, and keep codes of some.

        Raises InputError for pictures, where no class has two rows, and for a loss that is not finite.
        """
        x = base_rows(base, _WHO).to(torch.float32)
        pairs, generator = RowPairs.of(base.y, _WHO), cpu_generator(rng)
        encoder, decoder = self._build({"features": x.shape[1]}, generator)
        self.size_ = typical_size(x)
        x_small = x / self.size_
        both = torch.nn.ModuleList([encoder, decoder]).to(x.device)
        stage = Stage(_WHO, self.steps, {})
        loop = Loop(both, torch.optim.Adam(both.parameters(), self.rate, fused=True), stage, Run(str(x.device)))
        self.history = []
        for step in loop:
            rows, others = pairs.draw(self.batch, generator)
            with torch.enable_grad():
                with fast_arithmetic(x.device):
                    target, anchor = x_small[rows], x_small[others]
                    code = encoder(torch.cat([target, anchor], 1), generator)
                    found = decoder(torch.cat([code, anchor], 1), generator)
                loss = weighted_error(target, found.float())
                loop.step(loss)
            if step % _LOG_EVERY == 0:
                self.history.append({"step": step, "loss": float(loss.detach())})
        both.eval().zero_grad(set_to_none=True)
        rows, others = pairs.draw(self.codes, generator)
        with torch.no_grad():
            self.codes_ = in_tiles(encoder, torch.cat([x_small[rows], x_small[others]], 1))
        self.history.append({"collapse": collapse_on(self, x, base.y)})
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Decode a support row of each wanted class with the code of a random base pair: features [n, d].

        Raises InputError before `fit`, and where a wanted class has no support row.
        """
        decoder, codes, size, features = self._ready()
        x = checked_rows(support, features, _WHO)
        parent = choose_parents(support.y, want, keys)
        picked = chance.choice(chance.fork(keys, "code"), len(codes)).to(x.device)
        codes, size = codes.to(x.device), size.to(x.device)
        middle = codes.mean(0)
        code = middle + self.noise_scale * (codes[picked] - middle)
        made = in_tiles(decoder.to(x.device), torch.cat([code, x[parent.to(x.device)] / size], 1)) * size
        return Examples(like_support(made, support), want, parent)

    def _ready(self) -> tuple[Perceptron, Tensor, Tensor, int]:
        """The fitted decoder, the codes, the size of features and how many there are."""
        if self.decoder_ is None or self.codes_ is None or self.size_ is None or self.facts_ is None:
            raise not_fitted(_WHO)
        return self.decoder_, self.codes_, self.size_, self.facts_["features"]


def weighted_error(target: Tensor, found: Tensor) -> Tensor:
    """The mean over rows [n, d] of sum_i w_i |X_i - X^_i|, w_i = (X_i - X^_i)^2 / ||X - X^||^2 (section 3.1)."""
    error = (target - found).abs()
    squares = error.detach().square()
    weight = squares / squares.sum(1, keepdim=True).clamp(min=1e-12)
    return (weight * error).sum(1).mean()
