# Generated from chapters/day07_experiments.md, chapters/day10_report.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.report`."""

import json
import math
import re
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from minitransformer.cli import evaluate_run, report_evaluation
from minitransformer.config import DataConfig, RunConfig
from minitransformer.data import load_examples
from minitransformer.evaluate import Metrics, mean_interval
from minitransformer.model import ModelConfig
from minitransformer.report import (
    architecture,
    confidence_of,
    evaluate_split,
    group_rows,
    last_validation,
    markdown_table,
    percent,
    result_rows,
    run_folders,
    section,
    summarize,
    summary,
    table,
    write_report,
)
from minitransformer.runs import append_record, read_answers, read_run_record
from minitransformer.train import fit


# chapters/day07_experiments.md · From folders to a table
def write_run(folder: Path, name: str, seed: int, *accuracies: float) -> Path:
    """A finished run's folder with these validation accuracies, one per epoch, as far as a table needs it."""
    run = folder / f"{name}_seed{seed}"
    run.mkdir(parents=True)
    record = {"name": name, "seed": seed, "seconds": 10.0 + seed}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    for epoch, accuracy in enumerate(accuracies, 1):
        validation = {"n": 872, "accuracy": accuracy, "loss": 0.5}
        append_record(run / "metrics.jsonl", {"kind": "epoch", "epoch": epoch, "validation": validation})
    return run


# chapters/day07_experiments.md · From folders to a table
def test_run_folders_are_the_finished_runs() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = write_run(folder, "b", 0, 0.99, 0.85)
        write_run(folder, "a", 5, 0.9)
        (folder / "unfinished_seed0").mkdir()
        assert last_validation(run) == Metrics(872, 0.85, 0.5), "the last epoch counts, not the best"
        assert [path.name for path in run_folders(folder)] == ["a_seed5", "b_seed0"]


# chapters/day07_experiments.md · From folders to a table
def test_summarize_makes_one_row_of_each_variant() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, accuracy in ((0, 0.80), (1, 0.81), (2, 0.85)):
            write_run(folder, "three", seed, 0.99, accuracy)
        write_run(folder, "wide", 5, 0.9)  # last by name, best by accuracy
        wide, three = summarize(folder)
        assert wide == {"variant": "wide", "seeds": 1, "accuracy": 0.9, "half_width": None, "seconds": 15.0}
        assert (three["variant"], three["seeds"], three["seconds"]) == ("three", 3, 11.0)
        assert math.isclose(three["accuracy"], 0.82)
        assert math.isclose(three["half_width"], mean_interval([0.80, 0.81, 0.85])[1])
        assert summary("three", run_folders(folder)[:3]) == three
        table = markdown_table([wide, three]).splitlines()
        assert table[2:] == ["| wide | 1 | 90.0 % | 15 |", "| three | 3 | 82.0 ± 6.6 % | 11 |"]
        try:
            summarize(folder / "three_seed0")
            raise AssertionError("a folder without runs gave a table")
        except ValueError as error:
            assert "three_seed0" in str(error)


# chapters/day10_report.md · The final report
def test_write_report_states_what_the_folder_holds():
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        (run / "notes.md").write_text("## Goal\n\nA test.")
        for split in ("validation", "test"):
            evaluate_split(run, split)
        text = write_report(run).read_text()
        for title in (
            "Goal",
            "Results",
            "Architecture",
            "Training",
            "A closer look at the test split",
            "Settings",
            "Origin",
        ):
            assert f"## {title}\n" in text, title
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
            assert "<svg" in (run / picture).read_text(), picture
        assert len(re.findall(r"!\[", text)) == 4
        found = read_run_record(run)["evaluations"]["test"]
        low, high = Metrics(found["n"], found["accuracy"], found["loss"]).interval95
        assert f"| test | 500 | {percent(found['accuracy'])} | {percent(low)} to {percent(high)} |" in text
        assert "| `training.batch_size` | `64` |" in text and "Class *alone*" in text
        pictures = {path.name: path.read_bytes() for path in run.glob("*.svg")}
        assert write_report(run).read_text() == text, "the same run gives the same report"
        assert {path.name: path.read_bytes() for path in run.glob("*.svg")} == pictures
        answers = read_answers(run, "test")
        rows = {row[0]: row for row in group_rows(answers)}
        members = [a for a in answers if a["negation"]]
        assert rows["with a negation"][1:3] == [
            len(members),
            percent(sum(a["correct"] for a in members) / len(members)),
        ]
        confidence, correct = confidence_of(answers)
        assert confidence.min() >= 0.5 and correct.sum() == round(found["accuracy"] * 500)


# chapters/day10_report.md · The test split, counted
def small_run(folder: Path) -> Path:
    """A run of a few seconds on toy reviews."""
    model = ModelConfig(vocab_size=500, d_model=16, num_heads=2, d_ff=32, num_layers=1, max_length=32)
    with redirect_stdout(StringIO()):
        fit(RunConfig("small", DataConfig("toy", train_size=400), model), folder)
    return folder


# chapters/day10_report.md · The test split, counted
def test_readings_are_counted():
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        before = read_run_record(run)
        assert "evaluations" not in before and read_answers(run, "test") == []
        for reading in (1, 2):
            with redirect_stdout(StringIO()) as out:
                report_evaluation(run, "test", True)
            found = read_run_record(run)["evaluations"]["test"]
            assert (
                found["readings"] == reading and found["accuracy"] == json.loads(out.getvalue())["accuracy"]
            )
        answers = read_answers(run, "test")
        assert len(answers) == found["n"] == 500
        assert sum(a["correct"] for a in answers) == round(found["accuracy"] * 500)
        assert all(a["correct"] == ((a["positive"] > 0.5) == (a["label"] == 1)) for a in answers)
        assert answers[0]["words"] == len(load_examples("toy", "test").texts[0].split())
        assert {k: v for k, v in read_run_record(run).items() if k != "evaluations"} == before
        source, metrics = evaluate_run(run, "validation")
        assert (
            "evaluations" in read_run_record(run) and "validation" not in read_run_record(run)["evaluations"]
        )
        assert metrics == last_validation(run)


# chapters/day10_report.md · The final report
def test_report_without_evaluations():
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        text = write_report(run).read_text()
        assert "A closer look" not in text and "## Results" in text
        assert [row[:3] for row in result_rows(run)] == [
            ["validation", 500, percent(last_validation(run).accuracy)]
        ]
        (run / "run.json").unlink()
        try:
            write_report(run)
            raise AssertionError("no run")
        except ValueError as error:
            assert "does not hold a finished run" in str(error)
        (run / "run.json").write_text("{}")
        try:
            write_report(run)
            raise AssertionError("no class")
        except ValueError as error:
            assert "names no class" in str(error)


# chapters/day10_report.md · The final report
def test_parts_of_a_report():
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
    assert section("T", "one", "", "two") == "## T\n\none\n\ntwo"
    parts = architecture(ModelConfig(31, 12, 4, 20, 3, pooling="mean"))
    assert parts[0] == "token embedding: 31 × 12" and "3 × encoder layer, pre-norm" in parts[2]
    assert "4 heads of width 3" in parts[3] and "mean" in parts[5]
