# Generated from chapters/day04_encoder_and_data.md, chapters/day09_sprint.md; edit the chapters, not this file.
"""From text to token ids and back: whole words, or pieces of words."""

import json
import re
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

__all__ = [
    "SPECIAL_TOKENS", "Vocabulary", "WordPieceTokenizer", "WordTokenizer", "basic_english",
    "load_tokenizer",
]  # fmt: skip


# chapters/day04_encoder_and_data.md · Cutting text into tokens
def basic_english(text: str) -> list[str]:
    """Lower-case words and single punctuation marks; only white space is dropped."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


# chapters/day04_encoder_and_data.md · The vocabulary
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Vocabulary:
    """A list of tokens, special ones first; a token's place in it is its id."""

    def __init__(self, tokens: Iterable[str]):
        self.tokens = tokens = list(tokens)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if tuple(self.tokens[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
            first = " ".join(SPECIAL_TOKENS)
            raise ValueError(f"a vocabulary must begin with {first}, got {tokens[:5]}")
        if len(self.ids) < len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise ValueError(f"tokens must differ, but {twice!r} is there twice")

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], min_frequency: int = 1, max_size: int | None = None
    ) -> "Vocabulary":
        """The training texts' tokens by falling frequency, ties by their characters.

        Args:
            texts: training texts only; validation and test texts have no say here.
            min_frequency: how often a token must occur to get an id.
            max_size: at most so many entries, special ones too; None for no limit.
        """
        if min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, got {min_frequency}")
        least = len(SPECIAL_TOKENS)
        if max_size is not None and max_size < least:
            raise ValueError(f"max_size must be at least {least}, got {max_size}")
        counts = Counter(token for text in texts for token in basic_english(text))
        frequent = [token for token in counts if counts[token] >= min_frequency]
        frequent.sort(key=lambda token: (-counts[token], token))
        return cls([*SPECIAL_TOKENS, *frequent][:max_size])

    def __len__(self) -> int:
        return len(self.tokens)


# chapters/day04_encoder_and_data.md · The tokenizer
def _read_tokenizer(path: Path) -> tuple[Vocabulary, int]:
    """The vocabulary and the maximal length in a saved tokenizer's file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Vocabulary(content["tokens"]), int(content["max_length"])
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a saved tokenizer: {error}") from None


class WordTokenizer:
    """Text to ids and back: `[CLS] … [SEP]` around it, `[UNK]` for unknown words."""

    def __init__(self, vocabulary: Vocabulary, max_length: int = 128):
        if max_length < 3:
            least = "at least 3 ([CLS], one token, [SEP])"
            raise ValueError(f"max_length must be {least}, got {max_length}")
        self.vocabulary, self.max_length = vocabulary, max_length
        self.padding_id = vocabulary.ids["[PAD]"]

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, all of them, without special tokens."""
        return basic_english(text)

    def encode(self, text: str) -> list[int]:
        """At most `max_length` ids: a longer text loses its end, not its `[SEP]`."""
        ids = self.vocabulary.ids
        words = [ids.get(token, ids["[UNK]"]) for token in self.tokenize(text)]
        return [ids["[CLS]"], *words[: self.max_length - 2], ids["[SEP]"]]

    def decode(self, ids: Iterable[int]) -> str:
        """The tokens of `ids` and spaces, without `[PAD]`, `[CLS]` and `[SEP]`."""
        frame = ("[PAD]", "[CLS]", "[SEP]")
        tokens = [self.vocabulary.tokens[i] for i in ids]
        return " ".join(token for token in tokens if token not in frame)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON, for `load` and for people to read."""
        content = {"max_length": self.max_length, "tokens": self.vocabulary.tokens}
        text = json.dumps(content, ensure_ascii=False, indent=0)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "WordTokenizer":
        """The tokenizer that `save` wrote; a missing or broken file is a ValueError."""
        return cls(*_read_tokenizer(Path(path)))


# chapters/day09_sprint.md · Pieces of words
def _review_normalizer() -> normalizers.Normalizer:
    """Lower case, no HTML line breaks, and "n't" cut off as in SST-2: "did n't"."""
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"<br\s*/?>"), " "),
            normalizers.BertNormalizer(lowercase=True),
            normalizers.Replace(Regex(r"(?<=\w)n't\b"), " n't"),
        ]
    )


_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"

_ALPHABET = (*_LETTERS, *string.punctuation, *(f"##{letter}" for letter in _LETTERS))


def _bert_backend(model: models.Model) -> Tokenizer:
    """BERT's way from text to pieces: clean, split at spaces and punctuation, cut."""
    backend = Tokenizer(model)
    backend.normalizer = _review_normalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _piece_trainer(vocab_size: int) -> trainers.WordPieceTrainer:
    """What learns `vocab_size` pieces; the alphabet comes first, and so in the same order every time."""
    least = len(SPECIAL_TOKENS) + len(_ALPHABET)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size must be at least {least}, the special tokens and the single characters, got {vocab_size}"
        )
    single = [piece for piece in _ALPHABET if len(piece) == 1]
    return trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *_ALPHABET],
        initial_alphabet=single,
        limit_alphabet=len(single),
        show_progress=False,
    )


class WordPieceTokenizer(WordTokenizer):
    """Text to ids and back in pieces of words (Devlin et al., 2019, section 3).

    The library `tokenizers` cuts; a piece that does not begin a word starts with `##`.
    """

    def __init__(self, backend: Tokenizer, max_length: int = 128):
        ids = backend.get_vocab()
        super().__init__(Vocabulary(sorted(ids, key=ids.__getitem__)), max_length)
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, max_length: int = 128) -> "WordPieceTokenizer":
        """Learn at most `vocab_size` pieces; equal texts give equal pieces."""
        backend = _bert_backend(models.WordPiece(unk_token="[UNK]"))
        backend.train_from_iterator(texts, _piece_trainer(vocab_size))
        pieces = models.WordPiece(backend.get_vocab(), unk_token="[UNK]")
        return cls(_bert_backend(pieces), max_length)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, all of them, without special tokens."""
        return self.backend.encode(text, add_special_tokens=False).tokens

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, pieces joined, without `[PAD]`, `[CLS]` and `[SEP]`."""
        tokens = [self.vocabulary.tokens[i] for i in ids]
        return self.backend.decoder.decode([t for t in tokens if t not in ("[PAD]", "[CLS]", "[SEP]")])

    def save(self, path: str | Path) -> None:
        """Write the library's JSON, with `max_length` as its truncation."""
        copy = Tokenizer.from_str(self.backend.to_str())
        copy.enable_truncation(self.max_length)
        Path(path).write_text(copy.to_str(pretty=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "WordPieceTokenizer":
        """The tokenizer that `save` wrote; a missing or broken file is a ValueError."""
        try:
            backend = Tokenizer.from_file(str(path))
            return cls(backend, int((backend.truncation or {})["max_length"]))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{path} is not a saved tokenizer: {error}") from None


def load_tokenizer(path: str | Path) -> WordTokenizer:
    """The tokenizer in a file, of whichever kind it is.

    Raises:
        ValueError: one sentence, if the file is missing, broken or something else.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}  # let WordTokenizer say what is wrong
    pieces = isinstance(content, dict) and "model" in content
    return (WordPieceTokenizer if pieces else WordTokenizer).load(path)
