import json
import math

import pytest
import torch
from torch import nn

from augforge.networks.layers import built
from augforge.training.loop import Average, Loop, Run, Stage, cosine, epoch_batches, minimise, step_generator
from augforge.types import InputError


def _net():
    make = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    return built(make, torch.Generator().manual_seed(0))


def _train(run, steps=20, stop=None, lr=0.1, judge=None, settings=None, optimiser=torch.optim.SGD):
    """A loop on random data; `stop` breaks off after so many steps, as if killed."""
    net = _net().train()
    stage = Stage("toy", steps, lr, settings or {"lr": lr}, 0.1, 0.9, 1.0, judge, 4)
    loop = Loop(net, optimiser(net.parameters(), lr), stage, run)
    generator = torch.Generator()
    for step in loop:
        if stop is not None and step == stop:
            return None
        step_generator(generator, 7, step)
        x = torch.randn(16, 4, generator=generator)
        loop.step(nn.functional.cross_entropy(net(x), x.argmax(1) % 3))
    return loop.result()


def _same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_an_epoch_is_a_shuffle_and_a_pure_function():
    batches = epoch_batches(103, 10, seed=3, epoch=2)
    assert [len(rows) for rows in batches] == [10] * 10
    assert len(torch.cat(batches).unique()) == 100
    again = epoch_batches(103, 10, seed=3, epoch=2)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(batches[0], epoch_batches(103, 10, seed=3, epoch=3)[0])
    assert not torch.equal(batches[0], epoch_batches(103, 10, seed=4, epoch=2)[0])
    assert [len(rows) for rows in epoch_batches(7, 10, 0, 0)] == [7]


def test_the_schedule_rises_and_falls():
    assert cosine(0.0) == 1
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(1.0) == pytest.approx(0)
    assert cosine(0.05, warmup=0.1) == 0.5
    assert cosine(0.1, warmup=0.1) == 1


def test_a_step_is_clipped():
    weight = nn.Parameter(torch.zeros(3))
    minimise((1000 * weight).sum(), torch.optim.SGD([weight], 1.0), clip=1.0)
    assert float(weight.detach().norm()) == pytest.approx(1, rel=1e-4)


def test_the_average_follows_the_network():
    net = _net()
    average = Average(net, 0.5)
    expected = {key: value.clone() for key, value in net.state_dict().items()}
    for step in range(1, 4):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(1)
        average.update()
        kept = min(0.5, step / (step + 9))
        expected = {key: kept * expected[key] + (1 - kept) * value for key, value in net.state_dict().items()}
    for key, value in average.state().items():
        assert torch.allclose(value, expected[key])


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, optimiser):
    judge = lambda net: float(net[0].weight.detach().sum())  # noqa: E731
    whole = _train(Run(), judge=judge, optimiser=optimiser)
    for stop in (1, 6, 17):
        run = Run(folder=tmp_path / f"{optimiser.__name__}{stop}", checkpoint_every=-1)  # after every step
        assert _train(run, stop=stop, judge=judge, optimiser=optimiser) is None
        assert _same(_train(run, judge=judge, optimiser=optimiser), whole)
        assert _same(_train(run, judge=judge, optimiser=optimiser), whole)  # nothing is left to do


def test_a_finished_run_that_goes_on_for_longer_is_judged_again(tmp_path):
    looks = []

    def judge(net):
        looks.append(len(looks))
        return float(len(looks))  # the last look is the best

    run = Run(folder=tmp_path, checkpoint_every=0.0)
    _train(run, steps=20, judge=judge)
    short = len(looks)
    longer = _train(run, steps=40, judge=judge)
    assert len(looks) > short
    assert _same(longer, _train(run, steps=40, judge=judge))


def test_the_best_look_is_what_comes_back():
    scores = iter([1.0, 3.0, 2.0, 0.0])
    seen = []

    def judge(net):
        seen.append({key: value.clone() for key, value in net.state_dict().items()})
        return next(scores)

    best = _train(Run(), judge=judge)
    assert len(seen) == 4
    assert all(torch.equal(value, seen[1][key]) for key, value in best.state_dict().items())


def test_other_settings_are_refused(tmp_path):
    run = Run(folder=tmp_path, checkpoint_every=-1)
    _train(run, stop=3, settings={"lr": 0.1, "way": 5})
    with pytest.raises(InputError, match="was begun with way=5, and now way=20 is asked for"):
        _train(run, settings={"lr": 0.1, "way": 20})


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "toy.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        _train(Run(folder=tmp_path))


def test_a_loss_that_is_not_finite_stops_the_run():
    net = _net()
    loop = Loop(net, torch.optim.SGD(net.parameters(), 0.1), Stage("toy", 5, 0.1, {}), Run())
    assert next(iter(loop)) == 0
    loss = net(torch.full((1, 4), math.nan)).sum()
    with pytest.raises(InputError, match="the loss became nan at step 0 of toy; expected a smaller lr"):
        loop.step(loss)


def test_the_log_is_json_lines(tmp_path):
    _train(Run(folder=tmp_path), steps=60, judge=lambda net: 1.0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [0, 50]
    assert [line["step"] for line in lines if "score" in line] == [15, 30, 45, 60]


def test_minutes_end_a_stage():
    assert _train(Run(minutes=1e-9), steps=10**9) is not None
