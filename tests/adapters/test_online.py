"""Made rows in a training loop: which rows, what they weigh, and that a loop goes on where it stopped."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from augforge.adapters.online import Batch, Online, ramp
from augforge.data.banks import FeatureBank
from augforge.generators.classical import Classical
from augforge.imagine import usual_share
from augforge.parts import catalog
from augforge.types import Examples, InputError

ONE = torch.Generator().manual_seed(0)
X = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=ONE)
Y = torch.arange(60) % 5
ROTATE = Classical(rotate=(20.0, 40.0))
NOISE = catalog.make("noise").fit(
    FeatureBank(torch.randn(80, 12, generator=ONE), torch.arange(80) % 8, tuple("abcdefgh")), ONE
)
FEATURES = Examples(torch.randn(15, 12, generator=ONE) + 5, torch.arange(15) % 3)


class Stream(IterableDataset):
    """The rows one after the other, with no length."""

    def __iter__(self):
        """The rows."""
        return iter(zip(X, Y, strict=True))


def _loader(size=20):
    return DataLoader(TensorDataset(X, Y), batch_size=size)


def _changed(batch, real):
    return (batch.x != real).flatten(1).any(1)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_each_batch_is_made_and_keeps_its_labels(share):
    online = Online(_loader(), ROTATE, share)
    assert len(online) == 3
    for batch, real, labels in zip(online, X.split(20), Y.split(20), strict=True):
        assert int(_changed(batch, real).sum()) == round(share * 20)
        assert torch.equal(batch.y, labels)
        assert torch.equal(batch.weight, torch.ones(20))
        assert batch.x.dtype == torch.uint8


def test_a_made_row_is_made_of_the_row_that_it_replaces():
    flat = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 1, 8, 8).contiguous()
    (batch,) = Online([(flat, torch.arange(20))], Classical(rotate=30.0, padding="edge"), 1.0)
    assert torch.equal(batch.x, flat)  # a picture of one grey level stays what it is, whatever its angle


def test_every_step_makes_others_and_a_second_loop_the_same():
    def epochs(online):
        return [batch.x for _ in range(2) for batch in online]

    once, again = (epochs(Online(_loader(), ROTATE, 0.5, seed=3)) for _ in range(2))
    assert all(map(torch.equal, once, again))
    assert not torch.equal(once[0], once[3])  # the second epoch
    assert not torch.equal(once[0], epochs(Online(_loader(), ROTATE, 0.5, seed=4))[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_iterable_datasets_and_generators_are_wrapped_too(workers):
    stream = Online(DataLoader(Stream(), batch_size=20, num_workers=min(workers, 1)), ROTATE, 0.5)
    mapped = Online(DataLoader(TensorDataset(X, Y), batch_size=20, num_workers=workers), ROTATE, 0.5)
    for one, other in zip(stream, mapped, strict=True):
        assert torch.equal(one.x, other.x)
    with pytest.raises(TypeError, match="has no length"):
        len(Online((pair for pair in _loader()), ROTATE))


def test_dictionaries_are_batches():
    (batch,) = Online([{"image": X[:8], "label": Y[:8]}], ROTATE, 0.5)
    assert isinstance(batch, Batch)
    assert int(_changed(batch, X[:8]).sum()) == 4


def test_schedules_move_share_and_weight_with_the_steps():
    online = Online(_loader(10), ROTATE, ramp(0.0, 1.0, 5), ramp(1.0, 0.5, 5))
    for step, (batch, real) in enumerate(zip(online, X.split(10), strict=True)):
        made = _changed(batch, real)
        assert int(made.sum()) == 2 * min(step, 5)
        assert torch.allclose(batch.weight, 1 - 0.1 * min(step, 5) * made)


def test_appended_rows_come_behind_the_real_ones():
    batch = next(iter(Online(_loader(10), ROTATE, 2.5, 0.3, append=True)))
    assert torch.equal(batch.x[:10], X[:10])
    assert torch.equal(batch.y[:10], Y[:10])
    assert len(batch.x) == len(batch.y) == 35
    assert torch.equal(torch.bincount(batch.y[10:20], minlength=5), torch.bincount(Y[:10], minlength=5))
    assert torch.allclose(batch.weight[10:], torch.tensor(0.3))


def test_rows_of_a_support_take_turns_by_class():
    online = Online([(torch.zeros(16, 12), torch.full((16,), 7))] * 9, NOISE, 0.5, support=FEATURES)
    counts = torch.zeros(8, dtype=torch.int64)
    for batch in online:
        made = (batch.x != 0).any(1)
        assert int(made.sum()) == 8
        assert torch.equal(batch.y[~made], torch.full((8,), 7))
        counts += torch.bincount(batch.y[made], minlength=8)
        expected = (usual_share("discriminative", torch.tensor(5))).clamp(max=1)  # as many made rows as real ones
        assert torch.allclose(batch.weight[made], expected)
    assert counts.tolist() == [24, 24, 24, 0, 0, 0, 0, 0]


def test_made_rows_do_not_depend_on_how_many_a_step_takes(monkeypatch):
    import augforge.adapters.online as module

    def rows(share, steps):
        online = Online([(torch.zeros(20, 12), torch.zeros(20, dtype=torch.int64))] * steps, NOISE, share,
                        support=FEATURES, append=True)  # fmt: skip
        return torch.cat([batch.x[20:] for batch in online])

    few = rows(0.15, 20)
    assert torch.equal(few, rows(3.0, 1))
    monkeypatch.setattr(module, "_FIRST_FEATURES", 7)
    assert torch.equal(few, rows(0.15, 20))


def test_a_loop_goes_on_from_its_state():
    def online():
        return Online([(torch.zeros(20, 12), torch.zeros(20, dtype=torch.int64))] * 6, NOISE, 0.35, support=FEATURES)

    whole = list(online())
    first = online()
    list(itertools.islice(first, 4))
    second = online()
    second.load_state_dict(first.state_dict())
    for batch, expected in zip(itertools.islice(second, 2), whole[4:], strict=True):
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.y, expected.y)


@pytest.mark.filterwarnings("ignore")  # Lightning has its own about torch and about workers
def test_lightning_trains_on_it():
    lightning = pytest.importorskip("lightning.pytorch")

    class Model(lightning.LightningModule):
        """A linear layer."""

        def __init__(self):
            super().__init__()
            self.net, self.seen = torch.nn.Linear(3 * 16 * 16, 5), []

        def training_step(self, batch, _):
            """The weighted loss of a batch."""
            self.seen.append(len(batch.x))
            scores = self.net(batch.x.flatten(1).float() / 255)
            return (torch.nn.functional.cross_entropy(scores, batch.y, reduction="none") * batch.weight).mean()

        def configure_optimizers(self):
            """Gradient descent."""
            return torch.optim.SGD(self.parameters(), 0.01)

    model = Model()
    before = model.net.weight.detach().clone()
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(model, Online(_loader(), ROTATE, 0.5))
    assert model.seen == [20] * 6
    assert not torch.equal(model.net.weight, before)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Online([], catalog.make("mixing")), "give it a support"),
        (lambda: Online([], ROTATE, support=FEATURES), "makes images, and these rows are features"),
        (lambda: Online([], ROTATE, seed=1.5), "seed=1.5"),
        (lambda: list(Online([3], ROTATE)), "not a pair"),
        (lambda: list(Online([(X, Y[:3])], ROTATE)), "batch 0 is a pair"),
        (lambda: list(Online([(X, Y)], ROTATE, 1.5)), "share=1.5 at step 0; expected 0 to 1"),
        (lambda: list(Online([(X, Y)], ROTATE, 0.5, float("nan"))), "weight=nan at step 0"),
        (lambda: list(Online([(X.float(), Y)], ROTATE)), "augment before Normalize"),
        (lambda: list(Online([(X, Y)], NOISE, support=FEATURES)), "expected rows of one shape"),
        (lambda: ramp(0, 1, 0), "steps=0"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
