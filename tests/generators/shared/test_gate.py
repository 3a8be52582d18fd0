import pytest
import torch
from torch import Tensor

from augforge.classifiers.logistic import Logistic
from augforge.classifiers.prototype import Prototype
from augforge.classifiers.simpleshot import SimpleShot
from augforge.generators.shared.posterior.gate import PLAIN, VOTES, fit_gate, gated, plain_scores
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
    references = (Prototype(), wanted, Logistic(C=5.0, normalise="spread"), Prototype("cosine"))
    for which, reference in enumerate(references):
        found = plain_scores(which, support, query, CENTRE)
        torch.testing.assert_close(found, reference.scores(support, query), rtol=1e-4, atol=1e-4)
    assert len(PLAIN) == len(references)


def test_the_gate_opens_for_what_is_always_right() -> None:
    x, y = clouds()
    batches = draw_episode_batches(y, 5, 40, 0)
    candidates = [(x, batch, lambda e, batch=batch: 1000 * right_for_certain(batch, e)) for batch in batches]
    gate, seen = fit_gate(candidates, CENTRE, with_votes=True)
    shots = [batch.shot for batch in batches]
    assert all(gate[SHOTS.index(shot), 0] == 1 for shot in shots)
    assert [found["shot"] for found in seen] == shots
    assert all(found["gain"] > 0 for found in seen)


@pytest.mark.parametrize("with_votes", [True, False])
def test_the_gate_closes_for_noise_and_for_shots_that_were_not_seen(with_votes: bool) -> None:
    x, y = clouds()
    generator = torch.Generator().manual_seed(1)
    batches = draw_episode_batches(y, 5, 40, 0)

    def noise(batch: EpisodeBatch, episodes: Tensor) -> Tensor:
        return 1e4 * torch.randn(right_for_certain(batch, episodes).shape, generator=generator)

    candidates = [(x, batch, lambda e, batch=batch: noise(batch, e)) for batch in batches]
    gate, _ = fit_gate(candidates, CENTRE, with_votes=with_votes)
    assert gate[:, 0].sum() == 0


def test_the_error_of_a_gain_is_that_of_other_classes():
    of_class = torch.tensor([1.0, 4.0, -2.0, 0.5, 3.0])
    classes = torch.arange(5).repeat(40)
    alike = error_over(classes, of_class.repeat(40))  # forty episodes say no more than one
    assert alike == pytest.approx(float(of_class.std() / 5**0.5), rel=1e-5)
    noise = torch.randn(200 * 50, generator=torch.Generator().manual_seed(0))
    many = error_over(torch.arange(200).repeat_interleave(50), noise)
    assert many == pytest.approx(float(noise.std() / len(noise) ** 0.5), rel=0.15)


def test_a_gain_on_one_class_of_twelve_opens_no_gate():
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

    candidates = [(x, batch, lambda e, batch=batch: knows_one(batch, e)) for batch in batches]
    gate, seen = fit_gate(candidates, CENTRE, with_votes=False)
    assert all(found["gain"] > 0 for found in seen)
    assert gate[:, 0].sum() == 0


def test_a_vote_helps_scores_that_say_nothing() -> None:
    x, y = clouds()
    batches = draw_episode_batches(y, 5, 40, 0)
    candidates = [(x, batch, lambda e, batch=batch: torch.zeros_like(right_for_certain(batch, e)))
              for batch in batches]  # fmt: skip
    gate, _ = fit_gate(candidates, CENTRE, with_votes=True)
    assert (gate[[SHOTS.index(batch.shot) for batch in batches], 2] > 0).all()
    assert set(gate[:, 2].tolist()) <= set(VOTES)


def test_closed_is_exactly_the_plain_classifier_and_open_adds_the_vote() -> None:
    support, query = episode(*clouds(), 2)
    own = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    for which in range(len(PLAIN)):
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
