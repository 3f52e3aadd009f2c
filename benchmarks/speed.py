"""Our encoder beside two others: `python -m benchmarks.speed` prints one table, measured on the machine at hand.

Ours with attention and LayerNorm written out (`fused=False`), with PyTorch's kernels, and compiled; `nn.TransformerEncoder`
behind our embeddings, with its fast path in inference; and `transformers.BertModel`. All are post-norm, of the same sizes,
with the same weights, on the same batches: padded (lengths evenly spread from a quarter of the full one to all of it, with
a mask) and packed (all of full length, no mask given). A training step classifies every token: forward, backward, AdamW.
bfloat16 means autocast in training, and weights of that type in inference.

The models take turns round by round, so that other work on the machine hits all alike: tokens/s are real tokens over the
median time, the ratio to ours (fused) is the median over the rounds, with quartiles. Two rounds before, with the time to
compile, do not count. Peak memory is what a model adds by itself: on a GPU what PyTorch allocates; on Linux's CPU the
resident memory of a fresh process, warmed up on a tiny model (not for compiled code: the compiler would be measured too).
The share of a GPU's peak counts the operations of real tokens.
"""

import argparse
import gc
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from minitransformer.attention import padding_mask
from minitransformer.bert import config_to_bert, to_bert
from minitransformer.encoder import TransformerEncoder
from minitransformer.experiment.folder import machine_state
from minitransformer.model import ModelConfig
from minitransformer.train import autocast_on, choose_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PEAKS = {  # operations per second from the makers' data sheets, without sparsity; float32 without TF32
    "NVIDIA H200": {"bfloat16": 989e12, "float32": 67e12},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989e12, "float32": 67e12},
    "NVIDIA A100-SXM4-80GB": {"bfloat16": 312e12, "float32": 19.5e12},
    "NVIDIA A100-SXM4-40GB": {"bfloat16": 312e12, "float32": 19.5e12},
}
CLEAR = Path("/proc/self/clear_refs")  # Linux: where a process forgets its peak of memory
Name = TypeVar("Name")
warnings.filterwarnings(
    "ignore", ".*nested.tensor"
)  # that PyTorch's fast path is a prototype, and when it is off


def our_encoder(config: ModelConfig) -> TransformerEncoder:
    """Our encoder of a config, with the weights of seed 0."""
    torch.manual_seed(0)
    settings = asdict(config)
    del settings["num_labels"], settings["pooling"]
    return TransformerEncoder(**settings)


def explicit(ours: TransformerEncoder, config: ModelConfig) -> nn.Module:
    """Our encoder with attention and LayerNorm written out."""
    twin = our_encoder(replace(config, fused=False))
    twin.load_state_dict(ours.state_dict())
    return twin


def compiled(ours: TransformerEncoder, config: ModelConfig) -> nn.Module:
    """Our encoder, to be compiled when it is first called."""
    ours.compile()
    return ours


class TorchTwin(nn.Module):
    """Our embeddings, then `nn.TransformerEncoder` with the weights of our layers."""

    def __init__(self, ours: TransformerEncoder, config: ModelConfig):
        super().__init__()
        state = {f"layers.{n.replace('feed_forward.', '')}": t for n, t in ours.layers.state_dict().items()}
        for i, kind in product(range(config.num_layers), ("weight", "bias")):
            parts = [state.pop(f"layers.{i}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            state[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(parts)
        sizes = config.d_model, config.num_heads, config.d_ff, config.dropout, config.activation
        layer = nn.TransformerEncoderLayer(*sizes, config.layer_norm_eps, batch_first=True)
        self.stack = nn.TransformerEncoder(layer, config.num_layers)
        self.stack.load_state_dict(state)
        self.start = deepcopy(ours)
        self.start.layers = nn.ModuleList()

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.start(input_ids, mask)
        return self.stack(x, src_key_padding_mask=None if mask is None else ~mask)


class BertTwin(nn.Module):
    """`transformers.BertModel` with our weights."""

    def __init__(self, ours: TransformerEncoder, config: ModelConfig):
        super().__init__()
        settings = config_to_bert(config) | {"attn_implementation": "sdpa"}
        self.bert = transformers.BertModel(transformers.BertConfig(**settings), add_pooling_layer=False)
        self.bert.load_state_dict(to_bert(ours.state_dict(), config.num_layers))

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.bert(input_ids, attention_mask=mask).last_hidden_state


FUSED, COMPILED = "ours, fused attention", "ours, compiled"
VARIANTS: dict[str, Callable[[TransformerEncoder, ModelConfig], nn.Module]] = {
    "ours, explicit attention": explicit,
    FUSED: lambda ours, config: ours,
    COMPILED: compiled,
    "nn.TransformerEncoder": TorchTwin,
    "transformers.BertModel": BertTwin,
}


class Case(NamedTuple):
    """A row of the table."""

    work: str
    batch: str
    variant: str


CASES = [Case(*names) for names in product(("training", "inference"), ("padded", "packed"), VARIANTS)]


@dataclass(frozen=True)
class Setting:
    """What all rows of a table have in common; sequences are as long as the config allows."""

    config: ModelConfig
    batch_size: int
    device: torch.device
    dtype: str

    def lengths(self, batch: str) -> Tensor:
        """How many real tokens each sequence has."""
        longest = self.config.max_length
        return torch.linspace(longest, longest if batch == "packed" else longest // 4, self.batch_size).long()

    def operations(self, case: Case) -> float:
        """Additions and multiplications: 2 a weight and token, 4 C a pair of tokens and layer; threefold in training."""
        lengths, c = self.lengths(case.batch).double(), self.config
        weights = c.num_layers * (4 * c.d_model**2 + 2 * c.d_model * c.d_ff)
        once = 2 * weights * lengths.sum() + 4 * c.num_layers * c.d_model * (lengths**2).sum()
        return float(once) * (3 if case.work == "training" else 1)


@torch.inference_mode()
def infer(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    """The vectors of all tokens."""
    return model(ids, mask)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dtype: str,
    ids: Tensor,
    mask: Tensor | None,
    y: Tensor,
) -> Tensor:
    """One update, in which a token's vector is taken as the logits of its class; returns the loss."""
    optimizer.zero_grad()
    with autocast_on(ids.device, "bf16" if dtype == "bfloat16" else "fp32"):
        hidden = model(ids, mask)
    loss = F.cross_entropy(hidden.float().transpose(1, 2), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def prepare(case: Case, setting: Setting) -> partial[Tensor]:
    """Build the model and the batch of a row; what is returned does the work once."""
    config, device = setting.config, setting.device
    model = VARIANTS[case.variant](our_encoder(config), config).to(device)
    real = padding_mask(setting.lengths(case.batch)).to(device)
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(1, config.vocab_size, real.shape, generator=random).to(device) * real
    mask = real if case.batch == "padded" else None
    if case.work == "inference":
        return partial(infer, model.eval().to(DTYPES[setting.dtype]), ids, mask)
    y = torch.randint(config.d_model, real.shape, generator=random).to(device).masked_fill(~real, -100)
    return partial(train, model, torch.optim.AdamW(model.parameters()), setting.dtype, ids, mask, y)


def warm_up(setting: Setting) -> dict[Case, Callable[[], Tensor]]:
    """The work of every row, done twice already; without compiled rows if there is no compiler that works."""
    works: dict[Case, Callable[[], Tensor]] = {}
    failed = ""
    for case in CASES:
        if case.variant != failed:
            work = prepare(case, setting)
            try:
                work(), work()
            except TorchDynamoException:  # only of compiled code
                failed = case.variant
            else:
                works[case] = work
    return works


def largest_difference(works: Mapping[Case, Callable[[], Tensor]], setting: Setting) -> float:
    """How far a real token's vector in inference is from that of our fused encoder, at most."""
    found = []
    for case in works:
        if case.work == "inference":
            real = padding_mask(setting.lengths(case.batch)).to(setting.device)
            ours, theirs = works[case._replace(variant=FUSED)](), works[case]()
            found.append((theirs - ours)[real].abs().max())
    return float(torch.stack(found).max())  # NaN if one of them is


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long the work takes, on an accelerator until its last kernel is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    began = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def take_turns(
    works: Mapping[Name, Callable[[], object]], seconds: float, device: torch.device
) -> dict[Name, list[float]]:
    """Seconds of each kind of work, round by round: for about so many seconds in all, but at least four rounds."""
    times: dict[Name, list[float]] = {name: [] for name in works}
    rounds, began = 0, time.perf_counter()
    while rounds < 4 or time.perf_counter() - began < seconds:
        for name, work in works.items():
            times[name].append(seconds_of(work, device))
        rounds += 1
    return times


def peak_on_gpu(case: Case, setting: Setting) -> int:
    """Bytes that two steps of a row add at their peak, building the model included."""
    torch.compiler.reset()  # one model at a time, also for the compiler
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before, work = torch.cuda.memory_allocated(), prepare(case, setting)
    work(), work()
    return torch.cuda.max_memory_allocated() - before


def peak_on_cpu(case: Case, setting: Setting) -> int:
    """The same from Linux, for a process that has done nothing else; the tiny model loads what any model needs."""

    def high_water() -> int:
        return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

    tiny = replace(setting.config, d_model=8, num_heads=2, d_ff=8, num_layers=1, max_length=4, vocab_size=9)
    prepare(case, replace(setting, config=tiny, batch_size=2))()
    CLEAR.write_text("5")
    before, work = high_water(), prepare(case, setting)
    work(), work()
    return high_water() - before


def peaks_of_memory(cases: Iterable[Case], setting: Setting) -> dict[Case, int]:
    """The peak memory of each row for which there is an honest number."""
    if setting.device.type == "cuda":
        return {case: peak_on_gpu(case, setting) for case in cases}
    if setting.device.type != "cpu" or not CLEAR.exists():
        return {}
    cases = [case for case in cases if case.variant != COMPILED]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "transformers.models.bert", "minitransformer.train"])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        return dict(zip(cases, pool.map(partial(peak_on_cpu, setting=setting), cases), strict=True))


def measure(setting: Setting, seconds: float) -> tuple[list[list[str]], float]:
    """The rows of the table, its header first, and the largest difference between two outputs."""
    works = warm_up(setting)
    difference, times = largest_difference(works, setting), take_turns(works, seconds, setting.device)
    works.clear()  # and with it the models
    memory = peaks_of_memory(times, setting)
    peak = PEAKS.get(str(machine_state(setting.device)["device"]), {}).get(setting.dtype)
    rows = [["work", "batch", "model", "tokens/s", "ratio to ours, fused (quartiles)", "peak memory"]]
    rows[0] += ["share of peak"] if peak else []
    for case in CASES:
        if case not in times:
            rows.append([*case, "no compiler", *[""] * (len(rows[0]) - 4)])
            continue
        fused, own = times[case._replace(variant=FUSED)], times[case]
        low, middle, high = quantiles([a / b for a, b in zip(fused, own, strict=True)])
        speed = f"{float(setting.lengths(case.batch).sum()) / median(own):,.0f}"
        needed = f"{memory[case] / 2**20:,.0f} MiB" if case in memory else "not measured"
        rows.append([*case, speed, f"{middle:.2f} ({low:.2f} to {high:.2f})", needed])
        rows[-1] += [f"{100 * setting.operations(case) / median(own) / peak:.1f} %"] if peak else []
    return rows, difference


def main() -> None:
    """Measure, and print the table with the machine and the sizes that it stands for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description="Our encoder beside two others."
    )
    parser.add_argument("--device", default="auto", help="such as auto, cpu, cuda or mps")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    for name, default in (("d-model", 256), ("layers", 4), ("length", 128), ("batch-size", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the models take turns")
    given = parser.parse_args()
    if given.batch_size < 1 or given.length < 4:
        parser.error("--batch-size must be at least 1 and --length at least 4")
    sizes = {"d_model": given.d_model, "num_heads": max(1, given.d_model // 64), "d_ff": 4 * given.d_model}
    sizes |= {"num_layers": given.layers, "max_length": given.length, "dropout": given.dropout}
    try:
        config = ModelConfig(8192, **sizes, norm_first=False, embedding_norm=True, type_vocab_size=1)
        device = choose_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    rows, difference = measure(Setting(config, given.batch_size, device, given.dtype), given.seconds)
    rows.insert(1, ["---"] * 3 + ["---:"] * (len(rows[0]) - 3))
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    machine, shown = machine_state(device), ", ".join(f"{name} {value}" for name, value in sizes.items())
    print(
        f"\n{given.dtype}, {shown}, batches of {given.batch_size}; largest difference of an output from ours: "
        f"{difference:.0e}; {machine['device']}, {machine['cpu']}, {machine['threads']} thread(s), "
        f"torch {machine['torch']}, transformers {transformers.__version__}"
    )


if __name__ == "__main__":
    main()
