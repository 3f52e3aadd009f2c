# Generated from chapters/day07_experiments.md, chapters/day10_report.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.report`."""

import inspect
import json
import math
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt

from minitransformer.cli import evaluate_run, main, report_evaluation
from minitransformer.config import DataConfig, RunConfig, load_config, save_config
from minitransformer.data import load_examples
from minitransformer.evaluate import Metrics, mean_interval
from minitransformer.model import ModelConfig
from minitransformer.report import (
    agreement,
    architecture,
    confidence_of,
    cost_line,
    device_name,
    draw_architecture,
    draw_calibration,
    draw_curves,
    drawing,
    evaluate_split,
    finished_record,
    flat_settings,
    group_rows,
    last_validation,
    markdown_table,
    measure_split,
    percent,
    result_rows,
    results_of,
    results_table,
    run_folders,
    section,
    settings_table,
    split_section,
    summarize,
    summary,
    table,
    without_folders,
    write_report,
)
from minitransformer.runs import append_record, read_answers, read_evaluations, read_run_record, write_json
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer
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


# chapters/day10_report.md · Rows, sections, page
def test_write_report_states_what_the_folder_holds() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        (run / "notes.md").write_text("## Goal\n\nA test.")
        for split in ("validation", "test"):
            evaluate_split(run, split)
        text = write_report(run).read_text()
        titles = re.findall(r"^## (.*)", text, re.MULTILINE)
        looks = [f"A closer look at the {split} split" for split in ("validation", "test")]
        assert titles == ["Goal", "Results", "Architecture", "Training", *looks, "Settings", "Origin"]
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert len(pictures) == 4 and all("<svg" in (run / name).read_text() for name in pictures)
        found = read_run_record(run)["evaluations"]["test"]
        low, high = Metrics(found["n"], found["accuracy"], found["loss"]).interval95
        assert f"| test | 500 | {percent(found['accuracy'])} | {percent(low)} to {percent(high)} |" in text
        assert "| `training.batch_size` | `64` |" in text and "Class *alone*" in text
        assert agreement(run) in text and "1 epoch in" in text
        files = {path.name: path.read_bytes() for path in run.glob("*.svg")}
        assert write_report(run).read_text() == text, "the same run gives the same report"
        assert {path.name: path.read_bytes() for path in run.glob("*.svg")} == files
        answers = read_answers(run, "test")
        rows = {row[0]: row for row in group_rows(answers)}
        assert list(rows)[:2] == ["up to 10 words", "11 to 20 words"]
        members = [a for a in answers if a["negation"]]
        share = sum(a["correct"] for a in members) / len(members)
        assert rows["with a negation"][1:3] == [len(members), percent(share)]
        confidence, correct = confidence_of(answers)
        assert confidence.min() >= 0.5 and correct.sum() == round(found["accuracy"] * 500)


# chapters/day10_report.md · What a reading leaves behind
def small_run(folder: Path) -> Path:
    """A run of a few seconds on toy reviews."""
    model = ModelConfig(vocab_size=500, d_model=16, num_heads=2, d_ff=32, num_layers=1, max_length=32)
    with redirect_stdout(StringIO()):
        fit(RunConfig("small", DataConfig("toy", train_size=400), model), folder)
    return folder


# chapters/day10_report.md · What a reading leaves behind
def test_readings_are_counted() -> None:
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
        assert evaluate_split(run, "validation", record=False) == (source, metrics)
        assert measure_split(run, "validation")[:2] == (source, metrics)
        assert "validation" not in read_evaluations(run) and metrics == last_validation(run)
        assert source == load_examples("toy", "validation").source


# chapters/day10_report.md · What a reading leaves behind
def test_the_shipped_model_is_not_counted() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        before = (run / "run.json").read_bytes()
        with patch.dict(inspect.unwrap(report_evaluation).__globals__, {"SHIPPED": run}):
            with redirect_stdout(StringIO()) as out:
                report_evaluation(run, "test", False)
        assert "accuracy" in out.getvalue() and "reading" not in out.getvalue()
        assert (run / "run.json").read_bytes() == before and read_answers(run, "test") == []
        (run / "run.json").unlink()
        with redirect_stdout(StringIO()) as out:
            report_evaluation(run, "test", False)
        assert "accuracy" in out.getvalue() and not (run / "run.json").exists(), "nothing to count in"


# chapters/day10_report.md · Pictures that change only if the run does
def test_pictures_hold_what_they_should() -> None:
    answers = [{"positive": p, "correct": c} for p, c in ((0.9, True), (0.2, False), (0.95, True))]
    with tempfile.TemporaryDirectory() as name:
        run = small_run(Path(name, "run"))
        model = ModelConfig(31, 12, 4, 20, 3)
        pictures = {
            "architecture": lambda path: draw_architecture(model, path),
            "curves": lambda path: draw_curves(run).rename(path),
            "calibration": lambda path: draw_calibration(answers, path),
        }
        with drawing(Path(name, "empty.svg"), 2, 1):
            pass
        assert Path(name, "empty.svg").read_text().startswith("<?xml")
        for title, draw in pictures.items():
            first = draw(Path(name, f"{title}1.svg")).read_text()
            with plt.style.context("dark_background"):
                second = draw(Path(name, f"{title}2.svg")).read_text()
            assert first == second and first.startswith("<?xml"), f"{title}: two drawings differ"
        text = Path(name, "architecture1.svg").read_text()  # text is drawn; a comment says what it reads
        assert all(f"<!-- {part} -->" in text for i, part in enumerate(architecture(model)) if i != 2), (
            "a part is missing"
        )
        assert "<!-- × 3 -->" in text, "the number of layers is missing"


# chapters/day10_report.md · Rows, sections, page
def test_report_without_evaluations() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        text = write_report(run).read_text()
        assert "A closer look" not in text and "## Results" in text and agreement(run) == ""
        assert results_table(run) in text
        gpu = {"machine": {"device": "a GPU", "cpu": "a CPU"}}
        assert (
            device_name(gpu) == "a GPU"
            and device_name({"machine": gpu["machine"] | {"device": "cpu"}}) == "a CPU"
        )
        rows = result_rows(run)
        assert [row[:3] for row in rows] == [["validation", 500, percent(last_validation(run).accuracy)]]
        assert rows[0][-1] == "", "nobody has read validation but the run itself"
        assert cost_line(run).startswith("1 epoch in") and cost_line(run) in text
        assert finished_record(run) == read_run_record(run) and split_section(run, "test") == ""


# chapters/day10_report.md · Rows, sections, page
def test_agreement_is_worded_by_its_interval() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epoch = {"kind": "epoch", "epoch": 1, "validation": asdict(Metrics(872, 0.8, 0.5))}
        (folder / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
        for accuracy, words in (
            (0.81, "no difference beyond"),
            (0.9, "a higher accuracy"),
            (0.7, "a lower accuracy"),
        ):
            evaluations = {"test": {"readings": 1, **asdict(Metrics(1821, accuracy, 0.5))}}
            write_json(folder / "run.json", {"class": "alone", "evaluations": evaluations})
            assert words in agreement(folder), agreement(folder)
            assert list(results_of(folder)) == ["validation", "test"]
            assert results_of(folder)["test"] == (Metrics(1821, accuracy, 0.5), 1)


# chapters/day10_report.md · Rows, sections, page
def test_parts_of_a_report() -> None:
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"
    assert section("T", "one", "", "two") == "## T\n\none\n\ntwo"
    before = architecture(ModelConfig(31, 12, 4, 20, 3, pooling="mean"))
    assert before[0] == "token embedding: 31 × 12" and "3 × encoder layer, pre-norm" in before[2]
    assert before[3] == "norm → self-attention: 4 heads of width 3 → add" and "mean" in before[6]
    bert = {"norm_first": False, "embedding_norm": True}  # the second exists from Day 11 on
    known = {key: value for key, value in bert.items() if key in ModelConfig.__annotations__}
    after = architecture(ModelConfig(31, 12, 4, 20, 3, **known))
    assert len(after) == len(before) - 1 and after[4] == "feed-forward: 12 → 20 → 12, gelu → add → norm"
    assert after[1].endswith(", norm") == ("embedding_norm" in known) and "[CLS]" in after[5]


# chapters/day10_report.md · Rows, sections, page
def test_report_tells_no_folders() -> None:
    paths = {"a": ["/x/z", 1], "b": {"c": ("/x/y",)}, "d": "x/y"}
    assert without_folders(paths) == {"a": ["z", 1], "b": {"c": ("y",)}, "d": "x/y"}
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        save_config(
            replace(load_config(run / "config.yaml"), initial=str(Path(folder, "start"))), run / "config.yaml"
        )
        start = {"folder": str(Path(folder, "start")), "file": "model.safetensors"}
        write_json(run / "run.json", read_run_record(run) | {"initial": start})
        evaluate_split(run, "test")
        text, config = write_report(run).read_text(), load_config(run / "config.yaml")
        assert settings_table(config) in text and flat_settings(config)["training.batch_size"] == 64
        assert (
            folder not in text and "`start/model.safetensors`" in text and "| `initial` | `start` |" in text
        )
        assert all(folder not in path.read_text() for path in run.glob("*.svg"))


# chapters/day10_report.md · Folders that are not what they seem
def assert_one_sentence(run: Path, command: str, file: str, content: str, part: str) -> None:
    """A file of a run replaced (removed, without content): the command ends with a sentence that holds `part`."""
    original = (run / file).read_bytes()
    (run / file).write_text(content) if content else (run / file).unlink()
    before = {path.name: path.read_bytes() for path in run.glob("*.*")}
    with redirect_stderr(StringIO()) as said, redirect_stdout(StringIO()):
        code = main([command, str(run)])
    message = said.getvalue()
    assert code == 2 and message.count("\n") == 1 and part in message, (command, file, part, message)
    after = {path.name: path.read_bytes() for path in run.glob("*.*")}
    assert after == before, f"{command} failed on a broken {file} and yet changed the folder"
    (run / file).write_bytes(original)


# chapters/day10_report.md · Folders that are not what they seem
def test_evaluate_refuses_what_is_no_run() -> None:
    other = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "one"]), 12)
    with tempfile.TemporaryDirectory() as name:
        run, foreign = small_run(Path(name, "run")), Path(name, "other.json")
        other.save(foreign)
        uncounted = json.dumps(read_run_record(run) | {"evaluations": {"validation": {"n": 2}}})
        for file, content, part in [
            ("config.yaml", "", "there is no config.yaml"),
            ("config.yaml", "hello: 1", "hello"),
            ("config.json", "[]", "is not the config of a model"),
            ("model.safetensors", "cut off", "is not a complete safetensors file"),
            ("model.safetensors", "", "there is no such file"),
            ("tokenizer.json", foreign.read_text(), "they are not from one run"),
            ("tokenizer.json", "{", "tokenizer.json"),
            ("run.json", "{", "is not the record of a run"),
            ("run.json", uncounted, "its evaluations are broken"),
        ]:
            assert_one_sentence(run, "evaluate", file, content, part)
        with redirect_stderr(StringIO()) as said:
            assert main(["evaluate", str(Path(name, "nowhere"))]) == 2 and "config.yaml" in said.getvalue()
        (run / "run.json").write_text(uncounted)
        with patch.dict(inspect.unwrap(evaluate_split).__globals__, {"predict": None}):
            try:
                evaluate_split(run, "test")
                raise AssertionError("a split was read that could not be counted")
            except ValueError as error:
                assert "its evaluations are broken" in str(error)


# chapters/day10_report.md · Folders that are not what they seem
def test_report_refuses_what_is_no_finished_run() -> None:
    with tempfile.TemporaryDirectory() as name:
        run = small_run(Path(name, "run"))
        evaluate_split(run, "test")
        record = read_run_record(run)
        nameless = {key: value for key, value in record.items() if key != "machine"}
        for file, content, part in [
            ("run.json", "", "does not hold a finished run"),
            ("run.json", "{}", "names no class"),
            ("run.json", json.dumps(nameless), "does not name its machine"),
            ("run.json", json.dumps(record | {"class": "lucky"}), "must be one of alone, read, taught"),
            ("run.json", json.dumps(record | {"evaluations": {"test": {}}}), "evaluations are broken"),
            ("metrics.jsonl", "", "there is no metrics.jsonl"),
            ("metrics.jsonl", "3\n", "every line must be a JSON object"),
            ("metrics.jsonl", '{"kind": "step"}\n', "does not hold the end of an epoch"),
            ("answers_test.jsonl", "{}\n", "answers_test.jsonl, line 1: this is not an answer"),
            ("config.yaml", "", "there is no config file"),
        ]:
            assert_one_sentence(run, "report", file, content, part)
        with redirect_stderr(StringIO()) as said:
            assert main(["report", str(Path(name, "nowhere"))]) == 2 and "does not hold" in said.getvalue()
