"""What the made rows of a class weigh together beside its real ones, where a recipe says so."""

import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from augforge import __version__, chance
from augforge.bench.features import features_of
from augforge.bench.files import read_results, write_per_class
from augforge.bench.made_rows import from_features, from_parents, sharing, weighing
from augforge.bench.plan import BenchPlan
from augforge.bench.predictions import predict
from augforge.bench.recipes import Recipe, with_controls
from augforge.bench.report import markdown
from augforge.bench.run import plan_trials, run, run_seeds
from augforge.classifiers.gaussian import Gaussian
from augforge.classifiers.knn import Neighbours
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.matching import Matching
from augforge.classifiers.prototype import Prototype
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.imagine import usual_share
from augforge.parts.saving import digest, made_by
from augforge.representations.options import BankOptions
from augforge.types import Examples, InputError, capabilities

PLAN = BenchPlan(way=5, shots=(1, 3, (1, 4)), query=5, trials=30)


@dataclass
class Weighing:
    """Rows near the mean of their class; each weighs what its key says, and one in three nothing."""

    space: ClassVar[str] = "feature"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 1
    one_class: ClassVar[bool] = True
    level: float = 1.0

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        counts = torch.bincount(support.y)[:, None]
        means = torch.zeros(len(counts), support.x.shape[1]).index_add(0, support.y, support.x) / counts
        weight = self.level * chance.uniform(chance.fork(keys, "weight")) * (torch.arange(len(want)) % 3 > 0)
        return Examples(means[want] + chance.normal(keys, means.shape[1:]) / 2, want, weight=weight)


@dataclass
class Chosen(Copies):
    """Copies that weigh as half a real row, before any classifier."""

    def share(self, family, counts):
        return 0.5 / counts


@dataclass
class Seen:
    """A classifier that keeps what it was given."""

    support: list = field(default_factory=list)

    def scores(self, support, query):
        self.support.append(support)
        return torch.zeros(*query.shape[:2], int(support.y.max()) + 1)


def weights(task, part, shots, share, constant, made=6):
    """What real rows [n, way, shot] and made ones [n, way, made] weigh when they come to the classifier."""
    trials, seen = plan_trials(task, task.novel, PLAN, shots), Seen()
    rows = sharing(from_features(part, task.novel.x, made, seed=3), share)
    predict([seen], features_of(None, task.base, task.novel, BankOptions(), None), trials, rows, constant)
    (support,) = seen.support
    found = torch.ones(support.y.shape) if support.weight is None else support.weight
    each = found.unflatten(1, (trials.way, -1))
    return trials, each[..., :-made], each[..., -made:]


# The law


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("shots", PLAN.shots)
@pytest.mark.parametrize("share", [0.25, 1, 3.0])
def test_made_rows_weigh_together_their_share_of_the_real_ones(toys, constant, shots, share):
    task = toys.feature_task()
    for part in (Weighing(), Weighing(1e-6), Copies()):
        trials, real, made = weights(task, part, shots, share, constant)
        assert torch.allclose(made.sum(2), share * real.sum(2))
        total = trials.counts().float()
        assert torch.allclose(real.sum(2) + made.sum(2), total if constant else (1 + share) * total)
        own = from_features(part, task.novel.x, 6, seed=3)(0, trials)[1]
        own = torch.ones_like(made) if own is None else own
        assert torch.allclose(made / made.sum(2, keepdim=True), own / own.sum(2, keepdim=True), atol=1e-6)
        assert torch.equal(made == 0, own == 0)


def test_pictures_have_a_share_too(toys):
    bank = toys.pictures(6, 12, 0, "n")
    for shots in (1, 3):
        trials = plan_trials(replace(toys.feature_task(), novel=bank), bank, replace(PLAN, trials=4), shots)
        rows = from_parents(Classical(), bank, lambda x: x.float().flatten(1), trials, 7, seed=0)
        x, weight = rows(0, trials)
        shared, given = sharing(rows, 0.5)(0, trials)
        assert weight is None
        assert torch.equal(x, shared)
        assert torch.allclose(given, torch.full((4, 5, 7), 0.5 * shots / 7))
        assert sharing(rows, None) is rows


def test_prototypes_are_the_weighted_means(toys):
    task, share = toys.feature_task(), 0.5
    trials = plan_trials(task, task.novel, PLAN, 3)
    x, query = task.novel.x, trials.rows.query.flatten(1)
    real = x[trials.rows.support]
    for part, recipe in ((Noise().fit(task.base, torch.Generator()), 4), (Weighing(), 6)):
        made, own = from_features(part, x, recipe, seed=PLAN.seed)(0, trials)
        own = torch.ones(made.shape[:3]) if own is None else own
        mean = (made * own[..., None]).sum(2) / own.sum(2)[..., None]
        nearest = torch.cdist(x[query], (real.mean(2) + share * mean) / (1 + share)).argmin(2)
        for kind in ("constant", "each"):
            recipes = [Recipe(None, part, Prototype(), recipe, kind, share=share)]
            arm = next(
                arm for arm in run(task, recipes, replace(PLAN, shots=(3,))).by_recipe if arm.recipe is recipes[0]
            )
            assert np.array_equal(arm.outcome.predicted, nearest.numpy())


@pytest.mark.parametrize("weights", ["constant", "each"])
def test_no_share_at_all_is_nothing(toys, weights):
    judges = (Prototype(), Logistic(), Gaussian(), Neighbours(), Matching())
    arms = run(toys.feature_task(), [Recipe(None, Weighing(), j, 4, weights, share=0) for j in judges], PLAN).by_recipe
    for arm in arms:
        assert arm.plain is None or np.array_equal(arm.outcome.predicted, arm.plain.outcome.predicted)


@pytest.mark.parametrize("judge", [Prototype(), Matching(), Logistic(), Gaussian()])
def test_without_a_share_rows_weigh_what_suits_the_classifier(toys, judge):
    family = capabilities(judge).family
    for shots in (1, 3, (1, 4)):
        trials = plan_trials(toys.feature_task(), toys.feature_task().novel, PLAN, shots)
        real = trials.counts().float()
        x = torch.zeros(len(trials), trials.way, 6, 3)
        for part, wanted in ((Copies(), usual_share(family, real)), (Chosen(), 0.5 / real)):
            weight = weighing(part, family)((x, None), trials)[1]
            torch.testing.assert_close(weight.sum(2), wanted * real)
        own = torch.rand(x.shape[:3])
        assert weighing(Weighing(), family)((x, own), trials)[1] is own


def test_every_classifier_of_a_run_reads_the_weights_of_its_family(toys):
    task = toys.feature_task()
    part = Noise(scale=0.5).fit(task.base, torch.Generator())  # rows near their class, which have the whole share
    judges = (Prototype(), Matching(), Logistic())
    together = run(task, [Recipe(None, part, judge, 6) for judge in judges], PLAN).by_recipe
    for judge in judges:
        family = capabilities(judge).family
        for shots in (1, 3):
            share = float(usual_share(family, torch.tensor(shots)))
            plan = replace(PLAN, shots=(shots,))
            given = run(task, [Recipe(None, part, judge, 6, share=share)], plan).by_recipe
            (by_share,) = [arm for arm in given if arm.recipe.synthesizer is part]
            (found,) = [arm for arm in together if arm.recipe.synthesizer is part and arm.recipe.classifier is judge
                        and arm.shot == shots]  # fmt: skip
            assert np.array_equal(found.outcome.predicted, by_share.outcome.predicted)


# The table


def test_every_share_has_its_controls(toys):
    recipes = [Recipe(None, toys.Shifter(), Prototype(), 4, share=share) for share in (None, 0.25, 0.5)]
    found = [(r.shown()["synthesizer"], r.share) for r, _ in with_controls(recipes, toys.feature_task().novel)]
    names = ("Shifter", "copies", "noise", "Shifter, no noise")
    assert sorted(found, key=str) == sorted(
        [("nothing", None), *((name, share) for name in names for share in (None, 0.25, 0.5))], key=str
    )


def without(row, *names):
    return {key: value for key, value in row.items() if key not in (*names, "seconds", "p_holm", "verdict")}


def test_shares_are_outcomes_of_their_own_and_are_read_back(toys, tmp_path):
    task, plain = toys.feature_task(), Recipe(None, Weighing(), Logistic(), 4)
    before = run(task, [plain], PLAN, tmp_path).rows
    recipes = [plain, replace(plain, share=0.5), replace(plain, share=2)]
    results = run(task, recipes, PLAN, tmp_path)
    assert read_results(tmp_path / "bench.jsonl") == json.loads(json.dumps(results.rows))
    assert {row["share"] for row in results.rows} == {None, 0.5, 2}
    same = [row for row in results.rows if row["share"] is None]
    assert [without(row) for row in same] == [without(row) for row in before]  # kept, and as they were
    assert len({row["digest"] for row in results.rows}) == len(results.rows)
    again = run(task, [replace(plain, share=0.5), replace(plain, share=2.0), plain], PLAN, tmp_path).rows
    assert {row["seconds"] for row in again} == {0.0}
    assert {row["digest"] for row in again} == {row["digest"] for row in results.rows}
    write_per_class(results.rows, results.confusions(), results.classes, tmp_path)
    reply = {line["digest"]: line["share"] for line in read_results(tmp_path / "per_class.jsonl")}
    assert reply == {row["digest"]: row["share"] for row in results.rows}
    assert ", share 0.5 | logistic |" in markdown(read_results(tmp_path / "bench.jsonl"))
    assert "hare" not in markdown(before)


def test_without_a_share_the_digest_says_that_weights_go_by_the_classifier(toys):
    task, recipe = toys.feature_task(), Recipe(None, Copies(), Prototype(), 4)
    for row, arm in zip(*(lambda found: (found.rows, found.by_recipe))(run(task, [recipe], PLAN)), strict=True):
        r = arm.recipe
        parts = [made_by(r.synthesizer), made_by(r.classifier)]
        how = [r.made, r.weights, *([] if r.plain else ["weights by classifier"])]
        reply = [__version__, row["bank"], row["maker"], row["episodes"], *parts, *how, 0]
        assert row["digest"] == digest(reply)


def test_training_seeds_are_pooled_share_by_share(toys):
    recipes = [Recipe(None, Weighing(), Prototype(), 4, share=share) for share in (0.25, 0.5)]
    rows = run_seeds(toys.feature_task(), recipes, replace(PLAN, shots=(1,)), (0, 1)).rows
    assert [row["share"] for row in rows if row["synthesizer"] == "Weighing"] == [0.25, 0.5]


def test_exact_scores_know_no_share(toys):
    @dataclass
    class Exact(Weighing):
        def scores(self, support, query):
            return Prototype().scores(support, query)

    part, task = Exact(), toys.feature_task()
    recipes = [Recipe(None, part, Gaussian(), 4, share=share) for share in (None, 0.5)]
    rows = [row for row in run(task, recipes, PLAN).rows if row["exact"]]
    assert len(rows) == len(PLAN.shots)
    other = [row for row in run(task, recipes[1:], PLAN).rows if row["exact"]]
    assert [row["digest"] for row in rows] == [row["digest"] for row in other]


@pytest.mark.parametrize("share", [-0.5, float("nan"), float("inf")])
def test_shares_that_make_no_sense_are_refused(share):
    with pytest.raises(InputError, match=r"^share=.* was given; expected a number of at least 0, or None$"):
        Recipe(None, Copies(), Prototype(), 4, share=share)


def test_nothing_has_no_share():
    with pytest.raises(InputError, match=r"share=0\.5 was given for nothing, which makes no rows"):
        Recipe(None, Nothing(), Prototype(), share=0.5)
