# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.search`."""

import math
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest

from minitransformer.evaluate import Metrics, mean_interval
from minitransformer.experiment.folder import _append_record, _in_use, _write_json
from minitransformer.experiment.search import (
    SearchConfig,
    _summary,
    _variant_config,
    load_search,
    markdown_table,
    search,
    summarize,
)
from minitransformer.experiment.settings import RunConfig, read_settings

# chapters/workshop_reports.md · A search is a file
SEARCH_BASE = """
name: b
data: {name: toy, train_size: 30}
model: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1}
training: {epochs: 1, batch_size: 16}
"""

SEARCH_PLAN = """
name: s
base: base.yaml
seeds: [3, 4]
variants:
  plain: {}
  fast: {training.learning_rate: 1e-2, model.dropout: 0.3}
"""


def write_plan(folder: str, text: str = SEARCH_PLAN) -> Path:
    """A search's file with its base beside it."""
    Path(folder, "base.yaml").write_text(SEARCH_BASE, encoding="utf-8")
    path = Path(folder, "plan.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def test_search_trains_each_run_once():
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        plan, runs = load_search(write_plan(folder)), Path(folder, "runs")
        search(plan, runs, seeds=[4])
        first = sorted(runs.glob("*/model.safetensors"))
        assert [path.parent.name for path in first] == ["fast_seed4", "plain_seed4"]
        written = [path.stat().st_mtime_ns for path in first]
        search(plan, runs)
        assert len(list(runs.glob("*/run.json"))) == 4
        assert [path.stat().st_mtime_ns for path in first] == written, "trained twice"
        saved = read_settings(RunConfig, runs / "fast_seed3" / "config.yaml")
        assert saved.training.learning_rate == 1e-2
        fast = {**plan.variants["fast"], "training.learning_rate": 2e-2}
        other = replace(plan, variants={"fast": fast})
        with pytest.raises(ValueError, match=r"learning_rate.*0\.02"):
            search(other, runs)


def test_variant_config_changes_what_the_plan_says_and_nothing_else():
    with tempfile.TemporaryDirectory() as folder:
        plan = load_search(write_plan(folder))
        base = read_settings(RunConfig, Path(folder, "base.yaml"))
        assert isinstance(plan, SearchConfig) and plan.seeds == [3, 4]
        assert _variant_config(plan, "plain", 4) == replace(base, name="plain", seed=4)
        fast = _variant_config(plan, "fast", 3)
        assert (fast.training.learning_rate, fast.model.dropout) == (1e-2, 0.3)
        same = {"name": "b", "seed": 0, "training": base.training, "model": base.model}
        assert replace(fast, **same) == base, "something else changed"


def test_search_passes_over_what_others_are_at():
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        plan, runs = load_search(write_plan(folder)), Path(folder, "runs")
        with _in_use(runs / "plain_seed3"), redirect_stderr(StringIO()) as said:
            search(plan, runs, seeds=[3])
        assert said.getvalue().startswith("passed over: ")
        assert [run.parent.name for run in runs.glob("*/run.json")] == ["fast_seed3"]


def test_load_search_complains_before_anything_is_trained():
    for old, new, words in [
        ("learning_rate", "learning_rte", "fast.*learning_rte"),
        ("1e-2", "-1", "fast.*training.learning_rate.*greater"),
        ("[3, 4]", "[3, 3]", "seeds.*different"),
        ("[3, 4]", "[]", "seeds"),
        ("base.yaml", "none.yaml", "none.yaml"),
        ("seeds:", "seed:", "seed"),
        ("  fast:", "  plain:", "plain.*twice|duplicate.*plain"),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            with pytest.raises(ValueError, match=words) as found:
                load_search(write_plan(folder, SEARCH_PLAN.replace(old, new)))
            assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="variants"):
        SearchConfig(name="s", base="base.yaml", seeds=[0], variants={})


# chapters/workshop_reports.md · A table of many runs
def write_run(folder: Path, name: str, seed: int, *accuracies: float) -> None:
    """A finished run with these validation accuracies, one per epoch, as far as a table needs it."""
    run = folder / f"{name}_seed{seed}"
    run.mkdir()
    record = {"name": name, "class": "alone", "seed": seed, "seconds": 10.0 + seed}
    _write_json(run / "run.json", record)
    for epoch, accuracy in enumerate(accuracies, 1):
        found = asdict(Metrics(872, accuracy, 0.5))
        line = {"kind": "epoch", "epoch": epoch, "validation": found}
        _append_record(run / "metrics.jsonl", line)


def test_summarize_makes_one_row_of_each_variant():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, accuracy in ((0, 0.80), (1, 0.81), (2, 0.85)):
            write_run(folder, "three", seed, 0.99, accuracy)
        write_run(folder, "wide", 5, 0.9)  # last by name, best by accuracy
        (folder / "unfinished_seed0").mkdir()
        wide, three = summarize(folder)
        assert (wide["variant"], wide["half_width"]) == ("wide", None)
        assert math.isclose(three["accuracy"], 0.82), "the last epoch, not the best"
        assert math.isclose(three["half_width"], mean_interval([0.80, 0.81, 0.85])[1])
        runs = [folder / f"three_seed{seed}" for seed in range(3)]
        assert _summary("three", runs) == three
        assert markdown_table([wide, three]).splitlines()[2:] == [
            "| wide | 1 | 90.0 % | 15 |",
            "| three | 3 | 82.0 ± 6.6 % | 11 |",
        ]
        with pytest.raises(ValueError, match="three_seed0"):
            summarize(folder / "three_seed0")
