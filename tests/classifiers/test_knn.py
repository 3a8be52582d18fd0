import math
from collections import Counter

import pytest
import torch

from augforge.classifiers.knn import Neighbours
from augforge.types import Examples, InputError


def slow_winner(support, query, k, distance):
    """The class with most votes among the k nearest; of equals, the one whose row is nearest."""
    distances = [float(distance(query, x)) for x in support.x]
    order = sorted(range(len(distances)), key=distances.__getitem__)
    votes = Counter()
    for i in order[:k]:
        votes[int(support.y[i])] += 1
    best = max(votes.values())
    return next(int(support.y[i]) for i in order if votes[int(support.y[i])] == best), votes


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_k_nearest_vote(episodes, k, distance):
    support, query = episodes(n_query=12)
    metric = {"euclidean": lambda a, b: (a - b).norm(), "cosine": lambda a, b: -(a @ b) / a.norm() / b.norm()}[distance]
    found = Neighbours(k, distance).scores(Examples(support.x, support.y), query)
    for e in range(3):
        for q in range(12):
            winner, votes = slow_winner(Examples(support.x[e], support.y[e]), query[e, q], k, metric)
            assert int(found[e, q].argmax()) == winner
            for y, count in votes.items():
                assert float(found[e, q, y].exp()) == pytest.approx(count / k, abs=1.1e-3 / k)


def test_mahalanobis_is_euclidean_after_whitening(episodes, base, rng):
    support, query = episodes()
    part = Neighbours(3, "mahalanobis").fit(base, rng)
    white = part.whitening_.double()
    moved = Examples(support.x @ white, support.y, weight=support.weight)
    torch.testing.assert_close(part.scores(support, query), Neighbours(3).scores(moved, query @ white))


def test_weights_take_places_and_vote():
    support = Examples(
        torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 1]), weight=torch.tensor([1.0, 0.5, 0.75])
    )
    share = Neighbours(2).scores(support, torch.tensor([[-1.0]])).exp()[0]
    assert share.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert share[0] > share[1]


def test_classes_without_a_vote_are_ranked_by_their_nearest_row():
    support = Examples(torch.tensor([[0.0], [5.0], [2.0], [9.0]]), torch.arange(4))
    assert Neighbours().scores(support, torch.tensor([[0.1]])).argsort(-1, descending=True)[0].tolist() == [0, 2, 1, 3]


def test_a_k_over_the_support_is_everyone(episodes):
    support, query = episodes()
    scores = Neighbours(1000).scores(support, query)
    assert all(math.isfinite(v) for v in scores.flatten().tolist())


def test_no_neighbours_are_refused():
    with pytest.raises(InputError, match="k=0"):
        Neighbours(0)
