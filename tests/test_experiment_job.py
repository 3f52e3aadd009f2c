# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.job`."""

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minitransformer.data import Examples, load_examples
from minitransformer.evaluate import evaluate
from minitransformer.experiment.checkpoint import TrainingState
from minitransformer.experiment.folder import _write_json, checksum
from minitransformer.experiment.job import (
    Classification,
    Job,
    Objective,
    Reading,
    _finished_identity,
    _flat,
    _prepare,
    _sample,
    identity,
)
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    _save_settings,
)
from minitransformer.model import ModelConfig, TransformerForMaskedLM, TransformerForSequenceClassification
from minitransformer.pretrain import Corpus, MaskedLMObjective, make_corpus_loader, mask_tokens
from minitransformer.tokenizer import SPECIAL_TOKENS
from minitransformer.train import make_scaler


# chapters/workshop_runs.md · A job
def small_masked_model() -> TransformerForMaskedLM:
    torch.manual_seed(0)
    size = ModelConfig(80, 12, 3, 20, num_layers=1, max_length=10, dropout=0.0)
    return TransformerForMaskedLM(size).double()


def make_test_corpus() -> Corpus:
    """Six reviews, one of them empty, with ids from 5 on."""
    sizes = np.array([1, 7, 20, 12, 0, 33])
    ends, tokens = np.cumsum(sizes), np.arange(5, 5 + sizes.sum(), dtype=np.uint16)
    spans = np.stack([ends - sizes, ends], 1)
    return Corpus(tokens, spans, np.arange(len(sizes)) % 2, "made up")


def test_reading_is_a_step_of_sgd() -> None:
    model, twin = small_masked_model(), small_masked_model()
    objective = Reading(rate=0.4, label_weight=0.5)
    scaler = make_scaler(torch.device("cpu"), "fp32")
    state = TrainingState(model, torch.optim.SGD(model.parameters(), 0.1), scaler)
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4)))
    token_loss, label_loss, correct, size = objective.losses(twin, batch, 0)
    (token_loss + 0.5 * label_loss).backward()
    limit = TrainingConfig(max_grad_norm=math.inf)
    result = objective.update(state, batch, limit).read()
    assert (result.step, result.correct, result.examples) == (1, correct, size)
    assert math.isclose(result.loss, token_loss.item()) and not result.skipped
    assert result.tokens == int(batch["attention_mask"].sum())
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad)


def tiny_run(**training: object) -> RunConfig:
    """A run of a second: 40 toy reviews, a model with C=8 and one layer."""
    settings = {"epochs": 2, "batch_size": 16, "schedule": "linear", "warmup": 0.2}
    size = ModelConfig(500, 8, 2, 12, num_layers=1, max_length=24)
    data = DataConfig("toy", train_size=40)
    return RunConfig("tiny", data, size, TrainingConfig(**settings | training))


def tiny_job(config: RunConfig) -> Job:
    return _prepare(config, Path("not needed"))


def test_identity_tells_runs_apart() -> None:
    config = tiny_run()
    job = tiny_job(config)
    ours = identity(job)
    for may_change in ({"device": "cpu"}, {"checkpoint_every": 7}, {"tensorboard": True}):
        assert identity(tiny_job(tiny_run(**may_change))) == ours, may_change
    for changes in (
        {"learning_rate": 4e-3},
        {"warmup": 0.3},
        {"schedule": "constant"},
        {"batch_size": 8},
        {"log_every": 3},
    ):
        assert identity(tiny_job(tiny_run(**changes))) != ours, changes
    for other in (
        replace(config, seed=3),
        replace(config, data=DataConfig("toy", train_size=40, group_by_length=True)),
        replace(config, data=DataConfig("toy", train_size=41)),
    ):
        assert identity(tiny_job(other)) != ours, other
    assert ours["training.schedule"] == "linear" and ours["initial"] is None
    digest = job.data["training"]["sha256"]
    assert ours["checksum of the training data"] == digest


def test_masked_loss_is_the_mean_over_hidden_tokens() -> None:
    model = small_masked_model()
    objective = Reading(rate=0.4, label_weight=0.5, seed=3)
    batch = next(iter(make_corpus_loader(make_test_corpus(), 8, 4, seed=0)))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    token_loss, label_loss, correct, size = objective.losses(model, batch, 7)
    dice = torch.Generator().manual_seed(3 * 1_000_003 + 7)
    seen, chosen = mask_tokens(ids, mask, 80, 0.4, dice)
    logits = model.name_tokens(model.encoder(seen, mask).flatten(0, 1))
    logits = logits.view(*seen.shape, 80)
    rows = chosen.nonzero().tolist()
    losses = [-logits[i, t].log_softmax(-1)[ids[i, t]] for i, t in rows]
    named = sum(int(logits[i, t].argmax()) == int(ids[i, t]) for i, t in rows)
    torch.testing.assert_close(token_loss, torch.stack(losses).mean())
    assert (size, correct) == (len(rows), named)
    by_hand = F.cross_entropy(model(seen, mask), batch["labels"])
    torch.testing.assert_close(label_loss, by_hand)
    unknown = batch | {"labels": torch.full_like(batch["labels"], -1)}
    assert objective.losses(model, unknown, 7)[1] == 0, "unknown labels do not count"
    assert MaskedLMObjective(rate=0.4, seed=3).losses(model, batch, 7)[1] == 0


def test_reading_is_judged_by_the_same_hidden_tokens_every_time() -> None:
    model, objective = small_masked_model(), Reading(rate=0.4, label_weight=0.5, seed=3)
    held_out = make_corpus_loader(make_test_corpus(), 8, 4)
    once, again = (objective.evaluate(model, held_out) for _ in range(2))
    assert once == again and once.n > 20
    loader = make_corpus_loader(make_test_corpus(), 8, 4)
    found = [objective.losses(model, b, -1 - i) for i, b in enumerate(loader)]
    total = sum(loss.item() * n for loss, _, _, n in found)
    assert math.isclose(once.loss, total / once.n), "dice that no training step throws"
    with pytest.raises(ValueError, match="nothing to evaluate"):
        objective.evaluate(model, [])


def test_classification_is_the_step_and_the_evaluation_of_the_days() -> None:
    torch.manual_seed(0)
    size = ModelConfig(9, 8, 2, 12, num_layers=1, dropout=0.0)
    model = TransformerForSequenceClassification(size)
    scaler = make_scaler(torch.device("cpu"), "fp32")
    state = TrainingState(model, torch.optim.SGD(model.parameters(), 0.1), scaler)
    ids = torch.tensor([[2, 7, 3]])
    batch = {"input_ids": ids, "attention_mask": ids > 0, "labels": torch.tensor([1])}
    objective: Objective = Classification()
    assert objective.evaluate(model, [batch]) == evaluate(model, [batch])
    expected = F.cross_entropy(model(ids), batch["labels"]).item()
    result = objective.update(state, batch, TrainingConfig())
    assert math.isclose(result.loss, expected, rel_tol=1e-6) and result.step == 1


def test_prepare_builds_the_vocabulary_from_training_texts_alone() -> None:
    config = replace(tiny_run(), data=DataConfig("toy", train_size=4))
    job = tiny_job(config)
    assert isinstance(job, Job) and job.data["training"]["examples"] == 4
    tokens = job.tokenizer.vocabulary.tokens
    assert job.config.model.vocab_size == len(tokens) < 500
    train = _sample(load_examples("toy", "train"), 4, config.seed)
    validation = load_examples("toy", "validation")
    words, others = ({word for text in part.texts for word in text.split()} for part in (train, validation))
    assert words == set(tokens) - set(SPECIAL_TOKENS), "validation had a say"
    assert others - words and not set(train.texts) & set(validation.texts)
    assert job.data["training"]["sha256"] == checksum(train)
    small = replace(config, model=replace(config.model, vocab_size=9))
    assert tiny_job(small).config.model.vocab_size == 9, "it is an upper bound"


def test_sample_is_a_repeatable_choice() -> None:
    texts, labels = [f"text {i}" for i in range(30)], [i % 2 for i in range(30)]
    examples = Examples(texts, labels, "thirty")
    chosen = _sample(examples, 7, seed=1)
    assert len(set(chosen.texts)) == 7 and chosen.source == "7 of thirty"
    pairs = zip(chosen.texts, chosen.labels, strict=True)
    assert all(int(text.split()[1]) % 2 == y for text, y in pairs)
    assert _sample(examples, 7, seed=1) == chosen != _sample(examples, 7, seed=2)
    assert _sample(examples, None, seed=1) is examples
    with pytest.raises(ValueError, match="train_size is 31, but thirty has only 30"):
        _sample(examples, 31, seed=0)


def test_prepare_pretraining_holds_reviews_back() -> None:
    size = ModelConfig(200, 8, 2, 12, num_layers=1, max_length=24)
    config = PretrainConfig("tiny", "toy", size, chunk_length=16, held_out=50)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        job, corpus = _prepare(config, folder), folder / "corpus"
        parts = [each.dataset.corpus for each in (job.loader, job.measuring)]
        assert [len(part) for part in parts] == [700, 50]
        assert job.data["corpus"]["reviews"] == 700
        assert job.config.model.vocab_size == len(job.tokenizer.vocabulary)
        read, held_out = ({tuple(span) for span in part.spans.tolist()} for part in parts)
        assert not read & held_out, "what is held out is not read"
        del (job, parts)  # their arrays are windows into the file; Windows would not let it be replaced
        before = (corpus / "tokens.npy").stat().st_mtime_ns
        _prepare(config, folder)
        assert (corpus / "tokens.npy").stat().st_mtime_ns == before, "made once"
        _prepare(replace(config, model=replace(size, vocab_size=150)), folder)
        assert (corpus / "tokens.npy").stat().st_mtime_ns > before, "other pieces"
        with pytest.raises(ValueError, match="held_out must be below the 750 reviews"):
            _prepare(replace(config, held_out=750), folder)


def test_flat() -> None:
    values = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}
    assert _flat(values) == {"a": 1, "b.c": 2, "b.d.e": 3}
    assert _flat(values, "/") == {"a": 1, "b/c": 2, "b/d/e": 3}


def test_data_may_be_moved_but_not_changed() -> None:
    size = ModelConfig(60, 8, 2, 12, num_layers=1, max_length=24)
    with tempfile.TemporaryDirectory() as base:
        table, moved = Path(base, "rows.csv"), Path(base, "moved.csv")
        table.write_text("text,label\na fine film,1\na dull film,0\n")
        shutil.copy(table, moved)
        here, there = (
            RunConfig("x", DataConfig(train=str(path), validation=str(path)), size) for path in (table, moved)
        )
        job = tiny_job(here)
        ours, sources = identity(job), {entry["source"] for entry in job.data.values()}
        assert len(sources) == 2, "one file for both splits has two entries"
        assert identity(tiny_job(there)) == ours
        moved.write_text("text,label\na fine film,1\na dull cast,0\n")
        theirs = identity(tiny_job(there))
        changed = {name for name in ours if ours[name] != theirs[name]}
        assert "checksum of the validation data" in changed


def test_finished_identity_is_told_by_the_folder() -> None:
    job = tiny_job(tiny_run())
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        _save_settings(job.config, folder / "config.yaml")
        data = {entry["source"]: entry for entry in job.data.values()}
        _write_json(folder / "run.json", {"class": "alone", "data": data})
        assert _finished_identity(folder, RunConfig) == identity(job)
        _write_json(folder / "run.json", {"class": "alone"})
        assert _finished_identity(folder, RunConfig) != identity(job)
