"""What length and width cost: `python -m benchmarks.scaling` prints one table of exponents, measured on the machine at hand.

Measured is a training step without the optimizer, forward and backward, of attention alone (queries, keys and values
given; written out, or fused) and of a whole encoder layer with fused attention. Either the length T grows or the width
d_model (heads are 64 wide), in five sizes, each twice the one before, while the other stays in the middle.

Time. Sizes take turns, so that other work on the machine hits all alike: every round in another order, and each timed
step right after one of the same size that is not timed. (In a fixed order a small size that follows a large one finds
its caches taken and its memory given back, in every round.) After that, memory: the bytes that operations keep for the
way back, weights left out; on a GPU also what PyTorch allocates beyond weights and inputs at the step's peak.

An exponent is the slope of a line through the medians, or the bytes, in the log-log plane, by least squares, with its
standard error. The next column has the slope by formula, over the same sizes: for time that of the operations, 4 T² C
for attention and 24 T C² more for the layer; for memory that of the numbers kept, with H heads 3 T C + H T² for
attention written out, 4 T C + H T fused, 16 T C + H T + 4 T for the layer. Sizes at which a GPU is waiting for its next
kernel say nothing about time: choose larger ones there.
"""

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed import seconds_of
from minitransformer.attention import fused_attention, scaled_dot_product_attention
from minitransformer.experiment.folder import machine_state
from minitransformer.layers import TransformerEncoderLayer
from minitransformer.train import choose_device

ATTENTION = {"attention, explicit": scaled_dot_product_attention, "attention, fused": fused_attention}
LAYER = "encoder layer"


class Size(NamedTuple):
    """What is measured, and on how many tokens of which width."""

    part: str
    length: int
    d_model: int

    def operations(self) -> int:
        """Additions and multiplications of a forward step for one sequence."""
        attention = 4 * self.length**2 * self.d_model
        return attention + (24 * self.length * self.d_model**2 if self.part == LAYER else 0)

    def heads(self) -> int:
        return max(1, self.d_model // 64)

    def kept(self) -> int:
        """Numbers that a forward step keeps for the way back, for one sequence.

        Attention keeps q, k, v and the weights; fused, in place of these, its output and one number per query and
        head. The layer keeps what goes into its matrices (x, merged heads, 1 + 4 of the network), GELU (4) and both
        norms (2), which add mean and deviation of each token, beside q, k and v.
        """
        one, rows = self.length * self.d_model, self.heads() * self.length
        if self.part == LAYER:
            return 16 * one + rows + 4 * self.length
        return 3 * one + rows * self.length if "explicit" in self.part else 4 * one + rows


class Work(NamedTuple):
    """A step: `forward`, and the way back to `inputs`; it keeps nothing."""

    forward: Callable[[], Tensor]
    inputs: list[Tensor]

    def __call__(self) -> None:
        out = self.forward()
        torch.autograd.grad(out, self.inputs, torch.ones_like(out))


def prepare(size: Size, batch_size: int, device: torch.device) -> Work:
    """Make inputs and, for the layer, weights."""
    d_model, heads = size.d_model, size.heads()
    if size.part == LAYER:
        layer = TransformerEncoderLayer(d_model, heads, 4 * d_model, 0.0, "gelu").to(device)
        x = torch.randn(batch_size, size.length, d_model, device=device, requires_grad=True)
        return Work(lambda: layer(x), [x, *layer.parameters()])
    shape = (batch_size, heads, size.length, d_model // heads)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))
    return Work(lambda: ATTENTION[size.part](q, k, v)[0], [q, k, v])


def take_turns(
    works: Mapping[Size, Callable[[], None]], seconds: float, device: torch.device
) -> dict[Size, list[float]]:
    """Seconds of each step, for about so many seconds in all, but at least eight rounds.

    A round has an order of its own, and each timed step comes right after one of the same size that is not timed.
    """
    times: dict[Size, list[float]] = {size: [] for size in works}
    shuffle, sizes = random.Random(0).shuffle, list(works)
    rounds, began = 0, time.perf_counter()
    while rounds < 8 or time.perf_counter() - began < seconds:
        shuffle(sizes)
        for size in sizes:
            works[size]()
            times[size].append(seconds_of(works[size], device))
        rounds += 1
    return times


def kept_bytes(work: Work) -> int:
    """Bytes that operations keep for the way back: weights left out, each piece of memory once."""
    weights = {x.untyped_storage().data_ptr() for x in work.inputs if isinstance(x, nn.Parameter)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work.forward()
    return sum(kept.values())


def peak_of(step: Callable[[], None]) -> int:
    """Bytes that a step on the GPU adds at its peak."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> tuple[float, float]:
    """The slope of log cost over log size, and its standard error."""
    line, covariance = np.polyfit(np.log(sizes), np.log(costs), 1, cov=True)
    return float(line[0]), float(covariance[0, 0] ** 0.5)


def measure(
    longest: int, widest: int, batch_size: int, seconds: float, device: torch.device
) -> list[list[str]]:
    """The rows of the table, its header first."""
    lengths, widths = ([largest >> i for i in range(4, -1, -1)] for largest in (longest, widest))
    rows = {}
    for part in (*ATTENTION, LAYER):
        rows[part, "T"] = lengths, [Size(part, length, widths[2]) for length in lengths]
        rows[part, "d_model"] = widths, [Size(part, lengths[2], width) for width in widths]
    works = {size: prepare(size, batch_size, device) for _, sizes in rows.values() for size in sizes}
    for work in (*works.values(), *works.values()):  # warm-up
        work()
    times = take_turns(works, seconds, device)
    table = [["forward and backward of", "grows", "from, to", "milliseconds", "exponent", "by formula"]]
    table[0] += ["MiB kept for the way back", "exponent", "by formula"]
    table[0] += ["exponent of the peak"] if device.type == "cuda" else []
    for (part, axis), (grown, sizes) in rows.items():

        def fit(costs: Sequence[float], grown: Sequence[int] = grown) -> str:
            return "{:.2f} ± {:.2f}".format(*exponent(grown, costs))

        medians = [median(times[size]) for size in sizes]
        kept = [kept_bytes(works[size]) for size in sizes]
        row = [part, axis, f"{grown[0]}, {grown[-1]}"]
        row += [" ".join(f"{1000 * value:.3g}" for value in medians), fit(medians)]
        row += [f"{exponent(grown, [size.operations() for size in sizes])[0]:.2f}"]
        row += [" ".join(f"{value / 2**20:.3g}" for value in kept), fit(kept)]
        row += [f"{exponent(grown, [size.kept() for size in sizes])[0]:.2f}"]
        row += [fit([peak_of(works[size]) for size in sizes])] if device.type == "cuda" else []
        table.append(row)
    return table


def main() -> None:
    """Measure, and print the table with the machine and the sizes that it stands for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description="What length and width cost."
    )
    parser.add_argument("--device", default="auto", help="such as auto, cpu, cuda or mps")
    parser.add_argument("--longest", type=int, default=1024, help="tokens of the longest sequence")
    parser.add_argument("--widest", type=int, default=1024, help="the largest d_model")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long all sizes take turns")
    given = parser.parse_args()
    if given.batch_size < 1 or given.longest < 16 or given.widest < 16 or given.widest & (given.widest - 1):
        parser.error(
            "--batch-size must be at least 1, --longest 16, and --widest a power of two of at least 16"
        )
    try:
        device = choose_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    torch.manual_seed(0)
    rows = measure(given.longest, given.widest, given.batch_size, given.seconds, device)
    rows.insert(1, ["---"] * 3 + ["---:"] * (len(rows[0]) - 3))
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    machine = machine_state(device)
    print(
        f"\nfloat32, batches of {given.batch_size}; d_model {given.widest // 4} while T grows, T {given.longest // 4} while "
        f"d_model grows; {machine['device']}, {machine['cpu']}, {machine['threads']} thread(s), torch {machine['torch']}"
    )


if __name__ == "__main__":
    main()
