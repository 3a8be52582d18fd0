"""The objectives of `translation`: pairs (pix2pix), and two domains with a way there and back (CycleGAN)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augforge import chance
from augforge.generators.shared.gan.batches import pictures, rows_of_classes, spread
from augforge.generators.shared.gan.diff_augment import NUMBERS, diff_augment
from augforge.generators.shared.gan.objective import Batch, Generated, squared_gradient
from augforge.generators.shared.gan.pictures import in_tiles
from augforge.generators.shared.gan.validation import evaluate_pictures
from augforge.generators.translation.domains import Domains
from augforge.networks.pixels import Pixels
from augforge.training.loop import Evaluation

_EVALUATED_ROWS, _EVALUATED_EACH = 256, 4  # rows of a domain that are evaluated on, and at most so many of a unit
_TRAIN_ROWS = 1024  # training pictures that an evaluation compares with
_SCORED_ROWS = 1024  # real pictures that are scored after training
_SHEET_ROWS = 8
_LATENTS = 4  # of an unpaired row: forth, back, back of what went forth, forth of what went back


@dataclass
class PairedObjective:
    """Source pictures, their target pictures, and translations of them (Isola et al. 2017, equation 4)."""

    generator: nn.ModuleList  # one
    discriminator: nn.ModuleList  # one, which sees source and target
    data: Domains  # trained on
    held_out: Domains  # evaluated on
    batch: int  # pairs in a step
    distance: float  # weight of the mean absolute error
    policy: tuple[str, ...]  # of DiffAugment
    noise: int  # length of z

    def draw(self, rng: torch.Generator, fraction: float) -> Batch:
        """Sources and targets [b, c, h, w] of one unit each, noise [b, noise] and chance [b, 7]."""
        device = self.data.source.x.device
        unit = torch.randint(self.data.source.classes, (self.batch,), generator=rng, device=device)
        source, target = (_drawn(side, unit, rng) for side in (self.data.source, self.data.target))
        z = torch.randn(self.batch, self.noise, generator=rng, device=device)
        u = torch.rand(self.batch, NUMBERS, generator=rng, device=device)
        return {"source": source, "target": target, "z": z, "u": u}

    def generate(self, batch: Batch) -> Generated:
        """The translations [b, c, h, w]."""
        return (self.generator[0](batch["source"], batch["z"]),)

    def scores(self, batch: Batch, generated: Generated) -> tuple[Tensor, Tensor]:
        """Of patches [b, h', w'] of the real and of the translated pairs."""
        real, fake = self._scored(batch, batch["target"], generated[0]).chunk(2)
        return real, fake

    def generator_loss(self, batch: Batch, generated: Generated) -> Tensor:
        """Minus the mean score of translations, and their distance from what they should be."""
        return self.distance * F.l1_loss(generated[0], batch["target"]) - self._scored(batch, generated[0]).mean()

    def gradient_penalty(self, batch: Batch) -> Tensor:
        """The mean squared gradient at real targets."""
        x = batch["target"].detach().requires_grad_()
        return squared_gradient(self._scored(batch, x).mean((1, 2)), x)

    def _scored(self, batch: Batch, *x: Tensor) -> Tensor:
        """Scores of pictures x [b, c, h, w] each beside their sources, which are augmented alike."""
        source, *seen = (diff_augment(y, self.policy, batch["u"]) for y in (batch["source"], *x))
        return _patch_scores(self.discriminator[0], source.repeat(len(x), 1, 1, 1), torch.cat(seen))

    def evaluate(self) -> Evaluation:
        """The mean absolute error on pairs that are not trained on, and what every GAN is evaluated by."""
        source, target, y = held_out_pairs(self.held_out)
        made = self.generator[0](source, _latents(len(source), self.noise, source.device))
        trained, goal, _ = held_out_pairs(self.data)
        net = self.discriminator[0]
        scores = _patch_scores(net, trained, goal), _patch_scores(net, source, target), _patch_scores(net, source, made)
        found = evaluate_pictures((made, y), (target, y), _some(self.data.target), scores)
        error, untranslated = float(F.l1_loss(made, target)), float(F.l1_loss(source, target))
        return Evaluation(-error, {**found.facts, "error": error, "error_of_source": untranslated}, found.alarms)

    def sheet(self) -> Tensor:
        """Rows of a held-out source, two translations of it, and its real target."""
        source, target, _ = held_out_pairs(self.held_out, _SHEET_ROWS)
        z = _latents(2 * len(source), self.noise, source.device).chunk(2)
        return torch.stack([source, self.generator[0](source, z[0]), self.generator[0](source, z[1]), target], 1)

    def real_scores(self) -> list[Tensor]:
        """The discriminator's scores [n] of real pairs that were not trained on."""
        seen = torch.cat(held_out_pairs(self.held_out, _SCORED_ROWS)[:2], 1)  # [n, 2c, side, side]
        return [_mean_scores(self.discriminator[0], seen)]


@dataclass
class CycleObjective:
    """Two domains, and a way between them in each direction (Zhu et al. 2017, equation 3)."""

    generator: nn.ModuleList  # the ways forth and back
    discriminator: nn.ModuleList  # of target and of source pictures
    data: Domains  # trained on
    held_out: Domains  # evaluated on
    batch: int  # pictures of each domain in a step
    cycle: float  # weight of the mean absolute error after a way there and back
    identity: float  # weight of the mean absolute change of pictures that are of the wanted domain already
    policy: tuple[str, ...]  # of DiffAugment
    noise: int  # length of z

    def draw(self, rng: torch.Generator, fraction: float) -> Batch:
        """Sources and targets [b, c, h, w], drawn apart, noise [b, 4, noise] and chance [b, 2, 7]."""
        device = self.data.source.x.device
        drawn = []
        for side in (self.data.source, self.data.target):
            unit = torch.randint(side.classes, (self.batch,), generator=rng, device=device)
            drawn.append(_drawn(side, unit, rng))
        z = torch.randn(self.batch, _LATENTS, self.noise, generator=rng, device=device)
        u = torch.rand(self.batch, 2, NUMBERS, generator=rng, device=device)
        return {"source": drawn[0], "target": drawn[1], "z": z, "u": u}

    def generate(self, batch: Batch) -> Generated:
        """Sources as targets, and targets as sources, [b, c, h, w] each."""
        z = batch["z"]
        return self.generator[0](batch["source"], z[:, 0]), self.generator[1](batch["target"], z[:, 1])

    def scores(self, batch: Batch, generated: Generated) -> tuple[Tensor, Tensor]:
        """Of patches [2b, h', w'] of the real pictures of target and source, and of translated ones."""
        both = [torch.cat(pair) for pair in zip((batch["target"], batch["source"]), generated, strict=True)]
        real, fake = self._scored(batch, *both).unflatten(0, (2, 2, -1)).unbind(1)  # discriminator, real or fake, b
        return real.flatten(0, 1), fake.flatten(0, 1)

    def generator_loss(self, batch: Batch, generated: Generated) -> Tensor:
        """Minus the mean scores of translations, the errors after a way there and back, and needless changes."""
        forth, back = self.generator
        source, target, z = batch["source"], batch["target"], batch["z"]
        again = F.l1_loss(back(generated[0], z[:, 2]), source) + F.l1_loss(forth(generated[1], z[:, 3]), target)
        loss = self.cycle * again - 2 * self._scored(batch, *generated).mean()
        if self.identity > 0:
            kept = F.l1_loss(forth(target, z[:, 3]), target) + F.l1_loss(back(source, z[:, 2]), source)
            loss = loss + self.identity * kept
        return loss

    def gradient_penalty(self, batch: Batch) -> Tensor:
        """The mean squared gradient at the real pictures of both domains."""
        x = [batch[name].detach().requires_grad_() for name in ("target", "source")]
        rows = self._scored(batch, *x).mean((1, 2)).chunk(2)
        return squared_gradient(rows[0], x[0]) + squared_gradient(rows[1], x[1])

    def _scored(self, batch: Batch, target: Tensor, source: Tensor) -> Tensor:
        """Scores of pictures [b, c, h, w], or [k * b, c, h, w], of each domain, those of the target first."""
        times = len(target) // len(batch["u"])
        seen = [diff_augment(x, self.policy, batch["u"][:, i].repeat(times, 1)) for i, x in enumerate((target, source))]
        return torch.cat([_patch_scores(net, x) for net, x in zip(self.discriminator, seen, strict=True)])

    def evaluate(self) -> Evaluation:
        """Kernel distances of both ways on pictures that are not trained on, and the error of a way there and back."""
        real, y = zip(*(held_out_rows(side, self.held_out.named) for side in self._sides(self.held_out)), strict=True)
        trained = [held_out_rows(side, self.held_out.named)[0] for side in self._sides(self.data)]
        facts: dict[str, float] = {}
        score, error, alarms = 0.0, 0.0, []
        for i, name in enumerate(("", "back_")):
            z = _latents(2 * len(real[i]), self.noise, real[i].device).chunk(2)
            made = self.generator[i](real[i], z[0])
            net = self.discriminator[i]
            scores = _patch_scores(net, trained[1 - i]), _patch_scores(net, real[1 - i]), _patch_scores(net, made)
            found = evaluate_pictures(
                (made, y[i]), (real[1 - i], y[1 - i]), _some(self._sides(self.data)[1 - i]), scores
            )
            facts |= {name + key: value for key, value in found.facts.items()}
            alarms += [f"{name.replace('_', ': ')}{alarm}" for alarm in found.alarms]
            score += found.score / 2
            error += float(F.l1_loss(self.generator[1 - i](made, z[1]), real[i])) / 2
        return Evaluation(score, facts | {"cycle_error": error}, alarms)

    def sheet(self) -> Tensor:
        """Rows of a held-out source, it as a target and back again, and the same of a target."""
        columns = []
        for i, side in enumerate(self._sides(self.held_out)):
            x = held_out_rows(side, False, _SHEET_ROWS)[0]
            z = _latents(2 * len(x), self.noise, x.device).chunk(2)
            made = self.generator[i](x, z[0])
            columns += [x, made, self.generator[1 - i](made, z[1])]
        rows = min(len(column) for column in columns)
        return torch.stack([column[:rows] for column in columns], 1)

    def real_scores(self) -> list[Tensor]:
        """The discriminators' scores [n] of real pictures, of target and source, that were not trained on."""
        sides = (self.held_out.target, self.held_out.source)
        seen = [held_out_rows(side, False, _SCORED_ROWS)[0] for side in sides]
        return [_mean_scores(net, x) for net, x in zip(self.discriminator, seen, strict=True)]

    @staticmethod
    def _sides(domains: Domains) -> tuple[Pixels, Pixels]:
        return domains.source, domains.target


def held_out_rows(side: Pixels, named: bool, most: int = _EVALUATED_ROWS) -> tuple[Tensor, Tensor]:
    """Pictures [n, c, h, w] of a domain that stay the same, from all of its units, and their classes [n].

    Where classes are the domains (not `named`) all are of class 0.
    """
    each = min(_EVALUATED_EACH, int(side.counts.min()))
    return _spread_rows(side, each, named, most)


def held_out_pairs(domains: Domains, most: int = _EVALUATED_ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """Sources and targets [n, c, h, w] that go together and stay the same, and their classes [n]."""
    each = min(_EVALUATED_EACH, int(domains.source.counts.min()), int(domains.target.counts.min()))
    source, y = _spread_rows(domains.source, each, domains.named, most)
    return source, _spread_rows(domains.target, each, domains.named, most)[0], y


def _spread_rows(side: Pixels, each: int, named: bool, most: int) -> tuple[Tensor, Tensor]:
    units = spread(side.classes, max(1, most // each), side.x.device)
    y = (side.groups if named else torch.zeros_like(side.groups))[units].repeat_interleave(each)
    return pictures(side, side.table[units][:, :each]).flatten(0, 1), y


def _some(side: Pixels) -> Tensor:
    """The first pictures [n, c, h, w] of some units."""
    return pictures(side, side.table[spread(side.classes, _TRAIN_ROWS, side.x.device)][:, :1])[:, 0]


def _drawn(side: Pixels, unit: Tensor, rng: torch.Generator) -> Tensor:
    """A picture [b, c, h, w] of each unit [b]."""
    return pictures(side, rows_of_classes(side, unit, 1, rng))[:, 0]


def _patch_scores(discriminator: nn.Module, *x: Tensor) -> Tensor:
    """Scores [n, h', w'] of pictures, or of several seen one on top of the other."""
    scores: Tensor = discriminator(torch.cat(x, 1).contiguous(memory_format=torch.channels_last))
    return scores


def _mean_scores(discriminator: nn.Module, x: Tensor) -> Tensor:
    """The mean score [n] of each picture's patches."""
    discriminator.eval()
    return in_tiles(lambda part: discriminator(part).mean((1, 2)), x)


def _latents(n: int, noise: int, device: torch.device) -> Tensor:
    return chance.normal(chance.row_keys(0, "look", torch.arange(n)), (noise,)).to(device)
