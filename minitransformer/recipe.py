# Generated from chapters/day11_deeper.md; edit the chapter, not this file.
"""The whole recipe, from raw text to the report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minitransformer.bert import convert, source_name
from minitransformer.config import RecipeConfig, load_config, load_pretrain_config
from minitransformer.data import load_examples, load_imdb
from minitransformer.pretrain import pretrain
from minitransformer.report import (
    device_name,
    evaluate_split,
    last_validation,
    percent,
    results_table,
    section,
    summary,
    table,
    write_report,
)
from minitransformer.runs import (
    one_at_a_time,
    read_answers,
    read_evaluations,
    read_run_record,
    ship,
    write_atomically,
)
from minitransformer.train import fit, same_run

__all__ = [
    "asked_for",
    "best_run",
    "cost_rows",
    "film_texts",
    "make_encoder",
    "reproduce",
    "run_of_seed",
    "take_over",
    "write_summary",
]


# chapters/day11_deeper.md · The whole recipe as one command
def make_encoder(plan: RecipeConfig, folder: Path) -> Path:
    """The first stage: an encoder that has read, one taken over from a BERT, or one that was taken over and read on."""
    encoder = folder / "encoder"
    if plan.pretrain is None:
        return take_over(plan, encoder)
    reading = load_pretrain_config(plan.pretrain)
    if plan.convert is not None:
        reading = replace(reading, initial=str(take_over(plan, folder / "bert")))
    pretrain(reading, encoder, resume=True)
    return encoder


# chapters/day11_deeper.md · The whole recipe as one command
def take_over(plan: RecipeConfig, folder: Path) -> Path:
    """The encoder and the tokenizer of the recipe's BERT, in `folder`; there already, they are kept."""
    assert plan.convert is not None
    if (folder / "run.json").is_file():
        found = read_run_record(folder)["origin"]
        same_run(folder, {"convert": found["source"], "vocab_size": found["vocab_size"]}, asked_for(plan))
        return folder
    texts = film_texts() if plan.vocab_size is not None else []
    convert(plan.convert, folder, plan.vocab_size, texts=texts)
    return folder


# chapters/day11_deeper.md · The whole recipe as one command
def asked_for(plan: RecipeConfig) -> dict[str, Any]:
    """What a recipe wants from a BERT, as the record of `convert` puts it."""
    assert plan.convert is not None
    return {"convert": source_name(plan.convert), "vocab_size": plan.vocab_size}


# chapters/day11_deeper.md · The whole recipe as one command
def film_texts() -> list[str]:
    """The texts that decide which entries of a vocabulary are kept: training phrases of SST-2 and reviews of IMDB."""
    return load_examples("sst2", "train").texts + load_imdb("train").texts


# chapters/day11_deeper.md · The whole recipe as one command
def run_of_seed(plan: RecipeConfig, folder: Path, seed: int) -> Path:
    """The second stage, once for each seed: train from the encoder, validate, and write the report."""
    run = folder / f"seed{seed}"
    config = load_config(plan.train, ["--seed", str(seed), "--initial", str(folder / "encoder")])
    fit(config, run, resume=True)
    if not read_answers(run, "validation"):
        evaluate_split(run, "validation")
    write_report(run)
    return run


# chapters/day11_deeper.md · The whole recipe as one command
def best_run(runs: Sequence[Path]) -> Path:
    """The run with the highest validation accuracy; of equal ones the first."""
    return max(runs, key=lambda run: last_validation(run).accuracy)


# chapters/day11_deeper.md · The whole recipe as one command
def cost_rows(folder: Path, runs: Sequence[Path]) -> list[list[object]]:
    """One row for each stage: seconds, tokens, tokens per second, and the machine."""
    rows: list[list[object]] = []
    for stage in (folder / "encoder", *runs):
        record = read_run_record(stage)
        if "seconds" in record:  # an encoder that was only taken over cost no time worth a line
            speed, where = record["tokens_per_second"], device_name(record)
            rows.append(
                [stage.name, f"{record['seconds']:,.0f}", f"{record['tokens']:,}", f"{speed:,}", where]
            )
    return rows


# chapters/day11_deeper.md · The whole recipe as one command
def write_summary(folder: Path, runs: Sequence[Path], chosen: Path) -> Path:
    """Write `summary.md`: validation accuracy of every seed, the chosen run on the test split, and what it cost."""
    found = summary(folder.name, runs)
    mean = f"{percent(found['accuracy'])} %"
    if found["half_width"] is not None:
        mean = f"{percent(found['accuracy'])} ± {percent(found['half_width'])} % (mean of {len(runs)} seeds, 95 % interval)"
    parts = [
        f"# {folder.name}",
        f"Class *{read_run_record(chosen)['class']}*. Validation accuracy: {mean}.",
        table(["run", "validation (%)"], [[r.name, percent(last_validation(r).accuracy)] for r in runs]),
        section(f"The chosen run, {chosen.name}", results_table(chosen)),
        section(
            "Cost", table(["stage", "seconds", "tokens", "tokens/s", "machine"], cost_rows(folder, runs))
        ),
    ]
    path = folder / "summary.md"
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())
    return path


# chapters/day11_deeper.md · The whole recipe as one command
@one_at_a_time
def reproduce(plan: RecipeConfig, folder: str | Path) -> Path:
    """Everything from the raw texts to the report, in `folder`; called again, it goes on where it stopped.

    The run that is best on the validation split is read once on the test split, and shipped to `folder`/model.
    Returns the summary.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    make_encoder(plan, folder)
    runs = [run_of_seed(plan, folder, seed) for seed in plan.seeds]
    chosen = best_run(runs)
    others = [run.name for run in runs if run != chosen and "test" in read_evaluations(run)]
    if others:
        raise ValueError(
            f"{folder}: the test split has been read with {others[0]}, and now {chosen.name} is best on validation; a "
            "second reading would choose by the test: take a new folder"
        )
    if not read_answers(chosen, "test"):
        evaluate_split(chosen, "test")
        write_report(chosen)
    if not (folder / "model" / "config.json").is_file():
        ship(chosen, folder / "model")
    return write_summary(folder, runs, chosen)
