# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The folder of a run: its records, and where its numbers come from."""

import hashlib
import json
import platform
import re
import shutil
import subprocess
from pathlib import Path

import torch

import minitransformer
from minitransformer.data import Examples

__all__ = [
    "RUN_FILES",
    "append_record",
    "checksum",
    "git",
    "machine_state",
    "open_run_folder",
    "read_records",
    "source_state",
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


# chapters/day05_training.md · Where a number comes from
def machine_state() -> dict[str, object]:
    """What a run runs on: device, processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    return {
        "device": "cpu",
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


# chapters/day05_training.md · The run folder
RUN_FILES = ("config.yaml", "run.json", "metrics.jsonl", "tokenizer.json", "config.json", "model.safetensors")


# chapters/day05_training.md · The run folder
def open_run_folder(folder: str | Path, overwrite: bool = False) -> Path:
    """Make the folder of a new run; files of an earlier run are removed if `overwrite`, else refused."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a run needs a folder")
    old = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if old and not overwrite:
        raise ValueError(
            f"{folder} already holds a run ({old[0].name}); name another folder, or say --overwrite"
        )
    for path in old:
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# chapters/day05_training.md · The run folder
def append_record(path: Path, record: dict[str, object]) -> None:
    """Add one line of JSON to a run's metrics, at once, so that a killed run keeps what it measured."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


# chapters/day05_training.md · The run folder
def read_records(folder: str | Path, kind: str) -> list[dict]:
    """The records of one kind, "step" or "epoch", from a run folder's metrics, in order."""
    lines = Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]
