"""How many rows `Resampler` makes, in the words of imbalanced-learn, and what it takes and gives back."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from augforge.adapters.sklearn import Resampler
from augforge.types import InputError

COUNTS = {"ant": 12, "bee": 5, "cow": 3}


def _data(counts=COUNTS, d=6):
    y = np.repeat(list(counts), list(counts.values()))
    rng = np.random.default_rng(0)
    return np.abs(rng.normal(size=(len(y), d)) + (y == y[0])[:, None]), y


def _counts(y):
    return dict(zip(*(column.tolist() for column in np.unique(y, return_counts=True)), strict=True))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("auto", {"ant": 12, "bee": 12, "cow": 12}),
        ("not majority", {"ant": 12, "bee": 12, "cow": 12}),
        ("all", {"ant": 12, "bee": 12, "cow": 12}),
        ("minority", {"ant": 12, "bee": 5, "cow": 12}),
        ("not minority", {"ant": 12, "bee": 12, "cow": 3}),
        ({"cow": 7}, {"ant": 12, "bee": 5, "cow": 7}),
        ({"cow": 3, "ant": 13}, {"ant": 13, "bee": 5, "cow": 3}),
        (lambda y: {"bee": int((y == "ant").sum())}, {"ant": 12, "bee": 12, "cow": 3}),
        (10, {"ant": 12, "bee": 10, "cow": 10}),
        (np.int64(20), {"ant": 20, "bee": 20, "cow": 20}),
    ],
)
def test_a_strategy_says_how_many(strategy, expected):
    x, y = _data()
    sampler = Resampler("copies", sampling_strategy=strategy)
    x_res, y_res = sampler.fit_resample(x, y)
    assert _counts(y_res) == expected
    assert sum(sampler.sampling_strategy_.values()) == len(y_res) - len(y)
    np.testing.assert_array_equal(x_res[: len(x)], x)
    np.testing.assert_array_equal(y_res[: len(y)], y)


@pytest.mark.parametrize(("ratio", "made"), [(1, 7), (1.0, 7), (0.75, 4)])
def test_a_ratio_is_that_of_two_classes(ratio, made):
    x, y = _data({"ant": 12, "bee": 5})
    assert Resampler("copies", sampling_strategy=ratio).fit(x, y).sampling_strategy_ == {"bee": made}


@pytest.mark.parametrize(
    "strategy", ["auto", "minority", "not minority", "not majority", "all", {"cow": 7, "bee": 5}, 0.5, 0.9]
)
def test_strategies_mean_what_they_mean_in_imbalanced_learn(strategy):
    imblearn = pytest.importorskip("imblearn.utils")
    x, y = _data({"ant": 12, "bee": 5} if isinstance(strategy, float) else COUNTS)
    theirs = imblearn.check_sampling_strategy(strategy, y, "over-sampling")
    assert Resampler("copies", sampling_strategy=strategy).fit(x, y).sampling_strategy_ == dict(theirs)


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("majority", "expected one of auto"),
        ({"cow": 2}, "which has 3"),
        ({"dog": 9}, "names the class 'dog'; the classes of y are 'ant', 'bee', 'cow'"),
        ({"cow": 3.5}, "expected a whole number"),
        (0.5, "is a ratio of 2 classes and y has 3"),
        (-1, "expected a ratio over 0"),
        (None, "expected one of"),
        (True, "expected one of"),
    ],
)
def test_strategies_that_do_not_fit_are_refused(strategy, said):
    with pytest.raises(InputError, match=said):
        Resampler("copies", sampling_strategy=strategy).fit(*_data())


def test_a_ratio_that_is_there_already_is_refused():
    with pytest.raises(InputError, match="none is taken away"):
        Resampler("copies", sampling_strategy=0.2).fit(*_data({"ant": 12, "bee": 5}))


def test_one_class_can_be_filled_but_not_balanced():
    x, y = _data({"ant": 4})
    assert len(Resampler("copies", sampling_strategy=9).fit_resample(x, y)[0]) == 9
    with pytest.raises(InputError, match="y has 1 class"):
        Resampler("copies").fit(x, y)


@pytest.mark.parametrize("kind", ["O", "U3"])
def test_labels_of_any_kind_come_back(kind):
    x, y = _data()
    y = y.astype(kind)
    y_res = Resampler("copies").fit_resample(x, y)[1]
    assert y_res.dtype == y.dtype
    assert sorted(np.unique(y_res).tolist()) == sorted(np.unique(y).tolist())


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.float32, bool])
def test_labels_of_any_number_come_back(kind):
    x, y = _data({0: 9, 1: 4})
    y_res = Resampler("copies").fit_resample(x, y.astype(kind))[1]
    assert y_res.dtype == kind
    assert _counts(y_res) == {0: 9, 1: 9}


def test_a_matrix_of_labels_keeps_its_columns():
    x, y = _data({0: 9, 2: 4})
    y_res = Resampler("copies").fit_resample(x, np.eye(3, dtype=np.int32)[y])[1]
    assert y_res.sum(0).tolist() == [9, 0, 9]
    with pytest.raises(InputError, match="several classes or none"):
        Resampler("copies").fit(x, np.ones((13, 3), dtype=int))


def test_whole_numbers_become_floats_and_x_is_left_alone():
    x, y = _data()
    whole = (x * 100).astype(np.int32)
    x_res, _ = Resampler("noise").fit_resample(whole, y)
    assert x_res.dtype == np.float64
    assert not np.array_equal(x_res, x_res.round())
    for given in (np.asfortranarray(x), x[::-1], x.astype(">f8"), _read_only(x)):
        before = given.copy()
        expected = Resampler("noise").fit_resample(np.ascontiguousarray(given, dtype=float), y)[0]
        np.testing.assert_array_equal(Resampler("noise").fit_resample(given, y)[0], expected)
        np.testing.assert_array_equal(given, before)


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def test_frames_come_back_as_frames():
    pandas = pytest.importorskip("pandas")
    x, y = _data()
    frame = pandas.DataFrame(x, columns=list("pqrstu"), index=range(100, 120))
    frame = frame.astype({"p": np.float32}).assign(q=1)
    series = pandas.Series(y, name="animal", dtype="category", index=frame.index)
    x_res, y_res = Resampler("noise").fit_resample(frame, series)
    assert list(x_res.columns) == list("pqrstu")
    assert x_res.dtypes.iloc[0] == np.float32
    assert x_res.dtypes.iloc[1] == np.float64
    assert (y_res.name, str(y_res.dtype)) == ("animal", "category")
    assert x_res.index.equals(y_res.index)


def test_frames_of_labels_keep_their_types():
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(9, 4))
    names = np.array(["a", "b", "a", "a", "b", "a", "a", "a", "b"])
    categories = pandas.CategoricalDtype(["b", "a", "unused"], ordered=True)
    numbers = np.where(names == "a", 5, 2)
    kinds = (categories, names), ("string", names), ("Int64", numbers), ("bool", names == "a"), ("category", numbers)
    for dtype, y in kinds:
        frame = pandas.DataFrame({"animal": pandas.Series(y).astype(dtype)})
        found = Resampler("noise").fit_resample(x, frame)[1]
        assert isinstance(found, pandas.DataFrame)
        assert found["animal"].dtype == frame["animal"].dtype
        assert found["animal"].iloc[:9].tolist() == frame["animal"].tolist()
        assert found["animal"].value_counts().tolist()[:2] == [6, 6]
        assert Resampler("noise").fit_resample(x, frame["animal"])[1].dtype == frame["animal"].dtype


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "coo_matrix", "csr_array", "csc_array", "coo_array"])
def test_sparse_rows_come_back_sparse(kind):
    sparse = pytest.importorskip("scipy.sparse")
    x, y = _data()
    x[x < 1] = 0
    x_res, _ = Resampler("noise").fit_resample(getattr(sparse, kind)(x), y)
    assert sparse.issparse(x_res)
    assert type(x_res) is getattr(sparse, kind)
    np.testing.assert_array_equal(x_res.toarray(), Resampler("noise").fit_resample(x, y)[0])
