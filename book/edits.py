"""Count what small edits do to the shipped model's answers on validation, and write `book/runs/edits.json`.

    python -m book.edits
    python -m book.edits --first 40    # a trial: fewer sentences, and nothing is written

For each edit the record holds how many sentences it changes, how many answers turn, and how many answers are right
before and after: counts, no sentence. It names the run, so that it cannot pass for that of another model, and repeats the
counts of its first sentences alone, so that a test can repeat them quickly.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from minitransformer.cli import SHIPPED
from minitransformer.data import Examples, load_examples, make_loader
from minitransformer.evaluate import _EDITS, evaluate, robustness
from minitransformer.experiment.folder import _write_json, checksum, load_run, read_run_record
from minitransformer.tokenizer import WordTokenizer

RECORD = Path(__file__).parent / "runs" / "edits.json"
ORIGIN = ("name", "class", "seed")  # of the run, as its run.json says
BLOCK = 40  # sentences at a time: bounds the memory, and a line is printed after each


def counts_of(model: nn.Module, tokenizer: WordTokenizer, examples: Examples) -> dict[str, Counter[str]]:
    """For each edit: how many sentences it changes, answers it turns, and answers that are right before and after."""
    n, before = len(examples), evaluate(model, make_loader(examples, tokenizer, 256)).accuracy
    return {
        name: Counter(
            changed=sum(
                _EDITS[name](text).split() != text.split() for text in examples.texts
            ),  # spaces aside
            turned=round((1 - same) * n),
            right_before=round(before * n),
            right_after=round(after * n),
        )
        for name, (same, after) in robustness(model, tokenizer, examples).items()
    }


def blocks(examples: Examples, size: int) -> Iterator[Examples]:
    """The examples in order, `size` at a time."""
    for i in range(0, len(examples), size):
        part = slice(i, i + size)
        yield replace(examples, texts=examples.texts[part], labels=examples.labels[part])


def measure(
    model: nn.Module, tokenizer: WordTokenizer, examples: Examples, size: int = BLOCK
) -> dict[str, Any]:
    """The counts over all examples, and those of the first block alone."""
    done, total, first = 0, {name: Counter() for name in _EDITS}, {}
    for block in blocks(examples, size):
        found = counts_of(model, tokenizer, block)
        first = first or {"sentences": len(block), "edits": found}
        for name, counts in found.items():
            total[name].update(counts)
        done += len(block)
        print(f"{done} of {len(examples)} sentences", flush=True)
    return {"sentences": done, "edits": total, "first": first}


def recorded_edits(run: dict[str, Any], path: Path | None = None) -> dict[str, Any] | None:
    """The record, if there is one and it is that of this run, of which `run` is the `run.json`."""
    path = path or RECORD
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return record if record and all(record[key] == run[key] for key in ORIGIN) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the shipped model, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m book.edits", description=__doc__.split("\n")[0])
    parser.add_argument("--first", type=int, metavar="N", help="try the first N sentences; write nothing")
    limit = parser.parse_args(arguments).first
    config, model, tokenizer = load_run(SHIPPED)
    run, validation = read_run_record(SHIPPED), load_examples(config.data.name, "validation")
    some = next(blocks(validation, limit or len(validation)))
    origin = {key: run[key] for key in ORIGIN} | {"validation_sha256": checksum(validation)}
    record = origin | measure(model, tokenizer, some)
    if limit is None:
        _write_json(RECORD, record)
    for name, counts in record["edits"].items():
        print(f"{name:28}", dict(counts))


if __name__ == "__main__":
    main()
