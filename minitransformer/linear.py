# Generated from chapters/day01_attention_derived.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""A linear layer whose backward pass is derived by hand."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Linear", "LinearFunction", "linear_gradients"]


# chapters/day01_attention_derived.md · `LinearFunction`: our backward pass
class LinearFunction(torch.autograd.Function):
    """`y = x Wᵀ + b` with its backward pass: `G W`, `Gᵀ X` and the column sums of `G`.

    Shapes: x `[..., I]`, weight `[O, I]`, bias `[O]` or None, y `[..., O]`.
    Every leading axis is a batch axis. The backward pass has no derivative of its own,
    and expects all tensors in one type: it is not for autocast.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = x @ weight.T
        return y if bias is None else y + bias

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = grad_y.reshape(-1, grad_y.size(-1))  # all leading axes as one
        grad_x = grad_y @ weight if for_x else None
        grad_weight = rows.T @ x.reshape(-1, x.size(-1)) if for_weight else None
        grad_bias = rows.sum(0) if for_bias else None
        return grad_x, grad_weight, grad_bias


# chapters/day01_attention_derived.md · `Linear`: the module
class Linear(nn.Module):
    """An affine map of the last axis, `y = x Wᵀ + b`, with its gradient by hand.

    Args:
        in_features: width of the input's last axis, at least 1.
        out_features: width of the output's last axis, at least 1.
        bias: whether to add a learned offset.
        fused: use `F.linear`; with False, the hand-written `LinearFunction`.

    Raises:
        ValueError: if a width is no integer of at least 1, or the input's differs.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, fused: bool = True):
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        bound = 1 / math.sqrt(in_features)
        self.fused = fused

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.weight = start(out_features, in_features)
        self.bias = start(out_features) if bias else None

    def forward(self, x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
        if x.shape[-1:] != self.weight.shape[1:]:
            wanted = f"in_features = {self.weight.size(1)} numbers on its last axis"
            raise ValueError(f"x must have {wanted}, got shape {list(x.shape)}")
        function = F.linear if self.fused else LinearFunction.apply
        return function(x, self.weight, self.bias)


# chapters/day11_deeper.md · Through the projections, to the tokens
def linear_gradients(
    x: Float[Tensor, "*batch I"], weight: Float[Tensor, "O I"], grad_out: Float[Tensor, "*batch O"]
) -> tuple[Float[Tensor, "*batch I"], Float[Tensor, "O I"], Float[Tensor, "O"]]:
    """The gradients of `x Wᵀ + b` by x, W and b: `G W`, `Gᵀ X`, column sums of `G`."""
    rows = grad_out.reshape(-1, grad_out.size(-1))  # all leading axes as one
    return grad_out @ weight, rows.T @ x.reshape(-1, x.size(-1)), rows.sum(0)
