"""`Resampler`: how many rows, which, of what kind, learnt from what, and inside of pipelines."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from augforge import chance
from augforge.adapters.sklearn import Resampler
from augforge.data.banks import FeatureBank
from augforge.data.features import write_features
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.parts import catalog
from augforge.parts.saving import save_part
from augforge.types import Examples, InputError

COUNTS = {"ant": 12, "bee": 5, "cow": 3}
FEATURES = [name for name in catalog.SYNTHESIZERS if catalog.part_class(name).space in ("any", "feature")]
FEW_STEPS = 4  # of what is trained: here it only has to run
QUICK = {
    "analogies": {"hidden": 16, "partners": 1},
    "posterior": {"transform": "raw", "shrinkage": 0.4, "between_scale": 1.0, "prior": "gaussian"},
}


def _data(counts=COUNTS, d=6):
    y = np.repeat(list(counts), list(counts.values()))
    rng = np.random.default_rng(0)
    return np.abs(rng.normal(size=(len(y), d)) + (y == y[0])[:, None]), y


def _counts(y):
    return dict(zip(*(column.tolist() for column in np.unique(y, return_counts=True)), strict=True))


def _base(d=6, seed=0):
    y = torch.arange(12).repeat_interleave(12)
    x = torch.randn(144, d, generator=torch.Generator().manual_seed(seed)) + y[:, None]
    return FeatureBank(x.abs(), y, tuple("abcdefghijkl"))


def _small(name):
    """Settings that make the training of a part short, where it has any."""
    fields = getattr(catalog.part_class(name), "__dataclass_fields__", {})
    return {key: FEW_STEPS for key in ("steps", "epochs") if key in fields} | QUICK.get(name, {})


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_synthesizer_of_the_catalog_works(name):
    x, y = _data()
    sampler = Resampler(name, settings=_small(name), base=_base(), sampling_strategy=14)
    with warnings.catch_warnings(record=True) as reply:
        warnings.simplefilter("always")
        x_res, y_res = sampler.fit_resample(x.astype(np.float32), y)
    if name == "nothing":
        assert _counts(y_res) == COUNTS
    elif not any("left out" in str(warning.message) for warning in reply):  # as a part says that has learnt little
        assert _counts(y_res) == dict.fromkeys(COUNTS, 14)
    assert x_res.dtype == np.float32
    assert np.isfinite(x_res).all()
    assert len(sampler.sample_weight_) == len(sampler.parents_) == len(x_res)
    assert (sampler.sample_weight_[: len(x)] == 1).all()
    known = sampler.parents_ >= 0
    assert not known[: len(x)].any()
    np.testing.assert_array_equal(y_res[known], y[sampler.parents_[known]])


def test_made_rows_are_those_of_the_part_itself():
    x, y = _data()
    part = Noise(scale=0.5).fit(_base(), torch.Generator().manual_seed(0))
    x_res, _ = Resampler(part, sampling_strategy={"cow": 9}, random_state=3).fit_resample(x, y)
    support = Examples(torch.from_numpy(x), torch.from_numpy(np.unique(y, return_inverse=True)[1]))
    want, keys = torch.full((6,), 2), chance.pair_keys(3, "cow", torch.arange(6))
    np.testing.assert_array_equal(x_res[len(x) :], part.synthesize(support, want, keys).x.numpy())


def test_more_rows_keep_what_fewer_made_and_classes_do_not_depend_on_each_other():
    x, y = _data()
    few = Resampler("noise", base=_base(), sampling_strategy={"cow": 9}).fit_resample(x, y)
    many = Resampler("noise", base=_base(), sampling_strategy=40).fit_resample(x, y)
    np.testing.assert_array_equal(many[0][many[1] == "cow"][:9], few[0][few[1] == "cow"])


def test_many_rows_are_made_in_parts_that_cannot_be_told(monkeypatch):
    x, y = _data()
    whole = Resampler("noise", sampling_strategy=30).fit_resample(x, y)
    monkeypatch.setattr("augforge.adapters.sklearn._ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(Resampler("noise", sampling_strategy=30).fit_resample(x, y)[0], whole[0])


def test_random_state():
    x, y = _data()

    def made(random_state):
        return Resampler("noise", random_state=random_state).fit_resample(x, y)[0]

    np.testing.assert_array_equal(made(5), made(np.int32(5)))
    np.testing.assert_array_equal(made(np.random.default_rng(1)), made(np.random.default_rng(1)))
    np.testing.assert_array_equal(made(np.random.RandomState(1)), made(np.random.RandomState(1)))
    assert not np.array_equal(made(5), made(6))
    assert not np.array_equal(made(None), made(None))
    with pytest.raises(InputError, match="random_state='x' was given"):
        made("x")


def test_what_is_learnt_comes_from_the_base_or_from_the_rows_themselves(tmp_path):
    x, y = _data()
    generator = torch.Generator().manual_seed(0)
    codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    own = Noise().fit(FeatureBank(torch.from_numpy(x), codes, tuple(COUNTS)), generator)
    assert torch.equal(Resampler("noise").fit(x, y).synthesizer_.factor_, own.factor_)
    base = _base()
    write_features(tmp_path / "base.safetensors", {"train": base, "val": _base(seed=1)})
    for given in (base, tmp_path / "base.safetensors", str(tmp_path / "base.safetensors")):
        found = Resampler("noise", base=given).fit(x, y).synthesizer_
        assert torch.equal(found.factor_, Noise().fit(base, generator).factor_)


def test_a_part_that_chooses_is_handed_the_validation_classes(tmp_path):
    write_features(tmp_path / "base.safetensors", {"train": _base(), "val": _base(seed=1)})
    seen = []

    class Choosing(Copies):
        chooses = True

        def fit(self, base, rng, val=None):
            seen.append((base.x, None if val is None else val.x))
            return self

    Resampler(Choosing(), base=tmp_path / "base.safetensors").fit(*_data())
    Resampler(Choosing()).fit(*_data())
    assert torch.equal(seen[0][0], _base().x)
    assert torch.equal(seen[0][1], _base(seed=1).x)
    assert seen[1][1] is None


def test_a_fitted_part_and_its_folder_are_used_as_they_are(tmp_path):
    x, y = _data()
    part = Noise(scale=0.5).fit(_base(), torch.Generator().manual_seed(0))
    save_part(part, tmp_path / "part")
    wanted = Resampler(part).fit_resample(x, y)[0]
    np.testing.assert_array_equal(Resampler(tmp_path / "part").fit_resample(x, y)[0], wanted)
    for given in (part, tmp_path / "part"):
        with pytest.raises(InputError, match="fitted already"):
            Resampler(given, base=_base()).fit(x, y)
        with pytest.raises(InputError, match="settings"):
            Resampler(given, settings={"scale": 2}).fit(x, y)


def test_a_part_that_is_given_is_not_fitted_itself():
    part = Noise()
    Resampler(part).fit(*_data())
    assert part.factor_ is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"synthesizer": "nois"}, "the nearest is 'noise'"),
        ({"synthesizer": "classical"}, "makes images, and these rows are features"),
        ({"settings": {"scal": 1}}, "no setting 'scal'"),
        ({"base": "/nowhere.safetensors"}, "there is no file"),
        ({"base": _base(d=4)}, "was fitted on 4 features; these rows have 6"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        Resampler(**{"synthesizer": "noise", **arguments}).fit_resample(*_data())


def test_pictures_are_no_base(tmp_path):
    np.savez(tmp_path / "base.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4) % 2)
    with pytest.raises(InputError, match="holds pictures; expected features"):
        Resampler("noise", base=tmp_path / "base.npz").fit(*_data())


def test_rows_that_are_not_to_be_trusted_are_left_out_and_the_weights_of_others_kept():
    class Unsure(Copies):
        def synthesize(self, support, want, keys):
            made = super().synthesize(support, want, keys)
            return replace(made, weight=torch.where(want == 1, 0.0, 0.25))

    x, y = _data()
    sampler = Resampler(Unsure())
    with pytest.warns(UserWarning, match="Unsure gave 7 of 16 made rows the weight 0"):
        x_res, y_res = sampler.fit_resample(x, y)
    assert _counts(y_res) == {"ant": 12, "bee": 5, "cow": 12}
    assert sampler.sample_weight_.tolist() == [1.0] * 20 + [0.25] * 9
    np.testing.assert_array_equal(x_res, np.concatenate([x, x[sampler.parents_[20:]]]))


@pytest.mark.parametrize(("classifier", "together"), [("logistic", 0.25), ("prototype", 0.4)])
def test_made_rows_weigh_what_suits_the_classifier(classifier, together):
    x, y = _data()
    sampler = Resampler("copies", sampling_strategy=30, classifier=classifier)
    _, y_res = sampler.fit_resample(x, y)
    for name in set(y):
        weight = sampler.sample_weight_[y_res == name]
        assert weight[weight < 1].sum() == pytest.approx(together)


def test_where_a_method_gained_nothing_its_rows_are_left_out_and_it_is_said():
    class Hopeless(Copies):
        def share(self, family, counts):
            return torch.zeros_like(counts, dtype=torch.float32)

    x, y = _data()
    with pytest.warns(UserWarning, match="the weight 0, as it gained nothing before mlp on held-out classes"):
        x_res, _ = Resampler(Hopeless(), classifier="mlp").fit_resample(x, y)
    np.testing.assert_array_equal(x_res, x)


def test_a_class_with_too_few_rows_is_named():
    class Needy(Copies):
        support_needed = 4

    with pytest.raises(InputError, match="class 'cow' has 3 rows; Needy needs at least 4"):
        Resampler(Needy()).fit_resample(*_data())


def test_in_a_pipeline_rows_are_made_while_fitting_alone():
    pipeline = pytest.importorskip("imblearn.pipeline")
    x, y = _data({"ant": 30, "bee": 6}, d=4)
    steps = [("more", Resampler("noise")), ("classifier", LogisticRegression())]
    fitted = pipeline.Pipeline(steps).fit(x, y)
    by_hand = LogisticRegression().fit(*Resampler("noise").fit_resample(x, y))
    np.testing.assert_array_equal(fitted.predict_proba(x), by_hand.predict_proba(x))
    assert len(fitted.predict(x)) == 36
    assert len(cross_val_score(clone(fitted), x, y, cv=3)) == 3
    grid = {"more__settings": [{"scale": 0.0}, {"scale": 1.0}], "more__sampling_strategy": [0.5, "auto"]}
    assert GridSearchCV(pipeline.Pipeline(steps), grid, cv=2).fit(x, y).best_score_ > 0.5


def test_parameters_are_got_and_set():
    sampler = Resampler("noise", settings={"scale": 2.0}, base=_base(), random_state=4)
    copy = clone(sampler)
    assert copy.get_params().keys() == {
        "synthesizer",
        "sampling_strategy",
        "settings",
        "base",
        "classifier",
        "random_state",
    }
    assert torch.equal(copy.base.x, sampler.base.x)
    assert copy.set_params(random_state=5, sampling_strategy=9).random_state == 5
    assert copy.get_feature_names_out is not None


def test_a_pool_comes_last_with_labels_and_weights():
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(3, 8))
    x, y = means[[0, 1, 2]] + rng.normal(size=(3, 8)), np.array(["a", "b", "c"])
    truth = np.repeat(np.arange(3), 10)
    pool = means[truth] + rng.normal(size=(30, 8))
    sampler = Resampler("nothing")
    rows, labels = sampler.fit_resample(x, y, pool=pool)
    assert np.array_equal(rows[:3], x)
    assert sampler.pool_rows_[:3].tolist() == [-1] * 3
    assert np.allclose(rows[3:], pool[sampler.pool_rows_[3:]])
    assert (labels[3:] == y[truth[sampler.pool_rows_[3:]]]).mean() > 0.9
    assert (sampler.sample_weight_[3:] > 0).all()
    for name in y:
        assert sampler.sample_weight_[3:][labels[3:] == name].sum() <= 2 + 1e-6
    alone, _ = Resampler("nothing").fit_resample(x, y)
    assert len(alone) == 3
    with pytest.raises(InputError, match=r"pool is of float64 \[30, 7\] and X \[3, 8\]; expected as many columns"):
        Resampler("nothing").fit_resample(x, y, pool=pool[:, 1:])
