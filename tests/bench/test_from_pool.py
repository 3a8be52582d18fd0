"""`bench --pool`: the pool's recipe on the same episodes, without queries unless it is transductive."""

from dataclasses import replace

import pytest
import torch

from augforge.bench.features import features_of
from augforge.bench.from_pool import from_pool, with_pool_recipes, without_queries
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import plan_trials, run
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.matching import Matching
from augforge.classifiers.pool import label_pool
from augforge.classifiers.pool_rows import PoolRows, Retrieved
from augforge.data.banks import FeatureBank
from augforge.data.selection import GROUP
from augforge.episodes.own import own_task
from augforge.generators.nothing import Nothing
from augforge.representations.options import BankOptions
from augforge.types import Examples, InputError

WAY, D = 6, 32
PLAN = BenchPlan(way=WAY, shots=(1,), query=5, trials=30)
RECIPE = Recipe(None, Nothing(), Logistic(100.0, "l2"))


def banks(seed=0, each=(12, 20), spread=0.7):
    """A bank of labelled rows and a pool of the same classes."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(WAY, D, generator=rng) / D**0.5
    found = []
    for count, name in zip(each, ("mine", "pool"), strict=True):
        y = torch.arange(WAY).repeat_interleave(count)
        x = means[y] + spread * torch.randn(len(y), D, generator=rng) / D**0.5
        found.append(FeatureBank(x, y, tuple(f"c{k}" for k in range(WAY)), name))
    return found


def test_the_pool_is_a_recipe_on_the_same_episodes():
    bank, pool = banks(spread=1.3)
    task = own_task("mine", {"all": bank})
    recipes = with_pool_recipes([RECIPE], pool, 5)
    assert [r.shown()["synthesizer"] for r in recipes] == ["nothing", "pool", "retrieved"]
    plain, pooled, retrieved = run(task, recipes, PLAN).rows
    assert (pooled["synthesizer"], pooled["control"]) == ("pool", False)
    assert (retrieved["synthesizer"], retrieved["control"], retrieved["made"]) == ("retrieved", True, 5)
    assert plain["episodes"] == pooled["episodes"]
    assert pooled["gain"] > 5
    assert pooled["gain"] > retrieved["gain"]
    assert run(task, [RECIPE], PLAN).rows[0]["accuracy"] == plain["accuracy"]


def test_rows_are_those_of_label_pool_and_know_no_query():
    bank, pool = banks()
    task = own_task("mine", {"all": bank})
    features = features_of(None, None, bank, BankOptions(), None)
    trials = plan_trials(task, bank, PLAN, 1).part(0, 3)
    x, weight = from_pool(PoolRows().over(pool.x), features)(0, trials)
    support = Examples(bank.x[trials.rows.support[1].flatten()], torch.arange(WAY))
    found = label_pool(support, pool.x)
    for k in range(WAY):
        own = found.y == k
        assert torch.equal(x[1, k, : int(own.sum())], pool.x[own])
        torch.testing.assert_close(weight[1, k, : int(own.sum())], found.weight[own].float())
        assert weight[1, k, int(own.sum()) :].eq(0).all()
    other = replace(trials, rows=replace(trials.rows, query=trials.rows.query.flip(2).roll(1, 0)))
    assert torch.equal(from_pool(PoolRows().over(pool.x), features)(0, other)[0], x)
    seeing = from_pool(PoolRows(transductive=True).over(pool.x), features)
    assert (seeing(0, trials)[1] > 0).sum() > (weight > 0).sum()
    assert not torch.equal(seeing(0, trials)[1], seeing(0, other)[1])


def test_the_table_says_transductive():
    bank, pool = banks()
    recipes = with_pool_recipes([RECIPE], pool, 5, transductive=True)
    names = [row["synthesizer"] for row in run(own_task("mine", {"all": bank}), recipes, PLAN).rows]
    assert names == ["nothing", "pool, transductive", "retrieved"]


def test_what_may_be_a_query_is_left_out():
    bank, pool = banks()
    both = replace(pool, x=torch.cat([pool.x, bank.x[:7]]), y=torch.cat([pool.y, bank.y[:7]]))
    task = own_task("mine", {"all": bank})
    kept, said = without_queries(task, both)
    assert torch.equal(kept.x, pool.x)
    assert said == "120 rows of the pool 'pool'; left out, since they may be queries: 7 that mine has too"
    with pytest.raises(InputError, match="all 72 rows of the pool 'mine' are rows of 'mine'"):
        without_queries(task, bank)


def test_a_group_of_the_task_is_left_out():
    bank, pool = banks()
    tracks = tuple(f"t{i // 6}" for i in range(len(bank)))
    task = own_task("mine", {"all": replace(bank, groups={GROUP: tracks})})
    named = replace(pool, names=tuple(f"t{i // 4}_{i}" for i in range(len(pool))))
    kept, said = without_queries(task, named, r"(t\d+)_")
    assert len(kept) == len(pool) - 4 * len(set(tracks))
    assert said.endswith("0 that mine has too, 48 of the same groups")


def test_what_does_not_go_together_is_refused(toys):
    bank, pool = banks()
    with pytest.raises(InputError, match="counts no weights"):
        with_pool_recipes([Recipe(None, Nothing(), Matching(full_context=True))], pool, 5)
    with pytest.raises(InputError, match="holds images, and 'mine' features"):
        without_queries(own_task("mine", {"all": bank}), toys.pictures(2, 2, 0, "c"))
    with pytest.raises(InputError, match="centred-l2 was given with --pool"):
        with_pool_recipes([replace(RECIPE, options=BankOptions(normalise="centred-l2"))], pool, 5)


def test_rows_as_a_synthesizer_gives_them():
    bank, pool = banks()
    support = bank.examples(torch.arange(WAY) * 12)
    want = torch.tensor([2, 0, 2, 2, 5])
    for part in (PoolRows(), Retrieved()):
        part.fit(pool, torch.Generator())
        made = part.synthesize(support, want, torch.arange(5))
        assert made.y.tolist() == want.tolist()
        assert all((row == pool.x).all(1).any() for row in made.x)
        assert len({tuple(row.tolist()) for row in made.x[[0, 2, 3]]}) == 3
        with pytest.raises(InputError, match="there is no pool"):
            type(part)().synthesize(support, want, torch.arange(5))
    many = PoolRows().over(pool.x[:3]).synthesize(support, torch.zeros(5, dtype=torch.int64), torch.arange(5))
    assert int((many.weight == 0).sum()) >= 2
    near = Retrieved().over(pool.x).synthesize(support, torch.tensor([1]), torch.arange(1)).x
    cosine = torch.nn.functional.cosine_similarity(pool.x, support.x[1:2])
    assert torch.equal(near[0], pool.x[cosine.argmax()])
