# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.folder`."""

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from huggingface_hub import save_torch_state_dict

import minitransformer
from minitransformer.data import Examples
from minitransformer.evaluate import Metrics
from minitransformer.experiment.folder import (
    _RUN_FILES,
    FolderInUse,
    _answer_records,
    _append_record,
    _earlier_run,
    _file_digest,
    _git,
    _in_use,
    _origin,
    _record_evaluation,
    _remove,
    _source_state,
    _write_atomically,
    _write_json,
    _writing,
    checkpoint_files,
    checksum,
    last_validation,
    load_run,
    machine_state,
    read_answers,
    read_evaluations,
    read_predictions,
    read_records,
    read_run_record,
)
from minitransformer.experiment.settings import DataConfig, RunConfig, _save_settings
from minitransformer.model import ModelConfig, TransformerForSequenceClassification, _weight_files
from minitransformer.tokenizer import Vocabulary, WordTokenizer


# chapters/workshop_runs.md · The half-written file
def test_write_atomically_leaves_old_or_new() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state")
        _write_atomically(path, b"old")
        for place, broken in ((os, "fsync"), (Path, "replace")):
            with (
                mock.patch.object(place, broken, side_effect=OSError("disk")),
                pytest.raises(OSError, match="disk"),
            ):
                _write_atomically(path, b"new")
            assert path.read_bytes() == b"old", f"{broken} failed, the old is gone"
            assert os.listdir(folder) == ["state"], f"{broken} left half a file"
        _write_atomically(path, b"new")
        assert path.read_bytes() == b"new" and os.listdir(folder) == ["state"]


def test_write_atomically_forces_the_content_before_the_name() -> None:
    order: list[str] = []
    replaced, synced = Path.replace, os.fsync

    def sync(number: int) -> None:
        order.append("fsync")
        synced(number)

    def rename(path: Path, target: Path) -> None:
        order.append("rename")
        replaced(path, target)

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(os, "fsync", sync),
        mock.patch.object(Path, "replace", rename),
    ):
        _write_atomically(Path(folder, "state"), b"new")
    assert order[:2] == ["fsync", "rename"], order


def test_writing_names_the_file_that_found_no_room() -> None:
    with pytest.raises(OSError, match=r"big cannot be written: No space left on device; .*--resume"):
        with _writing("big"):
            raise OSError(28, "No space left on device")


def test_write_json() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        record = {"class": "read", "data": {"made up": [1, None]}}
        _write_json(path, record)
        text = path.read_text()
        assert json.loads(text) == record and text.endswith("}\n")
        assert len(text.splitlines()) > 3, "for people to read"
        lines = Path(folder, "answers.jsonl")
        _write_json(lines, [record, {}])
        assert list(map(json.loads, lines.read_text().splitlines())) == [record, {}]


# chapters/workshop_runs.md · The folder of a run
def test_an_earlier_run_is_protected() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        _earlier_run(folder)
        log, step = folder / "metrics.jsonl", {"kind": "step", "step": 1, "loss": 0.7}
        _append_record(log, step)
        _append_record(log, {"kind": "epoch", "epoch": 1})
        with log.open("a") as file:
            file.write('{"kind": "epo')  # killed while writing
        assert read_records(folder, "step") == [step]
        assert read_records(folder, "epoch") == [{"kind": "epoch", "epoch": 1}]
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"\(metrics.jsonl\): say --resume"):
            _earlier_run(folder)
        _earlier_run(folder, resume=True)
        assert log.exists()
        _remove(_earlier_run(folder, overwrite=True))
        assert os.listdir(folder) == ["notes.txt"], "only the run's own files go"


def test_an_earlier_run_is_resumed_or_overwritten() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        _earlier_run(folder, resume=True)
        validation = asdict(Metrics(8, 0.75, 0.5))
        for epoch in (1, 2):
            _append_record(
                folder / "metrics.jsonl", {"kind": "epoch", "validation": validation | {"n": epoch}}
            )
        assert last_validation(folder) == Metrics(2, 0.75, 0.5)
        overflowed = {"kind": "epoch", "validation": validation | {"loss": math.nan}}
        _append_record(folder / "metrics.jsonl", overflowed)
        assert math.isnan(last_validation(folder).loss), "a float, as it was"
        odd = {"kind": "odd", "a": 1e-7, "b": {"c": math.nan, "d": -math.inf}, "e": True}
        _append_record(folder / "metrics.jsonl", odd)
        found = odd | {"b": {"c": None, "d": None}}
        assert read_records(folder, "odd") == [found], "a file that anyone can read"
        answer = {"positive": 0.25, "correct": True}
        _write_json(folder / "predictions.jsonl", [answer])
        assert read_predictions(folder) == [answer]
        step = "checkpoints/step_00000003.safetensors"
        for name in ("tensorboard/events", "corpus/tokens.npy", step):
            (folder / name).parent.mkdir()
            (folder / name).write_text("old")
        with pytest.raises(ValueError, match="either resumed or overwritten"):
            _earlier_run(folder, overwrite=True, resume=True)
        _earlier_run(folder, resume=True)
        assert len(checkpoint_files(folder)) == 1, "a run that goes on keeps them"
        assert (folder / "tensorboard/events").exists()
        _remove(_earlier_run(folder, overwrite=True))
        assert not checkpoint_files(folder) and not (folder / "tensorboard").exists()
        assert (folder / "corpus/tokens.npy").exists(), "it is used again if it fits"
        assert not any((folder / name).exists() for name in _RUN_FILES)
        assert checkpoint_files(folder / "nowhere") == []


# chapters/workshop_runs.md · Where a number comes from
def test_origin_inherits_the_class() -> None:
    config = RunConfig("x", DataConfig("toy"), ModelConfig(50, 8, 2))
    with tempfile.TemporaryDirectory() as base:
        source = Path(base, "source")
        source.mkdir()
        for name in ("model.safetensors", "tokenizer.json"):
            (source / name).write_text(name)
        starts = replace(config, initial=str(source))
        speaks = replace(config, data=DataConfig("toy", tokenizer=str(source)))
        for kind in ("alone", "read", "taught"):
            _write_json(source / "run.json", {"class": kind})
            for start, name in ((starts, "model.safetensors"), (speaks, "tokenizer.json")):
                found = {"folder": "source", **_file_digest(source / name)}
                assert _origin(start) == (kind, found) and found["file"] == name
        assert _origin(config) == ("alone", {})


def test_checksum_sees_every_change() -> None:
    examples = Examples(["a b", "c"], [0, 1], "here")
    elsewhere = replace(examples, source="there")
    assert checksum(examples) == checksum(elsewhere), "the same data"
    for other in (
        Examples(["a b", "d"], [0, 1], ""),
        Examples(["a b", "c"], [1, 1], ""),
        Examples(["c", "a b"], [1, 0], ""),
    ):
        assert checksum(other) != checksum(examples)


def test_source_state_and_machine_state_say_what_ran() -> None:
    source, machine = _source_state(), machine_state()
    assert re.fullmatch("[0-9a-f]{64}", source["sources_sha256"])
    assert source["commit"] is None or re.fullmatch("[0-9a-f]{40}", source["commit"])
    assert (source["dirty"] is None) == (source["commit"] is None)
    assert machine["torch"] == torch.__version__ and machine["threads"] >= 1
    with tempfile.TemporaryDirectory() as folder:
        assert _git(Path(folder), "no-such-command") == ""
        with mock.patch.object(minitransformer, "__file__", f"{folder}/__init__.py"):
            untracked = _source_state()
        assert untracked["commit"] is untracked["dirty"] is None
        assert untracked["sources_sha256"] != source["sources_sha256"]


def test_machine_state_names_the_device() -> None:
    for device in (None, torch.device("cpu")):
        assert machine_state(device)["device"] == "cpu" and machine_state(device)["cpu"]
    with mock.patch.object(torch.cuda, "get_device_name", return_value="a fast one"):
        assert machine_state(torch.device("cuda"))["device"] == "a fast one"
    with mock.patch("torch.get_device_module", return_value=object()):
        assert machine_state(torch.device("mps"))["device"] == "mps"


def test_read_run_record_refuses() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        for content, reason in [
            (None, "does not hold a finished run: there is no run.json in it"),
            ("{", "is not the record of a run"),
            ("[]", "it names no class"),
            ('{"name": "x"}', "it names no class"),
        ]:
            if content is not None:
                path.write_text(content)
            with pytest.raises(ValueError, match=f"{re.escape(folder)}.*{reason}"):
                read_run_record(folder)
        path.write_text('{"class": "read"}')
        assert read_run_record(folder) == {"class": "read"}


def test_a_run_starts_from_shards() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {"a": torch.ones(300), "b": torch.zeros(300)}
        save_torch_state_dict(weights, folder, max_shard_size=1300)
        whole = folder / "model.safetensors"
        files = _weight_files(whole)
        content = b"".join(file.read_bytes() for file in files)
        assert len(files) == 2 and _weight_files(files[0]) == files[:1]
        found = _file_digest(whole)
        names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        assert found["file"] == ", ".join(names)
        assert found["sha256"] == hashlib.sha256(content).hexdigest()
        _write_json(folder / "run.json", {"class": "taught"})
        config = RunConfig("x", DataConfig("toy"), ModelConfig(50, 8, 2), initial=name)
        assert _origin(config) == ("taught", {"folder": folder.name, **found})


def test_load_run_gives_back_what_was_saved() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        with pytest.raises(ValueError, match="not the folder of a run"):
            load_run(folder)
        tokenizer = WordTokenizer(Vocabulary.from_texts(["a b c"]), max_length=9)
        size = ModelConfig(len(tokenizer.vocabulary), 12, 3, 20, max_length=9)
        saved = RunConfig("x", DataConfig("toy"), size, seed=5)
        _save_settings(saved, folder / "config.yaml")
        model = TransformerForSequenceClassification(size)
        model.save_pretrained(folder)
        tokenizer.save(folder / "tokenizer.json")
        config, found, words = load_run(folder)
        assert config == saved and words.encode("c a") == tokenizer.encode("c a")
        assert torch.equal(found.classifier.weight, model.classifier.weight)
        assert not found.training
        others = WordTokenizer(Vocabulary.from_texts(["a b c d"]), max_length=9)
        others.save(folder / "tokenizer.json")
        with pytest.raises(ValueError, match="not from one run"):
            load_run(folder)


# chapters/workshop_runs.md · One process at a time
def test_a_folder_is_kept_to_one_process() -> None:
    def refused(error: type, match: str) -> None:
        with pytest.raises(error, match=match), _in_use(folder):
            raise AssertionError("two at a time")

    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "run")
        with _in_use(str(folder)) as made:
            assert made == folder and folder.is_dir()
        assert not folder.exists(), "nothing has come of it"
        with _in_use(folder):
            refused(FolderInUse, "run is in use by another process")
            (folder / "kept").touch()
        with _in_use(folder):
            assert (folder / "kept").exists()
            shutil.rmtree(folder)
        assert not folder.exists(), "work may remove its folder"
        folder.touch()
        refused(ValueError, "run is a file, but a run needs a folder")


# chapters/workshop_runs.md · Answers, and how often a split was read
def test_every_reading_is_counted() -> None:
    logits, labels = torch.tensor([[1.0, 3.0], [0.0, 0.5]]), torch.tensor([1, 0])
    records = _answer_records(["not bad at all", "fine , but long"], logits, labels)
    right, wrong = records
    assert right["positive"] == 0.880797 and right["correct"] and right["negation"]
    assert not wrong["correct"] and wrong["contrast"] and wrong["words"] == 4
    metrics = Metrics(2, 0.5, 1.25)
    with tempfile.TemporaryDirectory() as folder:
        _write_json(Path(folder, "run.json"), {"class": "alone"})
        assert read_evaluations(folder) == {} and read_answers(folder, "test") == []
        for count in (1, 2):
            assert _record_evaluation(folder, "test", records, metrics) == count
        assert _record_evaluation(folder, "validation", records, metrics) == 1
        assert read_evaluations(folder)["test"] == {"readings": 2, **asdict(metrics)}
        assert read_answers(folder, "test") == records
        assert read_run_record(folder)["class"] == "alone"


def test_broken_answers_and_evaluations_are_named() -> None:
    good = _answer_records(["a"], torch.tensor([[0.0, 1.0]]), torch.tensor([1]))[0]
    with tempfile.TemporaryDirectory() as name:
        run, path = Path(name, "run.json"), Path(name, "answers_test.jsonl")
        assert path.name in _RUN_FILES
        for broken in ("[]\n", "{\n", '{"positive": 1}\n', "3\n"):
            path.write_text(json.dumps(good) + "\n" + broken)
            with pytest.raises(ValueError, match=r"answers_test.jsonl, line 2"):
                read_answers(name, "test")
        for broken in ("3", '{"test": 1}', '{"test": {"n": 2}}', "[1]"):
            run.write_text(f'{{"class": "alone", "evaluations": {broken}}}')
            with pytest.raises(ValueError, match="its evaluations are broken"):
                read_evaluations(name)
