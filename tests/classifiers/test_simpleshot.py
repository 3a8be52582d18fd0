import pytest
import torch

from augforge.classifiers.simpleshot import SimpleShot
from augforge.types import InputError


def slow(support, query, e, normalise, mean):
    def transformed(x):
        x = x - mean if normalise == "centred-l2" else x
        return x if normalise == "none" else x / x.norm()

    rows = []
    for q in query[e]:
        row = []
        for k in range(int(support.y.max()) + 1):
            of_class = support.y[e] == k
            x = torch.stack([transformed(x) for x in support.x[e][of_class]])
            w = support.weight[e][of_class]
            centroid = (w[:, None] * x).sum(0) / w.sum()
            row.append(-((transformed(q) - centroid) ** 2).sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("normalise", ["none", "l2", "centred-l2"])
def test_it_is_the_nearest_centroid_of_transformed_rows(episodes, base, rng, normalise):
    support, query = episodes()
    part = SimpleShot(normalise).fit(base, rng)
    found = part.scores(support, query)
    mean = base.x.double().mean(0).float().double()
    for e in range(3):
        torch.testing.assert_close(found[e], slow(support, query, e, normalise, mean))


def test_cosine_ranks_as_euclidean_at_one_shot(episodes):
    support, query = episodes(shot=1)
    euclidean = SimpleShot("l2").scores(support, query)
    cosine = SimpleShot("l2", distance="cosine").scores(support, query)
    torch.testing.assert_close(euclidean, 2 * cosine - 2)


def test_lengths_do_not_matter_after_l2(episodes):
    support, query = episodes()
    scaled = type(support)(support.x * 3, support.y, weight=support.weight)
    torch.testing.assert_close(SimpleShot("l2").scores(scaled, query / 5), SimpleShot("l2").scores(support, query))


def test_the_base_mean_is_needed(episodes):
    with pytest.raises(InputError, match="simpleshot is not fitted"):
        SimpleShot().scores(*episodes())
