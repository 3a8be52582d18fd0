"""Tensors that say they lie on `cuda:0`, hold their numbers on the CPU, and refuse what CUDA refuses.

A rehearsal of code for devices on a machine without one. Refused are operations on tensors of two devices, a generator
of another device, `.numpy()`, and products of integers; what waits for the device is counted by line of the project.
That a kernel exists on CUDA, and what it rounds, only a device can say.

    python tests/pretend_cuda.py SCRIPT [ARGUMENTS]      python tests/pretend_cuda.py -m MODULE [ARGUMENTS]

run something so and print the waits. In tests: `with pretended_cuda() as device: ...; device.waits`.

How: `OnCuda` is a subclass of Tensor that has the CPU's memory and another name for its device; a mode sees every call
of torch's Python functions, makes what they return an `OnCuda` again, and checks what goes in. What a function of torch
does inside, in Python or in C++, is torch's own affair and runs unseen on plain tensors.
"""

from __future__ import annotations

import contextlib
import functools
import runpy
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parent.parent
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
MOVES = {"to", "cpu", "cuda", "type_as"}
# Both devices may meet here; `__set__` is an attribute of a tensor, such as its gradient or its data.
MAY_MIX = {
    "copy_",
    "__set__",
    "__get__",
    "__deepcopy__",
    "_pack_padded_sequence",
    "_pad_packed_sequence",
    "lstm",
    "gru",
}
NOT_EVEN_NUMBERS = {"cat", "stack", "mm", "bmm", "matmul", "__matmul__", "index_select", "gather", "scatter", "take"}
PRODUCTS = {"mm", "bmm", "matmul", "__matmul__", "__rmatmul__", "linear", "einsum", "baddbmm", "addmm", "mv", "dot"}
WAITS = {
    "item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__contains__", "nonzero", "argwhere", "unique",
    "unique_consecutive", "masked_select", "equal", "allclose", "bincount", "is_nonzero", "histc", "cholesky", "eigh",
    "eigvalsh", "svd", "inv", "solve",
}  # fmt: skip


class Refused(RuntimeError):
    """CUDA would not do that."""


class OnCuda(Tensor):
    """A tensor of the pretended device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise Refused("a CUDA tensor has no numpy array; .cpu() first")


class Generator(torch._C.Generator):
    """A generator that says on which device it is."""

    where: torch.device

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.where = CUDA if torch.device(device).type == "cuda" else CPU
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.where


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [t for value in values for t in tensors(value)] if isinstance(values, list | tuple) else []


def plain(x: Tensor) -> Tensor:
    """The same memory as an ordinary tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def on_cuda(value: Any) -> Any:
    """What a call returned, with every tensor on the pretended device."""
    if isinstance(value, OnCuda):
        return value
    if isinstance(value, Tensor):
        with torch._C.DisableTorchFunctionSubclass():
            if value.is_leaf and value.requires_grad:  # it has to stay a leaf
                return value.detach().as_subclass(OnCuda).requires_grad_()
            return value.as_subclass(OnCuda)
    if isinstance(value, tuple):
        made = [on_cuda(v) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    return [on_cuda(v) for v in value] if isinstance(value, list) else value


def _plainly(value: Any) -> Any:
    """`plain` for the tensors of an argument."""
    if isinstance(value, Tensor):
        return plain(value)
    return type(value)(map(_plainly, value)) if type(value) in (list, tuple) else value


def line_of_project() -> str:
    """The innermost line of the project, tests excluded, that led here: "generators/noise.py:40 fit"."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = _name_in_project(frame.f_code.co_filename)
        if name:
            return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


@functools.cache
def _name_in_project(file: str) -> str:
    path = Path(file).resolve()
    inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("augforge", "generators", "cli")
    return str(path.relative_to(ROOT)) if inside else ""


class Pretended(TorchFunctionMode):
    """The mode; `waits` counts by line what waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def waits_in(self, part: str) -> int:
        """How many waits come from files whose path has `part`."""
        return sum(count for line, count in self.waits.items() if part in line)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        given = tensors([args, kwargs])
        ours = [t for t in given if isinstance(t, OnCuda)]
        wanted = kwargs.get("device")
        cuda = bool(ours) if wanted is None else torch.device(wanted).type == "cuda"
        self._check(name, args, kwargs, given)
        if name in MOVES and args and isinstance(args[0], Tensor):
            return self._moved(name, args[0], args[1:], kwargs)
        if not ours and not cuda:
            return func(*args, **kwargs)
        if name == "__deepcopy__":
            return self._copied(*args)
        if name in WAITS or (name in ("__getitem__", "__setitem__") and self._is_masked(args[1])):
            self.waits[f"{line_of_project()} {name}"] += 1
        found = self._unseen(func, args, self._elsewhere(kwargs))
        if name == "_pack_padded_sequence":
            return on_cuda(found[0]), *found[1:]  # how many rows there are of each length is for the CPU
        return on_cuda(found) if cuda else found

    @staticmethod
    def _unseen(func: Any, args: Any, kwargs: dict) -> Any:
        """A call whose insides are not looked at; functions in Python may make tensors there, on the CPU then."""
        with torch._C.DisableTorchFunctionSubclass():
            if getattr(func, "__module__", "") != "torch.nn.functional" or kwargs.get("inplace"):
                return func(*args, **kwargs)
            return func(*_plainly(list(args)), **{key: _plainly(value) for key, value in kwargs.items()})

    def _elsewhere(self, kwargs: dict) -> dict:
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs = kwargs | {"device": CPU}
        return kwargs | {"pin_memory": False} if kwargs.get("pin_memory") else kwargs

    def _check(self, name: str, args: Any, kwargs: dict, given: list[Tensor]) -> None:
        ours = [t for t in given if isinstance(t, OnCuda)]
        generator = kwargs.get("generator")
        if generator is not None:
            first = args[0].device if args and isinstance(args[0], Tensor) else CPU
            where = torch.device(kwargs.get("device") or first)
            if where.type != generator.device.type:
                raise Refused(f"{name} on {where} with a generator on {generator.device}")
        if not ours:
            return
        if name in ("numpy", "__array__"):
            raise Refused("a CUDA tensor has no numpy array; .cpu() first")
        if name in PRODUCTS and not all(t.is_floating_point() or t.is_complex() for t in ours):
            raise Refused(f"{name} of {[t.dtype for t in ours]}: CUDA multiplies no integers")
        others = [t for t in given if not isinstance(t, OnCuda)]
        if not others or name in MAY_MIX or name in MOVES:
            return
        if name in ("__getitem__", "__setitem__"):
            self._check_indexing(args)
        elif name in NOT_EVEN_NUMBERS or any(t.dim() for t in others):
            shapes = [f"{t.device.type}{list(t.shape)}" for t in given]
            raise Refused(f"{name} of tensors on two devices: {', '.join(shapes)}")

    @staticmethod
    def _check_indexing(args: Any) -> None:
        """An index may come from the CPU, as it is moved; the rest may not be mixed, but for copies into a slice."""
        if not isinstance(args[0], OnCuda):
            raise Refused("a CPU tensor with indices or values on CUDA")
        value = args[2] if len(args) > 2 else None
        if isinstance(value, Tensor) and not isinstance(value, OnCuda) and value.dim() and tensors([args[1]]):
            raise Refused("CPU values for rows of a CUDA tensor")

    @staticmethod
    def _is_masked(index: Any) -> bool:
        return any(t.dtype in (torch.bool, torch.uint8) for t in tensors([index]))

    def _moved(self, name: str, x: Tensor, args: Any, kwargs: dict) -> Tensor:
        """`x.to(...)` and its like, to another device or dtype."""
        device: Any = {"cpu": CPU, "cuda": CUDA}.get(name, kwargs.pop("device", None))
        dtype = kwargs.pop("dtype", None)
        for given in args:
            if isinstance(given, Tensor):
                device, dtype = given.device, given.dtype
            elif isinstance(given, torch.dtype):
                dtype = given
            elif isinstance(given, str | torch.device):
                device = torch.device(given)
        there = CUDA if device is not None and torch.device(device).type == "cuda" else CPU
        there = x.device if device is None else there
        kwargs.pop("non_blocking", None)
        if there == x.device and not kwargs and dtype in (None, x.dtype):
            return x
        if there == CPU and isinstance(x, OnCuda):
            self.waits[f"{line_of_project()} to the CPU"] += 1
        moves = there != x.device
        copied = self._unseen(Tensor.to, (plain(x),), kwargs | {"dtype": dtype or x.dtype, "copy": moves})
        return on_cuda(copied) if there == CUDA else copied

    @staticmethod
    def _copied(x: Tensor, memo: dict) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            copied = x.detach().clone().as_subclass(OnCuda).requires_grad_(x.requires_grad)
        if isinstance(x, nn.Parameter):
            copied._is_param = True
        memo[id(x)] = copied
        return copied


def _apply(original: Callable, module: nn.Module, fn: Callable) -> nn.Module:
    """What `Module.to` does, with parameters that stay the objects that they are, as on a device."""
    if not isinstance(fn(torch.zeros(0)), OnCuda) and not any(isinstance(p, OnCuda) for p in module.parameters()):
        return original(module, fn)
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                moved = fn(parameter.detach())
                parameter.data = plain(moved)
                parameter.__class__ = OnCuda if isinstance(moved, OnCuda) else nn.Parameter
                parameter._is_param = True
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else fn(buffer)
    return module


class _Autocast(torch.autocast):
    """Autocast of the CPU in place of CUDA's, so that the dtypes are those of a device."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _nothing(*_: Any) -> None:
    """What a call does that would ask the driver."""


@contextlib.contextmanager
def pretended_cuda() -> Iterator[Pretended]:
    """Within, `torch.cuda` says that there is a device, and tensors can be moved to it."""
    mode, apply, run = Pretended(), nn.Module._apply, threading.Thread.run
    properties = SimpleNamespace(total_memory=80 << 30, name="pretended", major=9, minor=0, multi_processor_count=132)

    def synchronize(*_: Any) -> None:
        mode.waits[f"{line_of_project()} synchronize"] += 1

    def run_within(thread: threading.Thread) -> None:
        with mode:
            run(thread)

    answers = {
        "is_available": True, "device_count": 1, "is_initialized": True, "current_device": 0, "empty_cache": None,
        "is_bf16_supported": True, "get_device_capability": (9, 0), "get_device_name": "pretended",
        "get_device_properties": properties, "set_device": None, "memory_allocated": 0, "max_memory_allocated": 0,
        "memory_reserved": 0, "reset_peak_memory_stats": None, "is_current_stream_capturing": False, "init": None,
        "_lazy_init": None,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, _answer=answer, **__: _answer))
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize", synchronize))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        stack.enter_context(mock.patch.object(torch, "autocast", _Autocast))
        stack.enter_context(mock.patch.object(torch.amp, "autocast", _Autocast))
        stack.enter_context(mock.patch.object(nn.RNNBase, "flatten_parameters", _nothing))
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", lambda x, *_: x))
        applied = lambda module, fn, recurse=True: _apply(apply, module, fn)  # noqa: E731
        stack.enter_context(mock.patch.object(nn.Module, "_apply", applied))
        for name in dir(torch.optim.Optimizer):
            if name.endswith("graph_capture_health_check"):  # it asks the driver
                stack.enter_context(mock.patch.object(torch.optim.Optimizer, name, _nothing))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_within))
        stack.enter_context(mode)
        yield mode


def main() -> None:
    """Run a script or a module so."""
    sys.argv = sys.argv[1:]
    with pretended_cuda() as device:
        try:
            if sys.argv[0] == "-m":
                sys.argv = sys.argv[1:]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(sys.argv[0], run_name="__main__")
        finally:
            for line, count in device.waits.most_common(40):
                print(f"{count:7d}  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
