# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.report`."""

import json
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt

from minitransformer.evaluate import Metrics
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import write_json
from minitransformer.experiment.report import (
    agreement,
    architecture,
    draw_architecture,
    draw_calibration,
    draw_curves,
    drawing,
    results_of,
)
from minitransformer.experiment.settings import DataConfig, RunConfig
from minitransformer.model import ModelConfig


# chapters/workshop_reports.md · The illustrated report of a run.
def small_run(folder: Path) -> Path:
    """A run of a few seconds on toy reviews."""
    model = ModelConfig(vocab_size=500, d_model=16, num_heads=2, d_ff=32, num_layers=1, max_length=32)
    with redirect_stdout(StringIO()):
        fit(RunConfig("small", DataConfig("toy", train_size=400), model), folder)
    return folder


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
