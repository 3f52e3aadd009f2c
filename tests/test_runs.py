# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.runs`."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from minitransformer.data import Examples
from minitransformer.runs import (
    RUN_FILES,
    append_record,
    checksum,
    git,
    machine_state,
    open_run_folder,
    read_records,
    source_state,
)


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
