"""A rehearsal of every path on a device, on tensors that claim to lie on one: `pretend_cuda` says what that refuses.

New entries of the catalog are rehearsed without a line here; what makes an entry small is the contract battery's.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from augforge import chance
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import run as run_bench
from augforge.data.banks import ArrayPictures, FeatureBank
from augforge.generators.classical import Classical
from augforge.inputs import Inputs
from augforge.parts import catalog
from augforge.parts.learning import learn
from augforge.synth.request import Request
from augforge.synth.run import synth
from augforge.synth.run_folder import RunOptions
from augforge.training.loop import Run
from augforge.types import Examples

HERE = Path(__file__).parent
DEVICE = "cuda:0"
Y = torch.tensor([0, 0, 1, 1, 2, 2])
WANT = torch.tensor([2, 0, 1, 2, 1, 0, 2, 2])


@functools.cache
def _load(file):
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(Path(file).stem + "_loaded", HERE / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pretend = _load("pretend_cuda.py")


@pytest.fixture
def device():
    with pretend.pretended_cuda() as found:
        yield found


# The pretence


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.ones(2, 3),
        lambda x: torch.cat([x, torch.ones(2, 3)]),
        lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: torch.ones(2)[torch.zeros(1, dtype=torch.int64, device=x.device)],
        lambda x: x.index_put_((torch.zeros(1, dtype=torch.int64, device=x.device),), torch.ones(1, 3)),
        lambda x: torch.rand(2, generator=torch.Generator(x.device)),
        lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
        lambda x: x.long() @ x.long().T,
        lambda x: torch.nn.Linear(3, 2)(x),
    ],
)
def test_what_cuda_refuses_is_refused(device, mistake):
    with pytest.raises(pretend.Refused):
        mistake(torch.ones(2, 3, device=DEVICE))


def test_what_cuda_does_is_done_and_what_waits_is_counted(device):
    x = torch.ones(2, 3, device="cuda")
    assert x.device == torch.device(DEVICE)
    assert (x * torch.tensor(2.0)).is_cuda  # a number may come from the CPU
    assert x[torch.tensor([0])].is_cuda  # and an index
    assert not x.cpu().is_cuda
    assert sum(device.waits.values()) == 1
    assert float(x.sum()) == 6
    assert bool((x == 1).all())
    assert len(x[x > 0]) == 6
    assert sum(device.waits.values()) == 4
    net = torch.nn.Linear(3, 2)
    weight = net.weight
    net.to(DEVICE)
    assert net.weight is weight
    net(x).sum().backward()
    assert weight.is_cuda
    assert weight.grad.is_cuda
    assert not net.cpu().weight.is_cuda


# Every entry of the catalog


def _base(space, d=16):
    y = torch.arange(6).repeat_interleave(8)
    if space == "feature":
        x = torch.randn(48, d, generator=torch.Generator().manual_seed(3)) + y[:, None] / 3
        return FeatureBank(x.relu().to(DEVICE), y.to(DEVICE), tuple("abcdef"))
    pixels = np.random.default_rng(3).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
    return ArrayPictures(y, tuple("abcdef"), pixels, "base", groups={"half": ("left", "right") * 24})


def _support(space):
    rng = torch.Generator().manual_seed(11)
    x = torch.randn(6, 16, generator=rng).relu() if space == "feature" else torch.rand(6, 3, 16, 16, generator=rng)
    return Examples(x.to(DEVICE), Y.to(DEVICE))


SMALLER = {
    "hallucinator": {"steps": 3, "made": 5},
    "posterior": {"made": 5},
    "analogies": {"steps": 3, "hidden": 16, "batch": 8},
}


@pytest.mark.parametrize("name", catalog.SYNTHESIZERS)
def test_a_synthesizer_fits_and_makes_rows_on_a_device(device, name):
    settings = _load("contracts/test_synthesizers.py").SETTINGS.get(name, dict)()
    part = catalog.make(name, settings | SMALLER.get(name, {}))
    for space in ("feature", "image") if part.space == "any" else (part.space,):
        learn(part, _base(space), torch.Generator().manual_seed(0), None, Run(DEVICE))
        keys = chance.row_keys(0, "rehearsal", torch.arange(len(WANT)))
        made = part.synthesize(_support(space), WANT.to(DEVICE), keys.to(DEVICE))
        if len(made):
            assert made.x.is_cuda
            assert made.y.is_cuda
            assert made.y.tolist() == WANT.tolist()


def _classifiers():
    settings = _load("contracts/test_classifiers.py").SETTINGS
    return [pytest.param(name, s, id=" ".join([name, *map(str, s.values())]))
            for name in catalog.CLASSIFIERS for s in settings.get(name, ({},))]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), _classifiers())
def test_a_classifier_fits_and_scores_on_a_device(device, name, settings):
    part = catalog.make(name, settings, "classifier").fit(_base("feature"), torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    x, query = torch.randn(4, 9, 16, generator=rng), torch.randn(4, 7, 16, generator=rng)
    y = torch.arange(3).repeat_interleave(3).expand(4, -1)
    weight = torch.ones(4, 9)
    scores = part.scores(Examples(x.to(DEVICE), y.to(DEVICE), weight=weight.to(DEVICE)), query.to(DEVICE))
    assert scores.is_cuda
    assert scores.shape == (4, 7, 3)


# Jobs


def test_conv4_learns_on_a_device_and_embeds_where_its_pictures_are(device):
    settings = {"method": "both", "steps": 4, "epochs": 1, "batch_size": 16, "way": 3, "shot": 2, "query": 2}
    part = catalog.make("conv4", settings, "representation")
    part.fit(_base("image"), torch.Generator().manual_seed(0), _base("image"), Run(DEVICE))
    before = sum(device.waits.values())
    assert part.embed(torch.rand(5, 3, 16, 16, device=DEVICE)).is_cuda
    assert sum(device.waits.values()) == before


def _waits_of_training(device, make, steps):
    """How often a training waits for the device, by its number of steps."""
    before = sum(device.waits.values())
    learn(make(steps), _base("image"), torch.Generator().manual_seed(0), None, Run(DEVICE))
    return sum(device.waits.values()) - before


EPISODES = {"method": "episodic", "way": 3, "shot": 2, "query": 2}
NETS = {"width": 8, "judge_width": 8, "batch": 4, "noise": 4, "code": 4}
MAKE = {
    "conv4": lambda steps: catalog.make("conv4", EPISODES | {"steps": steps}, "representation"),
    "image-gan": lambda steps: catalog.make("image-gan", NETS | {"steps": steps}),
}


@pytest.mark.parametrize("name", MAKE)
def test_steps_of_training_hardly_wait_for_the_device(device, name):
    few, more = (_waits_of_training(device, MAKE[name], steps) for steps in (12, 32))
    assert more - few <= 20, device.waits.most_common(10)


def test_a_gan_that_was_stopped_goes_on_on_a_device(device, tmp_path):
    whole, halves = (MAKE["image-gan"](8) for _ in range(2))
    learn(whole, _base("image"), torch.Generator().manual_seed(0), None, Run(DEVICE, tmp_path / "whole"))

    class Stopped(Exception):
        pass

    def stop(optimiser, args, kwargs):
        count.append(1)
        if len(count) == 9:
            raise Stopped

    count = []
    hook = register_optimizer_step_post_hook(stop)
    try:
        with pytest.raises(Stopped):
            learn(halves, _base("image"), torch.Generator().manual_seed(0), None,
                  Run(DEVICE, tmp_path / "halves", checkpoint_every=0))  # fmt: skip
    finally:
        hook.remove()
    learn(halves, _base("image"), torch.Generator().manual_seed(0), None, Run(DEVICE, tmp_path / "halves"))
    for a, b in zip(whole.generator_.state_dict().values(), halves.generator_.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_benchmark_runs_on_a_device(device, toys):
    recipes = [
        Recipe(
            None, catalog.make(method), catalog.make(classifier, {}, "classifier"), made=0 if method == "nothing" else 5
        )
        for method in ("nothing", "noise", "mixing")
        for classifier in ("prototype", "logistic")
    ]
    results = run_bench(toys.feature_task(), recipes, BenchPlan(trials=4), place=DEVICE)
    assert len(results.rows) >= 12


def test_noise_and_parameters_of_classical_do_not_wait_for_the_device(device):
    recipe = Classical("strong", engine="tensor")
    keys = chance.row_keys(0, "rehearsal", torch.arange(8))
    x = torch.rand(8, 3, 20, 24)
    expected, drawn = recipe.apply(x, recipe.draw(keys)), recipe.draw(keys)
    made = recipe.apply(x.to(DEVICE), drawn)
    assert sum(device.waits.values()) == 0, device.waits
    assert torch.equal(made.cpu(), expected)


def test_synth_around_a_device_writes_what_it_writes_without(tmp_path):
    def write(device, workers):
        classes = ("greek-small-alpha", "greek-small-beta")
        inputs = Inputs("glyphs", "classical", {"engine": "tensor", "preset": "strong"}, classes, device=device)
        out = tmp_path / ("plain" if device == "cpu" else "device")
        synth(Request(inputs, per_class=3), out, RunOptions(workers=workers))

    write("cpu", 1)
    with pretend.pretended_cuda():
        write(DEVICE, 3)
    files = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.png"))
    assert files
    for file in files:
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "device" / file).read_bytes()
