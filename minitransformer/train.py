# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md; edit the chapters, not this file.
"""The training loop, and whole runs that are watched, saved and resumed."""

import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm import tqdm

__all__ = [
    "StepResult", "autocast_on", "choose_autocast", "choose_device", "disagreement", "make_scaler",
    "train_epoch", "train_step",
]  # fmt: skip


# chapters/day06_engineering.md · Do not wait
@dataclass(frozen=True)
class StepResult:
    """What one training step saw before its update: loss, gradient's length, counts.

    A step whose loss or gradient is not finite is `skipped`: it changes no weight. What
    a device has yet to compute is a tensor, until `read` waits for it.
    """

    step: int
    loss: float | Tensor
    grad_norm: float | Tensor
    correct: int | Tensor
    examples: int
    tokens: int
    skipped: bool | Tensor = False

    def read(self) -> "StepResult":
        """The same in plain numbers."""
        found = (float(self.loss), float(self.grad_norm), int(self.correct))
        counts = (self.examples, self.tokens, bool(self.skipped))
        return StepResult(self.step, *found, *counts)


# chapters/day09_sprint.md · Two passes that agree
def train_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    step: int = 1,
    micro_batches: int = 1,
    autocast: str = "fp32",
    scaler: torch.amp.GradScaler | None = None,
    r_drop: float = 0.0,
    wait: bool = True,
) -> StepResult:
    """One update from one batch of `minitransformer.data.collate`, worked through in `micro_batches` parts.

    The gradient is that of the mean over the whole batch, however it is cut. With an `r_drop` above 0 each part
    passes twice, and `r_drop` times their `disagreement` is added (Liang et al., 2021), but not to the reported loss.
    A loss or gradient norm that is not finite skips the update: no weight changes, and the result says so.
    `autocast` is auto, fp32, bf16 or fp16, which needs one `scaler` for all steps: a new one begins too high.
    Without `wait` the result is one that nobody has read (see `StepResult`).
    """
    device = next(model.parameters()).device
    scaler = make_scaler(device, autocast) if scaler is None else scaler
    size, zero = len(batch["labels"]), torch.zeros((), device=device)
    mean_loss, correct = zero, zero.long()
    optimizer.zero_grad()
    for part in _split_batch(batch, micro_batches):
        part = _to_device(part, device)
        answers = [_logits_of(model, part, autocast) for _ in range(2 if r_drop > 0 else 1)]
        loss = (
            torch.stack([F.cross_entropy(a, part["labels"], reduction="sum") for a in answers]).mean() / size
        )
        scaler.scale(loss + (r_drop * disagreement(*answers) / size if r_drop > 0 else 0)).backward()
        mean_loss = mean_loss + loss.detach()
        correct = correct + (answers[0].argmax(-1) == part["labels"]).sum()
    norm, finite = _update(model, optimizer, scaler, mean_loss, max_grad_norm)
    tokens = int(batch["attention_mask"].sum())
    result = StepResult(step, mean_loss, norm, correct, size, tokens, ~finite)
    return result.read() if wait else result


# chapters/day05_training.md · `train_epoch`
def train_epoch(
    model: nn.Module,
    loader: Iterable[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    first_step: int = 1,
    on_step: Callable[[StepResult], None] | None = None,
) -> list[StepResult]:
    """Show every batch once and return the steps' results; `on_step` sees each at once.

    Raises:
        ValueError: if the loader yields no batch.
    """
    model.train()
    results = []
    for step, batch in enumerate(tqdm(loader, "training", leave=False, disable=None), first_step):
        results.append(train_step(model, batch, optimizer, max_grad_norm, step))
        if on_step is not None:
            on_step(results[-1])
    if not results:
        raise ValueError("there is nothing to train on: the loader yields no batch")
    return results


# chapters/day06_engineering.md · Cutting a batch
def _split_batch(batch: dict[str, Tensor], parts: int) -> Iterator[dict[str, Tensor]]:
    """The examples of a batch in `parts` parts, each cut to its own longest text.

    A batch with fewer examples than `parts` comes in single examples.
    """
    size = len(batch["labels"])
    for rows in torch.arange(size).tensor_split(min(parts, size)):
        seen = batch["attention_mask"][rows].any(0).nonzero()
        longest = max(seen.flatten().tolist(), default=0) + 1
        yield {
            "input_ids": batch["input_ids"][rows, :longest],
            "attention_mask": batch["attention_mask"][rows, :longest],
            "labels": batch["labels"][rows],
        }


# chapters/day06_engineering.md · Autocast: who computes in which type?
def choose_device(name: str) -> torch.device:
    """The device of that name, such as "cpu", "cuda:1" or "mps"; "auto" is the accelerator if there is one.

    Raises:
        ValueError: if PyTorch sees no such device here.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    here = ["auto", "cpu"]
    if found is not None:
        here += [found.type, *(f"{found.type}:{i}" for i in range(torch.accelerator.device_count()))]
    if name not in here:
        raise ValueError(f"training.device must be one of {', '.join(here)} on this machine, got {name!r}")
    return (found or torch.device("cpu")) if name == "auto" else torch.device(name)


def autocast_on(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """A context in which products run in 16 bits: "bf16" or "fp16"; with "fp32" nothing changes."""
    kinds, dtype = ({"bf16": torch.bfloat16, "fp16": torch.float16}, choose_autocast(device, dtype))
    if dtype == "fp32":
        return nullcontext()
    if dtype not in kinds:
        raise ValueError(f"training.autocast must be one of auto, fp32, bf16, fp16, got {dtype!r}")
    return torch.autocast(device.type, kinds[dtype])


def choose_autocast(device: torch.device, name: str) -> str:
    """The number format that `name` stands for: "auto" is 16 bits where the device computes in them, else "fp32".

    That is bf16 where a card or a processor has instructions for it, and fp16 on the other cards of type "cuda".
    Other accelerators stay in 32 bits: PyTorch does not tell what they are fast in, and how well they do with a
    scaler depends on its version.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _processor_has_bf16() else "fp32"


def _processor_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16 that PyTorch uses: AVX512_BF16 (also wherever AMX is), or ARM's."""
    if not torch.backends.mkldnn.is_available():  # the library that has the products
        return False
    if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686"):
        return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()  # mkldnn's own answer counts emulation
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


# chapters/day06_engineering.md · The rescue: scale the loss
def make_scaler(device: torch.device, dtype: str) -> torch.amp.GradScaler:
    """The scaler that fp16 needs; for the other types it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=choose_autocast(device, dtype) == "fp16")


# chapters/day06_engineering.md · Do not wait
def _to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on its way to a device, without waiting where PyTorch can do that.

    For "cuda" PyTorch asks for pinned memory, which the system may not move.
    """
    if device.type == "cuda":
        batch = {name: value.pin_memory() for name, value in batch.items()}
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss: Float[Tensor, ""],
    max_grad_norm: float,
) -> tuple[Float[Tensor, ""], Bool[Tensor, ""]]:
    """Unscale, clip, update if loss and norm are finite; returns norm and whether."""
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    finite = loss.isfinite() & norm.isfinite()
    adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    if adam and all(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
    elif finite:  # waits
        optimizer.step()
    scaler.update()
    return norm, finite


# chapters/day08_data_schedule_monitoring.md · Watching a run
def _flat_weights(model: nn.Module) -> Float[Tensor, " P"]:
    """A copy of all weights as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach()


# chapters/day09_sprint.md · Two passes that agree
def disagreement(first: Float[Tensor, "B K"], second: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Half the sum of both Kullback-Leibler divergences, added up over the batch."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    # kl_div takes them the other way round: kl_div(q, p) is KL(p || q)
    both = F.kl_div(q, p, reduction="sum", log_target=True) + F.kl_div(p, q, reduction="sum", log_target=True)
    return both / 2


def _logits_of(model: nn.Module, batch: dict[str, Tensor], autocast: str) -> Float[Tensor, "B K"]:
    """The logits of a batch, computed under `autocast`, in 32 bits at least."""
    with autocast_on(batch["input_ids"].device, autocast):
        logits = model(batch["input_ids"], batch["attention_mask"])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
