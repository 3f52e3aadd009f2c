# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The whole recipe, from raw text to the report."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from huggingface_hub import save_torch_state_dict
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import Tensor

from minitransformer.bert import _bert_folder, _casing, _kept_pieces, _source_name, _wordpiece, read_bert
from minitransformer.data import load_examples, load_imdb
from minitransformer.experiment.checkpoint import _same_run
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import (
    _RECORD_FILES,
    _file_digest,
    _in_use,
    _source_state,
    _write_atomically,
    _write_json,
    _writing,
    last_validation,
    read_answers,
    read_evaluations,
    read_run_record,
)
from minitransformer.experiment.report import (
    _device_name,
    _render,
    _results_table,
    _without_folders,
    evaluate_split,
    write_report,
)
from minitransformer.experiment.search import _summary
from minitransformer.experiment.settings import (
    PretrainConfig,
    RunConfig,
    _Name,
    _save_settings,
    _Seeds,
    read_settings,
    settings,
)
from minitransformer.model import ModelConfig, TransformerForSequenceClassification, _require
from minitransformer.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer

__all__ = ["RecipeConfig", "best_run", "convert", "load_recipe", "reproduce", "ship"]


# chapters/workshop_reports.md · Weights to give away
def ship(run: str | Path, folder: str | Path, largest: int = 16_000_000) -> Path:
    """Copy a finished run for others to use: its records, and its weights in half precision in files of limited size.

    A file has at most `largest` bytes of weights, or one larger tensor. The folder gets its name when all is in it.

    Raises:
        ValueError: in one sentence, if the run is not finished, or the folder is not empty.
    """
    read_run_record(run)
    model = TransformerForSequenceClassification.from_pretrained(run)
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder")
    parcel = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(parcel, ignore_errors=True)  # an interrupted call may have left it
    try:
        with _writing(folder):
            parcel.mkdir(parents=True)
            for name in (*_RECORD_FILES, "notes.md"):
                if Path(run, name).is_file():
                    shutil.copyfile(Path(run, name), parcel / name)
            if (saved := parcel / "config.yaml").is_file():
                _save_settings(_without_folders(read_settings(RunConfig, saved)), saved)
            halves = {name: value.half() for name, value in model.state_dict().items()}
            save_torch_state_dict(halves, parcel, max_shard_size=largest)
            if folder.exists():
                folder.rmdir()
            return parcel.rename(folder)
    finally:
        shutil.rmtree(parcel, ignore_errors=True)


# chapters/workshop_reports.md · A BERT taken over
def _smaller(
    folder: Path, vocab_size: int | None, max_length: int, texts: Iterable[str]
) -> tuple[ModelConfig, dict[str, Tensor], WordPieceTokenizer]:
    """The BERT in a folder, with `vocab_size` of its entries and the first `max_length` of its positions."""
    config, tokens, weights = read_bert(folder)
    casing, ids = _casing(folder), {token: i for i, token in enumerate(tokens)}
    size = len(tokens) if vocab_size is None else vocab_size
    kept = _kept_pieces(tokens, texts, size, **casing)
    length = min(max_length, config.max_length)
    rows = [ids[token] for token in kept]
    weights["embedding.weight"] = weights["embedding.weight"][rows]
    weights["positions.encoding"] = weights["positions.encoding"][:length].clone()
    config = replace(config, vocab_size=len(kept), max_length=length)
    config = replace(config, padding_id=0, pooling="mean")
    return config, weights, WordPieceTokenizer(_wordpiece(kept, **casing), length)


def convert(
    source: str | Path,
    folder: str | Path,
    vocab_size: int | None = None,
    max_length: int = 128,
    texts: Iterable[str] | None = None,
) -> ModelConfig:
    """Write the encoder and the tokenizer of a BERT into `folder`, for `initial` in the config of a run.

    With a `vocab_size` only as many entries are kept, those that `texts` use most (SST-2's and IMDB's training texts
    if none are given); and only the first `max_length` positions. Returns the config of the model.

    Raises:
        ValueError: in one sentence, if the source is not a BERT's, or the folder holds a run.
    """
    with _in_use(folder) as folder:
        found = _bert_folder(source)
        taken = (folder / "metrics.jsonl").exists()
        _require(not taken, "the folder", str(folder), "one that holds no run")
        if texts is None and vocab_size is not None:
            texts = load_examples("sst2", "train").texts + load_imdb("train").texts
        config, weights, tokenizer = _smaller(found, vocab_size, max_length, texts or ())
        digest = _file_digest(found / "model.safetensors")
        origin = {"source": _source_name(source), **digest, "vocab_size": vocab_size}
        record = {"name": folder.name, "class": "taught", "origin": origin}
        weights = {f"encoder.{name}": value for name, value in weights.items()}
        _write_json(folder / "config.json", asdict(config))
        with _writing(folder / "model.safetensors"):
            save_file(weights, folder / "model.safetensors")
        with _writing(folder / "tokenizer.json"):
            tokenizer.save(folder / "tokenizer.json")
        _write_json(folder / "run.json", {**record, "code": _source_state()})
        return config


# chapters/workshop_reports.md · The whole recipe
@settings()
class RecipeConfig:
    """A recipe from raw text to the report: an encoder that has read or was taken over, and runs that start from it.

    Attributes:
        train: the config file of the runs on labelled texts; it stands beside the recipe's own file, like `pretrain`.
        seeds: which seeds the runs get.
        pretrain: the config file of a reading.
        convert: the folder or the name on the hub of a BERT, in place of a reading; with both, the BERT reads on.
        vocab_size: how many of that BERT's entries are kept; None keeps all.
    """

    name: _Name
    train: str
    seeds: _Seeds
    pretrain: str | None = None
    convert: str | None = None
    vocab_size: Annotated[int | None, Field(gt=len(SPECIAL_TOKENS))] = None

    @model_validator(mode="after")
    def _an_encoder_comes_from_somewhere(self) -> "RecipeConfig":
        some = self.pretrain is not None or self.convert is not None
        _require(some, "pretrain", self.pretrain, "given if convert is not")
        return self


_MAY_DIFFER = {"vocab_size", "dropout", "fused", "num_labels", "pooling"}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RecipeConfig:
    """Read a recipe from a YAML file, and check the settings of all its stages before any work is done.

    Raises:
        ValueError: one sentence that names the file, the key, its value and what is allowed.
    """
    plan, here = read_settings(RecipeConfig, path, overrides), Path(path).parent
    plan = replace(plan, train=str(here / plan.train))
    run = read_settings(RunConfig, plan.train, ["--seed", str(plan.seeds[0])])
    if plan.pretrain is not None:
        plan = replace(plan, pretrain=str(here / plan.pretrain))
        reading = read_settings(PretrainConfig, str(plan.pretrain))
        theirs, ours = asdict(reading.model), asdict(run.model)
        for name in [name for name in theirs if name not in _MAY_DIFFER]:
            wanted = f"{theirs[name]!r}, as in {plan.pretrain}"
            same = ours[name] == theirs[name]
            _require(same, f"{plan.train}: model.{name}", ours[name], wanted)
    return plan


def _take_over(plan: RecipeConfig, folder: Path) -> Path:
    """The encoder and the tokenizer of the recipe's BERT, in `folder`; there already, they are kept."""
    assert plan.convert is not None
    asked = {"convert": _source_name(plan.convert), "vocab_size": plan.vocab_size}
    if (folder / "run.json").is_file():
        found = read_run_record(folder).get("origin", {})  # a reading has none
        theirs = {"convert": found.get("source"), "vocab_size": found.get("vocab_size")}
        _same_run(folder, theirs, asked)
    else:
        convert(plan.convert, folder, plan.vocab_size)
    return folder


def _make_encoder(plan: RecipeConfig, folder: Path) -> Path:
    """The first stage: an encoder that has read, one taken over from a BERT, or one that was taken over and read on."""
    encoder = folder / "encoder"
    if plan.pretrain is None:
        return _take_over(plan, encoder)
    reading = read_settings(PretrainConfig, plan.pretrain)
    if plan.convert is not None:
        reading = replace(reading, initial=str(_take_over(plan, folder / "bert")))
    fit(reading, encoder, resume=True)
    return encoder


def _run_of_seed(plan: RecipeConfig, folder: Path, seed: int) -> Path:
    """The second stage, once for each seed: train from the encoder, validate, and write the report."""
    run, start = folder / f"seed{seed}", str(folder / "encoder")
    changes = ["--seed", str(seed), "--initial", start]
    fit(read_settings(RunConfig, plan.train, changes), run, resume=True)
    if not read_answers(run, "validation"):
        evaluate_split(run, "validation")
    write_report(run)
    return run


def best_run(runs: Sequence[Path]) -> Path:
    """The run with the highest validation accuracy; of equal ones the first."""
    return max(runs, key=lambda run: last_validation(run).accuracy)


_SUMMARY = """\
# {{ name }}

Class *{{ kind }}*. Validation accuracy: {{ found.accuracy | percent }}\
{% if found.half_width is not none %}
 ± {{ found.half_width | percent }} % (mean of {{ runs | length }} seeds, 95 % interval).
{% else %}
 %.
{% endif %}

| run | validation (%) |
| --- | --- |
{% for run, accuracy in runs %}
| {{ run }} | {{ accuracy | percent }} |
{% endfor %}

## The chosen run, {{ chosen }}

{{ results }}

## Cost

| stage | seconds | tokens | tokens/s | machine |
| --- | --- | --- | --- | --- |
{% for stage, record, machine in stages %}
| {{ stage }} | {{ "{:,.0f}".format(record.seconds) }} | {{ "{:,}".format(record.tokens) }} \
| {{ "{:,}".format(record.tokens_per_second) }} | {{ machine }} |
{% endfor %}
"""


def _write_summary(folder: Path, runs: Sequence[Path], chosen: Path) -> Path:
    """Write `summary.md`: validation accuracy of every seed, the chosen run on the test split, and what it cost."""
    stages = [(stage, read_run_record(stage)) for stage in (folder / "encoder", *runs)]
    text = _render(
        _SUMMARY,
        name=folder.name,
        kind=read_run_record(chosen)["class"],
        found=_summary(folder.name, runs),
        runs=[(run.name, last_validation(run).accuracy) for run in runs],
        chosen=chosen.name,
        results=_results_table(chosen),
        # an encoder that was only taken over cost no time worth a line
        stages=[(s.name, r, _device_name(r)) for s, r in stages if "seconds" in r],
    )
    path = folder / "summary.md"
    _write_atomically(path, (text + "\n").encode())
    return path


def reproduce(plan: RecipeConfig, folder: str | Path) -> Path:
    """Everything from the raw texts to the report, in `folder`; called again, it goes on where it stopped.

    The run that is best on the validation split is read once on the test split, and shipped to `folder`/model.
    Returns the summary.
    """
    with _in_use(folder) as folder:
        _make_encoder(plan, folder)
        runs = [_run_of_seed(plan, folder, seed) for seed in plan.seeds]
        chosen = best_run(runs)
        every = [record.parent for record in sorted(folder.glob("seed*/run.json"))]
        others = [
            run.name
            for run in every  # also of seeds that are not asked for today
            if run != chosen and "test" in read_evaluations(run)
        ]
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
        return _write_summary(folder, runs, chosen)
