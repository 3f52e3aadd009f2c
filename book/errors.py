"""Sort SST-2's validation sentences into groups, and write `book/runs/validation_groups.json`.

    python -m book.errors

The record says of each sentence, in order, to which groups it belongs; it holds no sentence. With it, and with a run's
recorded answers, a page can say where the run errs without having the data. The groups depend on the sentences and on
SST-2's training phrases, not on any model, so that they can be compared across models.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from minitransformer.data import load_sst2
from minitransformer.evaluate import _group_names, _traits
from minitransformer.experiment.folder import checksum
from minitransformer.tokenizer import basic_english

RECORD = Path(__file__).parent / "runs" / "validation_groups.json"
FREQUENCIES = {"0": 0, "1": 1, "2 to 9": 9, "10 or more": 10**9}


def group(value: int, bounds: dict[str, int]) -> str:
    """The name of the range that holds a value; `bounds` has the upper end of each."""
    return next(name for name, last in bounds.items() if value <= last)


def whole_texts(texts: Iterable[str]) -> list[str]:
    """The texts whose words are not part of another text, each once, the longest first: sentences among phrases."""
    kept, parts = [], set()
    for words in sorted({tuple(text.split()) for text in texts}, key=len, reverse=True):
        if words not in parts:
            kept.append(" ".join(words))
            parts |= {words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return kept


def groups_of(text: str, frequency: Counter[str]) -> dict[str, str]:
    """The group of a sentence, of each kind; `frequency` says how many training sentences hold a word."""
    length, negation, contrast = _group_names(_traits(text))
    rarest = min(frequency[word] for word in basic_english(text))
    return {
        "training sentences with its rarest word": group(rarest, FREQUENCIES),
        "negation": negation.split()[0],
        "contrast": contrast.split()[0],
        "words": length.removesuffix(" words"),
    }


def main() -> None:
    """Group the validation sentences, and write the record."""
    train = load_sst2("train")
    sentences = whole_texts(train.texts)
    labels = dict(zip((" ".join(text.split()) for text in train.texts), train.labels, strict=True))
    frequency = Counter(word for text in sentences for word in set(basic_english(text)))
    validation = load_sst2("validation")
    found = [groups_of(text, frequency) for text in validation.texts]
    record = {
        "validation_sha256": checksum(validation),
        "training_sentences": len(sentences),
        "training_sentences_positive": sum(labels[text] for text in sentences) / len(sentences),
        "groups": {kind: [groups[kind] for groups in found] for kind in found[0]},
    }
    RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
    for kind, names in record["groups"].items():
        print(kind, dict(Counter(names)))


if __name__ == "__main__":
    main()
