import pytest
import torch

from augforge.data.banks import FeatureBank
from augforge.protocols.low_shot import (
    LowShot,
    best_prior,
    concatenate_banks,
    draw_low_shot,
    evaluate,
    held_out,
    mean_priors,
)
from augforge.types import InputError

BASE, NOVEL = 4, 3


def _bank(each=30, seed=0, spread=1.5):
    centres = torch.randn(BASE + NOVEL, 6, generator=torch.Generator().manual_seed(9))
    y = torch.arange(BASE + NOVEL).repeat_interleave(each)
    x = centres[y] + spread * torch.randn(len(y), 6, generator=torch.Generator().manual_seed(seed))
    return FeatureBank(x, y, tuple("abcdefg"), "bank")


def _task(**changes):
    return draw_low_shot(_bank(), _bank(12, seed=1), "ceg", **changes)


def _prototypes(support, query):
    means = torch.stack([support.x[support.y == c].mean(0) for c in range(int(support.y.max()) + 1)])
    return -torch.cdist(query, means)


def _answers(answers):
    """Scores that are given, whatever is asked; and what they were asked with."""
    asked = []

    def scores(support, query):
        asked.append((support, query))
        return answers(query)

    return scores, asked


def test_the_label_space_is_base_then_novel():
    task = _task(draws=2)
    assert task.base.tolist() == [0, 1, 3, 5]
    assert task.novel.tolist() == [2, 4, 6]
    scores, asked = _answers(lambda query: torch.rand(len(query), 7))
    evaluate(task, scores, (1, 5))
    assert len(asked) == 4
    for (support, query), (draw, shot) in zip(asked, [(0, 1), (0, 5), (1, 1), (1, 5)], strict=True):
        assert torch.bincount(support.y).tolist() == [30] * 4 + [shot] * 3
        assert torch.equal(query, task.test.x)
        for i in range(3):
            assert torch.equal(support.x[support.y == 4 + i], task.train.x[task.draws[draw, i, :shot]])
        for i, c in enumerate((0, 1, 3, 5)):
            assert torch.equal(support.x[support.y == i], task.train.x[task.train.y == c])


def test_the_draws_are_fixed_and_differ():
    task, again = _task(), _task()
    assert task.draws.shape == (5, 3, 20)
    assert torch.equal(task.draws, again.draws)
    assert torch.equal(_task(draws=2).draws, task.draws[:2])
    assert len({tuple(draw.flatten().tolist()) for draw in task.draws}) == 5
    assert all(len(set(line.tolist())) == 20 for draw in task.draws for line in draw)


def _slow(scores, y, k, kind):
    """Top-k by counting, one query at a time."""
    right = [sum(float(s) >= float(row[c]) for s in row) <= k for row, c in zip(scores, y.tolist(), strict=True)]
    return sum(r for r, use in zip(right, kind, strict=True) if use) / int(kind.sum())


@pytest.mark.parametrize("rounded", [False, True])
def test_accuracies_are_those_of_a_slow_count(rounded):
    task = _task(draws=1)
    given = torch.randn(len(task.test), 7, generator=torch.Generator().manual_seed(3)) * 2
    given = given.round() if rounded else given
    position = torch.tensor([0, 1, 4, 2, 5, 3, 6])
    y = position[task.test.y]
    for prior in (0.0, 1.5, -2.0):
        (found,) = evaluate(task, lambda s, q: given, (1,), {(1, 1): prior, (1, 5): prior})
        moved = given + prior * (torch.arange(7) >= 4)
        for k, part in ((1, found.top1), (5, found.top5)):
            assert part.novel == pytest.approx(_slow(given, y, k, y >= 4))
            assert part.base == pytest.approx(_slow(given, y, k, y < 4))
            assert part.all == pytest.approx(_slow(given, y, k, y >= 0))
            assert part.all_prior == pytest.approx(_slow(moved, y, k, y >= 0))
            assert part.prior == prior


def test_scores_that_say_nothing_are_never_right():
    (found,) = evaluate(_task(draws=1), lambda s, q: torch.zeros(len(q), 7), (1,))
    assert (found.top1.all, found.top5.all, found.top1.all_prior) == (0, 0, 0)
    (found,) = evaluate(_task(draws=1), lambda s, q: torch.full((len(q), 7), -torch.inf), (1,))
    assert (found.top1.all, found.top5.all_prior) == (0, 0)


def test_a_prior_undoes_a_bias_between_the_kinds():
    task = _task(draws=2)
    plain = evaluate(task, _prototypes, (20,))
    biased = evaluate(task, lambda s, q: _prototypes(s, q) - 50.0 * (torch.arange(7) >= 4), (20,))
    for a, b in zip(plain, biased, strict=True):
        assert b.top1.novel == 0
        assert b.top1.all_prior == a.top1.all_prior
        assert b.top1.prior == pytest.approx(a.top1.prior + 50, abs=1e-3)
    assert mean_priors(biased)[20, 1] == pytest.approx(sum(b.top1.prior for b in biased) / 2)


def test_the_best_prior_is_the_best():
    rng = torch.Generator().manual_seed(4)
    need = torch.randn(80, generator=rng).mul(3).round().double()
    need[:3] = torch.inf
    need[3:6] = -torch.inf
    novel = torch.rand(80, generator=rng) < 0.4

    def right(prior):
        return int((torch.where(novel, prior, -prior) > need).sum())

    best = best_prior(need, novel)
    assert right(best) == max(right(t / 4) for t in range(-60, 60))
    assert best_prior(torch.full((3,), torch.inf), torch.tensor([True, False, True])) == 0
    assert best_prior(torch.tensor([-1.0, -1.0]), torch.tensor([True, False])) == 0


def test_a_prior_tuned_on_one_half_is_judged_on_the_other():
    """On scores of pure noise a prior that had seen its own queries would gain; this one gains nothing on average."""
    task = _task(draws=1)
    gains = []
    for seed in range(40):
        given = torch.randn(len(task.test), 7, generator=torch.Generator().manual_seed(seed))
        given[:, 4:] += 0.3  # near the balance of four classes to three
        (found,) = evaluate(task, lambda s, q, given=given: given, (1,))
        half_best = found.top1.all_prior
        gains.append(half_best - 1 / 7)
    assert abs(sum(gains) / 40) < 0.02


def test_more_shots_help_novel_classes():
    results = evaluate(_task(), _prototypes)
    by_shot = {n: sum(r.top1.novel for r in results if r.shot == n) / 5 for n in (1, 2, 5, 10, 20)}
    assert len(results) == 25
    assert by_shot[20] > by_shot[5] > by_shot[1]
    assert all(0 <= v <= 1 for r in results for part in (r.top1, r.top5) for v in (part.novel, part.base, part.all))


def test_two_banks_are_joined_and_parted():
    bank = _bank()
    base, novel = bank.only("abd"), bank.only("ec")
    both = concatenate_banks(base, novel)
    assert both.classes == ("a", "b", "d", "e", "c")
    assert all(torch.equal(both.x[both.y == i], bank.x[bank.y == "abcdefg".index(c)]) for i, c in enumerate("abdec"))
    train, test = held_out(both, 10)
    assert train.counts().tolist() == [20] * 5
    assert test.counts().tolist() == [10] * 5
    assert sorted(torch.cat([train.index, test.index]).tolist()) == list(range(150))
    assert torch.equal(held_out(both, 10)[1].index, test.index)
    with pytest.raises(InputError, match="the class 'a' in both"):
        concatenate_banks(bank, base)
    for wrong in (0, 30):
        with pytest.raises(InputError, match="the smallest has 30"):
            held_out(both, wrong)


GOOD = {"base": torch.tensor([0, 1]), "novel": torch.tensor([2]), "draws": torch.tensor([[[60, 61]]])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"novel": torch.tensor([1])}, "class 'b' is both base and novel"),
        ({"draws": torch.tensor([[[60, 20]]])}, "draw 1 names row 20 for the class 'c', but that row is of 'a'"),
        ({"draws": torch.tensor([[[60, 210]]])}, "not among the 210"),
        ({"draws": torch.tensor([[60, 61]])}, "expected some of each"),
        ({"base": torch.tensor([], dtype=torch.int64)}, "has 0 base"),
    ],
)
def test_what_is_no_task_is_refused(changes, message):
    LowShot(_bank(), _bank(2), **GOOD)
    with pytest.raises(InputError, match=message):
        LowShot(_bank(), _bank(2), **(GOOD | changes))


def test_what_cannot_be_measured_is_refused():
    task = _task()
    with pytest.raises(InputError, match="different classes"):
        LowShot(_bank(), _bank(2).only("abc"), **GOOD)
    with pytest.raises(InputError, match="'z' is not among"):
        draw_low_shot(_bank(), _bank(2), "z")
    for shots in ((), (0,), (21,)):
        with pytest.raises(InputError, match="numbers of 1 to 20"):
            evaluate(task, _prototypes, shots)
    with pytest.raises(InputError, match="scores of shape"):
        evaluate(task, lambda s, q: torch.zeros(len(q), 3), (1,))
    with pytest.raises(InputError, match="that are no numbers"):
        evaluate(task, lambda s, q: torch.full((len(q), 7), torch.nan), (1,))
