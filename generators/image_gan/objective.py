"""The objective of `image_gan`: batches of a parent and two others of its class, scored by pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from augforge import chance
from augforge.generators.shared.gan.batches import (
    Symmetry,
    draw_shots,
    only_classes,
    pictures,
    rows_of_classes,
    some_pictures,
    split_classes,
    spread,
    symmetric,
)
from augforge.generators.shared.gan.diff_augment import NUMBERS, diff_augment
from augforge.generators.shared.gan.discriminators import PairDiscriminator
from augforge.generators.shared.gan.networks import PictureGenerator
from augforge.generators.shared.gan.objective import Batch, Generated, squared_gradient
from augforge.generators.shared.gan.validation import evaluate_pictures
from augforge.networks.pixels import Pixels
from augforge.training.loop import Evaluation
from augforge.types import InputError

PER_PARENT = 2  # pictures made of a parent, and real ones beside them, in a step
_HELD_OUT = 0.1  # of the base classes, where no validation classes are given
_FEWEST = 5  # classes of which none is held out
_EVALUATED_CLASSES, _EVALUATED_ROWS, _MADE_EACH = 64, 8, 4
_SCORED_CLASSES, _SCORED_ROWS = 200, 4  # whose real pictures are scored after training
_SHEET = (8, 8)  # parents and made pictures of each


@dataclass
class PairObjective:
    """The discriminator tells others of a parent's class from pictures generated of the parent."""

    generator: PictureGenerator
    discriminator: PairDiscriminator
    data: Pixels  # trained on
    held_out: Pixels  # evaluated on
    parents: int  # in a batch
    shots: tuple[int, ...]  # support pictures of a parent, in turn by chance
    attend: bool  # whether a class code is weighted by attention
    symmetry: Symmetry  # of all pictures of a parent alike, which makes other classes of them
    policy: tuple[str, ...]  # of DiffAugment
    noise: int  # length of z
    mismatched: bool  # whether real pictures of another class count with generated ones

    def draw(self, rng: torch.Generator, fraction: float) -> Batch:
        """Parents [p, s, c, h, w] and others [p, 2, c, h, w] of one class each, noise [p, 2, noise] and chance."""
        device = self.data.x.device
        shots = draw_shots(self.shots, rng)
        each = shots + PER_PARENT
        classes = torch.randint(self.data.classes, (self.parents,), generator=rng, device=device)
        x = pictures(self.data, rows_of_classes(self.data, classes, each, rng))
        x = symmetric(x, self.symmetry, torch.rand(self.parents, 3, generator=rng, device=device))
        z = torch.randn(self.parents, PER_PARENT, self.noise, generator=rng, device=device)
        u = torch.rand(self.parents, PER_PARENT, NUMBERS, generator=rng, device=device)
        return {"support": x[:, :shots], "real": x[:, shots:], "z": z, "u": u}

    def generate(self, batch: Batch) -> Generated:
        """Two pictures [p, 2, c, h, w] of each parent."""
        return (pictures_of(self.generator, batch["support"], batch["z"], self.attend),)

    def scores(self, batch: Batch, generated: Generated) -> tuple[Tensor, Tensor]:
        """Of real pictures [p, 2]; of generated ones, and with `mismatched` of real ones of another class."""
        wrong = [batch["real"].roll(1, 0)] if self.mismatched and len(batch["real"]) > 1 else []
        scores = self._scored(batch, torch.cat([batch["real"], generated[0], *wrong]), 2 + len(wrong))
        return scores[: len(generated[0])], scores[len(generated[0]) :]

    def generator_loss(self, batch: Batch, generated: Generated) -> Tensor:
        """Minus the mean score of what is generated (Miyato et al., ICLR 2018, equation 17)."""
        return -self._scored(batch, generated[0], 1).mean()

    def gradient_penalty(self, batch: Batch) -> Tensor:
        """The mean squared gradient at real pictures."""
        x = batch["real"].detach().requires_grad_()
        return squared_gradient(self._scored(batch, x, 1), x)

    def _scored(self, batch: Batch, x: Tensor, times: int) -> Tensor:
        """Scores [times * p, 2] of x [times * p, 2, c, h, w]; a parent is augmented as the picture beside it is."""
        k, u = x.shape[1], batch["u"].repeat(times, 1, 1).flatten(0, 1)
        parent = batch["support"][:, :1].expand(-1, k, -1, -1, -1).repeat(times, 1, 1, 1, 1)
        seen = [diff_augment(y.flatten(0, 1), self.policy, u).unflatten(0, (-1, k)) for y in (parent, x)]
        scores: Tensor = self.discriminator(seen[0], seen[1])
        return scores

    def evaluate(self) -> Evaluation:
        """On classes that are not trained on (or are, where there are too few to hold any out)."""
        support, real, y = _families(self.held_out, _EVALUATED_CLASSES, _EVALUATED_ROWS)
        z = self._latents(len(support), _MADE_EACH, support.device)
        made = pictures_of(self.generator, support[:, None], z, self.attend)
        trained, others, _ = _families(self.data, _EVALUATED_CLASSES, _MADE_EACH)
        scores = (self.discriminator.alone(trained, others), self.discriminator.alone(support, real[:, :_MADE_EACH]),
                  self.discriminator.alone(support, made))  # fmt: skip
        train = some_pictures(self.data)
        found = evaluate_pictures((made.flatten(0, 1), y.repeat_interleave(_MADE_EACH)),
                         (real.flatten(0, 1), y.repeat_interleave(real.shape[1])), train, scores)  # fmt: skip
        left = (made - support[:, None]).square().mean().sqrt() / (real - support[:, None]).square().mean().sqrt()
        return Evaluation(found.score, {**found.facts, "distance_from_parent": float(left)}, found.alarms)

    def sheet(self) -> Tensor:
        """Rows of a held-out parent and seven pictures generated of it."""
        support, _, _ = _families(self.held_out, _SHEET[0], 1)
        z = self._latents(len(support), _SHEET[1] - 1, support.device)
        made = pictures_of(self.generator, support[:, None], z, self.attend)
        return torch.cat([support[:, None], made], 1)

    def _latents(self, n: int, each: int, device: torch.device) -> Tensor:
        return chance.normal(chance.row_keys(0, "look", torch.arange(n)), (each, self.noise)).to(device)

    def real_scores(self) -> Tensor:
        """The discriminator's scores [n] of real pictures, each beside another one of its held-out class."""
        data = self.held_out
        classes = (data.counts > 1).nonzero()[:, 0][:_SCORED_CLASSES]
        most = min(_SCORED_ROWS, int(data.counts[classes].min()))
        x = pictures(data, data.table[classes][:, :most])
        score = self.discriminator.eval().alone
        with torch.no_grad():
            return torch.cat([score(x[:, 0], x[:, 1:]).flatten(), score(x[:, 1], x[:, :1]).flatten()])


def held_out_classes(data: Pixels, val: Pixels | None, seed: int) -> tuple[Pixels, Pixels]:
    """What is trained on, the classes of two pictures or more, and what is evaluated on.

    That is `val`, if it has a class of two pictures, else a tenth of the classes, drawn by `seed`, and all of them
    where they are fewer than five. Raises InputError where every class has one picture.
    """
    if int(data.counts.max()) < 2:
        raise InputError("image-gan learns from classes of two pictures or more, and every class here has one")
    data = only_classes(data, (data.counts > 1).nonzero()[:, 0])
    if val is not None and int(val.counts.max()) > 1:
        return data, val
    return split_classes(data, _HELD_OUT, seed) if data.classes >= _FEWEST else (data, data)


def _families(data: Pixels, classes: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """First pictures [n, c, h, w] of some classes, other ones [n, rows, c, h, w], and the classes [n]."""
    enough = (data.counts > 1).nonzero()[:, 0]
    y = enough[spread(len(enough), classes, enough.device)]
    rows = min(rows, int(data.counts[y].min()) - 1)
    x = pictures(data, data.table[y][:, : rows + 1])
    return x[:, 0], x[:, 1:], y


def pictures_of(generator: PictureGenerator, support: Tensor, z: Tensor, attend: bool) -> Tensor:
    """Pictures [p, k, c, h, w] of the first of supports [p, s, c, h, w], with noise [p, k, noise]."""
    p, k = z.shape[:2]
    parent = support[:, 0]
    maps = generator.encode(parent.contiguous(memory_format=torch.channels_last))
    shots = maps[-1][:, None]
    if support.shape[1] > 1:
        others = support[:, 1:].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        shots = torch.cat([shots, generator.encode(others)[-1].unflatten(0, (p, -1))], 1)
    code = generator.codes(maps[-1], shots, attend)
    many = [_repeated(m, k) for m in (parent, *maps, code)]  # each parent's k rows together
    return generator.decode(many[0], many[1:-1], many[-1], z.flatten(0, 1)).unflatten(0, (p, k))


def _repeated(x: Tensor, k: int) -> Tensor:
    """Every row k times; maps keep their channels last, which `repeat_interleave` would move."""
    if x.ndim == 2:
        return x.repeat_interleave(k, 0)
    return rearrange(repeat(x, "p c h w -> (p k) h w c", k=k), "n h w c -> n c h w")
