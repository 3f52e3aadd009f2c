# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""Searches: every variant with every seed, and their table."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from minitransformer.evaluate import mean_interval
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import FolderInUse, last_validation, read_run_record
from minitransformer.experiment.settings import RunConfig, _keys, _Name, _Seeds, read_settings, settings
from minitransformer.model import _require

__all__ = ["SearchConfig", "load_search", "markdown_table", "search", "summarize"]


# chapters/workshop_reports.md · A search is a file
@settings()
class SearchConfig:
    """A search: each variant of `base` is trained once with each seed.

    Attributes:
        base: the config file of the unchanged run, beside the search's own file.
        seeds: which seeds every variant gets.
        variants: a name for each, and the settings that it changes, such as {"training.learning_rate": 1e-3}.
    """

    name: _Name
    base: str
    seeds: _Seeds
    variants: Annotated[dict[str, dict[str, str | int | float | bool]], Field(min_length=1)]


def load_search(path: str | Path) -> SearchConfig:
    """Read a search from a YAML file, and check every variant's settings before anything is trained.

    Raises:
        ValueError: one sentence that names the file, the variant and the key that is wrong.
    """
    plan = read_settings(SearchConfig, path)
    plan = replace(plan, base=str(Path(path).parent / plan.base))
    for name in plan.variants:
        _variant_config(plan, name, plan.seeds[0])
    return plan


def _variant_config(plan: SearchConfig, variant: str, seed: int) -> RunConfig:
    """The settings of one run of a search: the base, with the variant's changes, under the variant's name."""
    changes = [f"--{key}={value}" for key, value in plan.variants[variant].items()]
    allowed = [name for name in _keys(RunConfig) if name not in ("name", "seed")]
    for key in plan.variants[variant]:
        some = f"one of {', '.join(allowed)}"
        _require(key in allowed, f"variant {variant!r}: the setting", key, some)
    try:
        return read_settings(RunConfig, plan.base, ["--name", variant, "--seed", str(seed), *changes])
    except ValueError as error:
        raise ValueError(f"variant {variant!r}: {error}") from None


def search(plan: SearchConfig, folder: str | Path, seeds: Sequence[int] | None = None) -> list[str]:
    """Train every variant with every seed, each into its own folder; runs that are finished are kept.

    An interrupted search goes on where it was. Several processes share the work: what one is at, others pass over.
    Returns the names of the runs that diverged, which the others do without.
    """
    diverged = []
    for seed in plan.seeds if seeds is None else seeds:
        for variant in plan.variants:
            run = Path(folder, f"{variant}_seed{seed}")
            try:
                fit(_variant_config(plan, variant, seed), run, resume=True)
            except FolderInUse as busy:
                print(f"passed over: {busy}", file=sys.stderr)
            except FloatingPointError as error:
                print(f"diverged: {run.name}: {error}", file=sys.stderr)
                diverged.append(run.name)
    return diverged


# chapters/workshop_reports.md · A table of many runs
def summarize(folder: str | Path) -> list[dict[str, Any]]:
    """One row for each variant below a folder: its seeds, mean validation accuracy and 95 % interval, mean seconds.

    Runs of one name that differ by their seed are one variant. The best comes first.

    Raises:
        ValueError: if the folder holds no finished run.
    """
    groups: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).glob("*/run.json")):
        name = read_run_record(path.parent)["name"]
        groups.setdefault(name, []).append(path.parent)
    if not groups:
        raise ValueError(f"there are no finished runs below {folder}")
    rows = [_summary(name, runs) for name, runs in groups.items()]
    return sorted(rows, key=lambda row: -row["accuracy"])


def _summary(name: str, runs: Sequence[Path]) -> dict[str, Any]:
    """The row of one variant; the half width of the interval is None if there is only one seed."""
    accuracies = [last_validation(run).accuracy for run in runs]
    mean, half = mean_interval(accuracies) if len(runs) > 1 else (accuracies[0], None)
    seconds = sum(read_run_record(run)["seconds"] for run in runs) / len(runs)
    return {"variant": name, "seeds": len(runs), "accuracy": mean, "half_width": half, "seconds": seconds}


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `summarize` as a table in Markdown, accuracies in per cent."""
    lines = ["| variant | seeds | validation accuracy | seconds |", "|---|---|---|---|"]
    for row in rows:
        half = "" if row["half_width"] is None else f" ± {100 * row['half_width']:.1f}"
        lines.append(
            f"| {row['variant']} | {row['seeds']} | {100 * row['accuracy']:.1f}{half} % | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
