import math

import pytest
import torch

from augforge import chance
from augforge.bench.made_rows import weighing
from augforge.data.banks import FeatureBank
from augforge.episodes import draw_episodes
from augforge.episodes.batch import as_trials
from augforge.generators.copies import Copies
from augforge.generators.mixing import Mixing, symmetric_beta
from augforge.generators.shared.support import nearest_means, other_rows
from augforge.imagine import weighed
from augforge.types import Examples, InputError

HOWS = ("mixup", "smote", "extrapolate", "base")
KEYS = chance.row_keys(0, "mixing", torch.arange(4000))


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(classes=7, each=40, d=6):
    y = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(len(y), d, generator=_rng(1)) + 20 * torch.randn(classes, d, generator=_rng(2))[y]
    return FeatureBank(x, y, tuple("abcdefghij"[:classes]))


def _support(counts=(6, 1, 3), d=6):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=_rng(3))]
    return Examples(torch.randn(len(y), d, generator=_rng(4)) * 3, y)


def _made(part, support, want):
    return part.fit(_bank(), _rng()).synthesize(support, want, KEYS[: len(want)])


def test_mixup_lies_between_two_rows_of_the_class_nearer_to_its_parent():
    support, want = _support((6, 2, 3)), torch.tensor([0, 1, 2] * 300)
    made = _made(Mixing(), support, want)
    assert torch.equal(made.weight, torch.ones(900))
    seen = set()
    for row, parent, label in zip(made.x.double(), made.parent.tolist(), want.tolist(), strict=True):
        start, fits = support.x[parent].double(), []
        for j in (support.y == label).nonzero()[:, 0].tolist():
            along = support.x[j].double() - start
            share = (row - start) @ along / along.square().sum().clamp(min=1e-12)
            if j != parent and (start + share * along - row).norm() < 1e-5:
                fits.append((j, float(share)))
        assert len(fits) == 1
        assert 0 <= fits[0][1] <= 0.5
        seen.add((parent, fits[0][0]))
    assert len(seen) == 6 * 5 + 2 + 3 * 2  # every ordered pair


def test_a_lone_row_is_mixed_with_a_near_base_class_and_weighs_its_share():
    bank, support = _bank(), _support((1,))
    part = Mixing(base_classes=2).fit(bank, _rng())
    made = part.synthesize(support, torch.zeros(500, dtype=torch.int64), KEYS[:500])
    means = torch.stack([bank.x[bank.y == c].mean(0) for c in range(7)])
    near = (means - support.x).norm(dim=1).argsort()[:2]
    known = bank.x[torch.isin(bank.y, near)].double()
    share = made.weight.double()
    partner = (made.x.double() - share[:, None] * support.x.double()) / (1 - share)[:, None]
    usable = share < 0.99
    assert ((share >= 0.5) & (share <= 1)).all()
    assert torch.cdist(partner[usable], known).min(1).values.max() < 1e-3
    half = Mixing(base_classes=2, noise_scale=0.5).fit(bank, _rng()).synthesize(support, made.y, KEYS[:500])
    assert torch.allclose(half.weight.double(), 1 - 0.5 * (1 - share))


@pytest.mark.parametrize("neighbours", [1, 2, 9])
def test_smote_goes_to_one_of_the_nearest_of_its_class(neighbours):
    support = _support()
    want = torch.tensor([0, 1, 2] * 500)
    made = _made(Mixing(how="smote", neighbours=neighbours), support, want)
    gap = chance.uniform(chance.fork(KEYS[: len(want)], "gap"))
    seen = {}
    for i, (row, parent) in enumerate(zip(made.x, made.parent.tolist(), strict=True)):
        mates = [j for j in range(len(support)) if support.y[j] == support.y[parent] and j != parent]
        mates.sort(key=lambda j, p=parent: float((support.x[j] - support.x[p]).square().sum()))
        ends = [support.x[parent] + gap[i] * (support.x[j] - support.x[parent]) for j in mates[:neighbours]]
        hits = [k for k, end in enumerate(ends) if torch.allclose(end, row, atol=1e-6)]
        if mates:
            seen.setdefault(parent, set()).add(hits[0])
        else:
            assert torch.equal(row, support.x[parent])  # one row of the class: a copy
    assert all(len(hits) == min(neighbours, int((support.y == support.y[p]).sum()) - 1) for p, hits in seen.items())
    assert made.weight is None


def test_extrapolation_is_the_equation_of_devries_and_taylor():
    support = Examples(torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.tensor([0, 0]))
    made = _made(Mixing(how="extrapolate", degree=0.5), support, torch.zeros(20, dtype=torch.int64))
    for row, parent in zip(made.x, made.parent.tolist(), strict=True):
        assert row.tolist() == ([-1.0, -1.0] if parent == 0 else [3.0, 7.0])


def test_base_adds_the_difference_of_two_rows_of_one_near_base_class():
    bank, support = _bank(each=3), _support()
    want = torch.tensor([0, 1, 2] * 200)
    made = Mixing(how="base", base_classes=2).fit(bank, _rng()).synthesize(support, want, KEYS[:600])
    means = torch.stack([bank.x[bank.y == c].mean(0) for c in range(7)])
    for row, parent in zip(made.x, made.parent.tolist(), strict=True):
        near = (means - support.x[parent]).norm(dim=1).argsort()[:2].tolist()
        rows = [bank.x[bank.y == c] for c in near]
        steps = torch.cat([(r[:, None] - r[None]).flatten(0, 1)[[1, 2, 3, 5, 6, 7]] for r in rows])
        assert (steps - (row - support.x[parent])).norm(dim=1).min() < 1e-4


@pytest.mark.parametrize("how", HOWS)
def test_a_noise_scale_of_zero_makes_copies(how):
    support, want = _support(), torch.tensor([0, 1, 2] * 10)
    made = _made(Mixing(how=how, noise_scale=0), support, want)
    assert torch.equal(made.x, Copies().synthesize(support, want, KEYS[:30]).x)
    assert made.weight is None or torch.equal(made.weight, torch.ones(30))


@pytest.mark.parametrize("how", HOWS)
def test_a_row_depends_on_its_own_class_alone(how):
    part, support = Mixing(how=how).fit(_bank(), _rng()), _support()
    want = torch.tensor([0, 1, 2] * 20)
    whole = part.synthesize(support, want, KEYS[:60])
    for c in range(3):
        mine = support.take(support.y == c)
        alone = part.synthesize(Examples(mine.x, torch.zeros_like(mine.y)), want[:20] * 0, KEYS[:60][want == c])
        assert torch.equal(alone.x, whole.x[want == c])


def test_the_kept_rows_are_rows_of_each_class_chosen_by_the_generator():
    bank = _bank()
    part = Mixing(kept=5).fit(bank, _rng())
    for c in range(7):
        own = bank.x[bank.y == c]
        place = (own[:, None] == part.rows_[c]).all(-1).nonzero()
        assert sorted(place[:, 1].tolist()) == [0, 1, 2, 3, 4]
        assert torch.allclose(part.means_[c], own.mean(0), atol=1e-4)
    assert not torch.equal(Mixing(kept=5).fit(bank, _rng(1)).rows_, part.rows_)
    few = FeatureBank(bank.x[[0, 40, 41]], torch.tensor([0, 3, 3]), bank.classes)  # classes without rows in between
    part = Mixing().fit(few, _rng())
    assert part.counts_.tolist() == [1, 2]
    support = _support()
    made = Mixing(how="base", base_classes=1).fit(few, _rng()).synthesize(support, torch.tensor([0]), KEYS[:1])
    assert torch.isfinite(made.x).all()


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0])
def test_the_share_has_the_beta_distribution(alpha):
    draws = symmetric_beta(chance.row_keys(1, "beta", torch.arange(40000)), alpha).double()
    assert ((draws >= 0) & (draws <= 1)).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.01)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.004)
    kurtosis = (draws - 0.5).pow(4).mean() / draws.var() ** 2
    assert kurtosis == pytest.approx(3 - 6 / (3 + 2 * alpha), abs=0.03)


def test_others_are_never_the_row_itself_and_all_are_chosen():
    y = torch.tensor([1, 0, 1, 1, 2, 0])
    parent = torch.tensor([0, 1, 2, 3, 4, 5]).repeat(400)
    keys = chance.row_keys(0, "others", torch.arange(len(parent)))
    other = other_rows(torch.zeros(6, 2), y, parent, None, keys)
    assert torch.equal(y[other], y[parent])
    assert (other == parent)[parent == 4].all()
    assert not (other == parent)[parent != 4].any()
    counts = torch.bincount(other[parent == 0], minlength=6)
    assert counts[2] + counts[3] == 400
    assert abs(int(counts[2]) - 200) < 50


def test_nearest_means_are_the_nearest():
    x, means = torch.randn(20, 5, generator=_rng()), torch.randn(9, 5, generator=_rng(1))
    assert torch.equal(nearest_means(x, means, 3), torch.cdist(x, means).argsort(1)[:, :3])


def test_what_mixing_lacks_is_said():
    support = _support()
    for part in (Mixing(), Mixing(how="base")):
        with pytest.raises(InputError, match="mixing is not fitted yet"):
            part.synthesize(support, torch.tensor([1]), KEYS[:1])
    assert len(Mixing().synthesize(support, torch.tensor([0]), KEYS[:1])) == 1  # six rows: no base row is needed
    with pytest.raises(InputError, match="fitted on 6 features; these rows have 4"):
        Mixing(how="base").fit(_bank(), _rng()).synthesize(Examples(support.x[:, :4], support.y), support.y, KEYS[:10])
    for wrong in ({"alpha": 2.0}, {"alpha": 0.0}, {"neighbours": 0}, {"noise_scale": -1.0}, {"kept": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            Mixing(**wrong)


def test_rows_of_a_class_together_have_the_usual_share_in_the_proportions_of_their_weights():
    part, support, want = Mixing().fit(_bank(), _rng()), _support((3, 1)), torch.tensor([0, 1]).repeat_interleave(20)
    made = part.synthesize(support, want, KEYS[:40])
    own = made.weight.view(2, 20)
    found = weighed(made, support, part, "discriminative", apart=math.inf).weight.view(2, 20)
    assert torch.allclose(found.sum(1), torch.tensor([0.25, 0.25]))
    assert torch.allclose(found / found.sum(1, keepdim=True), own / own.sum(1, keepdim=True))
    bank = _bank()
    trials = as_trials(draw_episodes(bank.y, way=2, shot=3, n_query=2, trials=1), bank)
    in_bench = weighing(part, "discriminative")((torch.zeros(1, 2, 20, 6), own[None]), trials)[1]
    assert torch.allclose(in_bench.sum(2), torch.tensor([[0.25, 0.25]]))
