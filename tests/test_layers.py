# Generated from chapters/day03_encoder_layer.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.layers`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.attention import padding_mask
from minitransformer.layers import (
    LayerNorm,
    LearnedPositionalEncoding,
    PositionwiseFeedForward,
    SinusoidalPositionalEncoding,
    TransformerEncoderLayer,
    _check_length,
    _check_width,
    _gelu_slope,
    _position_angles,
    encoder_layer_gradients,
    layer_norm,
    layer_norm_gradients,
    sinusoidal_encoding,
)


# chapters/day03_encoder_layer.md · From two hands to the formula
def test_sinusoidal_encoding():
    T, C = 50, 6
    encoding = sinusoidal_encoding(T, C)
    for t in range(T):
        for i in range(C // 2):
            angle = t / 10_000 ** (2 * i / C)
            assert math.isclose(_position_angles(T, C)[t, i], angle, rel_tol=1e-12)
            assert abs(encoding[t, 2 * i] - math.sin(angle)) < 1e-6, (
                f"not a sine at position {t}, column {2 * i}"
            )
            assert abs(encoding[t, 2 * i + 1] - math.cos(angle)) < 1e-6, f"not a cosine at {t}, {2 * i + 1}"
    torch.testing.assert_close(encoding[0], torch.tensor([0.0, 1.0] * 3))
    torch.testing.assert_close(encoding.square().sum(-1), torch.full((T,), C / 2))


# chapters/day03_encoder_layer.md · A shift is a rotation
def test_encoding_shift_is_a_rotation():
    T, C = 40, 10
    encoding = sinusoidal_encoding(T, C).double()
    for delta in (1, 7):
        turns = _position_angles(T, C)[delta]
        for t in range(T - delta):
            sine, cosine = encoding[t, 0::2], encoding[t, 1::2]
            turned = torch.stack(
                (sine * turns.cos() + cosine * turns.sin(), cosine * turns.cos() - sine * turns.sin()), -1
            )
            torch.testing.assert_close(turned.flatten(), encoding[t + delta], rtol=0, atol=1e-6)


def test_encoding_dot_product_depends_on_distance():
    products = sinusoidal_encoding(30, 8) @ sinusoidal_encoding(30, 8).T
    for delta in range(30):
        diagonal = products.diagonal(delta)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=0, atol=1e-5)


# chapters/day03_encoder_layer.md · Learned positions
def test_learned_and_sinusoidal_positions():
    B, T, C = 3, 5, 8
    x = torch.randn(B, T, C, generator=torch.Generator().manual_seed(1))
    learned = LearnedPositionalEncoding(C, max_length=9)
    fixed = SinusoidalPositionalEncoding(C, max_length=9)
    assert [p.shape for p in learned.parameters()] == [(9, C)]
    torch.testing.assert_close(learned(x) - x, learned.encoding[:T].expand(B, T, C))
    assert not torch.allclose(learned(x), fixed(x), atol=0.1), "the two encodings are different vectors"
    with torch.no_grad():
        learned.encoding.copy_(fixed.encoding)  # a learned table can hold the sinusoids
    torch.testing.assert_close(learned(x), fixed(x))

    learned(x).sum().backward()
    torch.testing.assert_close(learned.encoding.grad[:T], torch.full((T, C), float(B)))
    assert learned.encoding.grad[T:].abs().max() == 0, "rows that no sentence reaches learn nothing"


def message_of(call) -> str:
    try:
        call()
    except ValueError as error:
        assert "\n" not in str(error), "an error should be one sentence"
        return str(error)
    raise AssertionError("a wrong argument was accepted")


def test_sinusoidal_module():
    B, T, C = 3, 5, 8
    x = torch.randn(B, T, C, generator=torch.Generator().manual_seed(0))
    positions = SinusoidalPositionalEncoding(C, max_length=9)
    torch.testing.assert_close(positions(x) - x, sinusoidal_encoding(9, C)[:T].expand(B, T, C))
    assert list(positions.parameters()) == [], "nothing here is learned"
    assert positions.state_dict() == {}, "the table need not be saved"


def test_sinusoidal_encoding_refuses():
    assert "d_model must be even" in message_of(lambda: sinusoidal_encoding(5, 7))
    assert "got 7" in message_of(lambda: sinusoidal_encoding(5, 7))
    assert "length must be an integer of at least 1" in message_of(lambda: sinusoidal_encoding(0, 8))


def test_positions_refuse():
    x = torch.zeros(2, 10, 8)
    assert "10 tokens, more than max_length=9" in message_of(lambda: SinusoidalPositionalEncoding(8, 9)(x))
    assert "1 entries, but d_model=8" in message_of(lambda: SinusoidalPositionalEncoding(8, 20)(x[..., :1]))
    assert "7 tokens, more than max_length=6" in message_of(lambda: _check_length(7, 6))
    assert "3 entries, but d_model=4" in message_of(lambda: _check_width(3, 4))
    _check_length(6, 6)
    _check_width(4, 4)


def test_learned_positions_refuse():
    x = torch.zeros(2, 10, 8)
    assert "10 tokens, more than max_length=9" in message_of(lambda: LearnedPositionalEncoding(8, 9)(x))
    assert "6 entries, but d_model=8" in message_of(lambda: LearnedPositionalEncoding(8, 20)(x[..., :6]))
    assert "max_length must be an integer of at least 1, got 0" in message_of(
        lambda: LearnedPositionalEncoding(8, 0)
    )


# chapters/day03_encoder_layer.md · The feed-forward network: think about one token at a time
def test_feed_forward_is_position_wise():
    B, T, C, d_ff = 2, 5, 4, 7
    x = torch.randn(B, T, C, generator=torch.Generator().manual_seed(0))
    feed_forward = PositionwiseFeedForward(C, d_ff)
    changed = x.clone()
    changed[1, 3] += 1.0
    moved = (feed_forward(changed) - feed_forward(x)).abs().amax(-1) > 1e-6
    expected = torch.zeros(B, T, dtype=torch.bool)
    expected[1, 3] = True
    assert torch.equal(moved, expected), "a token's change must reach its own output, and no other"


def test_relu_and_gelu_side_by_side():
    paper, ours = (PositionwiseFeedForward(1, 1, activation=name) for name in ("relu", "gelu"))
    for module in (paper, ours):
        for parameter, value in zip(module.parameters(), (1.0, 0.0, 1.0, 0.0), strict=True):
            nn.init.constant_(parameter, value)  # the module is now the activation itself
    x = torch.tensor([[-0.75], [0.0], [0.75], [6.0]])
    torch.testing.assert_close(paper(x), x.relu())
    torch.testing.assert_close(ours(x), x * torch.distributions.Normal(0.0, 1.0).cdf(x))
    assert ours(x)[0] < -0.1 and (ours(x) - paper(x))[3].abs() < 1e-6


def test_feed_forward_equals_torch():
    B, T, C, d_ff = 2, 5, 4, 7
    generator = torch.Generator().manual_seed(1)
    x, direction = torch.randn(2, B, T, C, generator=generator, dtype=torch.float64)
    for activation, module in (("relu", nn.ReLU()), ("gelu", nn.GELU())):
        ours = PositionwiseFeedForward(C, d_ff, activation=activation).double()
        theirs = nn.Sequential(nn.Linear(C, d_ff), module, nn.Linear(d_ff, C)).double()
        # the same tensors in the same order, under the names of nn.Sequential
        theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
        x1, x2 = (x.clone().requires_grad_() for _ in range(2))
        out, expected = ours(x1), theirs(x2)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
        (out * direction).sum().backward()
        (expected * direction).sum().backward()
        torch.testing.assert_close(x1.grad, x2.grad, rtol=0, atol=1e-10)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10)


def test_feed_forward_refuses():
    assert "d_ff must be an integer of at least 1, got 0" in message_of(lambda: PositionwiseFeedForward(4, 0))
    assert "dropout must be a number in [0, 1), got 1.0" in message_of(
        lambda: PositionwiseFeedForward(4, 7, 1.0)
    )
    assert "['gelu', 'relu'], got 'tanh'" in message_of(
        lambda: PositionwiseFeedForward(4, 7, activation="tanh")
    )


# chapters/day03_encoder_layer.md · LayerNorm: one token, mean 0, size 1
def test_layer_norm_by_hand():
    out = layer_norm(torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.ones(4), torch.zeros(4))
    torch.testing.assert_close(out, torch.tensor([-2.0, -1.0, 0.0, 3.0]) / math.sqrt(3.5), rtol=0, atol=1e-5)


def test_layer_norm_equals_torch():
    B, T, C = 2, 3, 5
    generator = torch.Generator().manual_seed(0)
    x, direction = torch.randn(2, B, T, C, generator=generator, dtype=torch.float64) * 3 + 1
    weight, bias = torch.randn(2, C, generator=generator, dtype=torch.float64)
    results = []
    for function in (layer_norm, lambda x, w, b, eps: F.layer_norm(x, (C,), w, b, eps)):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        out = function(*inputs, 0.1)  # a large eps, so that its place matters
        results.append([out, *torch.autograd.grad((out * direction).sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_layer_norm_module_equals_torch():
    B, T, C = 2, 3, 5
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(B, T, C, generator=generator, dtype=torch.float64) * 3 + 1
    theirs = nn.LayerNorm(C, eps=1e-3).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, generator=generator)
    for fused in (True, False):
        ours = LayerNorm(C, eps=1e-3, fused=fused).double()
        ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)


def test_layer_norm_is_per_token():
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    changed = x.clone()
    changed[1, 2] *= 7.0
    changed[1, 2, 0] += 1.0
    for fused in (True, False):
        moved = (LayerNorm(5, fused=fused)(changed) != LayerNorm(5, fused=fused)(x)).any(-1)
        assert moved.sum() == 1 and moved[1, 2], "one token's change must not reach another"


def test_layer_norm_refuses():
    assert "eps must be positive and finite, got 0.0" in message_of(lambda: LayerNorm(4, eps=0.0))
    assert "d_model must be an integer of at least 1, got 0" in message_of(lambda: LayerNorm(0))
    assert "5 entries, but d_model=4" in message_of(lambda: LayerNorm(4)(torch.zeros(2, 5)))


# chapters/day03_encoder_layer.md · What LayerNorm forgets
def test_layer_norm_forgets_mean_and_size():
    C = 7
    x = torch.randn(3, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for fused in (True, False):
        norm = LayerNorm(C, eps=1e-14, fused=fused).double()
        torch.testing.assert_close(norm(5.0 * x - 2.0), norm(x), rtol=0, atol=1e-10)
        torch.testing.assert_close(norm(x).mean(-1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(norm(x).square().sum(-1), torch.full((3,), float(C), dtype=torch.float64))
        assert not torch.allclose(norm(-x), norm(x)), "a negative factor turns the direction round"


def test_layer_norm_of_a_constant_vector():
    norm = LayerNorm(4)
    nn.init.constant_(norm.bias, 0.5)
    x = torch.full((2, 4), 3.0, requires_grad=True)
    out = norm(x)
    out.sum().backward()
    assert torch.equal(out, torch.full((2, 4), 0.5)) and torch.isfinite(x.grad).all()


# chapters/day03_encoder_layer.md · The backward pass of LayerNorm
def test_layer_norm_backward_is_a_projection():
    C = 6
    x, direction = torch.randn(2, C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gradients = []
    for factor in (1.0, 2.0):
        scaled = (factor * x).requires_grad_()
        (LayerNorm(C, eps=1e-14, fused=False).double()(scaled) * direction).sum().backward()
        gradients.append(scaled.grad)
    assert abs(gradients[0].sum()) < 1e-10, "nothing along (1, ..., 1): the mean does not matter"
    assert abs(gradients[0] @ (x - x.mean())) < 1e-10, (
        "nothing along the normalised vector: the size does not matter"
    )
    torch.testing.assert_close(gradients[1], gradients[0] / 2)
    assert torch.autograd.gradcheck(
        lambda x, w, b: layer_norm(x, w, b),
        [t.clone().requires_grad_() for t in (x, direction, x + direction)],
    ), "the gradient must agree with central differences"


# chapters/day03_encoder_layer.md · The class
def random_layer(dropout: float = 0.0, **options) -> TransformerEncoderLayer:
    """A float64 layer, width 12, 3 heads; no parameter has a special value (0 or 1)."""
    layer = TransformerEncoderLayer(12, 3, 20, dropout, **options).double()
    generator = torch.Generator().manual_seed(5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return layer


def random_tokens(B: int = 2, T: int = 5, C: int = 12) -> Tensor:
    return torch.randn(B, T, C, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def test_layer_does_not_leak_padding():
    x, mask = random_tokens(), padding_mask(torch.tensor([5, 3]))
    disturbed = x.clone()
    disturbed[~mask] = 100.0
    for norm_first in (False, True):
        for fused in (False, True):
            layer = random_layer(norm_first=norm_first, fused=fused)
            assert torch.equal(layer(disturbed, mask)[mask], layer(x, mask)[mask]), (
                "padding leaks into real tokens"
            )
            alone = layer(x[1:, :3])  # the short sentence without any padding
            torch.testing.assert_close(layer(x, mask)[1:, :3], alone, rtol=0, atol=1e-12)


def test_layer_permutes_with_its_tokens():
    x, order = random_tokens(), torch.tensor([3, 0, 4, 2, 1])
    for norm_first in (False, True):
        layer = random_layer(norm_first=norm_first)
        torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=0, atol=1e-12)
        changed = x.clone()
        changed[0, 1, 0] += 1.0
        moved = (layer(changed) - layer(x)).abs().amax(-1) > 1e-9
        assert moved[0].all() and not moved[1].any(), "within a sentence all tokens mix; sentences never do"


# chapters/day03_encoder_layer.md · Equal to PyTorch
def torch_names(layer: TransformerEncoderLayer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our layer's weights (or gradients) under the names of PyTorch's layer."""
    renamed = {name.removeprefix("feed_forward."): tensor for name, tensor in tensors.items()}
    for kind in ("weight", "bias"):
        parts = [renamed.pop(f"self_attn.{part}_proj.{kind}") for part in "qkv"]
        renamed[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
    return renamed


def torch_twin(layer: TransformerEncoderLayer) -> nn.TransformerEncoderLayer:
    d_ff, d_model = layer.feed_forward.linear1.weight.shape
    twin = nn.TransformerEncoderLayer(
        d_model,
        layer.self_attn.num_heads,
        d_ff,
        layer.dropout.p,
        activation=layer.feed_forward.activation,
        batch_first=True,
        norm_first=layer.norm_first,
        dtype=torch.float64,
    )
    twin.load_state_dict(torch_names(layer, layer.state_dict()))
    return twin


def assert_equals_torch(layer: TransformerEncoderLayer, mask: Tensor | None) -> None:
    twin = torch_twin(layer)
    x1, x2 = random_tokens().requires_grad_(), random_tokens().requires_grad_()
    out = layer(x1, mask)
    ignored = None if mask is None else ~mask  # True = ignore there
    expected = twin(x2, src_key_padding_mask=ignored)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)

    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(x1.grad, x2.grad, rtol=0, atol=1e-10)
    ours = torch_names(layer, {name: parameter.grad for name, parameter in layer.named_parameters()})
    theirs = {name: parameter.grad for name, parameter in twin.named_parameters()}
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)  # names and numbers


def test_layer_equals_torch():
    for norm_first in (False, True):
        for activation in ("relu", "gelu"):
            for fused in (False, True):
                for mask in (None, padding_mask(torch.tensor([5, 3]))):
                    layer = random_layer(norm_first=norm_first, activation=activation, fused=fused)
                    assert_equals_torch(layer, mask)


def test_layer_with_silent_branches():
    x = random_tokens()
    for norm_first in (False, True):
        layer = random_layer(norm_first=norm_first)
        for last in (layer.self_attn.out_proj, layer.feed_forward.linear2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        expected = x if norm_first else layer.norm2(layer.norm1(x))
        assert torch.equal(layer(x), expected), "with silent branches only the residual stream is left"


def test_paper_and_modern_order_side_by_side():
    x, norm = random_tokens(), LayerNorm(12).double()
    paper, modern = random_layer(), random_layer(norm_first=True, activation="gelu")
    modern.load_state_dict(paper.state_dict())  # the same weights fit both orders
    assert not paper.norm_first and paper.feed_forward.activation == "relu", "the defaults are the paper's"
    assert (paper(x) - modern(x)).abs().max() > 0.1
    sizes = paper(x).sub(paper.norm2.bias).div(paper.norm2.weight).square().mean(-1)
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=0, atol=1e-3)  # post-norm ends in a norm
    assert (modern(x) - norm(modern(x))).abs().max() > 0.1  # pre-norm does not


def test_layer_dropout_zeroes_a_share():
    p, x = 0.3, torch.randn(8, 40, 12, generator=torch.Generator().manual_seed(8))
    for silent in ("self_attn.out_proj", "feed_forward.linear2"):
        layer = TransformerEncoderLayer(12, 3, 20, dropout=p, norm_first=True)
        for parameter in layer.get_submodule(silent).parameters():
            nn.init.zeros_(parameter)
        share = (layer(x) == x).double().mean()
        error = math.sqrt(p * (1 - p) / x.numel())
        assert abs(share - p) < 6 * error, (
            f"with {silent} silent, {share:.2f} of the other branch is zero, not {p}"
        )
        assert torch.equal(layer.eval()(x), layer(x)), "in eval mode nothing is random"


def test_layer_dropout_equals_torch():
    x = random_tokens(B=1)  # with more, PyTorch draws in another order: inside, it works on [T, B, C]
    for norm_first in (False, True):
        layer = random_layer(norm_first=norm_first, dropout=0.3).train()
        twin = torch_twin(layer).train()
        torch.manual_seed(9)
        out = layer(x)
        torch.manual_seed(9)
        torch.testing.assert_close(out, twin(x), rtol=0, atol=1e-10)
        assert (out - layer.eval()(x)).abs().max() > 0.1


def test_layer_refuses():
    assert "num_heads" in message_of(lambda: TransformerEncoderLayer(12, 5, 20))
    assert "dropout" in message_of(lambda: TransformerEncoderLayer(12, 3, 20, dropout=1.5))
    assert "d_ff must be an integer of at least 1, got 0" in message_of(
        lambda: TransformerEncoderLayer(12, 3, 0)
    )
    assert "activation" in message_of(lambda: TransformerEncoderLayer(12, 3, 20, activation="swish"))
    for norm_first in (False, True):
        layer = TransformerEncoderLayer(12, 3, 20, norm_first=norm_first)
        assert "8 entries, but d_model=12" in message_of(lambda layer=layer: layer(torch.zeros(2, 5, 8)))
        mask = torch.ones(2, 4, dtype=torch.bool)
        assert "attention_mask" in message_of(
            lambda layer=layer, mask=mask: layer(torch.zeros(2, 5, 12), mask)
        )


def test_layer_passes_fused_on():
    for fused in (True, False):
        layer = random_layer(fused=fused)
        assert {layer.self_attn.fused, layer.norm1.fused, layer.norm2.fused} == {fused}


def test_pytorch_answers_an_empty_row_by_zeros_only_without_weights():
    attention = nn.MultiheadAttention(4, 2, bias=False, batch_first=True).eval()
    x, nothing = (torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))  # True = ignore
    with_weights, _ = attention(x, x, x, key_padding_mask=nothing)
    without, _ = attention(x, x, x, key_padding_mask=nothing, need_weights=False)
    assert with_weights.isnan().all() and (without == 0).all()


# chapters/day11_deeper.md · LayerNorm, and a whole layer by hand
def test_encoder_layer_gradients_equal_autograd():
    torch.manual_seed(5)
    layer = TransformerEncoderLayer(6, 3, 10, dropout=0.0, activation="gelu").double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, mean=0.3, std=0.5)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    x, grad_out = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    for mask in (None, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()):
        variable = x.clone().requires_grad_()
        out = layer(variable, mask)
        theirs = torch.autograd.grad(out, [variable, *parameters], grad_out)
        grad_x, found = encoder_layer_gradients(layer, x, grad_out, mask)
        assert found.keys() == set(names) and len(found) == 16
        mine = [grad_x, *(found[name] for name in names)]
        for name, ours, other in zip(("x", *names), mine, theirs, strict=True):
            assert torch.allclose(ours, other, rtol=0, atol=1e-12), name
    for options in ({"activation": "relu"}, {"activation": "gelu", "norm_first": True}):
        other = TransformerEncoderLayer(6, 3, 10, dropout=0.0, **options).double()
        try:
            encoder_layer_gradients(other, x, grad_out)
        except ValueError as error:
            assert "post-norm" in str(error)
        else:
            raise AssertionError(f"{options}: wrong gradients, without a word")


def test_layer_norm_gradients_equal_autograd():
    g = torch.Generator().manual_seed(4)
    for leading in ((), (4,), (2, 3)):
        x, weight, bias, grad_out = (
            torch.randn(*shape, generator=g, dtype=torch.float64)
            for shape in ((*leading, 5), (5,), (5,), (*leading, 5))
        )
        variables = [tensor.requires_grad_() for tensor in (x, weight, bias)]
        theirs = torch.autograd.grad(F.layer_norm(x, (5,), weight, bias, 0.1), variables, grad_out)
        for name, mine, other in zip(
            "xwb", layer_norm_gradients(x, weight, grad_out, 0.1), theirs, strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-12, msg=f"{name}, leading axes {leading}")


def test_gelu_slope_is_the_derivative():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64, requires_grad=True)
    (theirs,) = torch.autograd.grad(F.gelu(x).sum(), x)
    torch.testing.assert_close(_gelu_slope(x.detach()), theirs, rtol=0, atol=1e-12)


# chapters/day11_deeper.md · What BERT has and our encoder lacked
def test_encoder_layer_hands_its_eps_to_both_norms():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6)
    for norm_first in (False, True):
        layer = TransformerEncoderLayer(6, 3, 10, 0.0, norm_first=norm_first, layer_norm_eps=0.5)
        usual = TransformerEncoderLayer(6, 3, 10, 0.0, norm_first=norm_first)
        usual.load_state_dict(layer.state_dict())
        assert layer.norm1.eps == layer.norm2.eps == 0.5
        assert usual.norm1.eps == usual.norm2.eps == 1e-5
        assert (layer(x) - usual(x)).abs().max() > 0.01, "eps changes the numbers"
