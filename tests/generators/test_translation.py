"""Translation on pictures of random blobs, whose other domain is known: turned to negatives and moved by 3 px."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.data.banks import ArrayPictures
from augforge.data.folder import open_folder
from augforge.generators.translation import Translation
from augforge.generators.translation.domains import DomainSettings, load_domains, split_domains
from augforge.generators.translation.objective import PairedObjective, held_out_pairs
from augforge.parts.saving import load_part, save_part
from augforge.synth.encode import encode_png
from augforge.training.loop import Run
from augforge.types import Examples, InputError

SIDE = 16
SMALL = {"width": 8, "judge_width": 4, "noise": 2, "batch": 8, "average": 0.9, "rate": 2e-3, "judge_rate": 1e-3}
KEYS = chance.row_keys(0, "test", torch.arange(64))


def _blobs(n, seed=0):
    """Pictures [n, 16, 16, 1] of three soft spots, uint8."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(3, SIDE - 4, (n, 3, 2, 1, 1))
    y, x = np.mgrid[:SIDE, :SIDE]
    far = (y - place[:, :, 0]) ** 2 + (x - place[:, :, 1]) ** 2
    return (255 * np.exp(-far / 4).max(1))[..., None].round().astype(np.uint8)


def _other(pixels):
    """The other domain: 3 px to the right, and dark for bright."""
    return 255 - np.roll(pixels, 3, 2)


def _moved(x):
    """The other domain of pictures in [0, 1], exactly as those of `_other` are read."""
    return (255 - (255 * x).round()).roll(3, 3) / 255


def _bank(classes=20, each=4, seed=0, paired=True):
    """Classes with `each` pictures in the domain "a" and as many in "b", whose column "hand" says what is a pair."""
    a = _blobs(classes * each, seed)
    b = _other(a if paired else _blobs(classes * each, seed + 1))
    pixels = np.concatenate([a, b])
    y = torch.arange(classes).repeat_interleave(each).repeat(2)
    groups = {"look": ("a",) * len(a) + ("b",) * len(b), "hand": torch.arange(each).repeat(2 * classes)}
    return ArrayPictures(y, tuple(f"c{i:02d}" for i in range(classes)), pixels, "blobs", groups=groups)


def _domains(domain="", source="", target="", pair="", paired=True):
    return DomainSettings(paired, domain, source, target, pair, 0)


def _rng():
    return torch.Generator().manual_seed(0)


def _paired(**settings):
    return Translation(domain="look", source="a", target="b", pair="hand", **{**SMALL, **settings})


def _unpaired(**settings):
    return Translation("unpaired", domain="look", source="a", target="b", **{**SMALL, **settings})


def _novel():
    """Pictures that were never seen, as one class each, and their counterparts."""
    a = _blobs(32, seed=99)
    x, target = (torch.from_numpy(pixels).movedim(3, 1).float() / 255 for pixels in (a, _other(a)))
    return Examples(x, torch.arange(32)), target


def _error(x, y):
    return float((x - y).abs().mean())


def _log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_pairs_are_learnt_and_hold_for_pictures_never_seen(tmp_path):
    part = _paired(steps=150).fit(_bank(), _rng(), run=Run(folder=tmp_path))
    support, target = _novel()
    made = part.synthesize(support, support.y, KEYS[:32])
    constant = target.mean(0).expand_as(target)
    assert _error(made.x, target) < 0.6 * min(_error(support.x, target), _error(constant, target))
    assert torch.equal(made.parent, support.y)
    looks = [line for line in _log(tmp_path) if "score" in line]
    assert looks[-1]["error"] < 0.5 * looks[-1]["error_of_source"]
    assert looks[-1]["score"] == -looks[-1]["error"]
    assert list(tmp_path.glob("step-*.png"))


def test_two_ways_are_learnt_without_pairs(tmp_path):
    bank = _bank(paired=False)
    pixels = bank.pixels.copy()
    pixels[80:] = 128 + (255 - pixels[80:]) // 2  # spots on grey paper
    part = _unpaired(steps=80, augment="translation")
    part.fit(replace(bank, pixels=pixels), _rng(), run=Run(folder=tmp_path))
    looks = [line for line in _log(tmp_path) if "score" in line]
    for name in ("kernel_distance", "back_kernel_distance"):
        assert looks[-1][name] < 0.1 * looks[0][name]
    errors = [look["cycle_error"] for look in looks]
    assert errors[-1] < max(errors)  # it is small while both ways are copies, grows, and falls
    support, _ = _novel()
    forth = part.synthesize(support, support.y, KEYS[:32])
    assert errors[-1] < 0.3 * _error(forth.x, support.x)
    assert forth.x.mean() > support.x.mean() + 0.3
    part.direction = "backward"
    grey = Examples(0.5 + support.x / 2, support.y)
    back = part.synthesize(grey, support.y, KEYS[:32])
    assert back.x.mean() < grey.x.mean() - 0.3
    for part.direction, rows, made in (("forward", support, forth), ("backward", grey, back)):
        share = part.plausibility(rows, made)
        assert share.shape == (32,)
        assert bool(((share >= 0) & (share <= 1)).all())


def test_saved_and_loaded_it_goes_on_both_ways(tmp_path):
    part = _unpaired(steps=2).fit(_bank(6), _rng())
    save_part(part, tmp_path / "part")
    loaded = load_part(tmp_path / "part")
    support, _ = _novel()
    for direction in ("forward", "backward"):
        part.direction = loaded.direction = direction
        one, two = (each.synthesize(support, support.y, KEYS[:32]) for each in (part, loaded))
        assert torch.equal(one.x, two.x)
        assert torch.equal(part.plausibility(support, one), loaded.plausibility(support, two))


@pytest.mark.parametrize("make", [_paired, _unpaired])
def test_killed_and_gone_on_with_it_ends_the_same(make, tmp_path):
    settings = {"steps": 60, "r1": 0.1, "lecam": 0.1, "width": 4}
    whole = make(**settings).fit(_bank(6), _rng())

    def kill(stage, fraction, loss):
        if fraction > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(**settings).fit(_bank(6), _rng(), run=Run(folder=tmp_path, checkpoint_every=-1, progress=kill))
    again = make(**settings).fit(_bank(6), _rng(), run=Run(folder=tmp_path))
    for name in ("generator_", "judge_"):
        one, two = (getattr(part, name).state_dict() for part in (whole, again))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert torch.equal(whole.quantiles_, again.quantiles_)


def test_parts_of_a_batch_add_up():
    x = _novel()[0]
    made = [make(steps=2, accumulate=k, average=0.0).fit(_bank(6), _rng()).synthesize(x, x.y, KEYS[:32]).x
            for make in (_paired, _unpaired) for k in (1, 4)]  # fmt: skip
    for one, many in (made[:2], made[2:]):
        assert torch.allclose(one, many, atol=2e-3)  # Adam's first steps make whole steps of roundings


@pytest.mark.parametrize("side", [28, 32, 64, 96])
@pytest.mark.parametrize("make", [_paired, _unpaired])
def test_every_size_in_colour(side, make):
    pixels = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    groups = {"look": ("a", "b") * 8, "hand": tuple("0011" * 4)}
    bank = ArrayPictures(torch.arange(4).repeat_interleave(4), tuple("wxyz"), pixels, "noise", groups=groups)
    part = make(steps=1, width=4, batch=2).fit(bank, _rng())
    grey = Examples(torch.zeros(1, 1, side, side, dtype=torch.uint8), torch.tensor([0]))
    made = part.synthesize(grey, torch.tensor([0, 0]), KEYS[:2])
    assert made.x.shape == (2, 3, side, side)  # a grey picture is read as colour
    assert made.x.dtype == torch.uint8


def test_noise_varies_the_rows_of_one_parent():
    part = _paired(steps=2).fit(_bank(6), _rng())
    support = _novel()[0].take(torch.tensor([0]))
    want = torch.zeros(8, dtype=torch.int64)
    x = part.synthesize(support, want, KEYS[:8]).x
    assert len(torch.unique(x.flatten(1), dim=0)) == 8
    part.truncation = 1e-6
    near = part.synthesize(support, want, KEYS[:8]).x
    assert near.std(0).max() < 1e-4 < x.std(0).max()


def test_pairs_are_of_one_class_and_hand_and_none_is_held_out_by_half():
    domains = load_domains(_bank(10, 3), _domains("look", "a", "b", "hand"), "cpu")
    assert domains.source.classes == domains.target.classes == 30
    source, target, _ = held_out_pairs(domains)
    assert torch.equal(target, _moved(source))
    trained, held_out = split_domains(domains, 0.1, 5)
    assert len(set(held_out.source.groups.tolist())) == 2  # at least two classes, each with all of its hands
    assert torch.equal(held_out.source.groups, held_out.target.groups)
    assert not set(held_out.source.groups.tolist()) & set(trained.source.groups.tolist())
    objective = PairedObjective(torch.nn.ModuleList(), torch.nn.ModuleList(), trained, held_out, 16, 1.0, (), 2)
    drawn = objective.draw(_rng(), 0.0)
    assert torch.equal(drawn["target"], _moved(drawn["source"]))


def test_rows_of_a_class_are_pairs_where_no_column_says_more():
    domains = load_domains(_bank(10, 3), _domains("look", "b", "a"), "cpu")
    assert domains.source.counts.tolist() == [3] * 10
    y = domains.target.y[domains.target.table]
    assert torch.equal(y, torch.arange(10)[:, None].expand(-1, 3))
    assert domains.target.table.max() < 30 <= domains.source.table.min()


def _folder(root, photos=7):
    for name, pixels in (("edges", _blobs(7)), ("photos", _other(_blobs(photos)))):
        (root / name).mkdir(parents=True)
        for i, picture in enumerate(pixels):
            (root / name / f"{i:03d}.png").write_bytes(encode_png(picture))
    return open_folder(root)["all"]


def test_two_classes_are_domains_paired_by_their_order(tmp_path):
    bank = _folder(tmp_path)
    source, target, y = held_out_pairs(load_domains(bank, _domains(), "cpu"))
    assert torch.equal(target, _moved(source))
    assert not y.any()
    back = held_out_pairs(load_domains(bank, _domains(source="photos"), "cpu"))
    assert torch.equal(back[0], target)
    assert torch.equal(back[1], source)
    assert held_out_pairs(load_domains(bank, _domains(target="edges"), "cpu"))[0].equal(target)
    Translation("unpaired", steps=1, width=4, batch=2).fit(bank, _rng())


def test_unequal_counts_cannot_be_paired_by_order(tmp_path):
    bank = _folder(tmp_path, photos=6)
    with pytest.raises(InputError, match="'edges' has 7 pictures and 'photos' has 6"):
        Translation(steps=1).fit(bank, _rng())
    load_domains(bank, _domains(paired=False), "cpu")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs a bank of two classes"),
        ({"domain": "face", "source": "a", "target": "b"}, r"domain='face' was given; the columns .* 'look'"),
        ({"domain": "look", "source": "a", "target": "c"}, "target='c' was given; expected two different ones of a, b"),
        ({"domain": "look", "source": "a", "target": "b", "pair": "pen"}, "pair='pen' was given"),
    ],
)
def test_banks_without_the_domains_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Translation(**settings).fit(_bank(6), _rng())


def test_domains_that_share_no_class_are_refused_in_pairs():
    pixels = _blobs(8)
    bank = ArrayPictures(torch.arange(8) // 2, tuple("wxyz"), pixels, "blobs", groups={"look": tuple("aaaabbbb")})
    with pytest.raises(InputError, match="found 0 pairs in 'blobs'; expected 2 or more"):
        Translation(domain="look", source="a", target="b").fit(bank, _rng())
    load_domains(bank, _domains("look", "a", "b", paired=False), "cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {"direction": "backward"},
        {"mode": "unpaired", "pair": "hand"},
        {"domain": "look", "source": "a"},
        {"domain": "look", "source": "a", "target": "a"},
        {"noise": 0},
        {"distance": -1.0},
        {"rate": 0.0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(InputError):
        Translation(**settings)


def test_it_is_fitted_before_it_is_used():
    support, _ = _novel()
    with pytest.raises(InputError, match="translation is not fitted yet"):
        Translation().synthesize(support, support.y, KEYS[:32])
    part = _paired(steps=1, width=4).fit(_bank(6), _rng())
    with pytest.raises(InputError, match="--size 16"):
        part.synthesize(Examples(torch.zeros(1, 1, 28, 28), torch.tensor([0])), torch.tensor([0]), KEYS[:1])


def test_sampling_imports_no_training_code():
    code = "import sys; import augforge.generators.translation; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not [name for name in modules if name.endswith((".gan.trainer", ".gan.validation"))]
