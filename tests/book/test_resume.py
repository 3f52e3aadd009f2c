"""A killed run goes on as if nothing had happened; what cannot be used is named in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from book.press.floors import ROOT
from minitransformer.cli import main
from minitransformer.experiment.checkpoint import load_checkpoint, save_checkpoint
from minitransformer.experiment.folder import checkpoint_files

TOY = str(ROOT / "configs/toy.yaml")
SHORT = ["--data.train_size", "400", "--training.epochs", "2", "--training.checkpoint_every", "4"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kills are made with fork")
def test_killed_runs_come_back_bit_identical():
    """At least twelve kills, some of them in the middle of a write (see kill.py)."""
    command = [sys.executable, str(ROOT / "tests/book/kill.py"), "--kills", "12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["tried"] >= 12 and counts["during_a_write"] >= 1, counts
    assert counts["identical"] == counts["runs"] >= 3, counts


@pytest.mark.skipif(os.name != "posix", reason="the signal of Ctrl-C is sent with POSIX")
def test_ctrl_c_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "minitransformer", "train", TOY, "--output", str(folder)]
    process = subprocess.Popen(
        [*command, "--training.checkpoint_every", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it
    )
    while not checkpoint_files(folder) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in complaint and "Traceback" not in complaint


@pytest.fixture
def finished(tmp_path):
    """A finished run, made unfinished again by removing its last file."""
    folder = tmp_path / "run"
    assert main(["train", TOY, *SHORT, "--output", str(folder)]) == 0
    (folder / "run.json").unlink()
    return folder


def resume(folder, capsys, *settings) -> tuple[int, str]:
    code = main(["train", TOY, *SHORT, *settings, "--output", str(folder), "--resume"])
    return code, capsys.readouterr().err


def test_two_checkpoints_are_kept(finished):
    assert len(checkpoint_files(finished)) == 2 and not list(finished.glob("**/*.tmp"))


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(finished, capsys, damage):
    before, last = checkpoint_files(finished)
    weights = (finished / "model.safetensors").read_bytes()
    content = {"truncated": last.read_bytes()[:-100], "foreign": weights, "empty": b""}[damage]
    last.write_bytes(content)
    code, complaint = resume(finished, capsys)
    assert code == 0 and last.name in complaint and before.name not in complaint
    assert (finished / "model.safetensors").read_bytes() == weights, "the run ends with the same weights"


def test_no_sound_checkpoint_is_an_error_and_nothing_is_deleted(finished, capsys):
    for path in checkpoint_files(finished):
        path.write_bytes(b"nothing")
    metrics = (finished / "metrics.jsonl").read_bytes()
    code, complaint = resume(finished, capsys)
    assert code == 2 and "--overwrite" in complaint
    assert (finished / "metrics.jsonl").read_bytes() == metrics and len(checkpoint_files(finished)) == 2


def test_no_record_is_cut_off_for_a_checkpoint_that_does_not_fit(finished, capsys):
    for path in checkpoint_files(finished):
        state = load_checkpoint(path)
        save_checkpoint(finished, int(path.stem.split("_")[1]), {**state, "model": {}, "log_bytes": 0})
    metrics = (finished / "metrics.jsonl").read_bytes()
    code, complaint = resume(finished, capsys)
    assert code == 2 and "does not fit this model" in complaint
    assert (finished / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize(
    "setting", [("training.learning_rate", "0.002"), ("model.d_ff", "32"), ("seed", "7")]
)
def test_another_run_is_refused_and_the_setting_is_named(finished, capsys, setting):
    name, value = setting
    code, complaint = resume(finished, capsys, f"--{name}", value)
    assert code == 2 and name in complaint and value in complaint


def test_a_folder_without_flags_is_refused(finished, capsys):
    assert main(["train", TOY, "--output", str(finished)]) == 2
    complaint = capsys.readouterr().err
    assert "--resume" in complaint and "--overwrite" in complaint


def test_a_finished_run_is_left_alone(finished, capsys):
    assert resume(finished, capsys)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir() if path.is_file()}
    assert resume(finished, capsys)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished.iterdir() if path.is_file()}


def test_training_that_cannot_stay_finite_stops_and_keeps_its_checkpoint(tmp_path, capsys):
    folder = tmp_path / "run"
    wild = [
        "--training.learning_rate",
        "1e30",
        "--training.max_skipped",
        "3",
        "--training.checkpoint_every",
        "1",
    ]
    assert main(["train", TOY, *wild, "--output", str(folder)]) == 2
    complaint = capsys.readouterr().err
    assert "not finite" in complaint and "3 steps in a row" in complaint
    weights = load_checkpoint(checkpoint_files(folder)[-1])["model"]
    assert weights and all(bool(value.isfinite().all()) for value in weights.values()), "the last good state"
