# Generated from chapters/day02_multi_head_attention.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.attention`."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.attention import (
    AttentionFunction,
    MultiHeadAttention,
    attention_gradients,
    attention_with_gradient,
    causal_mask,
    fused_attention,
    head_mask,
    masked_softmax,
    merge_heads,
    padding_mask,
    scaled_dot_product_attention,
    split_heads,
)


# chapters/day02_multi_head_attention.md · A view, then a transpose
def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in double precision, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_split_heads_moves_each_number_to_its_head() -> None:
    B, T, H, D = 2, 5, 3, 4
    x = noise(B, T, H * D)
    split = split_heads(x, H)
    assert split.shape == (B, H, T, D)
    for h in range(H):
        own = x[:, :, h * D : (h + 1) * D]
        assert torch.equal(split[:, h], own), f"head {h} must hold columns {h * D} to {(h + 1) * D - 1}"


# chapters/day02_multi_head_attention.md · And back
def test_merge_heads_undoes_split_heads() -> None:
    x = noise(2, 5, 12)
    assert torch.equal(merge_heads(split_heads(x, 3)), x)


def test_merge_heads_is_concatenation() -> None:
    heads = noise(2, 3, 5, 4)  # B, H, T, D
    side_by_side = torch.cat([heads[:, h] for h in range(3)], dim=-1)
    assert torch.equal(merge_heads(heads), side_by_side)


# chapters/day02_multi_head_attention.md · Which positions are real
def refusal(function, *arguments, **options) -> str:
    """The message of the ValueError that a call must raise."""
    try:
        function(*arguments, **options)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{function.__name__} accepted {arguments} {options}")


def test_padding_mask_marks_the_real_positions() -> None:
    mask = padding_mask(torch.tensor([6, 3, 0]))
    expected = [[position < length for position in range(6)] for length in (6, 3, 0)]
    assert mask.dtype == torch.bool and mask.tolist() == expected
    assert padding_mask(torch.tensor([2, 1]), 4).tolist() == [
        [True, True, False, False],
        [True] + [False] * 3,
    ]
    assert "longest length 5, got 4" in refusal(padding_mask, torch.tensor([5]), 4)


# chapters/day02_multi_head_attention.md · Rows with nothing to see
SOME_MASK = torch.tensor([[True, True, False, True, False], [False, False, False, False, True], [False] * 5])


def test_rows_sum_to_one_or_to_zero() -> None:
    weights = masked_softmax(noise(2, 3, 5), SOME_MASK)
    sums = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64).expand(2, 3)
    torch.testing.assert_close(weights.sum(-1), sums, rtol=0, atol=1e-15)


def test_masked_softmax_is_softmax_of_the_allowed_keys() -> None:
    scores = noise(3, 5)
    weights = masked_softmax(scores, SOME_MASK)
    torch.testing.assert_close(weights[0, [0, 1, 3]], scores[0, [0, 1, 3]].softmax(-1), rtol=0, atol=1e-15)
    assert (weights[~SOME_MASK.expand_as(weights)] == 0).all(), "a forbidden key must weigh exactly zero"
    assert torch.equal(masked_softmax(scores), scores.softmax(-1))


def test_forbidden_scores_have_no_influence() -> None:
    scores = noise(3, 5)
    wild = torch.where(SOME_MASK, scores, 1e6 * noise(3, 5, seed=1))
    assert torch.equal(masked_softmax(wild, SOME_MASK), masked_softmax(scores, SOME_MASK))


def test_masked_softmax_has_the_right_gradient() -> None:
    scores = noise(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: masked_softmax(s, SOME_MASK), scores)
    with torch.autograd.set_detect_anomaly(True):
        masked_softmax(scores, SOME_MASK).sum().backward()
    assert (scores.grad[2] == 0).all()


# chapters/day02_multi_head_attention.md · Masks that depend on the query
def test_causal_mask_allows_the_past_and_the_present() -> None:
    mask = causal_mask(4)
    assert mask.dtype == torch.bool
    assert all(mask[t, s].item() == (s <= t) for t in range(4) for s in range(4))


# chapters/day02_multi_head_attention.md · The function, after a loop
def attention_by_loop(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """One head, query by query: q [T, D], k [S, D], v [S, Dv], mask [T, S]."""
    out = torch.zeros(len(q), v.size(-1), dtype=v.dtype)
    for t in range(len(q)):
        seen = [s for s in range(len(k)) if mask[t, s]]
        powers = {s: math.exp(q[t] @ k[s] / math.sqrt(q.size(-1))) for s in seen}
        for s in seen:
            out[t] += powers[s] / sum(powers.values()) * v[s]
    return out


def random_attention_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and a random mask whose third query may see nothing."""
    q, k = noise(2, 3, 5, 4, seed=1), noise(2, 3, 7, 4, seed=2)
    v = noise(2, 3, 7, 6, seed=3)
    mask = noise(2, 1, 5, 7, seed=4) > -0.3
    mask[:, :, 2] = False
    return q, k, v, mask


def test_attention_equals_the_loop() -> None:
    q, k, v, mask = random_attention_inputs()
    out, _ = scaled_dot_product_attention(q, k, v, mask)
    for b in range(2):
        for h in range(3):
            expected = attention_by_loop(q[b, h], k[b, h], v[b, h], mask[b, 0])
            torch.testing.assert_close(out[b, h], expected, rtol=0, atol=1e-14)


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a fixed random weighting of `out`."""
    return torch.autograd.grad((out * noise(*out.shape, seed=99)).sum(), inputs)


def test_attention_equals_pytorch_forward_and_backward() -> None:
    *inputs, pairs = random_attention_inputs()
    inputs = [x.requires_grad_() for x in inputs]
    padding = padding_mask(torch.tensor([7, 4]))[:, None, None, :]
    for mask in (None, padding, pairs):
        ours, _ = scaled_dot_product_attention(*inputs, mask)
        theirs = F.scaled_dot_product_attention(*inputs, mask)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
        for mine, other in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
            assert torch.isfinite(mine).all()
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


def test_padding_does_not_leak() -> None:
    q, k, v, _ = random_attention_inputs()
    real = padding_mask(torch.tensor([7, 4]))  # [B, S]
    mask = real[:, None, None, :]  # for the scores
    padding = ~real[:, None, :, None]  # for keys and values
    before, _ = scaled_dot_product_attention(q, k, v, mask)
    k2 = torch.where(padding, 1e3 * noise(*k.shape, seed=5), k)
    v2 = torch.where(padding, 1e3 * noise(*v.shape, seed=6), v)
    after, _ = scaled_dot_product_attention(q, k2, v2, mask)
    assert torch.equal(before, after), "the output moved when only padding changed"
    unmasked, _ = scaled_dot_product_attention(q, k2, v2)
    assert not torch.equal(before, unmasked), "without the mask it must move, or this test shows nothing"
    moved, _ = scaled_dot_product_attention(q, k, v + 1.0, mask)
    assert not torch.equal(before, moved), "real tokens must be seen"


def test_causal_attention_does_not_look_ahead() -> None:
    x = noise(2, 6, 4)
    changed = torch.cat((x[:, :4], noise(2, 2, 4, seed=1)), dim=1)
    before, _ = scaled_dot_product_attention(x, x, x, causal_mask(6))
    after, _ = scaled_dot_product_attention(changed, changed, changed, causal_mask(6))
    assert torch.equal(before[:, :4], after[:, :4]), "an early token saw a later one"
    assert torch.equal(before[:, 0], x[:, 0]), "the first token sees itself alone"
    assert (before[:, 4:] != after[:, 4:]).any(-1).all(), "the changed tokens must see themselves"


def test_dropout_drops_and_rescales() -> None:
    q, k, v = noise(40, 30, 4), noise(40, 50, 4, seed=1), noise(40, 50, 6, seed=2)
    _, plain = scaled_dot_product_attention(q, k, v)
    torch.manual_seed(0)
    out, weights = scaled_dot_product_attention(q, k, v, dropout=0.25)
    kept = weights != 0
    torch.testing.assert_close(weights[kept], plain[kept] / 0.75)
    share = 1 - kept.double().mean().item()
    error = math.sqrt(0.25 * 0.75 / kept.numel())  # the standard error of the share
    assert abs(share - 0.25) < 5 * error, f"a share of {share} was dropped"
    torch.testing.assert_close(out, weights @ v)


# chapters/day02_multi_head_attention.md · Permute the tokens, and the outputs permute
def test_permuted_tokens_give_permuted_outputs() -> None:
    q, k, v = noise(2, 6, 4, seed=1), noise(2, 6, 4, seed=2), noise(2, 6, 3, seed=3)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = [x[:, order] for x in (q, k, v)]
    for mask in (None, noise(2, 6, 6, seed=4) > 0):
        shuffled_mask = None if mask is None else mask[:, order][:, :, order]
        out, weights = scaled_dot_product_attention(q, k, v, mask)
        moved, found = scaled_dot_product_attention(*shuffled, shuffled_mask)
        torch.testing.assert_close(moved, out[:, order], rtol=0, atol=1e-14)
        expected = weights[:, order][:, :, order]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    out, _ = scaled_dot_product_attention(q, k, v, causal_mask(6))
    moved, _ = scaled_dot_product_attention(*shuffled, causal_mask(6))  # in its place
    assert not torch.allclose(moved, out[:, order]), "a causal mask knows the order"


# chapters/day02_multi_head_attention.md · The axes of a mask
def test_head_mask_puts_the_axes_in_place() -> None:
    q, k = noise(2, 3, 5, 4), noise(2, 3, 7, 4)
    keys, pairs, shared = noise(2, 7) > 0, noise(2, 5, 7) > 0, noise(1, 5, 7) > 0
    assert head_mask(None, q, k) is None
    for b, h, t in ((0, 0, 0), (1, 2, 3)):
        for mask, row in ((keys, keys[b]), (pairs, pairs[b, t]), (shared, shared[0, t])):
            full = head_mask(mask, q, k).expand(2, 3, 5, 7)
            assert torch.equal(full[b, h, t], row)


def test_head_mask_refuses_what_it_cannot_read() -> None:
    q, k = noise(2, 3, 5, 4), noise(2, 3, 7, 4)
    assert "boolean (True: attend), got torch.int64" in refusal(head_mask, torch.ones(2, 7).long(), q, k)
    for shape in ((2, 5), (7, 2), (5, 7), (2, 7, 5), (2, 1, 5, 7)):
        message = refusal(head_mask, torch.ones(shape, dtype=torch.bool), q, k)
        assert "[B, S] = [2, 7], [B, T, S] = [2, 5, 7]" in message and message.endswith(f"{list(shape)}")


# chapters/day02_multi_head_attention.md · A fused twin
def test_fused_attention_equals_the_readable_one() -> None:
    *inputs, pairs = random_attention_inputs()
    inputs = [x.requires_grad_() for x in inputs]
    nothing = torch.zeros(2, 1, 1, 7, dtype=torch.bool)
    for mask in (None, padding_mask(torch.tensor([7, 4]))[:, None, None, :], pairs, nothing):
        ours, _ = scaled_dot_product_attention(*inputs, mask)
        fused, _ = fused_attention(*inputs, mask)
        torch.testing.assert_close(fused, ours, rtol=0, atol=1e-10)
        if mask is nothing:
            assert (fused == 0).all()
        for mine, other in zip(gradients(fused, *inputs), gradients(ours, *inputs), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


# chapters/day02_multi_head_attention.md · Equal to PyTorch's
def twins(bias: bool = True, fused: bool = True) -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    """Our attention and PyTorch's with the same weights: C = 12, H = 3, in double."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3, bias=bias, fused=fused).double()
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.out_proj.weight.copy_(ours.out_proj.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
            theirs.out_proj.bias.copy_(ours.out_proj.bias)
    return ours.eval(), theirs.eval()


def gradients_by_their_names(ours: MultiHeadAttention) -> dict[str, Tensor]:
    """Our parameters' gradients, named and laid out as in nn.MultiheadAttention."""
    found = {}
    for part in ("weight", "bias"):
        if getattr(ours.out_proj, part) is not None:
            three = [getattr(p, part).grad for p in (ours.q_proj, ours.k_proj, ours.v_proj)]
            found[f"in_proj_{part}"] = torch.cat(three)
            found[f"out_proj.{part}"] = getattr(ours.out_proj, part).grad
    return found


def test_multi_head_attention_equals_pytorch_forward_and_backward() -> None:
    real, pairs = padding_mask(torch.tensor([7, 4])), noise(2, 5, 7, seed=4) > -0.3
    pairs[:, :, 0] = True  # in an empty row theirs is NaN if asked for weights
    masks = [(None, {}), (real, {"key_padding_mask": ~real})]
    masks += [(pairs, {"attn_mask": ~pairs.repeat_interleave(3, 0)})]
    for bias, fused in ((True, True), (True, False), (False, True), (False, False)):
        for mask, their_mask in masks:
            ours, theirs = twins(bias, fused)
            inputs = [noise(2, t, 12, seed=s).requires_grad_() for s, t in enumerate((5, 7, 7))]
            copies = [z.detach().clone().requires_grad_() for z in inputs]
            out, _ = ours(*inputs, attention_mask=mask)
            expected, _ = theirs(*copies, need_weights=False, **their_mask)
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
            for result in (out, expected):
                (result * noise(*result.shape, seed=99)).sum().backward()
            found = gradients_by_their_names(ours)
            wanted = {name: p.grad for name, p in theirs.named_parameters()}
            assert found.keys() == wanted.keys() and len(list(ours.parameters())) == (8 if bias else 4)
            for name in wanted:
                torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-10)
            for mine, other in zip(inputs, copies, strict=True):
                torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-10)


def test_weights_equal_pytorch_and_do_not_change_the_output() -> None:
    ours, theirs = twins()
    x, real = noise(2, 5, 12), padding_mask(torch.tensor([5, 3]))
    out, weights = ours(x, attention_mask=real, need_weights=True)
    _, expected = theirs(x, x, x, key_padding_mask=~real, average_attn_weights=False)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-10)
    for fused in (True, False):
        ours.fused = fused
        without, nothing = ours(x, attention_mask=real)
        assert nothing is None, "weights were not asked for"
        torch.testing.assert_close(without, out, rtol=0, atol=1e-10)


def bert_twin(ours: MultiHeadAttention) -> tuple[nn.Module, nn.Module]:
    """BERT's attention and its last projection, with our weights."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertSelfAttention, BertSelfOutput

    config = BertConfig(hidden_size=12, num_attention_heads=3, attn_implementation="eager")
    attention, output = (BertSelfAttention(config).double().eval(), BertSelfOutput(config).double().eval())
    attention.query.load_state_dict(ours.q_proj.state_dict())
    attention.key.load_state_dict(ours.k_proj.state_dict())
    attention.value.load_state_dict(ours.v_proj.state_dict())
    output.dense.load_state_dict(ours.out_proj.state_dict())
    return attention, output.dense


def test_multi_head_attention_equals_bert_forward_and_backward() -> None:
    real = padding_mask(torch.tensor([5, 3]))
    added = torch.zeros(2, 1, 1, 5, dtype=torch.float64).masked_fill(~real[:, None, None], -torch.inf)
    for fused in (True, False):
        for mask, their_mask in ((None, None), (real, added)):
            ours = twins(fused=fused)[0]
            bert, dense = bert_twin(ours)
            x = noise(2, 5, 12).requires_grad_()
            out, _ = ours(x, attention_mask=mask)
            expected = dense(bert(x, attention_mask=their_mask)[0])
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
            mine = gradients(out, x, *ours.parameters())
            yours = gradients(expected, x, *bert.parameters(), *dense.parameters())
            for a, b in zip(mine, yours, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


# chapters/day02_multi_head_attention.md · What the class promises
def test_padding_does_not_leak_through_the_class() -> None:
    real = padding_mask(torch.tensor([5, 3]))
    x = noise(2, 5, 12)
    changed = torch.where(real[..., None], x, 1e3 * noise(2, 5, 12, seed=1))
    for fused in (True, False):
        ours = twins(fused=fused)[0]
        before, _ = ours(x, attention_mask=real)
        after, _ = ours(changed, attention_mask=real)
        assert torch.equal(before[real], after[real]), "real tokens moved when only padding changed"
        alone, _ = ours(x[1:, :3])
        torch.testing.assert_close(before[1:, :3], alone, rtol=0, atol=1e-12)


def test_an_empty_sentence_gives_the_bias_and_finite_gradients() -> None:
    for fused in (True, False):
        ours = twins(fused=fused)[0]
        x = noise(2, 5, 12).requires_grad_()
        out, _ = ours(x, attention_mask=padding_mask(torch.tensor([0, 5])))
        assert torch.equal(out[0], ours.out_proj.bias.expand(5, 12))
        assert all(torch.isfinite(g).all() for g in gradients(out, x, *ours.parameters()))


def test_permuted_tokens_give_permuted_outputs_of_the_class() -> None:
    order, x = torch.tensor([3, 0, 4, 1, 2]), noise(2, 5, 12)
    for fused in (True, False):
        ours = twins(fused=fused)[0]
        torch.testing.assert_close(ours(x[:, order])[0], ours(x)[0][:, order], rtol=0, atol=1e-12)


def test_dropout_acts_in_training_only() -> None:
    x = noise(2, 5, 12)
    for fused in (True, False):
        ours = twins(fused=fused)[0]
        plain, _ = ours(x)
        ours.dropout = 0.5
        assert torch.equal(ours(x)[0], plain), "in eval mode dropout must do nothing"
        assert not torch.allclose(ours.train()(x)[0], plain), "in training dropout must act"


def test_multi_head_attention_refuses_wrong_arguments() -> None:
    assert "d_model=12 and num_heads=5" in refusal(MultiHeadAttention, 12, 5)
    assert "num_heads=0" in refusal(MultiHeadAttention, 12, 0)
    assert "num_heads=True" in refusal(MultiHeadAttention, 12, True)
    for dropout in (-0.1, 1.0):
        assert f"[0, 1), got {dropout}" in refusal(MultiHeadAttention, 12, 3, dropout=dropout)
    ours, x = twins()[0], noise(2, 5, 12)
    assert "d_model = 12, got [2, 5, 8]" in refusal(ours, noise(2, 5, 8))
    assert "key must have shape" in refusal(ours, x, noise(2, 7, 8))
    assert "same shape" in refusal(ours, x, noise(2, 7, 12), noise(2, 6, 12))
    assert "[B, S] = [2, 5]" in refusal(ours, x, attention_mask=torch.ones(2, 6, dtype=torch.bool))


# chapters/day11_deeper.md · The function, without autograd
def attention_inputs(seed: int = 0) -> list[Tensor]:
    """Random q, k, v and a gradient of the output in float64: B = 2, H = 3, T = 4, S = 5, D = 6, Dv = 7."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7), (2, 3, 4, 7))
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def attention_masks() -> dict[str, Tensor | None]:
    padding = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()[:, None, None]
    nobody = torch.ones(4, 5, dtype=torch.bool)
    nobody[1] = False
    return {"none": None, "padding": padding, "causal": causal_mask(5)[:4], "a row without keys": nobody}


def test_attention_gradients_equal_autograd():
    for name, mask in attention_masks().items():
        *inputs, grad_out = attention_inputs()
        variables = [tensor.requires_grad_() for tensor in inputs]
        expected, weights = scaled_dot_product_attention(*variables, mask)
        theirs = torch.autograd.grad(expected, variables, grad_out)
        out = attention_with_gradient(*variables, mask)
        assert torch.allclose(out, expected, rtol=0, atol=1e-12), name
        by_function = torch.autograd.grad(out, variables, grad_out)
        by_formula = attention_gradients(*inputs, weights.detach(), grad_out)
        for found in (by_function, by_formula):
            for letter, mine, right in zip("qkv", found, theirs, strict=True):
                close = torch.allclose(mine, right, rtol=0, atol=1e-12)
                assert close, f"d{letter}, mask: {name}"
        if mask is not None:
            hidden = ~mask.expand(2, 3, 4, 5).any(-2)  # keys that no query sees
            _, dk, dv = by_function
            assert dk[hidden].eq(0).all() and dv[hidden].eq(0).all(), name


def test_attention_function_agrees_with_central_differences():
    *inputs, _ = (tensor[:1] for tensor in attention_inputs(1))
    variables = [tensor.requires_grad_() for tensor in inputs]
    for name, mask in attention_masks().items():
        mask = mask[:1] if name == "padding" else mask
        assert torch.autograd.gradcheck(lambda *t, m=mask: AttentionFunction.apply(*t, m), variables), name


def test_attention_function_refuses_a_second_derivative():
    q, k, v, _ = (tensor.requires_grad_() for tensor in attention_inputs())
    (first,) = torch.autograd.grad(attention_with_gradient(q, k, v).pow(2).sum(), q, create_graph=True)
    try:
        first.sum().backward()
    except RuntimeError as error:
        assert "once_differentiable" in str(error), error
        return
    raise AssertionError("the backward pass was differentiated")
