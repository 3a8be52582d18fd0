"""What is learnt on a CUDA device: short trainings, one that goes on from its checkpoint, and a benchmark."""

import numpy as np
import pytest
import torch

from augforge import chance
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import run as run_bench
from augforge.data.banks import ArrayPictures
from augforge.parts import catalog
from augforge.parts.saving import load_part, save_part
from augforge.training.loop import Run
from augforge.types import Examples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def _bank(seed):
    """Six classes of 32 px pictures: a bright square whose place is the class, in noise."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(6), 12)
    pixels = rng.integers(0, 100, (72, 32, 32, 1))
    for row, label in enumerate(y):
        top, left = 2 + 10 * (label // 3), 2 + 10 * (label % 3)
        pixels[row, top : top + 8, left : left + 8] += 150
    return ArrayPictures(torch.from_numpy(y), tuple("abcdef"), pixels.astype(np.uint8), "squares")


def _gan(steps):
    return catalog.make("image-gan", {"width": 16, "judge_width": 8, "batch": 16, "steps": steps})


def test_an_image_gan_learns_goes_on_and_makes_pictures_where_its_parents_are(tmp_path):
    _gan(60).fit(_bank(0), torch.Generator().manual_seed(0), _bank(1), Run("cuda", tmp_path))
    first = (tmp_path / "log.jsonl").read_text().count("\n")
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert any(name.endswith(".safetensors") for name in folders)
    # The same command once more has nothing left to do, and gives the same weights.
    parts = [
        _gan(60).fit(_bank(0), torch.Generator().manual_seed(0), _bank(1), Run("cuda", tmp_path)) for _ in range(2)
    ]
    for a, b in zip(*(part.generator_.state_dict().values() for part in parts), strict=True):
        assert torch.equal(a, b)
        assert bool(a.isfinite().all())
    assert (tmp_path / "log.jsonl").read_text().count("\n") >= first
    save_part(parts[0], tmp_path / "part")
    keys, want = chance.row_keys(0, "gpu", torch.arange(8)), torch.zeros(8, dtype=torch.int64)
    x = _bank(1).examples(torch.arange(1)).x
    for part in (parts[0], load_part(tmp_path / "part")):
        made = part.synthesize(Examples(x.cuda(), torch.zeros(1, dtype=torch.int64).cuda()), want.cuda(), keys.cuda())
        assert made.x.is_cuda
        on_cpu = part.synthesize(Examples(x, torch.zeros(1, dtype=torch.int64)), want, keys)
        # bfloat16 on one side: a few grey levels on average
        assert float((made.x.cpu().float() - on_cpu.x.float()).abs().mean()) < 8


def test_a_gan_that_was_stopped_goes_on(tmp_path):
    class Stopped(Exception):
        pass

    def stop(stage, fraction, loss):
        if fraction > 0.4:
            raise Stopped

    run = Run("cuda", tmp_path, checkpoint_every=0, progress=stop)
    with pytest.raises(Stopped):
        _gan(120).fit(_bank(0), torch.Generator().manual_seed(0), _bank(1), run)
    part = _gan(120).fit(_bank(0), torch.Generator().manual_seed(0), _bank(1), Run("cuda", tmp_path))
    steps = [line for line in (tmp_path / "log.jsonl").read_text().splitlines() if '"step": 50,' in line]
    assert len(steps) >= 1
    assert all(bool(value.isfinite().all()) for value in part.generator_.state_dict().values())


def test_conv4_learns_to_tell_classes_and_embeds_alike_on_both_sides():
    settings = {"method": "episodic", "steps": 60, "way": 5, "shot": 2, "query": 4, "augment": "none"}
    part = catalog.make("conv4", settings, "representation")
    part.fit(_bank(0), torch.Generator().manual_seed(0), _bank(1), Run("cuda"))
    novel = _bank(2)
    x = novel.examples(torch.arange(72)).x
    features = part.embed(x.cuda())
    assert features.is_cuda
    on_cpu = part.embed(x)
    torch.testing.assert_close(features.cpu(), on_cpu, rtol=0.02, atol=0.02 * float(on_cpu.abs().max()))
    means = features.view(6, 12, -1).mean(1)
    nearest = torch.cdist(features, means).argmin(1)
    assert float((nearest.cpu() == novel.y).float().mean()) > 0.9


def test_a_benchmark_gives_what_it_gives_on_the_cpu(toys):
    def accuracies(device):
        recipes = [
            Recipe(None, catalog.make("noise"), catalog.make(name, {}, "classifier"), made=5)
            for name in ("prototype", "logistic")
        ]
        return [
            row.accuracy for row in run_bench(toys.feature_task(), recipes, BenchPlan(trials=20), place=device).rows
        ]

    on_cpu, on_gpu = accuracies("cpu"), accuracies("cuda")
    assert len(on_cpu) == len(on_gpu)
    assert max(abs(a - b) for a, b in zip(on_cpu, on_gpu, strict=True)) < 1.0  # percent: a near tie may fall otherwise
