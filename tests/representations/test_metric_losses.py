"""The losses of metric learning against slow references of their formulas; derivatives and invariances."""

import pytest
import torch
from torch.nn import functional as F

from augforge.representations.metric_losses import (
    LOSSES,
    Margins,
    histogram_loss,
    metric_loss,
    pair_loss,
    quadruplet_loss,
    random_triplets,
)
from augforge.types import InputError

pytest.importorskip("pytorch_metric_learning")
Y = torch.tensor([0, 1, 2, 0, 1, 2, 3, 3, 0])


def rows(d=6, seed=0):
    return torch.randn(len(Y), d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn():
    return torch.Generator().manual_seed(1)


def above(terms):
    terms = torch.stack([term for term in terms if term > 0])
    return terms.mean()


def pairs():
    n = range(len(Y))
    return [(i, j) for i in n for j in n if i != j]


def d(x):
    x = F.normalize(x, dim=1)
    return (x[:, None] - x[None]).norm(dim=2)


def contrastive(x, m):
    near = above([(d(x)[i, j] - m.positive_margin).relu() for i, j in pairs() if Y[i] == Y[j]])
    return near + above([(m.margin - d(x)[i, j]).relu() for i, j in pairs() if Y[i] != Y[j]])


def triplets(kind, x, m):
    square = d(x) ** 2
    every = [(a, p, n) for a, p in pairs() if Y[a] == Y[p] for n in range(len(Y)) if Y[n] != Y[a]]
    if kind == "random":
        return list(zip(*(part.tolist() for part in random_triplets(Y, drawn())), strict=True))
    if kind == "hard":
        return [max((t for t in every if t[0] == a), key=lambda t: square[t[0], t[1]] - square[t[0], t[2]])
                for a in range(len(Y))]  # fmt: skip
    return [t for t in every if 0 < square[t[0], t[2]] - square[t[0], t[1]] <= m.margin]


def triplet(x, m):
    square = d(x) ** 2
    found = triplets(m.mining, x, m)
    other = [min(square[a, n], square[p, n]) if m.swap else square[a, n] for a, p, n in found]
    return above([(square[a, p] - o + m.margin).relu() for (a, p, _), o in zip(found, other, strict=True)])


def n_pairs(x, m):
    one = {int(k): [i for i in range(len(Y)) if Y[i] == k][:2] for k in Y.unique()}
    anchors, positives = (x[[one[k][place] for k in sorted(one)]] for place in (0, 1))
    return F.cross_entropy(anchors @ positives.T, torch.arange(len(one))) + 0.002 * x.square().sum(1).mean()


def quadruplet(x, m):
    square = d(x) ** 2
    n = range(len(Y))
    first = [square[i, j] - square[i, k] + m.margin for i, j in pairs() if Y[i] == Y[j] for k in n if Y[k] != Y[i]]
    second = [square[i, j] - square[k, m_] + m.second_margin for i, j in pairs() if Y[i] == Y[j] for k in n
              for m_ in range(k) if len({int(Y[i]), int(Y[k]), int(Y[m_])}) == 3]  # fmt: skip
    return above(first) + above(second)


CASES = [
    ("contrastive", contrastive, Margins(1.0)),
    ("contrastive", contrastive, Margins(1.2, positive_margin=0.3)),
    *[("triplet", triplet, Margins(0.5, mining=mining, swap=swap))
      for mining in ("random", "hard", "semi-hard") for swap in (False, True)],
    ("n-pairs", n_pairs, Margins()),
    ("quadruplet", quadruplet, Margins(0.4, second_margin=0.3)),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "reference", "margins"), CASES)
def test_it_is_the_formula_and_so_are_its_derivatives(loss, reference, margins):
    x, same = rows().requires_grad_(), rows().requires_grad_()
    found, wanted = metric_loss(loss, x, Y, margins, drawn()), reference(same, margins)
    assert torch.isclose(found, wanted, rtol=1e-6, atol=1e-6)
    for part in (found, wanted):
        part.backward()
    assert torch.allclose(x.grad, same.grad, rtol=1e-5, atol=1e-6)


def test_histograms_say_how_often_a_pair_of_a_class_is_the_less_alike_one():
    x = F.normalize(rows(3, 4), dim=1)
    alike = (x @ x.T).clamp(-1, 1)
    same = [float(alike[i, j]) for i, j in pairs() if i < j and Y[i] == Y[j]]
    other = [float(alike[i, j]) for i, j in pairs() if i < j and Y[i] != Y[j]]
    exact = sum(s < o for s in same for o in other) / len(same) / len(other)
    assert abs(float(histogram_loss(x, Y)) - exact) < 0.05  # bins are 0.02 wide


def test_a_pair_is_of_one_class_by_the_sigmoid_of_its_distance():
    x = torch.cat([rows(), torch.full((len(Y), 1), 2.0, dtype=torch.float64)], 1)
    chance = {(i, j): torch.sigmoid(2 - (x[i, :-1] - x[j, :-1]).abs().sum()) for i, j in pairs() if i < j}
    near = torch.stack([-p.log() for (i, j), p in chance.items() if Y[i] == Y[j]]).mean()
    far = torch.stack([-(1 - p).log() for (i, j), p in chance.items() if Y[i] != Y[j]]).mean()
    assert torch.isclose(pair_loss(x, Y), (near + far) / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_order_does_not_matter_and_turning_all_rows_only_to_the_l1_distance(loss):
    x, margins = rows(), Margins(0.5) if loss in ("contrastive", "triplet", "quadruplet") else Margins()
    order = torch.randperm(len(Y), generator=drawn())
    found = metric_loss(loss, x, Y, margins)
    if loss != "n-pairs":  # whose pair of each class is the first one
        assert torch.isclose(metric_loss(loss, x[order], Y[order], margins), found)
    turn = torch.linalg.qr(rows(6, 3)[:6]).Q
    if loss != "siamese":
        assert torch.isclose(metric_loss(loss, x @ turn, Y, margins), found, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("y", [torch.zeros(4, dtype=torch.int64), torch.arange(4)])
def test_a_batch_without_pairs_or_without_others_has_a_loss_to_go_on_with(loss, y):
    x = torch.randn(4, 3, generator=drawn()).requires_grad_()
    found = metric_loss(loss, x, y, Margins())
    found.backward()
    assert bool(torch.isfinite(found))
    assert bool(torch.isfinite(x.grad).all())


def test_two_classes_have_no_pair_of_two_others():
    x, y = rows()[:4], torch.tensor([0, 0, 1, 1])
    assert torch.isclose(quadruplet_loss(x, y, 0.4, 0.3), quadruplet_loss(x, y, 0.4, 0.0))


@pytest.mark.parametrize(("loss", "set_", "says"), [
    ("n-pairs", {"margin": 0.3}, "margin=0.3 was given, and n-pairs does not read it"),
    ("contrastive", {"mining": "hard"}, "expected it with triplet alone"),
    ("triplet", {"margin": -1.0}, "margin=-1.0 was given; rows of length 1 are 0 to 2 apart"),
])  # fmt: skip
def test_settings_that_do_nothing_are_refused(loss, set_, says):
    with pytest.raises(InputError, match=says):
        Margins(**set_).check(loss)
