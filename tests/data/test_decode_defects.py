"""Every defect is one error with its reason: never a half-grey picture, never a warning, never a bomb."""

import io
import pickle
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from augforge.data.containers import exif_orientation
from augforge.data.decode import MAX_PIXELS, decode
from augforge.types import InputError, UnreadablePicture


def picture(h=13, w=9, c=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (h, w) if c == 1 else (h, w, c)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(body, width, height, depth=8, colour=2, before=b""):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def reason(data):
    with pytest.raises(UnreadablePicture) as caught:
        decode(data, "cat/1.png")
    assert caught.value.name == "cat/1.png"
    return caught.value.reason


def tiff16(values, order, photometric=1):
    """A smallest TIFF of 16-bit grey [1, w]."""
    height, width = values.shape
    body = values.astype(order + "u2").tobytes()
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, len(body))]
    start = 8 + len(body)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start) + body
    out += struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        out += struct.pack(order + "HHI", tag, kind, 1)
        out += struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    return out + struct.pack(order + "I", 0)


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 30, b"II*\0\xff\xff\xff\xff", b"junk"]
)
def test_damaged_exif_means_upright_and_no_warning(exif):
    assert exif_orientation(exif) == 1
    plain = encoded(picture(16, 16), "JPEG")
    body = b"Exif\0\0" + exif
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    np.testing.assert_array_equal(decode(data, "x"), decode(plain, "x"))


def test_empty_text_and_other_files_are_refused():
    assert reason(b"") == "is empty"
    for data in (
        b"hello, I am text",
        b"\0" * 100,
        b"BM",
        b"GIF89a",
        b"II*\0",
        b"P5\n",
        b"%PDF-1.7",
        b"\xff\xd8\xff\xd9",
    ):
        assert reason(data) in ("is not a picture that can be read", "is cut short")


LOSSY = {"JPEG": {}, "WEBP": {"quality": 80}, "PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "GIF": {}}


@pytest.mark.parametrize("kind", LOSSY)
def test_a_picture_cut_at_any_place_is_refused(kind):
    data = encoded(picture(24, 24), kind, **LOSSY[kind])
    ends = [*range(1, 40), *range(40, len(data) - 40, 37), *range(len(data) - 40, len(data))]
    whole = decode(data, "x")
    for end in ends:
        try:
            out = decode(data[:end], "x")
        except UnreadablePicture:
            continue
        # Only what comes after the last pixel may be missing
        np.testing.assert_array_equal(out, whole)
        assert kind in ("TIFF", "GIF")
        assert end > len(data) - 40


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_cut_picture_is_said_to_be_cut_short(kind):
    data = encoded(picture(40, 40), kind)
    assert reason(data[: len(data) // 2]) == "is cut short"
    assert reason(data[:-1]) == "is cut short"


def test_a_png_whose_pixels_are_missing_is_refused():
    rows = b"".join(b"\0" + bytes(range(96)) for _ in range(32))
    for body in (zlib.compress(rows[:1500]), zlib.compress(rows)[:-30], b"abcdefgh"):
        assert reason(png(body, 32, 32)) in ("is cut short", "is not a picture that can be read")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_flipped_bytes_never_cause_another_error(kind):
    data = bytearray(encoded(picture(24, 24), kind))
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 400), 4):
            damaged[at] = rng.integers(0, 256)
        try:
            out = decode(bytes(damaged), "x")
        except UnreadablePicture:
            continue
        assert out.ndim == 3
        assert out.shape[2] in (1, 3)


def bombs():
    side = 50_000
    yield png(zlib.compress(b""), side, side)
    yield b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b";"
    yield (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    yield b"P6\n50000 50000\n255\n"
    yield tiff16(np.zeros((1, 4)), "<").replace(
        struct.pack("<HHIHH", 256, 3, 1, 4, 0) + struct.pack("<HHIHH", 257, 3, 1, 1, 0),
        struct.pack("<HHIHH", 256, 3, 1, side, 0) + struct.pack("<HHIHH", 257, 3, 1, side, 0),
    )
    jpeg = bytearray(encoded(picture(16, 16), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
    yield bytes(jpeg)


@pytest.mark.parametrize("data", bombs(), ids=["png", "gif", "bmp", "ppm", "tiff", "jpeg"])
def test_a_bomb_is_refused_by_its_header(data):
    before = Image.MAX_IMAGE_PIXELS
    assert reason(data) == "has 2,500,000,000 pixels, more than 67,108,864 can be (AUGFORGE_MAX_PIXELS)"
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_webp_bomb_is_refused_by_its_header():
    canvas = (16_383 - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + canvas
    assert "more than 67,108,864" in reason(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def test_the_environment_says_how_many_pixels_a_picture_may_have(monkeypatch):
    data = encoded(picture(), "PNG")  # 9 x 13
    monkeypatch.setenv("AUGFORGE_MAX_PIXELS", "117")
    assert decode(data, "x").shape == (13, 9, 3)
    monkeypatch.setenv("AUGFORGE_MAX_PIXELS", "116")
    assert reason(data) == "has 117 pixels, more than 116 can be (AUGFORGE_MAX_PIXELS)"
    for said in ("", "0", "-5", "1e6", "many", "\u0665", "9" * 30):
        monkeypatch.setenv("AUGFORGE_MAX_PIXELS", said)
        with pytest.raises(InputError, match=r"^AUGFORGE_MAX_PIXELS is .*; expected a whole number of at least 1$"):
            decode(data, "x")


def test_a_picture_between_pillows_limit_and_ours_is_read_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns above it
    assert MAX_PIXELS > 100
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"):
        assert decode(encoded(picture(), kind), "x").shape == (13, 9, 3)


def test_threads_decode_alike():
    data = [encoded(picture(seed=i), kind) for i, kind in enumerate(["PNG", "TIFF", "GIF", "WEBP"] * 8)]
    expected = [decode(d, "x") for d in data]
    wrong = []

    def work():
        wrong.extend(i for i, d in enumerate(data) if not np.array_equal(decode(d, "x"), expected[i]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_error_is_an_input_error_that_can_be_pickled_and_stays_on_one_line():
    error = pickle.loads(pickle.dumps(UnreadablePicture("a\nb.png", "is empty")))
    assert isinstance(error, InputError)
    assert (error.name, error.reason, error.exit_code) == ("a\nb.png", "is empty", 2)
    assert "\n" not in str(error)
