# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""Whole runs: prepared, trained, watched, saved and resumed."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from minitransformer.evaluate import Metrics, predict
from minitransformer.experiment.checkpoint import TrainingState, _same_run, restore, save_checkpoint
from minitransformer.experiment.folder import (
    _append_record,
    _earlier_run,
    _in_use,
    _origin,
    _remove,
    _source_state,
    _write_atomically,
    _write_json,
    _writing,
    last_validation,
    machine_state,
)
from minitransformer.experiment.job import (
    Classification,
    Job,
    Objective,
    _finished_identity,
    _flat,
    _prepare,
    identity,
)
from minitransformer.experiment.settings import (
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    _settings_text,
    read_settings,
)
from minitransformer.model import (
    TransformerForMaskedLM,
    TransformerForSequenceClassification,
    _require,
    load_initial,
)
from minitransformer.schedule import _SCHEDULES
from minitransformer.train import StepResult, _flat_weights, choose_autocast, choose_device, make_scaler

__all__ = ["fit"]

# chapters/workshop_runs.md · The loop
_FUSED = ("cpu", "cuda", "mps", "xpu")  # where AdamW updates each weight in one pass


def _begin(config: RunConfig | PretrainConfig, device: torch.device) -> TrainingState:
    """A model with fresh or pretrained weights on its device, an optimizer and a scaler: the state before the first step."""
    torch.manual_seed(config.seed)  # for the initial weights and for dropout
    reading, settings = isinstance(config, PretrainConfig), config.training
    kind = TransformerForMaskedLM if reading else TransformerForSequenceClassification
    model = kind(config.model)
    if config.initial is not None:
        load_initial(model, Path(config.initial, "model.safetensors"))
    model = model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        settings.learning_rate,
        betas=(0.9, 0.98) if reading else (0.9, 0.999),  # as on Days 9 and 5
        weight_decay=settings.weight_decay,
        fused=device.type in _FUSED,
    )
    state = TrainingState(model, optimizer, make_scaler(device, settings.autocast))
    if settings.ema > 0:
        follow = get_ema_multi_avg_fn(settings.ema)
        state.averaged = AveragedModel(model, multi_avg_fn=follow)
    return state


class _Monitor:
    """Where a run's records go: `metrics.jsonl`, a progress bar, and TensorBoard's files if wanted."""

    def __init__(self, folder: Path, curves: bool = False, step: int = 0, total: int = 0):
        self.path = folder / "metrics.jsonl"
        self.writer = _tensorboard_writer(folder, step) if curves else None
        how = {"desc": "training", "unit": "step", "disable": None}
        self.bar = tqdm(total=total, initial=step, **how)
        self.tokens, self.since = 0, time.perf_counter()

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one record."""
        _append_record(self.path, {"kind": kind, "step": step, **values})
        if self.writer is not None:
            for name, value in _flat(values, "/").items():
                self.writer.add_scalar(f"{kind}/{name}", value, step)

    def step(self, result: StepResult, measured: dict[str, float], accuracy: float) -> None:
        """Show one step beside the bar, and record it if something was measured or it was skipped."""
        self.tokens += result.tokens
        speed = self.tokens / (time.perf_counter() - self.since)
        seen = {"loss": result.loss, "grad_norm": result.grad_norm}
        if measured:
            all_of_it = {**seen, **measured, "tokens_per_second": round(speed)}
            self.record("step", result.step, all_of_it)
        if result.skipped:
            self.record("skipped", result.step, seen)
        text = f"loss {result.loss:.3f}, accuracy {100 * accuracy:.1f} %, {speed:,.0f} tokens/s"
        self.bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Close the bar, and write what TensorBoard still holds back."""
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def _tensorboard_writer(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's files, which forgets what an interrupted run wrote after `step`."""
    try:  # here, because few runs need it
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "training.tensorboard is true, but TensorBoard is not installed: pip install tensorboard"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: TrainingConfig, step: int, total: int
) -> float:
    """Give the optimizer the rate for the update after `step` others, of `total`; returns it."""
    warmup = math.ceil(settings.warmup * total)
    rate = settings.learning_rate * _SCHEDULES[settings.schedule](step, total, warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _follow(averaged: AveragedModel, model: nn.Module) -> None:
    """Let the average follow the model by one step."""
    if averaged.n_averaged == 0:  # a number on the processor
        averaged.update_parameters(model)
    else:
        both: Any = [*averaged.module.parameters()], [*model.parameters()]
        averaged.multi_avg_fn(both[0], both[1], 0)  # type: ignore[misc]


def _measured_step(
    state: TrainingState, batch: dict[str, Tensor], settings: TrainingConfig, total: int, objective: Objective
) -> tuple[StepResult, dict[str, float]]:
    """One step of a run of `total` steps: its rate set, its update made; every so often measured too."""
    rate = _set_learning_rate(state.optimizer, settings, state.step, total)
    before = _flat_weights(state.model) if state.step % settings.log_every == 0 else None
    result = objective.update(state, batch, settings)
    state.step = result.step
    if state.averaged is not None:
        _follow(state.averaged, state.model)
    if before is None:
        return result, {}
    length = before.norm().item()
    moved = (_flat_weights(state.model) - before).norm().item()
    measured = {"learning_rate": rate, "weight_norm": length}
    return result, measured | {"update_ratio": moved / length}


def _ahead(items: Iterable[Any], count: int = 2) -> Iterator[Any]:
    """The same items in the same order; a thread prepares the next ones while one is worked on."""
    source, done = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, source, done) for _ in range(count))
        while (item := waiting.popleft().result()) is not done:
            waiting.append(thread.submit(next, source, done))
            yield item


_LONGEST_UNSAVED = 300.0  # seconds of work that an interruption may cost


def _run_epochs(state: TrainingState, job: Job, folder: Path, save: Callable[[], object]) -> None:
    """Train until all epochs are done, and validate after each; `save` is called when a checkpoint is due."""
    settings, steps = job.config.training, len(job.loader)
    total = steps * settings.epochs
    monitor = _Monitor(folder, settings.tensorboard, state.step, total)
    saved = time.perf_counter()
    wall = saved - state.seconds  # a resumed clock goes on
    busy = time.process_time() - state.cpu_seconds
    try:
        while state.step < total:
            epoch, done = divmod(state.step, steps)
            job.loader.batch_sampler.set_epoch(epoch, done)  # type: ignore[union-attr]
            state.model.train()
            unread = []
            for batch in _ahead(job.loader):
                how = (settings, total, job.objective)
                unread.append(_measured_step(state, batch, *how))
                monitor.bar.update()
                last = state.step % steps == 0
                late = time.perf_counter() - saved > _LONGEST_UNSAVED
                due = late or state.step % settings.checkpoint_every == 0
                if unread[-1][1] or last or due:  # [1]: what was measured
                    _read(state, unread, monitor, settings)
                    state.seconds = time.perf_counter() - wall
                    state.cpu_seconds = time.process_time() - busy
                if due and not last:
                    save()
                    saved = time.perf_counter()
            found = _end_epoch(state, job, monitor, epoch + 1)
            save()
            tqdm.write(found)  # when it is safe, should nobody read this
            saved = time.perf_counter()
    finally:
        monitor.close()


def _read(state: TrainingState, unread: list, monitor: _Monitor, settings: TrainingConfig) -> None:
    """Wait for the steps that were made since the last call, count, show and record them."""
    for result, measured in unread:
        result = result.read()
        state.add(result)
        monitor.step(result, measured, state.correct / max(1, state.examples))
        if state.skipped_in_a_row >= settings.max_skipped:
            raise FloatingPointError(
                f"{state.skipped_in_a_row} steps in a row had a loss or gradient that is not finite, the last at "
                f"step {state.step} (loss {result.loss}, gradient norm {result.grad_norm}): try a smaller learning "
                "rate or a longer warm-up, and look for log(0) or an attention row without any key"
            )
    unread.clear()


def _end_epoch(state: TrainingState, job: Job, monitor: _Monitor, epoch: int) -> str:
    """Validate, record and say in a line what an epoch brought."""
    trained = state.end_epoch()
    validated = job.objective.evaluate(state.outcome, job.measuring)
    metrics = {"train": asdict(trained), "validation": asdict(validated)}
    monitor.record("epoch", state.step, {"epoch": epoch, **metrics})
    skipped = f", {state.skipped} steps skipped so far" if state.skipped else ""
    epochs, loss = job.config.training.epochs, trained.loss
    return f"epoch {epoch}/{epochs}: training loss {loss:.3f}, validation {validated}{skipped}"


# chapters/workshop_runs.md · Kill it and go on
def fit(
    config: RunConfig | PretrainConfig, folder: str | Path, overwrite: bool = False, resume: bool = False
) -> Metrics:
    """A whole run or reading, from its config to a folder that holds the trained model and how it came about.

    With `resume`, one that was interrupted goes on from its last checkpoint, as if nothing had happened.
    Returns the validation metrics after the last epoch.
    """
    with _in_use(folder) as folder:
        device = choose_device(config.training.device)
        config = _settled(config, device, folder, resume)
        _not_from_itself(config, folder)
        earlier = _earlier_run(folder, overwrite, resume)
        job = _prepare(config, folder)
        begun = resume and (folder / "config.yaml").is_file()
        if config.training.minutes and not begun:
            job = _within_minutes(job, device)
        ours = identity(job)
        if resume and (folder / "run.json").exists():
            _same_run(folder, _finished_identity(folder, type(config)), ours)
            print(f"the run in {folder} is finished")
            return last_validation(folder)
        state = _begin(job.config, device)
        _remove(earlier)  # now that the new run can begin
        if resume and restore(folder, state, ours):
            print(f"going on after step {state.step}")
        _announce(job, folder, device)

        def save() -> None:
            log = (folder / "metrics.jsonl").stat().st_size
            what = {"identity": ours, "log_bytes": log, **state.state_dict()}
            save_checkpoint(folder, state.step, what)

        _run_epochs(state, job, folder, save)
        _finish(folder, job, state)
        return last_validation(folder)


def _not_from_itself(config: Any, folder: Path) -> None:
    """Refuse a run that starts from the folder which it would replace."""
    for name in ("initial", "data.tokenizer"):
        value = _flat(asdict(config)).get(name)
        itself = value is not None and Path(value).resolve() == folder.resolve()
        _require(not itself, name, value, "another folder than the run's own")


def _settled(config: Any, device: torch.device, folder: Path, resume: bool) -> Any:
    """The config with the device's number format in place of "auto"; a run that is resumed keeps its own, and its epochs."""
    training, saved = config.training, folder / "config.yaml"
    format_, epochs = choose_autocast(device, training.autocast), training.epochs
    if resume and saved.is_file():
        kept = read_settings(type(config), saved).training
        format_ = kept.autocast if training.autocast == "auto" else format_
        epochs = kept.epochs if training.minutes else epochs
    return replace(config, training=replace(training, autocast=format_, epochs=epochs))


def _within_minutes(job: Job, device: torch.device, seconds: float = 20.0) -> Job:
    """The job with as many epochs as fit into `training.minutes`, at least one, by its pace in the first `seconds`."""
    state, training = _begin(job.config, device), job.config.training
    steps, tokens, start = 0, 0, time.perf_counter()
    job.loader.batch_sampler.set_epoch(0)  # type: ignore[union-attr]
    for number, batch in enumerate(_ahead(job.loader)):
        result = job.objective.update(state, batch, training).read()
        if number < 3 and number + 1 < len(job.loader):  # the first ones are slow
            start = time.perf_counter()
            continue
        steps, tokens = steps + 1, tokens + result.tokens
        if (spent := time.perf_counter() - start) > seconds:
            break
    epochs = max(1, int(60 * training.minutes * steps / spent / len(job.loader)))
    pace = f"{tokens / spent:,.0f} tokens/s at first, {spent / steps:.3f} seconds a step"
    print(f"{pace}: {epochs} epochs for {training.minutes:g} minutes")
    return replace(job, config=replace(job.config, training=replace(training, epochs=epochs)))


def _announce(job: Job, folder: Path, device: torch.device) -> None:
    """Save what is known before the first step, and say it."""
    config, parts = job.config, job.data.items()
    _write_atomically(folder / "config.yaml", _settings_text(config))
    with _writing(folder / "tokenizer.json"):
        job.tokenizer.save(folder / "tokenizer.json")
    sources = ", ".join(f"{entry['source']} ({split})" for split, entry in parts)
    size, steps = config.model.vocab_size, len(job.loader)
    print(f"{config.name}: {sources}; vocabulary {size}, {steps} steps an epoch")
    print(f"computing in {config.training.autocast} on {device}")


def _finish(folder: Path, job: Job, state: TrainingState) -> None:
    """Write the answers on the validation examples, the trained model, and the run's provenance, in this order."""
    model: Any = state.outcome
    sound = all(weight.isfinite().all() for weight in model.parameters())
    if not sound or 0 < state.step == state.skipped:
        raise FloatingPointError(
            "the run has no model to save: its weights are not finite, or none of them moved "
            f"({state.skipped} of {state.step} steps were skipped); try a smaller learning rate or a longer warm-up"
        )
    if isinstance(job.objective, Classification):
        logits, labels = predict(model, job.measuring)
        positive = logits.softmax(-1)[:, 1].tolist()
        pairs = zip(positive, (logits.argmax(-1) == labels).tolist(), strict=True)
        answers = [{"positive": round(p, 6), "correct": c} for p, c in pairs]
        _write_json(folder / "predictions.jsonl", answers)
    with _writing(folder / "model.safetensors"):
        model.save_pretrained(folder)
    _write_json(folder / "run.json", _run_record(job, state))


def _run_record(job: Job, state: TrainingState) -> dict[str, Any]:
    """What one needs to know to trust and to repeat a run: class (see `_origin`), data, cost, machine, code."""
    config, (kind, start) = job.config, _origin(job.config)
    if kind == "alone" and isinstance(config, PretrainConfig):
        kind = "read"
    data = [dict(entry) for entry in job.data.values()]
    return {
        "name": config.name,
        "class": kind,
        "seed": config.seed,
        "data": {entry.pop("source"): entry for entry in data},
        "steps": state.step,
        "skipped_steps": state.skipped,
        "seconds": round(state.seconds, 2),
        "cpu_seconds": round(state.cpu_seconds, 2),  # in which a processor worked
        "tokens": state.tokens,
        "tokens_per_second": round(state.tokens / state.seconds),
        "autocast": config.training.autocast,
        "machine": machine_state(state.device),
        "code": _source_state(),
        **({"initial": start} if start else {}),
    }
