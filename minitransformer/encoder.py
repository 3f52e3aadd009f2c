# Generated from chapters/day04_encoder_and_data.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The encoder: embeddings, positions and a stack of layers."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minitransformer.attention import _setting
from minitransformer.layers import (
    ACTIVATIONS,
    LayerNorm,
    LearnedPositionalEncoding,
    SinusoidalPositionalEncoding,
    TransformerEncoderLayer,
)

__all__ = ["TokenEmbeddings", "TransformerEncoder"]

# chapters/day04_encoder_and_data.md · Embeddings and positions in one sum
_POSITIONS = {"learned": LearnedPositionalEncoding, "sinusoidal": SinusoidalPositionalEncoding}


def _make_positions(kind: str, d_model: int, max_length: int) -> tuple[nn.Module, float]:
    """The module that adds positions, and the factor for the embeddings beside it.

    The paper multiplies embeddings by √d_model beside sinusoids (section 3.4);
    learned positions start as small as embeddings, and need no factor.
    """
    if kind not in _POSITIONS:
        raise ValueError(f"positions must be one of {sorted(_POSITIONS)}, got {kind!r}")
    scale = math.sqrt(d_model) if kind == "sinusoidal" else 1.0
    return _POSITIONS[kind](d_model, max_length), scale


# chapters/day04_encoder_and_data.md · Ids that no table can look up
def _check_ids(input_ids: Int[Tensor, "B T"], vocab_size: int, name: str = "vocab_size") -> None:
    """Say which id no embedding table can look up; the look at the values waits for the device.

    Raises:
        ValueError: for an id outside 0 … vocab_size - 1.
    """
    for end in input_ids.aminmax():
        if not 0 <= end < vocab_size:
            raise ValueError(f"ids must lie in 0 … {vocab_size - 1} for {name}={vocab_size}, got {int(end)}")


def _look_up(name: str, ids: Tensor, table: nn.Embedding) -> Float[Tensor, "B T C"]:
    """The rows of a table for a batch of ids; what cannot be looked up is a ValueError of one sentence."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be integers (torch.int64 or torch.int32), got {ids.dtype}")
    if ids.dim() != 2:
        raise ValueError(f"{name} must have shape [B, T], got {list(ids.shape)}")
    if ids.numel() == 0:
        raise ValueError(f"{name} must hold at least one token, got the shape {list(ids.shape)}")
    try:
        return table(ids)
    except IndexError:
        _check_ids(ids, table.num_embeddings, "type_vocab_size" if name == "token_type_ids" else "vocab_size")
        raise


# chapters/day11_deeper.md · What BERT has and our encoder lacked
def _check_encoder(settings: dict[str, Any]) -> None:
    """Refuse a setting that is of the wrong type or out of range, in one sentence."""

    def check(name: str, kind: type, wanted: str, allowed: Callable[[Any], bool]) -> None:
        _setting(name, settings[name], kind, wanted, allowed)

    sizes = ("vocab_size", "d_model", "num_heads", "d_ff", "num_layers", "max_length")
    for name in sizes:
        check(name, int, "an integer of at least 1", lambda n: n >= 1)
    d_model, last = settings["d_model"], settings["vocab_size"] - 1
    even = settings["positions"] != "sinusoidal" or d_model % 2 == 0
    check("d_model", int, "even for sinusoidal positions", lambda _: even)
    divisor = f"a divisor of d_model={d_model}"
    check("num_heads", int, divisor, lambda n: d_model % n == 0)
    check("dropout", float, "a number in [0, 1)", lambda p: 0 <= p < 1)
    check("activation", str, f"one of {sorted(ACTIVATIONS)}", ACTIVATIONS.__contains__)
    check("positions", str, f"one of {sorted(_POSITIONS)}", _POSITIONS.__contains__)
    check("padding_id", int, f"an integer in 0 … {last}", lambda n: 0 <= n <= last)
    for name in ("norm_first", "fused", "embedding_norm"):
        check(name, bool, "true or false", lambda _: True)
    eps = "a finite number above 0"
    check("layer_norm_eps", float, eps, lambda e: 0 < e < math.inf)
    check("type_vocab_size", int, "an integer of at least 0", lambda n: n >= 0)


class TokenEmbeddings(nn.Module):
    """Tokens plus positions plus, in BERT, the tokens' types; normalised by `norm`."""

    def __init__(
        self, vocab_size: int, d_model: int, max_length: int, dropout: float,
        positions: str, padding_id: int, norm: nn.Module, type_vocab_size: int,
    ):  # fmt: skip
        super().__init__()
        self.padding_id = padding_id
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=padding_id)
        self.positions, self.scale = _make_positions(positions, d_model, max_length)
        self.token_types = None
        if type_vocab_size:
            self.token_types = nn.Embedding(type_vocab_size, d_model)
        self.embedding_norm = norm
        self.dropout = nn.Dropout(dropout)

    def embed(
        self, input_ids: Int[Tensor, "B T"], token_type_ids: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Look up and add up. Without `token_type_ids` every token is of type 0."""
        tokens = _look_up("input_ids", input_ids, self.embedding)
        x = self.positions(tokens * self.scale)
        if self.token_types is not None:
            types = token_type_ids
            if types is None:
                types = torch.zeros_like(input_ids)
            _check_types(types, input_ids)
            x = x + _look_up("token_type_ids", types, self.token_types)
        elif token_type_ids is not None:
            raise ValueError("token_type_ids need a type_vocab_size of at least 1, got one of 0")
        return self.dropout(self.embedding_norm(x))


class TransformerEncoder(TokenEmbeddings):
    """Ids in, one vector in context per token out (Vaswani et al., 2017, section 3.1).

    The activation is "gelu" or "relu", positions are "learned" or "sinusoidal", and
    norm_first gives pre-norm, with a LayerNorm at the end. embedding_norm and a
    type_vocab_size above 0 are BERT's; fused uses PyTorch's kernels. Raises ValueError
    for a setting that is not allowed.
    """

    def __init__(
        self, vocab_size: int, d_model: int = 128, num_heads: int = 4, d_ff: int = 512,
        num_layers: int = 2, max_length: int = 128, dropout: float = 0.1,
        activation: str = "gelu", norm_first: bool = True, positions: str = "learned",
        padding_id: int = 0, fused: bool = True, layer_norm_eps: float = 1e-5,
        embedding_norm: bool = False, type_vocab_size: int = 0,
    ):  # fmt: skip
        _check_encoder(locals())  # every argument, by its name
        norm: nn.Module = nn.Identity()
        if embedding_norm:
            norm = LayerNorm(d_model, layer_norm_eps, fused)
        stage = (vocab_size, d_model, max_length, dropout, positions, padding_id)
        super().__init__(*stage, norm, type_vocab_size)
        settings = (d_model, num_heads, d_ff, dropout, activation, norm_first, fused)
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(*settings, layer_norm_eps) for _ in range(num_layers)
        )
        self.norm: nn.Module = nn.Identity()
        if norm_first:
            self.norm = LayerNorm(d_model, layer_norm_eps, fused)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Encode a batch; without a mask (True: real), all ids but `padding_id` are."""
        if attention_mask is None:
            attention_mask = input_ids != self.padding_id
        x = self.embed(input_ids, token_type_ids)
        for layer in self.layers:
            x = layer(x, attention_mask)
        return self.norm(x)


def _check_types(types: Tensor, input_ids: Tensor) -> None:
    """Refuse types of another shape than the ids."""
    if types.shape != input_ids.shape:
        shapes = f"{list(types.shape)} for input_ids {list(input_ids.shape)}"
        raise ValueError(f"token_type_ids must have the shape of input_ids, got {shapes}")
