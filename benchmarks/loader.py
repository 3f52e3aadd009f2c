"""What padding costs: `python -m benchmarks.loader` prints one table, measured on the machine and data at hand.

Three ways to pad (every batch as wide as the model allows; each as wide as its longest text; the same with texts
of similar length together), with tokens prepared once or anew for every batch. Measured are the share of places that are
padding over a whole epoch, the loader's real tokens per second by itself, and those of training a model at the sizes of
`configs/sst2_scratch.yaml`. The ways take turns batch by batch, so that other work on the machine hits all alike.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.data import EpochSampler, collate, load_examples, sst2_is_present
from minitransformer.experiment.folder import machine_state
from minitransformer.experiment.settings import RunConfig, read_settings
from minitransformer.model import TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "sst2_scratch.yaml"
PADDING = {
    "to max_length": (False, True),
    "dynamic": (False, False),
    "dynamic, length buckets": (True, False),
}
Batch = dict[str, Tensor]


def widened(batch: Batch, width: int) -> Batch:
    """The batch padded to a fixed width."""
    missing = width - batch["input_ids"].size(1)
    padded = {name: F.pad(batch[name], (0, missing)) for name in ("input_ids", "attention_mask")}
    return {**batch, **padded}


def train(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> int:
    """One update on the batch as wide as it is (`train_step` would cut it to its longest text); its real tokens."""
    loss = F.cross_entropy(model(batch["input_ids"], batch["attention_mask"]), batch["labels"])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return int(batch["attention_mask"].sum())


def throughput(
    works: dict[tuple[str, str], Callable[[int], int]], rounds: int
) -> dict[tuple[str, str], float]:
    """Real tokens per second of each kind of work, all of them taking turns; the first two rounds are not counted."""
    seconds, tokens = dict.fromkeys(works, 0.0), dict.fromkeys(works, 0)
    for number in range(rounds + 2):
        for name, work in works.items():
            began = time.perf_counter()
            done = work(number)
            if number >= 2:
                seconds[name] += time.perf_counter() - began
                tokens[name] += done
    return {name: tokens[name] / seconds[name] for name in works}


def measure(data: str, rounds: int, batch_size: int) -> tuple[str, list[tuple[str, ...]]]:
    """Where the texts come from, and the rows of the table."""
    torch.manual_seed(0)
    examples, config = load_examples(data, "train"), read_settings(RunConfig, CONFIG).model
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=config.max_length)
    ids = [tokenizer.encode(text) for text in examples.texts]
    lengths = [len(tokens) for tokens in ids]
    sources = {"once": ids.__getitem__, "anew": lambda i: tokenizer.encode(examples.texts[i])}
    places, loading, training = {}, {}, {}
    for padding, (grouped, fixed) in PADDING.items():
        batches = list(EpochSampler(lengths, batch_size, True, grouped))
        width = config.max_length if fixed else 0
        places[padding] = sum(len(rows) * (width or max(lengths[i] for i in rows)) for rows in batches)
        for tokenized, source in sources.items():
            model = TransformerForSequenceClassification(config)
            optimizer = torch.optim.AdamW(model.parameters())

            def load(number: int, batches=batches, source=source, width=width) -> Batch:
                rows = batches[number % len(batches)]
                batch = collate([(source(i), examples.labels[i]) for i in rows])
                return widened(batch, width) if width else batch

            loading[padding, tokenized] = lambda n, load=load: int(load(n)["attention_mask"].sum())
            training[padding, tokenized] = lambda n, load=load, m=model, o=optimizer: train(m, load(n), o)
    loaded, trained = throughput(loading, 8 * rounds), throughput(training, rounds)
    rows = []
    for padding, tokenized in loading:
        share = f"{100 * (1 - sum(lengths) / places[padding]):.1f} %"
        speeds = (f"{speed[padding, tokenized]:,.0f}" for speed in (loaded, trained))
        rows.append((padding, tokenized, share, *speeds))
    return examples.source, rows


def main() -> None:
    """Measure, and print the table with the machine and the data that it stands for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description="What padding costs.")
    parser.add_argument("--data", choices=("sst2", "toy"), default="sst2" if sst2_is_present() else "toy")
    parser.add_argument("--batches", type=int, default=40, help="training steps of each kind")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.batches < 1 or arguments.batch_size < 1:
        parser.error("--batches and --batch-size must be at least 1")
    source, rows = measure(arguments.data, arguments.batches, arguments.batch_size)
    machine = machine_state()
    print("| padding | tokenized | share of padding | loader alone, tokens/s | training, tokens/s |")
    print("|---|---|---:|---:|---:|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(
        f"\n{source}; batches of {arguments.batch_size}; real tokens per second, over {arguments.batches} training steps; "
        f"{machine['cpu']}, {machine['threads']} thread(s), torch {machine['torch']}"
    )


if __name__ == "__main__":
    main()
