# Generated from chapters/day04_encoder_and_data.md, chapters/day08_data_schedule_monitoring.md, chapters/workshop_files.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.data`."""

import os
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from minitransformer.data import (
    _POOL,
    _TOY_SPLITS,
    EpochSampler,
    Examples,
    TextClassificationDataset,
    _one_of,
    _toy_clauses,
    _toy_twins,
    collate,
    epoch_batches,
    load_examples,
    load_imdb,
    load_sst2,
    load_sst2_test,
    make_loader,
    sst2_is_present,
    toy_reviews,
)
from minitransformer.files import data_folder
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer


# chapters/workshop_files.md · Is it there?
def test_presence_is_a_matter_of_folders():
    with tempfile.TemporaryDirectory() as name:
        with patch.dict(os.environ, {"MINITRANSFORMER_DATA": "", "HF_DATASETS_CACHE": name}):
            assert data_folder() is None
            assert not sst2_is_present(), "an empty cache holds nothing"
            cached = Path(name, "stanfordnlp___sst2/default/0.0.0/0123abcd/sst2-train.arrow")
            cached.parent.mkdir(parents=True)
            cached.touch()
            assert sst2_is_present()
        with patch.dict(os.environ, {"MINITRANSFORMER_DATA": name}):
            assert not sst2_is_present(), "a mirror without SST-2"


# chapters/day04_encoder_and_data.md · A data set that a bag of words cannot solve
def test_bag_of_words_is_blind():
    for positive, negative in _toy_twins():
        assert positive != negative
        same = sorted(positive.split()) == sorted(negative.split())
        assert same, f"the words tell these apart: {positive!r}, {negative!r}"


def test_examples():
    examples = Examples(["good", "bad", "odd"], [1, 0, 1], "three words")
    assert len(examples) == 3
    with pytest.raises(ValueError, match="three words: 3 texts, but 2 labels"):
        Examples(["good", "bad", "odd"], [1, 0], "three words")


def test_loaders_ask_for_their_data_set():
    def table(title: str, name: str, split: str, column: str) -> tuple[list, list, str]:
        return [f"{name} {column}"], [1], f"{title} {split}"

    with pytest.MonkeyPatch.context() as change:
        change.setattr(f"{load_sst2.__module__}.load_table", table)
        assert load_sst2("train") == Examples(["stanfordnlp/sst2 sentence"], [1], "SST-2 train")
        assert load_examples("sst2", "validation").source == "SST-2 validation"
        assert load_examples("sst2", "test") == load_sst2_test()
        assert load_sst2_test() == Examples(["SetFit/sst2 text"], [1], "SST-2 test")
        assert load_imdb("test") == Examples(["stanfordnlp/imdb text"], [1], "IMDB test")
    with pytest.raises(ValueError, match="split must be one of train, validation, got 'test'"):
        load_sst2("test")
    assert _one_of("train", "train", "test") == "train"


def test_toy_clauses():
    for positive in (True, False):
        found = [words for _, words in _toy_clauses(positive)]
        assert len(set(found)) == len(found) == 3 * 8 * 8
    assert ("film", "not a bad film at all") in _toy_clauses(True)
    assert ("plot", "a dull plot redeemed") in _toy_clauses(True)
    assert ("cast", "a fine cast wasted") in _toy_clauses(False)
    assert not {words for _, words in _toy_clauses(True)} & {words for _, words in _toy_clauses(False)}


def test_toy_reviews():
    reviews = toy_reviews(600, seed=5)
    assert len(set(reviews.texts)) == 600, "no review twice"
    assert reviews.labels == [1, 0] * 300
    for first, second in zip(reviews.texts[::2], reviews.texts[1::2], strict=True):
        assert first.split(" , but ") == second.split(" , but ")[::-1], "twins swap their clauses"
    assert toy_reviews(600, seed=5) == reviews and toy_reviews(600, seed=6).texts != reviews.texts
    for size in (0, 7, 64_514):
        with pytest.raises(ValueError, match=rf"an even number in 2 … 64512.*got {size}"):
            toy_reviews(size, seed=0)


def test_load_examples():
    splits = {split: load_examples("toy", split) for split in _TOY_SPLITS}
    sizes = [len(examples) for examples in splits.values()]
    assert sizes == [3000, 500, 500]
    texts = [set(examples.texts) for examples in splits.values()]
    assert len(set.union(*texts)) == sum(map(len, texts)), "the splits share a review"
    assert all(sum(examples.labels) * 2 == len(examples) for examples in splits.values())
    train, validation = (
        {(text.split(" , but ")[1], label) for text, label in zip(part.texts, part.labels, strict=True)}
        for part in (splits["train"], splits["validation"])
    )
    assert validation <= train, "a memory of the clauses after 'but' must be enough"
    with pytest.raises(ValueError, match="must be 'sst2', 'toy' or a file .*, got 'imdb'"):
        load_examples("imdb", "train")
    with pytest.raises(ValueError, match="one of train, validation, test, got 'dev'"):
        load_examples("toy", "dev")


# chapters/day04_encoder_and_data.md · The loader
def orders(loader: DataLoader, epochs: int) -> list[list[int]]:
    """The first words' ids in the order of each epoch; our texts' first words differ."""
    return [[row[1].item() for batch in loader for row in batch["input_ids"]] for _ in range(epochs)]


# chapters/day08_data_schedule_monitoring.md · An order that depends on nothing but seed and epoch
def test_loader_can_be_repeated() -> None:
    examples, tokenizer = numbered_texts()
    for group in (False, True):
        loader = partial(make_loader, examples, tokenizer, 5, shuffle=True, group_by_length=group)
        first, second = first_words(loader(seed=1), 0, 1)
        torch.rand(7)  # the global generator moves on, which must not matter
        assert first_words(loader(seed=1), 1, 0, 0) == [second, first, first]
        assert first != second and first_words(loader(seed=2), 0) != [first]
        unchosen = loader(seed=1)
        passes = [[row[1].item() for batch in unchosen for row in batch["input_ids"]] for _ in range(2)]
        assert passes == [first, second], "without a choice, each pass is the next epoch"
        assert sorted(first) == sorted(second) == sorted(tokenizer.vocabulary.ids[f"w{i}"] for i in range(23))
    state = torch.get_rng_state()
    first_words(loader(seed=1), 0)
    assert torch.equal(torch.get_rng_state(), state), "the loader must leave the global generator alone"


# chapters/day04_encoder_and_data.md · The smoke test
def test_smoke():
    train = load_examples("toy", "train")
    tokenizer = WordTokenizer(Vocabulary.from_texts(train.texts), max_length=32)
    batch = next(iter(make_loader(train, tokenizer, batch_size=5, shuffle=True)))
    torch.manual_seed(0)
    config = ModelConfig(len(tokenizer.vocabulary), d_model=32, num_heads=4, d_ff=64, max_length=32)
    model = TransformerForSequenceClassification(config)
    logits = model(batch["input_ids"], batch["attention_mask"])
    assert logits.shape == (5, 2) and logits.isfinite().all()
    (logits[:, 1] - logits[:, 0]).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() < 1e-6, f"{name}: softmax must not see it"
        else:
            assert parameter.grad.abs().max() > 1e-6, f"{name} gets no gradient"


# chapters/day04_encoder_and_data.md · What the untrained model can already tell
def three_examples() -> tuple[Examples, WordTokenizer]:
    examples = Examples(["a bad film", "fine", "not bad at all ."], [0, 1, 1], "three texts")
    return examples, WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=6)


def test_dataset():
    examples, tokenizer = three_examples()
    dataset = TextClassificationDataset(examples, tokenizer)
    assert len(dataset) == 3
    for i in range(3):
        assert dataset[i] == (tokenizer.encode(examples.texts[i]), examples.labels[i])
    assert len(dataset[2][0]) == 6, "five tokens and two special ones must be cut to max_length"


def test_collate():
    items = [([5, 6], 1), ([7], 0), ([8, 0, 9, 4], -1)]
    batch = collate(items, padding_id=3)
    assert batch["input_ids"].tolist() == [[5, 6, 3, 3], [7, 3, 3, 3], [8, 0, 9, 4]]
    assert batch["attention_mask"].tolist() == [[True] * 2 + [False] * 2, [True] + [False] * 3, [True] * 4]
    assert batch["labels"].tolist() == [1, 0, -1]
    kinds = {name: tensor.dtype for name, tensor in batch.items()}
    assert kinds == {"input_ids": torch.int64, "attention_mask": torch.bool, "labels": torch.int64}
    assert collate(items[1:2])["input_ids"].tolist() == [[7]], "a batch is as long as its own longest"
    with pytest.raises(ValueError, match="at least one item"):
        collate([])


def test_loader_yields_every_example_once():
    examples, tokenizer = three_examples()
    batches = list(make_loader(examples, tokenizer, batch_size=2))
    assert [batch["input_ids"].shape for batch in batches] == [(2, 5), (1, 6)]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == examples.labels
    for batch in batches:
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            assert row[mask].tolist() in [tokenizer.encode(text) for text in examples.texts]
            assert (row[~mask] == tokenizer.padding_id).all(), "padding must be the tokenizer's [PAD]"
    with pytest.raises(ValueError, match="no texts at all holds no examples"):
        make_loader(Examples([], [], "no texts at all"), tokenizer)


# chapters/day08_data_schedule_monitoring.md · Similar lengths together
def test_epoch_batches_hold_every_index_once() -> None:
    lengths = np.random.default_rng(3).integers(3, 60, size=1003)
    for shuffle in (False, True):
        for group in (False, True):
            batches = epoch_batches(lengths, 16, shuffle, group, seed=1, epoch=2, pool=7)
            assert sorted(i for batch in batches for i in batch) == list(range(1003)), (shuffle, group)
            assert sorted(len(batch) for batch in batches) == [1003 % 16] + [16] * (1003 // 16)
    assert epoch_batches(lengths, 16, False, False, 1, 2)[1] == list(range(16, 32)), "not shuffled: in order"


def test_epoch_batches_group_within_pools_and_shuffle_the_groups() -> None:
    lengths = np.random.default_rng(3).integers(3, 60, size=1024)

    def width(batches: list[list[int]]) -> float:
        return float(np.mean([lengths[batch].max() for batch in batches]))

    grouped, plain = (epoch_batches(lengths, 16, True, group, 1, 2, pool=8) for group in (True, False))
    assert width(grouped) < 0.7 * width(plain), "grouping must make batches narrower"
    assert epoch_batches(lengths, 16, True, True, 1, 2, pool=1) != plain, (
        "but pools of one batch are shuffled"
    )
    assert width(epoch_batches(lengths, 16, True, True, 1, 2, pool=1)) == width(plain)
    widths = [lengths[batch].max() for batch in grouped[:8]]
    assert widths != sorted(widths), "short and long batches must come in random order"
    assert _POOL > 1 and epoch_batches(lengths, 16, True, True, 1, 2) != grouped


# chapters/day08_data_schedule_monitoring.md · An order that depends on nothing but seed and epoch
def test_epoch_sampler_is_a_pure_function_and_resumes_anywhere() -> None:
    lengths = [3 + i * 7 % 31 for i in range(101)]
    sampler = EpochSampler(lengths, 8, group_by_length=True, seed=4)
    whole = {}
    for epoch in (2, 0, 1):  # in any order, because no state is carried from one to the next
        sampler.set_epoch(epoch)
        whole[epoch] = list(sampler)
    assert len({str(batches) for batches in whole.values()}) == 3, "every epoch has an order of its own"
    again = EpochSampler(lengths, 8, group_by_length=True, seed=4)
    for epoch in range(3):
        for first in (0, 1, 7, 13):
            again.set_epoch(epoch, first)
            assert list(again) == whole[epoch][first:] and len(again) == 13, (epoch, first)
    other = EpochSampler(lengths, 8, group_by_length=True, seed=5)
    other.set_epoch(1)
    assert list(other) not in whole.values(), "another seed, another order, in every epoch"


def test_epoch_sampler_refuses() -> None:
    for make in (
        lambda: EpochSampler([], 8),
        lambda: EpochSampler([3, 4], 0),
        lambda: EpochSampler([3, 4], 1).set_epoch(-1),
        lambda: EpochSampler([3, 4], 1).set_epoch(0, first=3),
    ):
        try:
            make()
            raise AssertionError("a wrong value was accepted")
        except ValueError as error:
            assert "at least 1" in str(error) or "0 … 2" in str(error), error


def numbered_texts() -> tuple[Examples, WordTokenizer]:
    """23 texts of 3 to 7 words, each of which begins with a word of its own."""
    texts = [" ".join([f"w{i}"] + ["more"] * (2 + i % 5)) for i in range(23)]
    examples = Examples(texts, [i % 2 for i in range(23)], "23 numbered texts")
    return examples, WordTokenizer(Vocabulary.from_texts(examples.texts))


def first_words(loader: DataLoader, *epochs: int) -> list[list[int]]:
    """For each epoch, the second id (after [CLS]) of every sequence in order."""
    found = []
    for epoch in epochs:
        loader.batch_sampler.set_epoch(epoch)
        found.append([row[1].item() for batch in loader for row in batch["input_ids"]])
    return found


def test_make_loader_groups_by_length() -> None:
    examples, tokenizer = numbered_texts()
    places = [
        sum(batch["input_ids"].numel() for batch in make_loader(examples, tokenizer, 4, True, 0, group))
        for group in (False, True)
    ]
    assert places[1] < places[0] and places[1] <= sum(len(tokenizer.encode(t)) for t in examples.texts) * 1.2
