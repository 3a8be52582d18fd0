"""Near-duplicate search against all cosines, and label suspects, thumbnails and sound pictures on planted cases."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from augforge.curate.copies import COPY, Distinct, copies_of
from augforge.curate.filters import good_rows
from augforge.curate.labels import check_labels
from augforge.curate.looks import looks_of
from augforge.curate.near import near_pairs
from augforge.curate.same import CHANGED, MIRRORED, SAME, _limit, same_pictures
from augforge.curate.sound import BLANK, NOISE, OUT_OF_RANGE, SATURATED, SoundPictures, sound_features
from augforge.types import Examples, InputError


def _rows(n, d, seed, spectrum=0.5):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng) * torch.arange(1, d + 1).float() ** -spectrum


def _expected(a, b, least, same):
    cosine = F.normalize(a.double(), dim=1) @ F.normalize(b.double(), dim=1).T
    pairs = (cosine >= least).nonzero()
    return {(i, j) for i, j in pairs.tolist() if not same or i < j}


@pytest.mark.parametrize(("width", "spectrum"), [(20, 0.5), (256, 0.0), (256, 0.8)])
@pytest.mark.parametrize("same", [True, False])
def test_no_pair_is_missed_and_none_is_invented(width, spectrum, same):
    a = _rows(2300, width, 0, spectrum)
    b = a if same else _rows(2100, width, 1, spectrum)
    with_copies = a.clone()
    with_copies[2000:2100] = (b[:100] if not same else a[:100]) + 0.02 * _rows(100, width, 2, spectrum)
    a, b = with_copies, with_copies if same else b
    found = near_pairs(a, None if same else b, 0.9)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == _expected(a, b, 0.9, same)
    assert len(pairs) >= 100
    assert bool((found.cosine >= 0.9).all())


def test_what_is_no_table_of_rows_is_one_sentence():
    for a, b, least in (
        (torch.zeros(3, 2), torch.zeros(3, 4), 0.9),
        (torch.full((2, 2), torch.nan), None, 0.9),
        (torch.zeros(2, 2), None, 0.0),
    ):
        with pytest.raises(InputError, match="expected"):
            near_pairs(a, b, least)
    assert len(near_pairs(torch.zeros(0, 4))) == 0
    assert len(near_pairs(torch.zeros(5, 4))) == 0  # rows of length 0 are near to nothing


def test_swapped_labels_are_found_and_rows_alone_are_left():
    rng = torch.Generator().manual_seed(3)
    centres = 4 * torch.randn(6, 16, generator=rng)
    true = torch.arange(6).repeat_interleave(20)
    x = centres[true] + torch.randn(120, 16, generator=rng)
    given = true.clone()
    given[::10] = (given[::10] + 1) % 6
    found = check_labels(x, given)
    assert found.suspect.nonzero()[:, 0].tolist() == list(range(0, 120, 10))
    assert found.other[::10].equal(true[::10])
    alone = check_labels(torch.cat([x, x[:1] + 9]), torch.cat([true, torch.tensor([6])]))
    assert not bool(alone.suspect.any())
    assert float(alone.odds[-1]) == -torch.inf
    assert not bool(check_labels(x, torch.zeros(120, dtype=torch.int64)).suspect.any())


def _pictures(n=12, size=64, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return [cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in small]


def _rolled(picture):
    how = np.array([[1, 0.02, 2.0], [-0.02, 1, -2.5]], np.float32)
    return cv2.warpAffine(picture, how, picture.shape[:2][::-1], borderMode=cv2.BORDER_REPLICATE)


def test_a_picture_is_known_again_however_it_was_coded_mirrored_or_moved():
    pictures = _pictures()
    again = {
        SAME: cv2.resize(np.clip(pictures[3] * 0.8 + 10, 0, 255).astype(np.uint8), (50, 50)),
        MIRRORED: pictures[5][:, ::-1].copy(),
        CHANGED: _rolled(pictures[7]),
    }
    others = _pictures(6, seed=1)
    a, b = looks_of(pictures), looks_of([*again.values(), *others])
    rows = [torch.arange(len(a)), torch.arange(len(b))]
    found = same_pictures((a, b), rows)
    assert [(one.first, one.second) for one in sorted(found, key=lambda one: one.second)] == [(3, 0), (5, 1), (7, 2)]
    assert {one.reason for one in found} == set(again)
    assert {one.reason for one in same_pictures((a, b), rows, fast=True)} == {SAME, MIRRORED}
    within = same_pictures((looks_of([*pictures, again[SAME]]), None), [torch.arange(13)] * 2)
    assert [(one.first, one.second) for one in within] == [(3, 12)]


def test_filters_say_why():
    rng = np.random.default_rng(0)
    good = [torch.from_numpy(one).permute(2, 0, 1) for one in _pictures(3)]
    bad = [
        torch.full((3, 64, 64), 120, dtype=torch.uint8),
        torch.from_numpy(np.where(rng.random((1, 32, 32)) < 0.5, 0, 255).astype(np.uint8)).repeat(3, 1, 1),
        torch.from_numpy(rng.integers(30, 220, (3, 32, 32), dtype=np.uint8)),
        torch.full((3, 8, 8), 2.0),
        good[1].clone(),
    ]
    examples = Examples([*good, *bad], torch.zeros(8, dtype=torch.int64))
    kept, reasons = good_rows(examples, [SoundPictures(), copies_of([good[1]])])
    assert kept.tolist() == [0, 2]
    assert reasons == {
        1: "copy of a real row",
        3: BLANK,
        4: SATURATED,
        5: NOISE,
        6: OUT_OF_RANGE,
        7: "copy of a real row",
    }


def test_features_out_of_range_and_copies_of_them():
    real = _rows(40, 8, 0)
    made = torch.cat([_rows(3, 8, 1), real[4:5] * 1.0001, torch.full((1, 8), 100.0), torch.full((1, 8), torch.nan)])
    examples = Examples(made, torch.zeros(len(made), dtype=torch.int64))
    kept, reasons = good_rows(examples, [sound_features(real), copies_of(real)])
    assert kept.tolist() == [0, 1, 2]
    assert reasons == {3: COPY, 4: OUT_OF_RANGE, 5: OUT_OF_RANGE}


def test_what_was_taken_is_not_taken_again():
    pictures = [torch.from_numpy(one).permute(2, 0, 1) for one in _pictures(3)]
    distinct = Distinct()
    assert [distinct.takes(one) for one in (*pictures, pictures[1], pictures[2] // 2)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("copies", [10, 30, 50])
def test_many_copies_do_not_move_the_limit_that_finds_them(copies):
    rng = np.random.default_rng(copies)
    others = torch.from_numpy(np.tanh(rng.normal(1.1, 0.15, 160)))  # likest other pictures: 0.8, at most 0.92
    again = torch.from_numpy(np.tanh(rng.normal(2.2, 0.15, copies)))  # 0.975
    alone, beside = _limit(others), _limit(torch.cat([others, again]))
    assert float(others.max()) < alone <= beside < alone + 0.01
    assert float((again >= beside).float().mean()) > 0.9
