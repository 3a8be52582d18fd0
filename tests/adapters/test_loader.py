import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from augforge.adapters.loader import AugmentBatch, Augmented, Keyed
from augforge.generators.albumentations import AlbumentationsCompose, _albumentations
from augforge.generators.classical import Classical
from augforge.generators.copies import Copies
from augforge.generators.noise import Noise
from augforge.generators.nothing import Nothing
from augforge.types import Examples, InputError

N = 12
PICTURES = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
LABELS = torch.arange(N)
RECIPE = Classical(preset="strong", jpeg=0.0)


def _dataset():
    return TensorDataset(PICTURES, LABELS)


def _epochs(dataset, count=2, **loader):
    """Per epoch the pictures by label, and the order of the labels."""
    generator = torch.Generator().manual_seed(3)
    made = []
    loader = DataLoader(dataset, batch_size=5, shuffle=True, generator=generator, **loader)
    for _ in range(count):
        batches = list(loader)
        labels = torch.cat([y for _, y in batches])
        pictures = torch.cat([x for x, _ in batches])
        assert sorted(labels.tolist()) == list(range(N))
        made.append((pictures[labels.argsort()], labels))
    return made


@pytest.fixture(scope="module")
def expected():
    return _epochs(Augmented(_dataset(), RECIPE, seed=1))


def test_every_epoch_is_new_and_pictures_are_those_of_one_call(expected):
    (first, order), (second, other_order) = expected
    assert not torch.equal(order, other_order)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    keyed = Keyed(_dataset(), seed=1)
    for epoch in (first, second):
        keys = torch.stack([keyed[i].key for i in range(N)])
        assert torch.equal(epoch, RECIPE.synthesize(Examples(PICTURES, LABELS), LABELS, keys).x)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers, persistent, expected):
    loader = {"num_workers": workers, "persistent_workers": persistent}
    for dataset, collate in (
        (Augmented(_dataset(), RECIPE, seed=1), None),
        (Keyed(_dataset(), seed=1), AugmentBatch(RECIPE)),
    ):
        made = _epochs(dataset, **loader, collate_fn=collate)
        for (pictures, order), (expected_pictures, expected_order) in zip(made, expected, strict=True):
            assert torch.equal(pictures, expected_pictures)
            if not persistent:  # with persistent workers torch itself shuffles otherwise
                assert torch.equal(order, expected_order)


def test_spawned_workers_count_in_the_same_memory(expected):
    spawned = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "spawn"}
    made = _epochs(Augmented(_dataset(), RECIPE, seed=1), **spawned)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(made, expected, strict=True))


def test_workers_never_repeat_each_other_with_albumentations():
    library = _albumentations()
    part = AlbumentationsCompose.of(library.Compose([library.GaussNoise(p=1)]))
    same = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8).expand(N, -1, -1, -1)
    loader = DataLoader(Augmented(TensorDataset(same, LABELS), part), batch_size=3, num_workers=2)
    made = torch.cat([x for _ in range(2) for x, _ in loader])
    assert len(torch.unique(made.flatten(1), dim=0)) == 2 * N


@pytest.mark.parametrize("part", [RECIPE, Copies(), Noise()])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_both_ways_give_the_same(part, dtype):
    pictures = PICTURES if dtype == torch.uint8 else PICTURES / 255
    dataset = TensorDataset(pictures, LABELS)
    one, other = Augmented(dataset, part), DataLoader(Keyed(dataset), batch_size=4, collate_fn=AugmentBatch(part))
    x, y = (torch.cat(column) for column in zip(*other, strict=True))
    assert x.dtype == dtype
    assert torch.equal(y, LABELS)
    assert torch.equal(torch.stack([one[i][0] for i in range(N)]), x)


def test_seeds_differ_and_epochs_can_be_set():
    one, other = Augmented(_dataset(), RECIPE, seed=1), Augmented(_dataset(), RECIPE, seed=2)
    assert not torch.equal(one[0][0], other[0][0])
    visits = [one[0][0] for _ in range(3)]  # visits 1, 2 and 3
    assert len({picture.numpy().tobytes() for picture in visits}) == 3
    one.set_epoch(2)
    assert torch.equal(one[0][0], visits[1])
    assert torch.equal(one[-N][0], visits[2])
    assert not torch.equal(one.keyed[0].key, one.keyed[1].key)


def test_an_epoch_can_be_set_after_one_that_was_broken_off(expected):
    dataset = Augmented(_dataset(), RECIPE, seed=1)
    loader = DataLoader(dataset, batch_size=2, num_workers=2)
    for _ in loader:
        break
    dataset.set_epoch(1)
    assert torch.equal(torch.cat([x for x, _ in loader]), expected[1][0])


def test_an_epoch_set_between_epochs_reaches_persistent_workers(expected):
    dataset = Augmented(_dataset(), RECIPE, seed=1)
    loader = DataLoader(dataset, batch_size=5, num_workers=2, persistent_workers=True)
    for _ in range(3):
        dataset.set_epoch(1)
        assert torch.equal(torch.cat([x for x, _ in loader]), expected[1][0])


def test_rows_that_a_sampler_repeats_in_a_batch_differ():
    dataset = Augmented(_dataset(), RECIPE)
    batch = next(iter(DataLoader(dataset, batch_size=6, sampler=[2] * 6)))[0]
    assert len(torch.unique(batch.flatten(1), dim=0)) == 6


class _One:
    def __init__(self, picture, label=0):
        self.item = (picture, label)

    def __len__(self):
        return 1

    def __getitem__(self, row):
        return self.item


GREY = np.arange(30, dtype=np.uint8).reshape(5, 6)
COLOUR = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)


@pytest.mark.parametrize(
    ("picture", "expected_picture"),
    [
        (GREY, GREY[None]),
        (GREY[..., None], GREY[None]),
        (COLOUR, COLOUR.transpose(2, 0, 1)),
        (torch.from_numpy(GREY), GREY[None]),
        (torch.from_numpy(GREY)[None] / 255, GREY[None] / np.float32(255)),
        (Image.fromarray(GREY), GREY[None]),
        (Image.fromarray(COLOUR), COLOUR.transpose(2, 0, 1)),
        (Image.new("RGBA", (6, 5), (9, 9, 9, 0)), np.full((3, 5, 6), 255, np.uint8)),
        (Image.new("P", (6, 5)), np.zeros((3, 5, 6), np.uint8)),
    ],
)
def test_kinds_of_pictures(picture, expected_picture):
    made, label = Augmented(_One(picture, "a label"), Copies())[0]
    assert label == "a label"
    assert np.array_equal(made.numpy(), expected_picture)


def test_pictures_of_negative_strides_are_taken():
    made = Augmented(_One(COLOUR[:, :, ::-1]), Copies())[0][0]
    assert np.array_equal(made.numpy(), COLOUR[:, :, ::-1].transpose(2, 0, 1))
    assert Augmented(_One(GREY[::-1, ::-1]), RECIPE)[0][0].shape == (1, 5, 6)


@pytest.mark.parametrize("keys", ["image label", "img fine_label", "label image", "id image label"])
def test_items_of_hugging_face_are_dictionaries(keys):
    item = {key: {"image": COLOUR, "img": COLOUR, "id": 5}.get(key, 3) for key in keys.split()}
    made, label = Augmented([item], Copies())[0]
    assert (label, made.shape) == (3, (3, 5, 6))


def test_a_dictionary_without_a_picture_is_refused_by_its_keys():
    with pytest.raises(InputError, match="row 0 of the dataset is a dictionary with 'text', 'label', not a pair"):
        Augmented([{"text": "a", "label": 1}], Copies())[0]


@pytest.mark.parametrize("part", [RECIPE, Copies(), Noise()])
@pytest.mark.parametrize("value", [-2.1, 2.6, -0.01, 1.01, float("nan"), float("inf")])
def test_normalised_floats_are_refused_with_what_to_do(part, value):
    picture = torch.full((3, 8, 8), 0.5)
    picture[1, 2, 3] = value
    pictures = [(torch.zeros(3, 8, 8), 0), (picture, 1)]
    with pytest.raises(InputError, match=r"row 1 of the dataset holds floats from .*; expected 0 to 1: augment before"):
        list(DataLoader(Augmented(pictures, part), batch_size=2))
    with pytest.raises(InputError, match="row 1 of the dataset"):
        list(DataLoader(Keyed(pictures), batch_size=2, collate_fn=AugmentBatch(part)))


@pytest.mark.parametrize("part", [RECIPE, Classical(engine="tensor"), Noise(), AlbumentationsCompose])
def test_normalised_floats_are_refused_by_the_parts_too(part):
    if part is AlbumentationsCompose:
        library = _albumentations()
        part = AlbumentationsCompose.of(library.Compose([library.GaussNoise(p=1)]))
    x = torch.rand(3, 3, 8, 8) * 0.9
    x[2, 0, 0, 0] = -1.5
    for support in (x, list(x)):
        with pytest.raises(InputError, match=r"picture 2 of the support holds floats from -1.5 to 0.[89]"):
            part.synthesize(Examples(support, torch.zeros(3, dtype=torch.int64)), torch.zeros(1, dtype=torch.int64),
                            torch.zeros(1, dtype=torch.int64))  # fmt: skip


def test_floats_that_interpolation_left_a_trace_beyond_the_ends_are_taken():
    assert Augmented([(torch.tensor([[[1.0005, -0.0005]]]), 0)], RECIPE)[0][0].shape == (1, 1, 2)


@pytest.mark.parametrize("seed", [None, float("nan"), 1.5, "x", 2**64, -(2**63) - 1, True])
def test_seeds_that_are_no_whole_numbers_are_refused_at_once(seed):
    for make in (lambda: Augmented(_dataset(), RECIPE, seed=seed), lambda: Keyed(_dataset(), seed)):
        with pytest.raises(InputError, match="expected a whole number of 64 bits"):
            make()
    assert Keyed(_dataset(), np.int64(3)).seed == 3


def test_a_read_only_array_is_copied():
    array = GREY.copy()
    array.flags.writeable = False
    assert Augmented(_One(array), Copies())[0][0].shape == (1, 5, 6)


@pytest.mark.parametrize(
    "picture", [GREY / 255, torch.zeros(5, 6, 4), torch.zeros(5), "cat.png", Image.new("F", (2, 2))]
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(InputError, match="row 0 of the dataset holds"):
        Augmented(_One(picture), Copies())[0]


def test_what_is_no_pair_is_refused():
    with pytest.raises(InputError, match="not a pair"):
        Augmented([3], Copies())[0]
    with pytest.raises(IndexError):
        Augmented(_dataset(), Copies())[N]


def test_pictures_of_differing_sizes_come_as_a_list():
    sizes = [(8, 8), (6, 9), (8, 8)]
    pictures = [(torch.zeros(3, *size, dtype=torch.uint8), i) for i, size in enumerate(sizes)]
    x, y = next(iter(DataLoader(Keyed(pictures), batch_size=3, collate_fn=AugmentBatch(RECIPE))))
    assert [tuple(picture.shape) for picture in x] == [(3, *size) for size in sizes]
    assert torch.equal(y, torch.arange(3))
    one = Augmented(pictures, RECIPE)
    assert all(torch.equal(one[i][0], x[i]) for i in range(3))


def test_only_pictures_of_one_parent_can_be_made():
    with pytest.raises(InputError, match="Nothing cannot augment"):
        Augmented(_dataset(), Nothing())
    with pytest.raises(InputError, match="Nothing cannot augment"):
        AugmentBatch(Nothing())
