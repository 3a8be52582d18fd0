"""How `conditional_gan` is trained: pictures of classes drawn with equal chance, real and made, judged by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from augforge import chance
from augforge.generators.conditional_gan.networks import Judge, Maker
from augforge.generators.shared.gan.batches import Symmetry, pictures, rows_of_classes, some_pictures, spread, symmetric
from augforge.generators.shared.gan.diff_augment import NUMBERS, diff_augment
from augforge.generators.shared.gan.objective import Findings, Made, Part, squared_gradient
from augforge.generators.shared.gan.validation import collapse, findings, standardised
from augforge.metrics.by_class import by_class
from augforge.metrics.kid import kid
from augforge.networks.pixels import Pixels

PER_SUPPORT = 2  # pictures made of a support, and real ones beside them, in a step
_LOOKED_CLASSES, _LOOKED_ROWS = 64, 8  # of a look; as many rows are made of each class
_FOLLOW = 0.1  # how far the middle of codes moves in a step
_SHEET = (8, 8)  # classes, and pictures of each


@dataclass(frozen=True)
class Looked:
    """Some real pictures `x` [n, c, h, w] with their classes `y` [n], and places `place` [n] among q conditions.

    `condition` is classes [q] or supports [q, shots, c, h, w], of the classes `classes` [q].
    """

    x: Tensor
    y: Tensor
    place: Tensor
    condition: Tensor
    classes: Tensor


@dataclass
class ConditionalGame:
    """The game of classes, or of supports of classes, and pictures made of them.

    `data` is trained on, `held_out` looked at: other pictures of the same classes, or with supports other classes. In
    a step are `drawn` classes: with no `shots` one picture of each, else two beside a support of so many pictures as
    `shots` says, in turn by chance. `critic` is the discriminator and `judge` what of it learns. `told` says how much
    of the condition the networks are shown, 0 to 1: nothing at the start of a warm-up. With `settles` the middle of the
    codes of supports follows the training.
    """

    maker: Maker
    judge: torch.nn.Module
    critic: Judge
    data: Pixels
    held_out: Pixels
    drawn: int
    shots: tuple[int, ...]
    symmetry: Symmetry
    policy: tuple[str, ...]
    noise: int
    settles: bool = False
    told: Callable[[], float] = field(default=lambda: 1.0)

    def draw(self, generator: torch.Generator) -> Part:
        """Real pictures [p, k, c, h, w], noise [p, k, noise], chance, and what tells the class of each p."""
        place: dict[str, Any] = {"generator": generator, "device": self.data.x.device}
        count = self.data.classes
        classes = torch.randint(count, (self.drawn,), **place)
        shots = self.shots[int(torch.randint(len(self.shots), (1,), **place))] if self.shots else 0
        if shots:
            rows = rows_of_classes(self.data, classes, shots + PER_SUPPORT, generator)
        else:
            rows = self._any_rows(classes, torch.rand(self.drawn, **place))
        x = symmetric(pictures(self.data, rows), self.symmetry, torch.rand(self.drawn, 3, **place))
        k = x.shape[1] - shots
        part = {
            "real": x[:, shots:],
            "z": torch.randn(self.drawn, k, self.noise, **place),
            "u": torch.rand(self.drawn, k, NUMBERS, **place),
            "told": torch.full((self.drawn, 1), self.told(), device=self.data.x.device),
        }
        if shots:
            part |= {"condition": x[:, :shots], "v": torch.rand(self.drawn, shots, NUMBERS, **place)}
            if self.settles:
                settle_((self.maker, self.critic), x[:, :shots].flatten(0, 1), _FOLLOW)
        else:
            part["condition"] = classes
        if count > 1:
            others = (classes + 1 + torch.randint(count - 1, (self.drawn,), **place)) % count
            part["other"] = pictures(self.data, self._any_rows(others, torch.rand(self.drawn, **place)))
        return part

    def _any_rows(self, classes: Tensor, u: Tensor) -> Tensor:
        """One row [p, 1] of each class [p], by uniform numbers u [p]."""
        return self.data.table[classes, (u.double() * self.data.counts[classes]).long()][:, None]

    def make(self, maker: torch.nn.Module, part: Part) -> Made:
        """Pictures [p, k, c, h, w] of each condition."""
        code = maker.codes(part["condition"]) * part["told"]  # type: ignore[operator]
        return (made_of(maker, code, part["z"]),)

    def scores(self, part: Part, made: Made) -> tuple[Tensor, Tensor]:
        """Of real and made pictures [p, k]; a real one of another class counts with those made.

        So the discriminator learns soon to look at the condition (Reed et al., "Generative adversarial text to image
        synthesis", ICML 2016, algorithm 1).
        """
        real, fake = self._scored(part, torch.cat([part["real"], made[0]]), 2).chunk(2)
        if "other" not in part:
            return real, fake
        x = self._augmented(part["other"], part["u"][:, :1])
        other = self.critic.alone(x, self._critic_codes(part))
        # While the condition is hidden another class cannot be told: a score of -1 has no part in the hinge loss.
        return real, torch.cat([fake, torch.lerp(torch.full_like(other, -1), other, part["told"].to(other.dtype))], 1)

    def fool(self, part: Part, made: Made) -> Tensor:
        """Minus the mean score of what is made (Miyato et al., ICLR 2018, equation 17)."""
        return -self._scored(part, made[0], 1).mean()

    def steepness(self, part: Part) -> Tensor:
        """The mean squared gradient at real pictures."""
        x = part["real"].detach().requires_grad_()
        return squared_gradient(self._scored(part, x, 1), x)

    def _scored(self, part: Part, x: Tensor, times: int) -> Tensor:
        """Scores [times * p, k] of x [times * p, k, c, h, w], through the augmentation; supports are augmented too."""
        code = self._critic_codes(part).repeat(times, 1)
        scores: Tensor = self.critic(self._augmented(x, part["u"].repeat(times, 1, 1)), code)
        return scores

    def _critic_codes(self, part: Part) -> Tensor:
        condition = part["condition"]
        if "v" in part:
            condition = self._augmented(condition, part["v"])
        return self.critic.codes(condition) * part["told"]

    def _augmented(self, x: Tensor, u: Tensor) -> Tensor:
        return diff_augment(x.flatten(0, 1), self.policy, u.flatten(0, 1)).unflatten(0, x.shape[:2])

    def examine(self, maker: torch.nn.Module) -> Findings:
        """A look at pictures that are not trained on (or are, where there are too few to hold any out).

        The score is minus the kernel distance within classes, their mean, where classes have two pictures or more: over
        all classes together a generator that ignores the class would do as well.
        """
        self.settle_all_(maker)
        real = self.looked(self.held_out)
        made = made_of(maker, maker.codes(real.condition), self._latents(len(real.classes)))  # type: ignore[operator]
        y = real.classes.repeat_interleave(made.shape[1])
        trained = self.looked(self.data)
        code = self.critic.codes(real.condition)
        scores = (self.scores_of(trained), self.scores_of(real), self.critic.alone(made, code).flatten())
        train = some_pictures(self.data)
        found = findings((made.flatten(0, 1), y), (real.x, real.y), train, scores)
        facts, alarms, score = dict(found.facts), list(found.alarms), found.score
        seen = standardised(real.x, real.x, made.flatten(0, 1), trained.x)
        sets = [(seen[0], real.y), (seen[1], y)]
        if "diversity" not in facts and not self.shots:  # too few are held out: training rows tell how far apart
            told, more = collapse((seen[2], trained.y), sets[1])
            facts, alarms = facts | told, alarms + more
        within = list(by_class(kid, sets).values.values())
        if within:
            facts["kernel_distance_within"] = sum(within) / len(within)
            score = -facts["kernel_distance_within"]
        return Findings(score, facts, alarms)

    def settle_all_(self, *nets: torch.nn.Module) -> None:
        """Put the codes of supports in the middle of those of the training pictures."""
        if self.settles:
            settle_(nets, some_pictures(self.data), 1.0)

    def sheet(self, maker: torch.nn.Module) -> Tensor:
        """Rows of a held-out picture, or the first of a support, and seven pictures made of its class."""
        real = self.looked(self.held_out, _SHEET[0])
        code = maker.codes(real.condition)  # type: ignore[operator]
        first = real.condition[:, 0] if self.shots else pictures(self.held_out, self.held_out.table[real.classes, :1])
        made = made_of(maker, code, self._latents(len(code))[:, : _SHEET[1] - 1])
        return torch.cat([first.view_as(made[:, :1]), made], 1)

    def scores_of(self, real: Looked) -> Tensor:
        """The discriminator's scores [n] of real pictures, each by itself."""
        scores: Tensor = self.critic.alone(real.x[:, None], self.critic.codes(real.condition)[real.place])
        return scores[:, 0]

    def looked(self, data: Pixels, classes: int = _LOOKED_CLASSES, rows: int = _LOOKED_ROWS) -> Looked:
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
        return Looked(pictures(data, chosen[:, None])[:, 0], y[place[:, 0]], place[:, 0], condition, y)

    def _latents(self, n: int) -> Tensor:
        keys = chance.row_keys(0, "look", torch.arange(n))
        return chance.normal(keys, (_LOOKED_ROWS, self.noise)).to(self.data.x.device)


def settle_(nets: Iterable[torch.nn.Module], x: Tensor, share: float) -> None:
    """Let the middle of codes of supports move to that of pictures [n, c, h, w], by a share of the way."""
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for net in nets:
            net.settle_(x, share)  # type: ignore[operator]


def made_of(maker: torch.nn.Module, code: Tensor, z: Tensor) -> Tensor:
    """Pictures [p, k, c, h, w] of codes [p, code] and noise [p, k, noise]."""
    k = z.shape[1]
    made: Tensor = maker(z.flatten(0, 1), code.repeat_interleave(k, 0))
    return made.unflatten(0, (len(z), k))
