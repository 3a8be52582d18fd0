import io
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from augforge.synth import encode as module
from augforge.synth.encode import LARGEST_SIDE, encode, encode_png
from augforge.types import InputError


def _picture(kind: str, height: int, width: int, channels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if kind == "blank":
        return np.full((height, width, channels), rng.integers(0, 256), np.uint8)
    if kind == "ink":
        return np.where(rng.random((height, width, channels)) < 0.03, 0, 255).astype(np.uint8)
    coarse = rng.integers(0, 256, (5, 5, channels), dtype=np.uint8)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(soft.astype(int) + rng.integers(-4, 5, soft.shape), 0, 255).astype(np.uint8)


def _pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return np.asarray(picture)


def _opencv(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return found if found.ndim == 2 else found[:, :, ::-1]


@pytest.fixture(params=["isal", "zlib"])
def deflater(request, monkeypatch):
    if request.param == "isal" and module.isal_zlib is None:
        pytest.skip("isal is not installed")
    if request.param == "zlib":
        monkeypatch.setattr(module, "isal_zlib", None)
        monkeypatch.setattr(module, "_crc32", zlib.crc32)
        module._header.cache_clear()
    yield request.param
    module._header.cache_clear()


side = st.integers(1, 3) | st.integers(1, 70)


def test_png_files_are_what_went_in(deflater):
    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from(["random", "blank", "ink", "photo"]), side, side, st.sampled_from([1, 3]), st.integers(0, 9))
    def check(kind, height, width, channels, seed):
        picture = _picture(kind, height, width, channels, seed)
        data = encode_png(picture)
        expected = picture[:, :, 0] if channels == 1 else picture
        np.testing.assert_array_equal(_pillow(data), expected)
        np.testing.assert_array_equal(_opencv(data), expected)
        assert data == encode_png(picture.copy())

    check()


def test_png_files_are_the_same_in_every_process():
    # ISA-L's one-shot call differed in one process of twelve, on one of 400 pictures.
    code = """
import hashlib, numpy as np
from augforge.synth.encode import encode_png
rng, digest = np.random.default_rng(0), hashlib.sha256()
for _ in range(400):
    picture = rng.integers(0, 8, (28, 28, 1)) * (rng.random((28, 28, 1)) < 0.5)
    digest.update(encode_png(picture.astype(np.uint8)))
print(digest.hexdigest())
"""
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {run.communicate(timeout=60)[0] for run in runs}
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 3000, 3), (3000, 1, 1), (700, 500, 3), (600, 900, 1)])
@pytest.mark.parametrize("kind", ["random", "photo", "blank"])
def test_png_files_of_extreme_shapes(deflater, shape, kind):
    picture = _picture(kind, *shape, 0)
    np.testing.assert_array_equal(_pillow(encode_png(picture)), picture[:, :, 0] if shape[2] == 1 else picture)


def test_a_picture_that_is_a_view_is_encoded_as_it_looks(deflater):
    whole = _picture("photo", 40, 60, 3, 1)
    for view in (whole[::2, ::3], whole[:, ::-1], whole.transpose(1, 0, 2), np.asfortranarray(whole)):
        assert encode(view, "png") == encode(np.ascontiguousarray(view), "png")


def test_the_writer_does_not_touch_the_picture(deflater):
    picture = _picture("photo", 9, 9, 3, 1)
    before = picture.copy()
    for encoding in ("png", "jpeg", "webp"):
        encode(picture, encoding)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("kind", ["ink", "blank"])
def test_what_is_mostly_blank_stays_small(deflater, kind):
    picture = _picture(kind, 105, 105, 1, 0)
    assert len(encode_png(picture)) < picture.size / 4


@pytest.mark.parametrize("channels", [1, 3])
def test_webp_of_quality_100_is_lossless(channels):
    for kind in ("random", "photo"):
        picture = _picture(kind, 33, 21, channels, 2)
        found = _pillow(encode(picture, "webp", 100))
        np.testing.assert_array_equal(found, np.broadcast_to(picture, (33, 21, 3)))


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_quality_buys_likeness_with_bytes(encoding, channels):
    picture = _picture("photo", 64, 64, channels, 3)
    files = [encode(picture, encoding, quality) for quality in (10, 60, 95)]
    errors = []
    for data in files:
        found = _pillow(data)
        errors.append(np.abs(found.reshape(64, 64, -1).astype(int) - picture).mean())
    assert [len(data) for data in files] == sorted(len(data) for data in files)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 4


def test_jpeg_keeps_grey_grey_and_colours_in_their_channels():
    assert _pillow(encode(_picture("photo", 16, 16, 1, 0), "jpeg")).ndim == 2
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 255
    for encoding in ("png", "jpeg", "webp"):
        assert _pillow(encode(red, encoding))[8, 8].argmax() == 0


@pytest.mark.parametrize("encoding", ["webp", "jpeg"])
def test_a_picture_larger_than_the_format_is_an_error(encoding):
    most = LARGEST_SIDE[encoding]
    assert _pillow(encode(np.zeros((1, most, 1), np.uint8), encoding)).shape[:2] == (1, most)
    with pytest.raises(InputError, match=f"{encoding} holds at most {most} px a side; a picture has {most + 1}x2"):
        encode(np.zeros((2, most + 1, 1), np.uint8), encoding)
