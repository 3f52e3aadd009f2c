"""What a fused AdamW saves: `python -m benchmarks.optimizer` prints one table, measured on the machine at hand.

Whole training steps (forward, backward, clipping, update) of the shipped model and of the model of
`configs/sst2_scratch.yaml`, on a batch of random ids as long as SST-2's phrases are; the update fused, as runs have it, and
plain. Both take turns step by step, so that other work on the machine hits both alike.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch

from benchmarks.speed import take_turns
from minitransformer.cli import SHIPPED
from minitransformer.experiment.fit import _begin
from minitransformer.experiment.folder import machine_state
from minitransformer.experiment.settings import RunConfig, read_settings
from minitransformer.train import choose_device, train_step

CONFIGS = {
    "shipped": SHIPPED / "config.yaml",
    "sst2_scratch": Path(__file__).resolve().parents[1] / "configs" / "sst2_scratch.yaml",
}


def step(config: RunConfig, device: torch.device, fused: bool, size: int, length: int) -> partial:
    """Build a model and a batch; what is returned makes one update."""
    state = _begin(config, device)
    for group in state.optimizer.param_groups:
        group["fused"] = fused
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(4, config.model.vocab_size, (size, length), generator=random)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}
    batch["labels"] = torch.randint(2, (size,), generator=random)
    return partial(train_step, state.model, batch, state.optimizer)


def main() -> None:
    """Measure, and print the table with the machine and the sizes that it stands for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizer", description="AdamW fused and plain."
    )
    parser.add_argument("--device", default="auto", help="such as auto, cpu, cuda or mps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--length", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each model takes")
    given = parser.parse_args()
    if given.batch_size < 1 or not 1 <= given.length <= 64:
        parser.error("--batch-size must be at least 1, and --length from 1 to 64")
    try:
        device = choose_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    print("| model | a step, plain | fused | fused to plain (quartiles) |\n|---|---:|---:|---:|")
    for name, path in CONFIGS.items():
        config = read_settings(RunConfig, path, ["--initial=null"])
        works = {f: step(config, device, f, given.batch_size, given.length) for f in (False, True)}
        for work in works.values():
            work(), work()
        times = take_turns(works, given.seconds, device)
        low, middle, high = quantiles([b / a for a, b in zip(times[False], times[True], strict=True)])
        plain, fused = (f"{1000 * median(times[f]):.1f} ms" for f in (False, True))
        print(f"| {name} | {plain} | {fused} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    machine = machine_state(device)
    print(
        f"\nfloat32, batches of {given.batch_size}, {given.length} tokens each; {machine['device']}, {machine['cpu']}, "
        f"{machine['threads']} thread(s), torch {machine['torch']}"
    )


if __name__ == "__main__":
    main()
