"""A matrix library with the worst habits that are allowed: what passes by luck of this processor fails with it.

`HostileProducts` rounds the last bit of every product by the place of a row, and by the memory layout of the matrices,
wherever `augforge.networks.products` does not promise that neither matters. Place is safe where the number of rows and
both sizes of the matrix are multiples of 16, and in convolutions of a multiple of 16 pictures; layout is safe where the
same holds in float32.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_MATRICES = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2), aten.linear: (0, 1)}


class HostileProducts(TorchDispatchMode):
    """While entered, products and convolutions of floats round by place and layout where they may."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in _MATRICES and out.dtype in (torch.float32, torch.float64) and out.device.type == "cpu":
            return _product(out, *(args[i] for i in _MATRICES[kind]))
        if kind is aten.convolution and out.dtype == torch.float32:
            return _convolution(out, *args[:2])
        return out


def _product(out, a, b):
    sizes = (out.shape[-2] if out.ndim > 1 else 1, a.shape[-1], out.shape[-1])
    safe = all(size % 16 == 0 for size in sizes)
    if not safe:
        out = _rounded(out, torch.arange(sizes[0]) % 2, -2)
    if not safe or out.dtype == torch.float64:
        out = _rounded(out, torch.arange(sizes[2]) % 3 == _layout(a, b), -1)
    return out


def _convolution(out, x, weight):
    if len(x) % 16:
        out = _rounded(out, torch.arange(len(x)) % 2, 0)
    return _rounded(out, torch.arange(out.shape[1]) % 3 == _layout(x, weight), 1)


def _layout(*operands):
    """A number of 0 to 3 that tells which of two operands lie row by row."""
    return sum(2**i for i, operand in enumerate(operands) if operand.is_contiguous())


def _rounded(out, where, dim):
    """`out` one step up where `where` says so, along an axis."""
    shape = [1] * out.ndim
    shape[dim] = -1
    return torch.where(where.bool().reshape(shape), torch.nextafter(out, torch.full_like(out, torch.inf)), out)
