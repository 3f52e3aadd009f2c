# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md, chapters/day10_report.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The training loop, and whole runs that are watched, saved and resumed."""

import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from minitransformer.config import (
    RunConfig,
    SearchConfig,
    TrainingConfig,
    examples_of,
    read_settings,
    save_config,
    variant_config,
)
from minitransformer.data import EpochSampler, Examples, join, load_examples, make_loader, repeat_whole
from minitransformer.evaluate import Metrics, evaluate, predict, score
from minitransformer.model import TransformerForSequenceClassification, load_initial
from minitransformer.runs import (
    FolderInUse,
    append_record,
    checkpoint_files,
    checksum,
    file_digest,
    load_checkpoint,
    machine_state,
    one_at_a_time,
    open_run_folder,
    read_labelled,
    read_records,
    read_run_record,
    save_checkpoint,
    source_state,
    write_atomically,
    write_json,
    writing,
)
from minitransformer.schedule import SCHEDULES
from minitransformer.tokenizer import Vocabulary, WordTokenizer, load_tokenizer

__all__ = [
    "BOTTOM",
    "CLASSIFICATION",
    "FUSED",
    "PARTS",
    "ClassificationObjective",
    "Monitor",
    "Resumable",
    "StepResult",
    "TrainingState",
    "autocast_on",
    "average",
    "begin",
    "choose_autocast",
    "choose_device",
    "cut",
    "depth_of",
    "disagreement",
    "end_epoch",
    "fingerprint",
    "finish",
    "finished_identity",
    "finite_or_null",
    "fit",
    "flat",
    "flat_weights",
    "furthest",
    "identity",
    "logits_of",
    "make_scaler",
    "measured_step",
    "origin",
    "parameter_groups",
    "prepare",
    "random_state",
    "require_finite",
    "restore",
    "run_epochs",
    "run_record",
    "same_run",
    "sample",
    "search",
    "set_learning_rate",
    "set_random_state",
    "settings_of",
    "settled",
    "split_batch",
    "tensorboard_writer",
    "train_epoch",
    "train_step",
    "write_predictions",
    "write_provenance",
]


# chapters/day06_engineering.md · `train_step`, complete
@dataclass(frozen=True)
class StepResult:
    """What one training step saw, before its update: mean loss, length of the gradient, counts.

    A step whose loss or gradient is not finite is `skipped`: it counts, but changes no weight.
    """

    step: int
    loss: float
    grad_norm: float
    correct: int
    examples: int
    tokens: int
    skipped: bool = False


# chapters/day05_training.md · `train_step`
def require_finite(name: str, value: Tensor, step: int) -> None:
    """Stop at the first NaN or infinity, while the weights are still sound."""
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {value.item()} at step {step}, so training stops before this update: try a smaller "
            "learning rate, and look for log(0), division by zero or an attention row without any key"
        )


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
) -> StepResult:
    """One update from one batch of `minitransformer.data.collate`, worked through in `micro_batches` parts.

    The gradient is that of the mean over the whole batch, however it is cut. With an `r_drop` above 0 each part
    passes twice, and `r_drop` times their `disagreement` is added (Liang et al., 2021), but not to the reported loss.
    A loss or gradient norm that is not finite skips the update: no weight changes, and the result says so.
    """
    device = next(model.parameters()).device
    scaler = make_scaler(device, autocast) if scaler is None else scaler
    size, losses, correct = len(batch["labels"]), [], 0
    optimizer.zero_grad()
    for part in split_batch(batch, micro_batches):
        part = {name: value.to(device) for name, value in part.items()}
        answers = [logits_of(model, part, autocast) for _ in range(2 if r_drop > 0 else 1)]
        loss = (
            torch.stack([F.cross_entropy(a, part["labels"], reduction="sum") for a in answers]).mean() / size
        )
        scaler.scale(loss + (r_drop * disagreement(*answers) / size if r_drop > 0 else 0)).backward()
        losses.append(loss.detach())
        correct += int((answers[0].argmax(-1) == part["labels"]).sum())
    scaler.unscale_(optimizer)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    mean_loss = float(sum(losses))
    finite = math.isfinite(mean_loss) and math.isfinite(grad_norm)
    if finite:
        scaler.step(optimizer)
    scaler.update()
    tokens = int(batch["attention_mask"].sum())
    return StepResult(step, mean_loss, grad_norm, correct, size, tokens, not finite)


# chapters/day09_sprint.md · An average of the weights
@dataclass
class Resumable:
    """A model with its optimizer and scaler, whose state can be taken and given back; see `TrainingState`.

    `averaged`, if there is one, follows the model's weights as an exponential moving average.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None = field(default=None, kw_only=True)

    @property
    def outcome(self) -> nn.Module:
        """The model that a run ends with: the average, if one is kept."""
        return self.model if self.averaged is None else self.averaged.module

    def parts(self) -> list[str]:
        """The names of the fields that have a state of their own."""
        return [name for name in PARTS if getattr(self, name) is not None]

    def state_dict(self) -> dict[str, Any]:
        """The state as `save_checkpoint` takes it, with that of the random number generators."""
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self.parts()}
        counts = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in PARTS}
        return state | {"counts": counts, "random": random_state(next(self.model.parameters()).device)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; one of another model is a ValueError."""
        try:
            for name in self.parts():
                getattr(self, name).load_state_dict(state[name])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(
                f"the checkpoint does not fit this model: {' '.join(str(error).split())}"
            ) from None
        for name, value in state["counts"].items():
            setattr(self, name, value)
        set_random_state(state["random"], next(self.model.parameters()).device)


# chapters/day06_engineering.md · What belongs to the state of a run
@dataclass
class TrainingState(Resumable):
    """Everything that changes while a run goes on, and so everything that a checkpoint holds.

    `step` counts updates, also skipped ones; the position in the data follows from it. The sums belong to the
    epoch that is under way.
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    examples: int = 0
    correct: int = 0
    loss_sum: float = 0.0

    def add(self, result: StepResult) -> None:
        """Count one step; the means of the epoch leave a skipped one out."""
        self.step = result.step
        self.tokens += result.tokens
        self.skipped += result.skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if result.skipped else 0
        if not result.skipped:
            self.examples += result.examples
            self.correct += result.correct
            self.loss_sum += result.loss * result.examples

    def end_epoch(self) -> Metrics:
        """The mean over the epoch's steps, every example weighing the same; the sums start again at zero.

        If all steps were skipped, there is no mean, and both numbers are NaN.
        """
        n, correct, loss_sum = self.examples, self.correct, self.loss_sum
        self.examples, self.correct, self.loss_sum = 0, 0, 0.0
        return Metrics(n, correct / n, loss_sum / n) if n else Metrics(0, math.nan, math.nan)


# chapters/day09_sprint.md · One loop, two objectives
class ClassificationObjective:
    """What a run on labelled texts minimises, and how it is judged."""

    def update(
        self, state: "TrainingState", batch: dict[str, Tensor], settings: TrainingConfig
    ) -> StepResult:
        """One update of the state's model from a batch; see `train_step`."""
        return train_step(
            state.model,
            batch,
            state.optimizer,
            settings.max_grad_norm,
            state.step + 1,
            settings.micro_batches,
            settings.autocast,
            state.scaler,
            settings.r_drop,
        )

    def evaluate(self, model: nn.Module, loader: Iterable[dict[str, Tensor]]) -> Metrics:
        """Accuracy and loss on the labels; see `minitransformer.evaluate.evaluate`."""
        return evaluate(model, loader)


# chapters/day09_sprint.md · One loop, two objectives
CLASSIFICATION = ClassificationObjective()


# chapters/day09_sprint.md · One loop, two objectives
def train_epoch(
    state: TrainingState,
    loader: Iterable[dict[str, Tensor]],
    settings: TrainingConfig,
    total: int,
    on_step: Callable[[StepResult, dict[str, float]], None] | None = None,
    objective: Any = CLASSIFICATION,
) -> None:
    """Train on every batch that the loader has left; `on_step` sees each result, and what was measured.

    Raises:
        ValueError: if the loader yields no batch.
        FloatingPointError: after `settings.max_skipped` skipped steps in a row.
    """
    state.model.train()
    first = state.step
    for batch in loader:
        result, measured = measured_step(state, batch, settings, total, objective)
        if on_step is not None:
            on_step(result, measured)
        if state.skipped_in_a_row >= settings.max_skipped:
            raise FloatingPointError(
                f"{state.skipped_in_a_row} steps in a row had a loss or gradient that is not finite, the last at "
                f"step {state.step} (loss {result.loss}, gradient norm {result.grad_norm}): try a smaller learning "
                "rate or a longer warm-up, and look for log(0) or an attention row without any key"
            )
    if state.step == first:
        raise ValueError("there is nothing to train on: the loader yields no batch")


# chapters/day05_training.md · The flow: train, validate, print
def average(results: Sequence[StepResult]) -> Metrics:
    """The steps of an epoch as one `Metrics`; every example weighs the same.

    The model changed between the steps, and dropout was on: this is not `evaluate` on the training set.
    """
    n = sum(result.examples for result in results)
    correct = sum(result.correct for result in results)
    return Metrics(n, correct / n, sum(result.loss * result.examples for result in results) / n)


# chapters/day09_sprint.md · An average of the weights
def prepare(config: RunConfig) -> tuple[RunConfig, WordTokenizer, Examples, Examples]:
    """Load the examples of a run and its tokenizer, or build one from the words of its training texts.

    Returns the config with the vocabulary's actual size, the tokenizer, training and validation examples.
    """
    phrases = sample(
        load_examples(examples_of(config.data, "train"), "train"), config.data.train_size, config.seed
    )
    train, texts = repeat_whole(phrases, config.data.sentences), phrases.texts
    if config.data.extra is not None:
        labelled = read_labelled(config.data.extra, config.data.confidence)
        train, texts = join(train, labelled), texts + labelled.texts
    validation = load_examples(examples_of(config.data, "validation"), "validation")
    source = config.initial or config.data.tokenizer
    if source is not None:
        tokenizer = load_tokenizer(Path(source, "tokenizer.json"))
        tokenizer.max_length = config.model.max_length
    else:
        vocabulary = Vocabulary.from_texts(
            texts, min_frequency=config.data.min_frequency, max_size=config.model.vocab_size
        )
        tokenizer = WordTokenizer(vocabulary, max_length=config.model.max_length)
    model = replace(config.model, vocab_size=len(tokenizer.vocabulary))
    return replace(config, model=model), tokenizer, train, validation


# chapters/day05_training.md · Data for a run
def sample(examples: Examples, size: int | None, seed: int) -> Examples:
    """`size` of the examples, drawn without replacement; all of them if `size` is None."""
    if size is None:
        return examples
    if size > len(examples):
        raise ValueError(
            f"data.train_size is {size}, but {examples.source} has only {len(examples)} examples"
        )
    chosen = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:size].tolist()
    texts, labels = [examples.texts[i] for i in chosen], [examples.labels[i] for i in chosen]
    return Examples(texts, labels, f"{size} of {examples.source}")


# chapters/day09_sprint.md · One loop, two objectives
def run_epochs(
    state: TrainingState,
    train_loader: DataLoader,
    validation_loader: DataLoader,
    settings: TrainingConfig,
    folder: Path,
    save: Callable[[], object],
    objective: Any = CLASSIFICATION,
) -> None:
    """Train until all epochs are done, and validate after each; `save` is called when a checkpoint is due.

    A state that was resumed goes on in the middle of its epoch.
    """
    sampler, steps = train_loader.batch_sampler, len(train_loader)
    assert isinstance(sampler, EpochSampler)
    total = steps * settings.epochs
    monitor = Monitor(folder, settings.tensorboard, state.step, total)
    wall, busy = time.perf_counter() - state.seconds, time.process_time() - state.cpu_seconds

    def on_step(result: StepResult, measured: dict[str, float]) -> None:
        monitor.step(result, measured, state.correct / max(1, state.examples))
        state.seconds, state.cpu_seconds = time.perf_counter() - wall, time.process_time() - busy
        if state.step % settings.checkpoint_every == 0 and state.step % steps:
            save()

    try:
        while state.step < total:
            epoch, done = divmod(state.step, steps)
            sampler.set_epoch(epoch, done)
            train_epoch(state, train_loader, settings, total, on_step, objective)
            end_epoch(state, validation_loader, monitor, epoch + 1, settings.epochs, objective)
            save()
    finally:
        monitor.close()


# chapters/day09_sprint.md · An average of the weights
@one_at_a_time
def fit(config: RunConfig, folder: str | Path, overwrite: bool = False, resume: bool = False) -> Metrics:
    """A whole run, from its config to a folder that holds the trained model and how it came about.

    With `resume`, a run that was interrupted goes on from its last checkpoint, as if nothing had happened.
    Returns the validation metrics after the last epoch.
    """
    device = choose_device(config.training.device)
    config = settled(config, device, Path(folder), resume)
    config, tokenizer, train, validation = prepare(config)
    ours = identity(config, train, validation)
    folder, settings = open_run_folder(folder, overwrite, resume), config.training
    if resume and (folder / "run.json").exists():
        same_run(folder, finished_identity(folder, config, train, validation), ours)
        print(f"the run in {folder} is finished")
        return Metrics(**read_records(folder, "epoch")[-1]["validation"])
    state = begin(config, device)
    if resume and restore(folder, state, ours):
        print(f"going on after step {state.step}")
    with writing(folder / "config.yaml"):
        save_config(config, folder / "config.yaml")
    train_loader = make_loader(
        train, tokenizer, settings.batch_size, True, config.seed, config.data.group_by_length
    )
    validation_loader = make_loader(validation, tokenizer, 256)
    print(f"{config.name}: {len(train)} examples ({train.source}), vocabulary {config.model.vocab_size}")
    print(f"computing in {settings.autocast} on {device}")

    def save() -> None:
        log = (folder / "metrics.jsonl").stat().st_size
        save_checkpoint(folder, state.step, {"identity": ours, "log_bytes": log, **state.state_dict()})

    run_epochs(state, train_loader, validation_loader, settings, folder, save)
    return finish(folder, config, state, tokenizer, train, validation, validation_loader)


# chapters/day09_sprint.md · An average of the weights
def write_provenance(
    folder: Path, config: RunConfig, train: Examples, validation: Examples, state: TrainingState
) -> None:
    """Write `run.json`: what one needs to know to trust and to repeat the run; see `run_record`."""
    data = {e.source: {"examples": len(e), "sha256": checksum(e)} for e in (train, validation)}
    kind, start = origin(config)
    record = run_record(config.name, kind, config.seed, data, state, config.training.autocast)
    write_json(folder / "run.json", record | start)


# chapters/day06_engineering.md · Cutting a batch
def split_batch(batch: dict[str, Tensor], parts: int) -> Iterator[dict[str, Tensor]]:
    """The examples of a batch in `parts` micro-batches of nearly equal size, each cut to its own longest text.

    A batch with fewer examples than `parts` comes in single examples.
    """
    size = len(batch["labels"])
    for rows in torch.arange(size).tensor_split(min(parts, size)):
        longest = int(batch["attention_mask"][rows].sum(1).max())
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


# chapters/day06_engineering.md · Autocast: who computes in which type?
def autocast_on(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """A context in which products run in 16 bits: "bf16" or "fp16"; with "fp32" nothing changes."""
    kinds, dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}, choose_autocast(device, dtype)
    if dtype == "fp32":
        return nullcontext()
    if dtype not in kinds:
        raise ValueError(f"training.autocast must be one of auto, fp32, bf16, fp16, got {dtype!r}")
    return torch.autocast(device.type, kinds[dtype])


# chapters/day06_engineering.md · Autocast: who computes in which type?
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


# chapters/day06_engineering.md · Autocast: who computes in which type?
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


# chapters/day06_engineering.md · What belongs to the state of a run
def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of PyTorch's random number generators: the CPU's, and the device's own if that is another."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        which = () if device.type == "mps" else (device,)  # of mps there is one
        state[device.type] = torch.get_device_module(device).get_rng_state(*which)
    return state


# chapters/day06_engineering.md · What belongs to the state of a run
def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Go back to what `random_state` returned; a device of a kind that is not in it keeps its own."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        which = () if device.type == "mps" else (device,)
        torch.get_device_module(device).set_rng_state(state[device.type], *which)


# chapters/day06_engineering.md · Epochs that can be resumed
def write_predictions(folder: Path, logits: Tensor, labels: Tensor) -> None:
    """One line for each example, in order: the probability of "positive", and whether the answer is right."""
    positive, correct = logits.softmax(-1)[:, 1].tolist(), (logits.argmax(-1) == labels).tolist()
    records = [{"positive": round(p, 6), "correct": c} for p, c in zip(positive, correct, strict=True)]
    lines = [json.dumps(record) + "\n" for record in records]
    write_atomically(folder / "predictions.jsonl", "".join(lines).encode())


# chapters/day06_engineering.md · Epochs that can be resumed
FUSED = ("cpu", "cuda", "mps", "xpu")  # devices on which AdamW updates all weights in one pass over each


# chapters/day09_sprint.md · An average of the weights
def begin(config: RunConfig, device: torch.device) -> TrainingState:
    """A model with fresh or pretrained weights on its device, an optimizer and a scaler: the state before the first step."""
    torch.manual_seed(config.seed)  # for the initial weights and for dropout
    model, settings = TransformerForSequenceClassification(config.model), config.training
    if config.initial is not None:
        load_initial(model, Path(config.initial, "model.safetensors"))
    model = model.to(device)
    groups = parameter_groups(model, config.model.num_layers, settings.layer_decay)
    optimizer = torch.optim.AdamW(
        groups, settings.learning_rate, weight_decay=settings.weight_decay, fused=device.type in FUSED
    )
    averaged = None
    if settings.ema > 0:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
    if settings.compile:
        model.encoder.compile(dynamic=True)  # in place: parameters keep their names
    return TrainingState(model, optimizer, make_scaler(device, settings.autocast), averaged=averaged)


# chapters/day09_sprint.md · An average of the weights
def finish(
    folder: Path,
    config: RunConfig,
    state: TrainingState,
    tokenizer: WordTokenizer,
    train: Examples,
    validation: Examples,
    validation_loader: DataLoader,
) -> Metrics:
    """Write the trained model, its answers on the validation examples, and the run's provenance, in this order."""
    model = state.outcome
    assert isinstance(model, TransformerForSequenceClassification)
    logits, labels = predict(model, validation_loader)
    write_predictions(folder, logits, labels)
    with writing(folder / "tokenizer.json"):
        tokenizer.save(folder / "tokenizer.json")
    with writing(folder / "model.safetensors"):
        model.save_pretrained(folder)
    write_provenance(folder, config, train, validation, state)
    return score(logits, labels)


# chapters/day06_engineering.md · Only its own run
def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under one name each: {"train": {"loss": 1}} gives {"train/loss": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return found


# chapters/day09_sprint.md · An average of the weights
def identity(config: RunConfig, *data: Examples) -> dict[str, Any]:
    """What must not change when a run is resumed: settings, data, and what it starts from, wherever that lies."""
    settings, start = settings_of(config), origin(config)[1].get("initial", {})
    for name in ("tokenizer", "extra", "train", "validation", "test"):
        del settings[f"data/{name}"]
    splits = zip(("training", "validation"), data, strict=False)
    checksums = {f"checksum of the {split} examples": checksum(examples) for split, examples in splits}
    return settings | checksums | {"initial": start.get("sha256")}


# chapters/day06_engineering.md · Only its own run
def same_run(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuse to go on with another run, in one sentence that names the first setting that differs."""
    for name in dict.fromkeys([*ours, *theirs]):  # settings first: they explain data that differs
        if theirs.get(name) != ours.get(name):
            there, here = theirs.get(name), ours.get(name)
            raise ValueError(
                f"{path} belongs to another run: {name.replace('/', '.')} is {there!r} there, {here!r} here"
            )


# chapters/day06_engineering.md · `restore` and `fit`
def restore(folder: Path, state: TrainingState, ours: dict[str, Any]) -> bool:
    """Bring `state` to the newest sound checkpoint, and the metrics back to what they were then; False if there is none.

    A checkpoint that cannot be used is named on standard error, and the one before it is tried.

    Raises:
        ValueError: if there are checkpoints, but none can be used.
    """
    log, files, problem = folder / "metrics.jsonl", checkpoint_files(folder), ""
    for path in reversed(files):
        try:
            saved = load_checkpoint(path)
            same_run(path, saved.get("identity", {}), ours)
            state.load_state_dict(saved)
            cut(log, saved["log_bytes"])  # last: nothing is cut off for a checkpoint that cannot be used
            return True
        except (ValueError, KeyError) as error:
            problem = str(error)
            print(f"warning: {problem}", file=sys.stderr)
    if files:
        raise ValueError(
            f"no checkpoint in {folder} can be used, the oldest because {problem}; --overwrite starts anew"
        )
    log.unlink(missing_ok=True)
    return False


# chapters/day06_engineering.md · `restore` and `fit`
def cut(path: Path, size: int) -> None:
    """Shorten a file to `size` bytes."""
    if not path.is_file() or path.stat().st_size < size:
        raise ValueError(f"{path} is missing or shorter than the {size} bytes that the checkpoint counted")
    with path.open("r+b") as file:
        file.truncate(size)


# chapters/day06_engineering.md · `restore` and `fit`
def settled(config: Any, device: torch.device, folder: Path, resume: bool) -> Any:
    """The config, of a run or a reading, with the device's number format in place of the autocast "auto".

    See `choose_autocast`. A run that is resumed keeps the format that it began with.
    """
    if config.training.autocast != "auto":
        return config
    chosen, saved = choose_autocast(device, "auto"), folder / "config.yaml"
    if resume and saved.is_file():
        chosen = read_settings(type(config), saved).training.autocast
    return replace(config, training=replace(config.training, autocast=chosen))


# chapters/day09_sprint.md · An average of the weights
def search(plan: SearchConfig, folder: str | Path, seeds: Sequence[int] | None = None) -> None:
    """Train every variant with every seed, each into its own folder; runs that are finished are kept.

    An interrupted search goes on where it was. Several processes share the work: what one is at, others pass over.
    """
    for seed in plan.seeds if seeds is None else seeds:
        for variant in plan.variants:
            try:
                fit(variant_config(plan, variant, seed), Path(folder, f"{variant}_seed{seed}"), resume=True)
            except FolderInUse as busy:
                print(f"passed over: {busy}", file=sys.stderr)


# chapters/day09_sprint.md · One loop, two objectives
def set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: TrainingConfig, step: int, total: int
) -> float:
    """Give the optimizer the rate for the update after `step` others, of `total`; returns it.

    A group of parameters with a "scale" gets that share of it (see `parameter_groups`).
    """
    share = SCHEDULES[settings.schedule](step, total, math.ceil(settings.warmup * total))
    rate = settings.learning_rate * share
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    return rate


# chapters/day08_data_schedule_monitoring.md · Watching a run
def flat_weights(model: nn.Module) -> Float[Tensor, " P"]:
    """A copy of all weights as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach()


# chapters/day09_sprint.md · One loop, two objectives
def measured_step(
    state: TrainingState,
    batch: dict[str, Tensor],
    settings: TrainingConfig,
    total: int,
    objective: Any = CLASSIFICATION,
) -> tuple[StepResult, dict[str, float]]:
    """One step of a run of `total` steps: its rate set, its update made and counted; every so often measured too."""
    rate = set_learning_rate(state.optimizer, settings, state.step, total)
    before = flat_weights(state.model) if state.step % settings.log_every == 0 else None
    result = objective.update(state, batch, settings)
    state.add(result)
    if state.averaged is not None and not result.skipped:
        state.averaged.update_parameters(state.model)
    if before is None:
        return result, {}
    length, moved = before.norm().item(), (flat_weights(state.model) - before).norm().item()
    return result, {"learning_rate": rate, "weight_norm": length, "update_ratio": moved / length}


# chapters/day08_data_schedule_monitoring.md · Where the records go
def finite_or_null(values: Any) -> Any:
    """The values with None for every number that is not finite."""
    if isinstance(values, dict):
        return {name: finite_or_null(value) for name, value in values.items()}
    return None if isinstance(values, float) and not math.isfinite(values) else values


# chapters/day08_data_schedule_monitoring.md · Where the records go
def tensorboard_writer(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's files, which forgets what an interrupted run wrote after `step`.

    Raises:
        ValueError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # here, because few runs need it
    except ImportError:
        raise ValueError(
            "training.tensorboard is true, but TensorBoard is not installed: pip install tensorboard"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)


# chapters/day08_data_schedule_monitoring.md · Where the records go
class Monitor:
    """Where a run's records go: `metrics.jsonl`, a progress bar, and TensorBoard's files if wanted."""

    def __init__(self, folder: Path, tensorboard: bool = False, step: int = 0, total: int = 0):
        self.path = folder / "metrics.jsonl"
        self.writer = tensorboard_writer(folder / "tensorboard", step) if tensorboard else None
        self.bar = tqdm(total=total, initial=step, desc="training", unit="step", disable=None)
        self.tokens, self.since = 0, time.perf_counter()

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one record; a number that is not finite becomes null, because JSON has no word for it."""
        append_record(self.path, {"kind": kind, "step": step, **finite_or_null(values)})
        if self.writer is not None:
            for name, value in flat(values).items():
                self.writer.add_scalar(f"{kind}/{name}", value, step)

    def step(self, result: StepResult, measured: dict[str, float], accuracy: float) -> None:
        """Show one step on the bar, and record it if something was measured or it was skipped."""
        self.tokens += result.tokens
        speed = self.tokens / (time.perf_counter() - self.since)
        seen = {"loss": result.loss, "grad_norm": result.grad_norm}
        if measured:
            self.record("step", result.step, {**seen, **measured, "tokens_per_second": round(speed)})
        if result.skipped:
            self.record("skipped", result.step, seen)
        text = f"loss {result.loss:.3f}, accuracy {100 * accuracy:.1f} %, {speed:,.0f} tokens/s"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()

    def close(self) -> None:
        """Close the bar, and write what TensorBoard still holds back."""
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


# chapters/day09_sprint.md · One loop, two objectives
def end_epoch(
    state: TrainingState,
    validation_loader: Iterable[dict[str, Tensor]],
    monitor: Monitor,
    epoch: int,
    epochs: int,
    objective: Any = CLASSIFICATION,
) -> None:
    """Validate, record and print what an epoch brought."""
    trained, validated = state.end_epoch(), objective.evaluate(state.outcome, validation_loader)
    metrics = {"train": asdict(trained), "validation": asdict(validated)}
    monitor.record("epoch", state.step, {"epoch": epoch, **metrics})
    skipped = f", {state.skipped} steps skipped so far" if state.skipped else ""
    tqdm.write(f"epoch {epoch}/{epochs}: training loss {trained.loss:.3f}, validation {validated}{skipped}")


# chapters/day09_sprint.md · The settings of a reading, and the run
def run_record(
    name: str, kind: str, seed: int, data: dict[str, Any], state: TrainingState, autocast: str
) -> dict[str, Any]:
    """What one needs to know to trust and to repeat a run.

    `kind` is its class: "alone" (only the data set named), "read" (also other texts) or "taught" (also weights from
    elsewhere). `seconds` are those on the clock, `cpu_seconds` those that the processor worked.
    """
    return {
        "name": name,
        "class": kind,
        "seed": seed,
        "data": data,
        "steps": state.step,
        "skipped_steps": state.skipped,
        "seconds": round(state.seconds, 2),
        "cpu_seconds": round(state.cpu_seconds, 2),
        "tokens": state.tokens,
        "tokens_per_second": round(state.tokens / state.seconds),
        "autocast": autocast,
        "machine": machine_state(next(state.model.parameters()).device),
        "code": source_state(),
    }


# chapters/day09_sprint.md · The settings of a reading, and the run
def settings_of(config: object) -> dict[str, Any]:
    """The settings that must not change when a run is resumed: all but device, compiling, saving and drawing."""
    settings = flat(asdict(config))  # type: ignore[call-overload]
    for name in ("device", "compile", "checkpoint_every", "tensorboard"):
        del settings[f"training/{name}"]
    return settings


# chapters/day11_deeper.md · What BERT has and our encoder lacked
def depth_of(name: str, num_layers: int) -> int:
    """How many layers lie below a parameter: 0 for the embeddings, `num_layers` + 1 for everything above the stack."""
    if name.startswith("encoder.layers."):
        return int(name.split(".")[2]) + 1
    return 0 if name.startswith(BOTTOM) else num_layers + 1


# chapters/day09_sprint.md · Layers that move less
def parameter_groups(model: nn.Module, num_layers: int, layer_decay: float) -> list[dict[str, Any]]:
    """The parameters in groups for the optimizer, each with its "scale" of the learning rate.

    Source: discriminative fine-tuning (Howard and Ruder, 2018, section 3.2).
    """
    if layer_decay == 1:
        return [{"params": list(model.parameters()), "scale": 1.0}]
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(depth_of(name, num_layers), []).append(parameter)
    top = num_layers + 1
    return [{"params": groups[depth], "scale": layer_decay ** (top - depth)} for depth in sorted(groups)]


# chapters/day09_sprint.md · An average of the weights
PARTS = ("model", "optimizer", "scaler", "averaged")


# chapters/day09_sprint.md · An average of the weights
def furthest(kinds: Iterable[str]) -> str:
    """Of several classes the one with most from outside: "taught" before "read" before "alone"."""
    return max(kinds, key=("alone", "read", "taught").index, default="alone")


# chapters/day09_sprint.md · An average of the weights
def origin(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """The class of a run, and a fingerprint of what it starts from; a run that starts from nothing is "alone"."""
    source, extra = config.initial or config.data.tokenizer, config.data.extra
    kind = furthest(read_run_record(folder)["class"] for folder in (source, extra) if folder is not None)
    if source is None:
        return kind, {}
    return kind, {"initial": fingerprint(source, "model.safetensors" if config.initial else "tokenizer.json")}


# chapters/day10_report.md · Weights that fit into a repository
def fingerprint(folder: str | Path, name: str) -> dict[str, str]:
    """What a run starts from: its folder's name, its file or files, and the SHA-256 of what is in them."""
    return {"folder": Path(folder).name, **file_digest(Path(folder, name))}


# chapters/day09_sprint.md · An average of the weights
def finished_identity(folder: Path, config: RunConfig, *data: Examples) -> dict[str, Any]:
    """The `identity` of the finished run in a folder; what it started from may have been moved since."""
    saved, start = (
        read_settings(RunConfig, folder / "config.yaml"),
        read_run_record(folder).get("initial", {}),
    )
    paths = ("tokenizer", "extra", "train", "validation", "test")
    sources = replace(saved.data, **{name: getattr(config.data, name) for name in paths})
    here = replace(saved, initial=config.initial, data=sources)
    kept = zip(("training", "validation"), read_run_record(folder).get("data", {}).values(), strict=False)
    checksums = {f"checksum of the {split} examples": entry["sha256"] for split, entry in kept}
    return identity(here, *data) | checksums | {"initial": start.get("sha256")}


# chapters/day09_sprint.md · Two passes that agree
def disagreement(first: Float[Tensor, "B K"], second: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Half the sum of both Kullback-Leibler divergences between two answers (logits), added up over the batch."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    # kl_div takes them the other way round: kl_div(q, p) is KL(p || q)
    both = F.kl_div(q, p, reduction="sum", log_target=True) + F.kl_div(p, q, reduction="sum", log_target=True)
    return both / 2


# chapters/day09_sprint.md · Two passes that agree
def logits_of(model: nn.Module, batch: dict[str, Tensor], autocast: str) -> Float[Tensor, "B K"]:
    """The logits of a batch on the model's device, computed under `autocast` and returned in 32 bits at least."""
    with autocast_on(batch["input_ids"].device, autocast):
        logits = model(batch["input_ids"], batch["attention_mask"])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


# chapters/day11_deeper.md · What BERT has and our encoder lacked
BOTTOM = tuple(f"encoder.{name}" for name in ("embedding", "positions", "token_types"))  # and embedding_norm
