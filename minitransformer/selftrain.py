# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""Self-training: models label sentences of reviews, and another one learns from them."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from minitransformer.config import require
from minitransformer.data import collate
from minitransformer.evaluate import predict
from minitransformer.pretrain import load_corpus_texts
from minitransformer.runs import load_run, read_run_record, source_state, write_atomically, write_json
from minitransformer.tokenizer import WordTokenizer
from minitransformer.train import flat_weights, furthest, same_run

__all__ = ["BLOCK", "draw_sentences", "keep_blocks", "label_sentences", "mean_positive", "split_sentences"]


# chapters/day09_sprint.md · The models label sentences
def split_sentences(texts: Iterable[str], least: int = 4, most: int = 40) -> list[str]:
    """The sentences of texts that have `least` to `most` words, each once, in their order.

    A sentence ends where a space follows on ".", "!" or "?", and at a line break of HTML.
    """
    found: dict[str, None] = {}
    for text in texts:
        for sentence in re.split(r"<br\s*/?>|(?<=[.!?])\s+", text):
            words = sentence.split()
            if least <= len(words) <= most:
                found[" ".join(words)] = None
    return list(found)


# chapters/day09_sprint.md · The models label sentences
def draw_sentences(corpus: str, count: int, seed: int) -> list[str]:
    """So many different sentences of the reviews of a corpus (see `load_corpus_texts`), drawn at random.

    Raises:
        ValueError: one sentence, if there are not so many.
    """
    sentences = split_sentences(load_corpus_texts(corpus).texts)
    require(1 <= count <= len(sentences), "count", count, f"in 1 … {len(sentences)}, the sentences there are")
    return Random(seed).sample(sentences, count)


# chapters/day09_sprint.md · The models label sentences
def mean_positive(
    members: Sequence[tuple[nn.Module, WordTokenizer]], texts: Sequence[str]
) -> Float[Tensor, " N"]:
    """The probability of "positive" for each text, in the mean of several models, each with its tokenizer."""
    total = torch.zeros(len(texts))
    for model, tokenizer in members:
        items = [(tokenizer.encode(text), -1) for text in texts]
        order = torch.tensor([len(ids) for ids, _ in items]).argsort(stable=True)
        parts = order.split(128)
        logits, _ = predict(
            model, [collate([items[i] for i in part], tokenizer.padding_id) for part in parts]
        )
        # row k of the logits belongs to text order[k]; column 1 is "positive"
        total[order] += logits.softmax(-1)[:, 1]
    return total / len(members)


# chapters/day09_sprint.md · The models label sentences
BLOCK = 4096  # sentences between two writings


# chapters/day09_sprint.md · The models label sentences
def keep_blocks(path: Path, count: int) -> int:
    """Cut a file of up to `count` lines after its last whole block; returns how many lines are left."""
    content = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    whole = sum(line.endswith(b"\n") for line in content)
    kept = whole if whole == count else whole // BLOCK * BLOCK
    write_atomically(path, b"".join(content[:kept]))
    return kept


# chapters/day09_sprint.md · The models label sentences
def label_sentences(
    runs: Sequence[str | Path], folder: str | Path, corpus: str = "imdb", count: int = 100_000, seed: int = 0
) -> str:
    """Let the models of `runs` label sentences of a corpus, drawn at random; the folder is for `data.extra`.

    `sentences.jsonl` gets one line a sentence: its text, and the mean probability of "positive". Called again, the work goes on
    where it stopped. Returns what was done, in a sentence.

    Raises:
        ValueError: one sentence, if a run cannot be loaded, or the folder holds something else.
    """
    folder, members = Path(folder), [load_run(run)[1:] for run in runs]
    kind = furthest(["read", *(read_run_record(run)["class"] for run in runs)])
    weights = [hashlib.sha256(flat_weights(model).numpy().tobytes()).hexdigest() for model, _ in members]
    origin = {"weights": weights, "corpus": corpus, "count": count, "seed": seed}
    texts = draw_sentences(corpus, count, seed)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "run.json").is_file():
        same_run(folder, read_run_record(folder).get("origin", {}), origin)
    names = [Path(run).name for run in runs]
    write_json(
        folder / "run.json",
        {"name": folder.name, "class": kind, "runs": names, "origin": origin, "code": source_state()},
    )
    path = folder / "sentences.jsonl"
    for start in tqdm(range(keep_blocks(path, count), count, BLOCK), desc="blocks", leave=False):
        block = texts[start : start + BLOCK]
        shares = zip(block, mean_positive(members, block).tolist(), strict=True)
        lines = [json.dumps({"text": text, "positive": round(share, 5)}) + "\n" for text, share in shares]
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    return f"{count} sentences of {corpus}, labelled by {len(members)} models, in {folder}"
