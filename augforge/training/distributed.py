"""Several processes that train one network together, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


def asked_for() -> int:
    """How many processes were started to work together: what torchrun says in WORLD_SIZE, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return asked_for() == 1 or os.environ["RANK"] == "0"


def device_of_process(device: str) -> str:
    """The device of this process: with several of them on CUDA each has its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if asked_for() > 1 and device == "cuda" else device


@contextmanager
def joined(device: str) -> Iterator[bool]:
    """Join the processes that torchrun started, over NCCL on CUDA and Gloo elsewhere, and part at the end.

    Gives whether this process is the first one, which alone writes files. One process, or a group that exists already,
    is left as it is.
    """
    if asked_for() == 1 or dist.is_initialized():
        yield not dist.is_initialized() or dist.get_rank() == 0
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield dist.get_rank() == 0
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()
