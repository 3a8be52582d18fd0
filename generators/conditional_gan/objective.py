"""The objective of `conditional_gan`: pictures of classes drawn with equal chance, and generated ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augforge import chance
from augforge.generators.conditional_gan.networks import (
    Discriminator,
    Generator,
    SupportDiscriminator,
    SupportGenerator,
)
from augforge.generators.shared.gan.batches import (
    Symmetry,
    draw_shots,
    pictures,
    rows_of_classes,
    some_pictures,
    split_classes,
    spread,
    symmetric,
)
from augforge.generators.shared.gan.diff_augment import NUMBERS, diff_augment
from augforge.generators.shared.gan.objective import Batch, Generated, squared_gradient
from augforge.generators.shared.gan.validation import collapse, evaluate_pictures, standardised
from augforge.metrics.by_class import by_class
from augforge.metrics.kid import kid
from augforge.networks.pixels import Pixels, class_table
from augforge.training.loop import Evaluation

_PER_SUPPORT = 2  # pictures made of a support, and real ones beside them, in a step
_EVALUATED_CLASSES, _EVALUATED_ROWS = 64, 8  # as many rows are generated of each class
_SCORED = (200, 4)  # classes, and pictures of each, that are scored after training
_HELD_OUT = 0.1  # of the rows of each class, or of the classes
_FEWEST_ROWS = 4  # rows of a class of which none is held out
_FEWEST_EVALUATED = 8  # held-out rows with which an evaluation says little
_FEWEST_CLASSES = 5  # classes of which none is held out
_FOLLOW = 0.1  # how far the middle of codes moves in a step
_SHEET = (8, 8)  # classes, and pictures of each


@dataclass(frozen=True)
class Validation:
    """Some real pictures `x` [n, c, h, w] with their classes `y` [n], and places `place` [n] among q conditions.

    `condition` is classes [q] or supports [q, shots, c, h, w], of the classes `classes` [q].
    """

    x: Tensor
    y: Tensor
    place: Tensor
    condition: Tensor
    classes: Tensor


@dataclass
class ConditionalObjective:
    """The discriminator tells real pictures of a class, or of a support's class, from generated ones."""

    generator: Generator
    discriminator: torch.nn.Module  # what of `whole` learns
    whole: Discriminator
    data: Pixels  # trained on
    held_out: Pixels  # evaluated on: other pictures of the same classes, or with supports other classes
    batch: int  # generated pictures in a step, and real ones beside them
    shots: tuple[int, ...]  # pictures of a support, in turn by chance (none: by class, one picture of each)
    symmetry: Symmetry
    policy: tuple[str, ...]  # of DiffAugment
    noise: int  # length of z
    warmup: float = 0.0  # share of the training in which the condition fades in
    standardises: bool = False  # whether the statistics of supports' codes follow the training

    @property
    def drawn(self) -> int:
        """How many classes are drawn in a step."""
        return self.batch // _PER_SUPPORT if self.shots else self.batch

    def draw(self, rng: torch.Generator, fraction: float) -> Batch:
        """Real pictures [p, k, c, h, w], noise [p, k, noise], chance, and the condition of each p."""
        place: dict[str, Any] = {"generator": rng, "device": self.data.x.device}
        count = self.data.classes
        classes = torch.randint(count, (self.drawn,), **place)
        shots = draw_shots(self.shots, rng) if self.shots else 0
        if shots:
            rows = rows_of_classes(self.data, classes, shots + _PER_SUPPORT, rng)
        else:
            rows = self._any_rows(classes, torch.rand(self.drawn, **place))
        x = symmetric(pictures(self.data, rows), self.symmetry, torch.rand(self.drawn, 3, **place))
        k = x.shape[1] - shots
        shown = min(1.0, fraction / self.warmup) if self.warmup > 0 else 1.0
        batch = {
            "real": x[:, shots:],
            "z": torch.randn(self.drawn, k, self.noise, **place),
            "u": torch.rand(self.drawn, k, NUMBERS, **place),
            "shown": torch.full((self.drawn, 1), shown, device=self.data.x.device),
        }
        if shots:
            batch |= {"condition": x[:, :shots], "v": torch.rand(self.drawn, shots, NUMBERS, **place)}
            if self.standardises:
                follow_((self.generator, self.whole), x[:, :shots].flatten(0, 1), _FOLLOW)
        else:
            batch["condition"] = classes
        if count > 1:
            others = (classes + 1 + torch.randint(count - 1, (self.drawn,), **place)) % count
            batch["other"] = pictures(self.data, self._any_rows(others, torch.rand(self.drawn, **place)))
        return batch

    def _any_rows(self, classes: Tensor, u: Tensor) -> Tensor:
        """One row [p, 1] of each class [p], by uniform numbers u [p]."""
        return self.data.table[classes, (u.double() * self.data.counts[classes]).long()][:, None]

    def generate(self, batch: Batch) -> Generated:
        """Pictures [p, k, c, h, w] of each condition."""
        code = self.generator.codes(batch["condition"]) * batch["shown"]
        return (pictures_of(self.generator, code, batch["z"]),)

    def scores(self, batch: Batch, generated: Generated) -> tuple[Tensor, Tensor]:
        """Of real and generated pictures [p, k]; a real one of another class counts with the generated ones.

        So the discriminator learns soon to look at the condition (Reed et al., "Generative adversarial text to image
        synthesis", ICML 2016, algorithm 1).
        """
        real, fake = self._scored(batch, torch.cat([batch["real"], generated[0]]), 2).chunk(2)
        if "other" not in batch:
            return real, fake
        x = self._augmented(batch["other"], batch["u"][:, :1])
        other = self.whole.alone(x, self._codes(batch))
        # While the condition is hidden another class cannot be seen: a score of -1 adds nothing to the hinge loss.
        return real, torch.cat([fake, torch.lerp(torch.full_like(other, -1), other, batch["shown"].to(other.dtype))], 1)

    def generator_loss(self, batch: Batch, generated: Generated) -> Tensor:
        """Minus the mean score of what is generated (Miyato et al., ICLR 2018, equation 17)."""
        return -self._scored(batch, generated[0], 1).mean()

    def gradient_penalty(self, batch: Batch) -> Tensor:
        """The mean squared gradient at real pictures."""
        x = batch["real"].detach().requires_grad_()
        return squared_gradient(self._scored(batch, x, 1), x)

    def _scored(self, batch: Batch, x: Tensor, times: int) -> Tensor:
        """Scores [times * p, k] of x [times * p, k, c, h, w], through the augmentation; supports are augmented too."""
        code = self._codes(batch).repeat(times, 1)
        scores: Tensor = self.whole(self._augmented(x, batch["u"].repeat(times, 1, 1)), code)
        return scores

    def _codes(self, batch: Batch) -> Tensor:
        condition = batch["condition"]
        if "v" in batch:
            condition = self._augmented(condition, batch["v"])
        return self.whole.codes(condition) * batch["shown"]

    def _augmented(self, x: Tensor, u: Tensor) -> Tensor:
        return diff_augment(x.flatten(0, 1), self.policy, u.flatten(0, 1)).unflatten(0, x.shape[:2])

    def evaluate(self) -> Evaluation:
        """On pictures that are not trained on (or are, where there are too few to hold any out).

        The score is minus the kernel distance within classes, their mean, where classes have two pictures or more: over
        all classes together a generator that ignores the class would do as well.
        """
        self.standardise_(self.generator)
        real = self.validation(self.held_out)
        made = pictures_of(self.generator, self.generator.codes(real.condition), self._latents(len(real.classes)))
        y = real.classes.repeat_interleave(made.shape[1])
        trained = self.validation(self.data)
        code = self.whole.codes(real.condition)
        scores = (self.scores_of(trained), self.scores_of(real), self.whole.alone(made, code).flatten())
        train = some_pictures(self.data)
        found = evaluate_pictures((made.flatten(0, 1), y), (real.x, real.y), train, scores)
        facts, alarms, score = dict(found.facts), list(found.alarms), found.score  # NaN where there is one picture
        seen = standardised(real.x, real.x, made.flatten(0, 1), trained.x)
        sets = [(seen[0], real.y), (seen[1], y)]
        if "diversity" not in facts and not self.shots:  # too few are held out: training rows say how far apart
            spread_facts, more = collapse((seen[2], trained.y), sets[1])
            facts, alarms = facts | spread_facts, alarms + more
        within = list(by_class(kid, sets).values.values())
        if within:
            facts["kernel_distance_within"] = sum(within) / len(within)
            score = -facts["kernel_distance_within"]
        return Evaluation(score, facts, alarms)

    def standardise_(self, *nets: Generator | Discriminator) -> None:
        """Standardise the codes of supports by the statistics of training pictures."""
        if self.standardises:
            follow_(nets, some_pictures(self.data), 1.0)

    def sheet(self) -> Tensor:
        """Rows of a held-out picture, or the first of a support, and seven pictures generated of its class."""
        real = self.validation(self.held_out, _SHEET[0])
        code = self.generator.codes(real.condition)
        first = real.condition[:, 0] if self.shots else pictures(self.held_out, self.held_out.table[real.classes, :1])
        made = pictures_of(self.generator, code, self._latents(len(code))[:, : _SHEET[1] - 1])
        return torch.cat([first.view_as(made[:, :1]), made], 1)

    def scores_of(self, real: Validation) -> Tensor:
        """The discriminator's scores [n] of real pictures, each by itself."""
        scores: Tensor = self.whole.alone(real.x[:, None], self.whole.codes(real.condition)[real.place])
        return scores[:, 0]

    def validation(self, data: Pixels, classes: int = _EVALUATED_CLASSES, rows: int = _EVALUATED_ROWS) -> Validation:
        """Up to `rows` pictures each of up to `classes` classes; a support has the least of the shots.

        Where every class has one picture, that is its support too.
        """
        shots = min(min(self.shots, default=0), int(data.counts.max()) - 1)
        enough = (data.counts > shots).nonzero()[:, 0]
        y = enough[spread(len(enough), classes, enough.device)]
        counts = (data.counts[y] - shots).clamp(max=rows)  # [q]
        inside = torch.arange(rows, device=y.device) < counts[:, None]  # [q, rows]
        place = inside.nonzero()
        chosen = data.table[y[place[:, 0]], shots + place[:, 1]]  # [n]
        condition = pictures(data, data.table[y, : max(1, shots)]) if self.shots else y
        return Validation(pictures(data, chosen[:, None])[:, 0], y[place[:, 0]], place[:, 0], condition, y)

    def real_scores(self) -> Tensor:
        """The discriminator's scores [n] of held-out pictures, each by itself, after training."""
        self.standardise_(self.generator, self.whole)
        with torch.no_grad():
            return self.scores_of(self.validation(self.held_out, *_SCORED))

    def _latents(self, n: int) -> Tensor:
        keys = chance.row_keys(0, "look", torch.arange(n))
        return chance.normal(keys, (_EVALUATED_ROWS, self.noise)).to(self.data.x.device)


def follow_(nets: Iterable[Generator | Discriminator], x: Tensor, share: float) -> None:
    """Let the statistics of supports' codes move to those of pictures [n, c, h, w], by a share of the way."""
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for net in nets:
            if isinstance(net, SupportGenerator | SupportDiscriminator):
                net.follow_(x, share)


def pictures_of(generator: Generator, code: Tensor, z: Tensor) -> Tensor:
    """Pictures [p, k, c, h, w] of codes [p, code] and noise [p, k, noise]."""
    k = z.shape[1]
    made: Tensor = generator(z.flatten(0, 1), code.repeat_interleave(k, 0))
    return made.unflatten(0, (len(z), k))


def split_by_class(data: Pixels, seed: int) -> tuple[Pixels, Pixels]:
    """What is trained on, and a tenth of each class's rows to evaluate on: all of them where those would be few."""
    kept, held_out = split_rows(data, _HELD_OUT, seed)
    return (kept, held_out) if len(held_out.y) >= _FEWEST_EVALUATED else (data, data)


def split_by_support(data: Pixels, val: Pixels | None, seed: int) -> tuple[Pixels, Pixels]:
    """What is trained on, and the classes to evaluate on: `val`, else a tenth, or all of fewer than five classes."""
    if val is not None:
        return data, val
    return split_classes(data, _HELD_OUT, seed) if data.classes >= _FEWEST_CLASSES else (data, data)


def split_rows(data: Pixels, share: float, seed: int) -> tuple[Pixels, Pixels]:
    """The rows of `data`, and a share of each class's held out, drawn by `seed`: at least 1 where it has 4 or more."""
    y = data.y.cpu()
    draw = chance.uniform(chance.row_keys(seed, "held-out rows", torch.arange(len(y))))
    order = torch.argsort(draw, stable=True)
    order = order[torch.argsort(y[order], stable=True)]  # class by class, and by the draw within one
    counts = data.counts.cpu()
    place = torch.arange(len(y)) - (counts.cumsum(0) - counts)[y[order]]
    out = torch.where(counts >= _FEWEST_ROWS, (share * counts).round().clamp(min=1), 0)
    held = place < out[y[order]]
    return _only_rows(data, order[~held].sort().values), _only_rows(data, order[held].sort().values)


def _only_rows(data: Pixels, rows: Tensor) -> Pixels:
    """Some rows [m] of all classes, which keep their numbers."""
    rows = rows.to(data.x.device)
    table, counts = class_table(data.y[rows], data.classes)
    return Pixels(data.x[rows], data.y[rows], table, counts, data.groups)
