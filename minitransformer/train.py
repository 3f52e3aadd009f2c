# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The training loop, and whole runs with their record."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from minitransformer.config import RunConfig, TrainingConfig, save_config
from minitransformer.data import Examples, load_examples, make_loader
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.model import TransformerForSequenceClassification
from minitransformer.runs import append_record, checksum, machine_state, open_run_folder, source_state
from minitransformer.tokenizer import Vocabulary, WordTokenizer

__all__ = [
    "StepResult",
    "average",
    "fit",
    "prepare",
    "require_finite",
    "run_epochs",
    "sample",
    "train_epoch",
    "train_step",
    "write_provenance",
]


# chapters/day05_training.md · `train_step`
@dataclass(frozen=True)
class StepResult:
    """What one training step saw, before its update: mean loss, length of the gradient, counts."""

    step: int
    loss: float
    grad_norm: float
    correct: int
    examples: int
    tokens: int


# chapters/day05_training.md · `train_step`
def require_finite(name: str, value: Tensor, step: int) -> None:
    """Stop at the first NaN or infinity, while the weights are still sound."""
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {value.item()} at step {step}, so training stops before this update: try a smaller "
            "learning rate, and look for log(0), division by zero or an attention row without any key"
        )


# chapters/day05_training.md · `train_step`
def train_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    step: int = 1,
) -> StepResult:
    """Forward, loss, backward, clip, update: one step on one batch of `minitransformer.data.collate`.

    Raises:
        FloatingPointError: if the loss or the gradient's norm is not finite; the weights stay as they were.
    """
    labels = batch["labels"]
    logits = model(batch["input_ids"], batch["attention_mask"])
    loss = F.cross_entropy(logits, labels)
    require_finite("loss", loss, step)
    optimizer.zero_grad()
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    require_finite("gradient norm", grad_norm, step)
    optimizer.step()
    correct = int((logits.argmax(-1) == labels).sum())
    tokens = int(batch["attention_mask"].sum())
    return StepResult(step, loss.item(), grad_norm.item(), correct, len(labels), tokens)


# chapters/day05_training.md · `train_epoch`
def train_epoch(
    model: nn.Module,
    loader: Iterable[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    first_step: int = 1,
    on_step: Callable[[StepResult], None] | None = None,
) -> list[StepResult]:
    """Show every batch to the model once and return the steps' results; `on_step` sees each as it happens.

    Raises:
        ValueError: if the loader yields no batch.
        FloatingPointError: as `train_step`.
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


# chapters/day05_training.md · The flow: train, validate, print
def average(results: Sequence[StepResult]) -> Metrics:
    """The steps of an epoch as one `Metrics`; every example weighs the same.

    The model changed between the steps, and dropout was on: this is not `evaluate` on the training set.
    """
    n = sum(result.examples for result in results)
    correct = sum(result.correct for result in results)
    return Metrics(n, correct / n, sum(result.loss * result.examples for result in results) / n)


# chapters/day05_training.md · Data for a run
def prepare(config: RunConfig) -> tuple[RunConfig, WordTokenizer, Examples, Examples]:
    """Load the examples of a run and build the vocabulary from its training texts alone.

    Returns the config with the vocabulary's actual size, the tokenizer, training and validation examples.
    """
    train = sample(load_examples(config.data.name, "train"), config.data.train_size, config.seed)
    validation = load_examples(config.data.name, "validation")
    vocabulary = Vocabulary.from_texts(
        train.texts, min_frequency=config.data.min_frequency, max_size=config.model.vocab_size
    )
    tokenizer = WordTokenizer(vocabulary, max_length=config.model.max_length)
    return (
        replace(config, model=replace(config.model, vocab_size=len(vocabulary))),
        tokenizer,
        train,
        validation,
    )


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


# chapters/day05_training.md · `fit`: the whole run
def run_epochs(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: DataLoader,
    validation_loader: DataLoader,
    settings: TrainingConfig,
    log: Path,
) -> tuple[Metrics, int]:
    """Train and validate epoch by epoch; returns the last validation, and how many tokens were trained on."""
    tokens = 0

    def on_step(result: StepResult) -> None:
        nonlocal tokens
        tokens += result.tokens
        if (result.step - 1) % settings.log_every == 0:
            record = {"step": result.step, "loss": result.loss, "grad_norm": result.grad_norm}
            append_record(log, {"kind": "step", **record})

    for epoch in range(1, settings.epochs + 1):
        first = (epoch - 1) * len(train_loader) + 1
        trained = average(train_epoch(model, train_loader, optimizer, settings.max_grad_norm, first, on_step))
        validated = evaluate(model, validation_loader)
        print(f"epoch {epoch}/{settings.epochs}: training loss {trained.loss:.3f}, validation {validated}")
        metrics = {"train": asdict(trained), "validation": asdict(validated)}
        append_record(log, {"kind": "epoch", "epoch": epoch, **metrics})
    return validated, tokens


# chapters/day05_training.md · `fit`: the whole run
def fit(config: RunConfig, folder: str | Path, overwrite: bool = False) -> Metrics:
    """A whole run, from its config to a folder that holds the trained model and how it came about.

    Returns the validation metrics after the last epoch.
    """
    config, tokenizer, train, validation = prepare(config)
    folder, settings = open_run_folder(folder, overwrite), config.training
    save_config(config, folder / "config.yaml")
    torch.manual_seed(config.seed)  # for the initial weights and for dropout
    model = TransformerForSequenceClassification(config.model)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    train_loader = make_loader(train, tokenizer, settings.batch_size, shuffle=True, seed=config.seed)
    validation_loader = make_loader(validation, tokenizer, 256, shuffle=False, seed=config.seed)
    print(f"{config.name}: {len(train)} examples ({train.source}), vocabulary {config.model.vocab_size}")
    wall, busy = time.perf_counter(), time.process_time()
    metrics, tokens = run_epochs(
        model, optimizer, train_loader, validation_loader, settings, folder / "metrics.jsonl"
    )
    seconds = (time.perf_counter() - wall, time.process_time() - busy)
    tokenizer.save(folder / "tokenizer.json")
    model.save_pretrained(folder)
    write_provenance(folder, config, train, validation, seconds, tokens)
    return metrics


# chapters/day05_training.md · `fit`: the whole run
def write_provenance(
    folder: Path,
    config: RunConfig,
    train: Examples,
    validation: Examples,
    seconds: tuple[float, float],
    tokens: int,
) -> None:
    """Write `run.json`: what one needs to know to trust and to repeat the run.

    `seconds` are those on the clock and those that the processor worked for this run; they differ on a busy
    machine. The class "alone" says that no text and no weights were used besides the data set named.
    """
    record = {
        "name": config.name,
        "class": "alone",
        "seed": config.seed,
        "data": {e.source: {"examples": len(e), "sha256": checksum(e)} for e in (train, validation)},
        "seconds": round(seconds[0], 2),
        "cpu_seconds": round(seconds[1], 2),
        "tokens_per_second": round(tokens / seconds[0]),
        "machine": machine_state(),
        "code": source_state(),
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
