import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from augforge.adapters.loader import Augmented
from augforge.episodes.sampler import EpisodeSampler
from augforge.generators.copies import Copies
from augforge.types import InputError

LABELS = [7, 3, 11, 5] * 6
FORM = {"n_way": 3, "n_shot": 2, "n_query": 1, "n_tasks": 5}


class Pictures(Dataset):
    def __init__(self):
        self.targets = LABELS

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, row):
        return torch.full((1, 2, 2), float(row)), LABELS[row]


def _loader(workers=0, sampler=None):
    sampler = EpisodeSampler(Pictures(), **FORM) if sampler is None else sampler
    return DataLoader(Pictures(), batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn, num_workers=workers)


def test_batches_are_class_after_class():
    sampler = EpisodeSampler(LABELS, **FORM)
    assert len(sampler) == 5
    for rows in sampler:
        assert len(set(rows)) == 9
        of_class = [{LABELS[row] for row in rows[i : i + 3]} for i in (0, 3, 6)]
        assert all(len(labels) == 1 for labels in of_class)
        assert len(set.union(*of_class)) == 3


def test_each_epoch_is_new_and_can_be_repeated():
    sampler = EpisodeSampler(LABELS, **FORM, seed=2)
    first, second = list(sampler), list(sampler)
    assert not any(rows in second for rows in first)
    again = EpisodeSampler(LABELS, **FORM, seed=2)
    assert [list(again), list(again)] == [first, second]
    sampler.set_epoch(1)
    assert list(sampler) == second
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(EpisodeSampler(LABELS, **FORM, seed=3)) != first


def test_an_epoch_that_was_broken_off_is_over():
    sampler, other = (EpisodeSampler(LABELS, **FORM) for _ in range(2))
    next(iter(sampler))
    list(other)
    assert list(sampler) == list(other)


def test_long_epochs_are_drawn_in_pieces_all_the_same():
    long, short = (EpisodeSampler(LABELS, **(FORM | {"n_tasks": n})) for n in (150, 50))
    assert list(long) == [rows for _ in range(3) for rows in short]


def _everything(loader):
    return [(i, float(p[0, 0]), int(label)) for i, batch in enumerate(loader) for p, label in _pairs(batch)]


def _pairs(batch):
    support_images, support_labels, query_images, query_labels, class_ids = batch
    images = torch.cat([support_images, query_images])[:, 0]
    return zip(images, [class_ids[i] for i in torch.cat([support_labels, query_labels]).tolist()], strict=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_support_and_query(workers):
    loader = _loader(workers)
    batches = list(loader)
    assert len(batches) == 5
    for support_images, support_labels, query_images, query_labels, class_ids in batches:
        assert support_images.shape == (6, 1, 2, 2)
        assert query_images.shape == (3, 1, 2, 2)
        assert support_labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert query_labels.tolist() == [0, 1, 2]
        for picture, label in _pairs((support_images, support_labels, query_images, query_labels, class_ids)):
            assert LABELS[int(picture[0, 0])] == label
    assert _everything(loader) == _everything_of_epoch(1)


def _everything_of_epoch(epoch):
    sampler = EpisodeSampler(LABELS, **FORM)
    sampler.set_epoch(epoch)
    return _everything(_loader(0, sampler))


class _WithMethod:
    def get_labels(self):
        return LABELS


@pytest.mark.parametrize(
    "given",
    [
        LABELS,
        tuple(LABELS),
        np.array(LABELS),
        torch.tensor(LABELS),
        torch.tensor(LABELS) - 9,
        Pictures(),
        _WithMethod(),
    ],
)
def test_labels_are_found_in_what_people_have(given):
    assert list(EpisodeSampler(given, **FORM)) == list(EpisodeSampler(LABELS, **FORM))


def _items():
    return TensorDataset(torch.arange(len(LABELS), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2),
                         torch.tensor(LABELS))  # fmt: skip


class _HuggingFace(Dataset):
    """A stand-in with the names that `datasets.Dataset` has."""

    column_names = ("image", "label")

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, row):
        return LABELS if row == "label" else {"image": Pictures()[row][0], "label": LABELS[row]}


@pytest.mark.parametrize("kind", ["tensors", "joined", "augmented", "subset", "hugging face", "names", "objects"])
def test_datasets_of_torch_tell_their_labels_and_give_episodes(kind):
    given, labels = {
        "tensors": (_items(), LABELS),
        "joined": (ConcatDataset([_items(), _items()]), LABELS * 2),
        "augmented": (Augmented(_items(), Copies()), LABELS),
        "subset": (Subset(Augmented(_items(), Copies()), range(20, -1, -1)), LABELS[20::-1]),
        "hugging face": (_HuggingFace(), LABELS),
        "names": ([f"class {label:02d}" for label in LABELS], LABELS),
        "objects": (np.array([f"class {label:02d}" for label in LABELS], dtype=object), LABELS),
    }[kind]
    sampler = EpisodeSampler(given, **FORM)
    assert list(EpisodeSampler(given, **FORM)) == list(EpisodeSampler(labels, **FORM))
    if isinstance(given, Dataset):
        batch = next(iter(DataLoader(given, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)))
        assert [LABELS[int(picture[0, 0])] for picture in batch[0][:, 0]] == [batch[4][i] for i in batch[1].tolist()]


def test_labels_that_are_names_stay_names():
    sampler = EpisodeSampler([f"class {label}" for label in LABELS], **FORM)
    rows = next(iter(sampler))
    ids = sampler.episodic_collate_fn([(torch.zeros(1, 2, 2), f"class {LABELS[row]}") for row in rows])[4]
    assert ids == [f"class {LABELS[rows[i]]}" for i in (0, 3, 6)]


@pytest.mark.parametrize("seed", [None, float("nan"), 1.5, "x", 2**64, -(2**63) - 1, True, [1]])
def test_seeds_that_are_no_whole_numbers_are_refused_at_once(seed):
    with pytest.raises(InputError, match="expected a whole number of 64 bits"):
        EpisodeSampler(LABELS, **FORM, seed=seed)


@pytest.mark.parametrize("given", [["a", None], [0.5, 1.0], [[1, 2]], object(), [[1], [1, 2]], 3])
def test_what_has_no_labels_is_refused(given):
    with pytest.raises(InputError, match="does not tell the labels of its rows"):
        EpisodeSampler(given, **FORM)


@pytest.mark.parametrize("change", [{"n_way": 5}, {"n_shot": 6}, {"n_shot": 0}, {"n_tasks": 0}])
def test_impossible_episodes_are_refused_at_once(change):
    with pytest.raises(InputError):
        EpisodeSampler(LABELS, **(FORM | change))


def test_a_batch_that_is_no_episode_is_refused():
    sampler = EpisodeSampler(LABELS, **FORM)
    batch = [Pictures()[row] for row in range(9)]
    with pytest.raises(InputError, match="no episode of 3 classes"):
        sampler.episodic_collate_fn(batch)
    with pytest.raises(InputError, match="a batch of 4 rows"):
        sampler.episodic_collate_fn(batch[:4])
    rows = next(iter(sampler))
    sizes = [(torch.zeros(1, 2, 2 + (i == 4)), LABELS[row]) for i, row in enumerate(rows)]
    with pytest.raises(InputError, match="differ in size"):
        sampler.episodic_collate_fn(sizes)
