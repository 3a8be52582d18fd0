"""AVIF and HEIF, and which files are pictures by their names or first bytes."""

import io
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

from augforge.data.containers import HEAD_BYTES, is_picture, is_unknown, kind_of, looks_like_picture
from augforge.data.decode import MAX_PIXELS, decode
from augforge.types import UnreadablePicture

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif (extra `heif`) is not installed")


def soft(h=30, w=44, seed=0):
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((w, h), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    file = io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(file, **options)
    else:
        image.save(file, kind, **options)
    return file.getvalue()


def error(data):
    with pytest.raises(UnreadablePicture) as caught:
        decode(data, "cat/1.heic")
    return caught.value.reason


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_is_nearly_what_was_encoded(kind, mode):
    image = soft().convert(mode)
    found = decode(encoded(image, kind, quality=95), "x")
    assert found.dtype == np.uint8
    assert found.shape == (30, 44, 1 if mode == "L" else 3)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert np.abs(found.squeeze() - np.asarray(image).astype(int)).mean() < 6


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_transparent_pixels_are_white(kind):
    image = soft().convert("RGBA")
    image.putalpha(0)
    assert decode(encoded(image, kind), "x").min() >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_an_avif_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode(encoded(soft(), "AVIF", quality=95), "x")
    found = decode(encoded(soft(), "AVIF", quality=95, exif=exif), "x")
    turned = {1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.transpose(1, 0, 2),
              6: np.rot90(plain, -1), 7: np.rot90(plain, 2).transpose(1, 0, 2), 8: np.rot90(plain)}  # fmt: skip
    np.testing.assert_array_equal(found, turned[orientation])


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_cut_picture_is_refused_and_flipped_bytes_cause_no_other_error(kind):
    data = encoded(soft(), kind)
    for cut in (*range(1, 300, 11), *range(300, len(data), 60)):
        assert error(data[:cut]) in ("is cut short", "is not a picture that can be read")
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 60):
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << int(rng.integers(8))
        try:
            decode(bytes(spoilt), "x")
        except UnreadablePicture:
            continue


def test_too_many_pixels_are_refused():
    side = int(MAX_PIXELS**0.5) + 8
    data = encoded(Image.new("L", (64, 64)), "AVIF")
    place = data.index(b"ispe") + 8
    data = data[:place] + side.to_bytes(4, "big") * 2 + data[place + 8 :]
    assert error(data) in (
        f"has {side * side:,} pixels, more than 67,108,864 can be (AUGFORGE_MAX_PIXELS)",
        "is not a picture that can be read",
    )


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.heic", "a.HEIF", "a.avif", "a.apng", "b.c.png"])
def test_suffixes_of_pictures(name):
    assert is_picture(name)
    assert not is_unknown(name)


def test_other_suffixes():
    assert not any(map(is_picture, ["a.txt", "a", "a.", "a.xcf", "png"]))
    assert all(map(is_unknown, ["a", "a.", "a.xcf", "a.jpg_large"]))
    assert not any(map(is_unknown, ["a.txt", "a.XML", "a.npy", "raw.NEF", "raw.dng"]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF"])
def test_the_first_bytes_tell_a_picture(kind):
    head = encoded(soft(), kind)[:HEAD_BYTES]
    assert kind_of(head) == kind
    assert looks_like_picture(head)


@pytest.mark.parametrize("head", [b"", b"BMW builds cars", b"P1 is no picture", b"RIFF....WAVE",
                                  b"....ftypisom....isom", b"\x00\x00\x00\xffftyp", b"II*", b"<svg>"])  # fmt: skip
def test_other_first_bytes_are_no_picture(head):
    assert not looks_like_picture(head)


def test_without_pillow_heif_the_note_and_the_error_say_how_to_get_it(tmp_path):
    for name in ("cat/1.heic", "cat/2.HEIC", "cat/3", "cat/4.jpg", "dog/5.jpg"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(soft(), "JPEG" if path.suffix == ".jpg" else "HEIF"))
    hide = ("import sys, importlib.util as u; find = u.find_spec; "
            "u.find_spec = lambda name, *rest: None if name == 'pillow_heif' else find(name, *rest); ")  # fmt: skip

    def run(code, *arguments):
        return subprocess.run([sys.executable, "-c", hide + code, *map(str, arguments)], capture_output=True,
                              text=True, cwd=tempfile.gettempdir())  # fmt: skip

    done = run(
        "from augforge.cli.main import main; main(sys.argv[1:])",
        "synth",
        tmp_path / "source",
        "--per-class",
        1,
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (f"note: {str(tmp_path / 'source')!r}: 3 files are not read (2 .heic, 1 without a suffix; "
                           "pip install 'augforge[heif]' reads HEIF)\n"
                           "photographs: classical with preset=photographs, files are JPEG\n")  # fmt: skip
    code = "from augforge.data.decode import decode; decode(open(sys.argv[1], 'rb').read(), 'x')"
    done = run(code, tmp_path / "source" / "cat" / "3")
    assert "is HEIF, which is not read here: pip install 'augforge[heif]' reads HEIF" in done.stderr
