"""Losses and scores that training by episodes, validation and matching share. All work on batches of episodes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances [..., n, m] between rows of `a` [..., n, d] and `b` [..., m, d], at least 0."""
    products = a @ b.transpose(-1, -2)
    sizes = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]  # [..., n, m]
    return (sizes - 2 * products).clamp(min=0)


def prototypical_logits(support: Tensor, query: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits [e, q, way]: minus the squared distance of `query` [e, q, d] to the means of `support` [e, way, shot, d].

    Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NIPS 2017, equations 1 and 2;
    `temperature` divides the distances. Computed in float32 whatever comes in.
    """
    means = reduce(support.float(), "e way shot d -> e way d", "mean")
    return -squared_distances(query.float(), means) / temperature


def prototypical_loss(support: Tensor, query: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy of `query` [e, way, n_query, d], which are ordered by class, against `support`.

    `support` is [e, way, shot, d].
    """
    way, n_query = query.shape[1:3]
    logits = prototypical_logits(support, rearrange(query, "e way q d -> e (way q) d"), temperature)
    target = torch.arange(way, device=logits.device).repeat_interleave(n_query).repeat(len(logits))  # [e * way * q]
    return F.cross_entropy(rearrange(logits, "e q way -> (e q) way"), target)


def prototypical_accuracy(support: Tensor, query: Tensor) -> Tensor:
    """The accuracy [e], 0 to 1, of nearest means on `query` [e, way, n_query, d] given `support` [e, way, shot, d]."""
    way, n_query = query.shape[1:3]
    logits = prototypical_logits(support, rearrange(query, "e way q d -> e (way q) d"))
    target = torch.arange(way, device=logits.device).repeat_interleave(n_query)  # [way * q]
    return reduce((logits.argmax(-1) == target).float(), "e q -> e", "mean")
