"""Count how many sentences of SST-2 share a run of words with IMDB, and write `book/runs/contamination.json`.

    python -m book.contamination

Words are compared without punctuation, case, and the spaces around contractions, as the two corpora write them differently.
Only counts are kept, and the stock phrases of 8 words that most reviews share with a sentence.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from minitransformer.data import load_imdb, load_sst2, load_sst2_test

RECORD = Path(__file__).parent / "runs" / "contamination.json"
WIDTHS = (8, 13)


def plain_words(text: str) -> list[str]:
    """Lower-case words of letters and digits; "didn't" and "did n't" both become "didnt", "it 's" becomes "its"."""
    text = re.sub(r"<br\s*/?>", " ", text.lower()).replace("\u2019", "'")
    text = re.sub(r"\s*n't\b", "nt", text)
    text = re.sub(r"\s*'\s*(?=(?:s|re|ve|ll|d|m)\b)", "", text)
    return re.findall(r"[a-z0-9]+", text)


def runs_of_words(words: list[str], width: int) -> Iterator[str]:
    """Every run of `width` words."""
    return (" ".join(words[i : i + width]) for i in range(len(words) - width + 1))


def shared_runs(sentences: list[str], texts: Iterable[str], width: int) -> dict[str, object]:
    """How many of the sentences share a run of `width` words with a text, and how many are there from end to end."""
    split = [plain_words(sentence) for sentence in sentences]
    owners: dict[str, set[int]] = {}
    for i, words in enumerate(split):
        for run in runs_of_words(words, width):
            owners.setdefault(run, set()).add(i)
    found: Counter[str] = Counter()
    complete: set[int] = set()
    for text in texts:
        words = plain_words(text)
        hits = owners.keys() & set(runs_of_words(words, width))
        found.update(hits)
        if hits:
            joined = f" {' '.join(words)} "
            candidates = set().union(*(owners[run] for run in hits))
            complete |= {i for i in candidates if f" {' '.join(split[i])} " in joined}
    touched = set().union(*(owners[run] for run in found)) if found else set()
    return {
        "sentences": len(sentences),
        "long_enough": sum(len(words) >= width for words in split),
        "sharing": len(touched),
        "complete": len(complete),
        "phrases": found.most_common(5) if width == min(WIDTHS) else [],
    }


def main() -> None:
    """Compare validation and test sentences with all 100,000 reviews, and write the record."""
    texts = [text for split in ("train", "test", "unsupervised") for text in load_imdb(split).texts]
    splits = {"validation": load_sst2("validation").texts, "test": load_sst2_test().texts}
    record = {
        name: {str(width): shared_runs(sentences, texts, width) for width in WIDTHS}
        for name, sentences in splits.items()
    }
    RECORD.write_text(json.dumps({"reviews": len(texts), **record}, indent=2) + "\n", encoding="utf-8")
    print(RECORD.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
