"""`synth --pool`: pictures of a pool, and rows of features, that join the classes they seem to be of."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from augforge.classifiers.pool import label_pool
from augforge.data.banks import FeatureBank
from augforge.data.features import open_features, write_features
from augforge.inputs import Inputs
from augforge.synth.from_pool import FromPool
from augforge.synth.manifest import read_rows
from augforge.synth.regen import regen
from augforge.synth.request import Request
from augforge.synth.run import as_json, dry_run, synth
from augforge.synth.run_folder import RunOptions, read_run
from augforge.types import Examples, InputError

pytestmark = pytest.mark.usefixtures("means")
ONE = RunOptions(workers=1)
MEANS = {"representation": "means"}
COLOURS = {"red": (200, 40, 40), "blue": (30, 60, 210)}


def picture(path: Path, colour, rng, **how) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.array(colour) + rng.normal(0, 25, (16, 18, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, **how)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Class folders "shown" of two JPEG each; a flat "pool" of four each, a copy, a copy in the pool and others."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for i in range(2):
            picture(tmp_path / "shown" / name / f"{i}.jpg", colour, rng)
        for i in range(4):
            picture(tmp_path / "pool" / f"{name}-{i}.{'png' if i == 3 else 'jpg'}", colour, rng)
    for name in ("green-0", "green-1"):
        picture(tmp_path / "pool" / f"{name}.jpg", (120, 128, 120), rng)
    pool = tmp_path / "pool"
    (pool / "copy.jpg").write_bytes((tmp_path / "shown" / "red" / "0.jpg").read_bytes())
    (pool / "twice.jpg").write_bytes((pool / "red-1.jpg").read_bytes())
    (pool / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return tmp_path


def asked(pictures: Path, method: str = "pool", settings=None, **how) -> Request:
    inputs = Inputs(str(pictures / "shown"), method, MEANS | (settings or {}))
    return Request(inputs, pool=str(pictures / "pool"), **({"per_class": 3} | how))


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*"))}


def test_the_best_pictures_of_each_class_are_copied(pictures):
    report = synth(asked(pictures), pictures / "out", ONE)
    rows = list(read_rows(pictures / "out" / "manifest.jsonl"))
    assert report.made == 6
    assert report.per_class == {"blue": 3, "red": 3}
    assert [row.cls for row in rows] == 3 * ["blue"] + 3 * ["red"]
    assert {row.method for row in rows} == {"pool"}
    for row in rows:
        data = (pictures / "pool" / row.parent).read_bytes()
        assert (pictures / "out" / row.file).read_bytes() == data
        assert row.sha256 == row.parent_sha256 == hashlib.sha256(data).hexdigest()
        assert row.parent.startswith(row.cls)
        assert Path(row.file).suffix == Path(row.parent).suffix
    for name in COLOURS:
        own = [row for row in rows if row.cls == name]
        sure = [row.confidence for row in own]
        assert sure == sorted(sure, reverse=True)
        assert min(sure) >= 0.5
        assert 0 < sum(row.weight for row in own) <= 2.001  # as two real ones, whatever their number
    assert [name for name, _ in report.skipped] == ["broken.jpg"]
    assert report.pool["left_out"] == 2
    assert report.pool["rows"] == 10
    assert as_json(report)["pool"]["weight"] == pytest.approx(sum(row.weight for row in rows) / 2, abs=1e-5)
    assert Path(report.contact_sheet).exists()


def test_rows_are_those_that_label_pool_names(pictures, means):
    synth(asked(pictures, per_class=99), pictures / "out", ONE)
    taken = {row.parent: row for row in read_rows(pictures / "out" / "manifest.jsonl")}
    names = [f"{name}-{i}.{'png' if i == 3 else 'jpg'}" for name in sorted(COLOURS) for i in range(4)]
    names = sorted([*names, "green-0.jpg", "green-1.jpg"])

    def embed(paths):
        shown = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths]
        return means().embed(shown)

    shown = [pictures / "shown" / name / f"{i}.jpg" for name in sorted(COLOURS) for i in range(2)]
    found = label_pool(
        Examples(embed(shown), torch.tensor([0, 0, 1, 1])), embed([pictures / "pool" / n for n in names])
    )
    sure = {name: float(c) for name, c in zip(names, found.confidence, strict=True) if c >= 0.5}
    assert sure.keys() == taken.keys()
    assert not any(name.startswith("green") for name in taken)
    for name, confidence in sure.items():
        assert taken[name].confidence == pytest.approx(confidence, abs=0.02)


def test_fewer_than_were_wanted_are_said_and_are_no_error(pictures):
    report = synth(asked(pictures, per_class=9), pictures / "out", ONE)
    assert "fewer than were wanted for 2 of 2 classes: 4 of 9 for 'blue', " in report.chosen
    assert "left out 2" in report.chosen
    assert report.made == sum(report.per_class.values()) < 18
    nothing = synth(asked(pictures, settings={"confidence": 1}), pictures / "none", ONE)
    assert nothing.made == 0
    assert (pictures / "none" / "manifest.jsonl").read_bytes() == b""


def test_retrieved_are_as_many_as_are_wanted(pictures):
    report = synth(asked(pictures, "retrieved"), pictures / "out", ONE)
    rows = list(read_rows(pictures / "out" / "manifest.jsonl"))
    assert report.per_class == {"blue": 3, "red": 3}
    assert {(row.method, row.weight, row.confidence) for row in rows} == {("retrieved", None, None)}
    assert all(row.parent.startswith(row.cls) for row in rows)


@pytest.mark.parametrize("form", ["folder", "webdataset", "npz"])
def test_every_row_can_be_made_again(form, pictures):
    size = 12 if form == "npz" else None
    report = synth(asked(pictures, format=form, size=size, include_real=True), pictures / "out", ONE)
    assert report.real == 4
    rows = list(read_rows(pictures / "out" / "manifest.jsonl"))
    assert [row.method for row in rows] == 2 * (2 * ["real"] + 3 * ["pool"])
    for number, row in enumerate(rows, 1):
        regen(pictures / "out" / "manifest.jsonl", str(number), pictures / "again")
        again = (pictures / "again").read_bytes()
        if form == "npz":
            pixels = np.load(pictures / "out" / "data.npz")["images"][number - 1]
            assert np.array_equal(np.array(Image.open(pictures / "again")), pixels)
        else:
            assert hashlib.sha256(again).hexdigest() == row.sha256


def test_a_run_goes_on_is_replaced_and_is_foretold(pictures):
    request, out = asked(pictures, include_real=True), pictures / "out"
    foretold = dry_run(request, out, ONE)
    assert (foretold.made, foretold.real) == (6, 4)
    assert not out.exists()
    synth(request, out, ONE)
    before, manifest = files(out), (out / "manifest.jsonl").read_bytes()
    with pytest.raises(InputError, match="holds a run"):
        synth(request, out, ONE)
    (out / next(iter(before))).unlink()
    report = synth(request, out, RunOptions(workers=1, resume=True))
    assert report.repaired
    assert files(out) == before
    assert (out / "manifest.jsonl").read_bytes() == manifest
    assert synth(request, out, RunOptions(workers=1, resume=True, verify=True)).made == 0
    synth(asked(pictures, per_class=1), out, RunOptions(workers=1, overwrite=True))
    assert len(files(out)) == 2


def test_another_pool_is_another_run(pictures):
    synth(asked(pictures), pictures / "out", ONE)
    row = next(iter(read_rows(pictures / "out" / "manifest.jsonl")))
    picture(pictures / "pool" / row.parent, COLOURS[row.cls], np.random.default_rng(7))
    with pytest.raises(InputError, match="holds another run"):
        synth(asked(pictures), pictures / "out", RunOptions(workers=1, resume=True))
    with pytest.raises(InputError, match="has changed since the run"):
        regen(pictures / "out" / "manifest.jsonl", "1", pictures / "again")


def test_a_class_alone_is_given_what_it_is_given_among_others(pictures):
    synth(asked(pictures), pictures / "out", ONE)
    inputs = Inputs(str(pictures / "shown"), "pool", MEANS, classes=("red",))
    synth(Request(inputs, per_class=3, pool=str(pictures / "pool")), pictures / "red", ONE)
    both = [row.parent for row in read_rows(pictures / "out" / "manifest.jsonl") if row.cls == "red"]
    assert [row.parent for row in read_rows(pictures / "red" / "manifest.jsonl")] == both


def test_source_and_pool_may_have_the_same_names(pictures):
    for name in COLOURS:
        picture(pictures / "alike" / name / "0.jpg", COLOURS[name], np.random.default_rng(3))
    inputs = Inputs(str(pictures / "shown"), "pool", MEANS | {"confidence": 0})
    request = Request(inputs, to=3, include_real=True, pool=str(pictures / "alike"))
    synth(request, pictures / "out", ONE)
    assert synth(request, pictures / "out", RunOptions(workers=1, resume=True, verify=True)).already == 6


def bank(path: Path, names, seed: int) -> Path:
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(2).repeat_interleave(len(names) // 2)
    x = 4 * torch.eye(2, 6)[y] + 0.3 * torch.randn(len(y), 6, generator=rng)
    write_features(path, FeatureBank(x, y, ("a", "b"), names=tuple(names)))
    return path


def test_rows_of_features_are_taken_with_their_weights(tmp_path):
    source = bank(tmp_path / "shown.safetensors", [f"s{i}" for i in range(4)], 0)
    pool = bank(tmp_path / "pool.safetensors", [f"p{i}" for i in range(20)], 1)
    request = Request(Inputs(str(source), "pool"), per_class=5, pool=str(pool), include_real=True)
    report = synth(request, tmp_path / "out", ONE)
    assert (report.made, report.real) == (10, 4)
    written = open_features(tmp_path / "out" / "features.safetensors")["all"]
    rows, given = list(read_rows(tmp_path / "out" / "manifest.jsonl")), open_features(pool)["all"]
    places = {given.name(row): row for row in range(len(given))}
    for i, row in enumerate(rows):
        if row.method == "pool":
            assert torch.equal(written.x[i], given.x[places[row.parent]])
            assert given.y[places[row.parent]] == written.y[i]
            assert float(written.weight[i]) == pytest.approx(row.weight, abs=1e-6)
    assert written.weight[written.y == 0].sum() <= 4.001
    assert synth(request, tmp_path / "out", RunOptions(workers=1, resume=True, verify=True)).already == 14
    near = synth(Request(Inputs(str(source), "retrieved"), per_class=5, pool=str(pool)), tmp_path / "near", ONE)
    assert near.made == 10
    weights = open_features(tmp_path / "near" / "features.safetensors")["all"].weight
    assert weights.sum() == pytest.approx(2 * 0.25, abs=1e-5)  # a quarter of a real row each class, as made rows do


def test_pictures_embedded_for_the_run_give_features(pictures):
    inputs = Inputs(str(pictures / "shown"), "pool", representation="means")
    report = synth(Request(inputs, per_class=2, pool=str(pictures / "pool")), pictures / "out", ONE)
    assert report.made == 4
    assert [name for name, _ in report.skipped] == ["broken.jpg"]
    assert read_run(pictures / "out")["order"]["pool"] == str(pictures / "pool")


def test_bad_input_is_one_sentence(pictures, tmp_path):
    shown, pool = str(pictures / "shown"), str(pictures / "pool")
    with pytest.raises(InputError, match="--with pool was given without --pool"):
        Request(Inputs(shown, "pool"), per_class=1)
    with pytest.raises(InputError, match="--pool was given with --with 'classical'; expected pool or retrieved"):
        Request(Inputs(shown), per_class=1, pool=pool)
    with pytest.raises(InputError, match="--reject"):
        asked(pictures, reject=("means",))
    with pytest.raises(InputError, match="lies inside the pool"):
        synth(asked(pictures), pictures / "pool" / "out", ONE)
    with pytest.raises(InputError, match="are rows of"):
        synth(Request(Inputs(shown, "pool", MEANS), per_class=1, pool=shown), tmp_path / "out", ONE)
    features = bank(tmp_path / "pool.safetensors", [f"p{i}" for i in range(4)], 1)
    with pytest.raises(InputError, match=r"holds features, and .* images; expected the same kind"):
        synth(Request(Inputs(shown, "pool", MEANS), per_class=1, pool=str(features)), tmp_path / "out", ONE)
    with pytest.raises(InputError, match="confidence=2"):
        FromPool(confidence=2)
    with pytest.raises(InputError, match=r"broken\.jpg.* \(--strict\)"):
        synth(asked(pictures), tmp_path / "out", RunOptions(workers=1, strict=True))
    assert not (tmp_path / "out").exists()
