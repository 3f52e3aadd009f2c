# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.report`."""

import inspect
import json
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import pytest

from minitransformer.data import load_examples
from minitransformer.evaluate import CalibrationBin, Metrics
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import (
    _append_record,
    _write_json,
    last_validation,
    read_answers,
    read_evaluations,
    read_run_record,
)
from minitransformer.experiment.report import (
    _agreement,
    _architecture,
    _device_name,
    _draw_architecture,
    _draw_calibration,
    _draw_curves,
    _last_parts,
    _measure_split,
    _percent,
    _render,
    _results_of,
    _results_table,
    evaluate_split,
    write_report,
)
from minitransformer.experiment.settings import DataConfig, RunConfig, _save_settings, read_settings
from minitransformer.model import ModelConfig
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer


# chapters/workshop_reports.md · Measuring a split, and counting the readings
def small_run(folder: Path) -> Path:
    """A run of a few seconds on toy reviews."""
    model = ModelConfig(vocab_size=500, d_model=16, num_heads=2, d_ff=32, num_layers=1, max_length=32)
    with redirect_stdout(StringIO()):
        fit(RunConfig("small", DataConfig("toy", train_size=400), model), folder)
    return folder


def test_readings_are_counted():
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        before = read_run_record(run)
        assert "evaluations" not in before and read_answers(run, "test") == []
        for reading in (1, 2):
            source, metrics = evaluate_split(run, "test")
            found = read_run_record(run)["evaluations"]["test"]
            assert found == {"readings": reading, **asdict(metrics)}
        answers = read_answers(run, "test")
        assert source == load_examples("toy", "test").source
        assert len(answers) == found["n"] == 500
        assert sum(a["correct"] for a in answers) == round(found["accuracy"] * 500)
        for a in answers:
            assert a["correct"] == ((a["positive"] > 0.5) == (a["label"] == 1))
        after = read_run_record(run)
        assert {key: after[key] for key in before} == before, "only readings are added"
        looked = evaluate_split(run, "validation", record=False)
        assert _measure_split(run, "validation")[:2] == looked, "and neither is counted"
        assert looked[1] == last_validation(run)
        assert "validation" not in read_evaluations(run)


def assert_refused(work: Callable[[Path], object], run: Path, file: str, content: str, words: str) -> None:
    """With a file of `run` replaced (removed, without content), `work` says so in one sentence and changes nothing."""
    original = (run / file).read_bytes()
    (run / file).write_text(content) if content else (run / file).unlink()
    before = {path.name: path.read_bytes() for path in run.glob("*.*")}
    with pytest.raises(ValueError, match=words) as found:
        work(run)
    assert "\n" not in str(found.value), found.value
    assert {path.name: path.read_bytes() for path in run.glob("*.*")} == before, file
    (run / file).write_bytes(original)


def test_evaluate_split_refuses_what_is_no_run():
    with tempfile.TemporaryDirectory() as name:
        run, foreign = small_run(Path(name, "run")), Path(name, "other.json")
        WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "one"]), 12).save(foreign)
        no_count = {"evaluations": {"validation": {"n": 2}}}
        uncounted = json.dumps(read_run_record(run) | no_count)
        for file, content, words in [
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
            unread = {"predict": None}  # a split that is read would be a TypeError
            with patch.dict(inspect.unwrap(_measure_split).__globals__, unread):
                assert_refused(lambda run: evaluate_split(run, "validation"), run, file, content, words)
        with pytest.raises(ValueError, match=r"there is no config\.yaml"):
            evaluate_split(Path(name, "nowhere"), "validation")


# chapters/workshop_reports.md · Pictures that change only if the run does
def test_pictures_hold_what_they_should():
    bins = [CalibrationBin(1, 0.8, 0.0), CalibrationBin(2, 0.92, 1.0)]
    with tempfile.TemporaryDirectory() as name:
        run, model = small_run(Path(name, "run")), ModelConfig(31, 12, 4, 20, 3)
        pictures = {
            "architecture": lambda path: _draw_architecture(model, path),
            "curves": lambda path: _draw_curves(run).rename(path),
            "calibration": lambda path: _draw_calibration(bins, path),
        }
        for title, draw in pictures.items():
            first = draw(Path(name, f"{title}1.svg")).read_text()
            with plt.style.context("dark_background"):
                second = draw(Path(name, f"{title}2.svg")).read_text()
            assert first == second and first.startswith("<?xml"), title
        # text is drawn; a comment says what it reads
        text = Path(name, "architecture1.svg").read_text()
        for part in _architecture(model):
            assert f"<!-- {part} -->" in text, "a part is missing"
        assert "<!-- × 3 -->" in text, "the number of layers is missing"


def test_architecture_in_words():
    before = _architecture(ModelConfig(31, 12, 4, 20, 3, pooling="mean"))
    assert before[0] == "token embedding: 31 × 12"
    assert before[2] == "norm → self-attention: 4 heads of width 3 → add"
    assert "mean" in before[5]
    bert = ModelConfig(31, 12, 4, 20, 3, norm_first=False, embedding_norm=True)
    after = _architecture(bert)
    assert len(after) == len(before) - 1
    assert after[3] == "feed-forward: 12 → 20 → 12, gelu → add → norm"
    assert after[1].endswith(", norm") and "[CLS]" in after[4]


# chapters/workshop_reports.md · The page is a template
def test_write_report_states_what_the_folder_holds():
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        (run / "notes.md").write_text("## Goal\n\nA test.")
        for split in ("validation", "test"):
            evaluate_split(run, split)
        text = write_report(run).read_text()
        looks = [f"A closer look at the {part} split" for part in ("validation", "test")]
        titles = ["Goal", "Results", "Architecture", "Training", *looks]
        titles += ["Settings", "Origin"]
        assert re.findall(r"^## (.*)", text, re.MULTILINE) == titles
        names = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
        assert len(names) == 4
        assert all("<svg" in (run / name).read_text() for name in names)
        found = read_run_record(run)["evaluations"]["test"]
        low, high = Metrics(found["n"], found["accuracy"], found["loss"]).interval95
        shares = f"{_percent(found['accuracy'])} | {_percent(low)} to {_percent(high)}"
        assert f"| test | 500 | {shares} | {found['loss']:.3f} | 1 |" in text
        assert "| `training.batch_size` | `64` |" in text and "Class *alone*" in text
        assert _agreement(run) in text and "\n\n1 epoch in " in text
        negated = [a for a in read_answers(run, "test") if a["negation"]]
        share = _percent(sum(a["correct"] for a in negated) / len(negated))
        assert f"| with a negation | {len(negated)} | {share} |" in text
        before = {path: path.read_bytes() for path in run.glob("*.*")}
        write_report(run)
        assert {path: path.read_bytes() for path in run.glob("*.*")} == before


def assert_sound(text: str) -> None:
    """Every heading, table and picture stands between blank lines, and every row has as many cells as its head."""
    assert "\n\n\n" not in text and "{%" not in text and text == text.strip() + "\n"
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    for lines in blocks:
        if any(line.startswith(("#", "!")) for line in lines):
            assert len(lines) == 1, lines
        if any(line.startswith("|") for line in lines):
            assert len(lines) > 2 and re.fullmatch(r"\|( --- \|)+", lines[1]), lines
            assert len({line.count("|") for line in lines}) == 1, lines


def test_report_is_sound_markdown():
    with tempfile.TemporaryDirectory() as folder:
        run = small_run(Path(folder, "run"))
        plain = write_report(run).read_text()
        assert_sound(plain)
        assert "A closer look" not in plain and "## Results" in plain
        assert _agreement(run) == "" and _results_table(run) in plain
        measured = last_validation(run)
        row = f"| validation | 500 | {_percent(measured.accuracy)} |"
        assert row in plain and f"| {measured.loss:.3f} |  |" in plain, "no reading"
        (run / "notes.md").write_text("## Goal\n\nA test.")
        evaluate_split(run, "test")
        start = {"folder": "start", "file": "model.safetensors"}
        _write_json(run / "run.json", read_run_record(run) | {"initial": start})
        full = write_report(run).read_text()
        assert_sound(full)
        assert r"| label \ answer | negative | positive |" in full
        assert "\n\nIt starts from `start/model.safetensors`.\n\n## Goal" in full


def test_render_misses_nothing_silently():
    assert _render("{{ a | percent }} {{ b | interval }}", a=0.5, b=(0.1, 1)) == ("50.0 10.0 to 100.0")
    with pytest.raises(Exception, match="'b' is undefined"):
        _render("{{ a }} {{ b }}", a=1)


def test_agreement_is_worded_by_its_interval():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        validated = asdict(Metrics(872, 0.8, 0.5))
        epoch = {"kind": "epoch", "epoch": 1, "validation": validated}
        _append_record(folder / "metrics.jsonl", epoch)
        for accuracy, words in (
            (0.81, "no difference beyond"),
            (0.9, "a higher accuracy"),
            (0.7, "a lower accuracy"),
        ):
            tested = Metrics(1821, accuracy, 0.5)
            found = {"test": {"readings": 1, **asdict(tested)}}
            _write_json(folder / "run.json", {"class": "alone", "evaluations": found})
            assert words in _agreement(folder), _agreement(folder)
            assert list(_results_of(folder)) == ["validation", "test"]
            assert _results_of(folder)["test"] == (tested, 1)


def test_report_tells_no_folders():
    paths = {"a": ["/x/z", 1], "b": {"c": ("/x/y",)}, "d": "x/y"}
    cut = {"a": ["z", 1], "b": {"c": ("y",)}, "d": "x/y"}
    assert _last_parts(paths) == cut
    gpu = {"device": "a GPU", "cpu": "a CPU"}
    assert _device_name({"machine": gpu}) == "a GPU"
    assert _device_name({"machine": gpu | {"device": "cpu"}}) == "a CPU"
    with tempfile.TemporaryDirectory() as folder:
        run, start = small_run(Path(folder, "run")), str(Path(folder, "start"))
        config = read_settings(RunConfig, run / "config.yaml")
        _save_settings(replace(config, initial=start), run / "config.yaml")
        begun = {"folder": start, "file": "model.safetensors"}
        _write_json(run / "run.json", read_run_record(run) | {"initial": begun})
        evaluate_split(run, "test")
        text = write_report(run).read_text()
        assert folder not in text and "`start/model.safetensors`" in text
        assert "| `initial` | `start` |" in text
        assert all(folder not in path.read_text() for path in run.glob("*.svg"))


def test_report_refuses_what_is_no_finished_run():
    with tempfile.TemporaryDirectory() as name:
        run = small_run(Path(name, "run"))
        evaluate_split(run, "test")
        record = read_run_record(run)
        nameless = {key: value for key, value in record.items() if key != "machine"}
        lucky = record | {"class": "lucky"}
        uncounted = record | {"evaluations": {"test": {}}}
        for file, content, words in [
            ("run.json", "", "does not hold a finished run"),
            ("run.json", "{}", "names no class"),
            ("run.json", json.dumps(nameless), "does not name its machine"),
            ("run.json", json.dumps(lucky), "must be one of alone, read, taught"),
            ("run.json", json.dumps(uncounted), "evaluations are broken"),
            ("metrics.jsonl", "", "there is no metrics.jsonl"),
            ("metrics.jsonl", "3\n", "line 1: this is not a record with kind"),
            ("metrics.jsonl", '{"kind": "step"}\n', "not hold the end of an epoch"),
            ("answers_test.jsonl", "{}\n", "line 1: this is not a record"),
            ("config.yaml", "", "there is no config file"),
        ]:
            assert_refused(write_report, run, file, content, words)
        with pytest.raises(ValueError, match="does not hold a finished run"):
            write_report(Path(name, "nowhere"))
