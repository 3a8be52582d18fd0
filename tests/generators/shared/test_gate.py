import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.matching import Matching
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.simpleshot import SimpleShot
from augforge.generators.shared.posterior.gate import (
    PLAIN,
    Candidate,
    Scored,
    fit_gate,
    fitted_weights,
    gated,
    plain_scores,
)
from augforge.generators.shared.posterior.held_out import SHOTS, EpisodeBatch, draw_episode_batches, error_over
from augforge.types import Examples

CENTRE = torch.full((6,), 0.3)


def clouds(classes: int = 12, each: int = 12, apart: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(each)
    means = torch.randn(classes, 6, generator=generator) * apart
    return means[y] + torch.randn(len(y), 6, generator=generator), y


def episode(x: Tensor, y: Tensor, shot: int) -> tuple[Examples, Tensor]:
    rows = torch.cat([(y == k).nonzero()[:shot, 0] for k in range(4)])
    query = torch.cat([(y == k).nonzero()[shot : shot + 3, 0] for k in range(4)])
    return Examples(x[rows], y[rows]), x[query]


def right_for_certain(batch: EpisodeBatch, episodes: Tensor) -> Tensor:
    target = torch.nn.functional.one_hot(batch.target(batch.way), batch.way).float()
    return target.expand(len(episodes), -1, -1)


def test_plain_scores_are_those_of_the_plain_classifiers() -> None:
    support, query = episode(*clouds(), 2)
    wanted = SimpleShot()
    wanted.mean_ = CENTRE
    logistic = Logistic(C=5.0, normalise="spread")
    references = (Prototype(), wanted, logistic, Prototype("cosine"), Matching(), Logistic(C=100.0, normalise="l2"))
    for which, reference in enumerate(references):
        found = plain_scores(which, support, query, CENTRE)
        torch.testing.assert_close(found, reference.scores(support, query), rtol=1e-4, atol=1e-4)
    assert len(PLAIN) == len(references)


def candidates_of(
    x: Tensor, y: Tensor, scores: Callable[[EpisodeBatch, Tensor], Tensor], seed: int = 0
) -> list[Candidate]:
    return [(x, batch, lambda e, batch=batch: scores(batch, e)) for batch in draw_episode_batches(y, 5, 40, seed)]


def part_of_own(gate: Tensor, spread: float) -> Tensor:
    """How much of the sum imagination has, [5], where its scores have that spread and plain ones about 1."""
    own = gate[:, 0] * spread
    return own / (own + gate[:, 1:].sum(1))


def test_what_is_always_right_decides_alone() -> None:
    x, y = clouds()
    candidates = candidates_of(x, y, right_for_certain)
    gate, _, seen = fit_gate(candidates, CENTRE)
    assert gate.shape == (len(SHOTS), 1 + len(PLAIN))
    assert [found["shot"] for found in seen] == [batch.shot for _, batch, _ in candidates]
    assert all(found["gain"] > 0 and found["weight"] > 0.5 for found in seen)
    for _, batch, scores in candidates:
        episodes = torch.arange(4)
        support = Examples(x[batch.support[:4].flatten(1)], torch.arange(5).repeat_interleave(batch.shot).expand(4, -1))
        found = gated(gate, CENTRE, scores(episodes), support, x[batch.query[:4].flatten(1)])
        assert float((found.argmax(2) == batch.target(5)).float().mean()) > 0.98


def test_noise_counts_for_nothing() -> None:
    x, y = clouds()
    generator = torch.Generator().manual_seed(1)

    def noise(batch: EpisodeBatch, episodes: Tensor) -> Tensor:
        return 1e4 * torch.randn(right_for_certain(batch, episodes).shape, generator=generator)

    gate, _, seen = fit_gate(candidates_of(x, y, noise), CENTRE)
    assert (part_of_own(gate, 1e4) < 0.02).all()
    assert (gate[:, 1:].sum(1) > 0).all()
    assert all(found["gain"] < 3 * found["error"] + 1 for found in seen)


def test_numbers_of_shots_that_were_not_seen_go_by_the_nearest() -> None:
    x, y = clouds()  # of 12 rows each, enough for 5 shots
    gate, _, seen = fit_gate(candidates_of(x, y, right_for_certain), CENTRE)
    assert [found["shot"] for found in seen] == [1, 2, 5]
    assert torch.equal(gate[3], gate[2])
    assert torch.equal(gate[4], gate[2])


def test_other_episodes_move_the_weights_a_little() -> None:
    x, y = clouds(apart=0.7)
    generator = torch.Generator().manual_seed(1)

    def half(batch: EpisodeBatch, episodes: Tensor) -> Tensor:
        truth = right_for_certain(batch, episodes)
        return truth + torch.randn(truth.shape, generator=generator)

    found = [fit_gate(candidates_of(x, y, half, seed), CENTRE)[0][:3] for seed in range(3)]
    parts = torch.stack([part_of_own(gate, 1.0) for gate in found])
    assert ((parts > 0.02) & (parts < 0.98)).all()
    assert float((parts - parts.mean(0)).abs().max()) < 0.15


def test_the_error_of_a_gain_is_that_of_other_classes():
    of_class = torch.tensor([1.0, 4.0, -2.0, 0.5, 3.0])
    classes = torch.arange(5).repeat(40)
    alike = error_over(classes, of_class.repeat(40))  # forty episodes say no more than one
    assert alike == pytest.approx(float(of_class.std() / 5**0.5), rel=1e-5)
    noise = torch.randn(200 * 50, generator=torch.Generator().manual_seed(0))
    many = error_over(torch.arange(200).repeat_interleave(50), noise)
    assert many == pytest.approx(float(noise.std() / len(noise) ** 0.5), rel=0.15)


def test_a_gain_on_one_class_of_twelve_is_not_sure():
    x, y = clouds(apart=0.5)
    batches = draw_episode_batches(y, 5, 400, 0)

    def knows_one(batch: EpisodeBatch, episodes: Tensor) -> Tensor:
        rows = batch.support[episodes].flatten(1)
        labels = torch.arange(batch.way).repeat_interleave(batch.shot)
        support = Examples(x[rows], labels.expand(len(rows), -1))
        scores = plain_scores(1, support, x[batch.query[episodes].flatten(1)], CENTRE)
        known = batch.classes[episodes] == 3  # [e, way]
        truth = right_for_certain(batch, episodes) * known[:, None]
        return scores + 1000 * truth

    _, _, seen = fit_gate([(x, batch, lambda e, batch=batch: knows_one(batch, e)) for batch in batches], CENTRE)
    assert all(found["gain"] < 2 * found["error"] for found in seen)


def test_a_gate_of_before_is_exactly_the_plain_classifier_or_adds_the_vote() -> None:
    support, query = episode(*clouds(), 2)
    own = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    for which in range(4):
        gate = torch.tensor([[0.0, which, 8.0]] * len(SHOTS))
        assert torch.equal(gated(gate, CENTRE, own, support, query), plain_scores(which, support, query, CENTRE))
    gate = torch.tensor([[1.0, 0.0, 0.0]] * len(SHOTS))
    assert torch.equal(gated(gate, CENTRE, own, support, query), own)
    gate = torch.tensor([[1.0, 0.0, 4.0]] * len(SHOTS))
    wanted = own + 4 * plain_scores(2, support, query, CENTRE)
    torch.testing.assert_close(gated(gate, CENTRE, own, support, query), wanted)


def test_episodes_of_a_batch_with_unequal_shots_go_by_their_own_gate() -> None:
    x, y = clouds()
    support, query = episode(x, y, 2)
    first = torch.tensor([1.0, 0, 1, 0, 1, 0, 1, 0])  # one shot in one episode, two in the other
    batch = Examples(torch.stack([support.x, support.x]), torch.stack([support.y] * 2),
                     weight=torch.stack([first, torch.ones(8)]))  # fmt: skip
    own = torch.zeros(2, 12, 4)
    gate = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    found = gated(gate, CENTRE, own, batch, torch.stack([query, query]))
    one = Examples(support.x[first > 0], support.y[first > 0])
    torch.testing.assert_close(found[0], plain_scores(0, one, query, CENTRE))
    assert torch.equal(found[1], own[1])


def test_between_numbers_of_shots_weights_lie_between() -> None:
    support, query = episode(*clouds(), 3)
    own = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    gate = torch.zeros(len(SHOTS), 1 + len(PLAIN))
    gate[:, 0], gate[1, 1], gate[2, 1] = 1.0, 2.0, 4.0
    weight = 2 + 2 * math.log(3 / 2) / math.log(5 / 2)
    torch.testing.assert_close(gated(gate, CENTRE, own, support, query),
                               own + weight * plain_scores(0, support, query, CENTRE))  # fmt: skip


def test_without_trust_plain_classifiers_decide_alone() -> None:
    x, y = clouds()
    gate, plain, _ = fit_gate(candidates_of(x, y, right_for_certain), CENTRE)
    assert not plain[:, 0].any()
    support, query = episode(x, y, 2)
    pair = Examples(torch.stack([support.x] * 2), torch.stack([support.y] * 2))
    own = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(2))
    found = gated(gate, CENTRE, own, pair, torch.stack([query] * 2), (plain, torch.tensor([0.0, 1.0])))
    for e, of in enumerate((plain, gate)):
        torch.testing.assert_close(found[e], gated(of, CENTRE, own[e], support, query))


def test_weights_are_those_of_least_cross_entropy_over_episodes_of_any_way() -> None:
    rng = torch.Generator().manual_seed(3)
    parts = []
    for way in (2, 5):
        target = torch.randint(0, way, (200,), generator=rng)
        scores = torch.randn(3, 200, way, generator=rng) + 2 * torch.nn.functional.one_hot(target, way)
        parts.append(Scored(scores, target, target))

    def loss(weights: Tensor) -> float:
        return sum(
            float(torch.nn.functional.cross_entropy(torch.einsum("k,knw->nw", weights, part.scores), part.target))
            for part in parts
        )

    found = fitted_weights(parts)
    for _ in range(20):
        assert loss(found) < loss(found * (0.1 * torch.randn(3, generator=rng)).exp()) + 1e-4
