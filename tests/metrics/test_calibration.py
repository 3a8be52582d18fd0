import numpy as np
import pytest
import torch

from augforge.metrics.calibration import expected_calibration_error, fitted_temperature


def test_against_a_value_worked_out_by_hand():
    # 5 bins of 0.2: (0.2, 0.4] holds 0.3 wrong and 0.4 right, (0.6, 0.8] holds 0.7 right, (0.8, 1] holds 0.9 twice
    confidence, right = [0.3, 0.4, 0.7, 0.9, 0.9], [0, 1, 1, 1, 0]
    by_hand = (abs(1 - 0.7) + abs(1 - 0.7) + abs(1 - 1.8)) / 5
    assert expected_calibration_error(confidence, right, bins=5) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.28)


def test_against_the_definition_with_fifteen_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 500)
    right = rng.uniform(size=500) < confidence**2
    total = 0.0
    for m in range(15):  # as in equations 1 to 3 of the paper
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, right) == pytest.approx(total, abs=1e-12)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    assert expected_calibration_error(np.ones(9), np.ones(9)) == 0
    assert expected_calibration_error(np.ones(9), np.zeros(9)) == 1
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0  # both ends are in a bin
    assert expected_calibration_error(np.full(4, 0.75), [1, 1, 1, 0]) == pytest.approx(0)


def test_the_bias_of_few_rows_is_as_told():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        confidence = rng.uniform(0, 1, 300)
        found.append(expected_calibration_error(confidence, rng.uniform(size=300) < confidence))
    assert np.mean(found) == pytest.approx(0.4 * np.sqrt(15 / 300), rel=0.3)


@pytest.mark.parametrize(("confidence", "right"), [([], []), ([0.5], [1, 0]), ([1.2], [1]), ([float("nan")], [1])])
def test_what_is_no_confidence_is_refused(confidence, right):
    with pytest.raises(ValueError, match=r"expected"):
        expected_calibration_error(confidence, right)


def test_the_temperature_that_made_the_labels_is_found():
    draw = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn(20_000, 5, generator=draw)
    for temperature in (0.5, 3.0):
        labels = torch.multinomial(torch.softmax(scores / temperature, 1), 1, generator=draw)[:, 0]
        assert fitted_temperature(scores, labels) == pytest.approx(temperature, rel=0.05)


def test_a_prior_decides_where_there_are_no_rows_and_gives_way_where_there_are_many():
    none, labels = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert fitted_temperature(none, labels, prior=2.0, weight=5.0) == pytest.approx(2, rel=1e-3)
    with pytest.raises(ValueError, match="no scores and no prior"):
        fitted_temperature(none, labels)
    draw = torch.Generator().manual_seed(1)
    scores = torch.randn(5000, 3, generator=draw)
    labels = torch.multinomial(torch.softmax(scores, 1), 1, generator=draw)[:, 0]
    found = [fitted_temperature(scores[:n], labels[:n], prior=10.0, weight=5.0) for n in (5, 50, 5000)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1, rel=0.1)
