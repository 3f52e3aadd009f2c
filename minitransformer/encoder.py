# Generated from chapters/day04_encoder_and_data.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The encoder: embeddings, positions and a stack of layers."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minitransformer.layers import (
    LayerNorm,
    LearnedPositionalEncoding,
    SinusoidalPositionalEncoding,
    TransformerEncoderLayer,
)

__all__ = ["POSITIONS", "TokenEmbeddings", "TransformerEncoder", "check_ids", "make_positions"]

# chapters/day04_encoder_and_data.md · Embeddings and positions on one scale
POSITIONS = {"learned": LearnedPositionalEncoding, "sinusoidal": SinusoidalPositionalEncoding}


# chapters/day04_encoder_and_data.md · Embeddings and positions on one scale
def make_positions(kind: str, d_model: int, max_length: int) -> tuple[nn.Module, float]:
    """The module that adds positions, and the factor for the embeddings that goes with it.

    Sinusoids have entries up to 1, so the paper multiplies embeddings by √d_model (section 3.4);
    learned positions start as small as the embeddings and need no factor.
    """
    if kind not in POSITIONS:
        raise ValueError(f"positions must be one of {sorted(POSITIONS)}, got {kind!r}")
    return POSITIONS[kind](d_model, max_length), math.sqrt(d_model) if kind == "sinusoidal" else 1.0


# chapters/day04_encoder_and_data.md · Ids that no table can look up
def check_ids(input_ids: Int[Tensor, "B T"], vocab_size: int) -> None:
    """Refuse what no embedding table can look up.

    Raises:
        ValueError: for a batch without tokens, or an id outside 0 … vocab_size - 1.
    """
    if input_ids.numel() == 0:
        raise ValueError(f"input_ids must hold at least one token, got the shape {list(input_ids.shape)}")
    for end in input_ids.aminmax():
        if not 0 <= end < vocab_size:
            raise ValueError(
                f"ids must lie in 0 … {vocab_size - 1} for vocab_size={vocab_size}, got {int(end)}"
            )


# chapters/day11_deeper.md · What BERT has and our encoder lacked
class TokenEmbeddings(nn.Module):
    """What the first layer sees: tokens plus positions plus, in BERT, the kinds of tokens; normalised by `norm`."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        max_length: int,
        dropout: float,
        positions: str,
        padding_id: int,
        norm: nn.Module,
        type_vocab_size: int,
    ):
        super().__init__()
        self.padding_id = padding_id
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=padding_id)
        self.positions, self.scale = make_positions(positions, d_model, max_length)
        self.token_types = nn.Embedding(type_vocab_size, d_model) if type_vocab_size else None
        self.embedding_norm = norm
        self.dropout = nn.Dropout(dropout)

    def embed(
        self, input_ids: Int[Tensor, "B T"], token_type_ids: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Look up and add up. Without `token_type_ids` every token is of type 0."""
        check_ids(input_ids, self.embedding.num_embeddings)
        x = self.positions(self.embedding(input_ids) * self.scale)
        if self.token_types is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            x = x + self.token_types(types)
        elif token_type_ids is not None:
            raise ValueError("token_type_ids need a model with a type_vocab_size of at least 1, got one of 0")
        return self.dropout(self.embedding_norm(x))


# chapters/day11_deeper.md · What BERT has and our encoder lacked
class TransformerEncoder(TokenEmbeddings):
    """Token ids in, one vector per token out (Vaswani et al., 2017, section 3; as BERT, Devlin et al., 2019)."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 128,
        num_heads: int = 4,
        d_ff: int = 512,
        num_layers: int = 2,
        max_length: int = 128,
        dropout: float = 0.1,
        activation: str = "gelu",
        norm_first: bool = True,
        positions: str = "learned",
        padding_id: int = 0,
        fused: bool = True,
        layer_norm_eps: float = 1e-5,
        embedding_norm: bool = False,
        type_vocab_size: int = 0,
    ):
        first = LayerNorm(d_model, layer_norm_eps, fused) if embedding_norm else nn.Identity()
        stage = (vocab_size, d_model, max_length, dropout, positions, padding_id, first, type_vocab_size)
        super().__init__(*stage)
        settings = (d_model, num_heads, d_ff, dropout, activation, norm_first, fused, layer_norm_eps)
        self.layers = nn.ModuleList(TransformerEncoderLayer(*settings) for _ in range(num_layers))
        self.norm = LayerNorm(d_model, layer_norm_eps, fused) if norm_first else nn.Identity()

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Encode a batch. The mask is True on real tokens; without one, all ids but `padding_id` are real."""
        x = self.embed(input_ids, token_type_ids)
        mask = input_ids != self.padding_id if attention_mask is None else attention_mask
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)
