"""Several processes that train one network together, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


def process_count() -> int:
    """How many processes were started to work together: what torchrun says in WORLD_SIZE, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return process_count() == 1 or os.environ["RANK"] == "0"


def device_of_process(device: str) -> str:
    """The device of this process: of several processes on CUDA each has its own, whatever number was given."""
    several = process_count() > 1 and torch.device(device).type == "cuda"
    return f"cuda:{os.environ['LOCAL_RANK']}" if several else device


@contextmanager
def process_group(device: str) -> Iterator[bool]:
    """Join the processes that torchrun started, over NCCL on CUDA and Gloo elsewhere, and leave them at the end.

    Gives whether this process is the first one, which alone writes files. One process, or a group that exists already,
    is left as it is.
    """
    if process_count() == 1 or dist.is_initialized():
        yield rank_and_world()[0] == 0
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(torch.device(device))  # NCCL would else talk through device 0 in every process
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield dist.get_rank() == 0
    finally:
        dist.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """The number of this process in its group, and how many there are: (0, 1) without a group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def wait() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def from_first(value: float, device: str) -> float:
    """The first process's value, so that all decide alike; the value itself without a group."""
    if rank_and_world()[1] == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


def average_(x: Tensor) -> None:
    """Put the mean over all processes in place of each one's tensor."""
    world = rank_and_world()[1]
    if world > 1:
        dist.all_reduce(x)
        x /= world


def average_gradients_(net: nn.Module) -> None:
    """Put the mean over all processes in place of each one's gradients of a network."""
    if rank_and_world()[1] == 1:
        return
    slopes = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([slope.flatten() for slope in slopes])
    average_(flat)
    for slope, mean in zip(slopes, flat.split([slope.numel() for slope in slopes]), strict=True):
        slope.copy_(mean.view_as(slope))
