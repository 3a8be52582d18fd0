"""Episodes for a torch DataLoader: a batch sampler, and the function that sorts its batches into support and query.

sampler = EpisodeSampler(dataset, n_way=5, n_shot=1, n_query=15, n_tasks=100)
loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn, num_workers=2)
for support_images, support_labels, query_images, query_labels, class_ids in loader: ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Sampler

from augforge.data.items import label_column, pair_of
from augforge.episodes import draw_episodes
from augforge.types import InputError, whole_seed

_AT_ONCE = 64  # episodes drawn ahead of the loop

EpisodeBatch = tuple[Tensor, Tensor, Tensor, Tensor, list[Any]]


class EpisodeSampler(Sampler[list[int]]):
    """Gives the rows of an episode at a time: n_way * (n_shot + n_query) of them, class after class, support first.

    `dataset_or_labels` is the label of each row - a sequence, array or tensor [n] of whole numbers or strings - or a
    dataset that tells them: a bank's `y`, `get_labels()`, `targets`, `labels` or a column "label"; also torch's Subset,
    ConcatDataset and TensorDataset, and `Augmented`, of such. Its items are never read. A class with fewer than
    n_shot + n_query rows is never drawn.

    Episode i of epoch e is a pure function of (labels, form, seed, e * n_tasks + i), the same for any number of
    workers. Every pass over the sampler is the next epoch, with new episodes, and a new sampler begins with epoch 0;
    `set_epoch` names the next one, so a resumed run goes on where it was, and a validation loop that calls
    `set_epoch(0)` sees the same episodes each time.
    """

    def __init__(
        self, dataset_or_labels: Any, n_way: int, n_shot: int, n_query: int, n_tasks: int, seed: int = 0
    ) -> None:
        """Raise InputError where no labels are found, fewer than n_way classes have enough rows, or for a seed that is
        no whole number of 64 bits.
        """
        self.labels = _labels(dataset_or_labels)
        self.n_way, self.n_shot, self.n_query, self.n_tasks = n_way, n_shot, n_query, n_tasks
        self.seed, self.epoch = whole_seed(seed), 0
        if n_tasks < 1:
            raise InputError(f"n_tasks={n_tasks} was given; expected at least 1")
        self._draw(0, 1)

    def __len__(self) -> int:
        """How many episodes an epoch has."""
        return self.n_tasks

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of each episode of the next epoch."""
        first = self.epoch * self.n_tasks
        self.epoch += 1
        for start in range(0, self.n_tasks, _AT_ONCE):
            yield from self._draw(first + start, min(_AT_ONCE, self.n_tasks - start))

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass epoch number `epoch`, from 0."""
        self.epoch = epoch

    def _draw(self, start: int, count: int) -> list[list[int]]:
        episodes = draw_episodes(
            self.labels,
            way=self.n_way,
            shot=self.n_shot,
            n_query=self.n_query,
            trials=count,
            seed=self.seed,
            start=start,
        )
        return [torch.cat([e.support, e.query], 1).flatten().tolist() for e in episodes]  # [way, shot + q] -> rows

    def episodic_collate_fn(self, batch: Sequence[Any]) -> EpisodeBatch:
        """A batch of (image [c, h, w], label), or of dictionaries of these, in the sampler's order, as easyfsl's users
        know it.

        Returns (support_images [n_way * n_shot, c, h, w], support_labels [n_way * n_shot], query_images
        [n_way * n_query, c, h, w], query_labels [n_way * n_query], class_ids): labels are 0..n_way-1 and class_ids
        [n_way] are the dataset's own. Raises InputError where images differ in size or the batch is no episode.
        """
        each = self.n_shot + self.n_query
        pairs = [pair_of(item) for item in batch]
        labels = [label if isinstance(label, str) else int(label) for _, label in pairs]
        if len(labels) != self.n_way * each or any(labels[i] != labels[i - i % each] for i in range(len(labels))):
            raise InputError(
                f"a batch of {len(labels)} rows is no episode of {self.n_way} classes with {each} rows each; was this "
                "sampler the loader's batch_sampler?"
            )
        pictures = [torch.as_tensor(image) for image, _ in pairs]
        if len({(p.shape, p.dtype) for p in pictures}) > 1:
            raise InputError(
                "the images of an episode differ in size or type; expected a transform that makes them alike"
            )
        images = rearrange(torch.stack(pictures), "(way each) ... -> way each ...", each=each)
        positions = torch.arange(self.n_way)
        return (
            rearrange(images[:, : self.n_shot], "way shot ... -> (way shot) ..."),
            positions.repeat_interleave(self.n_shot),
            rearrange(images[:, self.n_shot :], "way q ... -> (way q) ..."),
            positions.repeat_interleave(self.n_query),
            labels[::each],
        )


def _labels(given: Any) -> Tensor:
    """The label of each row, renumbered 0..k-1: [n] int64."""
    return torch.from_numpy(np.unique(label_column(given), return_inverse=True)[1].astype(np.int64))
