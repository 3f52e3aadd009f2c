"""Day 4's batch: the package's tokenizer, collate and masked attention."""

import torch

from minitransformer.attention import masked_softmax, padding_mask
from minitransformer.data import collate
from minitransformer.tokenizer import Vocabulary, WordTokenizer

TEXTS, LONGEST = ["not a bad film at all", "superb"], 12
WORDS = Vocabulary.from_texts(["not a bad film at all , but a fine one"])
TOKENIZER = WordTokenizer(WORDS, LONGEST)


def start() -> dict:
    return {"texts": TEXTS, "vocabulary": WORDS.tokens, "longest": LONGEST}


def answer(texts: list[str], masked: bool = True, show: str = "tokens") -> dict:
    batch = collate([(TOKENIZER.encode(text), 0) for text in texts], TOKENIZER.padding_id)
    ids, real = batch["input_ids"], batch["attention_mask"]
    scores = torch.zeros(2, 1, 1, ids.size(1))
    mask = padding_mask(real.sum(1), ids.size(1))[:, None, None] if masked else None
    weights = masked_softmax(scores, mask).flatten(1) if masked else scores.softmax(-1).flatten(1)
    kinds = {
        "tokens": [[WORDS.tokens[i] for i in row] for row in ids.tolist()],
        "ids": ids.tolist(),
        "mask": [[str(value) for value in row] for row in real.tolist()],
        "weights": weights.tolist(),
    }
    cells = {f"cell_{i}_{j}": value for i, row in enumerate(kinds[show]) for j, value in enumerate(row)}
    return cells | {
        "wide": ids.size(1),
        "padding": int((~real).sum()),
        "unknown": int((ids == WORDS.ids["[UNK]"]).sum()),
        "leak": weights[~real].sum().item() / 2,
    }


def states() -> list:
    cells, second = "The cells show", "Not, a FINE film; at all!"
    return [
        ([], answer(TEXTS)),
        ([("With the mask", False), (cells, "weights")], answer(TEXTS, False, "weights")),
        ([("Text 2", second), (cells, "ids")], answer([TEXTS[0], second], show="ids")),
        ([("Text 1", "a " * 40), (cells, "mask")], answer(["a " * 40, TEXTS[1]], show="mask")),
        ([("Text 1", "")], answer(["", TEXTS[1]])),
    ]
