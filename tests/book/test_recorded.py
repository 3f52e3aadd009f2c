"""The recorded runs: complete, of known origin, and quoted correctly where a page cannot compute."""

import json
from dataclasses import replace

import pytest

from book.press.floors import ROOT
from book.sentence import SENTENCE
from minitransformer.cli import evaluate_run, main
from minitransformer.config import (
    PretrainConfig,
    load_config,
    load_pretrain_config,
    load_search,
    variant_config,
)
from minitransformer.data import sst2_is_present
from minitransformer.evaluate import mean_interval
from minitransformer.report import last_validation
from minitransformer.runs import read_predictions, read_records, read_run_record

RUNS = sorted(path.parent for path in (ROOT / "book/runs").glob("**/run.json"))
SEARCH = ROOT / "book/runs/search"
SCRATCH = ROOT / "book/runs/sst2_scratch"
LARGEST = 16 * 2**20  # bytes that one file of the repository may hold


def test_there_are_runs():
    assert SCRATCH in RUNS and len(RUNS) >= 3


def settings_of_run(run):
    """The settings of a run on labelled texts, or of one that reads."""
    path = run / "config.yaml"
    return load_pretrain_config(path) if "\ncorpus:" in path.read_text() else load_config(path)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_says_where_it_comes_from(run):
    record, config = read_run_record(run), settings_of_run(run)
    assert record["seed"] == config.seed and record["name"] == config.name
    if isinstance(config, PretrainConfig):
        assert record["class"] == "read" and record["data"]
    elif config.initial is None and config.data.tokenizer is None:
        assert record["class"] == "alone" and "initial" not in record
    else:
        assert record["class"] in ("read", "taught")
        assert set(record["initial"]) == {"folder", "file", "sha256"}
    assert record["code"]["commit"] and record["code"]["dirty"] is False, "recorded from a commit, unchanged"
    assert len(read_records(run, "epoch")) == config.training.epochs
    assert {path.suffix for path in run.iterdir()} <= {
        ".yaml",
        ".json",
        ".jsonl",
        ".safetensors",
        ".md",
        ".svg",
    }
    assert all(path.stat().st_size < LARGEST for path in run.iterdir())


def test_the_search_is_complete():
    """Every variant with every seed, with answers for a paired test."""
    plan = load_search(ROOT / "configs/search.yaml")
    assert len(plan.variants) >= 6 and len(plan.seeds) >= 3
    expected = {f"{variant}_seed{seed}" for variant in plan.variants for seed in plan.seeds}
    assert {run.name for run in RUNS if run.parent == SEARCH} == expected
    for run in (run for run in RUNS if run.parent == SEARCH):
        variant, seed = run.name.split("_seed")
        recorded, planned = load_config(run / "config.yaml"), variant_config(plan, variant, int(seed))
        size = recorded.model.vocab_size  # the plan names an upper bound
        assert (
            replace(recorded, model=replace(recorded.model, vocab_size=planned.model.vocab_size)) == planned
        )
        assert size <= planned.model.vocab_size
        answers = read_predictions(run)
        assert len(answers) == 872
        assert sum(answer["correct"] for answer in answers) == round(872 * last_validation(run).accuracy)


def test_the_main_run_reaches_its_target():
    metrics = last_validation(SCRATCH)
    assert metrics.n == 872 and metrics.accuracy >= 0.80
    assert json.loads((SCRATCH / "run.json").read_text())["seconds"] < 300


def test_the_readme_quotes_the_recorded_run():
    readme = (ROOT / "README.md").read_text()
    record, metrics = json.loads((SCRATCH / "run.json").read_text()), last_validation(SCRATCH)
    low, high = metrics.interval95
    shares = [100 * last_validation(run).accuracy for run in RUNS if run.name.startswith("sst2_scratch")]
    assert f"**{100 * metrics.accuracy:.1f} %** on validation" in readme
    assert f"(95 % interval {100 * low:.1f} to {100 * high:.1f})" in readme
    assert f"seeds give {min(shares):.1f} to {max(shares):.1f} %" in readme
    assert f"took {record['seconds']:.0f} s" in readme


def test_the_readme_quotes_day_eights_runs():
    readme = (ROOT / "README.md").read_text()
    runs = [ROOT / "book/runs" / name for name in ("sst2_alone", "sst2_alone_seed1", "sst2_alone_seed2")]
    first, second, third = (100 * last_validation(run).accuracy for run in runs)
    mean, half = (100 * value for value in mean_interval([last_validation(run).accuracy for run in runs]))
    assert f"three seeds give {first:.1f}, {second:.1f} and {third:.1f} %" in readme
    assert f"mean **{mean:.1f} %**, 95 % interval ± {half:.1f} points" in readme
    record = json.loads((runs[0] / "run.json").read_text())
    assert f"length, one thread | {record['seconds']:.0f} s |" in readme and record["machine"]["threads"] == 1


def test_the_readme_quotes_the_answer_of_the_shipped_model(capsys):
    assert main(["predict", SENTENCE, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert f"It answers *{answer['label']}*" in (ROOT / "README.md").read_text()


@pytest.mark.skipif(not sst2_is_present(), reason="SST-2 is not on this machine")
def test_the_saved_weights_give_the_recorded_accuracy():
    """Other machines round otherwise, which may turn a sentence or two."""
    _, metrics = evaluate_run(SCRATCH, "validation")
    assert metrics.n == 872
    assert abs(metrics.accuracy - last_validation(SCRATCH).accuracy) <= 2 / 872
