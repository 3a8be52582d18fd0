"""The image-conditional GAN: what it promises beside the contract of every synthesizer."""

import copy
import functools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.data.glyphs import open_glyphs
from augforge.generators.image_gan import ImageGan
from augforge.generators.shared.gan.batches import only_classes, rows_of_classes, split_classes, symmetric
from augforge.generators.shared.gan.pictures import latents, score_quantiles, share_below
from augforge.networks.pixels import load_pixels
from augforge.parts.saving import _WEIGHTS as WEIGHTS
from augforge.parts.saving import load_part, open_part, save_part
from augforge.training.loop import Run
from augforge.types import Examples, InputError

SMALL = {"width": 8, "judge_width": 8, "noise": 4, "code": 4, "batch": 8, "steps": 3}
KEYS = chance.row_keys(0, "test", torch.arange(6))
WANT = torch.tensor([0, 1, 0, 1, 1, 0])


def _bank(classes=6, rows=6, side=16, seed=0):
    rng = np.random.default_rng(seed)
    y = torch.arange(classes).repeat_interleave(rows)
    names = tuple(f"class {i}" for i in range(classes))
    return ArrayPictures(y, names, rng.integers(0, 256, (len(y), side, side, 1), dtype=np.uint8), "bank")


def _support(rows=(0, 1, 6, 7), y=(0, 0, 1, 1)):
    return Examples(_bank(seed=5).examples(torch.tensor(rows)).x, torch.tensor(y))


@functools.cache
def _fitted(pool="parent"):
    return ImageGan(**SMALL, pool=pool).fit(_bank(), torch.Generator().manual_seed(0))


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path):
    settings = SMALL | {"steps": 60, "shots": "1,2", "pool": "mean"}
    whole = ImageGan(**settings).fit(_bank(), torch.Generator().manual_seed(0))

    def kill(stage, fraction, loss):
        if fraction > 0:
            raise KeyboardInterrupt

    part = ImageGan(**settings)
    run = Run(folder=tmp_path, checkpoint_every=-1)
    with pytest.raises(KeyboardInterrupt):
        part.fit(_bank(), torch.Generator().manual_seed(0), run=replace(run, progress=kill))
    part.fit(_bank(), torch.Generator().manual_seed(0), run=run)
    for name, value in whole.generator_.state_dict().items():
        assert torch.equal(part.generator_.state_dict()[name], value), name
    assert torch.equal(part.quantiles_, whole.quantiles_)
    assert list(tmp_path.glob("step-*.png"))


def test_sampling_imports_no_training_code(tmp_path):
    save_part(_fitted(), tmp_path / "part")
    torch.save(_support().x, tmp_path / "x.pt")
    script = f"""
import sys, torch
from pathlib import Path
from augforge import chance
from augforge.parts.saving import load_part
from augforge.types import Examples
part = load_part(Path({str(tmp_path / "part")!r}))
x = torch.load({str(tmp_path / "x.pt")!r}, weights_only=True)
made = part.synthesize(Examples(x, torch.tensor([0, 0, 1, 1])), torch.tensor([0, 1]), torch.tensor([1, 2]))
torch.save(made.x, {str(tmp_path / "made.pt")!r})
print([name for name in sys.modules if name.endswith((".gan.trainer", ".gan.validation"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    made = _fitted().synthesize(_support(), torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert torch.equal(torch.load(tmp_path / "made.pt", weights_only=True), made.x)


def test_a_pool_of_pictures_reads_them_all():
    alone = _fitted().synthesize(_support(), WANT[:1], KEYS[:1])
    fewer = Examples(_support().x[[int(alone.parent[0]), 2]], torch.tensor([0, 1]))
    for pool in ("parent", "mean", "attention"):
        whole = _fitted(pool).synthesize(_support(), WANT[:1], KEYS[:1]).x.float()
        part = _fitted(pool).synthesize(fewer, WANT[:1], KEYS[:1]).x.float()
        assert torch.equal(whole, part) == (pool == "parent")
        assert _fitted(pool).one_parent == (pool == "parent")


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_the_order_of_the_support_makes_no_difference(pool):
    support = _support()
    swapped = support.take(torch.tensor([0, 1, 3, 2]))
    made, other = (_fitted(pool).synthesize(s, torch.tensor([0]), KEYS[:1]).x for s in (support, swapped))
    assert torch.equal(made, other)


def test_truncation_keeps_latents_within_its_bound_and_their_order():
    keys = chance.row_keys(0, "z", torch.arange(4000))
    z, wide = latents(keys, 2, 0.7, torch.device("cpu")), latents(keys, 2, 2.0, torch.device("cpu"))
    assert float(z.abs().max()) <= 0.7
    assert float(z.std()) == pytest.approx(0.389, abs=0.01)  # of a normal number cut off at 0.7
    assert torch.equal(z[:, 0].argsort(), wide[:, 0].argsort())
    assert float(latents(keys, 2, 0.0, torch.device("cpu")).std()) == pytest.approx(1, abs=0.02)
    part = ImageGan(**SMALL, truncation=0.01)
    part.build({"channels": 1, "side": 16})
    for name in ("generator_", "judge_"):
        getattr(part, name).load_state_dict(getattr(_fitted(), name).state_dict())
    free, held = (p.synthesize(_support(), WANT, KEYS).x.float() for p in (_fitted(), part))
    assert not torch.equal(free, held)


def test_latents_that_are_cut_off_at_next_to_nothing_leave_no_noise():
    assert float(latents(KEYS, 4, 1e-30, torch.device("cpu")).abs().max()) <= 1e-30
    for gan, support in ((_fitted(), _support()), (open_part("image-gan-glyphs"), _letters())):
        quiet = copy.copy(gan)
        quiet.truncation = 1e-30
        for x in (support.x, support.x.float() / 255):
            free, still = (part.synthesize(Examples(x, support.y), WANT[:1].repeat(6), KEYS) for part in (gan, quiet))
            assert torch.equal(free.parent, still.parent)
            for parent in still.parent.unique():
                assert len(still.x[still.parent == parent].unique(dim=0)) == 1
        assert len(free.x.unique(dim=0)) == 6


def _letters():
    return open_glyphs()["test"].examples(torch.tensor([0, 1]), torch.tensor([0]))


def test_plausibility_is_the_share_of_real_pictures_below():
    quantiles = score_quantiles(torch.arange(1000.0))
    assert share_below(torch.tensor([-1.0, 250.0, 2000.0]), quantiles).tolist() == pytest.approx([0, 0.25, 1], abs=0.01)
    made = _fitted().synthesize(_support(), WANT, KEYS)
    found = _fitted().plausibility(_support(), made)
    assert found.shape == WANT.shape
    assert ((found >= 0) & (found <= 1)).all()
    order = torch.tensor([3, 1])
    assert torch.equal(_fitted().plausibility(_support(), made.take(order)), found[order])


def test_between_two_parents():
    x = _support().x
    made = _fitted().between(x[0], x[2], 5, key=7)
    assert made.shape == (5, 1, 16, 16)
    assert made.dtype == torch.uint8
    back = _fitted().between(x[2], x[0], 5, key=7)
    assert torch.equal(made.flip(0), back)


def test_the_symmetries_of_the_square():
    x = torch.rand(1, 3, 1, 8, 8)
    u = torch.tensor([[float(i & 1), float(i & 2), float(i & 4)] for i in range(8)]).clamp(max=1) * 0.9
    turned = symmetric(x.expand(8, -1, -1, -1, -1), "turns", u)
    assert len({tuple(picture.flatten().tolist()) for picture in turned}) == 8
    for picture in turned:  # the pictures of a parent are moved alike
        assert torch.equal(
            picture.mean(0), symmetric(x.mean(1, keepdim=True), "turns", _u_of(turned, picture, u))[0, 0]
        )
    mirrored = symmetric(x.expand(8, -1, -1, -1, -1), "mirror", u)
    assert len({tuple(picture.flatten().tolist()) for picture in mirrored}) == 2
    assert torch.equal(symmetric(x, "none", u[:1]), x)


def _u_of(turned, picture, u):
    return u[[i for i in range(8) if torch.equal(turned[i], picture)]]


def test_classes_are_drawn_alike_and_rows_without_repetition():
    y = torch.tensor([0] * 3 + [1] * 9)
    data = load_pixels(ArrayPictures(y, ("a", "b"), np.zeros((12, 16, 16, 1), np.uint8), "bank"), 0, "cpu")
    classes = torch.tensor([0, 1]).repeat(200)
    rows = rows_of_classes(data, classes, 3, torch.Generator().manual_seed(0))
    assert (data.y[rows] == classes[:, None]).all()
    assert all(len(set(line)) == 3 for line in rows.tolist())
    assert torch.bincount(rows[classes == 1].flatten(), minlength=12)[3:].min() > 40  # 66.7 expected
    again = rows_of_classes(data, torch.tensor([0]), 5, torch.Generator().manual_seed(0))[0]
    assert again[:2].tolist() == again[3:].tolist()  # a class of three begins again


def test_held_out_classes_are_others():
    data = load_pixels(_bank(classes=20), 0, "cpu")
    kept, out = split_classes(data, 0.1, seed=3)
    assert (kept.classes, out.classes) == (18, 2)
    found = {picture.numpy().tobytes() for picture in kept.x}
    assert not found & {picture.numpy().tobytes() for picture in out.x}
    one = only_classes(data, torch.tensor([7]))
    assert torch.equal(one.x[one.table[0, : one.counts[0]]], data.x[data.table[7, : data.counts[7]]])


def test_what_is_refused():
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="every class here has one"):
        ImageGan(**SMALL).fit(_bank(rows=1), rng)
    with pytest.raises(InputError, match="square pictures of an even side from 8 px on, and these are 17x17"):
        ImageGan(**SMALL).fit(_bank(side=17), rng)
    with pytest.raises(InputError, match="this source holds features"):
        ImageGan(**SMALL).fit(FeatureBank(torch.randn(12, 4), torch.arange(2).repeat(6), ("a", "b")), rng)
    with pytest.raises(InputError, match=r"was trained on pictures \[1, 16, 16\] and got \[1, 20, 20\]; --size 16"):
        _fitted().synthesize(Examples(torch.rand(1, 1, 20, 20), torch.tensor([0])), WANT[:1], KEYS[:1])
    with pytest.raises(InputError, match="not fitted yet"):
        ImageGan().synthesize(_support(), WANT, KEYS)
    for bad in ({"batch": 7}, {"rate": 0.0}, {"steps": 0}, {"truncation": -1.0}, {"shots": "1,x"}, {"average": 1.0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            ImageGan(**bad)
    with pytest.raises(InputError, match="augment='blur'"):
        ImageGan(**SMALL, augment="blur").fit(_bank(), rng)


def test_the_shipped_part_makes_letters_that_it_never_saw():
    letters, gan = open_glyphs()["test"], open_part("image-gan-glyphs")
    representation = open_part("conv4-glyphs", None, "representation")
    classes = torch.arange(20)
    rows = torch.stack([(letters.y == label).nonzero()[:, 0] for label in classes])  # [20 letters, 20 pictures]
    support = Examples(letters.examples(rows[:, 0]).x, classes)
    want = classes.repeat_interleave(5)
    made = gan.synthesize(support, want, chance.row_keys(0, "shipped", torch.arange(len(want))))
    means = representation.embed(letters.examples(rows[:, 1:].flatten()).x).unflatten(0, (20, -1)).mean(1)
    nearest = [torch.cdist(representation.embed(x), means).argmin(1) for x in (made.x, support.x)]
    assert float((nearest[0] == want).float().mean()) > 0.8 * float((nearest[1] == classes).float().mean())
    again = gan.synthesize(support, want, chance.row_keys(1, "shipped", torch.arange(len(want))))
    assert not torch.equal(made.x, again.x)
    assert sum(path.stat().st_size for path in (WEIGHTS / "image-gan-glyphs").iterdir()) < 8_000_000


def test_a_saved_part_keeps_its_discriminator(tmp_path):
    save_part(_fitted(), tmp_path / "part")
    loaded = load_part(tmp_path / "part")
    made = loaded.synthesize(_support(), WANT, KEYS)
    assert torch.equal(loaded.plausibility(_support(), made), _fitted().plausibility(_support(), made))
