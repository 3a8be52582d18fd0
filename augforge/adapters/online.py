"""Made examples inside any training loop: batches of real rows go in, batches with made rows among them come out.

`Online` wraps whatever gives batches: a `DataLoader` over a map-style or an iterable dataset, a generator, or what
Lightning calls a train dataloader. Which rows are made, and what they are, is a pure function of the seed, of the
number of the step and, for pictures, of the batch. So a loop that goes on from `state_dict` continues as if it had
never stopped, and nothing depends on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from augforge import chance
from augforge.data.items import pair_of
from augforge.imagine import check_space, share_of
from augforge.networks.pixels import check_levels
from augforge.types import Examples, InputError, Synthesizer, capabilities, whole_seed

# Rows are made of a support in blocks, since a call has costs of its own: so many at first, twice as many each time,
# and at most so many bytes.
_FIRST_PICTURES, _FIRST_FEATURES, _MOST_BYTES = 64, 2048, 1 << 26


class Batch(NamedTuple):
    """A batch of n rows: x [n, ...], labels y [n] int64, and what each row should count in the loss, [n] float32."""

    x: Tensor
    y: Tensor
    weight: Tensor


def ramp(first: float, last: float, steps: int) -> Callable[[int], float]:
    """A schedule: step -> number, in a straight line from `first` at step 0 to `last` at `steps`, and `last` after it.

    Raises InputError for fewer than 1 step.
    """
    if steps < 1:
        raise InputError(f"steps={steps} was given; expected at least 1")
    return lambda step: first + (last - first) * min(1.0, step / steps)


@dataclass
class Online:
    """Batches [n, ...] of which a `share` is made: an iterable of `Batch` (x, y, weight).

    `batches` gives pairs (x, y) of tensors, or dictionaries with "image" and "label". Without a `support`, the
    synthesizer makes a row from one row (`Classical`): rows of the batch are replaced by what is made of them, and keep
    their labels. With a `support` (features, or pictures for a method that makes those), its classes take turns, and
    each made row takes the place of a random row of the batch. With `append` the made rows come behind the real ones
    instead, share x n of them.

    The `share` is a number or a function of the step, from 0 to 1, or any number above 0 with `append`; so is the
    `weight` of a made row (a real one has 1). Without a weight, pictures count as real ones, and rows of features as
    much as suits a network that is trained with cross-entropy: all that is made of a class weighs what `share_of` says
    in parts of its real rows, no row more than 1 (docs/imagine.md). Multiply the loss of each row by its weight:

        loss = (cross_entropy(net(batch.x), batch.y, reduction="none") * batch.weight).mean()

    Raises InputError for a method that fits neither form, and, in the loop, for a batch that is no pair, floats outside
    of [0, 1] in pictures, and a share or weight out of range; each names the step.
    """

    batches: Iterable[Any]
    synthesizer: Synthesizer
    share: float | Callable[[int], float] = 0.5
    weight: float | Callable[[int], float] | None = None
    _: KW_ONLY
    support: Examples | None = None
    append: bool = False
    seed: int = 0
    step: int = field(default=0, init=False)  # batches given so far, over all epochs
    made: int = field(default=0, init=False)  # rows made of the support so far

    def __post_init__(self) -> None:
        """Check what was given, as far as that goes without a batch."""
        self.seed = whole_seed(self.seed)
        says, name = capabilities(self.synthesizer), type(self.synthesizer).__name__
        if self.support is not None:
            check_space(self.synthesizer, self.support, name)
            self._classes = torch.unique(self.support.y)
            short = int(torch.bincount(self.support.y)[self._classes].min()) if len(self._classes) else 0
            if short < says.support_needed:
                raise InputError(
                    f"a class of the support has {short} rows; {name} needs at least {says.support_needed}"
                )
        elif not says.one_parent or says.support_needed != 1:
            raise InputError(f"{name} cannot make a row from a single row of a batch; give it a support=Examples(x, y) "
                             "to make rows of")  # fmt: skip
        self._block: tuple[int, Examples] | None = None  # the number of its first row, and rows made of the support

    def __len__(self) -> int:
        """How many batches an epoch has; raises TypeError where `batches` does not say."""
        if not isinstance(self.batches, Sized):
            raise TypeError(f"a {type(self.batches).__name__} has no length")
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch; steps are counted on from the last one."""
        for given in self.batches:
            x, y = pair_of(given, self.step)
            if not isinstance(x, Tensor) or not isinstance(y, Tensor) or len(x) != len(y):
                raise InputError(f"batch {self.step} is a pair of {type(x).__name__} and {type(y).__name__}; expected "
                                 "tensors x [n, ...] and y [n] of one length")  # fmt: skip
            share = self._at("share", self.share, math.inf if self.append else 1.0)
            count = round(share * len(x))
            weight = self._weight(share, y.device)
            batch = (
                self._from_batch(x, y, count, weight)
                if self.support is None
                else self._from_support(x, y, count, weight)
            )
            self.step += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the loop is, for a checkpoint."""
        return {"step": self.step, "made": self.made}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint: what is made next is what would have been."""
        self.step, self.made = int(state["step"]), int(state["made"])

    def _at(self, name: str, given: float | Callable[[int], float], most: float) -> float:
        value = float(given(self.step) if callable(given) else given)
        if not (0 <= value <= most and math.isfinite(value)):
            raise InputError(f"{name}={value} at step {self.step}; expected 0 to {most:g}")
        return value

    def _weight(self, share: float, device: torch.device) -> Tensor:
        """What a made row of each class of the support weighs, [way]; [1] without a support."""
        if self.weight is not None:
            return torch.full((1,), self._at("weight", self.weight, math.inf), device=device)
        if self.support is None or capabilities(self.synthesizer).space == "image":
            return torch.ones(1, device=device)
        counts = torch.bincount(self.support.y)
        made_for_each = share if self.append else share / max(1e-9, 1 - share)  # made rows to a real one
        together = share_of(self.synthesizer, "discriminative", counts).to(device)
        return (together / max(1e-9, made_for_each)).clamp(max=1)

    def _from_batch(self, x: Tensor, y: Tensor, count: int, weight: Tensor) -> Batch:
        """The batch with `count` made rows, each of a row of the batch."""
        check_space(self.synthesizer, Examples(x, y), type(self.synthesizer).__name__)
        if x.ndim > 2:
            check_levels(x, f"batch {self.step}, row {{}}")
        parents = self._places(len(x), count, x.device)
        rows = torch.arange(count, device=x.device)  # every parent is a class of its own
        keys = chance.row_keys(self.seed, f"step {self.step}", torch.arange(count, device=x.device))
        made = self.synthesizer.synthesize(Examples(x[parents], rows), rows, keys).x if count else x[:0]
        if isinstance(made, list):
            made = torch.stack(made)
        return _joined(
            Batch(x, y, weight[:1].expand(count)), made.to(x.dtype), y[parents], None if self.append else parents
        )

    def _from_support(self, x: Tensor, y: Tensor, count: int, weight: Tensor) -> Batch:
        """The batch with `count` rows that were made of the support, whose classes take turns."""
        parts = []
        left = count
        while left:
            start, block = self._made_block()
            some = slice(self.made - start, min(self.made - start + left, len(block)))
            parts.append(block.take(torch.arange(some.start, some.stop)))
            left -= some.stop - some.start
            self.made += some.stop - some.start
        rows = sum(parts[1:], parts[0]) if parts else Examples(x[:0], y[:0])
        if not isinstance(rows.x, Tensor) or rows.x.shape[1:] != x.shape[1:]:
            raise InputError(f"batch {self.step} has rows {list(x.shape[1:])}, and what is made of the support does "
                             "not; expected rows of one shape")  # fmt: skip
        made_y = rows.y.to(y)
        each = weight[made_y] if len(weight) > 1 else weight.expand(count)
        places = None if self.append else self._places(len(x), count, x.device)
        return _joined(Batch(x, y, each), rows.x.to(x), made_y, places)

    def _made_block(self) -> tuple[int, Examples]:
        """The block of made rows that holds row number `made`; row number r is number r // way of class r % way."""
        assert self.support is not None
        start, block = self._block or (self.made, self.support.take(torch.arange(0)))
        if not start <= self.made < start + len(block):
            first = _FIRST_FEATURES if self.support.x[0].ndim == 1 else _FIRST_PICTURES
            most = max(first, _MOST_BYTES // max(1, self.support.x[0].nbytes))
            number = torch.arange(self.made, self.made + min(most, max(first, 2 * len(block))))
            want = self._classes[number % len(self._classes)]
            keys = chance.pair_keys(self.seed, "online", number, len(self._classes))
            self._block = self.made, self.synthesizer.synthesize(self.support, want, keys)
        assert self._block is not None
        return self._block

    def _places(self, n: int, count: int, device: torch.device) -> Tensor:
        """`count` of the n rows of this step's batch, at random and each at most once; more than n begin anew."""
        lots = chance.uniform64(chance.row_keys(self.seed, f"rows {self.step}", torch.arange(n, device=device)))
        return lots.argsort(stable=True)[torch.arange(count, device=device) % n]


def _joined(real: Batch, made: Tensor, labels: Tensor, places: Tensor | None) -> Batch:
    """Real rows with made ones in some places, or behind them; `real.weight` is that of the made rows."""
    ones = torch.ones(len(real.y), device=real.y.device)
    if places is None:
        return Batch(torch.cat([real.x, made]), torch.cat([real.y, labels]), torch.cat([ones, real.weight]))
    return Batch(
        *(rows.index_copy(0, places, new) for rows, new in ((real.x, made), (real.y, labels), (ones, real.weight)))
    )
