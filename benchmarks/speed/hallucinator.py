"""Meta-training of the published hallucinator and synthesis of a million feature rows, on one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/speed/hallucinator.py [--json] [--rounds 9]

Training: 20-way 1-shot episodes of 512 features with 5 queries, 5 and 20 rows made of each class, through prototypes.
The peer is what public re-implementations of Wang et al. (2018) do: one episode at a time in float32, seed and noise
joined for every row, class means in a loop, a step of Adam on each; the mathematics are the same (`--check` compares
the losses). Synthesis: seconds of CPU time for a million rows by pooled noise, the posterior, our hallucinator and
the published one; there is no peer, and the ratio is that of 20 s to them. Fit: seconds of CPU time for the posterior
on 100,000 rows of 512 features, 10,000 of them of validation classes, against 10 s.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from paired import paired, show
from torch import Tensor, nn

from augforge import chance
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank
from augforge.generators.hallucinator import Hallucinator
from augforge.generators.noise import Noise
from augforge.generators.posterior import Posterior
from augforge.generators.shared.feature_learning import EpisodeSettings
from augforge.generators.wang_hallucinator import WangHallucinator
from augforge.generators.wang_hallucinator.meta_training import ThroughClassifier
from augforge.generators.wang_hallucinator.network import Hallucination
from augforge.training.loop import minimise
from augforge.types import Examples

WIDTH, WAY, QUERY, EPISODES, RATE = 512, 20, 5, 16, 1e-4
MILLION, AT_ONCE, SHARE = 1_000_000, 8192, 16  # as `augforge synth` asks; a 16th of a million is timed and scaled up
LIMIT, FIT_LIMIT = 20.0, 10.0


class PlainHallucinator(nn.Module):
    """G(x, z) on the joined seed and noise, as it is usually written."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(2 * WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH)]
        self.layers = nn.Sequential(*(m for i, o in sizes for m in (nn.Linear(i, o), nn.ReLU())))
        with torch.no_grad():
            for layer in self.layers[::2]:
                nn.init.eye_(layer.weight)  # [I; 0]: the columns of the noise are 0
                layer.bias.zero_()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """[n, d], [n, d] -> [n, d]."""
        return self.layers(torch.cat([x, z], 1))


def plain_loss(net: nn.Module, support: Tensor, query: Tensor, z: Tensor) -> Tensor:
    """The loss of one episode: support [way, d], query [way, q, d], z [way, made, d]."""
    way, made = z.shape[:2]
    fakes = net(support.repeat_interleave(made, 0), z.reshape(-1, WIDTH))
    labels = torch.arange(way).repeat_interleave(made)
    means = torch.stack([torch.cat([support[k : k + 1], fakes[labels == k]]).mean(0) for k in range(way)])
    target = torch.arange(way).repeat_interleave(query.shape[1])
    return F.cross_entropy(-torch.cdist(query.reshape(-1, WIDTH), means).square(), target)


def steps(made: int, rng: torch.Generator) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Ours and the peer's pass over the same 16 episodes; each returns its mean loss."""
    centres = torch.rand(EPISODES, WAY, 1, WIDTH, generator=rng)
    rows = (centres + 0.3 * torch.randn(EPISODES, WAY, 1 + QUERY, WIDTH, generator=rng)).relu() / 8
    support, query = rows[:, :, :1], rows[:, :, 1:]
    settings = EpisodeSettings(WAY, (1,), QUERY, EPISODES, 1 + made)
    model, plain, classifier = ThroughClassifier(Hallucination(WIDTH), None, 1.0, 1.0), PlainHallucinator(), Prototype()
    ours, theirs = torch.optim.Adam(model.parameters(), RATE, fused=True), torch.optim.Adam(plain.parameters(), RATE)

    def batched() -> Tensor:
        loss = model.loss(classifier, support, query, settings.noise(1, WIDTH, rng))
        minimise(loss, ours)
        return loss.detach()

    def one_by_one() -> Tensor:
        losses = []
        for i in range(EPISODES):
            z = torch.randn(WAY, made, WIDTH, generator=rng)
            loss = plain_loss(plain, support[i, :, 0], query[i], z)
            theirs.zero_grad()
            loss.backward()
            theirs.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    return batched, one_by_one


def synthesis(rounds: int) -> list[dict]:
    """Seconds for a million rows of 512 numbers, from 25 classes x 5 rows, by noise and by the hallucinator."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(50).repeat_interleave(40)
    x = (torch.rand(50, WIDTH, generator=rng)[y] + 0.3 * torch.randn(len(y), WIDTH, generator=rng)).relu()
    bank = FeatureBank(x, y, tuple(map(str, range(50))))
    wang = WangHallucinator()
    wang.build({"features": WIDTH, "relus": 3})  # its speed does not depend on its numbers
    val = FeatureBank(x[:800], y[:800], bank.classes[:20])
    rows = torch.arange(len(y)).view(50, 40)[:25, :5].flatten()  # [25 * 5]
    support = Examples(x[rows], y[rows])
    found = []
    for name, part in (("noise", Noise().fit(bank, rng)), ("posterior", Posterior().fit(bank, rng, val)),
                       ("hallucinator", Hallucinator().fit(bank, rng, val)), ("wang-hallucinator", wang)):  # fmt: skip
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            with torch.no_grad():
                for index in torch.arange(MILLION // SHARE).split(AT_ONCE):
                    part.synthesize(support, index % 25, chance.row_keys(0, "speed", index))
            seconds.append((time.process_time() - start) * SHARE)
        found.append(against(f"1,000,000 rows, {name}", seconds, LIMIT))
    return found


def fitting(rounds: int) -> dict:
    """Seconds of the posterior's fit on 100,000 rows of 200 classes, the last 20 of them for validation."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(200).repeat_interleave(500)
    x = (torch.rand(200, WIDTH, generator=rng)[y] + 0.6 * torch.randn(len(y), WIDTH, generator=rng)).relu()
    known, names = 180 * 500, tuple(map(str, range(200)))
    base, val = FeatureBank(x[:known], y[:known], names[:180]), FeatureBank(x[known:], y[known:] - 180, names[180:])
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        Posterior().fit(base, torch.Generator().manual_seed(0), val)
        seconds.append(time.process_time() - start)
    return against("posterior, fit on 100,000 rows", seconds, FIT_LIMIT)


def against(case: str, seconds: list[float], limit: float) -> dict:
    """A row for what has no peer but a limit in seconds."""
    seconds = sorted(seconds)
    median = seconds[len(seconds) // 2]
    return {"case": case, "peer": f"the limit of {limit:.0f} s", "seconds": median, "ratio": round(limit / median, 2),
            "low": round(limit / seconds[-1], 2), "high": round(limit / seconds[0], 2)}  # fmt: skip


def check() -> None:
    """Print both losses of the same episode after the networks have got the same numbers, to stderr."""
    rng = torch.Generator().manual_seed(1)
    net, plain = Hallucination(WIDTH), PlainHallucinator()
    with torch.no_grad():
        for layer in (net.noise, net.second, net.third):
            layer.weight.add_(0.01 * torch.randn(layer.weight.shape, generator=rng))
        plain.layers[0].weight.copy_(torch.cat([net.seed.weight, net.noise.weight], 1))
        plain.layers[2].weight.copy_(net.second.weight)
        plain.layers[4].weight.copy_(net.third.weight)
    support, query, z = (torch.rand(1, WAY, n, WIDTH, generator=rng) / 4 for n in (1, QUERY, 5))
    ours = ThroughClassifier(net, None, 1.0, 1.0).loss(Prototype(), support, query, z)
    theirs = plain_loss(plain, support[0, :, 0], query[0], z[0])
    print(f"loss of one episode: ours {float(ours.detach()):.4f}, plain {float(theirs.detach()):.4f}", file=sys.stderr)


def main() -> None:
    """Measure training with 5 and 20 made rows, and synthesis."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--check", action="store_true", help="compare the two losses, on stderr")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.check:
        check()
    rows = []
    for made in (5, 20):
        ours, peer = steps(made, torch.Generator().manual_seed(0))
        measured = paired(ours, peer, options.rounds)
        speeds = {"episodes_per_second": round(EPISODES / measured["seconds"], 1),
                  "peer_episodes_per_second": round(EPISODES / measured["peer_seconds"], 1)}  # fmt: skip
        rows.append({"case": f"meta-training 20w1s, {made} made", "peer": "one episode at a time, float32",
                     **measured, **speeds})  # fmt: skip
    rows += [*synthesis(options.rounds), fitting(max(1, options.rounds // 3))]
    show(rows, options.json)


if __name__ == "__main__":
    main()
