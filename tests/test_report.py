# Generated from chapters/day07_experiments.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.report`."""

import json
import math
import tempfile
from pathlib import Path

from minitransformer.config import load_config
from minitransformer.evaluate import Metrics, mean_interval
from minitransformer.report import (
    draw_curves,
    last_validation,
    markdown_table,
    run_folders,
    summarize,
    summary,
    write_report,
)
from minitransformer.runs import append_record
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


# chapters/day07_experiments.md · The run's own page
def test_write_report_states_what_the_folder_holds() -> None:
    settings = "name: tiny\nseed: 6\ndata: {name: toy, train_size: 30}\nmodel: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}\ntraining: {epochs: 2, batch_size: 16, log_every: 1}\n"
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "tiny.yaml"), Path(base, "run")
        config.write_text(settings, encoding="utf-8")
        metrics = fit(load_config(config), run)
        path = write_report(run)
        text = path.read_text(encoding="utf-8")
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        assert path == run / "report.md" and text.startswith("# tiny, seed 6\n")
        assert str(metrics) in text and record["code"]["sources_sha256"] in text
        assert (run / "config.yaml").read_text(encoding="utf-8").strip() in text
        once = (run / "curves.svg").read_bytes()
        assert draw_curves(run).read_bytes() == once, "the same run gave another picture"
        assert "](curves.svg)" in text and once.startswith(b"<?xml")
        (run / "run.json").unlink()
        try:
            write_report(run)
            raise AssertionError("an unfinished run got a report")
        except ValueError as error:
            assert "run.json" in str(error)
