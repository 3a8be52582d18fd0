"""Unlabelled rows as weighted examples: laws, the paper's equations, and what they gain on Gaussian rows."""

import math

import pytest
import torch
from torch.nn import functional as F

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.pool import PoolOptions, label_pool, with_pool
from augforge.types import Examples, InputError

WAY, D = 5, 24
K_MEANS = PoolOptions(temperature=10.0, background=None, checked=False)  # nothing but the paper's


def toy(seed=0, shot=1, each=30, others=0, spread=1.2):
    """Support rows, a pool with its true labels (-1: of none of the classes), queries, and the true means."""
    rng = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(WAY + others, D, generator=rng) / D**0.5

    def rows(count, first, last):
        y = torch.arange(first, last).repeat_interleave(count)
        return means[y] + spread * torch.randn(len(y), D, generator=rng) / D**0.5 * 2, y

    support, query = Examples(*rows(shot, 0, WAY)), Examples(*rows(40, 0, WAY))
    pool, labels = rows(each, 0, WAY + others)
    return support, pool, torch.where(labels < WAY, labels, -1), query, means


def accuracy(support, query):
    return float((Logistic(100.0, "l2").scores(support, query.x).argmax(1) == query.y).double().mean())


def test_the_equations_written_out():
    support, pool, _, _, _ = toy(shot=2, each=4)
    x, u = F.normalize(support.x.double(), dim=1), F.normalize(pool.double(), dim=1)
    centre = torch.cat([x, u]).mean(0)
    x, u = F.normalize(x - centre, dim=1), F.normalize(u - centre, dim=1)
    means = [x[support.y == k].mean(0) for k in range(WAY)]
    for _ in range(10):
        p = [[math.exp(10 * float(row @ mean / mean.norm())) for mean in means] for row in u]
        p = [[v / sum(row) for v in row] for row in p]
        means = [
            (2 * x[support.y == k].sum(0) + sum(p[j][k] * u[j] for j in range(len(u))))
            / (2 * int((support.y == k).sum()) + sum(row[k] for row in p))
            for k in range(WAY)
        ]
    p = torch.tensor([[math.exp(10 * float(row @ mean / mean.norm())) for mean in means] for row in u])
    confidence, labels = (p / p.sum(1, keepdim=True)).max(1)
    found = with_pool(support, pool, K_MEANS)
    assert found.y[len(support) :].tolist() == labels.tolist()
    of_class = torch.zeros(WAY).index_add(0, labels, confidence)
    torch.testing.assert_close(found.weight[len(support) :], confidence * (2 / of_class.clamp(min=2))[labels])


def test_the_support_is_untouched_and_the_pool_weighs_its_share():
    support, pool, _, _, _ = toy(shot=3)
    support = Examples(support.x, support.y, weight=torch.linspace(0.5, 2, len(support)))
    for share in (0.5, 2.0, 4.0):
        found = with_pool(support, pool, PoolOptions(share=share, checked=False))
        trust = label_pool(support, pool, PoolOptions(share=share)).trust
        checked = with_pool(support, pool, PoolOptions(share=share))
        assert torch.equal(found.x, torch.cat([support.x, pool]))
        assert torch.equal(found.y[: len(support)], support.y)
        assert torch.equal(found.weight[: len(support)], support.weight)
        assert found.weight[len(support) :].sum() == pytest.approx(share * WAY, rel=1e-5)
        assert checked.weight[len(support) :].sum() == pytest.approx(trust * share * WAY, rel=1e-5)
    small = with_pool(support, pool[:3])
    assert float(small.weight[len(support) :].max()) <= 1  # a row that was labelled by guess is never more than a real
    assert with_pool(support, pool[:0]) is support


def test_the_order_of_rows_does_not_matter_and_nothing_is_drawn():
    support, pool, _, _, _ = toy(shot=2)
    first = with_pool(support, pool)
    assert torch.equal(with_pool(support, pool).weight, first.weight)
    rng = torch.Generator().manual_seed(1)
    order, shuffled = torch.randperm(len(pool), generator=rng), torch.randperm(len(support), generator=rng)
    found = with_pool(support.take(shuffled), pool[order])
    assert torch.equal(found.y[len(support) :], first.y[len(support) :][order])
    torch.testing.assert_close(found.weight[len(support) :], first.weight[len(support) :][order])


def test_a_row_of_weight_two_is_two_rows():
    support, pool, _, _, _ = toy(shot=2)
    weight = torch.ones(len(support))
    weight[3] = 2
    twice = with_pool(support.take(torch.tensor([*range(len(support)), 3])), pool, K_MEANS)
    once = with_pool(Examples(support.x, support.y, weight=weight), pool, K_MEANS)
    assert torch.equal(once.y[len(support) :], twice.y[len(support) + 1 :])
    torch.testing.assert_close(once.weight[len(support) :], twice.weight[len(support) + 1 :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_keep_their_dtype(dtype):
    support, pool, _, _, _ = toy()
    found = with_pool(Examples(support.x.to(dtype), support.y), pool)
    assert found.x.dtype == found.weight.dtype == dtype
    assert found.y.dtype == torch.int64


def test_a_pool_of_the_same_classes_moves_the_means_and_raises_accuracy():
    gains, nearer = [], []
    for seed in range(12):
        support, pool, _, query, means = toy(seed)
        found = with_pool(support, pool)
        gains.append(accuracy(found, query) - accuracy(support, query))
        for k in range(WAY):
            mine = found.y == k
            mean = (found.weight[mine, None] * found.x[mine]).sum(0) / found.weight[mine].sum()
            nearer.append(float((support.x[support.y == k][0] - means[k]).norm() - (mean - means[k]).norm()))
    assert sum(gains) / len(gains) > 0.05
    assert sum(nearer) / len(nearer) > 0
    assert sum(d > 0 for d in nearer) > 0.9 * len(nearer)


def test_a_background_takes_weight_from_rows_of_other_classes():
    kept, gains = {None: [], 0.2: []}, {None: [], 0.2: []}
    for seed in range(12):
        support, pool, truth, query, _ = toy(seed, shot=2, others=WAY)
        for background in kept:
            found = with_pool(support, pool, PoolOptions(background=background, checked=False))
            weight = found.weight[len(support) :]
            kept[background].append(float(weight[truth >= 0].sum() / weight.sum()))
            gains[background].append(accuracy(found, query) - accuracy(support, query))
    share = {key: sum(values) / len(values) for key, values in kept.items()}
    assert share[0.2] > share[None] + 0.02
    assert sum(gains[0.2]) > 0
    assert sum(gains[0.2]) >= sum(gains[None])


def test_a_row_counts_as_far_as_both_name_it():
    support, pool, _, _, _ = toy(seed=3, shot=1)
    found = label_pool(support, pool)
    q = torch.softmax(Logistic(100.0, "l2").scores(support, pool).double() / 0.36, 1)
    alone = label_pool(support, pool, PoolOptions(checked=False))
    assert bool((found.confidence <= alone.confidence + 1e-9).all())
    assert bool((found.confidence <= q.gather(1, found.y[:, None])[:, 0] + 1e-9).all())
    same = alone.y == q.argmax(1)
    assert 0 < int(same.sum()) < len(pool)
    assert float(found.confidence[~same].mean()) < 0.5 * float(found.confidence[same].mean())
    assert math.isnan(found.helped)  # nothing can be held out at one row a class


def crossed(seed, shot):
    """Rows that are grouped by light, not by class: two lights far apart, and classes that differ a little."""
    rng = torch.Generator().manual_seed(seed)
    classes, lights = torch.randn(WAY, D, generator=rng) * 0.35, 3 * torch.randn(2, D, generator=rng)

    def rows(count, lit):
        y = torch.arange(WAY).repeat_interleave(count)
        light = torch.randint(2, (len(y),), generator=rng) if lit is None else torch.full((len(y),), lit)
        return classes[y] + lights[light] + 0.3 * torch.randn(len(y), D, generator=rng), y

    return Examples(*rows(shot, None)), *rows(20, None), Examples(*rows(40, None))


@pytest.mark.parametrize("shot", [1, 2, 5])
def test_a_pool_that_groups_otherwise_weighs_little_and_does_no_harm(shot):
    gains, harms, trusts = [], [], []
    for seed in range(8):
        support, pool, _, query = crossed(seed, shot)
        plain, found = accuracy(support, query), label_pool(support, pool)
        trusts.append(found.trust)
        gains.append(accuracy(with_pool(support, pool), query) - plain)
        harms.append(accuracy(with_pool(support, pool, K_MEANS), query) - plain)
    assert sum(trusts) / len(trusts) < 0.1
    assert sum(gains) / len(gains) > -0.005
    assert sum(gains) > sum(harms)


def test_held_out_rows_judge_the_pool():
    support, pool, _, _, _ = toy(seed=1, shot=4)
    good = label_pool(support, pool)
    worse = label_pool(support, pool[torch.randperm(len(pool))] * 0 + pool.mean(0) + 0.01 * pool.flip(0))
    assert good.trust > 0.5
    assert good.trust > worse.trust
    assert not math.isnan(good.helped)


def test_one_class_alone_has_nothing_to_agree_on():
    support, pool, _, _, _ = toy()
    found = label_pool(support.take(support.y == 0), pool)
    assert found.y.eq(0).all()
    assert found.trust == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.0}, "share=0.0 was given; expected a number above 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"rounds": 0}, "rounds=0 was given; expected at least 1"),
        ({"background": 2.0}, "background=2.0 was given"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        PoolOptions(**changes)


def test_rows_that_do_not_go_together_are_refused():
    support, pool, _, _, _ = toy()
    with pytest.raises(InputError, match="expected features that the same network made"):
        with_pool(support, pool[:, 1:])
    with pytest.raises(InputError, match="expected embedded pictures"):
        with_pool(Examples([torch.zeros(3, 4, 4)], torch.tensor([0])), pool)
    with pytest.raises(InputError, match="finite"):
        with_pool(support, pool / 0)
    with pytest.raises(InputError, match="no support row of positive weight"):
        with_pool(support.take(support.y != 1), pool)
