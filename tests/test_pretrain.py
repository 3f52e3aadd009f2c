# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.pretrain`."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from minitransformer.data import Examples
from minitransformer.pretrain import (
    ChunkDataset,
    ChunkSampler,
    Corpus,
    build_corpus,
    chunk_batches,
    cut_points,
    encode_all,
    load_corpus_texts,
    make_corpus_loader,
    mask_tokens,
)
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer


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
    corpus = build_corpus(examples, tokenizer)
    assert corpus.tokens.tolist() == [5, 7, 6, 1, 5, 6]
    assert corpus.tokens.dtype == np.uint16
    assert corpus.spans.tolist() == [[0, 3], [3, 6], [6, 6]]
    assert corpus.labels.tolist() == [1, 0, -1]
    assert corpus.part(np.array([1])).spans.tolist() == [[3, 6]]
    assert [ids.tolist() for ids in encode_all(tokenizer, ["film a a a a a"])] == [[6, 5, 5, 5, 5, 5]]


def test_load_corpus_texts():
    toy = load_corpus_texts("toy")
    assert toy.labels.count(0) == toy.labels.count(1) == 375 and toy.texts[0].count(" . ") == 3


def make_test_corpus(sizes: Sequence[int] = (1, 7, 20, 12, 0, 33)) -> Corpus:
    tokens = np.arange(5, 5 + sum(sizes), dtype=np.uint16)
    ends = np.cumsum(sizes)
    return Corpus(tokens, np.stack([ends - sizes, ends], 1), np.arange(len(sizes)) % 2, "made up")


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
