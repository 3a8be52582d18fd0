"""How `image_gan` is trained: batches of a parent and two others of its class, scored by pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from augforge import chance
from augforge.generators.shared.gan.batches import Symmetry, pictures, rows_of_classes, some_pictures, spread, symmetric
from augforge.generators.shared.gan.diff_augment import NUMBERS, diff_augment
from augforge.generators.shared.gan.discriminators import PairJudge
from augforge.generators.shared.gan.networks import PictureGenerator
from augforge.generators.shared.gan.objective import Findings, Made, Part, squared_gradient
from augforge.generators.shared.gan.validation import findings
from augforge.networks.pixels import Pixels

PER_PARENT = 2  # pictures made of a parent, and real ones beside them, in a step
_LOOKED_CLASSES, _LOOKED_ROWS, _MADE_EACH = 64, 8, 4
_SHEET = (8, 8)  # parents and made pictures of each


@dataclass
class PairGame:
    """The game of a parent picture, others of its class, and pictures made of it.

    `data` is trained on, `held_out` looked at; `parents` of them are in a batch, each with so many support pictures of
    its class as `shots` says, by chance. `symmetry` turns or mirrors all pictures of a parent alike, which makes other
    classes of them. With `mismatched` the discriminator learns that real pictures of another class are wrong too.
    """

    maker: PictureGenerator
    judge: PairJudge
    data: Pixels
    held_out: Pixels
    parents: int
    shots: tuple[int, ...]
    attend: bool
    symmetry: Symmetry
    policy: tuple[str, ...]
    noise: int
    mismatched: bool

    def draw(self, generator: torch.Generator) -> Part:
        """Parents [p, s, c, h, w] and others [p, 2, c, h, w] of one class each, noise [p, 2, noise] and chance."""
        device = self.data.x.device
        shots = self.shots[int(torch.randint(len(self.shots), (1,), generator=generator, device=device))]
        each = shots + PER_PARENT
        classes = torch.randint(self.data.classes, (self.parents,), generator=generator, device=device)
        x = pictures(self.data, rows_of_classes(self.data, classes, each, generator))
        x = symmetric(x, self.symmetry, torch.rand(self.parents, 3, generator=generator, device=device))
        z = torch.randn(self.parents, PER_PARENT, self.noise, generator=generator, device=device)
        u = torch.rand(self.parents, PER_PARENT, NUMBERS, generator=generator, device=device)
        return {"support": x[:, :shots], "real": x[:, shots:], "z": z, "u": u}

    def make(self, maker: torch.nn.Module, part: Part) -> Made:
        """Two pictures [p, 2, c, h, w] of each parent."""
        assert isinstance(maker, PictureGenerator)
        return (made_of(maker, part["support"], part["z"], self.attend),)

    def scores(self, part: Part, made: Made) -> tuple[Tensor, Tensor]:
        """Of real pictures [p, 2], and of what is not: made ones, and with `mismatched` real ones of other classes."""
        wrong = [part["real"].roll(1, 0)] if self.mismatched and len(part["real"]) > 1 else []
        scores = self._scored(part, torch.cat([part["real"], made[0], *wrong]), 2 + len(wrong))
        return scores[: len(made[0])], scores[len(made[0]) :]

    def fool(self, part: Part, made: Made) -> Tensor:
        """Minus the mean score of what is made (Miyato et al., ICLR 2018, equation 17)."""
        return -self._scored(part, made[0], 1).mean()

    def steepness(self, part: Part) -> Tensor:
        """The mean squared gradient at real pictures."""
        x = part["real"].detach().requires_grad_()
        return squared_gradient(self._scored(part, x, 1), x)

    def _scored(self, part: Part, x: Tensor, times: int) -> Tensor:
        """Scores [times * p, 2] of x [times * p, 2, c, h, w]; a parent is augmented as the picture beside it is."""
        k, u = x.shape[1], part["u"].repeat(times, 1, 1).flatten(0, 1)
        parent = part["support"][:, :1].expand(-1, k, -1, -1, -1).repeat(times, 1, 1, 1, 1)
        seen = [diff_augment(y.flatten(0, 1), self.policy, u).unflatten(0, (-1, k)) for y in (parent, x)]
        scores: Tensor = self.judge(seen[0], seen[1])
        return scores

    def examine(self, maker: torch.nn.Module) -> Findings:
        """A look at classes that are not trained on (or are, where there are too few to hold any out)."""
        support, real, y = self._looked(self.held_out, _LOOKED_CLASSES, _LOOKED_ROWS)
        assert isinstance(maker, PictureGenerator)
        z = self._latents(len(support), _MADE_EACH, support.device)
        made = made_of(maker, support[:, None], z, self.attend)
        trained, others, _ = self._looked(self.data, _LOOKED_CLASSES, _MADE_EACH)
        scores = (self.judge.alone(trained, others), self.judge.alone(support, real[:, :_MADE_EACH]),
                  self.judge.alone(support, made))  # fmt: skip
        train = some_pictures(self.data)
        found = findings((made.flatten(0, 1), y.repeat_interleave(_MADE_EACH)),
                         (real.flatten(0, 1), y.repeat_interleave(real.shape[1])), train, scores)  # fmt: skip
        left = (made - support[:, None]).square().mean().sqrt() / (real - support[:, None]).square().mean().sqrt()
        return Findings(found.score, found.facts | {"distance_from_parent": float(left)}, found.alarms)

    def sheet(self, maker: torch.nn.Module) -> Tensor:
        """Rows of a held-out parent and seven pictures made of it."""
        support, _, _ = self._looked(self.held_out, _SHEET[0], 1)
        assert isinstance(maker, PictureGenerator)
        made = made_of(maker, support[:, None], self._latents(len(support), _SHEET[1] - 1, support.device), self.attend)
        return torch.cat([support[:, None], made], 1)

    def _latents(self, n: int, each: int, device: torch.device) -> Tensor:
        return chance.normal(chance.row_keys(0, "look", torch.arange(n)), (each, self.noise)).to(device)

    def _looked(self, data: Pixels, classes: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """First pictures [n, c, h, w] of some classes, other ones [n, rows, c, h, w], and the classes [n]."""
        enough = (data.counts > 1).nonzero()[:, 0]
        y = enough[spread(len(enough), classes, enough.device)]
        rows = min(rows, int(data.counts[y].min()) - 1)
        x = pictures(data, data.table[y][:, : rows + 1])
        return x[:, 0], x[:, 1:], y


def made_of(maker: PictureGenerator, support: Tensor, z: Tensor, attend: bool) -> Tensor:
    """Pictures [p, k, c, h, w] of the first of supports [p, s, c, h, w], with noise [p, k, noise]."""
    p, k = z.shape[:2]
    parent = support[:, 0]
    maps = maker.encode(parent.contiguous(memory_format=torch.channels_last))
    shots = maps[-1][:, None]
    if support.shape[1] > 1:
        others = support[:, 1:].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        shots = torch.cat([shots, maker.encode(others)[-1].unflatten(0, (p, -1))], 1)
    code = maker.codes(maps[-1], shots, attend)
    many = [_repeated(m, k) for m in (parent, *maps, code)]  # each parent's k rows together
    return maker.decode(many[0], many[1:-1], many[-1], z.flatten(0, 1)).unflatten(0, (p, k))


def _repeated(x: Tensor, k: int) -> Tensor:
    """Every row k times; maps keep their channels last, which `repeat_interleave` would move."""
    if x.ndim == 2:
        return x.repeat_interleave(k, 0)
    return rearrange(repeat(x, "p c h w -> (p k) h w c", k=k), "n h w c -> n c h w")
