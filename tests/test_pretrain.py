# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.pretrain`."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minitransformer.data import Examples
from minitransformer.model import ModelConfig, TransformerForMaskedLM
from minitransformer.pretrain import (
    Corpus,
    MaskedLMObjective,
    _chunk_batches,
    _ChunkDataset,
    _ChunkSampler,
    _cut_points,
    _encode_all,
    _load_corpus_texts,
    build_corpus,
    make_corpus_loader,
    mask_tokens,
)
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer


# chapters/day09_sprint.md · Hide, and guess
def test_mask_tokens():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (64, 100), generator=generator)
    ids[:, 0] = 2
    lengths = torch.randint(20, 101, (64, 1), generator=generator)
    mask = torch.arange(100) < lengths
    ids[~mask] = 0
    seen, chosen = mask_tokens(ids, mask, 1000, 0.2, generator)
    n, allowed = int(chosen.sum()), int(mask.sum()) - 64
    assert n == round(0.2 * allowed), "exactly this share"
    assert not chosen[:, 0].any() and not chosen[~mask].any(), "[CLS] or padding"
    assert torch.equal(seen[~chosen], ids[~chosen]), "not chosen, but changed"
    masked = int((seen[chosen] == 4).sum()) / n
    same = int((seen[chosen] == ids[chosen]).sum()) / n
    assert abs(masked - 0.8) < 4 * math.sqrt(0.16 / n)
    assert abs(same - 0.1) < 4 * math.sqrt(0.09 / n)
    assert seen[chosen].min() >= 4, "a random entry is no special token"


def test_mask_tokens_at_the_edges():
    generator = torch.Generator().manual_seed(0)
    one, empty = torch.tensor([[2, 7, 3]]), torch.tensor([[2, 3]])
    assert mask_tokens(one, one > 0, 9, 0.01, generator)[1].tolist() == [[False, True, False]]
    assert not mask_tokens(empty, empty > 0, 9, 0.5, generator)[1].any(), "[CLS] hidden"
    ids = torch.randint(0, 6, (50, 40), generator=generator)  # few tokens, many special
    seen, chosen = mask_tokens(ids, ids > 0, 6, 0.9, generator)
    assert (ids[chosen] == 5).all() and set(seen[chosen].tolist()) == {4, 5}
    dice = (torch.Generator().manual_seed(1) for _ in range(2))
    first, twin = (mask_tokens(ids, ids > 0, 99, 0.5, d) for d in dice)
    assert torch.equal(first[0], twin[0]) and torch.equal(first[1], twin[1])


# chapters/day09_sprint.md · The corpus
def make_test_corpus(sizes: Sequence[int] = (1, 7, 20, 12, 0, 33)) -> Corpus:
    tokens = np.arange(5, 5 + sum(sizes), dtype=np.uint16)
    ends = np.cumsum(sizes)
    labels = np.arange(len(sizes)) % 2
    return Corpus(tokens, np.stack([ends - sizes, ends], 1), labels, "made up")


def test_chunks_hold_every_token_once():
    corpus, seen = make_test_corpus(), set()
    for epoch in range(20):
        chunks = _cut_points(corpus.spans, 8, 3, epoch).tolist()
        assert [i for a, b, _ in chunks for i in range(a, b)] == list(range(73))
        assert all(1 <= b - a <= 8 for a, b, _ in chunks)
        inside = (corpus.spans[r][0] <= a and b <= corpus.spans[r][1] for a, b, r in chunks)
        assert all(inside), "none across two reviews"
        assert len(chunks) == 1 + 1 + 3 + 2 + 0 + 5, "as few as possible"
        seen.add(str(chunks))
        assert chunks == _cut_points(corpus.spans, 8, 3, epoch).tolist()
    assert len(seen) > 10, "the cuts move"


def test_build_corpus():
    examples = Examples(["a fine film", "not a film", ""], [1, 0, -1], "three")
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "a", "film", "fine"]), 4)
    corpus = build_corpus(examples, tokenizer)
    assert corpus.tokens.tolist() == [5, 7, 6, 1, 5, 6]
    assert corpus.tokens.dtype == np.uint16
    assert corpus.spans.tolist() == [[0, 3], [3, 6], [6, 6]]
    assert corpus.labels.tolist() == [1, 0, -1]
    assert corpus.part(np.array([1])).spans.tolist() == [[3, 6]]
    assert [ids.tolist() for ids in _encode_all(tokenizer, ["film a a a a a"])] == [[6, 5, 5, 5, 5, 5]]


def test_load_corpus_texts():
    toy = _load_corpus_texts("toy")
    assert toy.labels.count(0) == toy.labels.count(1) == 375 and toy.texts[0].count(" . ") == 3


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
    start, stop, review = _chunk_batches(corpus, 8, 3, 1, 0)[0][0]
    ids, label = _ChunkDataset(corpus)[np.array([start, stop, review])]
    assert ids.tolist() == [2, *range(5 + start, 5 + stop), 3] and label == review % 2
    try:
        _ChunkSampler(make_test_corpus([0]), 8, 3)
        raise AssertionError("an empty corpus")
    except ValueError as error:
        assert "needs tokens" in str(error)


# chapters/day09_sprint.md · The loss of hidden words
def small_reader() -> TransformerForMaskedLM:
    torch.manual_seed(0)
    size = ModelConfig(31, 12, 4, 20, 1, max_length=16, dropout=0.0, pooling="mean")
    return TransformerForMaskedLM(size)


def small_batch(labels: tuple[int, ...]) -> dict[str, Tensor]:
    ids = torch.tensor([[2, 7, 9, 8, 30, 3], [2, 11, 12, 3, 0, 0], [2, 6, 5, 14, 3, 0]])
    return {"input_ids": ids, "attention_mask": ids > 0, "labels": torch.tensor(labels)}


def test_masked_loss_position_by_position():
    model, batch = small_reader(), small_batch((1, -1, 0))
    objective = MaskedLMObjective(rate=0.5, label_weight=0.3, seed=2)
    token_loss, label_loss, named, size = objective.losses(model, batch, 7)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    dice = torch.Generator().manual_seed(2 * 1_000_003 + 7)
    seen, chosen = mask_tokens(ids, mask, 31, 0.5, dice)
    hidden, total, right = model.encoder(seen, mask), 0.0, 0
    for b, t in chosen.nonzero().tolist():
        p = model.name_tokens(hidden[b, t][None])[0].softmax(-1)
        total -= math.log(p[ids[b, t]].item())
        right += int(p.argmax() == ids[b, t])
    assert size == int(chosen.sum()) == 4, "half of nine, rounded"
    assert abs(token_loss.item() - total / size) < 1e-5 and named == right
    two = model.classify(hidden, mask)[[0, 2]]  # the second has no label
    expected = F.cross_entropy(two, torch.tensor([1, 0]))
    assert abs(label_loss.item() - expected.item()) < 1e-6


def test_masked_loss_repeats_and_has_edges():
    model, batch = small_reader(), small_batch((1, -1, 0))
    objective = MaskedLMObjective(rate=0.5, seed=2)
    first, twin = (objective.losses(model, batch, 7)[0].item() for _ in range(2))
    other = objective.losses(model, batch, 8)[0].item()
    assert first == twin != other, "a pure function of seed and step"
    assert objective.losses(model, batch, 7)[1].item() == 0, "no label counts"
    unlabelled = replace(objective, label_weight=1.0)
    assert unlabelled.losses(model, small_batch((-1, -1, -1)), 7)[1].item() == 0
    empty = {"input_ids": torch.tensor([[2, 1, 3]]), "labels": torch.tensor([-1])}
    empty["attention_mask"] = empty["input_ids"] > 0
    token_loss, _, named, size = objective.losses(model, empty, 0)
    assert (token_loss.item(), named, size) == (0.0, 0, 0), "zero, not NaN"
    token_loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
