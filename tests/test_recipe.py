# Generated from chapters/day11_deeper.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.recipe`."""

import hashlib
import inspect
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from minitransformer.config import RecipeConfig, load_config, load_pretrain_config, load_recipe, save_config
from minitransformer.data import Examples, toy_reviews
from minitransformer.evaluate import mean_interval
from minitransformer.model import read_model_config
from minitransformer.recipe import (
    asked_for,
    best_run,
    cost_rows,
    film_texts,
    make_encoder,
    reproduce,
    run_of_seed,
    take_over,
    write_summary,
)
from minitransformer.report import last_validation, percent
from minitransformer.runs import load_run, read_answers, read_run_record, write_json
from minitransformer.tokenizer import WordPieceTokenizer

# chapters/day11_deeper.md · The whole recipe as one command
TINY_READING = """
name: reading
corpus: toy
chunk_length: 30
model: {vocab_size: 200, d_model: 16, num_heads: 2, d_ff: 32, num_layers: 1, max_length: 32, dropout: 0.0}
"""

# chapters/day11_deeper.md · The whole recipe as one command
TINY_RUN = """
name: tiny
data: {name: toy, train_size: 300}
model: {vocab_size: 200, d_model: 16, num_heads: 2, d_ff: 32, num_layers: 1, max_length: 32}
"""


# chapters/day11_deeper.md · The whole recipe as one command
def stops_with(call: Callable[[], object], *words: str) -> None:
    """The call must raise a ValueError whose message holds the words."""
    try:
        call()
    except ValueError as error:
        assert all(word in str(error) for word in words), error
        return
    raise AssertionError(f"nothing was refused, expected {words}")


# chapters/day11_deeper.md · The whole recipe as one command
def tiny_recipe(folder: Path, text: str = "pretrain: reading.yaml") -> Path:
    (folder / "reading.yaml").write_text(TINY_READING)
    (folder / "run.yaml").write_text(TINY_RUN)
    (folder / "recipe.yaml").write_text(f"name: tiny\ntrain: run.yaml\nseeds: [0, 1]\n{text}\n")
    return folder / "recipe.yaml"


# chapters/day11_deeper.md · The whole recipe as one command
def test_reproduce_from_text_to_report():
    with tempfile.TemporaryDirectory() as name:
        plan, folder = load_recipe(tiny_recipe(Path(name))), Path(name, "out")
        with redirect_stdout(StringIO()):
            summary = reproduce(plan, folder)
        runs = [folder / "seed0", folder / "seed1"]
        accuracies = [last_validation(run).accuracy for run in runs]
        chosen = runs[accuracies.index(max(accuracies))]
        assert best_run(runs) == chosen
        readings = {run: read_run_record(run)["evaluations"].get("test", {}).get("readings") for run in runs}
        assert readings.pop(chosen) == 1 and list(readings.values()) == [None], (
            "only the chosen run sees the test"
        )
        text = summary.read_text()
        mean, half = mean_interval(accuracies)
        assert f"{percent(mean)} ± {percent(half)} %" in text and "Class *read*" in text
        assert (
            text.count("| seed0 |") == 2
            and "| encoder |" in text
            and f"The chosen run, {chosen.name}" in text
        )
        config, model, tokenizer = load_run(folder / "model")
        assert config.initial == "encoder" and len(tokenizer.vocabulary) == model.config.vocab_size
        before = {path: path.read_bytes() for path in sorted(folder.glob("**/*")) if path.is_file()}
        assert any(path.suffix == ".safetensors" for path in before), "weights are among them"
        with redirect_stdout(StringIO()):
            assert reproduce(plan, folder).read_text() == text, "a finished recipe stays"
        after = {path: path.read_bytes() for path in sorted(folder.glob("**/*")) if path.is_file()}
        assert after == before, "not a byte changes"
        other = next(run for run in runs if run != chosen)
        module = inspect.unwrap(reproduce).__globals__  # where it looks up what it calls
        with patch.dict(module, {"best_run": lambda _: other}), redirect_stdout(StringIO()):
            stops_with(lambda: reproduce(plan, folder), chosen.name, other.name, "second reading")


# chapters/day11_deeper.md · The whole recipe as one command
TAUGHT_RUN = """
name: tiny
data: {name: toy, train_size: 300}
model: {vocab_size: 120, d_model: 16, num_heads: 2, d_ff: 32, num_layers: 1, max_length: 128, norm_first: false,
  pooling: mean, layer_norm_eps: 1e-12, embedding_norm: true, type_vocab_size: 2}
"""


# chapters/day11_deeper.md · The whole recipe as one command
def taught_recipe(folder: Path) -> Path:
    """A tiny random BERT, saved as its library does, and a recipe that starts from it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 120, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**sizes, num_hidden_layers=1, max_position_embeddings=160)).save_pretrained(
        folder / "bert"
    )
    tokens = WordPieceTokenizer.train(toy_reviews(300, seed=0).texts, vocab_size=120).vocabulary.tokens
    (folder / "bert" / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    path = tiny_recipe(folder, f"convert: {folder / 'bert'}")
    (folder / "run.yaml").write_text(TAUGHT_RUN)
    return path


# chapters/day11_deeper.md · The whole recipe as one command
def test_reproduce_from_a_bert_to_report():
    with tempfile.TemporaryDirectory() as name:
        plan, folder = load_recipe(taught_recipe(Path(name))), Path(name, "out")
        with redirect_stdout(StringIO()):
            text = reproduce(plan, folder).read_text()
        runs = [folder / "seed0", folder / "seed1"]
        records = [read_run_record(run) for run in (*runs, folder / "model")]
        assert [record["class"] for record in records] == 3 * ["taught"] and "Class *taught*" in text
        start = hashlib.sha256((folder / "encoder" / "model.safetensors").read_bytes()).hexdigest()
        assert {record["initial"]["sha256"] for record in records} == {start}, "the runs start from the BERT"
        readings = [record["evaluations"].get("test", {}).get("readings") for record in records[:2]]
        assert readings == [1 if run == best_run(runs) else None for run in runs], "one reading of the test"
        _, model, tokenizer = load_run(folder / "model")
        assert model.config == read_model_config(folder / "encoder" / "config.json"), "BERT's settings"
        assert tokenizer.decode(tokenizer.encode("a good film")) == "a good film"
        with redirect_stdout(StringIO()):
            assert reproduce(plan, folder).read_text() == text, "a finished recipe stays"


# chapters/day11_deeper.md · The whole recipe as one command
def test_make_encoder_reads_on():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = taught_recipe(folder)
        reading = load_pretrain_config(folder / "reading.yaml")
        model = replace(load_config(folder / "run.yaml").model, dropout=0.0)
        save_config(replace(reading, model=model), folder / "reading.yaml")
        path.write_text(path.read_text() + "pretrain: reading.yaml\n")
        plan = load_recipe(path)
        with redirect_stdout(StringIO()):
            encoder = make_encoder(plan, folder / "out")
            files = [folder / "out" / each / "model.safetensors" for each in ("bert", "encoder")]
            written = [file.stat().st_mtime_ns for file in files]
            assert make_encoder(plan, folder / "out") == encoder == folder / "out/encoder"
            assert [file.stat().st_mtime_ns for file in files] == written, "both are kept"
        assert read_run_record(encoder)["class"] == "taught" and read_run_record(encoder)["steps"] > 0
        source = (folder / "out/bert/model.safetensors").read_bytes()
        assert read_run_record(encoder)["initial"]["sha256"] == hashlib.sha256(source).hexdigest()
        before, after = (
            load_file(folder / "out" / each / "model.safetensors") for each in ("bert", "encoder")
        )
        assert all((before[key] != after[key]).any() for key in before if "embedding" in key), "it has read"


# chapters/day11_deeper.md · The whole recipe as one command
def test_recipes_are_checked_before_any_work():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text, word in [
            ("", "pretrain must be given if convert is not"),
            ("pretrain: missing.yaml", "there is no config file"),
            ("convert: some/bert\nvocab_size: 3", "vocab_size must be at least 6"),
            ("pretrain: run.yaml", "run.yaml"),
        ]:
            stops_with(lambda text=text: load_recipe(tiny_recipe(folder, text)), word)
        with chdir(tiny_recipe(folder).parent.parent):
            found = load_recipe(Path(folder.name, "recipe.yaml"))
            assert found.pretrain == f"{folder.name}/reading.yaml", "files stand beside the recipe"
        taken = load_recipe(tiny_recipe(folder, "convert: some/bert"), ["--convert", "a/folder"])
        assert taken.convert == "a/folder", "the command line wins over the file"
        (folder / "run.yaml").write_text("name: tiny\n")
        stops_with(lambda: load_recipe(folder / "recipe.yaml"), "run.yaml")


# chapters/day11_deeper.md · The whole recipe as one command
def test_an_encoder_is_kept_only_if_it_is_the_one_asked_for():
    plan = RecipeConfig("taken", "run.yaml", [0], convert="some/bert", vocab_size=90)
    with tempfile.TemporaryDirectory() as name:
        encoder = Path(name, "encoder")
        encoder.mkdir()
        write_json(
            encoder / "run.json", {"class": "taught", "origin": asked_for(plan) | {"source": "some/bert"}}
        )
        assert make_encoder(plan, Path(name)) == take_over(plan, encoder) == encoder, (
            "done before, it is kept"
        )
        stops_with(
            lambda: make_encoder(replace(plan, vocab_size=91), Path(name)), "vocab_size is 90 there, 91 here"
        )
        stops_with(lambda: make_encoder(replace(plan, convert="other/bert"), Path(name)), "'some/bert' there")


# chapters/day11_deeper.md · The whole recipe as one command
def test_parts_of_a_recipe():
    reviews = {
        "load_examples": lambda *_: Examples(["a"], [1], ""),
        "load_imdb": lambda *_: Examples(["b"], [1], ""),
    }
    with patch.dict(inspect.unwrap(film_texts).__globals__, reviews):
        assert film_texts() == ["a", "b"]
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        folder = Path(name)
        plan = load_recipe(tiny_recipe(folder))
        make_encoder(plan, folder)
        runs = [run_of_seed(plan, folder, seed) for seed in (0, 1)]
        assert all(
            (run / "report.md").is_file() and len(read_answers(run, "validation")) == 500 for run in runs
        )
        rows, record = cost_rows(folder, runs), read_run_record(runs[1])
        assert [row[0] for row in rows] == ["encoder", "seed0", "seed1"]
        assert rows[2][1:4] == [
            f"{record['seconds']:,.0f}",
            f"{record['tokens']:,}",
            f"{record['tokens_per_second']:,}",
        ]
        one = write_summary(folder, runs[:1], runs[0]).read_text()
        assert f"Validation accuracy: {percent(last_validation(runs[0]).accuracy)} %." in one, (
            "one run has no interval"
        )
