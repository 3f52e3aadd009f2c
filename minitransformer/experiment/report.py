# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The illustrated report of a run."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined

from minitransformer.data import load_examples, make_loader
from minitransformer.evaluate import (
    LABELS,
    CalibrationBin,
    Metrics,
    accuracy_by_group,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    difference_interval,
    predict,
    score,
    wilson_interval,
)
from minitransformer.experiment.folder import (
    _answer_records,
    _record_evaluation,
    _write_atomically,
    _writing,
    last_validation,
    load_run,
    read_answers,
    read_evaluations,
    read_records,
    read_run_record,
)
from minitransformer.experiment.job import _flat
from minitransformer.experiment.settings import RunConfig, read_settings
from minitransformer.model import ModelConfig

__all__ = ["evaluate_split", "write_report"]


# chapters/workshop_reports.md · Measuring a split, and counting the readings
def _measure_split(
    folder: str | Path, split: str, record: bool = True
) -> tuple[str, Metrics, list[dict[str, Any]]]:
    """Where the examples of a split come from, how the model of a run folder does on them, and each answer."""
    config, model, tokenizer = load_run(folder)
    if record:  # what cannot be counted is not read
        read_evaluations(folder)
    examples = load_examples(config.data.source(split), split)
    logits, labels = predict(model, make_loader(examples, tokenizer, 256))
    answers = _answer_records(examples.texts, logits, labels)
    return examples.source, score(logits, labels), answers


def evaluate_split(folder: str | Path, split: str, record: bool = True) -> tuple[str, Metrics]:
    """Where the examples of a split come from, and how the model of a run folder does on them.

    With `record` the answers and the result are kept in the folder, and the reading of the split is counted.
    """
    source, metrics, answers = _measure_split(folder, split, record)
    if record:
        _record_evaluation(folder, split, answers, metrics)
    return source, metrics


# chapters/workshop_reports.md · Pictures that change only if the run does
@contextmanager
def _drawing(path: Path, width: float, height: float) -> Iterator[Any]:
    """An empty figure to draw on, which is then written as SVG: equal content gives equal files, in whatever style."""
    from matplotlib import rc_context, style  # here, because few commands draw
    from matplotlib.figure import Figure

    with style.context("default"), rc_context({"svg.hashsalt": "minitransformer"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with _writing(path):
            figure.savefig(path, metadata={"Date": None})


def _draw_curves(folder: Path) -> Path:
    """Training loss by step, and both accuracies by epoch, as `curves.svg`: equal runs give equal files."""
    steps, epochs = read_records(folder, "step"), read_records(folder, "epoch")
    path = folder / "curves.svg"
    with _drawing(path, 6.4, 2.6) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([r["step"] for r in steps], [r["loss"] for r in steps], linewidth=0.8)
        left.set(xlabel="step", ylabel="training loss")
        for part in ("train", "validation"):
            right.plot([r["epoch"] for r in epochs], [r[part]["accuracy"] for r in epochs], "o-", label=part)
        right.set(xlabel="epoch", ylabel="accuracy", xticks=[r["epoch"] for r in epochs])
        right.legend(frameon=False)
    return path


def _architecture(config: ModelConfig) -> list[str]:
    """The parts that a text passes, in order, with their sizes; the third and the fourth are those of a layer."""
    norm = "norm → {} → add" if config.norm_first else "{} → add → norm"
    width = config.d_model // config.num_heads
    more = ", + token types" * (config.type_vocab_size > 0) + ", norm" * config.embedding_norm
    return [
        f"token embedding: {config.vocab_size:,} × {config.d_model}",
        f"+ {config.positions} positions, up to {config.max_length}{more}",
        norm.format(f"self-attention: {config.num_heads} heads of width {width}"),
        norm.format(
            f"feed-forward: {config.d_model} → {config.d_ff} → {config.d_model}, {config.activation}"
        ),
        *(["norm"] if config.norm_first else []),
        {"cls": "the vector of [CLS]", "mean": "the mean over all tokens"}[config.pooling],
        f"linear layer: {config.d_model} → {config.num_labels}",
    ]


def _draw_architecture(config: ModelConfig, path: Path) -> Path:
    """The model from the text (below) to the label (above), with its sizes; a frame holds what each layer repeats."""
    boxes = ["the text, as token ids", *_architecture(config), "negative or positive"]
    with _drawing(path, 6.4, 5) as figure:
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


def _draw_calibration(bins: Sequence[CalibrationBin], path: Path) -> Path:
    """Accuracy against confidence: on the diagonal a model is as often right as it believes."""
    total = sum(b.n for b in bins)
    sizes = [8 + 200 * b.n / total for b in bins]
    with _drawing(path, 4, 3.4) as figure:
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color="#888888", linewidth=0.8)
        axes.scatter([b.confidence for b in bins], [b.accuracy for b in bins], sizes)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0.48, 1.02), ylim=(-0.02, 1.02))
    return path


# chapters/workshop_reports.md · The page is a template
_REPORT = """\
# {{ record.name }}, seed {{ record.seed }}

Class *{{ record.class }}*. {{ classes[record.class] }}
{% if record.initial %}

It starts from `{{ record.initial.folder }}/{{ record.initial.file }}`.
{% endif %}
{% if notes %}

{{ notes }}
{% endif %}

## Results

{{ results }}
{% if agreement %}

{{ agreement }}
{% endif %}

## Architecture

![The model from the text to the label]({{ architecture }})

## Training

![Training loss by step; accuracy by epoch]({{ curves }})

{{ epochs }} epoch{{ "s" if epochs != 1 }} in {{ "{:,.0f}".format(record.seconds) }} s on {{ device }} \
({{ threads }} thread{{ "s" if threads != 1 }}), {{ "{:,}".format(record.tokens_per_second) }} tokens/s.
{% for look in looks %}

{{ look }}
{% endfor %}
"""

_ORIGIN = """\

## Settings

| setting | value |
| --- | --- |
{% for name, value in settings.items() %}
| `{{ name }}` | `{{ value }}` |
{% endfor %}

## Origin

~~~json
{{ origin }}
~~~
"""

_RESULTS = """\
| split | examples | accuracy (%) | 95 % interval | loss | readings |
| --- | --- | --- | --- | --- | --- |
{% for split, (m, readings) in results.items() %}
| {{ split }} | {{ m.n }} | {{ m.accuracy | percent }} | {{ m.interval95 | interval }} \
| {{ "%.3f" | format(m.loss) }} | {{ readings }} |
{% endfor %}"""

_LOOK = """\
## A closer look at the {{ split }} split

| label \\ answer | {{ labels | join(" | ") }} |
| --- | --- | --- |
{% for row in confusion %}
| **{{ labels[loop.index0] }}** | {{ row | join(" | ") }} |
{% endfor %}

| group | examples | accuracy (%) | 95 % interval |
| --- | --- | --- | --- |
{% for name, (n, correct) in groups.items() %}
| {{ name }} | {{ n }} | {{ (correct / n) | percent }} | {{ wilson(correct, n) | interval }} |
{% endfor %}

![Accuracy against confidence on the {{ split }} split]({{ picture }})

Confidence and accuracy are {{ error | percent }} points apart on average (expected calibration error)."""


def _percent(share: float) -> str:
    """A share in per cent with one decimal."""
    return f"{100 * share:.1f}"


def _render(template: str, **values: Any) -> str:
    """A template of Markdown, filled; a name that is missing is an error."""
    pages = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    pages.filters["percent"] = _percent
    pages.filters["interval"] = lambda ends: " to ".join(map(_percent, ends))
    return pages.from_string(template).render(values).strip()


def _results_of(folder: str | Path) -> dict[str, tuple[Metrics, object]]:
    """Validation first: what was found on each split, and how often it was read (the run's own validation does not count)."""
    found: dict[str, tuple[Metrics, object]] = {"validation": (last_validation(folder), "")}
    for split, e in read_evaluations(folder).items():
        found[split] = (Metrics(e["n"], e["accuracy"], e["loss"]), e["readings"])
    return found


def _results_table(folder: str | Path) -> str:
    """What was found on each split, as a table in Markdown."""
    return _render(_RESULTS, results=_results_of(folder))


def _agreement(folder: str | Path) -> str:
    """Whether test and validation agree, in a sentence; empty if the test split was not read."""
    results = _results_of(folder)
    if "test" not in results:
        return ""
    low, high = difference_interval(results["test"][0], results["validation"][0])
    seen = f"a {'higher' if low > 0 else 'lower'} accuracy on test"
    if low <= 0 <= high:
        seen = "no difference beyond chance"
    interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
    return f"Test less validation, in points, 95 % interval: {interval}, so these answers show {seen}."


def _device_name(record: dict[str, Any]) -> str:
    """What a run ran on, by its record: the GPU's name, or the processor's."""
    machine = record["machine"]
    return machine["cpu"] if machine["device"] == "cpu" else machine["device"]


_KINDS = {
    "alone": "It was trained on the data set named here, and on nothing else.",
    "read": "It was trained on the data set named here and on other texts, without weights from elsewhere.",
    "taught": "It starts from weights that others trained on other texts.",
}


def _last_parts(value: Any) -> Any:
    """A value whose absolute paths, at any depth, are cut down to their last part."""
    if isinstance(value, dict):
        return {key: _last_parts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_last_parts(item) for item in value)
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def _without_folders(config: RunConfig) -> RunConfig:
    """The config with the last part of every path in it, which tells what was there but not on which machine."""
    names = ("tokenizer", "train", "validation", "test")
    paths = {name: getattr(config.data, name) for name in names}
    cut: dict[str, Any] = {name: path and Path(path).name for name, path in paths.items()}
    initial = config.initial and Path(config.initial).name
    return replace(config, initial=initial, data=replace(config.data, **cut))


def _closer_look(folder: Path, split: str) -> str:
    """What the answers on a split show beyond their accuracy: confusion, groups, calibration; empty without answers."""
    answers = read_answers(folder, split)
    if not answers:
        return ""
    names = ("positive", "label", "correct")
    positive, labels, correct = (torch.tensor([a[n] for a in answers]) for n in names)
    bins = calibration_bins(torch.maximum(positive, 1 - positive), correct)
    picture = _draw_calibration(bins, folder / f"calibration_{split}.svg")
    return _render(
        _LOOK,
        split=split,
        labels=LABELS,
        confusion=confusion_matrix((positive > 0.5).long(), labels).tolist(),
        groups=accuracy_by_group(answers),
        wilson=wilson_interval,
        picture=picture.name,
        error=calibration_error(bins),
    )


def _finished_record(folder: Path) -> dict[str, Any]:
    """What `run.json` says, after a look at the records that a report is made from."""
    record, path = read_run_record(folder), folder / "run.json"
    for key in ("name", "seed", "machine", "seconds", "tokens_per_second"):
        if key not in record:
            raise ValueError(f"{path} is not the record of a training run: it does not name its {key}")
    if record["class"] not in _KINDS:
        raise ValueError(f"{path}: the class must be one of {', '.join(_KINDS)}, got {record['class']!r}")
    last_validation(folder)
    for split in read_evaluations(folder):
        read_answers(folder, split)
    return record


def write_report(folder: str | Path) -> Path:
    """Write `report.md` and its figures into a run's folder; every number comes from the folder's own records.

    What only people know, such as goal and challenges, stands in `notes.md`, if there is one.

    Raises:
        ValueError: if the folder does not hold a finished run.
    """
    folder = Path(folder)
    record, notes = _last_parts(_finished_record(folder)), folder / "notes.md"
    config = _without_folders(read_settings(RunConfig, folder / "config.yaml"))
    splits = ("validation", "test")
    sources = [key for key in ("data", "initial", "machine", "code") if key in record]
    text = _render(
        _REPORT + _ORIGIN,
        record={"initial": None, **record},
        classes=_KINDS,
        notes=notes.read_text(encoding="utf-8").strip() if notes.is_file() else "",
        results=_results_table(folder),
        agreement=_agreement(folder),
        architecture=_draw_architecture(config.model, folder / "architecture.svg").name,
        curves=_draw_curves(folder).name,
        epochs=len(read_records(folder, "epoch")),
        device=_device_name(record),
        threads=record["machine"]["threads"],
        looks=[look for split in splits if (look := _closer_look(folder, split))],
        settings=_flat(asdict(config)),
        origin=json.dumps({key: record[key] for key in sources}, indent=2),
    )
    path = folder / "report.md"
    _write_atomically(path, (text + "\n").encode())
    return path
