# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md, chapters/day10_report.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.runs`."""

import inspect
import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock
from unittest.mock import patch

import torch
from safetensors.torch import save
from torch import Tensor, nn

from minitransformer.config import DataConfig, RunConfig, load_config, save_config
from minitransformer.data import Examples
from minitransformer.evaluate import Metrics
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.runs import (
    CHECKPOINTS_KEPT,
    RUN_FILES,
    FolderInUse,
    answer_records,
    append_record,
    checkpoint_files,
    checksum,
    git,
    in_use,
    load_checkpoint,
    load_run,
    machine_state,
    one_at_a_time,
    open_run_folder,
    pack,
    read_answers,
    read_evaluations,
    read_predictions,
    read_records,
    read_run_record,
    record_evaluation,
    save_checkpoint,
    ship,
    source_state,
    unpack,
    without_paths,
    write_atomically,
    write_json,
    writing,
)
from minitransformer.tokenizer import Vocabulary, WordTokenizer


# chapters/day05_training.md · Where a number comes from
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


# chapters/day05_training.md · Where a number comes from
def test_source_state_and_machine_state_say_what_ran() -> None:
    source, machine = source_state(), machine_state()
    assert re.fullmatch("[0-9a-f]{64}", source["sources_sha256"])
    assert source["commit"] is None or re.fullmatch("[0-9a-f]{40}", source["commit"])
    assert machine["torch"] == torch.__version__ and machine["threads"] >= 1 and machine["cpu"]
    with tempfile.TemporaryDirectory() as folder:
        assert git(Path(folder), "no-such-command") == ""


# chapters/day05_training.md · The run folder
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


# chapters/day06_engineering.md · The half-written file
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


# chapters/day06_engineering.md · One file, without pickle
def test_pack_and_unpack_are_inverse() -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1)
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "odd": [None, True, 2**40, 1e-7, {}, torch.eye(3)[:, 1], torch.ones(2)],
    }
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(state, tensors))
    found = unpack(json.loads(text), tensors)
    assert list(found["optimizer"]["state"]) == [0, 1], "the keys must come back as numbers"
    assert found["odd"][:5] == state["odd"][:5] and all(map(torch.equal, found["odd"][5:], state["odd"][5:]))
    assert found["optimizer"]["param_groups"][0]["betas"] == [0.9, 0.999], "a tuple comes back as a list"
    for index, moments in state["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(found["optimizer"]["state"][index][name], value), name
    assert all(tensor.is_contiguous() for tensor in tensors.values())


# chapters/day06_engineering.md · One file, without pickle
def test_checkpoints_come_back_or_say_what_is_wrong() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        states = [{"step": step, "weight": torch.arange(5.0) * step} for step in (9, 10, 200)]
        for state in states:
            path = save_checkpoint(folder, state["step"], state)
        names = ["step_00000010.safetensors", "step_00000200.safetensors"]
        assert [p.name for p in checkpoint_files(folder)] == names and len(names) == CHECKPOINTS_KEPT
        for state, saved in zip(states[1:], checkpoint_files(folder), strict=True):
            found = load_checkpoint(saved)
            assert found["step"] == state["step"] and torch.equal(found["weight"], state["weight"])
        content = path.read_bytes()
        foreign = save({"x": torch.ones(2)}), save({"x": torch.ones(2)}, {"state": "{1"}), b"hello", b""
        cuts = [content[:size] for size in (1, 8, 40, len(content) // 2, len(content) - 1)]
        for wrong in [*foreign, *cuts]:
            path.write_bytes(wrong)
            try:
                load_checkpoint(path)
                raise AssertionError(f"{len(wrong)} wrong bytes were accepted")
            except ValueError as error:
                assert re.search("not a (complete safetensors file|checkpoint of a run)", str(error)), error
                assert str(path) in str(error)
                if wrong in foreign[:2]:
                    assert "but not a checkpoint" in str(error), error
        assert checkpoint_files(folder / "nowhere") == []


# chapters/day06_engineering.md · The run folder, version 2
def test_open_run_folder_resumes_or_overwrites() -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = open_run_folder(Path(base, "run"), resume=True)
        append_record(folder / "metrics.jsonl", {"kind": "epoch", "epoch": 1})
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "epo')  # killed while writing
        assert read_records(folder, "epoch") == [{"kind": "epoch", "epoch": 1}]
        save_checkpoint(folder, 3, {"step": 3})
        (folder / "predictions.jsonl").write_text('{"positive": 0.25, "correct": true}\n')
        assert read_predictions(folder) == [{"positive": 0.25, "correct": True}]
        for how, words in (({}, "--resume"), ({"overwrite": True, "resume": True}, "either")):
            try:
                open_run_folder(folder, **how)
                raise AssertionError(f"{how} was accepted")
            except ValueError as error:
                assert words in str(error) and "\n" not in str(error)
        open_run_folder(folder, resume=True)
        assert (folder / "metrics.jsonl").exists() and len(checkpoint_files(folder)) == 1
        open_run_folder(folder, overwrite=True)
        assert not any((folder / name).exists() for name in RUN_FILES) and not checkpoint_files(folder)


# chapters/day06_engineering.md · The run folder, version 2
def test_machine_state_names_the_device() -> None:
    for device in (None, torch.device("cpu")):
        assert machine_state(device)["device"] == "cpu" and machine_state(device)["cpu"]
    with mock.patch.object(torch.cuda, "get_device_name", return_value="a fast one"):
        assert machine_state(torch.device("cuda"))["device"] == "a fast one"
    with mock.patch("torch.get_device_module", return_value=object()):
        assert machine_state(torch.device("mps"))["device"] == "mps"


# chapters/day06_engineering.md · The run folder, version 2
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
        save_config(saved, folder / "config.yaml")
        model = TransformerForSequenceClassification(settings)
        model.save_pretrained(folder)
        tokenizer.save(folder / "tokenizer.json")
        config, found, words = load_run(folder)
        assert (config.seed, config.model) == (5, settings) and words.encode("c a") == tokenizer.encode("c a")
        assert torch.equal(found.classifier.weight, model.classifier.weight) and not found.training
        WordTokenizer(Vocabulary.from_texts(["a b c d"]), max_length=9).save(folder / "tokenizer.json")
        assert "not from one run" in refused(folder)


# chapters/day08_data_schedule_monitoring.md · Where the records go
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


# chapters/day09_sprint.md · The settings of a reading, and the run
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


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_write_json():
    with tempfile.TemporaryDirectory() as folder:
        path, record = Path(folder, "run.json"), {"class": "read", "data": {"made up": [1, None]}}
        write_json(path, record)
        assert json.loads(path.read_text()) == record and path.read_text().endswith("}\n")
        assert len(path.read_text().splitlines()) > 3, "for people to read"


# chapters/day09_sprint.md · An average of the weights
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


# chapters/day10_report.md · What a reading leaves behind
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


# chapters/day10_report.md · What a reading leaves behind
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


# chapters/day10_report.md · Weights that fit into a repository
def test_a_parcel_tells_no_folders() -> None:
    model = ModelConfig(31, 8, 2, 12)
    start = RunConfig("x", DataConfig("toy"), model, initial="/some/where/start")
    words = RunConfig("x", DataConfig("toy", tokenizer="/some/where/start", extra="/some/where/more"), model)
    files = RunConfig("x", DataConfig(train="/some/where/mine.csv", validation="/some/where/b.tsv"), model)
    assert without_paths(files).data == DataConfig(train="mine.csv", validation="b.tsv")
    with tempfile.TemporaryDirectory() as name:
        run = Path(name, "run")
        TransformerForSequenceClassification(model).save_pretrained(run)
        write_json(run / "run.json", {"class": "alone"})
        for i, config in enumerate((start, words)):
            save_config(config, run / "config.yaml")
            shipped = load_config(ship(run, Path(name, str(i))) / "config.yaml")
            assert [shipped.initial, shipped.data.tokenizer].count("start") == 1, shipped
            assert shipped.data.extra == ("more" if config is words else None)
            assert shipped == without_paths(config), "nothing but the paths may change"
            assert load_config(run / "config.yaml") == config, "the run itself must not change"


# chapters/day10_report.md · Weights that fit into a repository
def test_ship() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        run, folder = Path(name, "run"), Path(name, "shipped")
        model = TransformerForSequenceClassification(ModelConfig(31, 8, 2, 12)).eval()
        model.save_pretrained(run)
        try:
            ship(run, folder)
            raise AssertionError("an unfinished run")
        except ValueError as error:
            assert "does not hold a finished run" in str(error)
        write_json(run / "run.json", {"class": "alone"})
        (run / "notes.md").write_text("notes")
        config = RunConfig("x", DataConfig("toy"), ModelConfig(31, 8, 2, 12), initial=f"{name}/some/start")
        save_config(config, run / "config.yaml")
        with patch.dict(inspect.unwrap(ship).__globals__, {"save_shards": None}):
            try:
                ship(run, folder)
                raise AssertionError("it was not interrupted")
            except TypeError:
                assert not folder.exists(), "half a parcel must not look like a whole one"
        assert ship(run, folder, largest=2000) == folder and not Path(name, "shipped.tmp").exists()
        assert load_config(folder / "config.yaml") == replace(config, initial="start"), (
            "no path of this machine"
        )
        sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
        assert len(sizes) > 1 and sum(sizes) < 0.7 * (run / "model.safetensors").stat().st_size
        assert (folder / "notes.md").read_text() == "notes" and (folder / "run.json").is_file()
        shipped = TransformerForSequenceClassification.from_pretrained(folder)
        ids = torch.tensor([[2, 7, 9, 3]])
        torch.testing.assert_close(shipped(ids), model(ids), rtol=0, atol=2e-3)
        assert not torch.equal(shipped(ids), model(ids)), "it is half precision"
        try:
            ship(run, folder)
            raise AssertionError("not empty")
        except ValueError as error:
            assert "is not empty" in str(error)
