import pytest
import torch

from augforge import chance
from augforge.data.banks import FeatureBank
from augforge.generators.analogies import Analogies, two_of_a_class
from augforge.generators.analogies.training import AnalogyNet, best_partners, centroids_of, mine
from augforge.networks.layers import built
from augforge.types import Examples, InputError

KEYS = chance.row_keys(0, "analogies", torch.arange(500))
QUICK = {"steps": 60, "batch": 64, "hidden": 64, "rows_each": 8}


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _bank(classes=8, each=32, d=6, shift=4.0):
    """Classes of two halves, the second of which is the first moved by one step that all classes share."""
    y = torch.arange(classes).repeat_interleave(each)
    x = 0.2 * torch.randn(len(y), d, generator=_rng(1)) + 6 * torch.rand(classes, d, generator=_rng(2))[y]
    x[torch.arange(len(y)) % 2 == 1] += shift * torch.eye(d)[0]
    return FeatureBank(x, y, tuple(f"c{i}" for i in range(classes)))


@pytest.fixture(scope="module")
def fitted():
    return Analogies(**{**QUICK, "steps": 250}).fit(_bank(), _rng())


def _cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_best_partners_are_the_best_of_all():
    a, b = torch.randn(4, 5, generator=_rng()), torch.randn(6, 5, generator=_rng(1))
    best, place = best_partners(a, b)
    for i in range(4):
        for j in range(4):
            if i == j:
                assert best[i, j] == -1
                continue
            all_ = {(k, m): _cosine(a[i] - a[j], b[k] - b[m]) for k in range(6) for m in range(6) if k != m}
            winner = max(all_, key=all_.get)
            assert divmod(int(place[i, j]), 6) == winner
            assert float(best[i, j]) == pytest.approx(all_[winner], abs=1e-5)


def test_quadruplets_are_two_pairs_of_two_classes_that_differ_alike():
    x, counts = torch.randn(15, 4, generator=_rng()), torch.tensor([5, 3, 7])
    owner = torch.repeat_interleave(torch.arange(3), counts)
    found = mine(x, counts, 2, _rng())
    a_1, a_2, b_1, b_2 = found.T
    assert torch.equal(owner[a_1], owner[a_2])
    assert torch.equal(owner[b_1], owner[b_2])
    assert (owner[a_1] != owner[b_1]).all()
    assert (torch.cosine_similarity(x[a_1] - x[a_2], x[b_1] - x[b_2]) > 0).all()
    assert len(found) == 5 * 4 + 3 * 2 + 7 * 6  # every pair has a partner or the turned round one
    for row in found.tolist()[::7]:  # with all other classes as partners, none anywhere is better
        others = [k for k in range(15) if owner[k] != owner[row[0]]]
        pairs = [(k, m) for k in others for m in others if k != m and owner[k] == owner[m]]
        direction = x[row[0]] - x[row[1]]
        assert tuple(row[2:]) == max(pairs, key=lambda p, way=direction: _cosine(way, x[p[0]] - x[p[1]]))


def test_centroids_are_a_fixed_point_of_lloyds_iteration():
    x = torch.randn(200, 3, generator=_rng())
    centres = centroids_of(x, 7, _rng(1))
    nearest = torch.cdist(x, centres).argmin(1)
    assert torch.allclose(centres, torch.stack([x[nearest == k].mean(0) for k in range(7)]), atol=1e-5)
    assert torch.equal(centroids_of(x[:3], 3, _rng()).sort(0).values, x[:3].sort(0).values)
    same = centroids_of(torch.ones(5, 2), 3, _rng())  # clusters that are empty
    assert torch.equal(same, torch.ones(3, 2))


def test_the_network_is_three_layers_of_the_three_inputs():
    net = built(lambda: AnalogyNet(4, 9), _rng())
    x, c1, c2 = torch.randn(3, 5, 4, generator=_rng(1))
    first, second, third = net.layers
    by_hand = third(second(first(torch.cat([x, c1, c2], 1)).relu()).relu())
    assert torch.allclose(net(x, c1, c2), by_hand, atol=1e-6)
    assert [tuple(p.shape) for p in net.parameters()] == [(9, 12), (9,), (9, 9), (9,), (4, 9), (4,)]


def test_the_step_of_the_base_classes_is_carried_over(fitted):
    """Rows of a novel class in the lower half are moved up after a pair that goes up."""
    first, last = fitted.history[0], fitted.history[-1]
    assert last["error"] < 0.5 * last["still"]
    assert last["classification"] < first["classification"]
    x = 6 * torch.rand(1, 6, generator=_rng(9))
    made = fitted.synthesize(Examples(x, torch.zeros(1, dtype=torch.int64)), torch.zeros(500, dtype=torch.int64), KEYS)
    start, end = (fitted.centroids_[rows] * fitted.scale_ for rows in two_of_a_class(fitted.counts_, KEYS))
    wanted_move, done = (end - start)[:, 0], (made.x - x)[:, 0]
    assert torch.corrcoef(torch.stack([wanted_move, done]))[0, 1] > 0.8


def test_a_noise_scale_of_zero_tells_of_no_change(fitted):
    still = Analogies(**{**QUICK, "steps": 250}, noise_scale=0).fit(_bank(), _rng())
    x = 6 * torch.rand(2, 6, generator=_rng(9))
    made = still.synthesize(Examples(x, torch.arange(2)), torch.tensor([0, 1] * 20), KEYS[:40])
    rows = still.centroids_[two_of_a_class(still.counts_, KEYS[:40])[0]].double()
    expected = still.net_(x[made.parent].double() / still.scale_.double(), rows, rows) * still.scale_.double()
    assert torch.allclose(made.x.double(), expected.clamp(min=float(still.lowest_)), atol=1e-5)


def test_pairs_are_two_centroids_of_one_class_each_as_likely(fitted):
    first, second = two_of_a_class(fitted.counts_, chance.row_keys(1, "pairs", torch.arange(20000)))
    owner = torch.repeat_interleave(torch.arange(8), fitted.counts_)
    assert fitted.counts_.tolist() == [4] * 8
    assert torch.equal(owner[first], owner[second])
    seen = torch.bincount(first * 32 + second)
    seen = seen[seen > 0]
    assert len(seen) == 8 * 4 * 3
    assert ((seen - 20000 / 96) ** 2 / (20000 / 96)).sum() < 95 + 4 * (2 * 95) ** 0.5


def test_made_rows_are_not_negative_where_base_rows_are_not():
    bank = _bank()
    for x, lowest in ((bank.x.relu(), 0.0), (bank.x - 3, -float("inf"))):
        part = Analogies(**{**QUICK, "steps": 3}).fit(FeatureBank(x, bank.y, bank.classes), _rng())
        assert float(part.lowest_) == lowest
        made = part.synthesize(Examples(x[:4], bank.y[:4]), torch.zeros(50, dtype=torch.int64), KEYS[:50])
        assert bool((made.x >= 0).all()) == (lowest == 0)


def test_how_many_clusters_a_class_has():
    part = Analogies(centroids=20, rows_each=10)
    assert [part._clusters(n) for n in (2, 3, 19, 45, 199, 600)] == [2, 2, 2, 4, 19, 20]


def test_classes_of_one_row_are_left_out_but_not_of_the_classifier():
    bank = _bank(classes=3)
    few = torch.cat([torch.arange(64), torch.tensor([70])])
    part = Analogies(**{**QUICK, "steps": 3}).fit(FeatureBank(bank.x[few], bank.y[few], bank.classes), _rng())
    assert part.counts_.tolist() == [4, 4]
    with pytest.raises(InputError, match="2 base classes of at least 2 rows; there are 1"):
        Analogies(**QUICK).fit(FeatureBank(bank.x[few[31:33]], bank.y[few[31:33]] * 0, bank.classes), _rng())
    with pytest.raises(InputError, match="no two pairs of base rows that differ alike"):
        Analogies(**QUICK).fit(FeatureBank(torch.ones(4, 6), torch.tensor([0, 0, 1, 1]), ("a", "b")), _rng())


def test_gradients_reach_the_support(fitted):
    x = (6 * torch.rand(2, 6, generator=_rng(9))).requires_grad_()
    fitted.synthesize(Examples(x, torch.arange(2)), torch.tensor([0, 1]), KEYS[:2]).x.sum().backward()
    assert (x.grad != 0).any()


def test_what_analogies_lack_is_said(fitted):
    support = Examples(torch.rand(1, 4), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="not fitted yet"):
        Analogies().synthesize(support, support.y, KEYS[:1])
    with pytest.raises(InputError, match="fitted on 6 features; these have 4"):
        fitted.synthesize(support, support.y, KEYS[:1])
    for wrong in ({"centroids": 1}, {"steps": 0}, {"lr": 0.0}, {"noise_scale": -1.0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            Analogies(**wrong)
