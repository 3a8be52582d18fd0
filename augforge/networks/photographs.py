"""Photographs of any size for networks that were trained on ImageNet, and such networks on one picture at a time.

One at a time on a CPU: a picture of 224 px fills the caches, so that 16 together are no faster (EfficientNet-Lite0 on
an AMD EPYC: 26 ms a picture alone, 38 among 16), and no bit of its features can depend on other pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from augforge.networks.products import whole_tiles
from augforge.types import InputError

Interpolation = Literal["bilinear", "bicubic"]
_AT_ONCE = 128  # pictures that are resized before they go through the network together
_DEVICE_TILE = 64  # pictures at a time on a device


def resized_middle(picture: Tensor, short_side: int, side: int, interpolation: Interpolation = "bicubic") -> Tensor:
    """A picture [c, h, w], c 1 or 3, uint8 or floats in [0, 1], as [3, side, side] float32 in [0, 1].

    The shorter side becomes `short_side` px, with antialiasing as Pillow does it, then the middle is cut out. Grey is
    repeated as colour. Raises InputError for a picture that is more than 100 times as long as wide.
    """
    height, width = picture.shape[1:]
    if max(height, width) > 100 * min(height, width):
        raise InputError(f"a picture is {width} x {height} px; expected sides within 1 to 100 of each other")
    scale = short_side / min(height, width)
    # Whole numbers as torchvision and timm make them
    size = [max(short_side, int(height * scale)), max(short_side, int(width * scale))]
    top, left = round((size[0] - side) / 2), round((size[1] - side) / 2)
    x = picture[None]
    if not picture.dtype.is_floating_point and picture.device.type != "cpu":
        x = x.float() / 255  # only the CPU's kernel takes uint8
    x = F.interpolate(x.contiguous(memory_format=torch.channels_last), size, mode=interpolation, antialias=True)[0]
    x = x[:, top : top + side, left : left + side]
    x = x.float().clamp(0, 1) if x.dtype.is_floating_point else x.float() / 255
    return x.expand(3, -1, -1)


def embedded_each(
    net: Callable[[Tensor], Tensor], pictures: Tensor | Sequence[Tensor], prepare: Callable[[Tensor], Tensor]
) -> Tensor:
    """Features [n, d] float32 of n pictures [c, h, w], each prepared to one size and put through the network.

    No picture has features [0, d], on the CPU where the pictures are a list.
    """

    def forward(tile: Tensor) -> Tensor:
        return net(tile.contiguous(memory_format=torch.channels_last)).flatten(1).float()

    threads = min(torch.get_num_threads(), len(pictures))
    if threads > 1 and pictures[0].device.type == "cpu":
        return _by_threads(lambda picture: forward(prepare(picture)[None]), pictures, threads)
    features = []
    with torch.no_grad():
        if not len(pictures):
            like = pictures if isinstance(pictures, Tensor) else torch.zeros(0)
            return forward(prepare(like.new_zeros(3, 64, 64))[None])[:0]
        for start in range(0, len(pictures), _AT_ONCE):
            ready = torch.stack([prepare(picture) for picture in pictures[start : start + _AT_ONCE]])
            features.append(whole_tiles(forward, ready, size=1, device_size=_DEVICE_TILE))
    return torch.cat(features)


def _by_threads(embed: Callable[[Tensor], Tensor], pictures: Tensor | Sequence[Tensor], threads: int) -> Tensor:
    """`embed` [1, d] of every picture, each picture in one thread.

    torch's own threads share the work inside of a layer and wait for each other there; where other processes take a
    core from them, a picture takes seconds.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None

    def one(picture: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            return embed(picture)

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.cat(list(pool.map(one, pictures)))


def with_folded_norms(net: nn.Module) -> nn.Module:
    """The network, changed: batch normalisation that follows a convolution is multiplied into it.

    For networks of timm, whose normalisation layers may carry the activation after them; a pair is a convolution and
    the normalisation right behind it in the order of a module's children.
    """
    for module in list(net.modules()):
        children = list(module.named_children())
        for (first, conv), (second, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                rest = [getattr(norm, name, nn.Identity()) for name in ("drop", "act")]
                setattr(module, first, fuse_conv_bn_eval(conv, norm))
                setattr(module, second, nn.Sequential(*rest))
    return net
