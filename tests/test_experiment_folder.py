# Generated from chapters/workshop_runs.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.folder`."""

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from minitransformer.data import Examples
from minitransformer.evaluate import Metrics
from minitransformer.experiment.folder import (
    RUN_FILES,
    FolderInUse,
    answer_records,
    append_record,
    checksum,
    in_use,
    load_run,
    machine_state,
    one_at_a_time,
    open_run_folder,
    read_answers,
    read_evaluations,
    read_records,
    read_run_record,
    record_evaluation,
    write_atomically,
    write_json,
    writing,
)
from minitransformer.experiment.settings import DataConfig, RunConfig, save_settings
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer


# chapters/workshop_runs.md · The folder of a run: records, provenance, answers, and one process at a time.
def test_checksum_sees_every_change() -> None:
    examples = Examples(["a b", "c"], [0, 1], "here")
    assert checksum(examples) == checksum(replace(examples, source="there")), (
        "the same data from another place"
    )
    for other in (
        Examples(["a b", "d"], [0, 1], ""),
        Examples(["a b", "c"], [1, 1], ""),
        Examples(["c", "a b"], [1, 0], ""),
    ):
        assert checksum(other) != checksum(examples)


def test_open_run_folder_protects_an_earlier_run() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = open_run_folder(Path(base, "runs", "x"))
        append_record(folder / "metrics.jsonl", {"kind": "step", "step": 1, "loss": 0.7})
        append_record(folder / "metrics.jsonl", {"kind": "epoch", "epoch": 1})
        (folder / "notes.txt").write_text("mine")
        try:
            open_run_folder(folder)
            raise AssertionError("an earlier run was about to be overwritten")
        except ValueError as error:
            assert "metrics.jsonl" in str(error)
        assert read_records(folder, "step") == [{"kind": "step", "step": 1, "loss": 0.7}]
        assert [record["epoch"] for record in read_records(folder, "epoch")] == [1]
        open_run_folder(folder, overwrite=True)
        assert not (folder / "metrics.jsonl").exists() and (folder / "notes.txt").exists(), (
            "only the run's own files go"
        )
        assert "metrics.jsonl" in RUN_FILES
        try:
            open_run_folder(folder / "notes.txt")
            raise AssertionError("a file was taken for a folder")
        except ValueError as error:
            assert "notes.txt is a file" in str(error)
        try:
            with writing(folder / "big"):
                raise OSError(28, "No space left on device")
        except OSError as error:
            assert "big cannot be written: No space left on device; " in str(error)


def test_write_atomically_leaves_old_or_new() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state")
        write_atomically(path, b"old")
        assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["state"]
        order: list[str] = []
        replaced, synced = Path.replace, os.fsync
        for place, broken in ((os, "fsync"), (Path, "replace")):
            with mock.patch.object(place, broken, side_effect=OSError("disk")):
                try:
                    write_atomically(path, b"new")
                    raise AssertionError(f"a failing {broken} went unnoticed")
                except OSError:
                    assert path.read_bytes() == b"old", f"{broken} failed and the old state is gone"
                    assert len(list(path.parent.iterdir())) == 1, f"{broken} failed and half a file is left"
        with (
            mock.patch.object(os, "fsync", side_effect=lambda n: order.append("fsync") or synced(n)),
            mock.patch.object(
                Path,
                "replace",
                autospec=True,
                side_effect=lambda a, b: order.append("rename") or replaced(a, b),
            ),
        ):
            write_atomically(path, b"new")
        assert path.read_bytes() == b"new" and order[:2] == ["fsync", "rename"], order


def test_machine_state_names_the_device() -> None:
    for device in (None, torch.device("cpu")):
        assert machine_state(device)["device"] == "cpu" and machine_state(device)["cpu"]
    with mock.patch.object(torch.cuda, "get_device_name", return_value="a fast one"):
        assert machine_state(torch.device("cuda"))["device"] == "a fast one"
    with mock.patch("torch.get_device_module", return_value=object()):
        assert machine_state(torch.device("mps"))["device"] == "mps"


def test_load_run_gives_back_what_was_saved() -> None:
    def refused(folder: Path) -> str:
        try:
            load_run(folder)
        except ValueError as error:
            return str(error)
        raise AssertionError(f"{folder} was accepted")

    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        assert "not the folder of a run" in refused(folder)
        tokenizer = WordTokenizer(Vocabulary.from_texts(["a b c"]), max_length=9)
        settings = ModelConfig(len(tokenizer.vocabulary), d_model=12, num_heads=3, d_ff=20, max_length=9)
        saved = RunConfig("x", DataConfig("toy"), settings, seed=5)
        save_settings(saved, folder / "config.yaml")
        model = TransformerForSequenceClassification(settings)
        model.save_pretrained(folder)
        tokenizer.save(folder / "tokenizer.json")
        config, found, words = load_run(folder)
        assert (config.seed, config.model) == (5, settings) and words.encode("c a") == tokenizer.encode("c a")
        assert torch.equal(found.classifier.weight, model.classifier.weight) and not found.training
        WordTokenizer(Vocabulary.from_texts(["a b c d"]), max_length=9).save(folder / "tokenizer.json")
        assert "not from one run" in refused(folder)


def test_open_run_folder_removes_old_curves_only_when_told() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = open_run_folder(Path(base, "x"))
        (folder / "tensorboard").mkdir()
        for name in ("tensorboard/events", "metrics.jsonl", "notes.txt"):
            (folder / name).write_text("old")
        open_run_folder(folder, resume=True)
        assert (folder / "tensorboard/events").exists(), "a run that goes on keeps its curves"
        open_run_folder(folder, overwrite=True)
        assert not (folder / "tensorboard").exists() and not (folder / "metrics.jsonl").exists()
        assert (folder / "notes.txt").exists(), "only the run's own files go"


def test_a_folder_is_kept_to_one_process() -> None:
    def work(plan: str, folder: Path) -> str:
        """Work in a folder."""
        return plan

    alone = one_at_a_time(work)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "run")
        assert alone("a", folder) == alone("a", folder=folder) == "a" and not folder.exists()
        with in_use(folder):
            try:
                alone("a", folder)
                raise AssertionError("two worked in one folder")
            except FolderInUse as error:
                assert f"{folder} is in use by another process" in str(error)
            (folder / "kept").touch()
        assert alone("b", folder) == "b" and (folder / "kept").exists()
        with in_use(folder):
            shutil.rmtree(folder)
        assert not folder.exists(), "work may remove its folder"


def test_write_json():
    with tempfile.TemporaryDirectory() as folder:
        path, record = (Path(folder, "run.json"), {"class": "read", "data": {"made up": [1, None]}})
        write_json(path, record)
        assert json.loads(path.read_text()) == record and path.read_text().endswith("}\n")
        assert len(path.read_text().splitlines()) > 3, "for people to read"


def test_read_run_record_refuses():
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
            try:
                read_run_record(folder)
                raise AssertionError(content)
            except ValueError as error:
                assert reason in str(error) and folder in str(error)
        path.write_text('{"class": "read"}')
        assert read_run_record(folder) == {"class": "read"}


def test_answer_records() -> None:
    logits, labels = torch.tensor([[1.0, 3.0], [0.0, 0.5]]), torch.tensor([1, 0])
    first, second = answer_records(["not bad at all", "fine , but long"], logits, labels)
    expected = {
        "positive": 0.880797,
        "label": 1,
        "correct": True,
        "words": 4,
        "negation": True,
        "contrast": False,
    }
    assert first == expected, first
    assert second["correct"] is False and second["contrast"] is True and second["words"] == 4


def test_records_come_back() -> None:
    records = answer_records(["a", "b"], torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.tensor([1, 0]))
    metrics = Metrics(2, 0.5, 1.25)
    with tempfile.TemporaryDirectory() as name:
        run, path = Path(name, "run.json"), Path(name, "answers_test.jsonl")
        run.write_text('{"class": "alone"}')
        assert read_evaluations(name) == {} and read_answers(name, "test") == []
        assert [record_evaluation(name, "test", records, metrics) for _ in range(2)] == [1, 2]
        assert record_evaluation(name, "validation", records, metrics) == 1, "each split has its own count"
        assert read_evaluations(name)["test"] == {"readings": 2, "n": 2, "accuracy": 0.5, "loss": 1.25}
        assert read_answers(name, "test") == records and path.name in RUN_FILES
        for broken in ("[]\n", "{\n", '{"positive": 1}\n', "3\n"):
            path.write_text(json.dumps(records[0]) + "\n" + broken)
            try:
                read_answers(name, "test")
                raise AssertionError(f"{broken!r} was read")
            except ValueError as error:
                assert "answers_test.jsonl, line 2" in str(error), error
        for broken in ("3", '{"test": 1}', '{"test": {"n": 2}}', "[1]"):
            run.write_text(f'{{"class": "alone", "evaluations": {broken}}}')
            try:
                read_evaluations(name)
                raise AssertionError(f"{broken} was read")
            except ValueError as error:
                assert "its evaluations are broken" in str(error), error
