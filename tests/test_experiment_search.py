# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.search`."""

import json
import math
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

from minitransformer.evaluate import Metrics, mean_interval
from minitransformer.experiment.folder import append_record, in_use, last_validation
from minitransformer.experiment.search import (
    SearchConfig,
    load_search,
    markdown_table,
    run_folders,
    search,
    summarize,
    summary,
    variant_config,
)
from minitransformer.experiment.settings import RunConfig, read_settings


# chapters/workshop_reports.md · Searches: every variant with every seed, and their table.
def test_search_trains_each_run_once() -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = "name: b\ndata: {name: toy, train_size: 20}\nmodel: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}\n"
        Path(folder, "base.yaml").write_text(text, encoding="utf-8")
        variants = {"plain": {}, "fast": {"training.learning_rate": 1e-2}}
        plan = SearchConfig("s", str(Path(folder, "base.yaml")), [3, 4], variants)
        runs = Path(folder, "runs")
        search(plan, runs, seeds=[4])
        assert sorted(path.name for path in runs.iterdir()) == ["fast_seed4", "plain_seed4"]
        written = {path: path.stat().st_mtime_ns for path in runs.glob("*/model.safetensors")}
        search(plan, runs)
        assert len(list(runs.glob("*/run.json"))) == 4
        assert all(path.stat().st_mtime_ns == then for path, then in written.items()), "trained twice"
        assert read_settings(RunConfig, runs / "fast_seed3" / "config.yaml").training.learning_rate == 1e-2
        other = replace(plan, variants={"fast": {"training.learning_rate": 2e-2}})
        try:
            search(other, runs)
            raise AssertionError("the runs of another plan were taken for this one's")
        except ValueError as error:
            assert "learning_rate" in str(error) and "0.02" in str(error)


def test_search_passes_over_what_others_are_at() -> None:
    changes: dict[str, str | int | float | bool] = {"training.epochs": 1, "data.train_size": 64}
    with tempfile.TemporaryDirectory() as base, redirect_stdout(StringIO()):
        plan = SearchConfig("two", "../configs/toy.yaml", [1], {"a": changes, "b": changes})
        with in_use(Path(base, "a_seed1")), redirect_stderr(StringIO()) as said:
            search(plan, base)
        assert said.getvalue().startswith("passed over: ") and Path(base, "b_seed1", "run.json").exists()
        assert not Path(base, "a_seed1", "run.json").exists()


SEARCH_BASE = "name: b\ndata: {name: toy, train_size: 30}\nmodel: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}\ntraining: {epochs: 1, batch_size: 16}\n"

SEARCH_PLAN = "name: s\nbase: base.yaml\nseeds: [3, 4]\nvariants:\n  plain: {}\n  fast: {training.learning_rate: 1e-2, model.dropout: 0.3}\n"


def write_plan(folder: str, text: str = SEARCH_PLAN) -> Path:
    """A search's file with its base beside it."""
    Path(folder, "base.yaml").write_text(SEARCH_BASE, encoding="utf-8")
    path = Path(folder, "plan.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def test_variant_config_changes_what_the_plan_says_and_nothing_else() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = load_search(write_plan(folder))
        base = read_settings(RunConfig, Path(folder, "base.yaml"))
        assert isinstance(plan, SearchConfig) and plan.seeds == [3, 4]
        assert variant_config(plan, "plain", 4) == replace(base, name="plain", seed=4)
        fast = variant_config(plan, "fast", 3)
        assert (fast.training.learning_rate, fast.model.dropout) == (1e-2, 0.3)
        undone = replace(fast, name="b", seed=0, training=base.training, model=base.model)
        assert undone == base, "something else changed"


def test_load_search_complains_before_anything_is_trained() -> None:
    for old, new, *words in [
        ("learning_rate", "learning_rte", "fast", "learning_rte"),
        ("1e-2", "-1", "fast", "training.learning_rate", "positive"),
        ("[3, 4]", "[3, 3]", "seeds", "different"),
        ("[3, 4]", "[]", "seeds"),
        ("base.yaml", "none.yaml", "none.yaml"),
        ("seeds:", "seed:", "seed"),
        ("  fast:", "  plain:", "plain", "twice"),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                load_search(write_plan(folder, SEARCH_PLAN.replace(old, new)))
            except ValueError as error:
                assert all(word in str(error) for word in words) and "\n" not in str(error), error
            else:
                raise AssertionError(f"{new!r} was accepted")
    try:
        SearchConfig("s", "base.yaml", [0], {})
        raise AssertionError("a search without variants was accepted")
    except ValueError as error:
        assert "variants" in str(error)


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


def test_run_folders_are_the_finished_runs() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = write_run(folder, "b", 0, 0.99, 0.85)
        write_run(folder, "a", 5, 0.9)
        (folder / "unfinished_seed0").mkdir()
        assert last_validation(run) == Metrics(872, 0.85, 0.5), "the last epoch counts, not the best"
        assert [path.name for path in run_folders(folder)] == ["a_seed5", "b_seed0"]


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
