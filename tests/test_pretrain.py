# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.pretrain`."""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from minitransformer.config import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    check_reading,
    load_pretrain_config,
    save_config,
)
from minitransformer.data import Examples
from minitransformer.encoder import TransformerEncoder
from minitransformer.evaluate import Metrics
from minitransformer.model import ModelConfig, TransformerForMaskedLM
from minitransformer.pretrain import (
    ChunkDataset,
    ChunkSampler,
    Corpus,
    MaskedLMObjective,
    MaskedLMTraining,
    begin_pretraining,
    build_corpus,
    chunk_batches,
    cut_points,
    encode_all,
    finish_pretraining,
    load_corpus_texts,
    make_corpus_loader,
    mask_tokens,
    prepare_pretraining,
    pretrain,
)
from minitransformer.runs import checksum, load_run, read_records, read_run_record
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer, load_tokenizer
from minitransformer.train import (
    ClassificationObjective,
    StepResult,
    TrainingState,
    begin,
    fingerprint,
    finished_identity,
    fit,
    identity,
    make_scaler,
    origin,
    prepare,
    write_provenance,
)


# chapters/day09_sprint.md · Hide, and guess
def test_mask_tokens():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (64, 100), generator=generator)
    ids[:, 0] = 2
    attention_mask = torch.arange(100) < torch.randint(20, 101, (64, 1), generator=generator)
    ids[~attention_mask] = 0
    seen, chosen = mask_tokens(ids, attention_mask, 1000, 0.2, generator)
    allowed = int(attention_mask.sum()) - 64
    assert int(chosen.sum()) == round(0.2 * allowed), "exactly this share"
    assert not chosen[:, 0].any() and not chosen[~attention_mask].any(), "neither [CLS] nor padding"
    assert torch.equal(seen[~chosen], ids[~chosen]), "what was not chosen is not changed"
    n, masked = int(chosen.sum()), int((seen[chosen] == 4).sum())
    same = int((seen[chosen] == ids[chosen]).sum())
    assert abs(masked / n - 0.8) < 4 * math.sqrt(0.16 / n) and abs(same / n - 0.1) < 4 * math.sqrt(0.09 / n)
    assert seen[chosen].min() >= 4, "a random entry is no special token"
    again = mask_tokens(ids, attention_mask, 1000, 0.2, torch.Generator().manual_seed(1))
    twin = mask_tokens(ids, attention_mask, 1000, 0.2, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], twin[0]) and not torch.equal(again[1], chosen)
    one = torch.tensor([[2, 7, 3]])
    assert mask_tokens(one, one > 0, 9, 0.01, generator)[1].tolist() == [[False, True, False]]
    empty = torch.tensor([[2, 3]])
    assert not mask_tokens(empty, empty > 0, 9, 0.5, generator)[1].any()


# chapters/day09_sprint.md · The corpus
def test_build_corpus():
    examples = Examples(["a fine film", "not a film", ""], [1, 0, -1], "three")
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "a", "film", "fine"]), 4)
    with tempfile.TemporaryDirectory() as folder:
        corpus = build_corpus(examples, tokenizer, Path(folder))
        assert corpus.tokens.tolist() == [5, 7, 6, 1, 5, 6] and corpus.tokens.dtype == np.uint16
        assert corpus.spans.tolist() == [[0, 3], [3, 6], [6, 6]] and corpus.labels.tolist() == [1, 0, -1]
        assert corpus.part(np.array([1])).spans.tolist() == [[3, 6]]
        before = Path(folder, "tokens.npy").stat().st_mtime_ns
        assert len(build_corpus(examples, tokenizer, Path(folder))) == 3
        assert Path(folder, "tokens.npy").stat().st_mtime_ns == before, "read back, not made again"
        other = Examples(["film"], [1], "one")
        assert build_corpus(other, tokenizer, Path(folder)).tokens.tolist() == [6]
    assert [ids.tolist() for ids in encode_all(tokenizer, ["film a a a a a"])] == [[6, 5, 5, 5, 5, 5]]


# chapters/day09_sprint.md · The corpus
def test_load_corpus_texts():
    toy = load_corpus_texts("toy")
    assert toy.labels.count(0) == toy.labels.count(1) == 375 and toy.texts[0].count(" . ") == 3


# chapters/day09_sprint.md · The corpus
def make_test_corpus(sizes: Sequence[int] = (1, 7, 20, 12, 0, 33)) -> Corpus:
    tokens = np.arange(5, 5 + sum(sizes), dtype=np.uint16)
    ends = np.cumsum(sizes)
    return Corpus(tokens, np.stack([ends - sizes, ends], 1), np.arange(len(sizes)) % 2, "made up", "0")


# chapters/day09_sprint.md · The corpus
def test_chunks_hold_every_token_once():
    corpus = make_test_corpus()
    seen = set()
    for epoch in range(20):
        chunks = cut_points(corpus.spans, 8, 3, epoch)
        assert [i for a, b, _ in chunks for i in range(a, b)] == list(range(73))
        assert all(1 <= b - a <= 8 for a, b, _ in chunks)
        assert all(corpus.spans[r][0] <= a and b <= corpus.spans[r][1] for a, b, r in chunks), (
            "none across two"
        )
        assert len(chunks) == 1 + 1 + 3 + 2 + 0 + 5, "as few as possible"
        seen.add(tuple(chunks))
    assert len(seen) > 10, "the cuts move"
    assert cut_points(corpus.spans, 8, 3, 4) == cut_points(corpus.spans, 8, 3, 4)


# chapters/day09_sprint.md · The corpus
def test_corpus_loader_resumes():
    corpus = make_test_corpus()
    loader = make_corpus_loader(corpus, 8, 3, seed=1)
    batches = [batch["input_ids"].tolist() for batch in loader]
    assert len(batches) == len(loader) == 4
    ids = sorted(i for batch in batches for row in batch for i in row if i >= 5)
    assert ids == list(range(5, 78)), "every token once"
    assert all(row[0] == 2 for batch in batches for row in batch)
    loader.batch_sampler.set_epoch(0, 2)
    assert [batch["input_ids"].tolist() for batch in loader] == batches[2:]
    assert [batch["input_ids"].tolist() for batch in loader] != batches, "the next epoch is cut otherwise"
    start, stop, review = chunk_batches(corpus, 8, 3, 1, 0)[0][0]
    item = ChunkDataset(corpus)[(start, stop, review)]
    assert item == ([2, *range(5 + start, 5 + stop), 3], review % 2)
    try:
        ChunkSampler(make_test_corpus([0]), 8, 3)
        raise AssertionError("an empty corpus")
    except ValueError as error:
        assert "needs tokens" in str(error)


# chapters/day09_sprint.md · One loop, two objectives
def small_masked_model(**changes: object) -> TransformerForMaskedLM:
    torch.manual_seed(0)
    config = {"vocab_size": 80, "d_model": 12, "num_heads": 3, "d_ff": 20, "num_layers": 1, "max_length": 10}
    return TransformerForMaskedLM(ModelConfig(**config | {"dropout": 0.0} | changes))


# chapters/day09_sprint.md · One loop, two objectives
def test_masked_loss_is_the_mean_over_hidden_tokens():
    model, objective = small_masked_model().double(), MaskedLMTraining(rate=0.4, label_weight=0.5, seed=3)
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4, seed=0)))
    token_loss, label_loss, correct, size = objective.losses(model, batch, 7)
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 7)
    seen, chosen = mask_tokens(batch["input_ids"], batch["attention_mask"], 80, 0.4, generator)
    logits = model.name_tokens(model.encoder(seen, batch["attention_mask"]).flatten(0, 1)).view(
        *seen.shape, 80
    )
    rows = [(i, t) for i in range(len(seen)) for t in range(seen.size(1)) if chosen[i, t]]
    expected = [-logits[i, t].log_softmax(-1)[batch["input_ids"][i, t]] for i, t in rows]
    torch.testing.assert_close(token_loss, torch.stack(expected).mean())
    assert size == len(rows) and correct == sum(
        int(logits[i, t].argmax()) == int(batch["input_ids"][i, t]) for i, t in rows
    )
    torch.testing.assert_close(
        label_loss, F.cross_entropy(model(seen, batch["attention_mask"]), batch["labels"])
    )
    unknown = batch | {"labels": torch.full_like(batch["labels"], -1)}
    assert objective.losses(model, unknown, 7)[1] == 0, "unknown labels do not count"
    assert MaskedLMObjective(rate=0.4, seed=3).losses(model, batch, 7)[1] == 0
    held_out = make_corpus_loader(make_test_corpus(), 8, 4)
    twice = [objective.evaluate(model, held_out) for _ in range(2)]
    assert twice[0] == twice[1] and twice[0].n > 20
    found = [
        objective.losses(model, b, -1 - i) for i, b in enumerate(make_corpus_loader(make_test_corpus(), 8, 4))
    ]
    expected = sum(loss.item() * n for loss, _, _, n in found) / sum(n for *_, n in found)
    assert math.isclose(twice[0].loss, expected), "tokens that no training step hides"


# chapters/day09_sprint.md · One loop, two objectives
def test_masked_update_is_a_step_of_sgd():
    model, objective = small_masked_model().double(), MaskedLMTraining(rate=0.4, label_weight=0.5)
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "fp32")
    )
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4)))
    twin = small_masked_model().double()
    token_loss, label_loss, correct, size = objective.losses(twin, batch, 0)
    (token_loss + 0.5 * label_loss).backward()
    result = objective.update(state, batch, TrainingConfig(max_grad_norm=math.inf))
    assert (result.step, result.correct, result.examples) == (1, correct, size) and not result.skipped
    assert math.isclose(result.loss, token_loss.item()) and result.tokens == int(
        batch["attention_mask"].sum()
    )
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad)


# chapters/day09_sprint.md · The settings of a reading, and the run
def pretrain_config(**changes: object) -> PretrainConfig:
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24)
    training = TrainingConfig(
        batch_size=64, learning_rate=3e-3, schedule="linear", warmup=0.1, checkpoint_every=9
    )
    config = {"name": "tiny", "corpus": "toy", "model": model, "training": training, "chunk_length": 16}
    return PretrainConfig(**config | {"held_out": 50, "label_weight": 0.2} | changes)


# chapters/day09_sprint.md · The settings of a reading, and the run
def pretrain_quietly(config: PretrainConfig, folder: Path, **options: bool) -> Metrics:
    with redirect_stdout(StringIO()):
        return pretrain(config, folder, **options)


# chapters/day09_sprint.md · The settings of a reading, and the run
def interrupt_after(steps: int) -> Callable:
    """`MaskedLMTraining.update`, but Ctrl-C comes in the step after so many."""
    original, calls = MaskedLMTraining.update, []

    def stop(*arguments: Any) -> StepResult:
        calls.append(1)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return original(*arguments)

    return stop


# chapters/day09_sprint.md · The settings of a reading, and the run
def pretrain_interrupted(config: PretrainConfig, folder: Path, steps: int) -> None:
    """Start a reading, and interrupt it after so many steps."""
    with patch.object(MaskedLMTraining, "update", interrupt_after(steps)):
        try:
            pretrain_quietly(config, folder)
            raise AssertionError("it was not interrupted")
        except KeyboardInterrupt:
            pass


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_pretraining_learns_and_resumes():
    config = pretrain_config()
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        metrics = pretrain_quietly(config, whole)
        first = read_records(whole, "step")[0]["loss"]
        assert metrics.loss < first - 0.5, "the held-out loss falls"
        record = json.loads((whole / "run.json").read_text())
        assert record["class"] == "read" and record["steps"] > 13
        pretrain_interrupted(config, parts, 13)
        assert pretrain_quietly(config, parts, resume=True) == metrics
        mine, theirs = (load_file(path / "model.safetensors") for path in (whole, parts))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), "bit for bit"
        assert pretrain_quietly(config, parts, resume=True) == metrics, "a finished run stays"
        try:
            pretrain_quietly(replace(config, mask_rate=0.3), parts, resume=True)
            raise AssertionError("another run")
        except ValueError as error:
            assert "mask_rate is 0.2 there, 0.3 here" in str(error)


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_prepare_pretraining_holds_reviews_back():
    with tempfile.TemporaryDirectory() as folder:
        save_config(pretrain_config(), Path(folder, "config.yaml"))
        assert load_pretrain_config(Path(folder, "config.yaml")) == pretrain_config()
        config, tokenizer, corpus, held_out = prepare_pretraining(pretrain_config(), Path(folder))
        assert len(held_out) == 50 and len(corpus) == 700
        assert config.model.vocab_size == len(tokenizer.vocabulary)
        spans = [{tuple(span) for span in part.spans.tolist()} for part in (corpus, held_out)]
        assert not spans[0] & spans[1], "what is held out is not read"
        try:
            prepare_pretraining(pretrain_config(held_out=750), Path(folder))
            raise AssertionError("nothing left to read")
        except ValueError as error:
            assert "held_out must be below the 750 reviews there are" in str(error)


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_pretrain_config_refuses():
    for change, text in [
        ({"corpus": "books"}, "corpus"),
        ({"chunk_length": 23}, "chunk_length must be in 1 … 22"),
        ({"held_out": 0}, "held_out"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"label_weight": -1.0}, "label_weight"),
        ({"training": TrainingConfig(micro_batches=2)}, "training.micro_batches"),
        ({"training": TrainingConfig(r_drop=1.0)}, "training.r_drop"),
        ({"training": TrainingConfig(ema=0.5)}, "training.ema must be 0"),
        ({"training": TrainingConfig(layer_decay=0.5)}, "training.layer_decay must be 1"),
        ({"model": ModelConfig(vocab_size=70_000, d_model=8, num_heads=2)}, "model.vocab_size"),
        ({"name": "a/b"}, "name"),
    ]:
        try:
            pretrain_config(**change)
            raise AssertionError(change)
        except (ValueError, TypeError) as error:
            assert text in str(error), error
    check_reading(pretrain_config(chunk_length=22))


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_pretraining_begins_and_ends():
    config = pretrain_config()
    first, again = (begin_pretraining(config, torch.device("cpu")) for _ in range(2))
    assert all(
        torch.equal(*pair) for pair in zip(first.model.parameters(), again.model.parameters(), strict=True)
    )
    assert first.optimizer.param_groups[0]["betas"] == (0.9, 0.98) and first.step == 0
    first.seconds, corpus = 1.0, make_test_corpus()
    with tempfile.TemporaryDirectory() as folder:
        validation = asdict(Metrics(9, 1 / 3, 2.5))
        line = json.dumps({"kind": "epoch", "step": 0, "epoch": 1, "validation": validation})
        Path(folder, "metrics.jsonl").write_text(line + "\n")
        assert asdict(finish_pretraining(Path(folder), config, first, corpus)) == validation
        record = json.loads(Path(folder, "run.json").read_text())
        assert record["class"] == "read" and record["data"] == {"made up": {"reviews": 6, "sha256": "0"}}
        saved = load_file(Path(folder, "model.safetensors"))
        assert torch.equal(saved["encoder.embedding.weight"], first.model.encoder.embedding.weight)


# chapters/day09_sprint.md · An average of the weights
def reading_and_run(folder: str) -> tuple[Path, RunConfig]:
    """A small pretraining run, and the settings of a run that starts from it."""
    reading = Path(folder, "reading")
    pretrain_quietly(pretrain_config(), reading)
    model = replace(load_pretrain_config(reading / "config.yaml").model, dropout=0.1, pooling="mean")
    training = TrainingConfig(ema=0.9, layer_decay=0.5)
    return reading, RunConfig("run", DataConfig("toy", train_size=256), model, training, initial=str(reading))


# chapters/day09_sprint.md · An average of the weights
def test_a_run_starts_from_what_was_read():
    with tempfile.TemporaryDirectory() as folder:
        reading, config = reading_and_run(folder)
        run, source = Path(folder, "run"), load_file(reading / "model.safetensors")
        state = begin(config, torch.device("cpu"))
        assert all(torch.equal(value, source[name]) for name, value in state.model.state_dict().items())
        with redirect_stdout(StringIO()):
            fit(config, run)
        _, trained, tokenizer = load_run(run)
        pieces = load_tokenizer(reading / "tokenizer.json")
        assert tokenizer.encode("a fine film") == pieces.encode("a fine film")
        record = read_run_record(run)
        assert record["class"] == "read" and record["initial"]["folder"] == "reading"
        name = "encoder.embedding.weight"
        assert not torch.equal(trained.state_dict()[name], source[name])


# chapters/day09_sprint.md · An average of the weights
def test_weights_may_be_moved_but_not_changed():
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as said:
        reading, config = reading_and_run(folder)
        run, name = Path(folder, "run"), "encoder.embedding.weight"
        fit(config, run)
        moved = replace(config, initial=str(reading.rename(Path(folder, "moved"))))
        examples = prepare(moved)[2:]
        assert finished_identity(run, moved, *examples) == identity(prepare(moved)[0], *examples)
        fit(moved, run, resume=True)
        assert "is finished" in said.getvalue()
        tensors = load_file(Path(folder, "moved", "model.safetensors"))
        tensors[name][7] += 1
        save_file(tensors, Path(folder, "moved", "model.safetensors"))
        try:
            fit(moved, run, resume=True)
            raise AssertionError("other weights")
        except ValueError as error:
            assert "belongs to another run: initial is" in str(error), error


# chapters/day09_sprint.md · An average of the weights
def test_what_does_not_fit_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        reading, config = reading_and_run(folder)
        wider = replace(config, model=replace(config.model, d_ff=16))
        name = "encoder.layers.0.feed_forward.linear1.bias"
        try:
            begin(wider, torch.device("cpu"))
            raise AssertionError("another width")
        except ValueError as error:
            assert f"{name} is [12] in the file, [16] in the model" in str(error)
        words = replace(config, initial=None, data=DataConfig("toy", train_size=64, tokenizer=str(reading)))
        pieces = load_tokenizer(reading / "tokenizer.json")
        assert prepare(words)[1].vocabulary.tokens == pieces.vocabulary.tokens
        assert origin(words)[0] == "read" and origin(replace(words, data=DataConfig("toy"))) == ("alone", {})
        try:
            replace(config, data=words.data)
            raise AssertionError("two tokenizers")
        except ValueError as error:
            assert "data.tokenizer must be null where initial is given" in str(error)
        shorter = Vocabulary(pieces.vocabulary.tokens[:-1])
        with redirect_stdout(StringIO()):
            fit(config, Path(folder, "run"))
        WordTokenizer(shorter, 24).save(Path(folder, "run/tokenizer.json"))
        try:
            load_run(Path(folder, "run"))
            raise AssertionError("a tokenizer of another run")
        except ValueError as error:
            assert "they are not from one run" in str(error)


# chapters/day09_sprint.md · An average of the weights
def test_compile_keeps_names_and_is_used():
    asked, calls = [], []

    def stand_in(function: Callable, **options: bool) -> Callable:
        asked.append((type(function.__self__), options))
        return lambda *inputs, **named: (calls.append(1), function(*inputs, **named))[1]

    cpu, data = torch.device("cpu"), DataConfig("toy")
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4)))
    for ready, objective, settings in [
        (begin_pretraining, MaskedLMTraining(), TrainingConfig()),
        (begin, ClassificationObjective(), TrainingConfig(ema=0.5)),
    ]:
        config = pretrain_config()
        if ready is begin:
            config = RunConfig("run", data, config.model)
        config = replace(config, training=settings)
        with patch.object(torch, "compile", stand_in):
            plain = ready(config, cpu)
            state = ready(replace(config, training=replace(settings, compile=True)), cpu)
        assert asked == [(TransformerEncoder, {"dynamic": True})], "the encoder, once, and only if wanted"
        for each in (state, plain):
            torch.manual_seed(1)  # for dropout
            objective.update(each, batch, settings)
        assert calls == [1], "an update calls what was compiled, once"
        asked.clear(), calls.clear()
        for mine, theirs in ((state.model, plain.model), (state.outcome, plain.outcome)):
            assert [*mine.state_dict()] == [*theirs.state_dict()], "the same names"
            assert all(
                torch.equal(*pair) for pair in zip(mine.parameters(), theirs.parameters(), strict=True)
            )


# chapters/day09_sprint.md · An average of the weights
def test_provenance_names_the_origin():
    with tempfile.TemporaryDirectory() as folder:
        reading, config = reading_and_run(folder)
        examples = Examples(["a film"], [1], "made up")
        state = begin(config, torch.device("cpu"))
        state.seconds = 1.0
        write_provenance(Path(folder), config, examples, examples, state)
        record = json.loads(Path(folder, "run.json").read_text())
        assert record["class"] == "read" and record["initial"] == origin(config)[1]["initial"]
        ours = identity(config, examples, examples)
        assert ours["initial"] == record["initial"]["sha256"] and ours["seed"] == 0
        assert ours["checksum of the training examples"] == checksum(examples)
        content = (reading / "model.safetensors").read_bytes()
        (reading / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert identity(config, examples, examples) != ours, "other weights are another run"


# chapters/day09_sprint.md · An average of the weights
def test_a_reading_goes_on_from_another():
    with tempfile.TemporaryDirectory() as room:
        first, on = Path(room, "first"), Path(room, "on")
        pretrain_quietly(pretrain_config(), first)
        config = pretrain_config(initial=str(first), seed=1)
        prepared, tokenizer, _, _ = prepare_pretraining(config, Path(room, "corpus"))
        assert tokenizer.vocabulary.tokens == load_tokenizer(first / "tokenizer.json").vocabulary.tokens
        state = begin_pretraining(prepared, torch.device("cpu"))
        theirs, ours = load_file(first / "model.safetensors"), state.model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

        record = json.loads((first / "run.json").read_text())
        (first / "run.json").write_text(json.dumps(record | {"class": "taught"}))
        pretrain_interrupted(config, on, 13)
        metrics = pretrain_quietly(config, on, resume=True)
        found = json.loads((on / "run.json").read_text())
        assert found["class"] == "taught" and found["initial"] == fingerprint(first, "model.safetensors")
        assert pretrain_quietly(config, on, resume=True) == metrics, "a finished run stays"
        save_file(theirs | {"bias": theirs["bias"] + 1}, first / "model.safetensors")
        try:
            pretrain_quietly(config, on, resume=True)
            raise AssertionError("it began with other weights")
        except ValueError as error:
            assert "initial" in str(error), error
