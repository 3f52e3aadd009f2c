# Generated from chapters/day04_encoder_and_data.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.encoder`."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minitransformer.attention import padding_mask
from minitransformer.encoder import TokenEmbeddings, TransformerEncoder, _check_ids, _make_positions
from minitransformer.layers import LayerNorm, SinusoidalPositionalEncoding


# chapters/day04_encoder_and_data.md · The class
def small_encoder(**changes: Any) -> TransformerEncoder:
    """V, C, H, d_ff, L and max_length all different, float64, no dropout, every parameter random."""
    torch.manual_seed(0)
    settings = {"vocab_size": 31, "d_model": 12, "num_heads": 3, "d_ff": 20, "num_layers": 2}
    encoder = TransformerEncoder(**(settings | {"max_length": 16, "dropout": 0.0} | changes)).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    return encoder


def padded(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Random ids from 1 to 30, zeros after each sentence's length; and the mask."""
    mask = padding_mask(torch.tensor(lengths))
    ids = torch.randint(1, 31, mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask


def test_padding_leaks_nothing():
    lengths = [7, 4, 1]
    input_ids, mask = padded(lengths)
    noise = torch.where(mask, input_ids, torch.randint(1, 31, mask.shape))
    paper = {"norm_first": False, "positions": "sinusoidal"}
    for changes in ({}, {"fused": False}, paper):
        encoder = small_encoder(**changes)
        batch = encoder(input_ids)
        for row, length in enumerate(lengths):
            alone = encoder(input_ids[row : row + 1, :length])[0]
            torch.testing.assert_close(batch[row, :length], alone, rtol=0, atol=1e-12)
        out = encoder(noise, mask)
        torch.testing.assert_close(out[mask], batch[mask], rtol=0, atol=1e-12)


def torch_stack(encoder: TransformerEncoder) -> nn.TransformerEncoder:
    """PyTorch's encoder with the weights of ours; it stacks query, key and value weights in one matrix."""
    first, d_model = encoder.layers[0], encoder.embedding.embedding_dim
    layer = nn.TransformerEncoderLayer(
        d_model, first.self_attn.num_heads, first.feed_forward.linear1.weight.size(0), dropout=0.0,
        activation=first.feed_forward.activation, batch_first=True, norm_first=first.norm_first,
    )  # fmt: skip
    norm = nn.LayerNorm(d_model) if first.norm_first else None
    twin = nn.TransformerEncoder(layer, len(encoder.layers), norm, enable_nested_tensor=False).double()
    twin.load_state_dict(torch_names(encoder.state_dict()))
    return twin


def torch_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layers' tensors, from our names to PyTorch's."""
    renamed = {
        n.replace("feed_forward.", ""): t for n, t in tensors.items() if n.startswith(("layers", "norm"))
    }
    for prefix in {name.split("q_proj")[0] for name in renamed if "q_proj" in name}:
        for kind in ("weight", "bias"):
            parts = [renamed.pop(f"{prefix}{part}_proj.{kind}") for part in "qkv"]
            renamed[f"{prefix}in_proj_{kind}"] = torch.cat(parts)
    return renamed


def test_encoder_equals_torch():
    input_ids, mask = padded([7, 4, 1])
    paper = {"norm_first": False, "positions": "sinusoidal", "activation": "relu"}
    for changes in ({}, {"fused": False}, paper):
        encoder = small_encoder(**changes)
        twin = torch_stack(encoder)
        out = encoder(input_ids, mask)
        start = encoder.positions(encoder.embedding(input_ids) * encoder.scale)
        expected = twin(start, src_key_padding_mask=~mask)
        torch.testing.assert_close(out[mask], expected[mask], rtol=0, atol=1e-10)

        direction = torch.randn(int(mask.sum()), 12, dtype=torch.float64)
        (out[mask] * direction).sum().backward()
        ours = {name: p.grad.clone() for name, p in encoder.named_parameters()}
        ours = torch_names(ours)
        (expected[mask] * direction).sum().backward()
        for name, p in twin.named_parameters():
            torch.testing.assert_close(ours[name], p.grad, rtol=0, atol=1e-9, msg=name)


def test_order_matters_only_through_positions():
    input_ids, _ = padded([7, 7])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    encoder = small_encoder()
    difference = encoder(input_ids[:, order]) - encoder(input_ids)[:, order]
    assert difference.abs().max() > 0.1
    nn.init.zeros_(encoder.positions.encoding)
    permuted, out = encoder(input_ids[:, order]), encoder(input_ids)
    torch.testing.assert_close(permuted, out[:, order], rtol=0, atol=1e-12)


def test_make_positions():
    module, scale = _make_positions("sinusoidal", d_model=6, max_length=11)
    assert math.isclose(scale, math.sqrt(6)) and isinstance(module, SinusoidalPositionalEncoding)
    module, scale = _make_positions("learned", d_model=6, max_length=11)
    assert scale == 1 and [p.shape for p in module.parameters()] == [(11, 6)]
    with pytest.raises(ValueError, match=r"one of \['learned', 'sinusoidal'\], got 'rotary'"):
        _make_positions("rotary", 6, 11)


def test_check_ids():
    _check_ids(torch.tensor([[0, 6], [3, 2]]), vocab_size=7)
    for wrong in (7, -1):
        with pytest.raises(ValueError, match=rf"0 … 6 for vocab_size=7, got {wrong}"):
            _check_ids(torch.tensor([[0, 6], [wrong, 2]]), vocab_size=7)


def test_encoder_refuses():
    encoder = small_encoder()
    assert encoder(torch.zeros(2, 5, dtype=torch.long)).isfinite().all()
    with pytest.raises(ValueError, match="vocab_size=31, got 31"):
        encoder(torch.tensor([[1, 31]]))
    with pytest.raises(ValueError, match="17 tokens, more than max_length=16"):
        encoder(torch.ones(2, 17, dtype=torch.long))


def test_first_layer_sees_embedding_plus_position():
    input_ids, mask = padded([7, 4])
    for positions, scale in (("learned", 1.0), ("sinusoidal", math.sqrt(12))):
        encoder = small_encoder(positions=positions, num_layers=1)
        x = scale * encoder.embedding.weight[input_ids] + encoder.positions.encoding[:7]
        expected = encoder.norm(encoder.layers[0](x, mask))
        torch.testing.assert_close(encoder(input_ids), expected, rtol=0, atol=1e-12)


def test_padding_row_gets_no_gradient():
    input_ids, _ = padded([7, 4])
    encoder = small_encoder()
    encoder(input_ids).square().sum().backward()
    gradient = encoder.embedding.weight.grad.abs().sum(1)
    assert gradient[0] == 0, "row 0 is padding"
    assert (gradient[input_ids[0]] > 0).all(), "every word of the longest sentence has a gradient"


# chapters/day11_deeper.md · What BERT has and our encoder lacked
def test_token_embeddings_add_up_tokens_positions_and_types():
    torch.manual_seed(0)
    stage = TokenEmbeddings(9, 4, 7, 0.0, "learned", 0, LayerNorm(4, 0.5), 2)
    ids, types = torch.tensor([[3, 5, 8]]), torch.tensor([[0, 1, 1]])
    rows = (
        stage.embedding.weight[[3, 5, 8]] + stage.positions.encoding[:3] + stage.token_types.weight[[0, 1, 1]]
    )
    expected = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, keepdim=True, correction=0) + 0.5).sqrt()
    torch.testing.assert_close(stage.embed(ids, types)[0], expected)
    assert torch.equal(stage.embed(ids), stage.embed(ids, torch.zeros_like(ids))), "type 0 is the default"
    try:
        TokenEmbeddings(9, 4, 7, 0.0, "learned", 0, nn.Identity(), 0).embed(ids, types)
        raise AssertionError("types were given to a model without types, and ignored")
    except ValueError as error:
        assert "type_vocab_size" in str(error)
