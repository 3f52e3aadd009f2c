"""The recorded runs: complete, of known origin, and quoted correctly where a page cannot compute."""

import json
from dataclasses import replace

import pytest

from book.press.floors import ROOT
from book.sentence import SENTENCE
from book.tried import seeds_of
from minitransformer.cli import SHIPPED, main
from minitransformer.data import sst2_is_present
from minitransformer.evaluate import mean_interval, wilson_interval
from minitransformer.experiment.folder import (
    last_validation,
    read_answers,
    read_evaluations,
    read_predictions,
    read_records,
    read_run_record,
)
from minitransformer.experiment.job import _finished_identity, _prepare, identity
from minitransformer.experiment.recipe import best_run, load_recipe
from minitransformer.experiment.report import evaluate_split
from minitransformer.experiment.search import _variant_config, load_search
from minitransformer.experiment.settings import PretrainConfig, RunConfig, read_settings
from minitransformer.model import read_weights

RUNS = sorted(path.parent for path in (ROOT / "book/runs").glob("**/run.json"))
SCRATCH = ROOT / "book/runs/sst2_scratch"
LARGEST = 16 * 2**20  # bytes that one file of the repository may hold


def test_there_are_runs():
    assert SCRATCH in RUNS and len(RUNS) >= 3


def settings_of_run(run):
    """The settings of a run on labelled texts, or of one that reads."""
    path = run / "config.yaml"
    return (
        read_settings(PretrainConfig, path)
        if "\ncorpus:" in path.read_text()
        else read_settings(RunConfig, path)
    )


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_says_where_it_comes_from(run):
    record, config = read_run_record(run), settings_of_run(run)
    assert record["seed"] == config.seed and record["name"] == config.name
    if isinstance(config, PretrainConfig):
        assert record["class"] == ("read" if config.initial is None else "taught") and record["data"]
        assert ("initial" in record) == (config.initial is not None)
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


def as_recorded(planned, recorded):
    """The plan with the number format that its "auto" became where the run was recorded."""
    if planned.training.autocast != "auto":
        return planned
    assert recorded.training.autocast in ("fp32", "bf16", "fp16"), "a folder holds what was computed"
    return replace(planned, training=replace(planned.training, autocast=recorded.training.autocast))


@pytest.mark.parametrize("name, least", [("search", 6), ("ablation", 5)])
def test_a_series_is_complete(name, least):
    """Every variant with every seed, as the plan says, with answers for a paired test."""
    plan = load_search(ROOT / f"configs/{name}.yaml")
    assert len(plan.variants) >= least and len(plan.seeds) >= 3
    expected = {f"{variant}_seed{seed}" for variant in plan.variants for seed in plan.seeds}
    found = [run for run in RUNS if run.parent == ROOT / "book/runs" / name]
    assert {run.name for run in found} == expected
    for run in found:
        variant, seed = run.name.split("_seed")
        recorded, planned = (
            read_settings(RunConfig, run / "config.yaml"),
            _variant_config(plan, variant, int(seed)),
        )
        size = recorded.model.vocab_size  # the plan names an upper bound
        assert replace(
            recorded, model=replace(recorded.model, vocab_size=planned.model.vocab_size)
        ) == as_recorded(planned, recorded)
        assert size <= planned.model.vocab_size
        answers = read_predictions(run)
        assert len(answers) == 872
        assert sum(answer["correct"] for answer in answers) == round(872 * last_validation(run).accuracy)


def test_the_main_run_reaches_its_target():
    metrics = last_validation(SCRATCH)
    assert metrics.n == 872 and metrics.accuracy >= 0.80


@pytest.mark.parametrize("kind", ["alone", "read", "taught"])
def test_the_readme_quotes_the_results(kind):
    """Each class in its line: mean and interval over the seeds, and the one reading of the test split."""
    runs = seeds_of(f"sst2_{kind}")
    seeds = [0, 1, 2] if kind == "alone" else load_recipe(ROOT / f"configs/reproduce_{kind}.yaml").seeds
    assert [(record["class"], record["seed"]) for record in map(read_run_record, runs)] == [
        (kind, seed) for seed in seeds
    ]
    accuracies = [last_validation(run).accuracy for run in runs]
    mean, half = (100 * value for value in mean_interval(accuracies))
    readings = {run: read_evaluations(run).get("test") for run in runs}
    assert [run for run in runs if readings[run]] in ([], [best_run(runs)]), (
        "only the best seed may be tested"
    )
    test = "not read"
    if found := readings[best_run(runs)]:
        low, high = wilson_interval(round(found["accuracy"] * found["n"]), found["n"])
        test = f"**{100 * found['accuracy']:.1f} %** ({100 * low:.1f} to {100 * high:.1f})"
        assert found["readings"] == 1 and found["n"] == 1821
    line = f"(`book/runs/sst2_{kind}`) | **{mean:.1f} %** ± {half:.1f} ({len(runs)}) | {test} |"
    assert line in (ROOT / "README.md").read_text()


def test_the_readme_quotes_the_other_numbers():
    readme = (ROOT / "README.md").read_text()
    assert f"with {100 * last_validation(SCRATCH).accuracy:.1f} % on validation" in readme
    for run, where in (
        (SCRATCH, "another run beside it"),
        (SCRATCH.parent / "sst2_alone", "one thread of the Intel"),
    ):
        record = read_run_record(run)
        assert f"{where} | {record['seconds']:.0f} s |" in readme and record["machine"]["threads"] == 1
    shipped = read_run_record(SHIPPED)
    assert (
        f"in bf16, one thread of the same, another run beside it | {shipped['seconds']:.0f} s (seed {shipped['seed']}) |"
        in readme
    )
    assert shipped["machine"]["cpu"] == "AMD EPYC" and shipped["machine"]["threads"] == 1
    reading = read_run_record(ROOT / "book/runs/read_on")
    assert f"in bf16, two threads of an AMD EPYC | {reading['seconds']:.0f} s |" in readme
    assert reading["machine"]["cpu"] == "AMD EPYC" and reading["machine"]["threads"] == 2


def test_the_readme_says_what_the_shipped_model_is():
    readme, files = (ROOT / "README.md").read_text(), list(SHIPPED.glob("*.safetensors"))
    weights = sum(value.numel() for value in read_weights(SHIPPED / "model.safetensors").values())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    assert len(files) == 3 and f"class *{read_run_record(SHIPPED)['class']}*" in readme
    assert (
        f"{weights / 1e6:.1f} million weights in half precision, {megabytes:.0f} MB in three files" in readme
    )
    mean, half = mean_interval([last_validation(run).accuracy for run in seeds_of("sst2_taught")])
    test = read_evaluations(SHIPPED)["test"]
    read = [last_validation(run).accuracy for run in seeds_of("sst2_read")]
    assert f"in **{100 * test['accuracy']:.1f} %** of the {test['n']:,} sentences" in readme
    assert f"in **{100 * mean_interval(read)[0]:.1f} %** of SST-2's validation sentences" in readme
    low, _ = wilson_interval(round(test["accuracy"] * test["n"]), test["n"])
    assert (
        "*Taught* reaches the goal, 90 %, on both splits: the intervals of its validation mean and of its "
        "test result lie above it." in readme
    )
    assert min(low, mean - half) > 0.9
    earlier = [run for run in RUNS if "transfer" in run.parts and "test" in read_evaluations(run)]
    assert len(earlier) == 2
    for run in earlier:
        accuracy = read_evaluations(run)["test"]["accuracy"]
        assert f"(`book/runs/transfer/{run.name}`), {100 * accuracy:.1f} %" in readme


def test_the_taught_runs_follow_their_plan():
    """Their settings are those of the config, and all start from the same weights, in a folder named like the reading."""
    planned = read_settings(RunConfig, ROOT / "configs/sst2_taught.yaml")
    read = read_settings(PretrainConfig, ROOT / "book/runs/read_on/config.yaml")
    assert read == as_recorded(read_settings(PretrainConfig, ROOT / "configs/read_on.yaml"), read)
    runs = seeds_of("sst2_taught")
    for seed, run in enumerate(runs):
        recorded = read_settings(RunConfig, run / "config.yaml")
        assert recorded == as_recorded(replace(planned, seed=seed), recorded)
        assert read_run_record(run)["initial"]["folder"] == "read_on"
    assert len({read_run_record(run)["initial"]["sha256"] for run in runs}) == 1


@pytest.mark.parametrize(
    "run, wording", [(SHIPPED, "It answers *{}*"), (SCRATCH, "validation) answers *{}*")]
)
def test_the_readme_quotes_the_answers_of_two_models(run, wording, capsys):
    assert main(["predict", SENTENCE, "--json", "--run", str(run)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert wording.format(answer["label"]) in (ROOT / "README.md").read_text()


def test_predict_asks_the_shipped_model(capsys):
    for run in ([], ["--run", str(SHIPPED)]):
        assert main(["predict", SENTENCE, "--json", *run]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


@pytest.mark.skipif(not sst2_is_present(), reason="SST-2 is not on this machine")
def test_the_saved_weights_give_the_recorded_accuracy():
    """Other machines round otherwise, which may turn a sentence or two."""
    for run in (SCRATCH, SHIPPED):
        _, metrics = evaluate_split(run, "validation", record=False)
        assert metrics.n == 872
        assert abs(metrics.accuracy - last_validation(run).accuracy) <= 2 / 872, run


@pytest.mark.skipif(not sst2_is_present(), reason="SST-2 is not on this machine")
def test_a_series_that_is_made_anew_keeps_its_recorded_runs(tmp_path):
    """What the plan asks for today has the identity that the folder tells, so that no run is made twice."""
    plan, run = load_search(ROOT / "configs/search.yaml"), ROOT / "book/runs/search/rate_1e-3_seed1"
    planned, recorded = _variant_config(plan, "rate_1e-3", 1), read_settings(RunConfig, run / "config.yaml")
    ours = identity(_prepare(as_recorded(planned, recorded), tmp_path))
    assert _finished_identity(run, RunConfig) == ours
    other = identity(_prepare(as_recorded(_variant_config(plan, "rate_1e-3", 2), recorded), tmp_path))
    assert {name for name in ours if ours[name] != other[name]} == {"seed"}


def test_the_shipped_run_is_the_best_of_its_class():
    """The same record as the run's own, and answers that add up to what was read, once, on either split."""
    record = read_run_record(SHIPPED)
    assert read_run_record(best_run(seeds_of(f"sst2_{record['class']}"))) == record
    for split, n in (("validation", 872), ("test", 1821)):
        found, answers = read_evaluations(SHIPPED)[split], read_answers(SHIPPED, split)
        assert found["readings"] == 1 and found["n"] == len(answers) == n
        assert sum(answer["correct"] for answer in answers) == round(n * found["accuracy"])
        assert not any("text" in answer for answer in answers), "the data stays out of the repository"
