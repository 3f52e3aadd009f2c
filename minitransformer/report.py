# Generated from chapters/day07_experiments.md; edit the chapter, not this file.
"""Tables of many runs, and the report of one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minitransformer.evaluate import Metrics, mean_interval
from minitransformer.runs import read_records

__all__ = [
    "draw_curves",
    "last_validation",
    "markdown_table",
    "run_folders",
    "summarize",
    "summary",
    "write_report",
]


# chapters/day07_experiments.md · From folders to a table
def last_validation(folder: str | Path) -> Metrics:
    """What a run's last validation found."""
    return Metrics(**read_records(folder, "epoch")[-1]["validation"])


# chapters/day07_experiments.md · From folders to a table
def run_folders(folder: str | Path) -> list[Path]:
    """The finished runs directly below a folder, by name."""
    return sorted(path.parent for path in Path(folder).glob("*/run.json"))


# chapters/day07_experiments.md · From folders to a table
def summarize(folder: str | Path) -> list[dict[str, Any]]:
    """One row for each variant below a folder: its seeds, mean validation accuracy and 95 % interval, mean seconds.

    Runs of one name that differ by their seed are one variant. The best comes first.

    Raises:
        ValueError: if the folder holds no finished run.
    """
    groups: dict[str, list[Path]] = {}
    for run in run_folders(folder):
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        groups.setdefault(record["name"], []).append(run)
    if not groups:
        raise ValueError(f"there are no finished runs below {folder}")
    rows = [summary(name, runs) for name, runs in groups.items()]
    return sorted(rows, key=lambda row: -row["accuracy"])


# chapters/day07_experiments.md · From folders to a table
def summary(name: str, runs: Sequence[Path]) -> dict[str, Any]:
    """The row of one variant; the half width of the interval is None if there is only one seed."""
    accuracies = [last_validation(run).accuracy for run in runs]
    records = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in runs]
    mean, half = mean_interval(accuracies) if len(runs) > 1 else (accuracies[0], None)
    seconds = sum(record["seconds"] for record in records) / len(runs)
    return {"variant": name, "seeds": len(runs), "accuracy": mean, "half_width": half, "seconds": seconds}


# chapters/day07_experiments.md · From folders to a table
def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `summarize` as a table in Markdown, accuracies in per cent."""
    lines = ["| variant | seeds | validation accuracy | seconds |", "|---|---|---|---|"]
    for row in rows:
        half = "" if row["half_width"] is None else f" ± {100 * row['half_width']:.1f}"
        lines.append(
            f"| {row['variant']} | {row['seeds']} | {100 * row['accuracy']:.1f}{half} % | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


# chapters/day07_experiments.md · The run's own page
def draw_curves(folder: Path) -> Path:
    """Training loss by step, and both accuracies by epoch, as `curves.svg`: equal runs give equal files.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    try:  # here, because few commands draw
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(
            "a report needs matplotlib, which is not installed: pip install matplotlib"
        ) from None

    steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in steps], [r["loss"] for r in steps], linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss")
    for part in ("train", "validation"):
        right.plot([r["epoch"] for r in epochs], [r[part]["accuracy"] for r in epochs], "o-", label=part)
    right.set(xlabel="epoch", ylabel="accuracy", xticks=[r["epoch"] for r in epochs])
    right.legend(frameon=False)
    path = folder / "curves.svg"
    with rc_context({"svg.hashsalt": "minitransformer"}):  # else its identifiers are random
        figure.savefig(path, metadata={"Date": None})
    return path


# chapters/day07_experiments.md · The run's own page
def write_report(folder: str | Path) -> Path:
    """Write `report.md` with `curves.svg` into a run's folder: result, curves, settings, origin. Nothing is typed by hand.

    Raises:
        ValueError: if the folder does not hold a finished run.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} does not hold a finished run: there is no run.json in it")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    machine, metrics = record["machine"], last_validation(folder)
    where = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    settings = (folder / "config.yaml").read_text(encoding="utf-8")
    origin = {key: record[key] for key in ("data", "machine", "code")}
    fence = "`" * 3
    lines = [
        f"# {record['name']}, seed {record['seed']}\n",
        f"Class *{record['class']}*. Validation: {metrics}.",
        f"{record['seconds']:.0f} s on {where}, {record['tokens_per_second']:,} tokens/s.\n",
        f"![Training loss by step; accuracy by epoch]({draw_curves(folder).name})\n",
        f"## Settings\n\n{fence}yaml\n{settings.strip()}\n{fence}\n",
        f"## Origin\n\n{fence}json\n{json.dumps(origin, indent=2)}\n{fence}",
    ]
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
