# Generated from chapters/day07_experiments.md, chapters/day10_report.md; edit the chapters, not this file.
"""Tables of many runs, and the illustrated report of one."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitransformer.config import RunConfig, load_config
from minitransformer.data import load_examples, make_loader
from minitransformer.evaluate import (
    LABELS,
    Metrics,
    accuracy_by_group,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    mean_interval,
    predict,
    score,
    wilson_interval,
)
from minitransformer.model import ModelConfig
from minitransformer.runs import (
    answer_records,
    load_run,
    read_answers,
    read_records,
    read_run_record,
    record_evaluation,
)
from minitransformer.train import flat

__all__ = [
    "CLASSES",
    "architecture",
    "confidence_of",
    "cost_line",
    "draw_architecture",
    "draw_calibration",
    "draw_curves",
    "evaluate_split",
    "figure_of",
    "flat_settings",
    "group_rows",
    "last_validation",
    "markdown_table",
    "percent",
    "result_rows",
    "run_folders",
    "section",
    "settings_table",
    "split_section",
    "summarize",
    "summary",
    "table",
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


# chapters/day10_report.md · The final report
def draw_curves(folder: Path) -> Path:
    """Training loss by step, and both accuracies by epoch, as `curves.svg`: equal runs give equal files."""
    steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
    figure, save = figure_of(8, 3)
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in steps], [r["loss"] for r in steps], linewidth=0.8)
    left.set(xlabel="step", ylabel="training loss")
    for part in ("train", "validation"):
        right.plot([r["epoch"] for r in epochs], [r[part]["accuracy"] for r in epochs], "o-", label=part)
    right.set(xlabel="epoch", ylabel="accuracy", xticks=[r["epoch"] for r in epochs])
    right.legend(frameon=False)
    return save(folder / "curves.svg")


# chapters/day10_report.md · The final report
def write_report(folder: str | Path) -> Path:
    """Write `report.md` and its figures into a run's folder; every number comes from the folder's own records.

    What only people know, such as goal and challenges, stands in `notes.md`, if there is one.

    Raises:
        ValueError: if the folder does not hold a finished run.
    """
    folder = Path(folder)
    record, config = read_run_record(folder), load_config(folder / "config.yaml")
    notes = folder / "notes.md"
    results = table(
        ["split", "examples", "accuracy (%)", "95 % interval", "loss", "readings"], result_rows(folder)
    )
    picture = draw_architecture(config.model, folder / "architecture.svg").name
    start = record.get("initial")
    origin = {key: record[key] for key in ("data", "initial", "machine", "code") if key in record}
    fence = "`" * 3
    parts = [
        f"# {record['name']}, seed {record['seed']}",
        f"Class *{record['class']}*. {CLASSES[record['class']]}",
        f"It starts from `{start['folder']}/{start['file']}`." if start else "",
        notes.read_text(encoding="utf-8").strip() if notes.is_file() else "",
        section("Results", results),
        section("Architecture", f"![The model from the text to the label]({picture})"),
        section(
            "Training",
            f"![Training loss by step; accuracy by epoch]({draw_curves(folder).name})",
            cost_line(folder),
        ),
        split_section(folder, "validation"),
        split_section(folder, "test"),
        section("Settings", settings_table(config)),
        section("Origin", f"{fence}json\n{json.dumps(origin, indent=2)}\n{fence}"),
    ]
    path = folder / "report.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


# chapters/day10_report.md · The test split, counted
def evaluate_split(folder: str | Path, split: str, record: bool = True) -> tuple[str, Metrics]:
    """Where the examples of a split come from, and how the model of a run folder does on them.

    With `record` the answers and the result are kept in the folder, and the reading of the split is counted.
    """
    config, model, tokenizer = load_run(folder)
    examples = load_examples(config.data.name, split)
    logits, labels = predict(model, make_loader(examples, tokenizer, 256))
    metrics = score(logits, labels)
    if record:
        record_evaluation(folder, split, answer_records(examples.texts, logits, labels), metrics)
    return examples.source, metrics


# chapters/day10_report.md · The final report
def figure_of(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure and the function that writes it as SVG: equal content gives equal files.

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

    figure = Figure(figsize=(width, height), layout="constrained")

    def save(path: Path) -> Path:
        with rc_context({"svg.hashsalt": "minitransformer"}):  # else its identifiers are random
            figure.savefig(path, metadata={"Date": None})
        return path

    return figure, save


# chapters/day10_report.md · The final report
def architecture(config: ModelConfig) -> list[str]:
    """The parts that a text passes, in order, with their sizes."""
    norm = "pre-norm" if config.norm_first else "post-norm"
    parts = [
        f"token embedding: {config.vocab_size:,} × {config.d_model}",
        f"+ {config.positions} positions, up to {config.max_length}",
        f"{config.num_layers} × encoder layer, {norm}",
        f"self-attention: {config.num_heads} heads of width {config.d_model // config.num_heads}, add & norm",
        f"feed-forward: {config.d_model} → {config.d_ff} → {config.d_model}, {config.activation}, add & norm",
        {"cls": "the vector of [CLS]", "mean": "the mean over all tokens"}[config.pooling],
        f"linear layer: {config.d_model} → {config.num_labels}",
    ]
    return parts


# chapters/day10_report.md · The final report
def draw_architecture(config: ModelConfig, path: Path) -> Path:
    """The model from the text (below) to the label (above), with its sizes."""
    figure, save = figure_of(6, 4.6)
    axes = figure.subplots()
    parts = ["the text, as token ids", *architecture(config), "negative or positive"]
    inside = range(4, 6)  # the parts of one layer
    for i, part in enumerate(parts):
        color = "#fdf1d8" if i in inside else "#dbe7f3" if 0 < i < len(parts) - 1 else "#ffffff"
        box = {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "#4477aa"}
        axes.text(0.5, i, part, ha="center", va="center", fontsize=9, bbox=box)
        if i:
            axes.annotate(
                "", (0.5, i - 0.3), (0.5, i - 0.7), arrowprops={"arrowstyle": "->", "color": "#555555"}
            )
    axes.set(xlim=(0, 1), ylim=(-0.6, len(parts) - 0.4))
    axes.axis("off")
    return save(path)


# chapters/day10_report.md · The final report
def draw_calibration(answers: Sequence[dict[str, Any]], path: Path) -> Path:
    """Accuracy against confidence: on the diagonal a model is as often right as it believes."""
    figure, save = figure_of(4, 3.4)
    axes = figure.subplots()
    bins = calibration_bins(*confidence_of(answers))
    axes.plot([0.5, 1], [0.5, 1], color="#888888", linewidth=0.8)
    axes.scatter(
        [b.confidence for b in bins], [b.accuracy for b in bins], [8 + 200 * b.n / len(answers) for b in bins]
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0.48, 1.02), ylim=(-0.02, 1.02))
    return save(path)


# chapters/day10_report.md · The final report
def confidence_of(answers: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """How sure each answer was, and whether it was right."""
    positive = torch.tensor([a["positive"] for a in answers])
    return torch.maximum(positive, 1 - positive), torch.tensor([bool(a["correct"]) for a in answers])


# chapters/day10_report.md · The final report
def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# chapters/day10_report.md · The final report
def percent(share: float) -> str:
    """A share in per cent with one decimal."""
    return f"{100 * share:.1f}"


# chapters/day10_report.md · The final report
def result_rows(folder: Path) -> list[list[object]]:
    """One row for each split that was evaluated: examples, accuracy, interval, loss, readings."""
    evaluations = read_run_record(folder).get("evaluations", {})
    if "validation" not in evaluations:
        evaluations = {"validation": {"readings": "", **asdict(last_validation(folder))}} | evaluations
    rows = []
    for split, found in sorted(evaluations.items(), reverse=True):
        metrics = Metrics(found["n"], found["accuracy"], found["loss"])
        low, high = metrics.interval95
        interval = f"{percent(low)} to {percent(high)}"
        rows.append(
            [split, metrics.n, percent(metrics.accuracy), interval, f"{metrics.loss:.3f}", found["readings"]]
        )
    return rows


# chapters/day10_report.md · The final report
def group_rows(answers: Sequence[dict[str, Any]]) -> list[list[object]]:
    """One row for each group of examples: how many, accuracy, interval."""
    rows = []
    for name, (n, correct) in accuracy_by_group(answers).items():
        low, high = wilson_interval(correct, n)
        rows.append([name, n, percent(correct / n), f"{percent(low)} to {percent(high)}"])
    return rows


# chapters/day10_report.md · The final report
CLASSES = {
    "alone": "It was trained on the data set named here, and on nothing else.",
    "read": "It was trained on the data set named here and on other texts, without weights from elsewhere.",
    "taught": "It starts from weights that others trained on other texts.",
}


# chapters/day10_report.md · The final report
def section(title: str, *parts: str) -> str:
    """A section of a report; empty parts are left out."""
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


# chapters/day10_report.md · The final report
def split_section(folder: Path, split: str) -> str:
    """What the answers on a split show beyond their accuracy: confusion, groups, calibration."""
    answers = read_answers(folder, split)
    if not answers:
        return ""
    labels = torch.tensor([a["label"] for a in answers])
    matrix = confusion_matrix(torch.tensor([int(a["positive"] > 0.5) for a in answers]), labels).tolist()
    rows = [[f"**{LABELS[i]}**", *matrix[i]] for i in range(len(LABELS))]
    error = calibration_error(calibration_bins(*confidence_of(answers)))
    picture = draw_calibration(answers, folder / f"calibration_{split}.svg").name
    return section(
        f"A closer look at the {split} split",
        table(["label \\ answer", *LABELS], rows),
        table(["group", "examples", "accuracy (%)", "95 % interval"], group_rows(answers)),
        f"![Accuracy against confidence on the {split} split]({picture})",
        f"Confidence and accuracy are {percent(error)} points apart on average (expected calibration error).",
    )


# chapters/day10_report.md · The final report
def settings_table(config: RunConfig) -> str:
    """All settings of a run, one a line."""
    return table(
        ["setting", "value"], [[f"`{name}`", f"`{value}`"] for name, value in flat_settings(config).items()]
    )


# chapters/day10_report.md · The final report
def flat_settings(config: RunConfig) -> dict[str, Any]:
    """Every setting under its name on the command line."""
    return {name.replace("/", "."): value for name, value in flat(asdict(config)).items()}


# chapters/day10_report.md · The final report
def cost_line(folder: Path) -> str:
    """What a run took: epochs, time, machine, speed."""
    record, epochs = read_run_record(folder), len(read_records(folder, "epoch"))
    machine = record["machine"]
    where = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    return (
        f"{epochs} epochs in {record['seconds']:,.0f} s on {where} ({machine['threads']} threads), "
        f"{record['tokens_per_second']:,} tokens/s."
    )
