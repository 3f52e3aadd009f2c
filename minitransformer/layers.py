# Generated from chapters/day03_encoder_layer.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""Positions, feed-forward network, LayerNorm and the encoder layer, with gradients by hand."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minitransformer.attention import (
    MultiHeadAttention,
    _setting,
    attention_gradients,
    head_mask,
    merge_heads,
    scaled_dot_product_attention,
    split_heads,
)
from minitransformer.linear import Linear, linear_gradients

__all__ = [
    "ACTIVATIONS", "LayerNorm", "LearnedPositionalEncoding", "PositionwiseFeedForward",
    "SinusoidalPositionalEncoding", "TransformerEncoderLayer", "encoder_layer_gradients", "layer_norm",
    "layer_norm_gradients", "sinusoidal_encoding",
]  # fmt: skip


# chapters/day03_encoder_layer.md · From two hands to the formula
def _position_angles(length: int, width: int) -> Float[Tensor, "T half"]:
    """The angle ω_i t of each hand at each position, with ω_i = 10000^(-2i / width)."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return position * frequency


def sinusoidal_encoding(length: int, d_model: int) -> Float[Tensor, "T C"]:
    """Sine on even, cosine on odd columns, each pair slower than the one before.

    Source: Vaswani et al. (2017), section 3.5.
    Raises ValueError for an odd d_model or a length below 1.
    """
    pairs = "even and at least 2 (sines and cosines come in pairs)"
    _setting("d_model", d_model, int, pairs, lambda n: n >= 2 and n % 2 == 0)
    _setting("length", length, int, "an integer of at least 1", lambda n: n >= 1)
    angle = _position_angles(length, d_model)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


# chapters/day03_encoder_layer.md · The module
def _check_length(length: int, max_length: int) -> None:
    """Raise a ValueError with both numbers if a sequence is longer than allowed."""
    if length > max_length:
        raise ValueError(f"the sequence has {length} tokens, more than max_length={max_length}")


def _check_width(width: int, d_model: int) -> None:
    """Raise a ValueError with both numbers if the vectors have another width."""
    if width != d_model:
        raise ValueError(f"the input's last axis has {width} entries, but d_model={d_model}")


class SinusoidalPositionalEncoding(nn.Module):
    """Add the fixed sinusoidal encoding to the tokens' vectors.

    Shapes: x `[B, T, C]` to the same. Source: Vaswani et al. (2017), section 3.5.
    Raises ValueError if T exceeds max_length or C is not d_model.
    """

    encoding: Tensor  # for type checkers: what `register_buffer` makes

    def __init__(self, d_model: int, max_length: int = 512):
        super().__init__()
        self.register_buffer("encoding", sinusoidal_encoding(max_length, d_model), persistent=False)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        _check_length(x.size(1), self.encoding.size(0))
        _check_width(x.size(2), self.encoding.size(1))
        return x + self.encoding[: x.size(1)]


# chapters/day03_encoder_layer.md · Learned positions
class LearnedPositionalEncoding(nn.Module):
    """Add a learned vector per position to the tokens' vectors (Devlin et al., 2019).

    Shapes: x `[B, T, C]` to the same.
    Raises ValueError if T exceeds max_length or C is not d_model.
    """

    def __init__(self, d_model: int, max_length: int = 512):
        super().__init__()
        for name, value in (("d_model", d_model), ("max_length", max_length)):
            _setting(name, value, int, "an integer of at least 1", lambda n: n >= 1)
        self.encoding = nn.Parameter(torch.empty(max_length, d_model).normal_(std=0.02))

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        _check_length(x.size(1), self.encoding.size(0))
        _check_width(x.size(2), self.encoding.size(1))
        return x + self.encoding[: x.size(1)]


# chapters/day03_encoder_layer.md · The feed-forward network: think about one token at a time
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class PositionwiseFeedForward(nn.Module):
    """The same two-layer network at every token: widen, activate, narrow.

    Shapes: x `[..., C]` to the same; d_ff is the width in between.
    Source: Vaswani et al. (2017), section 3.3. Raises ValueError for a d_ff below 1,
    a dropout outside [0, 1) or an unknown activation.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0, activation: str = "relu"):
        super().__init__()
        _setting("d_ff", d_ff, int, "an integer of at least 1", lambda n: n >= 1)
        _setting("dropout", dropout, float, "a number in [0, 1)", lambda p: 0 <= p < 1)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
        self.linear1 = Linear(d_model, d_ff)
        self.linear2 = Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        hidden = ACTIVATIONS[self.activation](self.linear1(x))
        return self.linear2(self.dropout(hidden))


# chapters/day03_encoder_layer.md · LayerNorm: one token, mean 0, size 1
def layer_norm(
    x: Float[Tensor, "*B C"], weight: Float[Tensor, "C"], bias: Float[Tensor, "C"], eps: float = 1e-5
) -> Float[Tensor, "*B C"]:
    """Give each vector of the last axis mean 0 and variance 1, then scale and shift it.

    The variance divides by C, not by C - 1, and eps stands under the root, as in
    `torch.nn.LayerNorm`. Source: Ba et al. (2016).
    """
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, correction=0)
    return (x - mean) / (variance + eps).sqrt() * weight + bias


class LayerNorm(nn.Module):
    """Normalise each token's vector; scale and shift follow (Ba et al., 2016).

    Shapes: x `[..., C]` to the same. fused uses PyTorch's kernel, else `layer_norm`.
    Raises ValueError if d_model is below 1, eps is not positive and finite, or the
    input has another width.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, fused: bool = True):
        super().__init__()
        _setting("d_model", d_model, int, "an integer of at least 1", lambda n: n >= 1)
        _setting("eps", eps, float, "positive and finite", lambda e: 0 < e < math.inf)
        self.eps, self.fused = eps, fused
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        _check_width(x.size(-1), self.weight.numel())
        if self.fused:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return layer_norm(x, self.weight, self.bias, self.eps)


# chapters/day11_deeper.md · What BERT has and our encoder lacked
class TransformerEncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each with a residual and a LayerNorm.

    The paper's order is post-norm, `norm(x + f(x))` (Vaswani et al., 2017, section 3.1); norm_first gives pre-norm,
    `x + f(norm(x))` (Xiong et al., 2020). attention_mask is boolean, `[B, T]` or `[B, T, T]`, True = attend.
    fused uses PyTorch's kernels. Raises ValueError for wrong sizes, dropouts, activations or masks.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        activation: str = "relu",
        norm_first: bool = False,
        fused: bool = True,
        layer_norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.self_attn = MultiHeadAttention(d_model, num_heads, dropout, fused=fused)
        self.feed_forward = PositionwiseFeedForward(d_model, d_ff, dropout, activation)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, fused)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, fused)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(
        self, x: Float[Tensor, "B T C"], attention_mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "B T C"]:
        _check_width(x.size(-1), self.norm1.weight.numel())
        if self.norm_first:
            x = x + self.attend(self.norm1(x), attention_mask)
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.attend(x, attention_mask))
        return self.norm2(x + self.dropout(self.feed_forward(x)))

    def attend(self, x: Float[Tensor, "B T C"], mask: Bool[Tensor, "..."] | None) -> Float[Tensor, "B T C"]:
        """The attention branch: tokens attend to tokens; dropout follows."""
        out, _ = self.self_attn(x, attention_mask=mask)
        return self.dropout(out)


# chapters/day11_deeper.md · LayerNorm, and a whole layer by hand
def layer_norm_gradients(
    x: Float[Tensor, "*B C"], weight: Float[Tensor, "C"], grad_out: Float[Tensor, "*B C"], eps: float = 1e-5
) -> tuple[Float[Tensor, "*B C"], Float[Tensor, "C"], Float[Tensor, "C"]]:
    """The gradients of `layer_norm` by x, weight and bias."""
    sigma = (x.var(-1, keepdim=True, correction=0) + eps).sqrt()
    normal = (x - x.mean(-1, keepdim=True)) / sigma
    grad = grad_out * weight
    along = normal * (grad * normal).mean(-1, keepdim=True)
    grad_x = (grad - grad.mean(-1, keepdim=True) - along) / sigma
    rows = grad_out.reshape(-1, x.size(-1))
    return grad_x, (rows * normal.reshape(rows.shape)).sum(0), rows.sum(0)


def _gelu_slope(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The derivative of GELU, Φ(x) + x φ(x)."""
    bell = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return (1 + torch.erf(x / math.sqrt(2))) / 2 + x * bell


@torch.no_grad()
def encoder_layer_gradients(
    layer: TransformerEncoderLayer,
    x: Float[Tensor, "B T C"],
    grad_out: Float[Tensor, "B T C"],
    mask: Tensor | None = None,
) -> tuple[Float[Tensor, "B T C"], dict[str, Tensor]]:
    """A post-norm layer's gradients by its input and parameters; GELU, no dropout."""
    if layer.norm_first or layer.feed_forward.activation != "gelu":
        raise ValueError("the layer must be post-norm, and its activation gelu")
    parts, heads = dict(layer.named_modules()), layer.self_attn.num_heads
    found: dict[str, Tensor] = {}

    def back(name: str, x: Tensor, grad: Tensor) -> Tensor:
        weight = parts[name].weight
        if name.startswith("norm"):
            gradients = layer_norm_gradients(x, weight, grad, parts[name].eps)
        else:
            gradients = linear_gradients(x, weight, grad)
        grad, found[f"{name}.weight"], found[f"{name}.bias"] = gradients
        return grad

    # x [B, T, C], in heads [B, H, T, D], and merged [B, T, C] again
    q, k, v = (split_heads(parts[f"self_attn.{n}_proj"](x), heads) for n in "qkv")
    out, weights = scaled_dot_product_attention(q, k, v, head_mask(mask, q, k))
    merged = merge_heads(out)
    first = x + layer.self_attn.out_proj(merged)
    middle = layer.norm1(first)
    hidden = layer.feed_forward.linear1(middle)
    active = F.gelu(hidden)
    second = middle + layer.feed_forward.linear2(active)

    grad = back("norm2", second, grad_out)
    inner = back("feed_forward.linear2", active, grad) * _gelu_slope(hidden)
    grad = back("norm1", first, grad + back("feed_forward.linear1", middle, inner))
    # back through the merge by a split [B, H, T, D], through the split by a merge
    inner = split_heads(back("self_attn.out_proj", merged, grad), heads)
    for n, g in zip("qkv", attention_gradients(q, k, v, weights, inner), strict=True):
        grad = grad + back(f"self_attn.{n}_proj", x, merge_heads(g))
    return grad, found
