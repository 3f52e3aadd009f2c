"""The parity ladder: every block of the package against PyTorch's and Hugging Face's, forward and backward.

A rung is one block, with weights copied over, random inputs and a random gradient from above. Ours and theirs must
agree in the output, in the gradient of every input and in the gradient of every weight, to the stated tolerance.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel, RobertaPreLayerNormConfig
from transformers.models.bert.modeling_bert import eager_attention_forward
from transformers.models.roberta_prelayernorm.modeling_roberta_prelayernorm import RobertaPreLayerNormLayer

from minitransformer.attention import (
    MultiHeadAttention,
    attention_with_gradient,
    padding_mask,
    scaled_dot_product_attention,
)
from minitransformer.bert import _LAYER_NAMES, from_bert
from minitransformer.encoder import TransformerEncoder
from minitransformer.layers import (
    LayerNorm,
    PositionwiseFeedForward,
    TransformerEncoderLayer,
    encoder_layer_gradients,
)
from minitransformer.linear import Linear
from minitransformer.model import ModelConfig, TransformerForMaskedLM

B, T, C, H, D_FF, L, V = 3, 7, 24, 4, 40, 2, 31  # all different; head width 6
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
LENGTHS = torch.tensor([7, 4, 1])
SIZES = {  # of a BERT
    "vocab_size": V,
    "hidden_size": C,
    "num_attention_heads": H,
    "intermediate_size": D_FF,
    "num_hidden_layers": L,
    "max_position_embeddings": T,
}
PYTORCH, HUGGING_FACE = "PyTorch", "Hugging Face"
Function = Callable[..., Tensor]


@dataclass
class Pair:
    """The same function twice. `weights` pairs the gradients of ours, laid end to end, with one of theirs."""

    block: str
    against: str
    ours: Function
    theirs: Function
    inputs: list[Tensor]
    weights: list[tuple[list[Tensor], Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class Rung:
    block: str
    against: str
    dtype: str
    masked: bool
    forward: float
    backward: float
    tolerance: float


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference, in units of the largest entry where that is above 1."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


def measure(pair: Pair, masked: bool) -> Rung:
    """Run both, forward and backward, and refuse a difference above the tolerance."""
    for mine, other in pair.weights:  # blocks cut out of one model share weights
        for parameter in (*mine, other):
            parameter.grad = None
    sides = []
    for function in (pair.ours, pair.theirs):
        inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in pair.inputs]
        out = function(*inputs)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
        out.backward(grad)
        sides.append((out.detach(), [x.grad for x in inputs if x.requires_grad]))
    (out, ours), (expected, theirs) = sides
    gradients = list(zip(ours, theirs, strict=True))
    gradients += [(torch.cat([w.grad for w in mine]), other.grad) for mine, other in pair.weights]
    backward = max(difference(*pair) for pair in gradients)
    tolerance = TOLERANCE[out.dtype]
    dtype, forward = str(out.dtype).removeprefix("torch."), difference(out, expected)
    rung = Rung(pair.block, pair.against, dtype, masked, forward, backward, tolerance)
    assert max(rung.forward, rung.backward) <= tolerance, rung
    return rung


def random_weights(module: nn.Module, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """Random numbers for every weight, LayerNorms and biases too, so that a swap would be seen; no dropout."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (0.5 if parameter.dim() == 1 else 0.0))
    return module.to(dtype).eval()


def twin(
    ours: nn.Module, theirs: nn.Module, names: dict[str, list[str]]
) -> list[tuple[list[Tensor], Tensor]]:
    """Copy the weights of ours into theirs; `names` maps each of theirs to those of ours that it holds."""
    mine, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    pairs = [([mine[name] for name in names[key]], other[key]) for key in other]
    with torch.no_grad():
        for parts, parameter in pairs:
            parameter.copy_(torch.cat(list(parts)))
    return pairs


def same_names(theirs: nn.Module) -> dict[str, list[str]]:
    return {name: [name] for name, _ in theirs.named_parameters()}


def torch_names(prefix: str = "", layers: str = "") -> dict[str, list[str]]:
    """PyTorch's names in an attention (no `layers`) or encoder layer, which stacks the three projections."""
    names = {}
    for kind in ("weight", "bias"):
        names[f"{prefix}in_proj_{kind}"] = [f"{prefix}{part}_proj.{kind}" for part in "qkv"]
        names[f"{prefix}out_proj.{kind}"] = [f"{prefix}out_proj.{kind}"]
        for name in ("linear1", "linear2", "norm1", "norm2") if layers else ():
            inner = f"feed_forward.{name}" if name.startswith("linear") else name
            names[f"{layers}{name}.{kind}"] = [f"{layers}{inner}.{kind}"]
    return names


def layer_names() -> dict[str, list[str]]:
    plain = torch_names("self_attn.", "layer.")
    return {k.removeprefix("layer."): [n.removeprefix("layer.") for n in v] for k, v in plain.items()}


def tokens(dtype: torch.dtype, *shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def simple_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    """The blocks without a head axis of their own."""
    x = tokens(dtype, B, T, C)
    make = {
        "Linear": lambda: (Linear(C, D_FF, fused=False), nn.Linear(C, D_FF)),
        "LayerNorm": lambda: (LayerNorm(C, fused=False), nn.LayerNorm(C)),
        "Feed-forward": lambda: (
            PositionwiseFeedForward(C, D_FF, activation="gelu"),
            nn.Sequential(nn.Linear(C, D_FF), nn.GELU(), nn.Linear(D_FF, C)),
        ),
    }
    for block, build in make.items():
        ours, theirs = build()
        random_weights(ours, dtype), theirs.to(dtype)
        names = same_names(theirs)
        if block == "Feed-forward":
            names = {n: [n.replace("0.", "linear1.").replace("2.", "linear2.")] for n in names}
        yield Pair(block, PYTORCH, ours, theirs, [x], twin(ours, theirs, names))


def attention_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    """Attention on heads, by the readable function and by the one whose backward pass is written by hand."""
    q, k, v = (tokens(dtype, B, H, T, C // H, seed=seed) for seed in (1, 2, 3))
    keys = None if mask is None else mask[:, None, None, :]
    module = nn.Identity().eval()
    added = None if mask is None else torch.zeros(keys.shape, dtype=dtype).masked_fill(~keys, -torch.inf)

    def hugging_face(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return eager_attention_forward(module, q, k, v, added)[0].transpose(1, 2)

    def readable(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, keys)[0]

    by_hand = partial(attention_with_gradient, mask=keys)
    fused = partial(F.scaled_dot_product_attention, attn_mask=keys)
    for block, ours in (("Scaled dot-product attention", readable), ("Attention, backward by hand", by_hand)):
        yield Pair(block, PYTORCH, ours, fused, [q, k, v])
        yield Pair(block, HUGGING_FACE, ours, hugging_face, [q, k, v])


def multi_head_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    x = tokens(dtype, B, T, C)
    ours = random_weights(MultiHeadAttention(C, H, fused=False), dtype)
    theirs = nn.MultiheadAttention(C, H, batch_first=True, dtype=dtype).eval()
    pairs, ignore = twin(ours, theirs, torch_names()), None if mask is None else ~mask
    yield Pair(
        "Multi-head attention",
        PYTORCH,
        lambda x: ours(x, attention_mask=mask)[0],
        lambda x: theirs(x, x, x, key_padding_mask=ignore, need_weights=False)[0],
        [x],
        pairs,
    )


def layer_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    x, ignore = tokens(dtype, B, T, C), None if mask is None else ~mask
    for norm_first, order in ((False, "post-norm"), (True, "pre-norm")):
        ours = random_weights(
            TransformerEncoderLayer(C, H, D_FF, 0.0, "gelu", norm_first, fused=False), dtype
        )
        theirs = nn.TransformerEncoderLayer(
            C, H, D_FF, 0.0, "gelu", batch_first=True, norm_first=norm_first, dtype=dtype
        )
        pairs = twin(ours, theirs, layer_names())
        yield Pair(
            f"Encoder layer, {order}",
            PYTORCH,
            partial(ours, attention_mask=mask),
            partial(theirs, src_key_padding_mask=ignore),
            [x],
            pairs,
        )


class HandMadeLayer(torch.autograd.Function):
    """A post-norm layer whose backward pass is `encoder_layer_gradients`; the layer's weights get theirs on the way."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: nn.Module, mask: Tensor | None) -> Tensor:
        ctx.saved = x, layer, mask
        return layer(x, mask)

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor, None, None]:
        x, layer, mask = ctx.saved
        grad_x, found = encoder_layer_gradients(layer, x, grad_out, mask)
        for name, parameter in layer.named_parameters():
            parameter.grad = found[name]
        return grad_x, None, None


def by_hand_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    (pair,) = [p for p in layer_pairs(dtype, mask) if p.block.endswith("post-norm")]
    layer = pair.ours.func
    pair.ours = lambda x: HandMadeLayer.apply(x, layer, mask)
    pair.block = "Encoder layer, backward by hand"
    yield pair


def encoder_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    """From ids to hidden states; theirs looks its vectors up in copies of our tables."""
    ids = torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(4))
    seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    ours = random_weights(TransformerEncoder(V, C, H, D_FF, L, T, 0.0), dtype)  # pre-norm, a norm at the top
    layer = nn.TransformerEncoderLayer(
        C, H, D_FF, 0.0, "gelu", batch_first=True, norm_first=True, dtype=dtype
    )
    theirs = nn.ModuleDict(
        {
            "embedding": nn.Embedding(V, C, padding_idx=0, dtype=dtype),
            "positions": nn.Embedding(T, C, dtype=dtype),
            "stack": nn.TransformerEncoder(
                layer, L, nn.LayerNorm(C, dtype=dtype), enable_nested_tensor=False
            ),
        }
    )
    names = {"embedding.weight": ["embedding.weight"], "positions.weight": ["positions.encoding"]}
    names |= {f"stack.norm.{kind}": [f"norm.{kind}"] for kind in ("weight", "bias")}
    for i in range(L):
        inner = layer_names().items()
        names |= {f"stack.layers.{i}.{k}": [f"layers.{i}.{n}" for n in v] for k, v in inner}

    def stack() -> Tensor:
        x = theirs["embedding"](ids) + theirs["positions"].weight
        return theirs["stack"](x, src_key_padding_mask=None if mask is None else ~mask)

    pairs = twin(ours, theirs, names)
    yield Pair("Encoder", PYTORCH, lambda: ours(ids, seen), stack, [], pairs)


def bert_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    """A random BERT, and blocks cut out of it; here the weights go from theirs to ours."""
    bert = random_weights(BertModel(BertConfig(**SIZES), add_pooling_layer=False), dtype)
    ours = TransformerEncoder(
        V,
        C,
        H,
        D_FF,
        L,
        T,
        0.0,
        norm_first=False,
        layer_norm_eps=1e-12,
        embedding_norm=True,
        type_vocab_size=2,
    )
    ours.to(dtype).load_state_dict(from_bert(bert.state_dict(), L))
    gradients = from_bert(dict(bert.named_parameters()), L)
    weights = {name: ([parameter], gradients[name]) for name, parameter in ours.named_parameters()}
    ids = torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(4))
    seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    types = (torch.arange(T) > 2).long().expand(B, T)

    def whole() -> Tensor:
        return bert(ids, attention_mask=seen, token_type_ids=types).last_hidden_state

    keys = None if mask is None else mask[:, None, None, :]
    mine, other = ours.layers[0], bert.encoder.layer[0]

    def heads(x: Tensor) -> Tensor:
        return other.attention.output.dense(other.attention.self(x, attention_mask=keys)[0])

    def network(x: Tensor) -> Tensor:
        return other.output.dense(other.intermediate(x))

    def attend(x: Tensor) -> Tensor:
        return mine.self_attn(x, attention_mask=mask)[0]

    padded = ids * padding_mask(LENGTHS)  # the row of the padding id learns nothing
    stage = [f"{part}." for part in ("embedding", "positions", "token_types", "embedding_norm")]
    x, layer, theirs = (
        tokens(dtype, B, T, C),
        partial(mine, attention_mask=mask),
        partial(other, attention_mask=keys),
    )
    cut_out = [
        ("Embeddings", lambda: ours.embed(padded, types), lambda: bert.embeddings(padded, types), [], stage),
        ("BERT", lambda: ours(ids, seen, types), whole, [], [""]),
        ("Encoder layer, post-norm", layer, theirs, [x], ["layers.0."]),
        ("Multi-head attention", attend, heads, [x], ["layers.0.self_attn."]),
        ("Feed-forward", mine.feed_forward, network, [x], ["layers.0.feed_forward."]),
    ]
    for block, own, their, inputs, parts in cut_out:
        if mask is None or block not in ("Embeddings", "Feed-forward"):
            chosen = [pair for name, pair in weights.items() if name.startswith(tuple(parts))]
            yield Pair(block, HUGGING_FACE, own, their, inputs, chosen)


def masked_lm_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    """The head that names tokens, alone and on its BERT; weights go to ours."""
    theirs = random_weights(BertForMaskedLM(BertConfig(**SIZES)), dtype)
    bert = {"norm_first": False, "embedding_norm": True, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    ours = TransformerForMaskedLM(ModelConfig(V, C, H, D_FF, L, T, 0.0, **bert)).to(dtype).eval()
    gradients = dict(theirs.named_parameters())  # the table is there once: the output weights are tied to it
    names = {f"encoder.{name}": value for name, value in from_bert(gradients, L).items()}
    for kind in ("weight", "bias"):
        names[f"transform.{kind}"] = gradients[f"cls.predictions.transform.dense.{kind}"]
        names[f"norm.{kind}"] = gradients[f"cls.predictions.transform.LayerNorm.{kind}"]
    names["bias"] = gradients["cls.predictions.bias"]
    mine = {n: p for n, p in ours.named_parameters() if not n.startswith("classifier.")}
    pairs = {name: ([parameter], names.pop(name)) for name, parameter in mine.items()}
    assert not names and len(pairs) == len(gradients)
    with torch.no_grad():
        for (parameter,), other in pairs.values():
            parameter.copy_(other)
    ids = torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(4))
    seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    types = (torch.arange(T) > 2).long().expand(B, T)

    def head(x: Tensor) -> Tensor:
        return ours.name_tokens(x.flatten(0, 1))

    if mask is None:
        x, table = tokens(dtype, B, T, C), "encoder.embedding.weight"
        chosen = [pair for n, pair in pairs.items() if n == table or not n.startswith("encoder.")]
        yield Pair("Masked-LM head", HUGGING_FACE, head, lambda x: theirs.cls(x).flatten(0, 1), [x], chosen)
    yield Pair(
        "BERT with masked-LM head",
        HUGGING_FACE,
        lambda: head(ours.encoder(ids, seen, types)),
        lambda: theirs(ids, attention_mask=seen, token_type_ids=types).logits.flatten(0, 1),
        [],
        list(pairs.values()),
    )


def pre_norm_pairs(dtype: torch.dtype, mask: Tensor | None) -> Iterator[Pair]:
    """The layer of RoBERTa-PreLayerNorm, where the norms belong to the blocks that follow them."""
    settings = RobertaPreLayerNormConfig(**SIZES, layer_norm_eps=1e-5, attn_implementation="sdpa")
    theirs = RobertaPreLayerNormLayer(settings).to(dtype).eval()
    ours = random_weights(TransformerEncoderLayer(C, H, D_FF, 0.0, "gelu", norm_first=True), dtype)
    moved = {
        "attention.output.LayerNorm": "attention.LayerNorm",
        "output.LayerNorm": "intermediate.LayerNorm",
    }
    names = {
        f"{moved.get(other, other)}.{kind}": [f"{name}.{kind}"]
        for other, name in _LAYER_NAMES.items()
        for kind in ("weight", "bias")
    }
    keys, x = None if mask is None else mask[:, None, None, :], tokens(dtype, B, T, C)
    layer, other = partial(ours, attention_mask=mask), partial(theirs, attention_mask=keys)
    yield Pair("Encoder layer, pre-norm", HUGGING_FACE, layer, other, [x], twin(ours, theirs, names))


MAKERS = (
    simple_pairs,
    attention_pairs,
    multi_head_pairs,
    layer_pairs,
    by_hand_pairs,
    encoder_pairs,
    bert_pairs,
    masked_lm_pairs,
    pre_norm_pairs,
)


def all_pairs() -> Iterator[tuple[Pair, bool]]:
    """Every block in both number formats, without and (where it takes one) with a mask."""
    for maker in MAKERS:
        for dtype in TOLERANCE:
            for masked in (False, True) if maker is not simple_pairs else (False,):
                for pair in maker(dtype, padding_mask(LENGTHS) if masked else None):
                    yield pair, masked


def climb() -> list[Rung]:
    """Measure every rung, which raises an AssertionError at the first that does not hold."""
    return [measure(pair, masked) for pair, masked in all_pairs()]


def table(rungs: list[Rung]) -> str:
    """The rungs as a Markdown table."""
    lines = [
        "| block | against | numbers | mask | forward | backward | tolerance |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rungs:
        mask = "yes" if r.masked else "no"
        lines.append(
            f"| {r.block} | {r.against} | {r.dtype} | {mask} | {r.forward:.0e} | {r.backward:.0e} | {r.tolerance:.0e} |"
        )
    return "\n".join(lines)
