"""The table of what was tried: `book/tried.py`."""

import json
from pathlib import Path

import pytest
from scipy.stats import t

from book.tried import RUNS, base_accuracies, commit, tried_rows, tried_table
from minitransformer.experiment.folder import _append_record, _write_json


def recorded(folder: Path, accuracy: float) -> None:
    folder.mkdir(parents=True)
    _write_json(folder / "run.json", {"class": "alone"})
    validation = {"n": 872, "accuracy": accuracy, "loss": 0.5}
    _append_record(folder / "metrics.jsonl", {"kind": "epoch", "epoch": 1, "validation": validation})


def tried(runs: Path, *accuracies: float) -> dict:
    change = {"base": "b", "variant": "more", "accuracies": accuracies}
    _write_json(runs / "tried.json", {"commit": "abc", "tried": [change]})
    return tried_rows(runs)[0]


def test_a_base_is_its_folder_and_its_seeds(tmp_path):
    for name, accuracy in (("b", 0.80), ("b_seed1", 0.82), ("b_seed2", 0.84), ("b_long_seed1", 0.1)):
        recorded(tmp_path / name, accuracy)
    (tmp_path / "b_seed3").mkdir()  # not finished
    assert base_accuracies(tmp_path, "b") == [0.80, 0.82, 0.84]


def test_the_interval_is_student_s_with_one_variance(tmp_path):
    for seed, accuracy in enumerate((0.80, 0.82, 0.84)):
        recorded(tmp_path / f"b_seed{seed}", accuracy)
    row = tried(tmp_path, 0.86, 0.88)
    variance = (2 * 0.0004 + 0.0002) / 3  # sums of squares of both sides, over 3 + 2 - 2 degrees of freedom
    half = t.ppf(0.975, 3) * (variance * (1 / 3 + 1 / 2)) ** 0.5
    assert (row["low"], row["high"]) == pytest.approx((0.05 - half, 0.05 + half))
    one = tried(tmp_path, 0.87)  # a single run is taken to scatter as the base does
    half = t.ppf(0.975, 2) * (0.0004 * (1 / 3 + 1)) ** 0.5
    assert (one["low"], one["high"]) == pytest.approx((0.05 - half, 0.05 + half))
    ends = f"{100 * one['low']:+.1f} to {100 * one['high']:+.1f}".replace("-", "\N{MINUS SIGN}")
    line = f"| `b` | more | 82.0 ± 5.0 (3) | 87.0 (1) | {ends} |"
    assert tried_table([one]).splitlines()[2].replace("\u00a0", " ") == line


def test_every_recorded_change_has_its_base_and_a_commit():
    rows = tried_rows()
    assert len(rows) == len(json.loads((RUNS / "tried.json").read_text(encoding="utf-8"))["tried"]) > 0
    assert all(len(row["before"]) == 3 and row["low"] < row["high"] for row in rows)
    assert all(len(row["accuracies"]) == len(row["seeds"]) for row in rows)
    assert len(tried_table(rows).splitlines()) == len(rows) + 2
    assert all(len(row.get("commit", commit())) == 40 for row in rows)
