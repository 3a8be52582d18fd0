"""Made files say that they were made, pixels stay as they are, and what was written before is not mixed with it."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from augforge.synth.encode import encode
from augforge.synth.marks import BY_FORMULA, TRAINED, marked, packet

TYPE = b"http://cv.iptc.org/newscodes/digitalsourcetype/"


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("quality", [95, 100])
@pytest.mark.parametrize("shape", [(5, 7, 1), (33, 20, 3), (64, 301, 3)])
def test_the_pixels_are_the_same_and_readers_find_the_type(encoding, quality, shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    plain = encode(picture, encoding, quality)
    data = marked(plain, encoding, packet(TRAINED, 'image-gan & "more"'))
    assert data == marked(plain, encoding, packet(TRAINED, 'image-gan & "more"'))
    with Image.open(io.BytesIO(data)) as found, Image.open(io.BytesIO(plain)) as before:
        assert found.size == (shape[1], shape[0])
        assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(before.convert("RGB")))
        xmp = found.info.get("xmp") or found.info["XML:com.adobe.xmp"].encode()
    assert TYPE + TRAINED.encode() in xmp
    assert "CreatorTool" in xmp.decode()
    there = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(there, cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED))


def _xmp(path):
    with Image.open(path) as found:
        return found.info.get("xmp") or found.info.get("XML:com.adobe.xmp", "").encode()


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp"])
def test_a_run_marks_what_it_made_and_nothing_real(augforge, source, manifest_of, tmp_path, encoding):
    out = tmp_path / "out"
    order = ("--per-class", 2, "--include-real", "--encoding", encoding)
    assert augforge("synth", source, "--out", out, *order).code == 0
    rows = manifest_of(out)
    for number, row in enumerate(rows, 1):
        made = row["method"] != "real"
        assert (TYPE + BY_FORMULA.encode() in _xmp(out / row["file"])) == made
        if number % 5 == 0 or made:
            augforge("regen", out / "manifest.jsonl", number, "--out", tmp_path / "again")
            assert (tmp_path / "again").read_bytes() == (out / row["file"]).read_bytes()


def test_a_run_without_marks_is_as_runs_were_before_and_is_not_mixed(augforge, source, snapshot, tmp_path):
    out, order = tmp_path / "out", ("--per-class", 2)
    assert augforge("synth", source, "--out", out, *order, "--no-mark").code == 0
    assert all(not _xmp(path) for path in out.glob("*/*.png"))
    assert "mark" not in json.loads((out / "run.json").read_text())["order"]
    assert "holds another run" in augforge("synth", source, "--out", out, *order, "--resume").error()
    assert augforge("synth", source, "--out", out, *order, "--resume", "--no-mark").code == 0
    assert augforge("regen", out / "manifest.jsonl", 1, "--out", tmp_path / "again").code == 0
    assert not _xmp(tmp_path / "again")
