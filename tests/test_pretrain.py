# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.pretrain`."""

import json
import math
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from minitransformer.config import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    load_pretrain_config,
    save_config,
)
from minitransformer.data import Examples
from minitransformer.evaluate import Metrics
from minitransformer.model import ModelConfig, TransformerForMaskedLM
from minitransformer.pretrain import (
    ChunkDataset,
    ChunkSampler,
    Corpus,
    MaskedLMObjective,
    MaskedLMTraining,
    build_corpus,
    chunk_batches,
    cut_points,
    encode_all,
    load_corpus_texts,
    make_corpus_loader,
    mask_tokens,
    prepare_pretraining,
    pretrain,
)
from minitransformer.runs import load_run, read_records, read_run_record
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer, load_tokenizer
from minitransformer.train import TrainingState, begin, fit, make_scaler, origin, prepare


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


# chapters/day09_sprint.md · The objective of hidden words
def small_masked_model(**changes: object) -> TransformerForMaskedLM:
    torch.manual_seed(0)
    config = {"vocab_size": 80, "d_model": 12, "num_heads": 3, "d_ff": 20, "num_layers": 1, "max_length": 10}
    return TransformerForMaskedLM(ModelConfig(**config | {"dropout": 0.0} | changes))


# chapters/day09_sprint.md · The objective of hidden words
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
    twice = [objective.evaluate(model, make_corpus_loader(make_test_corpus(), 8, 4)) for _ in range(2)]
    assert twice[0] == twice[1] and twice[0].n > 20


# chapters/day09_sprint.md · The objective of hidden words
def test_masked_update_is_a_step_of_sgd():
    model, objective = small_masked_model().double(), MaskedLMTraining(rate=0.4, label_weight=0.5)
    state = TrainingState(
        model, torch.optim.SGD(model.parameters(), 0.1), make_scaler(torch.device("cpu"), "off")
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


# chapters/day09_sprint.md · The run
def pretrain_config(**changes: object) -> PretrainConfig:
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24)
    training = TrainingConfig(
        batch_size=64, learning_rate=3e-3, schedule="linear", warmup=0.1, checkpoint_every=9
    )
    config = {"name": "tiny", "corpus": "toy", "model": model, "training": training, "chunk_length": 16}
    return PretrainConfig(**config | {"held_out": 50, "label_weight": 0.2} | changes)


# chapters/day09_sprint.md · The run
def pretrain_quietly(config: PretrainConfig, folder: Path, **options: bool) -> Metrics:
    with redirect_stdout(StringIO()):
        return pretrain(config, folder, **options)


# chapters/day09_sprint.md · The run
def test_pretraining_learns_and_resumes():
    config = pretrain_config()
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        metrics = pretrain_quietly(config, whole)
        first = read_records(whole, "step")[0]["loss"]
        assert metrics.loss < first - 0.5, "the held-out loss falls"
        record = json.loads((whole / "run.json").read_text())
        assert record["class"] == "read" and record["steps"] > 10
        calls = []

        def stop(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 14:
                raise KeyboardInterrupt
            return train_step_of_pretraining(*arguments)

        train_step_of_pretraining = MaskedLMTraining.update
        with patch.object(MaskedLMTraining, "update", stop):
            try:
                pretrain_quietly(config, parts)
                raise AssertionError("it was not interrupted")
            except KeyboardInterrupt:
                pass
        assert pretrain_quietly(config, parts, resume=True) == metrics
        mine, theirs = (load_file(path / "model.safetensors") for path in (whole, parts))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), "bit for bit"
        assert pretrain_quietly(config, parts, resume=True) == metrics, "a finished run stays"
        try:
            pretrain_quietly(replace(config, mask_rate=0.3), parts, resume=True)
            raise AssertionError("another run")
        except ValueError as error:
            assert "mask_rate is 0.2 there, 0.3 here" in str(error)


# chapters/day09_sprint.md · The run
def test_pretrain_config_refuses():
    for change, text in [
        ({"corpus": "books"}, "corpus"),
        ({"chunk_length": 23}, "chunk_length must be in 1 … 22"),
        ({"held_out": 0}, "held_out"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"label_weight": -1.0}, "label_weight"),
        ({"training": TrainingConfig(micro_batches=2)}, "training.micro_batches"),
        ({"name": "a/b"}, "name"),
    ]:
        try:
            pretrain_config(**change)
            raise AssertionError(change)
        except (ValueError, TypeError) as error:
            assert text in str(error) or "Literal" in str(error), error
    with tempfile.TemporaryDirectory() as folder:
        save_config(pretrain_config(), Path(folder, "config.yaml"))
        assert load_pretrain_config(Path(folder, "config.yaml")) == pretrain_config()
        config, tokenizer, corpus, held_out = prepare_pretraining(pretrain_config(), Path(folder))
        assert (
            len(held_out) == 50
            and len(corpus) == 700
            and config.model.vocab_size == len(tokenizer.vocabulary)
        )
        reviews = {tuple(span) for span in corpus.spans.tolist()} & {
            tuple(span) for span in held_out.spans.tolist()
        }
        assert not reviews, "what is held out is not read"


# chapters/day09_sprint.md · The command
def test_a_run_starts_from_what_was_read():
    with tempfile.TemporaryDirectory() as folder:
        reading, run = Path(folder, "reading"), Path(folder, "run")
        pretrain_quietly(pretrain_config(), reading)
        model = replace(load_pretrain_config(reading / "config.yaml").model, dropout=0.1, pooling="mean")
        config = RunConfig(
            "run",
            DataConfig("toy", train_size=256),
            model,
            TrainingConfig(ema=0.9, layer_decay=0.5),
            initial=str(reading),
        )
        state = begin(config, torch.device("cpu"))
        source = load_file(reading / "model.safetensors")
        assert all(torch.equal(value, source[name]) for name, value in state.model.state_dict().items())
        with redirect_stdout(StringIO()):
            fit(config, run)
        _, trained, tokenizer = load_run(run)
        assert tokenizer.encode("a fine film") == load_tokenizer(reading / "tokenizer.json").encode(
            "a fine film"
        )
        record = read_run_record(run)
        assert record["class"] == "read" and record["initial"]["folder"] == "reading"
        assert not torch.equal(
            trained.state_dict()["encoder.embedding.weight"], source["encoder.embedding.weight"]
        )
        other = replace(config, model=replace(model, d_ff=16))
        try:
            begin(other, torch.device("cpu"))
            raise AssertionError("another width")
        except ValueError as error:
            assert "encoder.layers.0.feed_forward.linear1.bias is [12] in the file, [16] in the model" in str(
                error
            )
        words = replace(config, initial=None, data=DataConfig("toy", train_size=64, tokenizer=str(reading)))
        assert prepare(words)[1].vocabulary.tokens == tokenizer.vocabulary.tokens
        assert origin(words)[0] == "read" and origin(replace(words, data=DataConfig("toy"))) == ("alone", {})
