# Generated from chapters/day07_experiments.md, chapters/day10_report.md; edit the chapters, not this file.
"""Tables of many runs, and the illustrated report of one."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitransformer.config import RunConfig, examples_of, load_config
from minitransformer.data import load_examples, make_loader
from minitransformer.evaluate import (
    LABELS,
    Metrics,
    accuracy_by_group,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    difference_interval,
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
    read_evaluations,
    read_records,
    read_run_record,
    record_evaluation,
    write_atomically,
    writing,
)
from minitransformer.train import flat

__all__ = [
    "CLASSES",
    "agreement",
    "architecture",
    "confidence_of",
    "cost_line",
    "device_name",
    "draw_architecture",
    "draw_calibration",
    "draw_curves",
    "drawing",
    "evaluate_split",
    "finished_record",
    "flat_settings",
    "group_rows",
    "last_validation",
    "markdown_table",
    "measure_split",
    "percent",
    "result_rows",
    "results_of",
    "results_table",
    "run_folders",
    "section",
    "settings_table",
    "split_section",
    "summarize",
    "summary",
    "table",
    "without_folders",
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


# chapters/day10_report.md · Pictures that change only if the run does
def draw_curves(folder: Path) -> Path:
    """Training loss by step, and both accuracies by epoch, as `curves.svg`: equal runs give equal files."""
    steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
    path = folder / "curves.svg"
    with drawing(path, 8, 3) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([r["step"] for r in steps], [r["loss"] for r in steps], linewidth=0.8)
        left.set(xlabel="step", ylabel="training loss")
        for part in ("train", "validation"):
            right.plot([r["epoch"] for r in epochs], [r[part]["accuracy"] for r in epochs], "o-", label=part)
        right.set(xlabel="epoch", ylabel="accuracy", xticks=[r["epoch"] for r in epochs])
        right.legend(frameon=False)
    return path


# chapters/day10_report.md · Rows, sections, page
def write_report(folder: str | Path) -> Path:
    """Write `report.md` and its figures into a run's folder; every number comes from the folder's own records.

    What only people know, such as goal and challenges, stands in `notes.md`, if there is one.

    Raises:
        ValueError: if the folder does not hold a finished run.
    """
    folder = Path(folder)
    record, config = without_folders(finished_record(folder)), load_config(folder / "config.yaml")
    notes, start = folder / "notes.md", record.get("initial")
    picture = draw_architecture(config.model, folder / "architecture.svg").name
    curves = f"![Training loss by step; accuracy by epoch]({draw_curves(folder).name})"
    origin = {key: record[key] for key in ("data", "initial", "machine", "code") if key in record}
    parts = [
        f"# {record['name']}, seed {record['seed']}",
        f"Class *{record['class']}*. {CLASSES[record['class']]}",
        f"It starts from `{start['folder']}/{start['file']}`." if start else "",
        notes.read_text(encoding="utf-8").strip() if notes.is_file() else "",
        section("Results", results_table(folder), agreement(folder)),
        section("Architecture", f"![The model from the text to the label]({picture})"),
        section("Training", curves, cost_line(folder)),
        split_section(folder, "validation"),
        split_section(folder, "test"),
        section("Settings", settings_table(config)),
        section("Origin", f"```json\n{json.dumps(origin, indent=2)}\n```"),
    ]
    path = folder / "report.md"
    write_atomically(path, ("\n\n".join(part for part in parts if part) + "\n").encode())
    return path


# chapters/day10_report.md · What a reading leaves behind
def measure_split(
    folder: str | Path, split: str, record: bool = True
) -> tuple[str, Metrics, list[dict[str, Any]]]:
    """Where the examples of a split come from, how the model of a run folder does on them, and each answer.

    With `record` a record that nothing can be added to is refused before the split is read.
    """
    config, model, tokenizer = load_run(folder)
    if record:
        read_evaluations(folder)
    examples = load_examples(examples_of(config.data, split), split)
    logits, labels = predict(model, make_loader(examples, tokenizer, 256))
    return examples.source, score(logits, labels), answer_records(examples.texts, logits, labels)


# chapters/day10_report.md · What a reading leaves behind
def evaluate_split(folder: str | Path, split: str, record: bool = True) -> tuple[str, Metrics]:
    """Where the examples of a split come from, and how the model of a run folder does on them.

    With `record` the answers and the result are kept in the folder, and the reading of the split is counted.
    """
    source, metrics, answers = measure_split(folder, split, record)
    if record:
        record_evaluation(folder, split, answers, metrics)
    return source, metrics


# chapters/day10_report.md · Pictures that change only if the run does
@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Any]:
    """An empty figure to draw on, which is then written as SVG: equal content gives equal files, in whatever style.

    Raises:
        ValueError: if matplotlib is not installed.
    """
    try:  # here, because few commands draw
        from matplotlib import rc_context, style
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(
            "a report needs matplotlib, which is not installed: pip install matplotlib"
        ) from None

    with style.context("default"), rc_context({"svg.hashsalt": "minitransformer"}):  # else ids are random
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with writing(path):
            figure.savefig(path, metadata={"Date": None})


# chapters/day10_report.md · Pictures that change only if the run does
def architecture(config: ModelConfig) -> list[str]:
    """The parts that a text passes, in order, with their sizes; the third names the layer whose two parts follow."""
    norm = "norm → {} → add" if config.norm_first else "{} → add → norm"
    width = config.d_model // config.num_heads
    embedding = f"token embedding: {config.vocab_size:,} × {config.d_model}"
    positions = f"+ {config.positions} positions, up to {config.max_length}"
    later = asdict(config)  # two settings of Day 11
    more = ", + token types" * (later.get("type_vocab_size", 0) > 0) + ", norm" * later.get(
        "embedding_norm", False
    )
    return [
        embedding,
        positions + more,
        f"{config.num_layers} × encoder layer, {'pre-norm' if config.norm_first else 'post-norm'}",
        norm.format(f"self-attention: {config.num_heads} heads of width {width}"),
        norm.format(
            f"feed-forward: {config.d_model} → {config.d_ff} → {config.d_model}, {config.activation}"
        ),
        *(["norm"] if config.norm_first else []),
        {"cls": "the vector of [CLS]", "mean": "the mean over all tokens"}[config.pooling],
        f"linear layer: {config.d_model} → {config.num_labels}",
    ]


# chapters/day10_report.md · Pictures that change only if the run does
def draw_architecture(config: ModelConfig, path: Path) -> Path:
    """The model from the text (below) to the label (above), with its sizes; a frame holds what each layer repeats."""
    parts = architecture(config)
    boxes = ["the text, as token ids", *parts[:2], *parts[3:], "negative or positive"]
    with drawing(path, 6.4, 5) as figure:
        axes = figure.subplots()
        for y, part in enumerate(boxes):
            color = "#fdf1d8" if y in (3, 4) else "#dbe7f3" if 0 < y < len(boxes) - 1 else "#ffffff"
            box = {"boxstyle": "round,pad=0.4", "facecolor": color, "edgecolor": "#4477aa"}
            axes.text(0.5, y, part, ha="center", va="center", fontsize=11, bbox=box)
            if y:
                arrow = {"arrowstyle": "->", "color": "#555555"}
                axes.annotate("", (0.5, y - 0.3), (0.5, y - 0.7), arrowprops=arrow)
        axes.plot(
            [0.03, 0.97, 0.97, 0.03, 0.03], [2.5, 2.5, 4.5, 4.5, 2.5], "--", color="#b07d00", linewidth=1
        )
        axes.text(0.985, 3.5, f"× {config.num_layers}", fontsize=13, va="center")
        axes.set(xlim=(0, 1.08), ylim=(-0.5, len(boxes) - 0.5))
        axes.axis("off")
    return path


# chapters/day10_report.md · Pictures that change only if the run does
def confidence_of(answers: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """How sure each answer was, and whether it was right."""
    positive = torch.tensor([a["positive"] for a in answers])
    return torch.maximum(positive, 1 - positive), torch.tensor([bool(a["correct"]) for a in answers])


# chapters/day10_report.md · Pictures that change only if the run does
def draw_calibration(answers: Sequence[dict[str, Any]], path: Path) -> Path:
    """Accuracy against confidence: on the diagonal a model is as often right as it believes."""
    bins = calibration_bins(*confidence_of(answers))
    sizes = [8 + 200 * b.n / len(answers) for b in bins]
    with drawing(path, 4, 3.4) as figure:
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color="#888888", linewidth=0.8)
        axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], sizes)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0.48, 1.02), ylim=(-0.02, 1.02))
    return path


# chapters/day10_report.md · Rows, sections, page
def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


# chapters/day10_report.md · Rows, sections, page
def percent(share: float) -> str:
    """A share in per cent with one decimal."""
    return f"{100 * share:.1f}"


# chapters/day10_report.md · Rows, sections, page
def results_of(folder: Path) -> dict[str, tuple[Metrics, object]]:
    """Validation first: what was found on each split, and how often it was read (the run's own validation does not count)."""
    found: dict[str, tuple[Metrics, object]] = {"validation": (last_validation(folder), "")}
    for split, e in read_evaluations(folder).items():
        found[split] = (Metrics(e["n"], e["accuracy"], e["loss"]), e["readings"])
    return found


# chapters/day10_report.md · Rows, sections, page
def result_rows(folder: Path) -> list[list[object]]:
    """One row for each split that was evaluated: examples, accuracy, interval, loss, readings."""
    rows: list[list[object]] = []
    for split, (metrics, readings) in results_of(folder).items():
        interval = " to ".join(percent(end) for end in metrics.interval95)
        rows.append([split, metrics.n, percent(metrics.accuracy), interval, f"{metrics.loss:.3f}", readings])
    return rows


# chapters/day10_report.md · Rows, sections, page
def results_table(folder: Path) -> str:
    """What was found on each split, as a table in Markdown."""
    header = ["split", "examples", "accuracy (%)", "95 % interval", "loss", "readings"]
    return table(header, result_rows(folder))


# chapters/day10_report.md · Rows, sections, page
def group_rows(answers: Sequence[dict[str, Any]]) -> list[list[object]]:
    """One row for each group of examples: how many, accuracy, interval."""
    rows: list[list[object]] = []
    for name, (n, correct) in accuracy_by_group(answers).items():
        interval = " to ".join(percent(end) for end in wilson_interval(correct, n))
        rows.append([name, n, percent(correct / n), interval])
    return rows


# chapters/day10_report.md · Rows, sections, page
def agreement(folder: Path) -> str:
    """Whether test and validation agree, in a sentence; empty if the test split was not read."""
    results = results_of(folder)
    if "test" not in results:
        return ""
    low, high = difference_interval(results["test"][0], results["validation"][0])
    verdict = "no difference" if low <= 0 <= high else "a higher" if low > 0 else "a lower"
    seen = f"{verdict} accuracy on test" if verdict != "no difference" else f"{verdict} beyond chance"
    interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
    return f"Test less validation, in points, 95 % interval: {interval}, so these answers show {seen}."


# chapters/day10_report.md · Rows, sections, page
def device_name(record: dict[str, Any]) -> str:
    """What a run ran on, by its record: the GPU's name, or the processor's."""
    machine = record["machine"]
    return machine["cpu"] if machine["device"] == "cpu" else machine["device"]


# chapters/day10_report.md · Rows, sections, page
def cost_line(folder: Path) -> str:
    """What a run took: epochs, time, machine, speed."""
    record, epochs = read_run_record(folder), len(read_records(folder, "epoch"))
    threads = record["machine"]["threads"]
    return (
        f"{epochs} epoch{'s' * (epochs != 1)} in {record['seconds']:,.0f} s on {device_name(record)} "
        f"({threads} thread{'s' * (threads != 1)}), {record['tokens_per_second']:,} tokens/s."
    )


# chapters/day10_report.md · Rows, sections, page
CLASSES = {
    "alone": "It was trained on the data set named here, and on nothing else.",
    "read": "It was trained on the data set named here and on other texts, without weights from elsewhere.",
    "taught": "It starts from weights that others trained on other texts.",
}


# chapters/day10_report.md · Rows, sections, page
def without_folders(value: Any) -> Any:
    """A value whose absolute paths, at any depth, are cut down to their last part."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_folders(item) for item in value)
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


# chapters/day10_report.md · Rows, sections, page
def flat_settings(config: RunConfig) -> dict[str, Any]:
    """Every setting under its name on the command line."""
    settings = without_folders(asdict(config))
    return {name.replace("/", "."): value for name, value in flat(settings).items()}


# chapters/day10_report.md · Rows, sections, page
def settings_table(config: RunConfig) -> str:
    """All settings of a run, one a line."""
    rows = [[f"`{name}`", f"`{value}`"] for name, value in flat_settings(config).items()]
    return table(["setting", "value"], rows)


# chapters/day10_report.md · Rows, sections, page
def section(title: str, *parts: str) -> str:
    """A section of a report; empty parts are left out."""
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


# chapters/day10_report.md · Rows, sections, page
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


# chapters/day10_report.md · Rows, sections, page
def finished_record(folder: Path) -> dict[str, Any]:
    """What `run.json` says, after a look at everything that a report needs.

    Raises:
        ValueError: one sentence, if the folder does not hold a finished training run, or a file of it is broken.
    """
    record, path = read_run_record(folder), folder / "run.json"
    for key in ("name", "seed", "machine", "seconds", "tokens_per_second"):
        if key not in record:
            raise ValueError(f"{path} is not the record of a training run: it does not name its {key}")
    if record["class"] not in CLASSES:
        raise ValueError(f"{path}: the class must be one of {', '.join(CLASSES)}, got {record['class']!r}")
    metrics = folder / "metrics.jsonl"
    try:
        epochs = read_records(folder, "epoch")
    except FileNotFoundError:
        raise ValueError(f"{folder} does not hold a finished run: there is no metrics.jsonl in it") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{metrics} is broken: every line must be a JSON object with a kind") from None
    if not epochs:
        raise ValueError(f"{metrics} does not hold the end of an epoch")
    for split in read_evaluations(folder):
        read_answers(folder, split)
    return record
