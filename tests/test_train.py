# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.train`."""

import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.data import Examples, load_examples, make_loader
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer
from minitransformer.train import (
    StepResult,
    _flat_weights,
    _logits_of,
    _split_batch,
    autocast_on,
    choose_autocast,
    choose_device,
    disagreement,
    make_scaler,
    train_epoch,
    train_step,
)


# chapters/day05_training.md · Which way is down: softmax minus one-hot
def test_gradient_of_cross_entropy_is_softmax_minus_onehot() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 2, 1, 1, 2])
    (gradient,) = torch.autograd.grad(F.cross_entropy(z, y), z)
    expected = (z.softmax(-1) - F.one_hot(y, 3)) / 5
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)
    assert gradient.sum(-1).abs().max() < 1e-12, "what one class gains, the others lose"


# chapters/day05_training.md · A prediction before the first step
def test_first_loss_is_the_logarithm_of_the_number_of_classes() -> None:
    for K in (2, 3, 7):
        torch.manual_seed(K)
        config = ModelConfig(vocab_size=19, d_model=24, num_heads=3, d_ff=40, dropout=0.0, num_labels=K)
        model = TransformerForSequenceClassification(config)
        ids = torch.randint(5, 19, (4 * K, 6))
        loss = F.cross_entropy(model(ids), torch.arange(K).repeat(4))
        assert abs(loss.item() - math.log(K)) < 0.1, (
            f"{loss.item():.3f} for {K} classes, expected {math.log(K):.3f}"
        )


# chapters/day06_engineering.md · Cutting a batch
def small_model(**changes: object) -> TransformerForSequenceClassification:
    """A model in 64 bits with C=12, H=3, V=11."""
    torch.manual_seed(0)
    settings = {"vocab_size": 11, "d_model": 12, "num_heads": 3, "d_ff": 20, "max_length": 9, "dropout": 0.0}
    return TransformerForSequenceClassification(ModelConfig(**settings | changes)).double()


def small_batch() -> dict[str, Tensor]:
    """Three sentences of 6, 4 and 3 tokens, padded to 6."""
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0], [2, 10, 3, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([1, 0, 1])}


# chapters/day05_training.md · `train_step`
def test_train_step_is_one_clipped_step_downhill() -> None:
    batch, eta, limit = small_batch(), 0.3, 0.05
    model, twin = small_model(), small_model()
    loss = F.cross_entropy(twin(batch["input_ids"], batch["attention_mask"]), batch["labels"])
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    norm = torch.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > limit, "the test must clip, or it says nothing about clipping"
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)  # left over from somewhere
    result = train_step(model, batch, torch.optim.SGD(model.parameters(), eta), limit)
    assert math.isclose(result.loss, loss.item()) and math.isclose(
        result.grad_norm, norm.item(), rel_tol=1e-9
    )
    for ours, old, g in zip(model.parameters(), twin.parameters(), gradients, strict=True):
        # PyTorch divides by the norm + 1e-6, so the step may differ in the sixth place
        torch.testing.assert_close(ours, old - eta * g * limit / norm, rtol=0, atol=1e-6)


def test_train_step_does_not_see_padding() -> None:
    batch, model, twin = small_batch(), small_model(), small_model()
    garbled = batch | {"input_ids": batch["input_ids"].masked_fill(~batch["attention_mask"], 8)}
    results = [
        train_step(m, b, torch.optim.SGD(m.parameters(), 0.1)) for m, b in ((model, batch), (twin, garbled))
    ]
    assert math.isclose(results[0].loss, results[1].loss, rel_tol=1e-12), "the padding changed the loss"
    assert (results[0].examples, results[0].tokens) == (3, 13)
    torch.testing.assert_close(model.classifier.weight, twin.classifier.weight, rtol=0, atol=1e-12)


def test_train_step_keeps_nan_out_of_the_weights() -> None:
    def nan(module, inputs, output):
        return output * torch.nan

    def infinite(gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, torch.inf)

    for where in ("loss", "gradient"):
        model = small_model()
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        train_step(model, small_batch(), optimizer)
        before = [w.detach().clone() for w in model.parameters()]
        means = [optimizer.state[w]["exp_avg"].clone() for w in model.parameters()]
        if where == "loss":
            sick = model.classifier.register_forward_hook(nan)
        else:
            sick = model.classifier.bias.register_hook(infinite)
        result = train_step(model, small_batch(), optimizer, step=17)
        sick.remove()
        assert result.skipped and result.step == 17
        assert math.isnan(result.loss) == (where == "loss")
        for weight, old, mean in zip(model.parameters(), before, means, strict=True):
            assert torch.equal(weight, old), f"{where}: a weight changed"
            assert torch.equal(optimizer.state[weight]["exp_avg"], mean), f"{where}: the optimizer saw it"
        again = train_step(model, small_batch(), optimizer)
        assert isinstance(again, StepResult) and not again.skipped


# chapters/day05_training.md · `train_epoch`
def test_train_epoch_is_its_steps_in_order() -> None:
    batches = [small_batch(), {name: value[:2] for name, value in small_batch().items()}]
    model, twin = small_model(), small_model()
    seen: list[StepResult] = []
    model.eval()
    results = train_epoch(model, batches, torch.optim.SGD(model.parameters(), 0.1), 1.0, 5, seen.append)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    assert results == seen == [train_step(twin, b, optimizer, 1.0, 5 + i) for i, b in enumerate(batches)]
    assert [r.examples for r in results] == [3, 2] and results[1].loss != results[0].loss
    assert model.training, "dropout must be on while training"
    with pytest.raises(ValueError, match="no batch"):
        train_epoch(model, [], optimizer)


# chapters/day05_training.md · The test of a training loop: a hundred examples
def test_train_epoch_drives_few_examples_to_zero_loss() -> None:
    examples = Examples(["a b", "b a", "a a b", "b b a"] * 2, [0, 1, 1, 0] * 2, "words in an order")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=7)
    torch.manual_seed(0)
    config = ModelConfig(
        len(tokenizer.vocabulary), d_model=24, num_heads=3, d_ff=32, max_length=7, dropout=0.0
    )
    model = TransformerForSequenceClassification(config)
    loader = make_loader(examples, tokenizer, batch_size=4, shuffle=True, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = [train_epoch(model, loader, optimizer)[-1].loss for _ in range(60)]
    assert abs(losses[0] - math.log(2)) < 0.4 and losses[-1] < 0.02, (losses[0], losses[-1])


# chapters/day06_engineering.md · Cutting a batch
def uneven_batch() -> dict[str, Tensor]:
    """Seven sentences of 4, 3, 6, 5, 9, 3 and 7 tokens, padded to 9."""
    lengths = (4, 3, 6, 5, 9, 3, 7)
    words = [[4 + (3 * i + j * j) % 7 for j in range(n - 2)] for i, n in enumerate(lengths)]
    ids = torch.tensor([[2, *row, 3, *[0] * (7 - len(row))] for row in words])
    return {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([1, 0, 0, 1, 1, 0, 1])}


def test_split_batch_loses_and_repeats_nothing() -> None:
    batch = uneven_batch()
    for parts, sizes in ((1, [7]), (2, [4, 3]), (3, [3, 2, 2]), (7, [1] * 7), (99, [1] * 7)):
        pieces = list(_split_batch(batch, parts))
        assert [len(piece["labels"]) for piece in pieces] == sizes, f"{parts} parts"
        words = [ids[ids != 0].tolist() for piece in pieces for ids in piece["input_ids"]]
        assert words == [ids[ids != 0].tolist() for ids in batch["input_ids"]], "a token was lost"
        assert torch.equal(torch.cat([piece["labels"] for piece in pieces]), batch["labels"])
        for piece in pieces:
            assert torch.equal(piece["attention_mask"], piece["input_ids"] != 0)
            assert piece["attention_mask"].any(0).all(), "a column of nothing but padding is left"
    flipped = {name: value.flip(-1) for name, value in batch.items()}
    words = [ids[ids != 0].tolist() for piece in _split_batch(flipped, 3) for ids in piece["input_ids"]]
    assert words == [ids[ids != 0].tolist() for ids in flipped["input_ids"]], (
        "a token was lost where padding stands on the left"
    )


# chapters/day06_engineering.md · Autocast: who computes in which type?
def test_choose_device_takes_the_accelerator_that_is_there() -> None:
    for kind in ("cuda", "mps", "xpu"):
        fakes = {"is_available": True, "current_accelerator": torch.device(kind), "device_count": 2}
        with mock.patch.multiple(
            torch.accelerator, **{n: mock.Mock(return_value=v) for n, v in fakes.items()}
        ):
            assert choose_device("auto").type == kind and choose_device("cpu").type == "cpu"
            assert choose_device(f"{kind}:1") == torch.device(kind, 1)
            no_device(f"{kind}:2")
    with mock.patch.object(torch.accelerator, "is_available", return_value=False):
        assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
        for name in ("cuda", "mps", "tpu"):
            no_device(name)


def no_device(name: str) -> None:
    """`choose_device` must not take a name that is no device here."""
    with pytest.raises(ValueError, match=f"one of auto, cpu.*{name}"):
        choose_device(name)


def test_autocast_on_and_choose_autocast() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast_on(cpu, name):
            assert (a @ b).dtype == kind, f"{name}: the product came in {(a @ b).dtype}"
        assert (a @ b).dtype == torch.float32, "the context leaks"
    with pytest.raises(ValueError, match="autocast must be one of .*fp8"):
        autocast_on(cpu, "fp8")
    assert choose_autocast(cpu, "auto") in ("bf16", "fp32") and choose_autocast(cuda, "fp32") == "fp32"
    for has, chosen in ((True, "bf16"), (False, "fp16")):
        supported = mock.Mock(return_value=has)
        with mock.patch.multiple(torch.cuda, device=mock.MagicMock(), is_bf16_supported=supported):
            assert choose_autocast(cuda, "auto") == chosen
    assert choose_autocast(torch.device("mps"), "auto") == "fp32"


# chapters/day06_engineering.md · The rescue: scale the loss
def test_make_scaler_scales_fp16_alone() -> None:
    loss = torch.tensor(3.0)
    for dtype, factor in (("fp16", 2.0**16), ("bf16", 1.0), ("fp32", 1.0)):
        assert make_scaler(torch.device("cpu"), dtype).scale(loss).item() == 3.0 * factor, dtype


# chapters/day06_engineering.md · `train_step`, complete
def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    batch, whole = uneven_batch(), small_model()
    logits = whole(batch["input_ids"], batch["attention_mask"])
    loss = F.cross_entropy(logits, batch["labels"])
    loss.backward()
    right = (logits.argmax(-1) == batch["labels"]).sum()
    for parts in (1, 2, 3, 7, 50):
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        result = train_step(model, batch, optimizer, math.inf, micro_batches=parts)
        off = abs(result.loss - loss.item())
        assert off < 1e-12, f"{parts} parts: the loss is off by {off:.1e}" + (
            "; were 64 bits cut to 32?" if off < 1e-6 else ""
        )
        pairs = zip(model.named_parameters(), whole.parameters(), strict=True)
        for (name, ours), theirs in pairs:
            off = (ours.grad - theirs.grad).abs().max()
            assert off < 1e-12, f"{parts} parts: gradient of {name} off by {off:.1e}"
        counts = (result.correct, result.examples, result.tokens)
        assert counts == (right, 7, 37), "the counts are those of the whole batch"


def test_train_step_unscales_before_it_clips() -> None:
    eta, limit = 0.5, 0.01
    for parts in (1, 3):
        model, exact = small_model().float(), small_model().float()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), eta)
        result = train_step(model, uneven_batch(), optimizer, limit, 1, parts, "fp16")
        wanted = train_step(exact, uneven_batch(), torch.optim.SGD(exact.parameters(), eta), limit)
        assert not result.skipped and wanted.grad_norm > 10 * limit, "the test must clip"
        assert math.isclose(result.grad_norm, wanted.grad_norm, rel_tol=0.02), (
            f"fp16 norm {result.grad_norm}, fp32 {wanted.grad_norm}: still scaled?"
        )
        moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
        assert math.isclose(moved.norm().item(), eta * limit, rel_tol=0.01), "not clipped to the limit"


def test_a_skipped_step_halves_the_scale() -> None:
    for dtype, scale, fused in (
        ("fp32", 1.0, False),
        ("fp32", 1.0, True),
        ("fp16", 2.0**15, False),
        ("fp16", 2.0**15, True),
    ):
        model = small_model().float()
        optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=fused)
        scaler = make_scaler(torch.device("cpu"), dtype)
        train_step(model, small_batch(), optimizer, autocast=dtype, scaler=scaler)
        held = [*model.parameters()]
        for kept in optimizer.state.values():
            held += kept.values()
        before = [tensor.detach().clone() for tensor in held]
        sick = model.classifier.register_forward_hook(lambda m, i, out: out * torch.nan)
        result = train_step(model, small_batch(), optimizer, 1.0, 17, 1, dtype, scaler)
        sick.remove()
        assert isinstance(result, StepResult) and result.skipped
        for now, old in zip(held, before, strict=True):
            assert torch.equal(now, old), f"{dtype}: a weight or a mean changed"
        again = train_step(model, small_batch(), optimizer, 1.0, 18, 1, dtype, scaler)
        assert not again.skipped and not torch.equal(before[0], next(model.parameters()))
        assert scaler.get_scale() == scale, "one skip halves the scale"
    for fused in (False, True):  # a first step that is skipped leaves no sum undefined
        model = small_model().float()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=fused)
        before = [weight.detach().clone() for weight in model.parameters()]
        sick = model.classifier.register_forward_hook(lambda m, i, out: out * torch.nan)
        assert train_step(model, small_batch(), optimizer).skipped
        sick.remove()
        train_step(model, small_batch(), optimizer)
        for weight, old in zip(model.parameters(), before, strict=True):
            assert (weight - old).abs().max() <= 0.11, "a step of 0.1, clipped to 1"


def test_train_step_trains_in_every_type() -> None:
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for dtype, kind in kinds.items():
        model, seen = small_model().float(), set()
        model.classifier.register_forward_hook(lambda module, inputs, output, s=seen: s.add(output.dtype))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        scaler = make_scaler(torch.device("cpu"), dtype)
        steps = [train_step(model, uneven_batch(), optimizer, 1.0, i, 2, dtype, scaler) for i in range(1, 31)]
        assert seen == {kind}, f"{dtype}: the logits came in {seen}"
        assert abs(steps[0].loss - math.log(2)) < 0.1, f"{dtype}: {steps[0].loss}"
        assert steps[-1].loss < 0.1, f"{dtype} does not learn: {steps[-1].loss}"
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}


# chapters/day08_data_schedule_monitoring.md · Watching a run
def test_the_length_of_a_step_of_sgd_is_rate_times_gradient() -> None:
    torch.manual_seed(0)
    config = ModelConfig(11, d_model=12, num_heads=3, d_ff=20, max_length=9, dropout=0)
    model = TransformerForSequenceClassification(config).double()
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0], [2, 10, 3, 0, 0, 0]])
    labels = torch.tensor([1, 0, 1])
    batch = {"input_ids": ids, "attention_mask": ids != 0, "labels": labels}
    before = _flat_weights(model)
    assert before.shape == (sum(p.numel() for p in model.parameters()),)
    kept, optimizer = before.clone(), torch.optim.SGD(model.parameters(), 0.3)
    result = train_step(model, batch, optimizer, max_grad_norm=math.inf)
    moved = (_flat_weights(model) - before).norm().item()
    assert torch.equal(before, kept), "the vector must be a copy"
    assert moved > 0 and math.isclose(moved, 0.3 * result.grad_norm, rel_tol=1e-9)


# chapters/day09_sprint.md · Two passes that agree
def test_disagreement_is_the_number_by_hand():
    first, second = (torch.tensor([[p, 1 - p]]).log() for p in (0.9, 0.6))
    kl = 0.9 * math.log(1.5) + 0.1 * math.log(0.25)
    back = 0.6 * math.log(2 / 3) + 0.4 * math.log(4)
    assert abs(disagreement(first, second).item() - (kl + back) / 2) < 1e-6
    assert abs((kl + back) / 2 - 0.269) < 5e-4
    assert disagreement(first, first).item() == 0
    assert disagreement(first, second + 7) == disagreement(second, first)


def test_r_drop():
    batch = next(
        iter(make_loader(load_examples("toy", "train"), WordTokenizer(Vocabulary(SPECIAL_TOKENS)), 8))
    )
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(5, 16, 2, 32, 1, 32, dropout=0.3)).train()
    parts = list(_split_batch(batch, 2))
    torch.manual_seed(1)
    total = torch.zeros(())
    for part in parts:
        one, two = (_logits_of(model, part, "fp32") for _ in range(2))
        labels = part["labels"]
        total = total + (F.cross_entropy(one, labels) + F.cross_entropy(two, labels)) / 2 * len(labels) / 8
        p, q = one.softmax(-1), two.softmax(-1)
        total = total + 3 * ((p - q) * (p / q).log()).sum() / 2 / 8  # both directions at once
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(total, list(model.parameters()))]).norm()
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    result = train_step(model, batch, optimizer, math.inf, micro_batches=2, r_drop=3.0)
    assert abs(result.grad_norm / expected.item() - 1) < 1e-4 and result.loss < total.item()
    assert result.tokens == int(batch["attention_mask"].sum()), "tokens of the batch count once"
    assert _logits_of(model, batch, "bf16").dtype == torch.float32
