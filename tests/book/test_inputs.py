"""Inputs that no model can take, each with its one sentence; and those at the edge, which have an answer.

The refusals run in one process of their own, in which nothing checks types at run time: what is tested is what the
package itself says.
"""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from book.press.floors import ROOT
from minitransformer.attention import MultiHeadAttention, padding_mask
from minitransformer.bert import from_bert
from minitransformer.encoder import TransformerEncoder
from minitransformer.layers import (
    LayerNorm,
    LearnedPositionalEncoding,
    PositionwiseFeedForward,
    SinusoidalPositionalEncoding,
    TransformerEncoderLayer,
)
from minitransformer.linear import Linear
from minitransformer.model import (
    ModelConfig,
    TransformerForMaskedLM,
    TransformerForSequenceClassification,
    _mean_of_tokens,
)

SIZES = {"vocab_size": 20, "d_model": 12, "num_heads": 3, "d_ff": 8, "num_layers": 2, "max_length": 8}
IDS = torch.tensor([[2, 5, 3, 7], [4, 6, 0, 0]])
NAN, INF = math.nan, math.inf

# For the encoder and the config alike: the setting, wrong values of it, and what the sentence says.
SETTINGS = [
    ("vocab_size", (0, -1, 20.0, True, "20", None), "vocab_size must be an integer of at least 1"),
    ("d_model", (0, -12, 12.0, True), "d_model must be an integer of at least 1"),
    ("num_heads", (0, -3, 3.0, True), "num_heads must be an integer of at least 1"),
    ("num_heads", (5, 24), "num_heads must be a divisor of d_model=12"),
    ("d_ff", (0, -1, 8.0, True), "d_ff must be an integer of at least 1"),
    ("num_layers", (0, -1, 2.0, True), "num_layers must be an integer of at least 1"),
    ("max_length", (0, -1, 8.0, True), "max_length must be an integer of at least 1"),
    ("dropout", (1.5, 1.0, -0.1, NAN, INF, True, "0.1"), "dropout must be a number in [0, 1)"),
    ("activation", ("tanh", None, 1), "activation must be one of ['gelu', 'relu']"),
    ("positions", ("rotary", None), "positions must be one of ['learned', 'sinusoidal']"),
    ("padding_id", (-1, 20, 0.0, False, None), "padding_id must be an integer in 0 … 19"),
    ("norm_first", (1, "yes", None), "norm_first must be true or false"),
    ("fused", (1, "yes"), "fused must be true or false"),
    ("embedding_norm", (1, None), "embedding_norm must be true or false"),
    ("layer_norm_eps", (0, 0.0, -1e-5, NAN, INF, True), "layer_norm_eps must be a finite number above 0"),
    ("type_vocab_size", (-1, 2.0, True), "type_vocab_size must be an integer of at least 0"),
]
NO_COUNT = (0, -2, 2.0, True)


def bert_like() -> TransformerForSequenceClassification:
    return TransformerForSequenceClassification(ModelConfig(**SIZES, type_vocab_size=2)).eval()


def refusals() -> list[tuple]:
    """Each a call, and what its sentence must hold."""
    found: list[tuple] = []
    for name, values, words in SETTINGS:
        for value in values:
            end = f"{words}, got {value!r}"
            found.append(
                (
                    f"encoder {name}={value!r}",
                    lambda n=name, v=value: TransformerEncoder(**SIZES | {n: v}),
                    end,
                )
            )
            found.append(
                (f"config {name}={value!r}", lambda n=name, v=value: ModelConfig(**SIZES | {n: v}), end)
            )
    for value in NO_COUNT:
        for name, call in {
            "heads": lambda v=value: MultiHeadAttention(12, v),
            "attention's width": lambda v=value: MultiHeadAttention(v, 2),
            "a layer's heads": lambda v=value: TransformerEncoderLayer(12, v, 8),
            "a layer's d_ff": lambda v=value: TransformerEncoderLayer(12, 3, v),
            "d_ff": lambda v=value: PositionwiseFeedForward(12, v),
            "features in": lambda v=value: Linear(v, 3),
            "features out": lambda v=value: Linear(3, v),
            "LayerNorm": lambda v=value: LayerNorm(v),
            "learned width": lambda v=value: LearnedPositionalEncoding(v, 8),
            "learned length": lambda v=value: LearnedPositionalEncoding(12, v),
            "sinusoidal length": lambda v=value: SinusoidalPositionalEncoding(12, v),
        }.items():
            if (name, value) != ("attention's width", 2.0):
                found.append((f"{name} of {value!r}", call, repr(value)))
    for value in (0, -2, 7, 4.0, True):
        found.append(
            (
                f"sinusoidal width of {value!r}",
                lambda v=value: SinusoidalPositionalEncoding(v),
                "even and at least 2",
            )
        )
    for value in (0, -1e-5, NAN, INF, True, "1e-5"):
        found.append(
            (f"eps of {value!r}", lambda v=value: LayerNorm(4, v), "eps must be positive and finite")
        )
    for value in (1.5, NAN, True, None):
        found.append(
            (
                f"attention's dropout of {value!r}",
                lambda v=value: MultiHeadAttention(12, 3, v),
                "dropout must be",
            )
        )
        found.append(
            (
                f"d_ff's dropout of {value!r}",
                lambda v=value: PositionwiseFeedForward(12, 8, v),
                "dropout must be",
            )
        )
    return found + wrong_tensors()


def wrong_tensors() -> list[tuple]:
    x, encoder, model, mask = torch.zeros(2, 4, 12), TransformerEncoder(**SIZES), bert_like(), IDS != 0
    mean = TransformerForSequenceClassification(ModelConfig(**SIZES, pooling="mean"))
    attention, layer = MultiHeadAttention(12, 3), TransformerEncoderLayer(12, 3, 8)
    calls = [
        ("float ids", lambda: encoder(IDS.float()), "input_ids must be integers", "float32"),
        ("bool ids", lambda: encoder(mask), "input_ids must be integers", "bool"),
        ("16-bit ids", lambda: encoder(IDS.short()), "input_ids must be integers", "int16"),
        ("ids of one axis", lambda: encoder(IDS[0]), "input_ids must have shape [B, T], got [4]"),
        ("one axis, classified", lambda: model(IDS[0]), "input_ids must have shape [B, T], got [4]"),
        ("ids of three axes", lambda: encoder(IDS[None]), "input_ids must have shape [B, T], got [1, 2, 4]"),
        ("no text", lambda: model(IDS[:0]), "input_ids must hold at least one token, got the shape [0, 4]"),
        ("no token", lambda: model(IDS[:, :0]), "input_ids must hold at least one token", "[2, 0]"),
        ("an id too large", lambda: model(IDS + 13), "ids must lie in 0 … 19 for vocab_size=20, got 20"),
        ("a negative id", lambda: model(IDS - 1), "ids must lie in 0 … 19 for vocab_size=20, got -1"),
        ("a text too long", lambda: model(IDS.repeat(1, 3)), "12 tokens, more than max_length=8"),
        ("types of another length", lambda: model(IDS, None, IDS[:, :3] * 0), "token_type_ids", "[2, 3]"),
        ("types of one axis", lambda: model(IDS, None, IDS[0] * 0), "token_type_ids", "[4]", "[2, 4]"),
        ("types to be broadcast", lambda: model(IDS, None, IDS[:1] * 0), "token_type_ids", "[1, 4]"),
        (
            "types too large",
            lambda: model(IDS, None, IDS),
            "ids must lie in 0 … 1 for type_vocab_size=2",
            "got 7",
        ),
        (
            "negative types",
            lambda: model(IDS, None, IDS * 0 - 1),
            "ids must lie in 0 … 1 for type_vocab_size=2",
            "got -1",
        ),
        ("float types", lambda: model(IDS, None, IDS * 0.0), "token_type_ids must be integers", "float32"),
        ("types without a table", lambda: encoder(IDS, None, IDS * 0), "type_vocab_size of at least 1"),
        ("a mask of numbers", lambda: model(IDS, mask.long()), "attention_mask must be boolean", "int64"),
        ("a mask too long", lambda: model(IDS, torch.ones(2, 5).bool()), "attention_mask", "[2, 5]"),
        ("a mask of one axis", lambda: model(IDS, mask[0]), "attention_mask", "got [4]"),
        (
            "a mask of pairs, mean",
            lambda: mean(IDS, torch.ones(2, 4, 4).bool()),
            "attention_mask",
            "[2, 4, 4]",
        ),
        ("vectors of one axis", lambda: attention(x[0, 0]), "query must have shape [B, T, C]", "[12]"),
        ("vectors of two axes", lambda: layer(x[0]), "query must have shape [B, T, C]", "[4, 12]"),
        ("vectors too wide", lambda: layer(torch.zeros(2, 4, 13)), "13 entries, but d_model=12"),
        ("another batch of keys", lambda: attention(x, x[:1]), "as many sentences", "[1, 4, 12]"),
        ("lengths of two axes", lambda: padding_mask(IDS), "lengths must have shape [B]", "[2, 4]"),
        ("one length", lambda: padding_mask(torch.tensor(3)), "lengths must have shape [B]", "got []"),
        ("no length", lambda: padding_mask(IDS[0, :0]), "lengths must have shape [B]", "got [0]"),
        ("a negative length", lambda: padding_mask(torch.tensor([3, -1])), "integers of at least 0, got -1"),
        ("float lengths", lambda: padding_mask(torch.tensor([3.0])), "integers of at least 0", "float32"),
        ("bool lengths", lambda: padding_mask(mask[0]), "integers of at least 0", "torch.bool"),
        ("a negative max_length", lambda: padding_mask(IDS[0], -1), "max_length must be at least", "got -1"),
    ]
    return [(name, call, *words) for name, call, *words in calls]


REFUSALS = {name: words for name, _, *words in refusals()}


@pytest.fixture(scope="module")
def sentences() -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", REFUSALS)
def test_each_wrong_input_gets_one_sentence(name, sentences):
    assert sentences[name].startswith("ValueError: "), sentences[name]
    assert all(words in sentences[name] for words in REFUSALS[name]), sentences[name]
    assert len(sentences[name].splitlines()) == 1


def main() -> None:
    found = {}
    for name, call, *_ in refusals():
        try:
            call()
            found[name] = "accepted"
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_text_of_padding_only_has_an_answer_and_finite_gradients(pooling):
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(**SIZES, pooling=pooling, dropout=0.0))
    ids = torch.tensor([[2, 5, 3], [0, 0, 0]])
    logits = model(ids)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits[:1], model(ids[:1]))
    if pooling == "mean":
        assert torch.equal(logits[1], model.classifier.bias), "the mean of no vectors is the zero vector"


def test_the_mean_of_no_tokens_is_zero_and_that_of_some_is_unchanged():
    hidden = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    out = _mean_of_tokens(hidden, mask)
    assert torch.equal(out[0], hidden[0, :2].sum(0) / 2) and torch.equal(out[1], torch.zeros(4))
    out.sum().backward()
    assert hidden.grad.isfinite().all() and hidden.grad[1].abs().max() == 0


def test_ids_of_32_bits_and_an_empty_batch_of_vectors_are_fine():
    model = bert_like()
    torch.testing.assert_close(model(IDS.int(), None, (IDS * 0).int()), model(IDS))
    assert MultiHeadAttention(12, 3)(torch.zeros(0, 4, 12))[0].shape == (0, 4, 12)


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-2])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_the_token_head_is_bert_s_at_every_eps_and_activation(eps, activation):
    """Logits, and the gradient of every weight, against transformers' BertForMaskedLM."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 31, "hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}
    more = {"num_hidden_layers": 2, "max_position_embeddings": 16, "hidden_dropout_prob": 0.0}
    settings = BertConfig(**sizes, **more, layer_norm_eps=eps, hidden_act=activation)
    theirs = BertForMaskedLM(settings).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = (
        TransformerForMaskedLM(
            ModelConfig(
                31,
                12,
                3,
                20,
                2,
                16,
                0.0,
                activation,
                norm_first=False,
                layer_norm_eps=eps,
                embedding_norm=True,
                type_vocab_size=2,
            )
        )
        .double()
        .eval()
    )
    weights = our_names(dict(theirs.named_parameters()))
    ours.load_state_dict(ours.state_dict() | {name: value.detach() for name, value in weights.items()})
    ids = torch.randint(1, 31, (3, 7))
    types = torch.randint(0, 2, (3, 7))
    found = ours.name_tokens(ours.encoder(ids, None, types).flatten(0, 1)).view(3, 7, -1)
    expected = theirs(ids, attention_mask=torch.ones_like(ids), token_type_ids=types).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    direction = torch.randn(3, 7, 31, dtype=torch.float64)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    grads = our_names({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        if not name.startswith("classifier."):
            torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-8, atol=1e-8, msg=name)


def our_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A BertForMaskedLM's tensors under our names."""
    found = {f"encoder.{name}": value for name, value in from_bert(tensors, 2).items()}
    for kind in ("weight", "bias"):
        found[f"transform.{kind}"] = tensors[f"cls.predictions.transform.dense.{kind}"]
        found[f"norm.{kind}"] = tensors[f"cls.predictions.transform.LayerNorm.{kind}"]
    return found | {"bias": tensors["cls.predictions.bias"]}


if __name__ == "__main__":
    main()
