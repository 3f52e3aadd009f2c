# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The folder of a run: records, provenance, answers, and one process at a time."""

import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from pydantic_core import to_json
from safetensors import SafetensorError
from torch import Tensor

import minitransformer
from minitransformer.data import Examples
from minitransformer.evaluate import Metrics, _traits
from minitransformer.experiment.settings import PretrainConfig, RunConfig, read_settings
from minitransformer.model import TransformerForSequenceClassification, _weight_files
from minitransformer.tokenizer import WordTokenizer, load_tokenizer

__all__ = [
    "FolderInUse", "checkpoint_files", "checksum", "last_validation", "load_run", "machine_state",
    "read_answers", "read_evaluations", "read_predictions", "read_records", "read_run_record",
]  # fmt: skip


# chapters/workshop_runs.md · The half-written file
@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Around the writing of a file: what goes wrong, such as a full disk, becomes one sentence that names the file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"{path} cannot be written: {reason}; what was complete before is kept: mend this and start again, "
            "a run with --resume"
        ) from error


def _write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that its name always stands for the old content or for all of the new."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with _writing(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # what could not be written takes no room
    if os.name == "posix":
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _write_json(path: Path, content: Any) -> None:
    """Write a record for people to read, or into a `.jsonl` one record a line; the whole file or nothing."""
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(record) + "\n" for record in content)
    else:
        text = json.dumps(content, indent=2) + "\n"
    _write_atomically(path, text.encode())


# chapters/workshop_runs.md · The folder of a run
def _append_record(path: Path, record: dict[str, object]) -> None:
    """Add one line of JSON to a run's metrics, at once, so that a killed run keeps what it measured."""
    line = to_json(record, inf_nan_mode="null")
    with _writing(path), path.open("ab") as file:
        file.write(line + b"\n")


def _read_lines(path: Path, *names: str) -> list[dict[str, Any]]:
    """The records of a file that has one a line, each with these names at least."""
    content, records = path.read_bytes(), []
    complete = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(complete.splitlines(), 1):
        try:
            record = json.loads(line)
            records.append(record | {name: record[name] for name in names})
        except (ValueError, KeyError, TypeError):
            what = f"this is not a record with {', '.join(names)}"
            raise ValueError(f"{path}, line {number}: {what}") from None
    return records


def read_records(folder: str | Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, such as "step" or "epoch", of a run, in order; a ValueError if its metrics are broken."""
    path = Path(folder, "metrics.jsonl")
    if not path.is_file():
        raise ValueError(f"{folder} does not hold a run: there is no metrics.jsonl in it")
    return [record for record in _read_lines(path, "kind") if record["kind"] == kind]


def last_validation(folder: str | Path) -> Metrics:
    """What a run's last validation found; a ValueError if there was none."""
    if not (epochs := read_records(folder, "epoch")):
        path = Path(folder, "metrics.jsonl")
        raise ValueError(f"{path} does not hold the end of an epoch")
    found = epochs[-1]["validation"]
    loss = math.nan if found["loss"] is None else found["loss"]
    return Metrics(**found | {"loss": loss})


def read_predictions(folder: str | Path) -> list[dict[str, Any]]:
    """What a run's model answered on the validation examples, in order: "positive" (a probability) and "correct"."""
    return _read_lines(Path(folder, "predictions.jsonl"), "positive")


_RECORD_FILES = (
    *("config.yaml", "run.json", "metrics.jsonl", "predictions.jsonl", "config.json"),
    *("answers_validation.jsonl", "answers_test.jsonl", "tokenizer.json"),
)

_RUN_FILES = (
    *_RECORD_FILES,
    *("model.safetensors", "report.md", "curves.svg", "architecture.svg"),
    *("calibration_validation.svg", "calibration_test.svg"),
)


def checkpoint_files(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(Path(folder, "checkpoints").glob("step_*.safetensors"))


def _earlier_run(folder: Path, overwrite: bool = False, resume: bool = False) -> list[Path]:
    """The files of an earlier run in a folder that `overwrite` replaces; a ValueError if nobody said what becomes of it."""
    if overwrite and resume:
        raise ValueError("a run is either resumed or overwritten: give one of --resume and --overwrite")
    old = [folder / name for name in _RUN_FILES if (folder / name).exists()]
    if old and not (overwrite or resume):
        raise ValueError(
            f"{folder} already holds a run ({old[0].name}): say --resume to go on with it, "
            "--overwrite to replace it, or name another folder"
        )
    curves = [path for path in [folder / "tensorboard"] if path.is_dir()]
    return [*old, *checkpoint_files(folder), *curves] if overwrite else []


def _remove(paths: Iterable[Path]) -> None:
    """Remove files, and folders with all that is in them."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# chapters/workshop_runs.md · Where a number comes from
def checksum(examples: Examples) -> str:
    """A fingerprint (SHA-256) of texts and labels in their order: equal data, equal checksum."""
    pairs = zip(examples.texts, examples.labels, strict=True)
    lines = "".join(f"{label}\t{text}\n" for text, label in pairs)
    return hashlib.sha256(lines.encode()).hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    """What a git command prints; empty if it fails or there is no git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _source_state() -> dict[str, object]:
    """Which code runs: the commit, if git tracks the package, and a fingerprint of the package's files."""
    here = Path(minitransformer.__file__).parent
    content = b"".join(file.read_bytes() for file in sorted(here.rglob("*.py")))
    tracked = bool(_git(here, "ls-files", "__init__.py"))
    changes = _git(here, "status", "--porcelain", "--", ".")
    return {
        "commit": _git(here, "rev-parse", "HEAD") if tracked else None,
        "dirty": bool(changes) if tracked else None,
        "sources_sha256": hashlib.sha256(content).hexdigest(),
    }


def machine_state(device: torch.device | None = None) -> dict[str, object]:
    """What a run runs on: device, processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    names = re.findall(r"model name\s*: (.*)", text)
    kind = "cpu" if device is None else device.type
    # not every kind of device has names
    named = getattr(torch.get_device_module(kind), "get_device_name", None)
    return {
        "device": named(device) if named else kind,
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def read_run_record(folder: str | Path) -> dict[str, Any]:
    """What `run.json` of a folder says; a ValueError if the folder does not hold a finished run."""
    path = Path(folder, "run.json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{folder} does not hold a finished run: there is no run.json in it") from None
    except ValueError as error:
        raise ValueError(f"{path} is not the record of a run: {error}") from None
    if not isinstance(record, dict) or "class" not in record:
        raise ValueError(f"{path} is not the record of a run: it names no class")
    return record


def _file_digest(path: Path) -> dict[str, str]:
    """The name of a file and the SHA-256 of what is in it; of weights in several files, of all in their order."""
    files, found = _weight_files(path), hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: found)  # adds to the one hash
    return {"file": ", ".join(file.name for file in files), "sha256": found.hexdigest()}


def _origin(config: RunConfig | PretrainConfig) -> tuple[str, dict[str, str]]:
    """The class of what a run starts from, and its fingerprint: folder, file, SHA-256; "alone" and {} for nothing."""
    tokenizer = config.data.tokenizer if isinstance(config, RunConfig) else None
    source = config.initial or tokenizer
    if source is None:
        return "alone", {}
    kind = read_run_record(source)["class"]
    name = "model.safetensors" if config.initial else "tokenizer.json"
    return kind, {"folder": Path(source).name, **_file_digest(Path(source, name))}


def load_run(folder: str | Path) -> tuple[RunConfig, TransformerForSequenceClassification, WordTokenizer]:
    """The settings, the trained model (in evaluation mode) and the tokenizer of a run's folder.

    Raises:
        ValueError: one sentence, if a file is missing or broken, or the files do not fit each other.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} is not the folder of a run: there is no config.yaml in it")
    model = TransformerForSequenceClassification.from_pretrained(folder)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if (ours := len(tokenizer.vocabulary)) != (theirs := model.config.vocab_size):
        raise ValueError(
            f"{folder}: the tokenizer knows {ours} tokens, but the model has {theirs}: they are not from one run"
        )
    return read_settings(RunConfig, folder / "config.yaml"), model, tokenizer


# chapters/workshop_runs.md · One process at a time
class FolderInUse(ValueError):
    """Another process works in the folder of a run."""


@contextmanager
def _in_use(folder: str | Path, wait: float = 0) -> Iterator[Path]:
    """Keep a folder, made if it is missing, to this process; FolderInUse if another has it, also after `wait` seconds."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a run needs a folder")
    lock, new = FileLock(folder / ".lock"), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except Timeout:
        raise FolderInUse(
            f"{folder} is in use by another process: wait for it, or name another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if not folder.is_dir() or os.access(folder, os.W_OK):
            raise OSError(f"{folder} cannot be locked, so nothing can be written there: {error}") from None
    try:
        yield folder
    finally:
        if new and folder.is_dir() and os.listdir(folder) == [".lock"]:
            shutil.rmtree(folder, ignore_errors=True)  # nothing has come of it
        lock.release()


# chapters/workshop_runs.md · Answers, and how often a split was read
def _answer_records(
    texts: Sequence[str], logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"]
) -> list[dict[str, Any]]:
    """One record for each example: the probability of "positive", its label, whether the answer is right, its traits."""
    positive = logits.softmax(-1)[:, 1].tolist()
    correct = (logits.argmax(-1) == labels).tolist()
    rows = zip(texts, positive, labels.tolist(), correct, strict=True)
    return [
        {"positive": round(p, 6), "label": label, "correct": c, **_traits(text)} for text, p, label, c in rows
    ]


def read_evaluations(folder: str | Path) -> dict[str, dict[str, Any]]:
    """How often each split was read, and what the last reading found; a ValueError if `run.json` is broken."""
    found = read_run_record(folder).get("evaluations", {})
    keys = ("readings", "n", "accuracy", "loss")
    try:
        numbers = [entry[key] for entry in found.values() for key in keys]
    except (AttributeError, KeyError, TypeError):
        numbers = [None]
    if not all(isinstance(number, int | float) for number in numbers):
        path, wanted = Path(folder, "run.json"), ", ".join(keys)
        raise ValueError(f"{path}: its evaluations are broken: each needs {wanted}")
    return found


def _record_evaluation(
    folder: str | Path, split: str, records: Sequence[dict[str, Any]], metrics: Metrics
) -> int:
    """Count a reading and write its result into `run.json`, its answers as `answers_SPLIT.jsonl`; returns the count."""
    with _in_use(folder, wait=10) as folder:
        run, evaluations = read_run_record(folder), read_evaluations(folder)
        readings = int(evaluations.get(split, {}).get("readings", 0)) + 1
        entry = {split: {"readings": readings, **asdict(metrics)}}
        _write_json(folder / "run.json", run | {"evaluations": evaluations | entry})
        _write_json(folder / f"answers_{split}.jsonl", records)
        return readings


def read_answers(folder: str | Path, split: str) -> list[dict[str, Any]]:
    """The answers of the last reading of a split, none if it was never read; a ValueError if their file is broken."""
    path = Path(folder, f"answers_{split}.jsonl")
    names = ("positive", "label", "correct", "words", "negation", "contrast")
    return _read_lines(path, *names) if path.is_file() else []
