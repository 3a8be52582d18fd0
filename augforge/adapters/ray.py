"""Run a function over items on Ray (Moritz et al. 2018, https://ray.io): on the cores of this machine, or on a cluster.

An item is a pure function of the job and its number, so that a worker that is killed costs its items and nothing else.
Nothing but items and results, which are small, goes through Ray's object store; the job goes there once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from augforge.machine import cores, version_of, versions
from augforge.types import InputError, LackError

Item = TypeVar("Item")
Result = TypeVar("Result")
Job = TypeVar("Job")

PROCESSES = "processes"  # the engine that is not Ray
_UNDER_WAY = 3  # items for each core that are begun and not done
_AHEAD = 2  # times so many are done or begun before the first of them is taken: one may take long
_RETRIES = 3  # of an item whose worker was killed
_STORE = 256 << 20  # bytes of shared memory for objects, on this machine; what is larger goes to its disk
_LOOK = 10.0  # seconds between two looks at how many cores a cluster has
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1",
                "RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(_RETRIES)}  # fmt: skip
_TOKENS = "RAY_AUTH_MODE"  # a cluster that Ray starts asks for a token, which lies in the home folder
_work: tuple[str, Callable[..., Any], Any] | None = None  # in a worker: the key of its job, and what it does


def check_engine(engine: str) -> None:
    """Raise InputError for what is no engine, and LackError where it is Ray and Ray is not installed."""
    if engine == PROCESSES:
        return
    if not re.fullmatch(r"ray|ray:auto|ray:(//)?[^/:]+:\d{1,5}", engine):
        raise InputError(f"--engine {engine!r:.60} was given; expected processes, ray, ray:auto, ray:HOST:PORT or "
                         "ray://HOST:PORT")  # fmt: skip
    if importlib.util.find_spec("ray") is None:
        raise LackError(f"--engine {engine} needs the package ray: pip install 'augforge[ray]'")


class RayRunner:
    """Where items run; used in a `with`, at whose end a cluster that was started here is gone.

    `engine` is "ray" for a cluster of `workers` cores on this machine alone (0: all of them), "ray:ADDRESS" to join one
    that this machine belongs to ("auto", or the HOST:PORT of its head), or "ray://HOST:PORT" for Ray's client. On a
    cluster that was joined, `workers` is how many items are under way at most (0: three for each core). Where this
    process is connected to Ray already, that connection is used, and kept. Nothing starts before the first item.
    """

    def __init__(self, engine: str, workers: int = 0) -> None:
        check_engine(engine)
        self.engine, self.workers = engine, workers
        self._ends = contextlib.ExitStack()
        self._connected = self._own = False

    def __enter__(self) -> RayRunner:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the cluster, and end it if it was started here."""
        self._ends.close()

    def in_order(
        self, function: Callable[[Job, Item], Result], job: Job, items: Iterable[Item], workers: int = 0
    ) -> Generator[Result, None, None]:
        """`function(job, item)` for every item, in order, at most a few items ahead of the one that is taken.

        An exception of the function is raised here, at its item. An item whose worker was killed runs again, three
        times at most; LackError after that, for a cluster that cannot be used and for machines with other packages.
        `workers` is there to be called as others are: how many is the cluster's affair.
        """
        numbered, taken = enumerate(items), 0
        waiting = next(numbered, None)
        if waiting is None:
            return
        self._connect()
        import ray

        call = ray.remote(_one).options(num_cpus=1, max_retries=_RETRIES, name="augforge")
        key, shared = uuid.uuid4().hex, [ray.put((function, job, _packages()))]  # in a list: sent as a reference
        under_way: dict[Any, int] = {}
        done: dict[int, tuple[Any, BaseException | None]] = {}
        limits = self._limits()
        try:
            while under_way or done or waiting is not None:
                most = next(limits)
                while waiting is not None and len(under_way) < most and len(under_way) + len(done) < _AHEAD * most:
                    under_way[call.remote(key, shared, waiting[1])] = waiting[0]
                    waiting = next(numbered, None)
                if taken not in done:
                    for reference in ray.wait(list(under_way), num_returns=1)[0]:
                        done[under_way.pop(reference)] = _outcome(reference)
                while taken in done:
                    result, error = done.pop(taken)
                    if error is not None:
                        raise error
                    yield result
                    taken += 1
        finally:
            if not self._own:  # a cluster of our own ends with them
                for reference in under_way:
                    ray.cancel(reference, force=True)

    def _limits(self) -> Iterator[int]:
        """How many items may be under way, now: a cluster that was joined grows and shrinks."""
        import ray

        while True:
            seen, free = time.monotonic(), int(ray.cluster_resources().get("CPU", 1))
            most = self.workers if self.workers and not self._own else _UNDER_WAY * max(1, free)
            yield most
            while time.monotonic() < seen + _LOOK:
                yield most

    def _connect(self) -> None:
        """Join the cluster, or start one; raises LackError."""
        if self._connected:
            return
        self._connected = True
        self._ends.enter_context(_usual_environment())  # before the import, at which Ray reads some of it
        import ray

        if ray.is_initialized():
            return
        self._own = self.engine == "ray"
        self._ends.enter_context(_usual_sigterm())
        if self._own:
            folder = self._ends.enter_context(_short_folder())
            how = {"address": "local", "num_cpus": self.workers or cores(), "num_gpus": 0, "include_dashboard": False,
                   "object_store_memory": _STORE, "_temp_dir": folder}  # fmt: skip
        else:
            _check_reachable(self.engine)
            how = {"address": self.engine if self.engine.startswith("ray://") else self.engine[len("ray:") :]}
        self._ends.callback(ray.shutdown)
        try:
            ray.init(**how, logging_level="error", log_to_driver=False)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError, ImportError) as error:
            said = f"there is no Ray to be used ({' '.join(str(error).split())[:300]})"
            if not self._own and _TOKENS not in os.environ:
                said += f"; a cluster that asks for a token needs {_TOKENS}=token in the environment here"
            raise LackError(f"--engine {self.engine}: {said}") from error


def _check_reachable(engine: str) -> None:
    """Raise LackError where nothing answers at an address: Ray would wait for minutes."""
    host, _, port = engine.removeprefix("ray:").removeprefix("//").rpartition(":")
    if not host:  # auto
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise LackError(f"--engine {engine}: nothing answers there ({error})") from error


@contextlib.contextmanager
def _usual_sigterm() -> Iterator[None]:
    """Afterwards, what a SIGTERM does is what it did: Ray puts a handler of its own in place."""
    usual = signal.getsignal(signal.SIGTERM)
    yield
    if usual is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, usual)


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """A folder for Ray's sockets and logs, removed afterwards; a socket's path may have 107 bytes, so it is short."""
    root = "/tmp" if os.access("/tmp", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="augforge-", dir=root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _usual_environment() -> Iterator[None]:
    """What a cluster that is started meanwhile inherits: one thread for each process, no reports to anyone.

    Afterwards the environment is as before, also where Ray has changed it.
    """
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, _TOKENS, "PYTHONBREAKPOINT")}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _outcome(reference: Any) -> tuple[Any, BaseException | None]:
    """The result of an item that is done, or what it raised."""
    import ray

    try:
        return ray.get(reference), None
    except ray.exceptions.RayTaskError as error:
        return None, error.cause
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        said = f"a worker of Ray was killed {_RETRIES + 1} times at one item; is there enough memory for each core?"
    except ray.exceptions.RayError as error:
        said = f"Ray lost an item ({' '.join(str(error).split())[:300]})"
    return None, LackError(said)


def _one(key: str, shared: list[Any], item: Any) -> Any:
    """In a worker: one item; the job is fetched once."""
    global _work
    if _work is None or _work[0] != key:
        _work = (key, *_opened(shared[0]))
    return _work[1](_work[2], item)


def _packages() -> dict[str, str | None]:
    """The versions of all that can change a byte."""
    return versions() | {"isal": version_of("isal")}


def _opened(reference: Any) -> tuple[Callable[..., Any], Any]:
    """The function and the job. One thread each, as in all workers."""
    import cv2
    import ray
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    function, job, expected = ray.get(reference)
    found = _packages()
    for name in expected:
        if found.get(name) != expected[name]:
            raise LackError(f"{os.uname().nodename} has {name} {found.get(name)}, and this machine {expected[name]}; "
                            "expected the same on all machines of the cluster")  # fmt: skip
    return function, job
