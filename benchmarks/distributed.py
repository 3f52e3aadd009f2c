"""Two processes as one: `python -m benchmarks.distributed` prints one table, measured on the machine at hand.

`DistributedDataParallel` trains a classifier of toy reviews, every process on its share of a batch; after each step
the first process alone makes the same step on the whole batch, while the others wait. Both begin with the same weights, and
there is no dropout, so both must see the same losses, up to rounding: the command fails if two of them differ by 1e-3 in
float32 or by 1e-8 in float64. (The rate is moderate: at 1e-3 this training is at the edge of stability, where any
difference of rounding grows by itself, to 0.6 within a hundred steps.) As they take turns, other work on the machine hits both alike; the first two steps are
not timed. A process has one thread (gloo), or a GPU of its own (nccl) where there are enough.

The command starts `torchrun --nproc-per-node 2 -m benchmarks.distributed`, which can be typed as well.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from statistics import median, quantiles

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minitransformer.data import load_examples, make_loader
from minitransformer.experiment.folder import machine_state
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCES = {"float32": 1e-3, "float64": 1e-8}
TOGETHER, ALONE = "together", "alone"
Batch = dict[str, Tensor]


def toy_batches(size: int) -> tuple[int, Iterator[Batch]]:
    """The size of the vocabulary, and full batches of toy reviews without end, the same ones in every process."""
    examples = load_examples("toy", "train")
    tokenizer = WordTokenizer(Vocabulary.from_texts(examples.texts), max_length=32)
    loader = make_loader(examples, tokenizer, size, shuffle=True)
    batches = (batch for _ in count() for batch in loader if len(batch["labels"]) == size)
    return len(tokenizer.vocabulary), batches


class Trainer:
    """A model with its optimizer, the losses that it has seen, and the seconds that its steps took."""

    def __init__(self, model: nn.Module, device: torch.device):
        self.model, self.device = model, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        self.losses: list[Tensor] = []
        self.seconds: list[float] = []

    def step(self, batch: Batch) -> None:
        """One update; its time ends when the last kernel is done."""
        began = time.perf_counter()
        batch = {name: value.to(self.device) for name, value in batch.items()}
        loss = F.cross_entropy(self.model(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(loss.detach())


def measure(steps: int, batch_size: int, dtype: str, device: torch.device) -> dict[str, Trainer]:
    """Train together and alone, in turns; a trainer's losses are those of whole batches."""
    rank, world = dist.get_rank(), dist.get_world_size()
    vocab_size, batches = toy_batches(batch_size * world)
    config = ModelConfig(vocab_size, max_length=32, dropout=0.0)
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(config).to(device, DTYPES[dtype])
    copy = TransformerForSequenceClassification(config).to(device, DTYPES[dtype])
    copy.load_state_dict(model.state_dict())
    trainers = {TOGETHER: Trainer(DistributedDataParallel(model), device), ALONE: Trainer(copy, device)}
    for batch in islice(batches, steps + 2):
        dist.barrier()
        trainers[TOGETHER].step({name: value[rank::world] for name, value in batch.items()})
        dist.all_reduce(trainers[TOGETHER].losses[-1])  # the sum over all processes
        trainers[TOGETHER].losses[-1] /= world
        if rank == 0:
            trainers[ALONE].step(batch)
    return trainers


def report(trainers: dict[str, Trainer], batch_size: int, dtype: str) -> None:
    """Print the table, and fail if the losses are not the same."""
    together, alone = trainers[TOGETHER], trainers[ALONE]
    pairs = zip(alone.seconds[2:], together.seconds[2:], strict=True)
    low, middle, high = quantiles([a / b for a, b in pairs])
    world, texts = dist.get_world_size(), dist.get_world_size() * batch_size
    print("| processes | texts a step | ms a step | speed-up (quartiles) | first loss | last loss |")
    print("|---:|---:|---:|---:|---:|---:|")
    for processes, trainer, gain in (
        (1, alone, "1"),
        (world, together, f"{middle:.2f} ({low:.2f} to {high:.2f})"),
    ):
        cells = f"{processes} | {texts} | {1000 * median(trainer.seconds[2:]):.1f} | {gain}"
        print(f"| {cells} | {trainer.losses[0]:.6f} | {trainer.losses[-1]:.6f} |")
    difference = float((torch.stack(together.losses) - torch.stack(alone.losses)).abs().max())
    machine = machine_state(together.device)
    print(
        f"\nlargest difference of the losses in {len(alone.losses)} steps: {difference:.1e}; toy reviews, {dtype}, "
        f"{dist.get_backend()}; {machine['device']}, {machine['cpu']}, {machine['threads']} thread(s) per process, "
        f"torch {machine['torch']}"
    )
    if not difference < TOLERANCES[dtype]:
        raise SystemExit(f"the losses differ by {difference:.1e}, but {TOLERANCES[dtype]:.0e} is allowed")


def main() -> None:
    """Start the processes, or be one of them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distributed", description="Two processes as one."
    )
    parser.add_argument("--steps", type=int, default=100, help="timed training steps")
    parser.add_argument("--batch-size", type=int, default=32, help="texts a step and process")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    given = parser.parse_args()
    if given.steps < 2 or given.batch_size < 1:
        parser.error("--steps must be at least 2, --batch-size at least 1")
    if not dist.is_torchelastic_launched():
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command += ["-m", "benchmarks.distributed", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]):
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    trainers = measure(given.steps, given.batch_size, given.dtype, device)
    if dist.get_rank() == 0:
        report(trainers, given.batch_size, given.dtype)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
