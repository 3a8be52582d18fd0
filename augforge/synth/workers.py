"""Run a function over items in several processes, or threads, and hand the results back in order.

On Linux the processes are forked, so a bank's index is shared and nothing is pickled but items and results. They
die with their parent, also when that is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from augforge.adapters.ray import PROCESSES, RayRunner
from augforge.data.notes import note
from augforge.types import LackError

Item = TypeVar("Item")
Result = TypeVar("Result")
Job = TypeVar("Job")

RunItems = Callable[[Callable[[Any, Any], Any], Any, Iterable[Any], int], Generator[Any, None, None]]  # as `in_order`

_PR_SET_PDEATHSIG = 1  # Linux' prctl: the signal that a process gets when its parent dies
_AHEAD = 3  # items under way for each worker
_work: tuple[Callable[..., Any], Any]  # what this worker process does; set once, by _start


def in_order(
    function: Callable[[Job, Item], Result], job: Job, items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """`function(job, item)` for every item, in order, at most a few items ahead of the one that is taken.

    With one worker everything runs in this process, as it does, with a note, where the system has no semaphores for
    several. An exception of the function is raised here, at its item; a worker that was killed raises LackError.
    """
    pool = None if workers <= 1 else _processes(workers, (function, job, os.getpid()))
    if pool is None:
        for item in items:
            yield function(job, item)
        return
    try:
        yield from _taken(pool, _one, items, _AHEAD * workers)
    except BrokenProcessPool as error:
        raise LackError("a worker process was killed; is there enough memory for fewer --workers?") from error


def _processes(workers: int, work: tuple[Callable[..., Any], Any, int]) -> Executor | None:
    """Worker processes; None where this machine does not let processes share semaphores, as a full /dev/shm."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    try:
        return ProcessPoolExecutor(workers, context, _start, work)
    except (OSError, ImportError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        note(f"--workers {workers}: this machine has no semaphores for several processes ({error}), which lie in "
             "/dev/shm on Linux; the work is done by one")  # fmt: skip
        return None


@contextlib.contextmanager
def run_items_by(engine: str, workers: int) -> Iterator[RunItems]:
    """What runs items, as `in_order` does, on an engine; a cluster that this starts is gone afterwards."""
    if engine == PROCESSES:
        yield in_order
        return
    with RayRunner(engine, workers) as runner:
        yield runner.in_order


def in_order_by_threads(
    function: Callable[[Job, Item], Result], job: Job, items: Iterable[Item], threads: int
) -> Generator[Result, None, None]:
    """As `in_order`, in threads of this process: for a job on a device, around which pictures are read and written.

    A process for each worker would hold the networks, and the device's own memory, once for each of them.
    """
    yield from _taken(ThreadPoolExecutor(max(1, threads)), lambda item: function(job, item), items, threads + 1)


def _taken(
    pool: Executor, call: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Generator[Result, None, None]:
    """`call(item)` for every item, in order, with at most `most` under way; the pool is shut down at the end."""
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            with _interrupts_wait():  # one in the midst of starting a process leaves locks that nobody opens
                under_way.append(pool.submit(call, item))
            if len(under_way) >= most:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_wait() -> Generator[None, None, None]:
    """A Ctrl-C that comes meanwhile counts afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(function: Callable[..., Any], job: Any, parent: int) -> None:
    """The start of a worker: one thread each, no reaction to Ctrl-C (the parent's affair), and die with the parent."""
    global _work
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    _work = function, job


def _one(item: Any) -> Any:
    function, job = _work
    return function(job, item)
