"""Every model as one graph: exported, compiled without a break, on the meta device and under vmap.

The checks run in one process of their own, in which nothing checks shapes at run time: a tracer sees the package as
a user has it, not inside pytest's wrappers.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from book.press.floors import ROOT
from minitransformer.attention import MultiHeadAttention
from minitransformer.encoder import TransformerEncoder
from minitransformer.layers import (
    LayerNorm,
    LearnedPositionalEncoding,
    PositionwiseFeedForward,
    SinusoidalPositionalEncoding,
    TransformerEncoderLayer,
)
from minitransformer.linear import Linear
from minitransformer.model import ModelConfig, TransformerForMaskedLM, TransformerForSequenceClassification

CLASSIFIER = TransformerForSequenceClassification
SIZES = {"vocab_size": 31, "d_model": 12, "num_heads": 3, "d_ff": 20, "max_length": 16, "dropout": 0.0}
BERT = {"norm_first": False, "embedding_norm": True, "type_vocab_size": 2}


class TokenHead(nn.Module):
    """A masked language model as one function: from ids to a logit per token and entry."""

    def __init__(self, model: TransformerForMaskedLM):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        hidden = self.model.encoder(input_ids, attention_mask, token_type_ids)
        return self.model.name_tokens(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)


def build(kind: str, fused: bool = True) -> nn.Module:
    torch.manual_seed(0)
    vectors = {
        "linear": lambda: Linear(12, 12),
        "norm": lambda: LayerNorm(12, fused=fused),
        "learned positions": lambda: LearnedPositionalEncoding(12, 16),
        "sinusoidal positions": lambda: SinusoidalPositionalEncoding(12, 16),
        "feed-forward": lambda: PositionwiseFeedForward(12, 20),
        "attention": lambda: MultiHeadAttention(12, 3, fused=fused),
        "layer": lambda: TransformerEncoderLayer(12, 3, 20, 0.0, fused=fused),
    }
    of_ids = {
        "encoder": lambda: TransformerEncoder(**SIZES, fused=fused),
        "encoder, sinusoidal": lambda: TransformerEncoder(**SIZES, fused=fused, positions="sinusoidal"),
        "classifier, cls": lambda: CLASSIFIER(ModelConfig(**SIZES, fused=fused)),
        "classifier, mean": lambda: CLASSIFIER(ModelConfig(**SIZES, fused=fused, pooling="mean")),
        "classifier, bert": lambda: CLASSIFIER(ModelConfig(**SIZES, fused=fused, **BERT)),
        "masked, labels": lambda: TransformerForMaskedLM(ModelConfig(**SIZES, fused=fused)),
        "masked, tokens": lambda: TokenHead(
            TransformerForMaskedLM(ModelConfig(**SIZES, fused=fused, **BERT))
        ),
    }
    return (vectors | of_ids)[kind]().eval()


def inputs(kind: str, masked: bool, B: int = 3, T: int = 7) -> dict[str, Tensor]:
    """What a model of this kind takes, by name; the last two tokens of the second text are padding."""
    generator = torch.Generator().manual_seed(B)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1, -2:] = False
    if kind in VECTORS:
        name = "query" if kind == "attention" else "x"
        found = {name: torch.randn(B, T, 12, generator=generator)}
    else:
        found = {"input_ids": torch.randint(1, 31, (B, T), generator=generator) * mask}
    if masked and (kind not in VECTORS or kind in ("attention", "layer")):
        found["attention_mask"] = mask
    if kind in TYPED:
        found["token_type_ids"] = torch.randint(0, 2, (B, T), generator=generator)
    return found


VECTORS = (
    "linear", "norm", "learned positions", "sinusoidal positions", "feed-forward", "attention", "layer"
)  # fmt: skip
MODELS = ("encoder", "encoder, sinusoidal", "classifier, cls", "classifier, mean")
MODELS += ("classifier, bert", "masked, labels", "masked, tokens")
TYPED = ("classifier, bert", "masked, tokens")


def first(out: Tensor | tuple) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def exports(kind: str, fused: bool, masked: bool) -> None:
    """The exported program gives the model's numbers on another batch size and another length."""
    model, given = build(kind, fused), inputs(kind, masked)
    batch, length = Dim("batch", min=2, max=64), Dim("length", min=2, max=16)
    shapes = {name: {0: batch, 1: length} for name in given}
    program = torch.export.export(model, (), given, dynamic_shapes=shapes).module()
    for B, T in ((3, 7), (5, 16), (2, 4)):
        other = inputs(kind, masked, B, T)
        torch.testing.assert_close(first(program(**other)), first(model(**other)))


def compiles(kind: str, fused: bool, masked: bool) -> None:
    """`fullgraph` raises at the first graph break; forward and backward agree with the model as it is."""
    torch._dynamo.reset()
    model, given = build(kind, fused), inputs(kind, masked)
    expected = first(model(**given))
    out = first(torch.compile(model, fullgraph=True, backend="eager")(**given))
    torch.testing.assert_close(out, expected)
    if kind == "sinusoidal positions":  # nothing there is learned
        return
    wanted = torch.autograd.grad(expected.square().sum(), tuple(model.parameters()), allow_unused=True)
    found = torch.autograd.grad(out.square().sum(), tuple(model.parameters()), allow_unused=True)
    assert all((a is None) == (b is None) for a, b in zip(found, wanted, strict=True))
    torch.testing.assert_close([g for g in found if g is not None], [g for g in wanted if g is not None])


def on_meta(kind: str) -> None:
    """Shapes without numbers: no line looks at a value."""
    given = inputs(kind, masked=True)
    out = first(build(kind).to("meta")(**{name: value.to("meta") for name, value in given.items()}))
    assert out.device.type == "meta" and out.shape == first(build(kind)(**given)).shape


def per_sample(kind: str) -> None:
    """`vmap(grad)` gives the gradients that a loop over the samples gives."""
    model, given = build(kind), inputs(kind, masked=True)
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], sample: dict[str, Tensor]) -> Tensor:
        one = {name: value[None] for name, value in sample.items()}
        return first(torch.func.functional_call(model, weights, (), one)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, given)
    for row in range(3):
        model.zero_grad()
        loss(dict(model.named_parameters()), {name: value[row] for name, value in given.items()}).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(found[name][row], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


def all_checks() -> dict[str, Callable[[], None]]:
    """Every class as it is used: fused, with a mask; where the two ways part, also by hand and without a mask."""
    found = {}
    for kind in (*VECTORS, *MODELS):
        modes = {"fused, with a mask": (True, True)}
        if kind in ("norm", "attention", "layer", "encoder"):
            modes["by hand, with a mask"] = (False, True)
        if kind in ("attention", "encoder"):
            modes["fused, no mask"] = (True, False)
        for name, (fused, masked) in modes.items():
            found[f"export: {kind}, {name}"] = partial(exports, kind, fused, masked)
            found[f"compile: {kind}, {name}"] = partial(compiles, kind, fused, masked)
        found[f"meta: {kind}"] = partial(on_meta, kind)
        if kind != "sinusoidal positions":  # nothing there is learned
            found[f"vmap(grad): {kind}"] = partial(per_sample, kind)
    return found


CHECKS = all_checks()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CHECKS)
def test_each_model_is_one_graph(name, outcomes):
    assert outcomes[name] == "", outcomes[name]


def main() -> None:
    outcomes = {}
    for name, check in CHECKS.items():
        try:
            check()
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()[-2000:]
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
