"""Runs in the world as it is: a second process, a kill, a full disk, a folder that can only be read, a closed pipe."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from book.press.floors import ROOT
from minitransformer import cli
from minitransformer.cli import main

BASE = """name: base
data: {name: toy, train_size: 400}
model: {vocab_size: 500, d_model: 32, num_heads: 4, d_ff: 64, num_layers: 2, max_length: 32}
training: {epochs: 2, batch_size: 16, checkpoint_every: 5, log_every: 1}
"""
PLAN = """name: plan
base: base.yaml
seeds: [0]
variants: {a: {}, b: {training.epochs: 1, data.train_size: 32}}
"""
SHORT = ("--data.train_size", "64", "--training.epochs", "1")
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture
def base(tmp_path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


@pytest.fixture
def run(base, tmp_path, capsys) -> Path:
    """A small finished run."""
    assert main(["train", str(base), *SHORT, "--output", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def said(capsys, code: int, *arguments: object) -> tuple[str, str]:
    """What a command prints on both streams; of a failure, one sentence."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err and (code == 0 or len(err.splitlines()) == 1), err
    return out, err


def steps(folder: Path) -> list[int]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["kind"] == "step"]


def command(*arguments: object, **options) -> subprocess.Popen:
    """The command `minitransformer` in a process of its own, as a terminal would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "minitransformer", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {}),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


# --- two processes in one folder


@posix
def test_a_folder_belongs_to_one_process_until_it_ends_in_whatever_way(base, tmp_path, capsys, monkeypatch):
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    search = ("search", tmp_path / "plan.yaml", "--output", tmp_path / "runs")
    first, held = tmp_path / "runs/a_seed0", "a_seed0 is in use by another process"
    holder = command(*search, stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        while not list(first.glob("checkpoints/*.safetensors")) and holder.poll() is None:
            time.sleep(0.01)
        holder.send_signal(signal.SIGSTOP)  # it is alive, and keeps its folder
        assert holder.poll() is None, holder.communicate()[1]
        before = (first / "metrics.jsonl").read_bytes()
        again = ("train", base, "--name", "a", "--output", first)
        assert held in said(capsys, 2, *again)[1]
        assert held in said(capsys, 2, *again, "--resume")[1]
        assert held in said(capsys, 2, *again, "--overwrite")[1]
        out, err = said(capsys, 0, *search)
        assert held in err and "b" in out, "a second search passes over the run and says so"
        assert (tmp_path / "runs/b_seed0/run.json").exists()
        assert (first / "metrics.jsonl").read_bytes() == before and not (first / "run.json").exists()
    finally:
        holder.kill()
        holder.wait()
    out, err = said(capsys, 0, *again, "--resume")
    assert "going on after step" in out and err == "", "the lock of a killed process stops nobody"
    found = steps(first)
    assert found == list(range(1, 1 + len(found))) and len(found) == 2 * 25, "every step stands there once"


def test_a_run_that_comes_to_nothing_leaves_no_folder(tmp_path, base, capsys):
    said(capsys, 2, "train", base, "--data.train_size", "100000000", "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- a full disk


@pytest.fixture
def small_files():
    """Switches on and off that no file can grow beyond some bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)


def test_a_full_disk_is_one_sentence_and_costs_only_what_was_being_written(
    base, tmp_path, capsys, small_files
):
    train = ("train", base, *SHORT, "--output", tmp_path / "run")
    small_files(50_000)
    _, err = said(capsys, 2, *train)
    assert re.search(r"checkpoints/step_\d+\.safetensors cannot be written: File too large; ", err), err
    assert "--resume" in err and not list(tmp_path.rglob("*.tmp"))
    small_files(None)
    said(capsys, 0, *train, "--resume")
    assert steps(tmp_path / "run") == [1, 2, 3, 4]

    model, run = tmp_path / "run/model.safetensors", tmp_path / "run/run.json"
    weights = model.read_bytes()
    model.unlink()
    run.unlink()
    small_files(50_000)
    _, err = said(capsys, 2, *train, "--resume")
    assert "model.safetensors cannot be written: " in err, err
    assert not run.exists() and not list(tmp_path.rglob("*.tmp"))
    small_files(None)
    said(capsys, 0, *train, "--resume")
    assert model.read_bytes() == weights


# --- a folder that can only be read


@pytest.fixture
def read_only(run, monkeypatch):
    """The folder of a finished run that cannot be written to. Root may write anywhere: it is refused by hand."""
    for path in (run, *run.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.access(run, os.W_OK):
        os_open, io_open, access = os.open, io.open, os.access

        def refuse(path: object, writes: object) -> None:
            if writes and isinstance(path, str | Path) and run in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))

        def opened(path, flags, *rest, **options):
            refuse(path, flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            return os_open(path, flags, *rest, **options)

        def file(path, mode="r", *rest, **options):
            refuse(path, set("wax+") & set(mode))
            return io_open(path, mode, *rest, **options)

        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(io, "open", file)
        monkeypatch.setattr("builtins.open", file)
        monkeypatch.setattr(
            os, "access", lambda path, mode, **o: access(path, mode, **o) and not mode & os.W_OK
        )
    yield run
    run.chmod(0o755)


def test_evaluate_prints_a_figure_that_it_cannot_record(read_only, capsys):
    out, err = said(capsys, 2, "evaluate", read_only)
    assert re.search(r"\d\d\.\d+ %", out) and "reading" not in out, out
    assert "the figure could not be recorded: " in err and "Permission denied" in err
    record = json.loads(said(capsys, 2, "evaluate", read_only, "--json")[0])
    assert 0 <= record["accuracy"] <= 1


def test_a_finished_run_that_can_only_be_read_is_still_finished(read_only, base, capsys):
    out, err = said(capsys, 0, "train", base, *SHORT, "--output", read_only, "--resume")
    assert "is finished" in out and err == ""
    _, err = said(capsys, 2, "train", base, "--output", read_only.parent / "base.yaml")
    assert "base.yaml is a file" in err


# --- weights in several files


def test_a_run_starts_from_the_shipped_model(tmp_path, capsys):
    shipped, rows = ROOT / "book/runs/shipped", tmp_path / "rows.csv"
    rows.write_text("text,label\na fine film,1\na dull film,0\n")
    settings = [
        "--data.name",
        "files",
        "--data.train",
        rows,
        "--data.validation",
        rows,
        "--training.epochs",
        1,
    ]
    settings += ["--initial", shipped, "--training.device", "cpu", "--training.autocast", "fp32"]
    out = tmp_path / "run"
    said(capsys, 0, "train", shipped / "config.yaml", *settings, "--output", out)
    origin = json.loads((out / "run.json").read_text())["initial"]
    assert origin["folder"] == "shipped" and "model-00003-of-00003.safetensors" in origin["file"]
    assert re.fullmatch("[0-9a-f]{64}", origin["sha256"]) and steps(out) == [1]


def test_a_bert_in_several_files_is_converted_like_one_in_one_file(tmp_path, capsys):
    from transformers import BertConfig, BertModel

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "film"]
    sizes = {"vocab_size": len(tokens), "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 20}
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**sizes, num_hidden_layers=2, max_position_embeddings=64))
    for name, size in {"one": "1MB", "several": "4KB"}.items():
        bert.save_pretrained(tmp_path / name, max_shard_size=size)
        (tmp_path / name / "vocab.txt").write_text("\n".join(tokens) + "\n")
        said(capsys, 0, "convert", tmp_path / name, tmp_path / f"from_{name}", "--max-length", 32)
    assert len(list((tmp_path / "several").glob("model-*.safetensors"))) > 1
    one, several = (load_file(tmp_path / f"from_{name}/model.safetensors") for name in ("one", "several"))
    assert one.keys() == several.keys() and all(torch.equal(one[name], several[name]) for name in one)
    origins = [
        json.loads((tmp_path / f"from_{name}/run.json").read_text())["origin"] for name in ("one", "several")
    ]
    assert origins[0]["file"] == "model.safetensors" and origins[1]["file"].count("model-0") > 1


# --- a reader who leaves, and Ctrl-C


@posix
def test_nobody_reads_the_output(run):
    reading, writing = os.pipe()
    os.close(reading)  # as `head -1` does when it has its line
    process = command("report", run, stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=120)[1] == "" and process.returncode == 141


@posix
def test_ctrl_c_while_pytorch_is_loaded_is_one_sentence(tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = command("--help", stdout=subprocess.PIPE, env={"PYTHONPATH": path})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "minitransformer: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "configs/toy.yaml"], "; --resume goes on from the last checkpoint"),
        (["search", "configs/search.yaml"], "; the same command goes on where it stopped"),
        (["evaluate", "runs/x"], ""),
        (["predict", "a film"], ""),
        (["report", "runs/x"], ""),
    ],
)
def test_ctrl_c_names_what_the_command_has(arguments, hint, capsys, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run_command", interrupted)
    assert said(capsys, 130, *arguments)[1] == f"minitransformer: interrupted{hint}\n"
