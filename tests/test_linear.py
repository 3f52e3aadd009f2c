# Generated from chapters/day01_attention_derived.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.linear`."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.linear import Linear, LinearFunction, linear_gradients


# chapters/day01_attention_derived.md · A second opinion: central differences
def numerical_gradient(function, x: Tensor, step: float = 1e-6) -> Tensor:
    """The derivative of a function by each entry of x, by central differences."""
    assert x.dtype == torch.float64, "differences of float32 numbers are too coarse to check a gradient"
    gradient = torch.zeros_like(x)
    for index in itertools.product(*map(range, x.shape)):
        nudge = torch.zeros_like(x)
        nudge[index] = step
        gradient[index] = (function(x + nudge) - function(x - nudge)) / (2 * step)
    return gradient


def test_numerical_gradient_of_a_cubic():
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, -1.0]], dtype=torch.float64)
    found = numerical_gradient(lambda x: (x**3).sum(), x)
    assert torch.allclose(found, 3 * x**2, rtol=0, atol=1e-8), "the derivative of x³ is 3x²"


# chapters/day01_attention_derived.md · `LinearFunction`: our backward pass
def linear_inputs(*leading: int, bias: bool = True) -> list[Tensor | None]:
    """Random x [..., 3], weight [2, 3] and bias [2] in float64, all with gradients."""
    g = torch.Generator().manual_seed(1)
    shapes = [(*leading, 3), (2, 3), (2,)][: 3 if bias else 2]
    tensors = [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]
    return tensors if bias else [*tensors, None]


def test_linear_function_equals_autograd():
    for leading, bias in itertools.product([(), (5,), (4, 5), (0,)], [True, False]):
        inputs = linear_inputs(*leading, bias=bias)
        wanted = [tensor for tensor in inputs if tensor is not None]
        ours, theirs = LinearFunction.apply(*inputs), F.linear(*inputs)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12), f"forward differs for leading axes {leading}"
        grad_y = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        pairs = zip(
            torch.autograd.grad(ours, wanted, grad_y),
            torch.autograd.grad(theirs, wanted, grad_y),
            strict=True,
        )
        for name, (mine, other) in zip(("x", "weight", "bias"), pairs, strict=False):
            assert mine.shape == other.shape, f"gradient of {name} has shape {list(mine.shape)}"
            assert torch.allclose(mine, other, rtol=0, atol=1e-12), (
                f"gradient of {name} differs for {leading}"
            )


def test_linear_function_agrees_with_central_differences():
    inputs = [tensor.detach() for tensor in linear_inputs(4, 5)]

    def loss(*tensors: Tensor) -> Tensor:
        return LinearFunction.apply(*tensors).sin().sum()

    for position, name in enumerate(("x", "weight", "bias")):
        variable = inputs[position].clone().requires_grad_()
        loss(*inputs[:position], variable, *inputs[position + 1 :]).backward()
        numerical = numerical_gradient(
            lambda t, p=position: loss(*inputs[:p], t, *inputs[p + 1 :]), inputs[position]
        )
        worst = (variable.grad - numerical).abs().max().item()
        assert worst < 1e-8, f"gradient of {name} is off by {worst:.1e}"


def test_linear_function_computes_only_what_is_wanted():
    x, weight, _ = linear_inputs(5)
    grad_y = torch.ones(5, 2, dtype=torch.float64)
    for wanted in itertools.product([True, False], repeat=3):
        ctx = SimpleNamespace(saved_tensors=(x, weight), needs_input_grad=wanted)
        found = LinearFunction.backward(ctx, grad_y)
        assert [gradient is not None for gradient in found] == list(wanted)


def test_linear_function_refuses_a_second_derivative():
    x, weight, bias = linear_inputs(5)
    y = LinearFunction.apply(x, weight, bias).pow(2).sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


# chapters/day01_attention_derived.md · `Linear`: the module
def test_linear_equals_torch():
    for bias, fused in itertools.product([True, False], [True, False]):
        theirs = nn.Linear(3, 2, bias=bias).double()
        ours = Linear(3, 2, bias=bias, fused=fused).double()
        ours.load_state_dict(theirs.state_dict())  # the names must be the same too
        x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        out, expected = ours(mine), theirs(other)
        assert torch.allclose(out, expected, rtol=0, atol=1e-12), f"forward differs (fused={fused})"
        assert ("LinearFunction" in out.grad_fn.name()) != fused, "fused=False must run our backward pass"
        out.sin().sum().backward()
        expected.sin().sum().backward()
        assert torch.allclose(mine.grad, other.grad, rtol=0, atol=1e-12), (
            f"input gradient differs (fused={fused})"
        )
        for (name, p), (_, p_theirs) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert torch.allclose(p.grad, p_theirs.grad, rtol=0, atol=1e-12), (
                f"{name} differs (fused={fused})"
            )


def test_linear_starts_uniform_in_one_over_root_in_features():
    layer = Linear(100, 200)
    assert layer.weight.shape == (200, 100) and layer.bias.shape == (200,)
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= 0.1, "in_features = 100, so no start may lie outside ±1/10"
    assert math.isclose(layer.weight.var().item(), 1 / 300, rel_tol=0.05)
    assert abs(layer.weight.mean().item()) < 0.003, "more than 7 standard errors away from 0"
    out = layer(torch.randn(500, 100, generator=torch.Generator().manual_seed(4))) - layer.bias
    assert math.isclose(out.var().item(), 1 / 3, rel_tol=0.1), "the factor 1/√I should keep the variance"
    starts = []
    for kind in (Linear, nn.Linear):
        torch.manual_seed(0)
        starts.append(kind(100, 200))
    for mine, theirs in zip(*(start.parameters() for start in starts), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5), "the same seed must give PyTorch's start"


def test_linear_refuses_wrong_sizes():
    with pytest.raises(ValueError, match="in_features must be an integer of at least 1, got 0"):
        Linear(0, 2)
    with pytest.raises(ValueError, match="out_features must be an integer of at least 1, got -2"):
        Linear(3, -2)
    with pytest.raises((ValueError, TypeError), match="in_features"):  # TypeError where types are checked
        Linear(3.0, 2)
    for fused in (True, False):
        with pytest.raises(ValueError, match=r"in_features = 3 numbers on its last axis, got shape \[3, 4\]"):
            Linear(3, 2, fused=fused)(torch.zeros(3, 4))


# chapters/day11_deeper.md · LayerNorm, and a whole layer by hand
def test_linear_gradients_are_those_of_the_function():
    g = torch.Generator().manual_seed(3)
    x, weight, bias, grad_out = (
        torch.randn(shape, generator=g, dtype=torch.float64) for shape in ((2, 4, 3), (5, 3), (5,), (2, 4, 5))
    )
    variables = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    theirs = torch.autograd.grad(LinearFunction.apply(*variables), variables, grad_out)
    for mine, other in zip(linear_gradients(x, weight, grad_out), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
