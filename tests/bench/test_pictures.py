"""Benchmarks of methods that make pictures from the whole support of a class, and of methods that are trained."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch

from augforge import chance
from augforge.bench import made_rows
from augforge.bench.made_rows import from_pictures, made_keys
from augforge.bench.plan import BenchPlan
from augforge.bench.recipes import Recipe
from augforge.bench.run import run
from augforge.classifiers.prototype import Prototype
from augforge.data.banks import FeatureBank, take_rows
from augforge.episodes.batch import Stacked, Trials
from augforge.episodes.tasks import Task
from augforge.generators.classical import Classical
from augforge.generators.nothing import Nothing
from augforge.parts import catalog
from augforge.representations.options import BankOptions
from augforge.types import Examples, InputError

PLAN = BenchPlan(way=4, shots=(1, 3), query=5, trials=12)
SEEN = []  # how often the method was called, by the number of rows wanted


@dataclass
class Means:
    """The mean picture of the support of a class, a little brighter by the key."""

    space: ClassVar[str] = "image"
    one_class: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1
    single: bool = False

    @property
    def one_parent(self):
        return self.single

    def fit(self, base, rng):
        return self

    def synthesize(self, support, want, keys):
        SEEN.append(len(want))
        classes = int(want.max()) + 1
        total = torch.zeros(classes, *support.x.shape[1:]).index_add(0, support.y, support.x.float())
        mean = total / torch.bincount(support.y, minlength=classes)[:, None, None, None]
        light = (keys % 20)[:, None, None, None]
        return Examples((mean[want] + light).clamp(max=255).to(torch.uint8), want, want if self.single else None)


@dataclass
class Trained(Means):
    """The same, and it is trained: it keeps what it was handed."""

    trains: ClassVar[bool] = True
    steps: int = 3
    net_: torch.Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, base, rng, val=None, run=None):
        self.net_ = torch.rand(2, generator=rng)
        SEEN.append(("fit", None if val is None else val.classes, run.device))
        if run.folder is not None:
            run.folder.mkdir(parents=True)
            for name in ("log.jsonl", "image-gan.safetensors", "step-1.png"):
                (run.folder / name).write_text("x")
        return self


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    SEEN.clear()
    monkeypatch.setitem(catalog.SYNTHESIZERS, "trained", f"{Trained.__module__}:{Trained.__qualname__}")


@pytest.fixture
def task(toys):
    return Task("toy", toys.pictures(8, 8, 0, "b"), toys.pictures(6, 14, 1, "v"), toys.pictures(6, 14, 2, "n"))


def _trials(bank, n=7, way=3, shot=2):
    """Episodes, the second of which has one real row in its first class."""
    classes = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(i))[:way] for i in range(n)])
    support = torch.stack([torch.stack([bank.rows_of(int(c))[:shot] for c in row]) for row in classes])
    query = torch.stack([torch.stack([bank.rows_of(int(c))[shot : shot + 2] for c in row]) for row in classes])
    support[1, 0, 1] = -1
    target = torch.arange(way).repeat_interleave(2).expand(n, -1)
    return Trials(Stacked(classes, support, query), target, classes.numpy())


def _embed(pictures):
    return torch.stack(list(pictures)).float().flatten(1)


@pytest.mark.parametrize("at_once", [1, 30, 2048])
def test_pictures_are_made_per_episode_and_class(toys, monkeypatch, at_once):
    monkeypatch.setattr(made_rows, "PICTURES_AT_ONCE", at_once)
    bank = toys.pictures(6, 12, 0, "n")
    trials, part = _trials(bank), Means()
    x, weight = from_pictures(part, bank, _embed, 5, seed=9)(20, trials)
    assert weight is None
    assert x.shape == (7, 3, 5, 64)
    assert len(SEEN) == {1: 7, 30: 4, 2048: 1}[at_once]
    keys = made_keys(9, 20, (7, 3, 5))
    for i in range(7):
        for c in range(3):
            rows = trials.rows.support[i, c]
            support = Examples(bank.examples(rows[rows >= 0]).x, torch.zeros(int((rows >= 0).sum()), dtype=torch.int64))
            made = part.synthesize(support, torch.zeros(5, dtype=torch.int64), keys[i, c])
            assert torch.equal(_embed(made.x), x[i, c])


def test_a_method_that_looks_at_the_whole_episode_is_called_for_each(toys):
    bank = toys.pictures(6, 12, 0, "n")
    trials = _trials(bank)

    class Whole(Means):
        one_class: ClassVar[bool] = False

    x = from_pictures(Whole(), bank, _embed, 5, seed=9)(20, trials)[0]
    assert SEEN == [15] * 7
    assert torch.equal(x, from_pictures(Means(), bank, _embed, 5, seed=9)(20, trials)[0])
    later = from_pictures(Whole(), bank, _embed, 5, seed=9)(23, trials.part(3, 7))[0]
    assert torch.equal(later, x[3:])


@pytest.mark.parametrize("single", [False, True])
def test_a_table_has_rows_of_such_methods(toys, task, tmp_path, single):
    recipe = Recipe(toys.Pixels(), Means(single=single), Prototype(), 4)
    results = run(task, [recipe], PLAN, tmp_path)
    rows = [row for row in results.rows if row["synthesizer"] == "Means"]
    assert [row["shot"] for row in rows] == [1, 3]
    assert all(row["accuracy"] > 40 for row in rows)
    again = run(task, [recipe], PLAN, None)
    accuracy = [[row["accuracy"] for row in r.rows] for r in (results, again)]
    assert accuracy[0] == accuracy[1]


def test_views_of_a_preset_are_averaged_on_all_sides_and_told(toys, task):
    """The same as a task of features that were averaged beforehand, bend by bend."""
    options = BankOptions(views="handwriting", n_views=2, precision="float32")
    recipe = Classical(preset="handwriting")

    def averaged(bank):
        x, rows = bank.examples(torch.arange(len(bank))).x, torch.arange(len(bank))
        views = [recipe.apply(x, recipe.draw(chance.row_keys(i, "handwriting", rows))) for i in range(2)]
        return FeatureBank(sum(_embed(v) / 255 for v in (x, *views)) / 3, bank.y, bank.classes)

    plain = Recipe(toys.Pixels(), Nothing(), Prototype(), options=options)
    rows = run(task, [plain], PLAN).rows
    assert [(row["views"], row["normalise"]) for row in rows] == [("handwriting", "none")] * 2
    known = Task("toy", averaged(task.base), None, averaged(task.novel))
    beforehand = run(known, [Recipe(None, Nothing(), Prototype())], PLAN).rows
    assert [row["accuracy"] for row in rows] == pytest.approx([row["accuracy"] for row in beforehand])


def test_a_method_that_trains_is_trained_once_and_kept(toys, task, tmp_path):
    recipe = Recipe(toys.Pixels(), Trained(), Prototype(), 2)
    run(task, [recipe], PLAN, tmp_path)
    fits = [seen for seen in SEEN if isinstance(seen, tuple)]
    assert fits == [("fit", task.val.classes, "cpu")]
    (kept,) = (tmp_path / "fitted").glob("*/training")
    assert sorted(path.name for path in kept.iterdir()) == ["log.jsonl", "step-1.png"]
    (tmp_path / "outcomes").rename(tmp_path / "elsewhere")
    run(task, [recipe], PLAN, tmp_path)
    assert [seen for seen in SEEN if isinstance(seen, tuple)] == fits


def test_a_method_that_trains_never_sees_the_classes_it_is_judged_on(toys, task):
    recipe = Recipe(toys.Pixels(), Trained(), Prototype(), 2)
    run(task, [recipe], replace(PLAN, part="val", shots=(1,)))
    assert [seen for seen in SEEN if isinstance(seen, tuple)] == [("fit", None, "cpu")]


def test_other_validation_classes_are_another_outcome(toys, task):
    other = replace(task, val=take_rows(task.val, torch.arange(42)))
    recipe = Recipe(toys.Pixels(), Trained(), Prototype(), 2)
    digests = [{row["synthesizer"]: row["digest"] for row in run(t, [recipe], replace(PLAN, shots=(1,))).rows}
               for t in (task, other)]  # fmt: skip
    assert {name for name in digests[0] if digests[0][name] != digests[1][name]} == {"trained"}


def test_a_method_that_knows_classes_by_name_has_no_place_in_a_table(toys):
    class Named(Means):
        support_needed: ClassVar[int] = 0

        def named(self, names):
            return self

    with pytest.raises(InputError, match=r"^Named makes pictures of the classes that it was trained on"):
        Recipe(toys.Pixels(), Named(), Prototype(), 2)
