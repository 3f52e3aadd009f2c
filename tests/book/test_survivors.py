"""Wrong implementations that once passed every test; each test here fails on one kind of them."""

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer import pretrain
from minitransformer.attention import (
    attention_gradients,
    causal_mask,
    masked_softmax,
    scaled_dot_product_attention,
)
from minitransformer.data import Examples, load_examples
from minitransformer.encoder import TransformerEncoder
from minitransformer.evaluate import _swap_letters, calibration_bins
from minitransformer.experiment.checkpoint import TrainingState
from minitransformer.experiment.fit import _begin
from minitransformer.experiment.folder import _origin, _write_json
from minitransformer.experiment.job import Reading
from minitransformer.experiment.recipe import best_run
from minitransformer.experiment.settings import DataConfig, PretrainConfig, RunConfig, TrainingConfig
from minitransformer.layers import SinusoidalPositionalEncoding, layer_norm_gradients, sinusoidal_encoding
from minitransformer.model import (
    ModelConfig,
    TransformerForMaskedLM,
    TransformerForSequenceClassification,
    _mean_of_tokens,
)
from minitransformer.pretrain import Corpus, MaskedLMObjective, build_corpus, make_corpus_loader, mask_tokens
from minitransformer.schedule import linear_schedule
from minitransformer.tokenizer import (
    SPECIAL_TOKENS,
    Vocabulary,
    WordPieceTokenizer,
    WordTokenizer,
    load_tokenizer,
)
from minitransformer.train import train_epoch, train_step

SPECIAL = len(SPECIAL_TOKENS)
MODEL = ModelConfig(40, d_model=12, num_heads=3, d_ff=20, num_layers=1, max_length=16, dropout=0.0)
CPU = torch.device("cpu")


def reading_batch(labels: tuple[int, ...] = (1, -1, -1, 0)) -> dict[str, Tensor]:
    """Texts of 10, 8, 6 and 4 tokens between [CLS] and [SEP], padded to 12."""
    generator, rows = torch.Generator().manual_seed(3), []
    for length in (10, 8, 6, 4):
        ids = torch.randint(SPECIAL, MODEL.vocab_size, (length,), generator=generator).tolist()
        rows.append([2, *ids, 3] + [0] * (10 - length))
    input_ids = torch.tensor(rows)
    return {"input_ids": input_ids, "attention_mask": input_ids != 0, "labels": torch.tensor(labels)}


def reader(dropout: float = 0.0) -> TransformerForMaskedLM:
    torch.manual_seed(0)
    return TransformerForMaskedLM(replace(MODEL, dropout=dropout))


# --- the reading's update and its label loss


def update_with(scaler: torch.amp.GradScaler, max_grad_norm: float) -> tuple[float, Tensor]:
    """One step of SGD of the reading: the norm that it reports, and all weights after it."""
    model = reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state, settings = TrainingState(model, optimizer, scaler), TrainingConfig(max_grad_norm=max_grad_norm)
    result = Reading(0.3, 0.5).update(state, reading_batch(), settings).read()
    return result.grad_norm, nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("max_grad_norm", [0.05, 1e6])
def test_a_reading_clips_the_gradient_itself_and_not_the_scaled_one(max_grad_norm):
    norm, weights = update_with(torch.amp.GradScaler("cpu", enabled=False), max_grad_norm)
    scaled_norm, scaled = update_with(torch.amp.GradScaler("cpu", init_scale=2.0**12), max_grad_norm)
    assert scaled_norm == pytest.approx(norm, rel=1e-4)
    start = nn.utils.parameters_to_vector(reader().parameters()).detach()
    torch.testing.assert_close(scaled - start, weights - start, rtol=1e-3, atol=1e-7)
    length = 0.1 * min(norm, max_grad_norm)  # of a step of SGD
    assert (weights - start).norm().item() == pytest.approx(length, rel=1e-3)


def test_a_reading_is_evaluated_without_dropout_and_goes_on_with_it():
    model, loader = reader(dropout=0.5).train(), [reading_batch(), reading_batch()]
    objective = Reading(0.3)
    once, again = objective.evaluate(model, loader), objective.evaluate(model, loader)
    assert once == again
    assert model.training and all(part.training for part in model.modules())
    model.eval()
    losses = [MaskedLMObjective(0.3).losses(model, batch, -1 - i) for i, batch in enumerate(loader)]
    size = sum(n for _, _, _, n in losses)
    assert once.n == size
    assert once.loss == pytest.approx(sum(loss.item() * n for loss, _, _, n in losses) / size, rel=1e-6)
    assert once.accuracy == sum(right for _, _, right, _ in losses) / size


def test_the_label_loss_is_the_mean_over_the_labelled_texts_alone():
    model, batch = reader(), reading_batch()
    _, found, _, _ = MaskedLMObjective(0.3, 1.0).losses(model, batch, 5)
    generator = torch.Generator().manual_seed(5)
    seen, _ = mask_tokens(batch["input_ids"], batch["attention_mask"], MODEL.vocab_size, 0.3, generator)
    logits = model.classify(model.encoder(seen, batch["attention_mask"]), batch["attention_mask"])
    by_hand = (
        F.cross_entropy(logits[:1], torch.tensor([1])) + F.cross_entropy(logits[3:], torch.tensor([0]))
    ) / 2
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("labels", [(-1, -1, -1, -1), (0, 0, 0, 0)])
def test_the_label_loss_without_labels_and_with_the_label_zero(labels):
    _, loss, _, _ = MaskedLMObjective(0.3, 1.0).losses(reader(), reading_batch(labels), 0)
    assert (loss.item() == 0) == (labels[0] < 0)


def test_both_losses_of_a_reading_reach_the_weights_with_their_weight():
    gradients = []
    for weight in (0.0, 0.5, 1.0):
        model = reader()
        token_loss, label_loss, _, _ = MaskedLMObjective(0.3, max(weight, 0.1)).losses(
            model, reading_batch(), 0
        )
        (token_loss + weight * label_loss).backward()
        by_hand = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model = reader()
        state = TrainingState(
            model, torch.optim.SGD(model.parameters(), 1.0), torch.amp.GradScaler("cpu", enabled=False)
        )
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        Reading(0.3, weight).update(state, reading_batch(), TrainingConfig(max_grad_norm=1e6))
        moved = before - nn.utils.parameters_to_vector(model.parameters()).detach()
        assert moved.norm().item() == pytest.approx(by_hand.norm().item(), rel=1e-4)
        gradients.append(moved)
    torch.testing.assert_close(
        gradients[1] - gradients[0], (gradients[2] - gradients[0]) / 2, rtol=1e-3, atol=1e-6
    )


def test_a_batch_with_nothing_to_hide_has_a_loss_of_zero_and_still_learns_its_labels():
    batch = reading_batch()
    unknown = batch | {"input_ids": batch["input_ids"].clamp(max=SPECIAL_TOKENS.index("[UNK]"))}
    model, objective = reader(), Reading(0.3, 0.5)
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", enabled=False)
    )
    before = model.classifier.weight.detach().clone()
    result = objective.update(state, unknown, TrainingConfig()).read()
    assert (result.loss, result.examples, result.skipped) == (0.0, 0, False) and result.grad_norm > 0
    assert not torch.equal(model.classifier.weight, before)
    assert objective.evaluate(model, [batch, unknown]) == objective.evaluate(model, [batch])


# --- which tokens are hidden, and by what


def test_a_hidden_token_is_replaced_by_any_ordinary_entry_and_by_no_special_one():
    vocab_size, generator = SPECIAL + 7, torch.Generator().manual_seed(0)
    ids = torch.full((40, 50), SPECIAL + 2)
    seen, chosen = mask_tokens(ids, torch.ones_like(ids, dtype=torch.bool), vocab_size, 0.5, generator)
    changed = seen[chosen & (seen != ids)]
    others = changed[changed != SPECIAL_TOKENS.index("[MASK]")]
    assert set(others.tolist()) == set(range(SPECIAL, vocab_size)) - {SPECIAL + 2}
    assert torch.equal(seen[~chosen], ids[~chosen])
    shares = torch.tensor([(seen[chosen] == 4).float().mean(), len(others) / int(chosen.sum())])
    wanted = torch.tensor([0.8, 0.1 * 6 / 7])  # one in seven random entries is the token itself
    assert torch.all((shares - wanted).abs() < 5 * (wanted * (1 - wanted) / int(chosen.sum())).sqrt())


def test_special_and_padded_tokens_are_never_hidden():
    batch, generator = reading_batch(), torch.Generator().manual_seed(1)
    for _ in range(50):
        seen, chosen = mask_tokens(
            batch["input_ids"], batch["attention_mask"], MODEL.vocab_size, 0.9, generator
        )
        assert not chosen[batch["input_ids"] < SPECIAL].any()
        assert torch.equal(seen[~chosen], batch["input_ids"][~chosen])


# --- the optimizer that a run begins with


def shrunk(state: TrainingState) -> float:
    """By which factor a weight shrinks in a step whose gradient is zero: all that is left is the decay."""
    weight = next(p for p in state.model.parameters() if p.dim() == 2)
    before = weight.detach().clone()
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    return (weight.detach().norm() / before.norm()).item()


@pytest.mark.parametrize("kind", ["run", "reading"])
def test_the_optimizer_decays_weights_apart_from_the_gradient(kind):
    training = TrainingConfig(learning_rate=1e-2, weight_decay=0.3)
    if kind == "run":
        state = _begin(RunConfig("a", DataConfig("toy"), MODEL, training), CPU)
    else:
        state = _begin(PretrainConfig("a", "toy", replace(MODEL, vocab_size=400), training, 10), CPU)
    assert type(state.optimizer) is torch.optim.AdamW
    assert shrunk(state) == pytest.approx(1 - 1e-2 * 0.3, abs=1e-6)
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == len(
        list(state.model.parameters())
    )
    betas = {group["betas"] for group in state.optimizer.param_groups}
    assert betas == {(0.9, 0.999) if kind == "run" else (0.9, 0.98)}


# --- the best run, and what a run comes from


def finished(folder: Path, accuracies: list[float], kind: str = "alone") -> Path:
    folder.mkdir()
    rows = [
        {"kind": "epoch", "step": i, "epoch": i, "validation": {"n": 100, "accuracy": a, "loss": 0.5}}
        for i, a in enumerate(accuracies, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _write_json(folder / "run.json", {"name": folder.name, "class": kind})
    return folder


def test_the_best_run_is_that_of_the_highest_last_accuracy_and_of_equals_the_first(tmp_path):
    runs = [
        finished(tmp_path / name, accuracies)
        for name, accuracies in {"a": [0.9, 0.7], "b": [0.5, 0.8], "c": [0.6, 0.8], "d": [0.95, 0.1]}.items()
    ]
    assert best_run(runs) == runs[1]
    assert best_run(runs[::-1]) == runs[2]
    assert best_run([runs[0], runs[3]]) == runs[0]


@pytest.mark.parametrize("kind", ["alone", "read", "taught"])
def test_a_run_has_the_class_of_what_it_starts_from(tmp_path, kind):
    source = finished(tmp_path / "source", [0.5], kind)
    for name in ("tokenizer.json", "model.safetensors"):
        (source / name).write_bytes(name.encode())
    config = RunConfig("a", DataConfig("toy"), MODEL)
    assert _origin(config)[0] == "alone"
    assert _origin(replace(config, initial=str(source)))[0] == kind
    assert _origin(replace(config, data=replace(config.data, tokenizer=str(source))))[0] == kind


# --- dropout, truncation, small scores


def test_dropout_acts_on_the_embeddings_too():
    torch.manual_seed(0)
    encoder = TransformerEncoder(
        30, d_model=64, num_heads=4, d_ff=8, num_layers=1, max_length=20, dropout=0.4
    )
    ids = torch.randint(5, 30, (8, 20))
    plain, dropped = encoder.eval().embed(ids), encoder.train().embed(ids)
    kept = dropped != 0
    share = kept.float().mean().item()
    assert abs(share - 0.6) < 5 * (0.24 / kept.numel()) ** 0.5
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.6)


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_a_loaded_tokenizer_cuts_where_the_saved_one_did(tmp_path, kind):
    text = "a dull film , but not a weak cast at all"
    if kind == "words":
        tokenizer = WordTokenizer(Vocabulary.from_texts([text]), max_length=7)
    else:
        tokenizer = WordPieceTokenizer.train([text], 120, max_length=7)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.max_length == 7
    ids = loaded.encode(text)
    assert ids == tokenizer.encode(text)
    assert len(ids) == 7 and ids[-1] == loaded.vocabulary.ids["[SEP]"]
    assert len(loaded.tokenize(text)) > 7, "tokenize gives all of them"
    loaded.max_length = 5
    assert len(loaded.encode(text)) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("share", [1e-6, 1e-2, 0.5])
def test_a_mask_holds_however_small_the_allowed_scores_are(dtype, share):
    """Scores far below any constant such as -1e4 or -1e9 still win against a forbidden key."""
    low = -share * torch.finfo(dtype).max
    scores = torch.tensor([[low, low, 7.0], [low, 7.0, low]], dtype=dtype)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0], [0.5, 0, 0.5]], dtype=dtype))


def test_a_mask_holds_in_attention_with_huge_keys():
    q, k = torch.full((1, 1, 1, 4), 1e4), torch.full((1, 1, 3, 4), -1e8)
    k[0, 0, 2] = 1.0
    v, mask = torch.tensor([[[[2.0], [4.0], [100.0]]]]), torch.tensor([True, True, False])
    out, weights = scaled_dot_product_attention(q, k, v, mask)
    assert weights.flatten().tolist() == [0.5, 0.5, 0.0] and out.item() == 3.0


# --- numbers that nothing had looked at


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_mean_of_a_text_counts_each_text_s_own_tokens(length):
    """Beside a longer text, down to a text of one token."""
    hidden = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(6) < torch.tensor([[length], [6]])
    expected = torch.stack([hidden[0, :length].mean(0), hidden[1].mean(0)])
    torch.testing.assert_close(_mean_of_tokens(hidden, mask), expected)


def test_the_defaults_are_the_documented_ones():
    assert SinusoidalPositionalEncoding(4).encoding.shape == (512, 4)
    assert len(calibration_bins(torch.linspace(0.5, 1, 50), torch.ones(50, dtype=torch.bool))) == 10
    assert sinusoidal_encoding(1, 2).tolist() == [[0, 1]], (
        "one place, one pair of columns: the smallest table"
    )
    assert linear_schedule(0, 8) == 1, "without a warm-up the first step has the whole rate"
    x = 1e-3 * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, weight, bias = (t.requires_grad_() for t in (x, torch.ones_like(x[0]), torch.zeros_like(x[0])))
    grad_out = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    F.layer_norm(x, (4,), weight, bias).backward(grad_out)
    for ours, theirs in zip(layer_norm_gradients(x, weight, grad_out), (x, weight, bias), strict=True):
        torch.testing.assert_close(ours, theirs.grad)


def test_the_schedule_ends_one_step_after_the_warm_up_if_it_must():
    assert [linear_schedule(step, 5, warmup=4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 0]


def test_swapped_letters_leave_the_spaces():
    assert _swap_letters("a  bright film ") == "a  birght film "


def test_an_epoch_counts_from_1_clips_at_1_and_shows_a_bar_that_goes():
    model = TransformerForSequenceClassification(MODEL)
    batch = reading_batch((1, 0, 1, 0))
    with torch.no_grad():
        model.classifier.weight.mul_(1e3)
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    with mock.patch("minitransformer.train.tqdm", side_effect=lambda loader, *_, **__: loader) as bar:
        (result,) = train_epoch(model, [batch], torch.optim.SGD(model.parameters(), lr=1.0))
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert result.step == 1 and result.grad_norm > 2
    torch.testing.assert_close((after - before).norm(), torch.tensor(1.0), rtol=1e-3, atol=0)
    assert bar.mock_calls == [mock.call([batch], "training", leave=False, disable=None)]
    with pytest.raises(ValueError, match=r"^there is nothing to train on: the loader yields no batch$"):
        train_epoch(model, [], torch.optim.SGD(model.parameters(), lr=1.0))


# --- what is read, and in which order


def small_corpus(sizes: tuple[int, ...] = (9, 30, 1, 12, 25, 4)) -> Corpus:
    """Reviews of so many ids, which count up through the whole corpus; every second one is labelled."""
    ends = np.cumsum(sizes)
    labels = np.array([i % 2 if i % 4 < 2 else -1 for i in range(len(sizes))])
    return Corpus(
        np.arange(SPECIAL, SPECIAL + ends[-1], dtype=np.uint16),
        np.stack([ends - sizes, ends], 1),
        labels,
        "made up",
    )


def test_imdb_is_all_its_reviews_and_its_train_split_a_quarter(monkeypatch):
    splits = {"train": [1, 0], "test": [0, 1], "unsupervised": [-1]}
    monkeypatch.setattr(
        pretrain, "load_imdb", lambda name: Examples([name] * len(splits[name]), splits[name], name)
    )
    found = pretrain._load_corpus_texts("imdb")
    assert found.texts == ["train", "train", "test", "test", "unsupervised"]
    assert (found.labels, found.source) == ([1, 0, 0, 1, -1], "IMDB, 5 reviews")
    found = pretrain._load_corpus_texts("imdb_train")
    assert (found.texts, found.labels, found.source) == (["train"] * 2, [1, 0], "IMDB, 2 reviews")


def test_four_toy_sentences_of_one_label_make_a_review():
    reviews, found = load_examples("toy", "train"), pretrain._load_corpus_texts("toy")
    sentences: dict[int, list[str]] = {0: [], 1: []}
    for text, label in zip(found.texts, found.labels, strict=True):
        sentences[label] += text.split(" . ")
    for label, of_label in sentences.items():
        assert of_label == [t for t, y in zip(reviews.texts, reviews.labels, strict=True) if y == label]
    assert {text.count(" . ") for text in found.texts} == {3}


@pytest.mark.parametrize("more", [0, 1])
def test_a_corpus_holds_ids_of_16_bits_and_no_more(more):
    words = [f"w{i}" for i in range(2**16 - SPECIAL + more)]
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, *words]), 8)
    examples = Examples([f"{words[-1]} what {words[0]}"], [-1], "made up")
    if more:
        with pytest.raises(ValueError, match=r"below 65,536, but the vocabulary has 65537$"):
            build_corpus(examples, tokenizer)
    else:
        found = build_corpus(examples, tokenizer)
        assert found.tokens.tolist() == [2**16 - 1, 1, SPECIAL] and found.labels.dtype == np.int64


def test_a_part_of_a_corpus_keeps_its_labels():
    part = small_corpus().part(np.array([4, 1]))
    assert part.labels.tolist() == [0, 1] and (part.spans[:, 1] - part.spans[:, 0]).tolist() == [25, 30]


def test_a_review_that_just_fits_is_one_chunk_in_every_epoch():
    corpus = small_corpus((8, 8, 17))
    for epoch in range(20):
        chunks = pretrain._cut_points(corpus.spans, 8, seed=0, epoch=epoch)
        assert chunks[:2].tolist() == [[0, 8, 0], [8, 16, 1]]


def test_the_cuts_are_those_of_the_recorded_runs():
    """Another generator would read other chunks, and no recorded reading could be repeated."""
    spans = small_corpus((100, 333, 70)).spans
    found = {
        order: pretrain._cut_points(spans, 70, *order)[:, 1].tolist() for order in ((0, 0), (0, 1), (3, 0))
    }
    assert found == {
        (0, 0): [34, 100, 162, 232, 302, 372, 433, 503],
        (0, 1): [43, 100, 155, 225, 295, 365, 433, 503],
        (3, 0): [59, 100, 157, 227, 297, 367, 433, 503],
    }


def test_batches_of_chunks_are_shuffled_and_of_similar_length():
    corpus = small_corpus(tuple(7 * i % 61 for i in range(1, 61)))  # 1 to 60, in no order
    batches = pretrain._chunk_batches(corpus, 60, 4, seed=0, epoch=0)
    spread = [np.ptp(batch[:, 1] - batch[:, 0]) for batch in batches]
    assert max(spread) == 3, "sorted before they are cut"
    longest = [(batch[:, 1] - batch[:, 0]).max() for batch in batches]
    assert longest != sorted(longest), "and shuffled after"
    other = pretrain._chunk_batches(corpus, 60, 4, seed=1, epoch=0)
    assert [b.tolist() for b in batches] != [b.tolist() for b in other]


@pytest.mark.parametrize("length, batch_size", [(0, 4), (4, 0)])
def test_a_corpus_loader_refuses_a_size_of_zero(length, batch_size):
    with pytest.raises(ValueError, match="must be at least 1"):
        make_corpus_loader(small_corpus(), length, batch_size)


def test_a_corpus_loader_goes_down_to_one_id_and_begins_with_seed_0():
    corpus, state = small_corpus((3, 2)), torch.random.get_rng_state()
    assert len(list(make_corpus_loader(corpus, 1, 1))) == 5
    seeds = [
        [b["input_ids"].tolist() for b in make_corpus_loader(corpus, 1, 1, *seed)]
        for seed in ((), (0,), (1,))
    ]
    assert seeds[0] == seeds[1] != seeds[2]
    assert torch.equal(torch.random.get_rng_state(), state), "it draws nothing from the global generator"


def test_tokenizing_shows_how_far_it_is():
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "film"]), 8)
    with mock.patch.object(pretrain, "tqdm", side_effect=lambda rows, **_: rows) as bar:
        assert len(pretrain._encode_all(tokenizer, ["film"] * 2001)) == 2001
    assert bar.mock_calls == [
        mock.call(range(0, 2001, 1000), desc="tokenizing", unit="k texts", disable=None)
    ]


# --- attention on other devices and with fewer axes


def test_a_causal_mask_lies_where_it_is_asked_for():
    assert causal_mask(3, device="meta").device.type == "meta"


@pytest.mark.parametrize("axes", [(), (2,), (2, 3)])
def test_attention_s_gradients_for_any_number_of_leading_axes(axes):
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad_out = (
        torch.randn(*axes, n, d, dtype=torch.float64, generator=generator, requires_grad=True)
        for n, d in ((4, 3), (5, 3), (5, 2), (4, 2))
    )
    out, weights = scaled_dot_product_attention(q, k, v)
    expected = torch.autograd.grad(out, (q, k, v), grad_out)
    for ours, theirs in zip(attention_gradients(q, k, v, weights, grad_out), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


# --- one pass or two


@pytest.mark.parametrize("r_drop", [0.0, 0.5])
def test_a_step_passes_once_and_with_r_drop_twice(r_drop):
    """The weights after it are those of the formula, with the same dropout."""
    batch, model = (
        reading_batch((1, 0, 1, 0)),
        TransformerForSequenceClassification(replace(MODEL, dropout=0.5)),
    )
    twin, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=0.1)
    step = partial(train_step, model, batch, optimizer, max_grad_norm=1e9)
    torch.manual_seed(5)
    step(r_drop=r_drop) if r_drop else step()
    torch.manual_seed(5)
    answers = [twin(batch["input_ids"], batch["attention_mask"]) for _ in range(2 if r_drop else 1)]
    loss = torch.stack([F.cross_entropy(answer, batch["labels"]) for answer in answers]).mean()
    if r_drop:
        p, q = (answer.log_softmax(-1) for answer in answers)
        both = F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(
            q, p, reduction="sum", log_target=True
        )
        loss = loss + r_drop * both / 2 / len(batch["labels"])
    loss.backward()
    expected = nn.utils.parameters_to_vector([p - 0.1 * p.grad for p in twin.parameters()])
    torch.testing.assert_close(nn.utils.parameters_to_vector(model.parameters()), expected)
