import pytest
import torch
from torch.distributions import MultivariateNormal

from augforge.classifiers.gaussian import Gaussian
from augforge.data.banks import FeatureBank
from augforge.types import Examples, InputError


def double(part):
    """The part with its numbers in float64, so that only the formula is compared."""
    for name in ("centre_", "mean_", "map_", "psi_", "log_volume_"):
        setattr(part, name, getattr(part, name).double())
    return part


def covariances(part):
    """S_w and S_b [d, d] of a fitted part."""
    back = part.map_.inverse()
    return back.T @ back, back.T @ torch.diag(part.psi_) @ back


def slow(part, support, query, e):
    """The posterior predictive with whole matrices, class by class."""
    within, between = covariances(part)
    scores = []
    for k in range(int(support.y.max()) + 1):
        of_class = support.y[e] == k
        x, w = support.x[e][of_class], support.weight[e][of_class]
        n, mean, spread = w.sum(), (w[:, None] * x).sum(0) / w.sum(), within
        if part.spread == "class":
            z = (x - mean) @ part.map_
            s = (part.prior_count + (w[:, None] * z.square()).sum(0)) / (part.prior_count + max(float(n) - 1, 0))
            back = part.map_.inverse()
            spread = back.T @ torch.diag(s) @ back
        precision = between.inverse() + n * spread.inverse()
        posterior = precision.inverse() @ (between.inverse() @ part.mean_ + n * spread.inverse() @ mean)
        predictive = spread + precision.inverse()
        predictive = (predictive + predictive.T) / 2
        scores.append(MultivariateNormal(posterior, predictive).log_prob(query[e]))
    return torch.stack(scores, -1)


@pytest.mark.parametrize("spread", ["base", "class"])
def test_scores_are_the_posterior_predictive(episodes, base, rng, spread):
    support, query = episodes()
    part = double(Gaussian("raw", spread=spread, prior_count=3.0, within_rows=0).fit(base, rng))
    found = part.scores(support, query)
    for e in range(3):
        torch.testing.assert_close(found[e], slow(part, support, query, e), atol=1e-4, rtol=1e-5)


def test_what_is_learnt(base, rng):
    part = Gaussian("raw", shrinkage=0.2, mean_shrinkage=0.0, between_scale=2.0).fit(base, rng)
    means = torch.stack([base.x[base.y == k].double().mean(0) for k in range(9)])
    apart = torch.cat([base.x[base.y == k].double() - means[k] for k in range(9)])
    within = apart.T @ apart / (len(base.y) - 9)
    within = 0.8 * within + 0.2 * within.trace() / 7 * torch.eye(7)
    between = 2 * (torch.cov(means.T) - within / 12)
    found_within, found_between = covariances(part)
    torch.testing.assert_close(part.mean_.double(), means.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_within.double(), within, atol=1e-4, rtol=1e-4)
    if float(torch.linalg.eigvalsh(between)[0]) > 0:  # else the negative part was cut off
        torch.testing.assert_close(found_between.double(), between, atol=1e-4, rtol=1e-4)
    assert (part.psi_ >= 0).all()


def test_known_covariances_are_found():
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(2000).repeat_interleave(5)
    x = 2 * torch.randn(2000, 2, generator=rng)[y] * torch.tensor([1.0, 3.0]) + torch.randn(10000, 2, generator=rng)
    part = Gaussian("raw", shrinkage=0.0, mean_shrinkage=0.0).fit(FeatureBank(x, y, tuple(map(str, range(2000)))), rng)
    within, between = covariances(part)
    torch.testing.assert_close(within, torch.eye(2), atol=0.05, rtol=0)
    torch.testing.assert_close(between, torch.diag(torch.tensor([4.0, 36.0])), atol=0.3, rtol=0.1)
    assert part.psi_.sort()[0].tolist() == pytest.approx([4, 36], rel=0.1)


@pytest.mark.parametrize("transform", ["raw", "sqrt", "centred-l2", "both"])
def test_transforms(episodes, base, rng, transform):
    support, query = episodes()
    part = Gaussian(transform).fit(base, rng)

    def slow_transform(x):
        if transform in ("sqrt", "both"):
            x = torch.tensor([abs(v) ** 0.5 * (1 if v > 0 else -1) for v in x.flatten().tolist()]).view(x.shape)
        if transform in ("centred-l2", "both"):
            centre = base.x if transform == "centred-l2" else base.x.sign() * base.x.abs().sqrt()
            x = x - centre.mean(0)
            x = x / x.norm(dim=-1, keepdim=True)
        return x.float()

    plain = Gaussian("raw").fit(FeatureBank(slow_transform(base.x), base.y, base.classes), rng)
    moved = Examples(slow_transform(support.x), support.y, weight=support.weight.float())
    torch.testing.assert_close(
        part.scores(support, query).float(), plain.scores(moved, slow_transform(query)), atol=2e-2, rtol=1e-3
    )


def test_a_linear_map_of_all_features_changes_no_prediction(episodes, base, rng):
    support, query = episodes()
    linear = torch.randn(7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 2 * torch.eye(7)
    part = Gaussian("raw", shrinkage=0.0).fit(base, rng)
    other = Gaussian("raw", shrinkage=0.0).fit(
        FeatureBank((base.x.double() @ linear).float(), base.y, base.classes), rng
    )
    found = other.scores(Examples(support.x @ linear, support.y, weight=support.weight), query @ linear)
    expected = part.scores(support, query) - torch.linalg.slogdet(linear).logabsdet
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)


def test_few_base_classes_do_not_narrow_the_prior(rng):
    noise = torch.Generator().manual_seed(3)
    y = torch.arange(10).repeat_interleave(50)
    x = torch.randn(10, 100, generator=noise)[y] + torch.randn(500, 100, generator=noise)
    bank = FeatureBank(x, y, tuple("abcdefghij"))
    automatic = Gaussian("raw").fit(bank, rng).psi_
    given = Gaussian("raw", mean_shrinkage=0.0).fit(bank, rng).psi_
    assert float(automatic.max() / automatic.min()) < 1.5
    assert float(given.min()) == 0


def test_rows_that_scatter_widen_a_class(base, rng):
    wide = torch.tensor([[3.0] * 7, [-3.0] * 7, [2.0, -2.0] * 3 + [2.0], [0.0] * 7])
    support = Examples(torch.cat([wide, wide * 0.01 + 1]), torch.arange(2).repeat_interleave(4))
    far = torch.full((1, 7), 6.0)
    own = Gaussian("raw", spread="class", prior_count=1.0).fit(base, rng).scores(support, far)
    shared = Gaussian("raw").fit(base, rng).scores(support, far)
    assert float(own[0, 0] - own[0, 1]) > float(shared[0, 0] - shared[0, 1])


@pytest.mark.parametrize("spread", ["base", "class"])
def test_gradients(episodes, make_base, rng, spread):
    support, query = episodes(way=2, shot=2, n_query=2, d=3, b=2)
    part = double(Gaussian(spread=spread).fit(make_base(d=3), rng))

    def scores(x, w, q):
        return part.scores(Examples(x, support.y, weight=w), q)

    given = [t.clone().requires_grad_() for t in (support.x, support.weight, query)]
    assert torch.autograd.gradcheck(scores, given)


def test_it_is_refused_unfitted_or_on_what_teaches_nothing(episodes, make_base, rng):
    with pytest.raises(InputError, match="gaussian is not fitted"):
        Gaussian("raw").scores(*episodes())
    with pytest.raises(InputError, match="at least 2 base classes"):
        Gaussian().fit(make_base(classes=1), rng)
    with pytest.raises(InputError, match="at least 2 rows"):
        Gaussian().fit(make_base(rows=1), rng)
    with pytest.raises(InputError, match="shrinkage over 0"):
        Gaussian("raw", shrinkage=0.0).fit(make_base(d=200), rng)


def test_the_scatter_of_the_support_adapts_s_w_as_a_whole_matrix(episodes, base, rng):
    support, query = episodes()
    part = double(Gaussian("raw", within_rows=20.0).fit(base, rng))
    found = part.scores(support, query)
    for e in range(3):
        z, q, weight = (support.x[e] - part.mean_) @ part.map_, (query[e] - part.mean_) @ part.map_, support.weight[e]
        within, free, places = 20 * torch.eye(z.shape[1], dtype=torch.float64), 20.0, []
        for k in range(int(support.y.max()) + 1):
            w = (weight * (support.y[e] == k))[:, None]
            mean = (w * z).sum(0) / w.sum()
            places.append((mean, float(w.sum())))
            if float(w.sum()) > 1:
                within, free = within + (w * (z - mean)).T @ (z - mean), free + float(w.sum()) - 1
        within = within / free
        for k, (mean, n) in enumerate(places):
            known = (part.psi_.diag().inverse() + n * within.inverse()).inverse()
            covariance = within + (known + known.T) / 2
            mu = known @ (n * within.inverse() @ mean)
            expected = MultivariateNormal(mu, covariance).log_prob(q) + part.log_volume_
            torch.testing.assert_close(found[e, :, k], expected, atol=1e-4, rtol=1e-5)
