# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md, chapters/day10_report.md; edit the chapters, not this file.
"""The folder of a run, its records, and checkpoints that survive a crash."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import minitransformer
from minitransformer.config import RunConfig, load_config, save_config
from minitransformer.data import Examples
from minitransformer.evaluate import Metrics, traits
from minitransformer.model import TransformerForSequenceClassification, save_shards, weight_files
from minitransformer.tokenizer import WordTokenizer, load_tokenizer

__all__ = [
    "ANSWER",
    "CHECKPOINTS_KEPT",
    "LARGEST_SHARD",
    "RUN_FILES",
    "SHIPPED_FILES",
    "FolderInUse",
    "answer_records",
    "append_record",
    "balanced",
    "checkpoint_files",
    "checksum",
    "file_digest",
    "git",
    "in_use",
    "load_checkpoint",
    "load_run",
    "machine_state",
    "one_at_a_time",
    "open_run_folder",
    "pack",
    "read_answers",
    "read_evaluations",
    "read_labelled",
    "read_predictions",
    "read_records",
    "read_run_record",
    "record_evaluation",
    "save_checkpoint",
    "ship",
    "source_state",
    "sureness",
    "unpack",
    "without_paths",
    "write_atomically",
    "write_json",
    "writing",
]


# chapters/day05_training.md · Where a number comes from
def checksum(examples: Examples) -> str:
    """A fingerprint (SHA-256) of texts and labels in their order: equal data, equal checksum."""
    lines = [f"{label}\t{text}\n" for text, label in zip(examples.texts, examples.labels, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# chapters/day05_training.md · Where a number comes from
def git(folder: Path, *arguments: str) -> str:
    """What a git command prints; empty if it fails or there is no git."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


# chapters/day05_training.md · Where a number comes from
def source_state() -> dict[str, object]:
    """Which code runs: the commit, if git tracks the package, and a fingerprint of the package's files."""
    here = Path(minitransformer.__file__).parent
    content = b"".join(file.read_bytes() for file in sorted(here.glob("*.py")))
    tracked = bool(git(here, "ls-files", "__init__.py"))
    return {
        "commit": git(here, "rev-parse", "HEAD") if tracked else None,
        "dirty": bool(git(here, "status", "--porcelain", "--", ".")) if tracked else None,
        "sources_sha256": hashlib.sha256(content).hexdigest(),
    }


# chapters/day06_engineering.md · The run folder, version 2
def machine_state(device: torch.device | None = None) -> dict[str, object]:
    """What a run runs on: device, processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    kind = "cpu" if device is None else device.type
    named = getattr(torch.get_device_module(kind), "get_device_name", None)  # not every kind gives names
    return {
        "device": named(device) if named else kind,
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


# chapters/day10_report.md · What a reading leaves behind
RUN_FILES = (
    "config.yaml",
    "run.json",
    "metrics.jsonl",
    "predictions.jsonl",
    "answers_validation.jsonl",
    "answers_test.jsonl",
    "tokenizer.json",
    "config.json",
    "model.safetensors",
    "report.md",
    "curves.svg",
    "architecture.svg",
    "calibration_validation.svg",
    "calibration_test.svg",
)


# chapters/day08_data_schedule_monitoring.md · Where the records go
def open_run_folder(folder: str | Path, overwrite: bool = False, resume: bool = False) -> Path:
    """The folder of a run, made if it is missing.

    What an earlier run left there is removed if `overwrite`, kept if `resume`, and a reason to refuse otherwise.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a run needs a folder")
    if overwrite and resume:
        raise ValueError("a run is either resumed or overwritten: give one of --resume and --overwrite")
    old = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if old and not (overwrite or resume):
        raise ValueError(
            f"{folder} already holds a run ({old[0].name}): say --resume to go on with it, "
            "--overwrite to replace it, or name another folder"
        )
    if overwrite:
        for path in [*old, *checkpoint_files(folder)]:
            path.unlink()
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# chapters/day05_training.md · The run folder
@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Around the writing of a file: what goes wrong, such as a full disk, becomes one sentence that names the file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OSError(
            f"{path} cannot be written: {reason}; what was complete before is kept: mend this and start again, "
            "a run with --resume"
        ) from error


# chapters/day05_training.md · The run folder
def append_record(path: Path, record: dict[str, object]) -> None:
    """Add one line of JSON to a run's metrics, at once, so that a killed run keeps what it measured."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


# chapters/day06_engineering.md · The run folder, version 2
def read_records(folder: str | Path, kind: str) -> list[dict]:
    """The records of one kind, such as "step" or "epoch", from a run folder's metrics, in order.

    A last line without its end, which a killed run may leave, is not read.
    """
    lines = Path(folder, "metrics.jsonl").read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [record for record in records if record["kind"] == kind]


# chapters/day06_engineering.md · The half-written file
def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that its name always stands for the old content or for all of the new.

    The content goes to a temporary file, is forced to the disk, and then takes the name in one step.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with writing(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # what could not be written takes no room
    if os.name == "posix":  # the new name itself is kept in the folder
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


# chapters/day06_engineering.md · One file, without pickle
def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """`value` as JSON can hold it: each tensor inside goes to `tensors` under a name and leaves that name behind.

    A dict becomes a list of pairs, because JSON would turn its integer keys into strings.
    """
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, pack(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [pack(item, tensors, f"{name}/{index}") for index, item in enumerate(value)]
    return value


# chapters/day06_engineering.md · One file, without pickle
def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given (tuples come back as lists)."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: unpack(item, tensors) for key, item in value["dict"]}


# chapters/day06_engineering.md · One file, without pickle
CHECKPOINTS_KEPT = 2


# chapters/day06_engineering.md · One file, without pickle
def checkpoint_files(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(Path(folder, "checkpoints").glob("step_*.safetensors"))


# chapters/day06_engineering.md · One file, without pickle
def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a run's state after `step` updates to one safetensors file; the two newest checkpoints are kept."""
    tensors: dict[str, Tensor] = {}
    record = json.dumps(pack(state, tensors))
    path = folder / "checkpoints" / f"step_{step:08d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, save(tensors, {"state": record}))
    for old in checkpoint_files(folder)[:-CHECKPOINTS_KEPT]:
        old.unlink()
    return path


# chapters/day06_engineering.md · One file, without pickle
def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote.

    Raises:
        ValueError: one sentence, if the file is incomplete or is something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = (file.metadata() or {}).get("state", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return unpack(json.loads(record), tensors)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is a safetensors file, but not a checkpoint of a run") from None


# chapters/day06_engineering.md · The run folder, version 2
def read_predictions(folder: str | Path) -> list[dict]:
    """What a run's model answered on the validation examples, in order (see `train.write_predictions`)."""
    lines = Path(folder, "predictions.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


# chapters/day09_sprint.md · An average of the weights
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
    return load_config(folder / "config.yaml"), model, tokenizer


# chapters/day09_sprint.md · The settings of a reading, and the run
class FolderInUse(ValueError):
    """Another process works in the folder of a run."""


# chapters/day09_sprint.md · The settings of a reading, and the run
@contextmanager
def in_use(folder: str | Path, wait: float = 0) -> Iterator[Path]:
    """Keep a folder, made if it is missing, to this process; the operating system frees it when the process ends.

    Raises:
        FolderInUse: one sentence, if another process has it, also after `wait` seconds.
    """
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
        # a folder that can only be read needs no lock
    try:
        yield folder
    finally:
        if new and folder.is_dir() and [path.name for path in folder.iterdir()] == [".lock"]:
            shutil.rmtree(folder, ignore_errors=True)  # nothing has come of it
        lock.release()


# chapters/day09_sprint.md · The settings of a reading, and the run
_Work = TypeVar("_Work", bound=Callable[..., Any])


# chapters/day09_sprint.md · The settings of a reading, and the run
def one_at_a_time(work: _Work) -> _Work:
    """The function `work`, which keeps the folder that is its second argument to itself (see `in_use`)."""

    @wraps(work)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        folder = args[1] if len(args) > 1 else kwargs["folder"]
        with in_use(folder):
            return work(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


# chapters/day09_sprint.md · The settings of a reading, and the run
def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record for people to read, whole or not at all."""
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


# chapters/day09_sprint.md · An average of the weights
def read_run_record(folder: str | Path) -> dict[str, Any]:
    """What `run.json` of a folder says.

    Raises:
        ValueError: one sentence, if the folder does not hold a finished run.
    """
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


# chapters/day09_sprint.md · The models label sentences
def read_labelled(folder: str | Path, confidence: float) -> Examples:
    """The sentences in a folder whose label, given by other models, has at least the probability `confidence`.

    Of the label that is more frequent among them only the first are taken, so that both are equally many.

    Raises:
        ValueError: one sentence, if the folder holds no labelled sentences, or not all of them, or no sure ones.
    """
    record, path = read_run_record(folder), Path(folder, "sentences.jsonl")
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        sure = [(r["text"], int(r["positive"] > 0.5)) for r in rows if sureness(r["positive"]) >= confidence]
    except OSError:
        raise ValueError(f"{folder} holds no labelled sentences: there is no sentences.jsonl in it") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a file of labelled sentences, one JSON object a line") from None
    if len(rows) != (wanted := record.get("origin", {}).get("count")):
        raise ValueError(
            f"{folder} holds {len(rows)} labelled sentences of {wanted}: label them to the end first"
        )
    return balanced(sure, f"{folder}, for data.confidence {confidence}")


# chapters/day09_sprint.md · The models label sentences
def balanced(rows: Sequence[tuple[str, int]], source: str) -> Examples:
    """As many rows of label 0 as of label 1, the first of each, in their order; a ValueError if one has none."""
    size = min(sum(label == each for _, label in rows) for each in (0, 1))
    if size == 0:
        raise ValueError(f"{source}: both labels must have sure sentences, got {len(rows)} of one")
    kept, left = [], [size, size]
    for text, label in rows:
        if left[label]:
            kept.append((text, label))
            left[label] -= 1
    return Examples([text for text, _ in kept], [y for _, y in kept], f"{len(kept)} labelled sentences")


# chapters/day09_sprint.md · The models label sentences
def sureness(positive: float) -> float:
    """The probability of the likelier of two labels."""
    return max(positive, 1 - positive)


# chapters/day10_report.md · What a reading leaves behind
def answer_records(
    texts: Sequence[str], logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"]
) -> list[dict[str, Any]]:
    """One record for each example: the probability of "positive", its label, whether the answer is right, its traits."""
    positive, correct = logits.softmax(-1)[:, 1].tolist(), (logits.argmax(-1) == labels).tolist()
    return [
        {"positive": round(p, 6), "label": label, "correct": c, **traits(text)}
        for text, p, label, c in zip(texts, positive, labels.tolist(), correct, strict=True)
    ]


# chapters/day10_report.md · What a reading leaves behind
def read_evaluations(folder: str | Path) -> dict[str, dict[str, Any]]:
    """For each split that was evaluated: how often it was read, and what the last reading found.

    Raises:
        ValueError: one sentence, if `run.json` is missing or broken.
    """
    found = read_run_record(folder).get("evaluations", {})
    try:
        numbers = [e[key] for e in found.values() for key in ("readings", "n", "accuracy", "loss")]
    except (AttributeError, KeyError, TypeError):
        numbers = [None]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(
            f"{Path(folder, 'run.json')}: its evaluations are broken: each needs readings, n, accuracy, loss"
        )
    return found


# chapters/day10_report.md · What a reading leaves behind
def record_evaluation(
    folder: str | Path, split: str, records: Sequence[dict[str, Any]], metrics: Metrics
) -> int:
    """Count a reading and write its result into `run.json`, its answers as `answers_SPLIT.jsonl`; returns the count."""
    with in_use(folder, wait=10) as folder:
        run, evaluations = read_run_record(folder), read_evaluations(folder)
        readings = int(evaluations.get(split, {}).get("readings", 0)) + 1
        run["evaluations"] = evaluations | {split: {"readings": readings, **asdict(metrics)}}
        write_json(folder / "run.json", run)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(folder / f"answers_{split}.jsonl", lines.encode())
        return readings


# chapters/day10_report.md · What a reading leaves behind
ANSWER = ("positive", "label", "correct", "words", "negation", "contrast")


# chapters/day10_report.md · What a reading leaves behind
def read_answers(folder: str | Path, split: str) -> list[dict[str, Any]]:
    """What `record_evaluation` wrote about a split; an empty list if it was never evaluated.

    Raises:
        ValueError: one sentence, if a line of the file is something else.
    """
    path = Path(folder, f"answers_{split}.jsonl")
    if not path.is_file():
        return []
    answers = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            answer = json.loads(line)
            answers.append({name: answer[name] for name in ANSWER})
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}, line {number}: this is not an answer with {', '.join(ANSWER)}"
            ) from None
    return answers


# chapters/day10_report.md · Weights that fit into a repository
SHIPPED_FILES = (
    "config.yaml",
    "run.json",
    "metrics.jsonl",
    "predictions.jsonl",
    "answers_validation.jsonl",
    "answers_test.jsonl",
    "tokenizer.json",
    "config.json",
    "notes.md",
)

# chapters/day10_report.md · Weights that fit into a repository
LARGEST_SHARD = 16_000_000


# chapters/day10_report.md · Weights that fit into a repository
def without_paths(config: RunConfig) -> RunConfig:
    """The config with the last part of every path in it, which tells what was there but not on which machine."""
    places: dict[str, Any] = {}
    for name in ("tokenizer", "extra", "train", "validation", "test"):
        path = getattr(config.data, name)
        places[name] = path and Path(path).name
    initial = config.initial and Path(config.initial).name
    return replace(config, initial=initial, data=replace(config.data, **places))


# chapters/day10_report.md · Weights that fit into a repository
def ship(run: str | Path, folder: str | Path, largest: int = LARGEST_SHARD) -> Path:
    """Copy a finished run for others to use: its records, and its weights in half precision in files of limited size.

    The folder gets its name when all is in it. Raises ValueError, in one sentence, if the run is not finished, or
    the folder is not empty.
    """
    read_run_record(run)
    model, folder = TransformerForSequenceClassification.from_pretrained(run), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder")
    parcel = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(parcel, ignore_errors=True)  # an interrupted call may have left it
    try:
        with writing(folder):
            parcel.mkdir(parents=True)
            for name in SHIPPED_FILES:
                if Path(run, name).is_file():
                    shutil.copyfile(Path(run, name), parcel / name)
            if (settings := parcel / "config.yaml").is_file():
                save_config(without_paths(load_config(settings)), settings)
            halves = {name: value.half() for name, value in model.state_dict().items()}
            save_shards(halves, parcel, largest)
            if folder.exists():
                folder.rmdir()
            return parcel.rename(folder)
    finally:
        shutil.rmtree(parcel, ignore_errors=True)


# chapters/day10_report.md · Weights that fit into a repository
def file_digest(path: Path) -> dict[str, str]:
    """The name of a file and the SHA-256 of what is in it; of weights in several files, of all in their order."""
    files, found = weight_files(path), hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    return {"file": ", ".join(file.name for file in files), "sha256": found.hexdigest()}
