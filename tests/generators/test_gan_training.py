"""Training of two networks against each other, on points on a ring, which takes milliseconds; and evaluations."""

import json
import math
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from augforge.generators.shared.gan.discriminators import Spectral
from augforge.generators.shared.gan.objective import GanSettings, hinge, lecam, squared_gradient
from augforge.generators.shared.gan.trainer import train_gan
from augforge.generators.shared.gan.validation import evaluate_pictures, write_sheet
from augforge.networks.layers import built
from augforge.training.loop import Evaluation, Run
from augforge.types import InputError

SETTINGS = GanSettings(steps=24, generator_rate=1e-2, discriminator_rate=1e-2, average=0.9, evaluations=3)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Spectral(2, 16), nn.LeakyReLU(0.2), Spectral(16, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


@dataclass
class Ring:
    """An objective that notes the generator's weights at each evaluation."""

    generator: nn.Module
    discriminator: nn.Module
    broken: tuple[int, ...] = ()  # the draws whose scores are NaN
    stops: int = -1  # the draw at which the process is killed
    rows: int = 16
    score: float | None = None
    draws: int = 0
    seen: list[torch.Tensor] = field(default_factory=list)
    scored: list[float] = field(default_factory=list)

    def draw(self, rng, fraction):
        if self.draws == self.stops:
            raise KeyboardInterrupt
        self.draws += 1
        angle = torch.rand(self.rows, generator=rng) * 2 * math.pi
        real = torch.stack([angle.cos(), angle.sin()], 1)
        return {"real": real, "z": torch.randn(self.rows, 4, generator=rng)}

    def generate(self, batch):
        return (self.generator(batch["z"]),)

    def scores(self, batch, generated):
        broken = torch.nan if self.draws - 1 in self.broken else 0.0
        return self.discriminator(batch["real"]) + broken, self.discriminator(generated[0])

    def generator_loss(self, batch, generated):
        return -self.discriminator(generated[0]).mean()

    def gradient_penalty(self, batch):
        x = batch["real"].requires_grad_()
        return squared_gradient(self.discriminator(x), x)

    def evaluate(self):
        self.seen.append(_weights(self.generator))
        self.scored.append(float(self.seen[-1].sum()) if self.score is None else self.score)
        return Evaluation(self.scored[-1], {"rows": self.rows}, ["seen"] if len(self.seen) == 1 else [])

    def sheet(self):
        return torch.zeros(2, 3, 1, 4, 4)


def _ring(**changes):
    rng = torch.Generator().manual_seed(1)
    generator = built(lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), rng)
    return Ring(generator, built(Discriminator, rng), **changes)


def _train(ring, run=None, settings=SETTINGS, points="ring"):
    """The generator's weights after training, and the alarms."""
    alarms = train_gan(ring, settings, run or Run(), "ring", {"points": points}, seed=3)
    assert not ring.generator.training
    return _weights(ring.generator), alarms


def _weights(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()]).clone()


def _lines(folder, key):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


@contextmanager
def _float32():
    """Without bfloat16, in which parts of a batch differ from the whole by more than rounding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        yield


def _losses(folder):
    return [(line["step"], line["judge_loss"], line["maker_loss"]) for line in _lines(folder, "judge_loss")]


def test_losses_against_their_formulas():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert float(hinge(real, fake)) == pytest.approx((0 + 0.5) / 2 + (0 + 2) / 2)
    levels = torch.tensor([1.0, -1.0])  # of real and of made
    assert float(lecam(real, fake, levels)) == pytest.approx((9 + 2.25) / 2 + (16 + 0) / 2)
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    assert float(squared_gradient((x**2).sum(1), x).detach()) == pytest.approx((4 + 16 + 0 + 4) / 2)


@pytest.mark.parametrize("patience", [0, 3])
def test_the_last_weights_are_kept_or_those_of_the_best_evaluation(patience):
    ring = _ring()
    weights, alarms = _train(ring, settings=replace(SETTINGS, patience=patience))
    assert ring.draws == SETTINGS.steps
    assert len(ring.seen) == SETTINGS.evaluations
    assert alarms == ["seen"]
    best = max(range(3), key=ring.scored.__getitem__)
    assert torch.equal(weights, ring.seen[best if patience else -1])


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path):
    whole, _ = _train(_ring(), Run(folder=tmp_path / "whole", checkpoint_every=-1))
    with pytest.raises(KeyboardInterrupt):
        _train(_ring(stops=13), Run(folder=tmp_path / "cut", checkpoint_every=-1))
    rest = _ring()
    assert torch.equal(_train(rest, Run(folder=tmp_path / "cut", checkpoint_every=-1))[0], whole)
    assert rest.draws == SETTINGS.steps - 13
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "whole")
    with pytest.raises(InputError, match="was begun with points='ring', and now points='disc' is asked for"):
        _train(_ring(), Run(folder=tmp_path / "cut"), points="disc")


def test_a_batch_in_parts_is_the_whole_batch():
    with _float32():
        whole, _ = _train(_ring())
        parts, _ = _train(_ring(), settings=replace(SETTINGS, accumulate=4))
    assert torch.allclose(whole, parts, atol=1e-5)
    with pytest.raises(InputError, match="a batch of 16 was to be cut into 3 parts"):
        _train(_ring(), settings=replace(SETTINGS, accumulate=3))


PROCESS = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
import test_gan_training as tests
from dataclasses import replace
rank, folder = int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
with tests._float32():
    weights, _ = tests._train(tests._ring(), tests.Run(folder=folder / "two"))
    # Only the second process finds its scores better and better: the first one's say when to end
    ring = tests._ring(score=1.0 if rank == 0 else None)
    tests._train(ring, settings=replace(tests.SETTINGS, evaluations=12, patience=2))
torch.save((weights, torch.tensor(ring.draws)), folder / f"{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_do_what_one_does_with_the_whole_batch(tmp_path):
    with _float32():
        one, _ = _train(_ring(), Run(folder=tmp_path / "one"))
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parent)]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE) for rank in range(2)]
    for process in both:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors.decode()
    for rank in range(2):
        weights, draws = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(one, weights, atol=1e-5)
        assert int(draws) == 6  # one evaluation that counts, two that are no better, every second step
    for first, second in zip(_losses(tmp_path / "one"), _losses(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("changes", [{"r1": 1.0}, {"lecam": 0.3}])
def test_regularisers_change_what_is_learnt_and_stay_finite(changes):
    plain, _ = _train(_ring())
    other, _ = _train(_ring(), settings=replace(SETTINGS, **changes))
    assert torch.isfinite(other).all()
    assert not torch.equal(plain, other)


@pytest.mark.parametrize("every", [1, 50])
@pytest.mark.parametrize("broken", [(7, 9), (60,), (99,), (170,), (239,)], ids=str)
def test_losses_that_are_not_finite_lead_back(tmp_path, broken, every):
    """Also where losses are checked every 50 steps only, as on a device."""
    ring, run = _ring(broken=broken), Run(folder=tmp_path, check_every=every)
    weights, alarms = _train(ring, run, replace(SETTINGS, steps=240))
    assert torch.isfinite(weights).all()
    assert all(torch.isfinite(seen).all() for seen in ring.seen)
    back = [alarm for alarm in alarms if "went back to step" in alarm]
    assert 1 <= len(back) <= len(broken)
    assert [line["alarm"] for line in _lines(tmp_path, "alarm")] == alarms


def test_losses_that_stay_not_finite_are_an_error():
    with pytest.raises(InputError, match="the losses of ring were not finite 6 times; expected a smaller lr"):
        _train(_ring(broken=tuple(range(100))))


def test_patience_ends_a_run_that_gets_no_better():
    ring = _ring(score=1.0)
    _train(ring, settings=replace(SETTINGS, evaluations=12, patience=2))
    assert ring.draws == 6  # one evaluation that counts, two that are no better, every second step


def test_it_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    _train(_ring())
    assert torch.equal(torch.get_rng_state(), before)


def _pictures(n, seed):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def _found(made, train=None, scores=(1.0, 0.9, -1.0)):
    y = torch.arange(8)
    train = _pictures(256, 2) if train is None else train
    three = tuple(torch.full((4,), score) for score in scores)
    return evaluate_pictures(
        (made, y.repeat_interleave(len(made) // 8)), (_pictures(64, 3), y.repeat_interleave(8)), train, three
    )


def test_an_evaluation_of_good_pictures_finds_nothing_wrong():
    found = _found(_pictures(32, 4))
    assert found.alarms == []
    assert found.facts["diversity"] == pytest.approx(1, abs=0.2)
    assert found.facts["memorisation"] == pytest.approx(1, abs=0.1)
    assert found.facts["discriminator_gap"] == pytest.approx(0.05)
    assert found.score == -found.facts["kernel_distance"]


def test_a_discriminator_that_tells_nothing_apart_has_no_gap():
    assert "discriminator_gap" not in _found(_pictures(32, 4), scores=(-1.0, 2.0, 0.5)).facts


@pytest.mark.parametrize("kind", ["collapse", "memorisation", "discriminator overfitting"])
def test_an_evaluation_raises_alarms(kind):
    train = _pictures(256, 2)
    if kind == "collapse":
        found = _found(_pictures(8, 4).repeat_interleave(4, 0))
    elif kind == "memorisation":
        found = _found(train[:32] + 0.01 * _pictures(32, 5), train)
    else:
        found = _found(_pictures(32, 4), scores=(1.0, -0.5, -1.0))
    assert [alarm.partition(":")[0] for alarm in found.alarms] == [kind]


def test_a_worse_generator_has_a_lower_score():
    assert _found(_pictures(32, 4)).score > _found(_pictures(32, 4) ** 3).score


def test_a_sheet_is_a_picture_of_rows_and_columns(tmp_path):
    import cv2

    write_sheet(torch.rand(2, 5, 3, 8, 8), str(tmp_path / "sheet.png"))
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (2 * 10, 5 * 10, 3)
