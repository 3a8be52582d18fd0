"""Every format gives the right pixels: grey stays grey, alpha is laid on white, 16 bits are rounded, EXIF turns."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from augforge.data.decode import decode, to_pixels
from augforge.types import UnreadablePicture


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


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_lossless_format_gives_the_pixels_back(kind, channels):
    pixels = picture(c=channels)
    out = decode(encoded(pixels, kind), "x")
    assert out.shape == (13, 9, channels)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous
    assert out.flags.writeable
    np.testing.assert_array_equal(out.squeeze(), pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff(compression):
    pixels = picture()
    np.testing.assert_array_equal(decode(encoded(pixels, "TIFF", compression=compression), "x"), pixels)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"quality": 20}])
@pytest.mark.parametrize("size", [(32, 32), (31, 17), (1, 1), (200, 333)])
def test_a_plain_webp_is_what_pillow_makes_of_it(options, size):
    data = encoded(picture(*size), "WEBP", **options)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data, "x"), np.array(image.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_what_pillow_makes_of_it(channels, progressive):
    data = encoded(picture(40, 30, channels), "JPEG", progressive=progressive)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data, "x").squeeze(), np.array(image))


def test_a_png_of_another_encoder():
    data = cv2.imencode(".png", picture(20, 20))[1].tobytes()
    np.testing.assert_array_equal(decode(data, "x"), picture(20, 20)[:, :, ::-1])


def test_the_first_frame_of_a_gif():
    frames = [Image.fromarray(np.full((6, 5), level, np.uint8)) for level in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data, "x") == 10).all()


def test_the_first_frame_of_an_animated_webp_and_png():
    frames = [Image.fromarray(np.full((6, 5, 3), level, np.uint8)) for level in (10, 200)]
    for kind in ("WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (decode(data, "x") == 10).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_bilevel_becomes_grey(kind):
    image = Image.fromarray(picture(c=1)).convert("1")
    np.testing.assert_array_equal(decode(encoded(image, kind), "x")[:, :, 0], np.array(image.convert("L")))


def test_a_palette_becomes_colour():
    image = Image.fromarray(picture()).quantize(16)
    np.testing.assert_array_equal(decode(encoded(image, "PNG"), "x"), np.array(image.convert("RGB")))


def on_white(colour, alpha):
    """Rounded exactly, in floating point."""
    share = alpha.astype(float)[..., None] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5 + 1e-9).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colour_with_alpha_is_laid_on_white(kind):
    pixels = picture(64, 64, 4)
    data = encoded(
        Image.fromarray(pixels, "RGBA"), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )
    np.testing.assert_array_equal(decode(data, "x"), on_white(pixels[:, :, :3], pixels[:, :, 3]))


def test_every_colour_with_every_alpha_is_rounded_exactly():
    colour, alpha = (a.astype(np.uint8) for a in np.mgrid[0:256, 0:256])
    data = encoded(Image.merge("LA", [Image.fromarray(colour), Image.fromarray(alpha)]), "PNG")
    out = decode(data, "x")
    assert out.shape == (256, 256, 1)  # grey stays grey
    np.testing.assert_array_equal(out, on_white(colour[:, :, None], alpha))


def _large(kind, mode, **options):
    """A picture of several strips."""
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (301, 299), dtype=np.uint16))
    else:
        channels = {"L": 1, "LA": 2, "RGBA": 4}.get(mode, 3)
        image = Image.fromarray(picture(301, 299, channels))
        image = image if image.mode == mode else image.quantize(16) if mode == "P" else image.convert(mode)
    return encoded(image, kind, **options)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [("PNG", "RGBA", {}), ("PNG", "RGB", {"transparency": (1, 2, 3)}), ("PNG", "LA", {}), ("PNG", "I;16", {}),
     ("PNG", "L", {"transparency": 3}), ("PNG", "P", {}), ("PNG", "P", {"transparency": 0}), ("PNG", "1", {}),
     ("TIFF", "I;16", {}), ("TIFF", "RGBA", {}), ("TIFF", "LAB", {}), ("JPEG", "CMYK", {}), ("WEBP", "RGBA", {}),
     ("WEBP", "RGBA", {"lossless": True})],
)  # fmt: skip
def test_strips_make_the_pixels_of_the_whole(kind, mode, options, monkeypatch):
    data = _large(kind, mode, **options)
    strips = decode(data, "x")
    monkeypatch.setattr("augforge.data.decode._STRIP", 1 << 30)
    assert strips.shape[:2] == (301, 299)
    np.testing.assert_array_equal(strips, decode(data, "x"))


def test_a_conversion_needs_little_more_than_its_pixels():
    image = Image.fromarray(np.zeros((1500, 1500, 4), np.uint8))
    image.load()
    tracemalloc.start()
    try:
        pixels = to_pixels(image)
        assert tracemalloc.get_traced_memory()[1] < 1.3 * pixels.nbytes
    finally:
        tracemalloc.stop()


def test_webp_that_does_not_move_is_the_same_by_opencv_and_pillow(monkeypatch):
    for mode in ("RGBA", "RGB"):
        for lossless in (True, False):
            data = encoded(Image.fromarray(picture(40, 30, len(mode))), "WEBP", lossless=lossless, quality=60)
            found = decode(data, "x")
            with monkeypatch.context() as m:
                m.setattr("augforge.data.decode._decode_still_webp", lambda data: None)
                np.testing.assert_array_equal(found, decode(data, "x"))


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    for transparency in (0, bytes([0, 255])):
        for kind in ("PNG", "GIF") if transparency == 0 else ("PNG",):
            out = decode(encoded(image, kind, transparency=transparency), "x")
            assert out[0, 0].tolist() == [255, 255, 255]
            assert out[1, 1].tolist() == [10, 20, 30]


def test_the_transparent_colour_of_a_png_is_white():
    grey = encoded(Image.new("L", (3, 3), 7), "PNG", transparency=7)
    assert (decode(grey, "x") == 255).all()
    assert decode(grey, "x").shape == (3, 3, 1)
    colour = encoded(Image.new("RGB", (3, 3), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert (decode(colour, "x") == 255).all()
    deep = png(zlib.compress(b"\0\x12\x34\x00\x00"), 2, 1, 16, 0, chunk(b"tRNS", b"\x12\x34"))
    assert decode(deep, "x").ravel().tolist() == [255, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257_and_rounded(kind):
    values = np.arange(0, 65536, 7, dtype=np.uint16)[None]
    out = decode(encoded(Image.fromarray(values), kind), "x")
    np.testing.assert_array_equal(out[0, :, 0], np.floor(values[0] / 257 + 0.5))


def test_16_bit_grey_of_the_other_byte_order_and_with_white_at_zero():
    values = np.array([[0, 257, 65535, 1000]], np.uint16)
    assert decode(tiff16(values, ">"), "x").ravel().tolist() == [0, 1, 255, 4]
    assert decode(tiff16(values, "<", photometric=0), "x").ravel().tolist() == [255, 254, 0, 251]


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


def test_a_pgm_of_any_range_is_scaled_to_255():
    assert decode(b"P5\n3 1\n65535\n" + bytes([0, 0, 255, 255, 1, 1]), "x").ravel().tolist() == [0, 255, 1]
    assert decode(b"P5\n2 1\n1000\n" + struct.pack(">HH", 1000, 500), "x").ravel().tolist() == [255, 128]
    assert decode(b"P2\n2 1\n15\n15 0\n", "x").ravel().tolist() == [255, 0]


def test_16_bit_colour_keeps_its_high_bytes():
    data = png(zlib.compress(b"\0" + bytes([200, 1, 100, 2, 50, 3])), 1, 1, 16, 2)
    assert decode(data, "x").ravel().tolist() == [200, 100, 50]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_without_a_known_range_are_refused(dtype):
    assert "black and white are not known" in reason(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


def test_cmyk_becomes_rgb_also_as_adobe_writes_it():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    for kind in ("JPEG", "TIFF"):
        out = decode(encoded(image, kind, **({"quality": 100} if kind == "JPEG" else {})), "x")
        assert out.shape == (16, 16, 3)
        assert np.abs(out.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_orientation_is_applied(kind, orientation):
    image = Image.fromarray(np.kron(picture(3, 2), np.ones((16, 16, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    out = decode(encoded(image, kind, exif=exif, **options), "x").astype(int)
    ways = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM]
    ways += [Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE]
    ways += [Image.Transpose.ROTATE_90]
    way = ways[orientation - 1]
    expected = np.array(image if way is None else image.transpose(way)).astype(int)
    assert out.shape == expected.shape
    assert np.abs(out - expected).max() <= (40 if kind == "JPEG" else 0)


def test_the_suffix_does_not_matter_but_the_bytes():
    np.testing.assert_array_equal(decode(encoded(picture(), "BMP"), "cat.png"), picture())


@pytest.mark.parametrize(("at_least", "size"), [(0, (208, 336)), (105, (208, 336)), (104, (104, 168)), (30, (52, 84)),
                                                (1, (26, 42))])  # fmt: skip
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_decoded_in_part_keeps_its_shorter_side_and_its_colours(at_least, size, orientation):
    smooth = cv2.resize(picture(7, 11), (336, 208), interpolation=cv2.INTER_CUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth, "JPEG", quality=95, exif=exif)
    found = decode(data, "x", at_least)
    assert found.shape[:2] == (size if orientation == 1 else size[::-1])
    whole = decode(data, "x")
    expected = cv2.resize(whole, found.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).mean() < 2.5
    grey = encoded(np.ascontiguousarray(smooth[:, :, 0]), "JPEG", quality=95)
    assert decode(grey, "x", at_least).shape == (*size, 1)


def test_other_formats_are_decoded_whole_whatever_is_enough():
    for kind in ("PNG", "WEBP", "BMP"):
        data = encoded(picture(64, 80), kind)
        assert np.array_equal(decode(data, "x", 4), decode(data, "x"))
