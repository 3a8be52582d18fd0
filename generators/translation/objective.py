"""How `translation` is trained: the game of pairs (pix2pix) and the game of two ways and back (CycleGAN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge import chance
from augforge.generators.shared.gan.batches import pictures, rows_of_classes, spread
from augforge.generators.shared.gan.diff_augment import NUMBERS, diff_augment
from augforge.generators.shared.gan.objective import Findings, Made, Part, squared_gradient
from augforge.generators.shared.gan.validation import findings
from augforge.generators.translation.domains import Domains
from augforge.networks.pixels import Pixels

_LOOKED_ROWS, _LOOKED_EACH = 256, 4  # rows of a domain that a look sees, and at most so many of a unit
_TRAIN_ROWS = 1024  # training pictures that a look compares with
_SHEET_ROWS = 8
_LATENTS = 4  # of an unpaired row: forth, back, back of what went forth, forth of what went back


@dataclass
class PairedGame:
    """The game of source pictures, their target pictures, and translations of them (Isola et al. 2017, equation 4).

    `data` is trained on, `held_out` looked at; `distance` is the weight of the mean absolute error, `noise` the length
    of z. Of the one generator and the one discriminator in `maker` and `judge` the latter sees source and target.
    """

    maker: nn.ModuleList
    judge: nn.ModuleList
    data: Domains
    held_out: Domains
    batch: int
    distance: float
    policy: tuple[str, ...]
    noise: int

    def draw(self, generator: torch.Generator) -> Part:
        """Sources and targets [b, c, h, w] of one unit each, noise [b, noise] and chance [b, 7]."""
        device = self.data.source.x.device
        unit = torch.randint(self.data.source.classes, (self.batch,), generator=generator, device=device)
        source, target = (_drawn(side, unit, generator) for side in (self.data.source, self.data.target))
        z = torch.randn(self.batch, self.noise, generator=generator, device=device)
        u = torch.rand(self.batch, NUMBERS, generator=generator, device=device)
        return {"source": source, "target": target, "z": z, "u": u}

    def make(self, maker: nn.Module, part: Part) -> Made:
        """The translations [b, c, h, w]."""
        assert isinstance(maker, nn.ModuleList)
        return (maker[0](part["source"], part["z"]),)

    def scores(self, part: Part, made: Made) -> tuple[Tensor, Tensor]:
        """Of patches [b, h', w'] of the real and of the made pairs."""
        real, fake = self._scored(part, part["target"], made[0]).chunk(2)
        return real, fake

    def fool(self, part: Part, made: Made) -> Tensor:
        """Minus the mean score of what is made, and the distance from what it should be."""
        return self.distance * F.l1_loss(made[0], part["target"]) - self._scored(part, made[0]).mean()

    def steepness(self, part: Part) -> Tensor:
        """The mean squared gradient at real targets."""
        x = part["target"].detach().requires_grad_()
        return squared_gradient(self._scored(part, x).mean((1, 2)), x)

    def _scored(self, part: Part, *x: Tensor) -> Tensor:
        """Scores of pictures x [b, c, h, w] each beside their sources, which are augmented alike."""
        source, *seen = (diff_augment(y, self.policy, part["u"]) for y in (part["source"], *x))
        return _judged(self.judge[0], source.repeat(len(x), 1, 1, 1), torch.cat(seen))

    def examine(self, maker: nn.Module) -> Findings:
        """The mean absolute error on pairs that are not trained on, and what every look tells."""
        assert isinstance(maker, nn.ModuleList)
        source, target, y = looked_pairs(self.held_out)
        made = maker[0](source, _latents(len(source), self.noise, source.device))
        trained, goal, _ = looked_pairs(self.data)
        judge = self.judge[0]
        scores = _judged(judge, trained, goal), _judged(judge, source, target), _judged(judge, source, made)
        found = findings((made, y), (target, y), _some(self.data.target), scores)
        error, untranslated = float(F.l1_loss(made, target)), float(F.l1_loss(source, target))
        return Findings(-error, found.facts | {"error": error, "error_of_source": untranslated}, found.alarms)

    def sheet(self, maker: nn.Module) -> Tensor:
        """Rows of a held-out source, two translations of it, and its real target."""
        assert isinstance(maker, nn.ModuleList)
        source, target, _ = looked_pairs(self.held_out, _SHEET_ROWS)
        z = _latents(2 * len(source), self.noise, source.device).chunk(2)
        return torch.stack([source, maker[0](source, z[0]), maker[0](source, z[1]), target], 1)


@dataclass
class CycleGame:
    """The game of two domains, and a way between them in each direction (Zhu et al. 2017, equation 3).

    `maker` holds the ways forth and back, `judge` the discriminators of target and of source pictures; `cycle` and
    `identity` are the weights of the mean absolute errors after a way there and back, and of needless changes.
    """

    maker: nn.ModuleList
    judge: nn.ModuleList
    data: Domains
    held_out: Domains
    batch: int
    cycle: float
    identity: float
    policy: tuple[str, ...]
    noise: int

    def draw(self, generator: torch.Generator) -> Part:
        """Sources and targets [b, c, h, w], drawn apart, noise [b, 4, noise] and chance [b, 2, 7]."""
        device = self.data.source.x.device
        drawn = []
        for side in (self.data.source, self.data.target):
            unit = torch.randint(side.classes, (self.batch,), generator=generator, device=device)
            drawn.append(_drawn(side, unit, generator))
        z = torch.randn(self.batch, _LATENTS, self.noise, generator=generator, device=device)
        u = torch.rand(self.batch, 2, NUMBERS, generator=generator, device=device)
        return {"source": drawn[0], "target": drawn[1], "z": z, "u": u}

    def make(self, maker: nn.Module, part: Part) -> Made:
        """Sources as targets, and targets as sources, [b, c, h, w] each."""
        assert isinstance(maker, nn.ModuleList)
        z = part["z"]
        return maker[0](part["source"], z[:, 0]), maker[1](part["target"], z[:, 1])

    def scores(self, part: Part, made: Made) -> tuple[Tensor, Tensor]:
        """Of patches [2b, h', w'] of the real pictures of target and source, and of those made."""
        both = [torch.cat(pair) for pair in zip((part["target"], part["source"]), made, strict=True)]
        real, fake = self._scored(part, *both).unflatten(0, (2, 2, -1)).unbind(1)  # judge, real or made, b
        return real.flatten(0, 1), fake.flatten(0, 1)

    def fool(self, part: Part, made: Made) -> Tensor:
        """Minus the mean scores of what is made, the errors after a way there and back, and needless changes."""
        forth, back = self.maker
        source, target, z = part["source"], part["target"], part["z"]
        again = F.l1_loss(back(made[0], z[:, 2]), source) + F.l1_loss(forth(made[1], z[:, 3]), target)
        loss = self.cycle * again - 2 * self._scored(part, *made).mean()
        if self.identity > 0:
            kept = F.l1_loss(forth(target, z[:, 3]), target) + F.l1_loss(back(source, z[:, 2]), source)
            loss = loss + self.identity * kept
        return loss

    def steepness(self, part: Part) -> Tensor:
        """The mean squared gradient at the real pictures of both domains."""
        x = [part[name].detach().requires_grad_() for name in ("target", "source")]
        rows = self._scored(part, *x).mean((1, 2)).chunk(2)
        return squared_gradient(rows[0], x[0]) + squared_gradient(rows[1], x[1])

    def _scored(self, part: Part, target: Tensor, source: Tensor) -> Tensor:
        """Scores of pictures [b, c, h, w], or [k * b, c, h, w], of each domain, those of the target first."""
        times = len(target) // len(part["u"])
        seen = [diff_augment(x, self.policy, part["u"][:, i].repeat(times, 1)) for i, x in enumerate((target, source))]
        return torch.cat([_judged(judge, x) for judge, x in zip(self.judge, seen, strict=True)])

    def examine(self, maker: nn.Module) -> Findings:
        """Kernel distances of both ways on pictures that are not trained on, and the error of a way there and back."""
        assert isinstance(maker, nn.ModuleList)
        real, y = zip(*(looked(side, self.held_out.named) for side in self._sides(self.held_out)), strict=True)
        trained = [looked(side, self.held_out.named)[0] for side in self._sides(self.data)]
        facts: dict[str, float] = {}
        score, error, alarms = 0.0, 0.0, []
        for i, name in enumerate(("", "back_")):
            z = _latents(2 * len(real[i]), self.noise, real[i].device).chunk(2)
            made = maker[i](real[i], z[0])
            judge = self.judge[i]
            scores = _judged(judge, trained[1 - i]), _judged(judge, real[1 - i]), _judged(judge, made)
            found = findings((made, y[i]), (real[1 - i], y[1 - i]), _some(self._sides(self.data)[1 - i]), scores)
            facts |= {name + key: value for key, value in found.facts.items()}
            alarms += [f"{name.replace('_', ': ')}{alarm}" for alarm in found.alarms]
            score += found.score / 2
            error += float(F.l1_loss(maker[1 - i](made, z[1]), real[i])) / 2
        return Findings(score, facts | {"cycle_error": error}, alarms)

    def sheet(self, maker: nn.Module) -> Tensor:
        """Rows of a held-out source, it as a target and back again, and the same of a target."""
        assert isinstance(maker, nn.ModuleList)
        columns = []
        for i, side in enumerate(self._sides(self.held_out)):
            x = looked(side, False, _SHEET_ROWS)[0]
            z = _latents(2 * len(x), self.noise, x.device).chunk(2)
            made = maker[i](x, z[0])
            columns += [x, made, maker[1 - i](made, z[1])]
        rows = min(len(column) for column in columns)
        return torch.stack([column[:rows] for column in columns], 1)

    @staticmethod
    def _sides(domains: Domains) -> tuple[Pixels, Pixels]:
        return domains.source, domains.target


def looked(side: Pixels, named: bool, most: int = _LOOKED_ROWS) -> tuple[Tensor, Tensor]:
    """Pictures [n, c, h, w] of a domain that stay the same, from all of its units, and their classes [n].

    Where classes are the domains (not `named`) all are of class 0.
    """
    each = min(_LOOKED_EACH, int(side.counts.min()))
    return _looked(side, each, named, most)


def looked_pairs(domains: Domains, most: int = _LOOKED_ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """Sources and targets [n, c, h, w] that go together and stay the same, and their classes [n]."""
    each = min(_LOOKED_EACH, int(domains.source.counts.min()), int(domains.target.counts.min()))
    source, y = _looked(domains.source, each, domains.named, most)
    return source, _looked(domains.target, each, domains.named, most)[0], y


def _looked(side: Pixels, each: int, named: bool, most: int) -> tuple[Tensor, Tensor]:
    units = spread(side.classes, max(1, most // each), side.x.device)
    y = (side.groups if named else torch.zeros_like(side.groups))[units].repeat_interleave(each)
    return pictures(side, side.table[units][:, :each]).flatten(0, 1), y


def _some(side: Pixels) -> Tensor:
    """The first pictures [n, c, h, w] of some units."""
    return pictures(side, side.table[spread(side.classes, _TRAIN_ROWS, side.x.device)][:, :1])[:, 0]


def _drawn(side: Pixels, unit: Tensor, generator: torch.Generator) -> Tensor:
    """A picture [b, c, h, w] of each unit [b]."""
    return pictures(side, rows_of_classes(side, unit, 1, generator))[:, 0]


def _judged(judge: nn.Module, *x: Tensor) -> Tensor:
    """Scores [n, h', w'] of pictures, or of several seen one on top of the other."""
    scores: Tensor = judge(torch.cat(x, 1).contiguous(memory_format=torch.channels_last))
    return scores


def _latents(n: int, noise: int, device: torch.device) -> Tensor:
    return chance.normal(chance.row_keys(0, "look", torch.arange(n)), (noise,)).to(device)
