# Generated from chapters/day02_multi_head_attention.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""Masks, scaled dot-product attention and multi-head attention, with gradients by hand."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minitransformer.linear import Linear

__all__ = [
    "AttentionFunction", "MultiHeadAttention", "attention_gradients", "attention_with_gradient",
    "causal_mask", "fused_attention", "head_mask", "masked_softmax", "merge_heads", "padding_mask",
    "scaled_dot_product_attention", "split_heads",
]  # fmt: skip


# chapters/day02_multi_head_attention.md · A view, then a transpose
def split_heads(x: Float[Tensor, "B T C"], num_heads: int) -> Float[Tensor, "B H T D"]:
    """Cut the width into `num_heads` slices, with the head axis before the tokens."""
    B, T, C = x.shape
    return x.view(B, T, num_heads, C // num_heads).transpose(1, 2)


# chapters/day02_multi_head_attention.md · And back
def merge_heads(x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B T C"]:
    """Lay the heads side by side again: the inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


# chapters/day02_multi_head_attention.md · Which positions are real
def padding_mask(lengths: Int[Tensor, "B"], max_length: int | None = None) -> Bool[Tensor, "B T"]:
    """Which positions hold real tokens: True where a key may be seen, False on padding.

    Without `max_length`, the mask is as long as the longest sentence.

    Raises:
        ValueError: if `lengths` is no axis of integers from 0, or above `max_length`.
    """
    if lengths.dim() != 1 or lengths.numel() == 0:
        shape = list(lengths.shape)
        raise ValueError(f"lengths must have shape [B] with B of at least 1, got {shape}")
    if lengths.is_floating_point() or lengths.dtype == torch.bool or lengths.min() < 0:
        found = f"{lengths.min()} ({lengths.dtype})"
        raise ValueError(f"lengths must be integers of at least 0, got {found}")
    longest = int(lengths.max())
    length = longest if max_length is None else max_length
    if length < longest:
        raise ValueError(f"max_length must be at least the longest length {longest}, got {length}")
    return torch.arange(length, device=lengths.device) < lengths[:, None]


# chapters/day02_multi_head_attention.md · Rows with nothing to see
def masked_softmax(
    scores: Float[Tensor, "*B T S"], mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*B T S"]:
    """Softmax over the last axis; keys with a False in `mask` weigh exactly zero.

    The mask must broadcast to the shape of the scores. A query that may see no key
    gets a row of zeros, where softmax alone would give NaN.
    """
    if mask is None:
        return scores.softmax(-1)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)


# chapters/day02_multi_head_attention.md · Masks that depend on the query
def causal_mask(length: int, device: torch.device | str | None = None) -> Bool[Tensor, "T T"]:
    """True where the key comes no later than the query (paper, section 3.2.3).

    A module takes it with an axis in front, `mask[None]`: one for all sentences.
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


# chapters/day02_multi_head_attention.md · The function, after a loop
def scaled_dot_product_attention(
    q: Float[Tensor, "*B T D"],
    k: Float[Tensor, "*B S D"],
    v: Float[Tensor, "*B S Dv"],
    mask: Bool[Tensor, "..."] | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "*B T Dv"], Float[Tensor, "*B T S"]]:
    """softmax(q kᵀ / √D) v, and the weights (paper, equation 1): the reference.

    Args:
        q, k, v: queries, keys and values; leading axes (batch, heads) are kept.
        mask: broadcasts to the scores; True where a query may attend to a key.
        dropout: probability with which each weight is dropped; pass 0 outside training.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    weights = F.dropout(masked_softmax(scores, mask), dropout)
    return weights @ v, weights


# chapters/day02_multi_head_attention.md · The axes of a mask
def head_mask(
    mask: Tensor | None, q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H S D"]
) -> Bool[Tensor, "#B 1 #T S"] | None:
    """Give a mask the axes of the scores `[B, H, T, S]`.

    It may be a mask of keys, `[B, S]`, or of pairs, `[B, T, S]` or `[1, T, S]`.

    Raises:
        ValueError: if the mask is not boolean or has another shape.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        raise ValueError(f"attention_mask must be boolean (True: attend), got {mask.dtype}")
    B, T, S = q.size(0), q.size(2), k.size(2)
    if mask.shape not in ((B, S), (B, T, S), (1, T, S)):
        raise ValueError(
            f"attention_mask must have shape [B, S] = {[B, S]}, "
            f"[B, T, S] = {[B, T, S]} or [1, T, S], got {list(mask.shape)}"
        )
    return mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]


# chapters/day02_multi_head_attention.md · A fused twin
def fused_attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H S D"],
    v: Float[Tensor, "B H S Dv"],
    mask: Bool[Tensor, "..."] | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "B H T Dv"], None]:
    """`scaled_dot_product_attention` in one operation of PyTorch; no weights."""
    return F.scaled_dot_product_attention(q, k, v, mask, dropout), None


# chapters/day02_multi_head_attention.md · The class
def _setting(name: str, value: Any, kind: type, description: str, allowed: Callable[[Any], bool]) -> None:
    """Refuse a value that is not of its kind, or not `allowed`, in one sentence."""
    of_kind = type(value) is kind or (kind is float and type(value) is int)
    if not of_kind or not allowed(value):
        raise ValueError(f"{name} must be {description}, got {value!r}")


def _check_sizes(d_model: int, num_heads: int, dropout: float) -> None:
    whole = type(d_model) is int and type(num_heads) is int
    if not whole or d_model < 1 or num_heads < 1 or d_model % num_heads:
        raise ValueError(
            "d_model must be a positive multiple of num_heads, "
            f"got d_model={d_model} and num_heads={num_heads}"
        )
    _setting("dropout", dropout, float, "a number in [0, 1)", lambda value: 0 <= value < 1)


def _key_and_value(
    query: Tensor, key: Tensor | None, value: Tensor | None, d_model: int
) -> tuple[Tensor, Tensor]:
    key = query if key is None else key
    value = key if value is None else value
    named = (("query", query), ("key", key), ("value", value))
    for name, x in named:
        if x.dim() != 3 or x.size(-1) != d_model:
            wanted = f"[B, T, C] with C = d_model = {d_model}"
            raise ValueError(f"{name} must have shape {wanted}, got {list(x.shape)}")
    if key.shape != value.shape or key.size(0) != query.size(0):
        rule = "the same shape and as many sentences as query"
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in named)
        raise ValueError(f"key and value must have {rule}, got {shapes}")
    return key, value


class MultiHeadAttention(nn.Module):
    """Several attentions, each in its own slice of the width (paper, section 3.2.2).

    Args:
        d_model: width of the tokens and of the output; a multiple of `num_heads`.
        num_heads: how many attentions, each `d_model // num_heads` wide.
        dropout: probability with which a weight is dropped in training, in [0, 1).
        bias: whether the four projections add a learned offset.
        fused: compute by `fused_attention` where the weights are not asked for.
    """

    def __init__(
        self, d_model: int, num_heads: int, dropout: float = 0.0, bias: bool = True, fused: bool = True
    ) -> None:
        super().__init__()
        _check_sizes(d_model, num_heads, dropout)
        self.num_heads, self.dropout, self.fused = num_heads, dropout, fused
        self.q_proj = Linear(d_model, d_model, bias)
        self.k_proj = Linear(d_model, d_model, bias)
        self.v_proj = Linear(d_model, d_model, bias)
        self.out_proj = Linear(d_model, d_model, bias)

    def forward(
        self,
        query: Float[Tensor, "B T C"],
        key: Tensor | None = None,
        value: Tensor | None = None,
        attention_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T S"] | None]:
        """The output, and the weights if `need_weights`; for masks see `head_mask`."""
        key, value = _key_and_value(query, key, value, self.q_proj.weight.size(1))
        q = split_heads(self.q_proj(query), self.num_heads)
        k = split_heads(self.k_proj(key), self.num_heads)
        v = split_heads(self.v_proj(value), self.num_heads)
        attend = fused_attention if self.fused and not need_weights else scaled_dot_product_attention
        mask = head_mask(attention_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(q, k, v, mask, dropout)
        return self.out_proj(merge_heads(out)), weights if need_weights else None


# chapters/day11_deeper.md · As matrices
def attention_gradients(
    q: Float[Tensor, "*B T D"],
    k: Float[Tensor, "*B S D"],
    v: Float[Tensor, "*B S Dv"],
    weights: Float[Tensor, "*B T S"],
    grad_out: Float[Tensor, "*B T Dv"],
) -> tuple[Float[Tensor, "*B T D"], Float[Tensor, "*B S D"], Float[Tensor, "*B S Dv"]]:
    """The gradients of `scaled_dot_product_attention` from its weights; no dropout.

    Masks need no argument: a masked key has the weight zero, and so the gradient zero.
    """
    grad_weights = grad_out @ v.transpose(-2, -1)
    average = (weights * grad_weights).sum(-1, keepdim=True)
    grad_scores = weights * (grad_weights - average)
    scaled = grad_scores / math.sqrt(q.size(-1))
    return (scaled @ k, scaled.transpose(-2, -1) @ q, weights.transpose(-2, -1) @ grad_out)


# chapters/day11_deeper.md · The function, without autograd
class AttentionFunction(torch.autograd.Function):
    """`scaled_dot_product_attention` with its backward pass written out.

    Shapes: q `[..., T, D]`, k `[..., S, D]`, v `[..., S, Dv]`, leading axes the same;
    the mask, or None, broadcasts to `[..., T, S]`. There is no second derivative,
    and no autocast.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        out, weights = scaled_dot_product_attention(q, k, v, mask)
        ctx.save_for_backward(q, k, v, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weights = ctx.saved_tensors
        return *attention_gradients(q, k, v, weights, grad_out), None


def attention_with_gradient(
    q: Float[Tensor, "*B T D"],
    k: Float[Tensor, "*B S D"],
    v: Float[Tensor, "*B S Dv"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*B T Dv"]:
    """softmax(q kᵀ / √D) v with our own formulas backwards: the readable reference."""
    return AttentionFunction.apply(q, k, v, mask)
