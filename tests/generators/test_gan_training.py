"""The contest of two networks, on a game of points on a ring that takes milliseconds."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from augforge.generators.shared.gan.discriminators import Spectral
from augforge.generators.shared.gan.objective import Findings, Rules, hinge, lecam, squared_gradient
from augforge.generators.shared.gan.trainer import Contest
from augforge.generators.shared.gan.validation import findings, write_sheet
from augforge.networks.layers import built
from augforge.training import loop as training
from augforge.training.loop import Run
from augforge.types import InputError

RULES = Rules(steps=24, lr=1e-2, judge_lr=1e-2, average=0.9, judgements=3)
SETTINGS = {"game": "ring"}


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Spectral(2, 16), nn.LeakyReLU(0.2), Spectral(16, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


@dataclass
class Ring:
    maker: nn.Module
    judge: nn.Module
    broken: tuple[int, ...] = ()
    stops: int = -1
    rows: int = 16
    steps: int = 0
    looks: int = 0
    score: float | None = None

    def draw(self, generator):
        if self.steps == self.stops:
            raise KeyboardInterrupt
        self.steps += 1
        angle = torch.rand(self.rows, generator=generator) * 2 * math.pi
        real = torch.stack([angle.cos(), angle.sin()], 1)
        return {"real": real, "z": torch.randn(self.rows, 4, generator=generator)}

    def make(self, maker, part):
        return (maker(part["z"]),)

    def scores(self, part, made):
        broken = torch.nan if self.steps - 1 in self.broken else 0.0
        return self.judge(part["real"]) + broken, self.judge(made[0])

    def fool(self, part, made):
        return -self.judge(made[0]).mean()

    def steepness(self, part):
        x = part["real"].requires_grad_()
        return squared_gradient(self.judge(x), x)

    def examine(self, maker):
        self.looks += 1
        score = float(maker.state_dict()["0.weight"].sum()) if self.score is None else self.score
        return Findings(score, {"looks": self.looks}, ["a look"] if self.looks == 1 else [])

    def sheet(self, maker):
        return torch.zeros(2, 3, 1, 4, 4)


def _game(**changes):
    rng = torch.Generator().manual_seed(1)
    maker = built(lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), rng)
    return Ring(maker, built(Judge, rng), **changes)


def _contest(game, run=None, rules=RULES):
    return Contest(game, rules, run or Run(), "ring", SETTINGS, seed=3)


def _weights(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()])


def _losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["judge_loss"], line["maker_loss"]) for line in lines if "judge_loss" in line]


def _float32(monkeypatch):
    monkeypatch.setattr(training, "is_bfloat16_fast", lambda device: False)


def test_losses_against_their_formulas():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert float(hinge(real, fake)) == pytest.approx((0 + 0.5) / 2 + (0 + 2) / 2)
    levels = torch.tensor([1.0, -1.0])  # of real and of made
    assert float(lecam(real, fake, levels)) == pytest.approx((9 + 2.25) / 2 + (16 + 0) / 2)
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    assert float(squared_gradient((x**2).sum(1), x).detach()) == pytest.approx((4 + 16 + 0 + 4) / 2)


@pytest.mark.parametrize("patience", [0, 3])
def test_the_last_weights_are_kept_or_those_of_the_best_look(patience):
    game = _game()
    contest = _contest(game, rules=replace(RULES, patience=patience))
    made = contest.play()
    assert contest.done == RULES.steps
    assert game.looks == RULES.judgements
    assert contest.alarms == ["a look"]
    assert not made.training
    kept = contest.best if patience else contest.average.state()
    assert torch.equal(_weights(made), torch.cat([value.flatten() for value in kept.values()]))
    assert contest.best_score == pytest.approx(float(contest.best["0.weight"].sum()))


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path):
    whole = _contest(_game(), Run(folder=tmp_path / "whole", checkpoint_every=0)).play()
    with pytest.raises(KeyboardInterrupt):
        _contest(_game(stops=13), Run(folder=tmp_path / "cut", checkpoint_every=0)).play()
    contest = _contest(_game(), Run(folder=tmp_path / "cut", checkpoint_every=0))
    assert contest.done == 13
    assert torch.equal(_weights(contest.play()), _weights(whole))
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "whole")
    with pytest.raises(InputError, match="was begun with game='ring'"):
        Contest(_game(), RULES, Run(folder=tmp_path / "cut"), "ring", {"game": "disc"}, seed=3)


def test_a_batch_in_parts_is_the_whole_batch(monkeypatch):
    _float32(monkeypatch)
    whole = _contest(_game()).play()
    parts = _contest(_game(), rules=replace(RULES, accumulate=4)).play()
    assert torch.allclose(_weights(whole), _weights(parts), atol=1e-5)
    with pytest.raises(InputError, match="a batch of 16 was to be cut into 3 parts"):
        _contest(_game(), rules=replace(RULES, accumulate=3)).play()


PROCESS = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
import test_gan_training as tests
from augforge.training import loop as training
training.is_bfloat16_fast = lambda device: False
rank, folder = int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
made = tests._contest(tests._game(), tests.Run(folder=folder / "two")).play()
torch.save(tests._weights(made), folder / f"{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_do_what_one_does_with_the_whole_batch(tmp_path, monkeypatch):
    _float32(monkeypatch)
    one = _contest(_game(), Run(folder=tmp_path / "one")).play()
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", PROCESS, here]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE) for rank in range(2)]
    for process in both:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors.decode()
    for rank in range(2):
        assert torch.allclose(_weights(one), torch.load(tmp_path / f"{rank}.pt", weights_only=True), atol=1e-5)
    for first, second in zip(_losses(tmp_path / "one"), _losses(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("changes", [{"r1": 1.0}, {"lecam": 0.3}])
def test_regularisers_change_what_is_learnt_and_stay_finite(changes):
    plain = _contest(_game()).play()
    other = _contest(_game(), rules=replace(RULES, **changes)).play()
    assert torch.isfinite(_weights(other)).all()
    assert not torch.equal(_weights(plain), _weights(other))


def test_losses_that_are_not_finite_lead_back(tmp_path):
    contest = _contest(_game(broken=(7, 9)), Run(folder=tmp_path))
    made = contest.play()
    assert torch.isfinite(_weights(made)).all()
    assert contest.done == RULES.steps
    assert contest.retries == 2
    assert sum("went back to step 0" in alarm for alarm in contest.alarms) == 2
    assert '"alarm": "losses [NaN' in (tmp_path / "log.jsonl").read_text().replace("nan", "NaN")
    with pytest.raises(InputError, match="expected a smaller lr"):
        _contest(_game(broken=tuple(range(100)))).play()


def test_patience_ends_a_run_that_gets_no_better():
    contest = _contest(_game(score=1.0), rules=replace(RULES, judgements=12, patience=2))
    contest.play()
    assert contest.done == 6  # one look that counts, two that are no better, every second step


def test_it_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    _contest(_game()).play()
    assert torch.equal(torch.get_rng_state(), before)


def _pictures(n, seed):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def _found(made, train=None, scores=(1.0, 0.9, -1.0)):
    y = torch.arange(8)
    train = _pictures(256, 2) if train is None else train
    three = tuple(torch.full((4,), score) for score in scores)
    return findings(
        (made, y.repeat_interleave(len(made) // 8)), (_pictures(64, 3), y.repeat_interleave(8)), train, three
    )


def test_a_look_at_good_pictures_finds_nothing_wrong():
    found = _found(_pictures(32, 4))
    assert found.alarms == []
    assert found.facts["diversity"] == pytest.approx(1, abs=0.2)
    assert found.facts["memorisation"] == pytest.approx(1, abs=0.1)
    assert found.facts["discriminator_gap"] == pytest.approx(0.05)
    assert found.score == -found.facts["kernel_distance"]


def test_a_discriminator_that_tells_nothing_apart_has_no_gap():
    assert "discriminator_gap" not in _found(_pictures(32, 4), scores=(-1.0, 2.0, 0.5)).facts


@pytest.mark.parametrize("kind", ["collapse", "memorisation", "discriminator overfitting"])
def test_a_look_sounds_the_alarm(kind):
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
