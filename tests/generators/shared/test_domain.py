import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.adapters.sklearn import Resampler
from augforge.bench.made_rows import weighing
from augforge.classifiers.weighted import as_rows
from augforge.data.banks import FeatureBank
from augforge.data.features import write_features
from augforge.episodes import draw_episodes
from augforge.episodes.batch import as_trials
from augforge.generators.posterior import Posterior
from augforge.generators.shared.posterior.domain import among_base, held_out_gain, in_domain, trusted
from augforge.imagine import enlarge, trust_of
from augforge.parts.saving import save_part
from augforge.types import Examples

WAY, D = 8, 8
PSI = torch.tensor([0.01, 0.01, 0.01, 0.01, 3.0, 3.0, 3.0, 3.0])


def bank(classes=30, each=12, seed=0, psi=PSI):
    """Classes whose rows have the variance 1 + PSI in all, `psi` of it between classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(each)
    means = torch.randn(classes, D, generator=generator) * psi.sqrt()
    x = means[y] + torch.randn(len(y), D, generator=generator) * (1 + PSI - psi).sqrt()
    return FeatureBank(x, y, tuple(f"{seed}-{k}" for k in range(classes)))


def swapped(seed=5, each=10):
    """Rows that spread as the others do, whose classes differ where those of the base classes are alike."""
    return bank(WAY, each, seed, psi=torch.tensor([1.0, 1.0, 1.0, 1.0, 0.01, 0.01, 0.01, 0.01]))


def support_of(given, shot=5):
    rows = torch.cat([given.rows_of(k)[:shot] for k in range(WAY)])
    return Examples(given.x[rows], given.y[rows])


@pytest.fixture(scope="module")
def part():
    settings = {"transform": "raw", "shrinkage": 0.0, "between_scale": 1.0, "prior": "gaussian", "way": 5}
    return Posterior(**settings).fit(bank(), torch.Generator().manual_seed(0), bank(20, seed=1))


def test_a_support_that_contradicts_the_base_is_noticed_by_its_held_out_rows_alone(part):
    own, other = support_of(bank(WAY, seed=5)), support_of(swapped())
    for support in (own, other):
        assert float(in_domain(part.domain_, [part.model_], support, support.x[:1])) > 0.9  # nothing shows unlabelled
    assert float(part.believed(own)) > 0.9
    assert float(part.believed(other)) == 0
    assert float(part.believed(support_of(swapped(), 1))) > 0.9  # one row of each class: none can be held out


def test_classes_that_lie_all_together_beside_the_base_classes_are_noticed_at_one_shot(part):
    own = support_of(bank(WAY, seed=5), 1)
    beside = Examples(0.01 * own.x + (1 + PSI).sqrt(), own.y)
    assert float(among_base([part.model_], own)) == 1
    assert float(in_domain(part.domain_, [part.model_], beside, beside.x[:1])) > 0.9  # as far out as others
    assert float(part.believed(beside)) == 0
    both = Examples(torch.stack([own.x, beside.x]), torch.stack([own.y, beside.y]))
    assert part.believed(both).tolist() == [1, 0]


def test_believing_is_a_matter_of_the_support_not_of_its_order_batch_or_padding(part):
    supports = [support_of(swapped(), 3), support_of(bank(WAY, seed=5), 3)]
    x, y = (torch.stack([getattr(support, name) for support in supports]) for name in ("x", "y"))
    together = held_out_gain([part.model_], as_rows(Examples(x, y), x[:, :1]))
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(3))
    padding = torch.cat([torch.ones(2, x.shape[1]), torch.zeros(2, 4)], 1)
    padded = Examples(torch.cat([x, torch.full((2, 4, D), 5.0)], 1), torch.cat([y, y[:, :4]], 1), weight=padding)
    for other in (Examples(x[:, order], y[:, order]), padded):
        torch.testing.assert_close(
            held_out_gain([part.model_], as_rows(other, x[:, :1])), together, rtol=1e-3, atol=1e-3
        )
    for i, support in enumerate(supports):
        alone = held_out_gain([part.model_], as_rows(support, support.x[:1]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-3, atol=1e-3)


def test_rows_of_no_weight_are_no_rows_and_labels_may_have_gaps(part):
    support = support_of(swapped(), 3)
    more = Examples(torch.cat([support.x, support.x + 9]), torch.cat([2 * support.y, 100 + support.y]),
                    weight=torch.tensor([1.0, 0.0]).repeat_interleave(len(support)))  # fmt: skip
    torch.testing.assert_close(part.believed(more), part.believed(support), rtol=1e-3, atol=1e-3)
    assert trust_of(part, more.take(more.weight == 0)) == 1


def test_without_belief_logistic_regression_alone_gives_the_scores(part):
    other = swapped()
    support, query = support_of(other), other.x[other.rows_of(0)[5:]]
    assert float(trusted(part.domain_, [part.model_], support, query)) == 0
    again = Posterior(gated=True)
    again.__dict__.update(part.__dict__)
    again.gate_ = part.gate_ * 7  # which makes no difference
    assert torch.equal(part.scores(support, query), again.scores(support, query))


def test_rows_weigh_nothing_in_enlarge_bench_and_resampler(part):
    other, own = swapped(), bank(WAY, 10, seed=5)
    want = torch.arange(WAY).repeat_interleave(4)
    keys = chance.draw_pairs(len(want), torch.Generator().manual_seed(0))
    for given, nothing in ((other, True), (own, False)):
        support = support_of(given)
        weight = enlarge(support, part, want, keys).weight[len(support) :]
        assert bool((weight == 0).all()) == nothing
        assert (trust_of(part, support) == 0) == nothing
        trials = as_trials(draw_episodes(given.y, way=WAY, shot=5, n_query=2, trials=3), given)
        rows = torch.zeros(3, WAY, 4, D)
        found = weighing(part, "discriminative", given.x)((rows, None), trials)[1]
        assert bool((found == 0).all()) == nothing
    with pytest.warns(UserWarning, match="do not bear out what it learnt"):
        x, _ = Resampler(part, sampling_strategy=20).fit_resample(other.x.numpy(), other.y.numpy())
    assert len(x) == len(np.asarray(other.x))


def test_the_command_line_says_why_rows_weigh_nothing(part, tmp_path):
    save_part(part, tmp_path / "part")
    write_features(tmp_path / "other.safetensors", swapped())
    command = [str(Path(sys.executable).with_name("augforge")), "synth", str(tmp_path / "other.safetensors"), "--with",
               str(tmp_path / "part"), "--per-class", "4", "--out", str(tmp_path / "out"), "--json"]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["made"] == 4 * WAY
    assert "do not bear out what" in ran.stderr + ran.stdout
