"""Kill a training process again and again, resume it each time, and compare with a run that nobody disturbed.

`python tests/book/kill.py --kills 40` prints one JSON object: kills tried, how many of them hit a checkpoint while
it was written, in how many the run came back to bit-identical metrics and weights. The processes are forked from one that
has PyTorch loaded, so that a kill costs a fraction of a second. POSIX only.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from minitransformer.experiment.fit import fit
from minitransformer.experiment.settings import RunConfig, read_settings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "data.train_size": 600,
    "data.group_by_length": "true",
    "training.epochs": 2,
    "training.checkpoint_every": 3,
    "training.micro_batches": 2,
    "training.schedule": "linear",
    "training.warmup": 0.1,
    "training.log_every": 2,
}


def start(folder: Path, autocast: str) -> int:
    """Train in a process of its own; returns its number."""
    if child := os.fork():
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        options = [f"--{name}={value}" for name, value in SETTINGS.items()]
        config = read_settings(
            RunConfig, ROOT / "configs/toy.yaml", [*options, f"--training.autocast={autocast}"]
        )
        fit(config, folder, resume=True)
        os._exit(0)
    finally:
        os._exit(1)


def finished(child: int) -> bool:
    done, status = os.waitpid(child, os.WNOHANG)
    if done and os.waitstatus_to_exitcode(status) > 0:
        sys.exit("a run that was resumed failed; see above")
    return bool(done)


def kill_when(child: int, moment: Callable[[], bool]) -> bool:
    """Kill the process as soon as `moment` says so; False if it had finished before."""
    while not moment():
        if finished(child):
            return False
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def result(folder: Path) -> dict[str, object]:
    """What must come out equal: all records without their times, the weights, the answers, the steps."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records = [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]
    files = {
        name: (folder / name).read_bytes()
        for name in ("model.safetensors", "predictions.jsonl", "config.yaml")
    }
    return {"records": records, **files, "steps": json.loads((folder / "run.json").read_text())["steps"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=None, help="of the random moments; default: the time")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    counts = {"tried": 0, "during_a_write": 0, "runs": 0, "identical": 0}
    with tempfile.TemporaryDirectory() as scratch:
        references = {}
        for autocast in ("fp32", "fp16"):
            began = time.perf_counter()
            child = start(Path(scratch, autocast), autocast)
            while not finished(child):
                time.sleep(0.01)
            references[autocast] = result(Path(scratch, autocast)), time.perf_counter() - began
        while counts["tried"] < arguments.kills:
            autocast = dice.choice(["fp32", "fp16"])
            reference, seconds = references[autocast]
            folder = Path(scratch, f"run{counts['runs']}")
            for _ in range(4):
                child = start(folder, autocast)
                if dice.random() < 0.5:
                    end = time.perf_counter() + dice.uniform(0, seconds)
                    killed = kill_when(child, lambda end=end: time.perf_counter() > end)
                else:
                    wait = dice.randrange(3)
                    killed = kill_when(child, during_write(folder / "checkpoints", wait))
                counts["tried"] += killed
                counts["during_a_write"] += killed and any(folder.glob("checkpoints/*.tmp"))
            child = start(folder, autocast)
            while not finished(child):
                time.sleep(0.01)
            counts["runs"] += 1
            counts["identical"] += result(folder) == reference
    print(json.dumps(counts))


def during_write(folder: Path, wait: int) -> Callable[[], bool]:
    """A moment: the temporary file of the checkpoint after `wait` others exists."""
    seen: set[str] = set()

    def now() -> bool:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return False
        seen.update(name for name in names if name.endswith(".safetensors"))
        return len(seen) >= wait and any(name.endswith(".tmp") for name in names)

    return now


if __name__ == "__main__":
    main()
