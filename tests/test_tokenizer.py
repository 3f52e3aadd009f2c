# Generated from chapters/day04_encoder_and_data.md, chapters/day09_sprint.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.tokenizer`."""

import re
import tempfile
from pathlib import Path

import pytest
from tokenizers import models

from minitransformer.tokenizer import (
    _ALPHABET,
    SPECIAL_TOKENS,
    Vocabulary,
    WordPieceTokenizer,
    WordTokenizer,
    _bert_backend,
    _piece_trainer,
    _read_tokenizer,
    _review_normalizer,
    basic_english,
    load_tokenizer,
)


# chapters/day04_encoder_and_data.md · What the untrained model can already tell
def test_basic_english():
    assert basic_english("It's not a BAD film.") == ["it", "'", "s", "not", "a", "bad", "film", "."]
    assert basic_english("  ") == basic_english("") == []
    for text in ("so-so...", "tabs\tand\nlines", "50% naïve; çà et là", "[CLS] <b>bold</b>"):
        assert "".join(basic_english(text)) == re.sub(r"\s", "", text.lower()), "a character was lost"


def test_vocabulary():
    texts = ["b a b", "c, a b"]
    assert Vocabulary.from_texts(texts).tokens == [*SPECIAL_TOKENS, "b", "a", ",", "c"]
    assert Vocabulary.from_texts(texts[::-1]).tokens == Vocabulary.from_texts(texts).tokens
    assert Vocabulary.from_texts(texts, min_frequency=2).tokens == [*SPECIAL_TOKENS, "b", "a"]
    assert Vocabulary.from_texts(texts, max_size=6).tokens == [*SPECIAL_TOKENS, "b"]
    vocabulary = Vocabulary.from_texts(texts)
    assert len(vocabulary) == 9 and all(vocabulary.ids[t] == i for i, t in enumerate(vocabulary.tokens))
    assert [vocabulary.ids[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]


def small_tokenizer(max_length: int = 7) -> WordTokenizer:
    return WordTokenizer(Vocabulary.from_texts(["a bad film ; cls [ ]"]), max_length)


def test_tokenizer():
    tokenizer = small_tokenizer()
    ids = tokenizer.vocabulary.ids
    assert tokenizer.encode("A bad FILM") == [2, ids["a"], ids["bad"], ids["film"], 3]
    assert tokenizer.encode("a sequel") == [2, ids["a"], 1, 3]
    assert tokenizer.tokenize("A bad FILM; a sequel") == ["a", "bad", "film", ";", "a", "sequel"]
    assert tokenizer.encode("[CLS]") == [2, ids["["], ids["cls"], ids["]"], 3], "text must not make a [CLS]"
    assert tokenizer.encode("") == [2, 3] and tokenizer.padding_id == 0
    assert tokenizer.decode([2, ids["bad"], 1, ids["film"], 3, 0, 0]) == "bad [UNK] film"
    long = tokenizer.encode("a bad film " * 10)
    assert len(long) == 7 and long[-1] == 3 and tokenizer.decode(long) == "a bad film a bad"
    exact = tokenizer.encode("a bad film a bad")
    assert exact == long, "a text that just fits must keep every word"


def test_vocabulary_refuses():
    for arguments, words in (
        ({"min_frequency": 0}, "min_frequency must be at least 1, got 0"),
        ({"max_size": 4}, "max_size must be at least 5, got 4"),
    ):
        with pytest.raises(ValueError, match=words):
            Vocabulary.from_texts(["a"], **arguments)
    with pytest.raises(ValueError, match="'film' is there twice"):
        Vocabulary([*SPECIAL_TOKENS, "film", "a", "film"])
    with pytest.raises(ValueError, match="must begin with"):
        Vocabulary(["film", *SPECIAL_TOKENS])


def test_tokenizer_is_saved():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        small_tokenizer(6).save(path)
        loaded = WordTokenizer.load(path)
        assert loaded.vocabulary.tokens == small_tokenizer(6).vocabulary.tokens and loaded.max_length == 6
        assert _read_tokenizer(path)[1] == 6
        for broken in ("{", "{}", '{"tokens": ["a"], "max_length": 6}', "[]"):
            path.write_text(broken)
            with pytest.raises(ValueError, match=r"tokenizer.json is not a saved tokenizer"):
                WordTokenizer.load(path)
        with pytest.raises(ValueError, match="cannot be read: No such file"):
            WordTokenizer.load(Path(folder, "missing.json"))
    with pytest.raises(ValueError, match=r"max_length must be at least 3.*got 2"):
        small_tokenizer(max_length=2)


# chapters/day09_sprint.md · Pieces of words
def test_review_normalizer():
    normalizer = _review_normalizer()
    assert normalizer.normalize_str("I didn't.<br /><br />Can't CAFÉ") == "i did n't.  ca n't cafe"
    assert normalizer.normalize_str("do n't") == "do n't"


def test_pieces_of_words():
    texts = ["A fine film.", "not a fine plot<br />at all", "it didn't work, isn't it?"] * 3
    tokenizer = WordPieceTokenizer.train(texts, vocab_size=130, max_length=12)
    assert tokenizer.vocabulary.tokens[:5] == list(SPECIAL_TOKENS)
    assert tokenizer.tokenize("a FINE plot<br />at") == ["a", "fine", "plot", "at"]
    assert tokenizer.tokenize("didn't") == tokenizer.tokenize("did n't") != ["[UNK]"]
    ids = tokenizer.encode("a fine film")
    assert tokenizer.decode(ids) == "a fine film"
    assert tokenizer.decode(tokenizer.encode("filmin")) == "filmin", "pieces are joined again"
    assert len(tokenizer.encode("a " * 99)) == 12 and tokenizer.encode("") == [2, 3]
    assert tokenizer.tokenize("☃") == ["[UNK]"]
    assert "[UNK]" not in tokenizer.tokenize("z" * 100) and tokenizer.tokenize("z" * 101) == ["[UNK]"]
    again = WordPieceTokenizer.train(texts, vocab_size=130, max_length=12)
    assert again.vocabulary.tokens == tokenizer.vocabulary.tokens


def test_piece_trainer_needs_room_for_the_alphabet():
    assert _piece_trainer(5 + len(_ALPHABET)).vocab_size == 5 + len(_ALPHABET) == 5 + 36 + 32 + 36
    try:
        WordPieceTokenizer.train(["a film"], 100)
        raise AssertionError("no room for the single characters")
    except ValueError as error:
        assert "vocab_size must be at least 109" in str(error) and "got 100" in str(error)
    assert _bert_backend(models.WordPiece({"[UNK]": 0, "fine": 1}, unk_token="[UNK]")).encode("FINE").ids == [
        1
    ]


def test_load_tokenizer_knows_both_kinds():
    words = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "fine"]), 9)
    pieces = WordPieceTokenizer.train(["a fine film"], 120, 7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        for tokenizer in (words, pieces):
            tokenizer.save(path)
            for load in (load_tokenizer, type(tokenizer).load):
                loaded = load(path)
                assert type(loaded) is type(tokenizer)
                assert loaded.max_length == tokenizer.max_length
                text = "a fine film " * 9
                assert loaded.encode(text) == tokenizer.encode(text)
        for text in ("{", "[]", '{"model": {"type": "WordPiece"}, "truncation": {"max_length": 9}}'):
            path.write_text(text)
            try:
                load_tokenizer(path)
                raise AssertionError(text)
            except ValueError as error:
                assert "tokenizer.json is not a saved tokenizer" in str(error)
