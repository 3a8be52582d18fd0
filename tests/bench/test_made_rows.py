from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.bench.fast_prototypes import prepare, prototype_scores
from augforge.bench.features import features_of
from augforge.bench.made_rows import from_features, from_parents, from_pictures
from augforge.bench.predictions import is_fast, predict, predict_fast, prepared
from augforge.classifiers.gaussian import Gaussian
from augforge.classifiers.knn import Neighbours
from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.episodes import draw_episodes, with_shots
from augforge.episodes.batch import as_trials
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.representations.options import BankOptions
from augforge.types import Episode, Examples


def embed(x):
    return x.float().flatten(1) / 255


def trials_of(bank, way=5, shot=1, n_query=5, n=30, seed=0):
    return as_trials(draw_episodes(bank.y, way=way, shot=shot, n_query=n_query, trials=n, seed=seed), bank)


# The fast path


@pytest.mark.parametrize(("way", "shot", "q", "d"), [(5, 1, 15, 640), (5, 5, 15, 64), (3, 2, 1, 7), (2, 1, 4, 33)])
def test_the_fast_path_is_the_straightforward_formula(toys, way, shot, q, d):
    bank = toys.features(8, 25, d, 0, "n")
    bank = replace(bank, x=bank.x + 30)  # far from the origin, where ||q||^2 - 2 q.p + ||p||^2 cancels
    trials = trials_of(bank, way, shot, q, 60)
    found = prototype_scores(prepare(bank.x), trials.rows)
    x = bank.x.double()
    means, query = x[trials.rows.support].mean(2), x[trials.rows.query]  # [n, way, d], [n, way, q, d]
    slow = -((query[:, :, :, None] - means[:, None, None]) ** 2).sum(-1)
    centred = x - bank.x.mean(0).double()
    offset = (centred[trials.rows.query] ** 2).sum(-1, keepdim=True)
    assert torch.allclose(2 * found.double() - offset, slow, atol=2e-5 * float(slow.abs().max()))
    said = predict_fast(prepare(bank.x), trials).predicted
    assert np.array_equal(said.reshape(len(trials), way, q), slow.argmax(-1).numpy())


def test_the_fast_path_is_the_classifier(toys):
    novel = toys.features(10, 24, 64, 2, "n")
    ready = features_of(None, toys.features(8, 8, 64, 0, "b"), novel, BankOptions(), None)
    for shot in (1, 5):
        trials = trials_of(novel, shot=shot, n=300)
        assert is_fast(Prototype(), ready, trials)
        fast = predict_fast(prepared(ready), trials)
        slow = predict([Prototype()], ready, trials, None, True)[0]
        assert np.array_equal(fast.predicted, slow.predicted)
        assert np.array_equal(fast.in_top5, slow.in_top5)
    assert not is_fast(Prototype(distance="cosine"), ready, trials)
    assert not is_fast(Prototype(), ready, trials_of(novel, way=6))


# Made rows


def rows_of(part, x, made, seed):
    """`from_features` without the weights, of which there must be none."""
    rows = from_features(part, x, made, seed)

    def without_weights(start, trials):
        found, weight = rows(start, trials)
        assert weight is None
        return found

    return without_weights


def test_made_rows_do_not_depend_on_the_batch(toys):
    bank = toys.features(8, 20, 6, 0, "n")
    trials = trials_of(bank, shot=2, n=7)
    for part in (Copies(), Noise().fit(bank, torch.Generator()), toys.Shifter().fit(bank, torch.Generator())):
        rows = rows_of(part, bank.x, 3, seed=5)
        whole = rows(0, trials)
        assert whole.shape == (7, 5, 3, 6)
        assert torch.allclose(torch.cat([rows(i, trials.part(i, i + 1)) for i in range(7)]), whole, atol=1e-6)
        assert not torch.equal(rows_of(part, bank.x, 3, seed=6)(0, trials), whole) or isinstance(part, Copies)


def test_copies_use_every_real_row_alike_and_padding_never(toys):
    bank = toys.features(6, 20, 4, 0, "n")
    episode = draw_episodes(bank.y, way=3, shot=3, n_query=2, trials=1)[0]
    support = episode.support.clone()
    support[1, 1:] = -1
    trials = as_trials([Episode(episode.classes, support, episode.query)], bank)
    made = rows_of(Copies(), bank.x, 4, seed=0)(0, trials)[0]
    assert torch.equal(made[0], bank.x[support[0, [0, 1, 2, 0]]])
    assert torch.equal(made[1], bank.x[support[1, [0, 0, 0, 0]]])


def test_pictures_are_made_once_for_each_parent_and_are_the_same_for_any_episodes(toys):
    bank = toys.pictures(6, 12, 0, "n")
    trials = trials_of(bank, shot=2, n=6)
    part = Classical(preset="handwriting")
    whole = from_parents(part, bank, embed, trials, 5, seed=1)(0, trials)[0]
    alone = trials.part(4, 5)
    assert torch.equal(from_parents(part, bank, embed, alone, 5, seed=1)(0, alone)[0][0], whole[4])
    assert whole.shape == (6, 5, 5, 64)
    assert len(torch.unique(whole[0, 0], dim=0)) == 5


@dataclass
class Leaner:
    """Rows between the mean of their class and a draw, in one call for all classes, or one for each episode."""

    space: ClassVar[str] = "feature"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 1
    one_class: bool = True
    weighs: bool = True
    calls: list = field(default_factory=list)

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        self.calls.append(len(want))
        sums = torch.zeros(int(support.y.max()) + 1, support.x.shape[1]).index_add(0, support.y, support.x)
        means = sums / torch.bincount(support.y)[:, None]
        weight = chance.uniform(chance.fork(keys, "weight")) if self.weighs else None
        return Examples(means[want] + chance.normal(keys, means.shape[1:]) / 2, want, weight=weight)


def uneven(bank, n=6):
    """Episodes whose first class has one shot less than the others."""
    episodes = draw_episodes(bank.y, way=4, shot=3, n_query=3, trials=n)
    return as_trials([with_shots(episode, (2, 3, 3, 3)) for episode in episodes], bank)


def test_classes_of_all_episodes_are_made_at_once_where_they_do_not_see_each_other(toys):
    bank = toys.features(8, 20, 6, 0, "n")
    trials, together, apart = uneven(bank), Leaner(), Leaner(one_class=False)
    made, one_by_one = (from_features(part, bank.x, 3, seed=5)(10, trials) for part in (together, apart))
    assert (together.calls, apart.calls) == ([6 * 4 * 3], [4 * 3] * 6)
    assert torch.allclose(made[0], one_by_one[0], atol=1e-6)
    assert torch.equal(made[1], one_by_one[1])
    assert made[0].shape == (6, 4, 3, 6)


@dataclass
class Seen:
    """A classifier that keeps what it was given."""

    support: list = field(default_factory=list)

    def fit(self, base, rng):
        return self

    def scores(self, support, query):
        self.support.append(support)
        return torch.zeros(*query.shape[:2], int(support.y.max()) + 1)


def test_made_rows_weigh_what_their_maker_says(toys):
    bank = toys.features(8, 20, 6, 0, "n")
    trials, ready = uneven(bank), features_of(None, bank, bank, BankOptions(), None)
    rows = from_features(Leaner(), bank.x, 3, seed=5)
    given = rows(0, trials)[1]
    for constant in (True, False):
        seen = Seen()
        predict([seen], ready, trials, rows, constant)
        weight = seen.support[0].weight.view(6, 4, 6)
        real = (trials.rows.support >= 0).float()
        share = torch.ones(6, 4, 1)
        if constant:
            assert torch.allclose(weight.sum(2), trials.counts().float())
            share = real.sum(2, keepdim=True) / (real.sum(2, keepdim=True) + given.sum(2, keepdim=True))
        assert torch.allclose(weight, torch.cat([real, given], 2) * share)


@dataclass
class Gate(Leaner):
    """Makes rows of nonsense, and says of some episodes, or of one class, that they are worth nothing."""

    shut: str = "all"

    def synthesize(self, support, want, keys):
        made = super().synthesize(support, want, keys)
        episode = torch.arange(len(want)) // 12
        closed = {"all": torch.ones(len(want)), "even": episode % 2 == 0, "class": want % 4 == 2}[self.shut].bool()
        return replace(made, x=-made.x, weight=torch.where(closed, 0.0, 1.0))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("judge", [Prototype(), Logistic(), Gaussian(), Neighbours()], ids=lambda p: type(p).__name__)
def test_rows_of_no_weight_change_nothing(toys, judge, constant):
    bank = toys.features(8, 20, 6, 0, "n")
    trials, ready = uneven(bank), features_of(None, bank, bank, BankOptions(), None)
    judge = judge.fit(bank, torch.Generator().manual_seed(0))
    plain = predict([judge], ready, trials, None, constant)[0].predicted
    found = {shut: predict([judge], ready, trials, from_features(Gate(shut=shut), bank.x, 3, 1), constant)[0].predicted
             for shut in ("all", "even")}  # fmt: skip
    assert np.array_equal(found["all"], plain)
    assert np.array_equal(found["even"][::2], plain[::2])
    assert not np.array_equal(found["even"][1::2], plain[1::2])


def test_a_class_whose_rows_weigh_nothing_is_as_it_was(toys):
    bank = toys.features(8, 20, 6, 0, "n")
    trials, ready, seen = uneven(bank), features_of(None, bank, bank, BankOptions(), None), Seen()
    predict([seen], ready, trials, from_features(Gate(shut="class"), bank.x, 3, 1), True)
    weight = seen.support[0].weight.view(6, 4, 6)
    assert torch.equal(weight[:, 2], torch.tensor([1.0, 1, 1, 0, 0, 0]).expand(6, -1))
    assert torch.allclose(weight.sum(2), trials.counts().float())


def test_weights_of_pictures_reach_the_classifier(toys):
    bank = toys.pictures(6, 12, 0, "n")
    trials = trials_of(bank, shot=2, n=6)
    known = from_parents(Faint(), bank, embed, trials, 5, seed=1)(0, trials)[1]
    assert known.shape == (6, 5, 5)
    assert set(known.unique().tolist()) == {0.25}
    together = from_pictures(Faint(), bank, lambda made: embed(torch.stack(made)), 5, seed=1)(0, trials)
    assert torch.equal(together[1], known)


class Faint(Classical):
    """Classical augmentation that trusts its rows little."""

    def synthesize(self, support, want, keys):
        made = super().synthesize(support, want, keys)
        return replace(made, weight=torch.full((len(want),), 0.25))
