import numpy as np
import pytest

from augforge import statistics as st
from augforge.bench.accuracy import by_class, confusion, in_top, shot_worth, shots_for

RNG = np.random.default_rng


def episodes(rng, k, way, n):
    return np.argsort(rng.random((n, k)), 1)[:, :way]


def world(rng, classes, *, own=0.0, others=0.0, noise=10.0, mean=0.0):
    """Gains [n, way] in which a class moves its own queries and those of the others of its episode."""
    k, way = classes.max() + 1, classes.shape[1]
    a, b = rng.normal(0, own, k)[classes], rng.normal(0, others, k)[classes]
    return mean + a + (b.sum(1, keepdims=True) - b) / (way - 1) + rng.normal(0, noise, classes.shape)


# Quantile at 0.975 and tail beyond 2.5 of Student's t, by the continued fraction of Abramowitz & Stegun 26.5.8.
STUDENT = [
    (1, 12.706204736174687, 0.1211189415908433),
    (4, 2.7764451051977934, 0.03338327240599406),
    (19, 2.093024054408308, 0.010870205584198689),
    (81, 1.9896863234568918, 0.00721900353515093),
    (599, 1.9639322489453592, 0.006342799928426763),
]


@pytest.mark.parametrize(("free", "quantile", "tail"), STUDENT)
def test_intervals_and_p_are_those_of_students_t(free, quantile, tail):
    """For values with mean 2.5 and standard error 1."""
    values = RNG(free).normal(0, 1, free + 1)
    values = 2.5 + (values - values.mean()) * np.sqrt(free + 1) / values.std(ddof=1)
    found = st.episode_interval(values)
    assert (found.high - found.low) / 2 == pytest.approx(quantile, rel=1e-9)
    assert found.p == pytest.approx(2 * tail, rel=1e-9)


def test_episode_interval_is_the_textbook_one():
    found = st.episode_interval([1.0, 2.0, 3.0, 4.0])
    reach = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert (found.low, found.value, found.high) == pytest.approx((2.5 - reach, 2.5, 2.5 + reach), abs=1e-5)


def test_bootstraps_repeat_with_their_key_and_agree_with_the_standard_error():
    v = RNG(0).normal(1, 5, 400)
    low, high = st.episode_bootstrap(v, 3)
    assert (low, high) == st.episode_bootstrap(v, 3) != st.episode_bootstrap(v, 4)
    assert (high - low) / 2 == pytest.approx(1.96 * v.std() / 20, rel=0.08)


def test_the_drawn_bootstrap_over_classes_has_the_variance_of_the_formula():
    rng = RNG(1)
    classes = episodes(rng, 20, 5, 500)
    values = world(rng, classes, own=4)
    drawn = st.class_draws(values[..., None], classes, 0, 4000)[:, 0]
    assert drawn.var() == pytest.approx(st.class_variance(values, classes), rel=0.1)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.1)


def test_the_mean_of_multiplicities_is_too_small_by_way_and_ours_is_right():
    """Without noise and with every class as often as any other, the truth is known: the mean moves by way a_c / K."""
    rng = RNG(2)
    k, way = 40, 5
    classes = np.concatenate([rng.permutation(k).reshape(-1, way) for _ in range(200)])
    effect = rng.normal(0, 1, k)
    episode_gain = effect[classes].sum(1)
    values = np.repeat(episode_gain[:, None], way, 1)
    truth = way**2 * effect.var(ddof=1) / k
    counts = rng.multinomial(k, [1 / k] * k, 4000)  # [resamples, k]
    weights = counts[:, classes].mean(2)  # the mean of multiplicities
    naive = ((weights * episode_gain).sum(1) / weights.sum(1)).var()
    among_others = ((k - way) / (k - 1)) ** 2  # a class is measured against episodes of the others
    assert naive == pytest.approx(truth / way**2 * among_others, rel=0.15)
    assert st.class_variance(values, classes) == pytest.approx(truth, rel=0.25)


@pytest.mark.parametrize(
    ("k", "way", "n", "own", "others"),
    [(20, 5, 300, 3, 0), (20, 5, 300, 3, 2), (80, 5, 300, 3, 1), (40, 10, 300, 3, 1), (5, 5, 100, 3, 1)],
)
def test_intervals_over_classes_hold_what_they_promise_where_those_over_episodes_do_not(k, way, n, own, others):
    rng = RNG(3)
    held, naive = [], []
    for _ in range(120):
        classes = episodes(rng, k, way, n)
        values = world(rng, classes, own=own, others=others)
        over = st.class_interval(values, classes)
        held.append(over.low <= 0 <= over.high)
        alone = st.episode_interval(values.mean(1))
        naive.append(alone.low <= 0 <= alone.high)
    assert np.mean(held) >= 0.88  # 95 % less three standard errors of 120 repetitions
    assert np.mean(naive) < 0.8


def test_false_alarms_in_a_table_stay_under_five_percent_and_a_point_is_found():
    """Three arms that gain nothing over classes drawn anew, and one that gains a point, on 2,000 episodes."""
    rng = RNG(4)
    alarms, found = [], []
    for _ in range(200):
        classes = episodes(rng, 20, 5, 2000)
        nothing = [world(rng, classes, own=0.8, others=0.4, noise=8) for _ in range(3)]
        gains = [st.class_interval(values, classes) for values in nothing]
        alarms.append(set(st.verdicts(gains)) != {"no evidence"})
        better = st.class_interval(world(rng, classes, own=0.8, noise=8, mean=1), classes)
        found.append(st.verdicts([*gains, better])[-1] == "helps")
    assert np.mean(alarms) <= 0.08  # 5 % and two standard errors of 200 repetitions
    assert np.mean(found) >= 0.9


def test_clusters_larger_than_classes_are_one_voice_each():
    rng = RNG(5)
    clusters = np.repeat(np.arange(10), 30)[:, None].repeat(5, 1)
    effect = rng.normal(0, 1, 10)
    values = effect[clusters]
    assert st.class_variance(values, clusters) == pytest.approx(effect.var(ddof=1) / 10, rel=0.05)
    assert st.class_interval(values, np.zeros_like(clusters)).low == -np.inf


def test_no_change_is_no_evidence():
    classes = episodes(RNG(6), 20, 5, 50)
    still = st.class_interval(np.zeros((50, 5)), classes)
    assert (still.low, still.high, still.p) == (0, 0, 1)
    assert st.verdicts([still]) == ["no evidence"]
    assert st.win_rate(np.zeros(50)) == 0.5
    assert st.win_rate([1, -1, 0, 2]) == 0.625


def test_holm_adjusts_step_by_step():
    assert st.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert st.holm([]).shape == (0,)


def test_confusion_by_hand():
    classes = np.array([[7, 3], [3, 9]])
    target = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    predicted = np.array([[0, 1, 1, 1], [0, 1, 1, 0]])
    counts, ids = confusion(classes, target, predicted)
    assert ids.tolist() == [3, 7, 9]
    assert counts.tolist() == [[3, 0, 1], [1, 1, 0], [1, 0, 1]]
    found = by_class(counts, ids)
    assert found.precision == pytest.approx([3 / 5, 1, 1 / 2])
    assert found.recall == pytest.approx([3 / 4, 1 / 2, 1 / 2])
    assert found.macro_f1 == pytest.approx(np.mean([2 / 3, 2 / 3, 1 / 2]))


def test_top_k_breaks_ties_as_argmax_does():
    scores = np.array([[3.0, 3, 1], [1, 2, 2]])
    assert in_top(scores, np.array([1, 2]), 1).tolist() == [False, False]
    assert in_top(scores, np.array([0, 1]), 1).tolist() == [True, True]
    assert in_top(scores, np.array([1, 0]), 2).tolist() == [True, False]
    assert in_top(scores, np.array([2, 0]), 3).all()


def test_shots_are_read_off_the_curve_over_the_logarithm():
    curve = np.array([[50.0, 60, 70]]).repeat(6, 0)
    found = shots_for([50, 55, 60, 65, 49, 71], [1, 4, 16], curve)
    assert found == pytest.approx([1, 2, 4, 8, 0, np.inf])


def test_a_dent_in_the_curve_counts_for_the_plain_recipe():
    assert shots_for([60, 61], [1, 2, 4], np.array([[50, 60, 58], [50, 60, 62]])) == pytest.approx([2, 2 * 2**0.5])


def test_shot_worth_says_what_lies_outside_of_the_curve():
    draws, curve = np.linspace(54, 66, 101), np.tile([50.0, 60, 70], (101, 1))
    inside = shot_worth(60, draws, [1, 4, 16], curve[0], curve)
    assert inside.value == pytest.approx(4)
    assert inside.low < 2.5 < 6 < inside.high
    assert inside.words().startswith("4.0 (")
    assert shot_worth(80, draws + 30, [1, 4, 16], curve[0], curve).words() == "more than 16"
    assert shot_worth(40, draws - 30, [1, 4, 16], curve[0], curve).words() == "less than 1"
    assert shot_worth(55, [55.0] * 3, [1], [50], [[50.0]] * 3).words() == "more than 1"


# Pictures asked about, drawn anew


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right, n, low, high):
    found = st.wilson_interval(np.arange(n) < right)
    assert found.value == pytest.approx(right / n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    all_right = st.wilson_interval(np.ones(20))
    assert (all_right.low, all_right.high) == pytest.approx((1 - 0.1611, 1), abs=6e-5)


def test_clusters_of_one_value_are_students_interval():
    values = RNG(3).normal(size=40)
    one, other = st.cluster_interval(values, np.arange(40)), st.episode_interval(values)
    assert (one.low, one.high, one.p) == pytest.approx((other.low, other.high, other.p))


def test_values_that_come_again_make_the_interval_no_smaller():
    values = RNG(4).normal(size=30)
    once = st.cluster_interval(values, np.arange(30))
    often = st.cluster_interval(np.tile(values, 50), np.tile(np.arange(30), 50))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert st.cluster_interval(values, np.zeros(30)).high == np.inf


def test_the_interval_over_clusters_holds_the_truth_as_often_as_it_says():
    rng, held = RNG(5), 0
    for _ in range(400):
        own = rng.normal(size=25)
        of = rng.integers(0, 25, 300)
        found = st.cluster_interval(own[of] + rng.normal(size=300), of)
        held += found.low <= 0 <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.04)
