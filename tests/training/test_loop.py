import json
import math
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from augforge.networks.layers import built
from augforge.training.loop import (
    Average,
    Evaluation,
    Loop,
    Run,
    Stage,
    cosine,
    epoch_batches,
    is_bfloat16_fast,
    minimise,
    step_generator,
)
from augforge.types import InputError


def _net():
    make = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    return built(make, torch.Generator().manual_seed(0))


def _train(run, steps=20, stop=None, lr=0.1, evaluate=None, settings=None, optimiser=torch.optim.SGD):
    """A loop on random data; `stop` breaks off after so many steps, as if killed."""
    net = _net().train()
    stage = Stage("toy", steps, settings or {"lr": lr}, partial(cosine, warmup=0.1), 0.9, 1.0, evaluate, 4)
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
    evaluate = lambda net: float(net[0].weight.detach().sum())  # noqa: E731
    whole = _train(Run(), evaluate=evaluate, optimiser=optimiser)
    for stop in (1, 6, 17):
        run = Run(folder=tmp_path / f"{optimiser.__name__}{stop}", checkpoint_every=-1)  # after every step
        assert _train(run, stop=stop, evaluate=evaluate, optimiser=optimiser) is None
        assert _same(_train(run, evaluate=evaluate, optimiser=optimiser), whole)
        assert _same(_train(run, evaluate=evaluate, optimiser=optimiser), whole)  # nothing is left to do


def test_a_finished_run_that_goes_on_for_longer_is_evaluated_again(tmp_path):
    scores = []

    def evaluate(net):
        scores.append(len(scores))
        return float(len(scores))  # the last one is the best

    run = Run(folder=tmp_path, checkpoint_every=0.0)
    _train(run, steps=20, evaluate=evaluate)
    short = len(scores)
    longer = _train(run, steps=40, evaluate=evaluate)
    assert len(scores) > short
    assert _same(longer, _train(run, steps=40, evaluate=evaluate))


def test_the_weights_of_the_best_evaluation_come_back():
    scores = iter([1.0, 3.0, 2.0, 0.0])
    seen = []

    def evaluate(net):
        seen.append({key: value.clone() for key, value in net.state_dict().items()})
        return next(scores)

    best = _train(Run(), evaluate=evaluate)
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
    with pytest.raises(InputError, match="the loss became nan at step 3 of toy; expected a smaller lr"):
        _train_on_broken(Run(), 20, {3})


def test_the_log_is_json_lines(tmp_path):
    _train(Run(folder=tmp_path), steps=60, evaluate=lambda net: 1.0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [0, 50]
    assert [line["step"] for line in lines if "score" in line] == [15, 30, 45, 60]


def test_a_log_that_goes_on_is_that_of_one_run(tmp_path):  # checkpoints are those before its four evaluations
    logs = {}
    for name, stops in (("whole", ()), ("killed", (7, 52, 110))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text('{"stage": "before", "step": 0}\n')
        for stop in (*stops, None):
            _train(Run(folder=tmp_path / name), 150, stop, evaluate=lambda net: 1.0)
            if stop is not None:
                with open(tmp_path / name / "log.jsonl", "a") as log:
                    log.write('{"stage": "toy", "st')  # killed in the midst of a line
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        logs[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    assert logs["killed"] == logs["whole"]


def test_a_run_that_is_killed_in_an_evaluation_takes_it_anew(tmp_path):
    def killed(net):
        raise RuntimeError("as if killed")

    score = lambda net: float(net[0].weight.detach().sum())  # noqa: E731 - the best is kept
    with pytest.raises(RuntimeError, match="as if killed"):
        _train(Run(folder=tmp_path / "killed"), evaluate=killed)
    for name in ("killed", "whole"):
        assert _same(_train(Run(folder=tmp_path / name), evaluate=score), _train(Run(), evaluate=score))
    scores = [
        [line["score"] for line in map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
         if "score" in line] for name in ("killed", "whole")
    ]  # fmt: skip
    assert scores[0] == scores[1]
    assert len(scores[0]) == 4


def test_minutes_end_a_stage():
    assert _train(Run(minutes=1e-9), steps=10**9) is not None


def _train_on_broken(run, steps, broken, **settings):
    """A loop that has seen a loss of NaN in the `broken`-th of its turns; the loop, and weights at each evaluation."""
    net, seen, turns = _net().train(), [], iter(range(10**9))

    def evaluate(net):
        seen.append(torch.cat([value.flatten() for value in net.state_dict().values()]).clone())
        return 1.0

    stage = Stage("toy", steps, {}, average=0.9, evaluate=evaluate, evaluations=4, keep_best=False, **settings)
    loop = Loop(net, torch.optim.SGD(net.parameters(), 0.1), stage, run)
    for step in loop:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step + 1000 * loop.retries))
        loss = nn.functional.cross_entropy(net(x), x.argmax(1) % 3)
        loop.step(loss * (math.nan if next(turns) in broken else 1))
    return loop, seen


BROKEN = [{0}, {60}, {99}, {100}, {170}, {249}, {251}, {60, 230}]


@pytest.mark.parametrize("broken", BROKEN, ids=str)
@pytest.mark.parametrize("every", [1, 50])
def test_losses_that_are_not_finite_are_stepped_back_from(tmp_path, broken, every):
    """As on a device, where losses are checked in every 50th step only; a checkpoint is written after each step."""
    run = Run(folder=tmp_path, checkpoint_every=-1, check_every=every)
    loop, seen = _train_on_broken(run, 252, broken, retries=5)
    assert loop.done == 252
    assert loop.retries == len(loop.alarms) == len(broken)
    assert len(seen) >= 4  # once more where the run stepped back behind one
    saved = load_file(tmp_path / "toy.safetensors")
    for weights in (*seen, *loop.result().state_dict().values(), *(x for x in saved.values() if x.is_floating_point())):
        assert torch.isfinite(weights).all()


@pytest.mark.parametrize("broken", BROKEN[:-1], ids=str)
def test_losses_that_are_not_finite_are_never_returned_written_or_evaluated(tmp_path, broken):
    run = Run(folder=tmp_path, checkpoint_every=-1, check_every=50)
    with pytest.raises(InputError, match=r"the loss became nan at step \d+ of toy; expected a smaller lr"):
        _train_on_broken(run, 252, broken)
    path = tmp_path / "toy.safetensors"
    assert all(torch.isfinite(x).all() for x in (load_file(path) if path.exists() else {}).values())


def test_a_run_steps_back_so_often_and_no_more():
    with pytest.raises(InputError, match="the losses of toy were not finite 3 times; expected a smaller lr"):
        _train_on_broken(Run(), 20, set(range(20)), retries=2)


def test_how_often_losses_are_checked_changes_nothing_that_is_learnt():
    often, seldom = (_train_on_broken(Run(check_every=every), 120, ())[0].result() for every in (1, 50))
    assert _same(often, seldom)


def test_patience_ends_a_stage():
    loop, seen = _train_on_broken(Run(), 20, (), patience=2)
    assert len(seen) == 3  # one that counts, and two that are no better
    assert loop.done == 15


def test_alarms_of_an_evaluation_are_logged_and_kept(tmp_path):
    found = Evaluation(1.0, {"distance": 2.0}, ["collapse: all alike"])
    net = _train(Run(folder=tmp_path), evaluate=lambda net: found)
    assert net is not None
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["distance"] for line in lines if "score" in line] == [2.0] * 4
    assert [line["alarm"] for line in lines if "alarm" in line] == ["collapse: all alike"] * 4


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_bfloat16_is_fast_on_cuda_from_ampere_on(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert is_bfloat16_fast("cuda:0") == (capability >= (8, 0))


def test_an_evaluation_that_cannot_be_computed_ends_nothing(tmp_path):
    def evaluate(net):
        raise InputError("there is 1 held-out row; the kernel distance needs at least 2")

    run = Run(folder=tmp_path)
    assert _same(_train(run, evaluate=evaluate), _train(Run(), evaluate=lambda net: Evaluation(math.nan)))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert not any("score" in line for line in log)
    assert any("the evaluation is left out: there is 1 held-out row" in line.get("alarm", "") for line in log)


def test_what_was_trained_is_written_before_it_is_evaluated(tmp_path):
    def evaluate(net):
        raise RuntimeError("of the machine")

    with pytest.raises(RuntimeError, match="of the machine"):
        _train(Run(folder=tmp_path), evaluate=evaluate)
    assert (tmp_path / "toy.safetensors").exists()
    assert _same(_train(Run(folder=tmp_path)), _train(Run()))


def test_scores_that_are_no_numbers_are_neither_the_best_nor_worse():
    scores = iter([1.0, math.nan, math.nan, math.nan])
    net = _net().train()
    stage = Stage("toy", 20, {}, evaluate=lambda net: next(scores), evaluations=4, patience=2)
    loop = Loop(net, torch.optim.SGD(net.parameters(), 0.1), stage, Run())
    for _ in loop:
        loop.step(net(torch.ones(1, 4)).square().sum())
    assert (loop.done, loop.best_score, loop.worse) == (20, 1.0, 0)
