"""`synth --reject`: made pictures that are implausible are made again, counted, and the same for any way of working."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from augforge import chance
from augforge.generators.shared.support import choose_parents
from augforge.inputs import Inputs, open_bank
from augforge.parts import catalog
from augforge.synth.prepare import prepare
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions
from augforge.types import Examples, InputError

NEARER, FAR, IMPLAUSIBLE = "nearer to another class", "far from its class", "implausible to the discriminator"
STROKES = ("--reject", "conv4-glyphs", "--set", "preset=handwriting", "--per-class", 40)


@dataclass
class Spots:
    """A parent, or the first of its class, with one grey of chance all over; the discriminator likes it bright."""

    space: ClassVar[str] = "image"
    support_needed: ClassVar[int] = 1
    single: bool = True
    value_: torch.Tensor = field(default_factory=lambda: torch.zeros(1), init=False, repr=False)

    @property
    def one_parent(self):
        return self.single

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        parent = choose_parents(support.y, want, keys) if self.single else torch.zeros_like(want)
        x = support.x[parent].clone()
        x[:, :, 0] = (chance.uniform(keys) * 256).to(torch.uint8)[:, None, None]
        return Examples(x, want, parent if self.single else None)

    def plausibility(self, support, made):
        return made.x[:, 0, 0, 0].float() / 256


@dataclass
class Named:
    """Makes pictures of the classes cat and dog by their names alone."""

    space: ClassVar[str] = "image"
    one_parent: ClassVar[bool] = False
    support_needed: ClassVar[int] = 0
    names_: tuple = field(default=("cat", "dog"), init=False, repr=False)

    def fit(self, base, rng):
        return self

    def named(self, names):
        for name in names:
            if name not in ("cat", "dog"):
                raise InputError(f"named was not trained on a class {name!r}; expected one of 'cat', 'dog'")
        copy = Named()
        copy.names_ = tuple(names)
        return copy

    def synthesize(self, support, want, keys):
        assert support.x.shape[0] == 0
        assert support.x.dtype == torch.uint8
        shade = torch.tensor([{"cat": 60, "dog": 160}[name] for name in self.names_])[want]
        shade = (shade + chance.choice(keys, 40)).to(torch.uint8)
        return Examples(shade[:, None, None, None].expand(-1, support.x.shape[1], 8, 8).clone(), want)

    def plausibility(self, support, made):
        return (made.x[:, 0, 0, 0].float() - 60) % 100 / 40


@pytest.fixture(autouse=True)
def _methods(monkeypatch):
    for cls in (Spots, Named):
        monkeypatch.setitem(catalog.SYNTHESIZERS, cls.__name__.lower(), f"{cls.__module__}:{cls.__qualname__}")


@pytest.fixture
def letters(tmp_path):
    """Three classes of strokes, 28 px, each drawn with small changes."""
    rng = np.random.default_rng(0)
    for name in "abc":
        folder = tmp_path / "letters" / name
        folder.mkdir(parents=True)
        shape = rng.integers(4, 24, (4, 2))
        for i in range(5):
            picture = np.full((28, 28), 255, np.uint8)
            for y, x in shape + rng.integers(-1, 2, (4, 2)):
                picture[y - 3 : y + 3, x - 1 : x + 2] = 0
            Image.fromarray(picture).save(folder / f"{i}.png")
    return tmp_path / "letters"


def _pictures(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("[!.]*/*.png")}


@pytest.mark.parametrize("single", ["true", "false"])
def test_no_picture_under_the_share_is_kept(augforge, source, manifest_of, tmp_path, single):
    how = ("--with", "spots", "--set", f"single={single}", "--per-class", 30, "--reject", "discriminator")
    found = augforge("synth", source, "--out", tmp_path / "out", *how, "--plausible", 0.7, "--tries", 40, "--json")
    found = found.json()
    assert found["made"] == 60
    assert list(found["rejected"]) == [IMPLAUSIBLE]
    assert 80 < found["rejected"][IMPLAUSIBLE] < 220  # seven tries of ten fail: 140 of 60 / 0.3 tries
    for data in (tmp_path / "out").glob("*/*.png"):
        assert np.asarray(Image.open(data))[0, 0, 0] / 256 >= 0.7
    augforge("synth", source, "--out", tmp_path / "free", *how[:-2])
    free, kept = _pictures(tmp_path / "free"), _pictures(tmp_path / "out")
    assert free.keys() == kept.keys()  # the parents are the same
    same = sum(free[name] == kept[name] for name in free)
    assert 5 < same < 35  # and so are the first tries that are good
    number = 1 + next(
        i for i, row in enumerate(manifest_of(tmp_path / "out")) if free[row["file"]] != kept[row["file"]]
    )
    augforge("regen", tmp_path / "out" / "manifest.jsonl", number, "--out", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == kept[manifest_of(tmp_path / "out")[number - 1]["file"]]


def test_a_representation_rejects_what_is_off_its_class(augforge, letters, tmp_path):
    found = augforge("synth", letters, "--out", tmp_path / "out", *STROKES, "--json").json()
    assert found["made"] == 120
    assert set(found["rejected"]) <= {NEARER, FAR}
    assert sum(found["rejected"].values()) > 3
    reply = augforge("synth", letters, "--out", tmp_path / "again", *STROKES)
    assert f"rejected {sum(found['rejected'].values())} tries: " in reply.out
    assert " far from its class" in reply.out or " nearer to another class" in reply.out


def test_the_same_bytes_for_any_way_of_working(augforge, letters, snapshot, tmp_path):
    augforge("synth", letters, "--out", tmp_path / "whole", *STROKES, "--workers", 1)
    whole = snapshot(tmp_path / "whole")
    result = augforge("synth", letters, "--out", tmp_path / "batches", *STROKES, "--workers", 2, "--batch-size", 7)
    assert result.code == 0, result.err
    assert snapshot(tmp_path / "batches") == whole
    rejected = 0
    for turn in (1, 0):
        found = augforge("synth", letters, "--out", tmp_path / "shards", *STROKES, "--shards", f"{turn}/2", "--json")
        rejected += sum(found.json()["rejected"].values())
    assert snapshot(tmp_path / "shards") == whole
    alone = augforge("synth", letters, "--out", tmp_path / "alone", *STROKES, "--class", "b", "--json")
    assert sum(alone.json()["rejected"].values()) <= rejected
    assert rejected > 0
    assert _pictures(tmp_path / "alone") == {k: v for k, v in _pictures(tmp_path / "whole").items() if k[0] == "b"}


def test_every_row_is_made_again_and_the_judge_has_to_be_the_same(augforge, letters, manifest_of, tmp_path):
    augforge("synth", letters, "--out", tmp_path / "out", *STROKES)
    manifest, rows = tmp_path / "out" / "manifest.jsonl", manifest_of(tmp_path / "out")
    for number in (1, 17, 80, 120):
        assert augforge("regen", manifest, number, "--out", tmp_path / "again").code == 0
        assert (tmp_path / "again").read_bytes() == (tmp_path / "out" / rows[number - 1]["file"]).read_bytes()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["order"]["reject"] == ["conv4-glyphs"]
    record["judges"] = ["0123456789abcdef"]
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    said = augforge("regen", manifest, 1, "--out", tmp_path / "other").error()
    assert said == "what the run rejected by, 'conv4-glyphs', is no longer the same"


def test_a_folder_of_fit_is_a_judge(augforge, letters, tmp_path):
    quick = ("--set", "epochs=1", "--set", "batch_size=8", "--set", "augment=none", "--device", "cpu")
    assert augforge("fit", "conv4", letters, "--out", tmp_path / "net", *quick).code == 0
    how = ("--with", "copies", "--per-class", 3, "--reject", tmp_path / "net")
    assert augforge("synth", letters, "--out", tmp_path / "out", *how, "--tries", 1).code in (0, 3)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["order"]["reject"] == [str(tmp_path / "net")]
    assert len(record["judges"]) == 1


def test_a_quota_that_cannot_be_met_is_exit_code_3(augforge, source, tmp_path):
    how = ("--with", "spots", "--per-class", 70, "--reject", "discriminator", "--plausible", 0.9, "--tries", 40)
    result = augforge("synth", source, "--out", tmp_path / "out", *how, "--seed", 5, "--workers", 1)
    said = result.error(3)
    assert said.startswith("row ")
    assert "of class 'dog' was rejected in all 40 tries (40 implausible to the discriminator)" in said
    assert said.endswith("; expected more --tries, a lower --plausible, other real rows or another method")
    out = tmp_path / "out"
    assert len(_pictures(out)) >= 70  # what was finished stays
    assert (out / ".partial" / "manifest.jsonl").read_bytes().count(b"\n") == 64
    assert (out / ".contact_sheet.png").exists()
    assert json.loads((out / "run.json").read_text())["order"]["tries"] == 40
    assert augforge("synth", source, "--out", out, *how, "--seed", 5, "--resume", "--workers", 2).error(3) == said
    easier = ("--plausible", 0.5, "--overwrite")
    assert augforge("synth", source, "--out", out, *how, "--seed", 5, *easier).code == 0


@pytest.mark.parametrize("other", [("--tries", 61), ("--plausible", 0.2), ("--reject", "discriminator")])
def test_a_resume_with_other_judges_is_another_run(augforge, source, tmp_path, other):
    how = ("--with", "spots", "--per-class", 5, "--tries", 60)
    first = ("--reject", "discriminator") if other[0] != "--reject" else ()
    first_tries = how if first else how[:-2]
    augforge("synth", source, "--out", tmp_path / "out", *first_tries, *first)
    said = augforge("synth", source, "--out", tmp_path / "out", *how, *first, *other, "--resume").error()
    assert "holds another run" in said


def test_a_run_without_judges_is_recorded_as_before(augforge, source, tmp_path):
    augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert not {"reject", "tries", "plausible"} & record["order"].keys()
    assert "judges" not in record


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--reject", "discriminator"), "--reject discriminator was given, and classical has none"),
        (("--reject", "conv4"), "--reject 'conv4' names a representation that is not fitted"),
        (("--reject", "conv5"), "there is no representation 'conv5'; the nearest is 'conv4'"),
        (("--reject", "conv4-glyphs"), "conv4 was trained on pictures [1, 28, 28] and got [3, 20, 24]"),
        (("--reject", "conv4-glyphs", "--representation", "conv4-glyphs"), "--representation makes features"),
        (("--reject", "conv4", "--reject", "conv4"), "--reject names something twice"),
        (("--reject", "conv4", "--tries", 0), "'--tries': 0 is not in the range"),
        (("--reject", "conv4", "--plausible", 1.5), "'--plausible': 1.5 is not in the range 0<=x<=1"),
        (("--tries", 3), "without --reject"),
    ],
)
def test_what_cannot_reject_is_one_sentence(augforge, source, tmp_path, given, said):
    assert said in augforge("synth", source, "--out", tmp_path / "out", "--per-class", 2, *given).error()
    assert not (tmp_path / "out").exists()


def test_features_are_not_rejected(augforge, letters, tmp_path):
    made = ("--with", "copies", "--per-class", 2)
    augforge("synth", letters, "--out", tmp_path / "out", *made, "--representation", "conv4-glyphs")
    bank = tmp_path / "out" / "features.safetensors"
    said = augforge("synth", bank, "--out", tmp_path / "more", *made, "--reject", "conv4-glyphs").error()
    assert said.startswith("--reject is for pictures, and ")


def test_a_dry_run_judges_nothing(augforge, source, tmp_path):
    how = ("--with", "spots", "--per-class", 5, "--reject", "discriminator", "--plausible", 1, "--dry-run")
    assert "would make 10 examples" in augforge("synth", source, "--out", tmp_path / "out", *how).out


# Methods that know classes by name


def test_a_class_is_made_by_its_name(augforge, source, manifest_of, tmp_path):
    for name, more in (("all", ()), ("dogs", ("--class", "dog"))):
        how = ("--with", "named", "--per-class", 6, "--reject", "discriminator", "--plausible", 0.3, *more)
        found = augforge("synth", source, "--out", tmp_path / name, *how, "--json").json()
        assert found["rejected"][IMPLAUSIBLE] > 0
    made = _pictures(tmp_path / "all")
    assert {name: data for name, data in made.items() if name.startswith("dog/")} == _pictures(tmp_path / "dogs")
    shades = {name: int(np.asarray(Image.open(tmp_path / "all" / name)).flat[0]) for name in made}
    assert all(72 <= shade < 100 if name.startswith("cat/") else 172 <= shade < 200 for name, shade in shades.items())
    assert {row["parent"] for row in manifest_of(tmp_path / "all")} == {""}
    augforge("regen", tmp_path / "dogs" / "manifest.jsonl", 3, "--out", tmp_path / "again")
    file = manifest_of(tmp_path / "dogs")[2]["file"]
    assert (tmp_path / "again").read_bytes() == (tmp_path / "dogs" / file).read_bytes()


def test_a_class_that_a_method_does_not_know_is_named_before_anything_is_written(augforge, source, tmp_path):
    (source / "cat").rename(source / "emu")
    said = augforge("synth", source, "--out", tmp_path / "out", "--with", "named", "--per-class", 2).error()
    assert said == "named was not trained on a class 'emu'; expected one of 'cat', 'dog'"
    assert not (tmp_path / "out").exists()
    found = augforge("synth", source, "--out", tmp_path / "out", "--with", "named", "--per-class", 2, "--class", "dog")
    assert found.code == 0, found.err


def test_a_class_with_no_picture_to_read_is_made_all_the_same(source, tmp_path):
    for path in (source / "cat").iterdir():
        path.write_bytes(b"torn")
    report = synth(Request(Inputs(str(source), "named"), per_class=70), tmp_path / "out", RunOptions(workers=1))
    assert report.made == 140


def test_a_benchmark_has_no_use_for_it(augforge, source, tmp_path):
    said = augforge("bench", "glyphs", "--with", "named", "--trials", 2, "--made", 1).error()
    assert said.startswith(
        "named makes pictures of the classes that it was trained on and of no other, and a benchmark"
    )


def test_prepare_opens_the_filters_of_the_whole_source(letters, tmp_path):
    inputs = Inputs(str(letters), "copies", classes=("b",))
    request = Request(inputs, per_class=1, reject=("conv4-glyphs",))
    ready = prepare(request, open_bank(inputs), tmp_path / "out", RunOptions(workers=1))
    assert ready.making.filters[0].classes == ("a", "b", "c")
    assert not (tmp_path / "out").exists()
