"""What length and width cost: `python -m benchmarks.scaling` prints one table of exponents, measured on the machine at hand.

Measured is a training step without the optimizer, forward and backward, of attention alone (queries, keys and values
given; written out, or fused) and of a whole encoder layer with fused attention. Either the length T grows or the width
d_model (heads are 64 wide), in five sizes, each twice the one before, while the other stays in the middle. On a GPU the
memory of the step is measured too: what PyTorch allocates beyond weights and inputs.

Parts and sizes take turns, so that other work on the machine hits all alike. An exponent is the slope of a line through
the medians in the log-log plane, by least squares, with its standard error. Beside it stands the slope for the number of
operations of the same steps, by formula: 4 T² C for attention, 24 T C² more for the layer. Sizes at which a GPU is
waiting for its next kernel say nothing: choose larger ones there.
"""

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.speed import take_turns
from minitransformer.attention import fused_attention, scaled_dot_product_attention
from minitransformer.layers import TransformerEncoderLayer
from minitransformer.runs import machine_state
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


def prepare(size: Size, batch_size: int, device: torch.device) -> Callable[[], None]:
    """Make inputs and weights; what is returned does one step, forward and backward, and keeps nothing."""
    heads = max(1, size.d_model // 64)
    layer = TransformerEncoderLayer(size.d_model, heads, 4 * size.d_model, 0.0, "gelu").to(device)
    x = torch.randn(batch_size, size.length, size.d_model, device=device, requires_grad=True)
    shape = (batch_size, heads, size.length, size.d_model // heads)
    q, k, v = (torch.randn(shape, device=device, requires_grad=True) for _ in range(3))

    def step() -> None:
        if size.part == LAYER:
            out, inputs = layer(x), [x, *layer.parameters()]
        else:
            out, inputs = ATTENTION[size.part](q, k, v)[0], [q, k, v]
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    return step


def memory_of(step: Callable[[], None]) -> int:
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
    take_turns(works, 0, device)  # warm-up
    times = take_turns(works, seconds, device)
    header = ["forward and backward of", "grows", "from, to", "milliseconds", "exponent", "by formula"]
    table = [header + (["of memory"] if device.type == "cuda" else [])]
    for (part, axis), (grown, sizes) in rows.items():
        medians = [median(times[size]) for size in sizes]
        slopes = [exponent(grown, medians)]
        if device.type == "cuda":
            slopes.append(exponent(grown, [memory_of(works[size]) for size in sizes]))
        shown = [f"{slope:.2f} ± {error:.2f}" for slope, error in slopes]
        shown.insert(1, f"{exponent(grown, [size.operations() for size in sizes])[0]:.2f}")
        spans = [f"{grown[0]}, {grown[-1]}", " ".join(f"{1000 * value:.3g}" for value in medians)]
        table.append([part, axis, *spans, *shown])
    return table


def main() -> None:
    """Measure, and print the table with the machine and the sizes that it stands for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description="What length and width cost."
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
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
