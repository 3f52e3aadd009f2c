# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.recipe`."""

import hashlib
import inspect
import json
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from minitransformer.bert import BERT_FILES, bert_folder, config_from_bert, read_bert, source_name
from minitransformer.data import toy_reviews
from minitransformer.evaluate import mean_interval
from minitransformer.experiment.folder import last_validation, load_run, read_run_record, write_json
from minitransformer.experiment.recipe import (
    best_run,
    convert,
    load_recipe,
    make_encoder,
    reproduce,
    ship,
    without_paths,
)
from minitransformer.experiment.report import percent
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    read_settings,
    save_settings,
)
from minitransformer.model import (
    ModelConfig,
    TransformerForSequenceClassification,
    load_initial,
    read_model_config,
)
from minitransformer.tokenizer import WordPieceTokenizer, load_tokenizer


# chapters/workshop_reports.md · The whole recipe, from raw text to the report.
def test_a_parcel_tells_no_folders() -> None:
    model = ModelConfig(31, 8, 2, 12)
    start = RunConfig("x", DataConfig("toy"), model, initial="/some/where/start")
    words = RunConfig("x", DataConfig("toy", tokenizer="/some/where/start", extra="/some/where/more"), model)
    files = RunConfig("x", DataConfig(train="/some/where/mine.csv", validation="/some/where/b.tsv"), model)
    assert without_paths(files).data == DataConfig(train="mine.csv", validation="b.tsv")
    with tempfile.TemporaryDirectory() as name:
        run = Path(name, "run")
        TransformerForSequenceClassification(model).save_pretrained(run)
        write_json(run / "run.json", {"class": "alone"})
        for i, config in enumerate((start, words)):
            save_settings(config, run / "config.yaml")
            shipped = read_settings(RunConfig, ship(run, Path(name, str(i))) / "config.yaml")
            assert [shipped.initial, shipped.data.tokenizer].count("start") == 1, shipped
            assert shipped.data.extra == ("more" if config is words else None)
            assert shipped == without_paths(config), "nothing but the paths may change"
            assert read_settings(RunConfig, run / "config.yaml") == config, "the run itself must not change"


def test_ship() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        run, folder = Path(name, "run"), Path(name, "shipped")
        model = TransformerForSequenceClassification(ModelConfig(31, 8, 2, 12)).eval()
        model.save_pretrained(run)
        try:
            ship(run, folder)
            raise AssertionError("an unfinished run")
        except ValueError as error:
            assert "does not hold a finished run" in str(error)
        write_json(run / "run.json", {"class": "alone"})
        (run / "notes.md").write_text("notes")
        config = RunConfig("x", DataConfig("toy"), ModelConfig(31, 8, 2, 12), initial=f"{name}/some/start")
        save_settings(config, run / "config.yaml")
        with patch.dict(inspect.unwrap(ship).__globals__, {"save_shards": None}):
            try:
                ship(run, folder)
                raise AssertionError("it was not interrupted")
            except TypeError:
                assert not folder.exists(), "half a parcel must not look like a whole one"
        assert ship(run, folder, largest=2000) == folder and not Path(name, "shipped.tmp").exists()
        assert read_settings(RunConfig, folder / "config.yaml") == replace(config, initial="start"), (
            "no path of this machine"
        )
        sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
        assert len(sizes) > 1 and sum(sizes) < 0.7 * (run / "model.safetensors").stat().st_size
        assert (folder / "notes.md").read_text() == "notes" and (folder / "run.json").is_file()
        shipped = TransformerForSequenceClassification.from_pretrained(folder)
        ids = torch.tensor([[2, 7, 9, 3]])
        torch.testing.assert_close(shipped(ids), model(ids), rtol=0, atol=2e-3)
        assert not torch.equal(shipped(ids), model(ids)), "it is half precision"
        try:
            ship(run, folder)
            raise AssertionError("not empty")
        except ValueError as error:
            assert "is not empty" in str(error)


def tiny_bert(seed: int = 0, **changes: object) -> tuple[Any, ModelConfig]:
    """A random `BertModel` in float64 and evaluation mode, with weights large enough to show a mistake."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": 31, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    sizes |= {"num_hidden_layers": 2, "max_position_embeddings": 13, "type_vocab_size": 2}
    settings = BertConfig(**sizes | changes)
    model = BertModel(settings, add_pooling_layer=False).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, config_from_bert(settings.to_dict())


def small_vocabulary() -> list[str]:
    """A vocabulary in BERT's own order, with an unused entry before the special tokens that matter."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    marks = list("0123456789.,;:!?'()-\"&/")
    words = "not a bad film at all the and of it don didn t s cast fine waste ##d ##ing ##able un ##less 看"
    return [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *dict.fromkeys([*letters, *marks, *(f"##{letter}" for letter in letters), *words.split()]),
    ]


def save_bert(folder: Path, **changes: object) -> Any:
    """A random BERT with the small vocabulary, saved as its library does."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    bert, _ = tiny_bert(7, vocab_size=len(small_vocabulary()), **changes)
    bert.float().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(small_vocabulary()) + "\n", encoding="utf-8")
    return bert


@torch.no_grad()
def assert_reads_alike(bert: Any, vocabulary: Path, folder: Path, text: str) -> None:
    """The converted start gives the hidden states of `bert`, each with its own tokenizer."""
    from transformers import BertTokenizer

    model = TransformerForSequenceClassification(read_model_config(folder / "config.json")).eval()
    fresh = load_initial(model, folder / "model.safetensors")
    assert fresh == ["classifier.bias", "classifier.weight"], "only the head is new"
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert tokenizer.max_length == model.config.max_length
    assert len(tokenizer.vocabulary) == model.config.vocab_size
    expected = bert(**BertTokenizer(vocab=str(vocabulary))(text, return_tensors="pt")).last_hidden_state
    found = model.encoder(torch.tensor([tokenizer.encode(text)]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=text)


def test_converted_folders_give_the_same_hidden_states():
    texts, size = (["not a bad film at all", "Waste of the cast"], len(small_vocabulary()) - 8)
    with tempfile.TemporaryDirectory() as temporary:
        source, folder = Path(temporary, "tiny-bert"), Path(temporary, "start")
        bert = save_bert(source)
        for vocab_size, length in ((None, 128), (size, 9)):
            config = convert(source, folder, vocab_size, length, texts)
            assert config.vocab_size == (vocab_size or len(small_vocabulary()))
            assert config.max_length == min(length, 13) and config.padding_id == 0
            assert config.pooling == "mean"
            for text in texts:
                assert_reads_alike(bert, source / "vocab.txt", folder, text)
        record = json.loads((folder / "run.json").read_text())
        assert record["class"] == "taught" and record["origin"]["source"] == "tiny-bert"
        assert temporary not in (folder / "run.json").read_text(), "no path of this machine in the record"


def refused(call: Callable[[], object], *words: str) -> None:
    """`call` must raise a ValueError of one line that holds all words."""
    try:
        call()
    except ValueError as error:
        assert all(word in str(error) for word in words) and "\n" not in str(error), error
        return
    raise AssertionError(f"accepted, but {words} should have been refused")


def test_convert_refuses_what_is_no_bert():
    with tempfile.TemporaryDirectory() as temporary:
        source, folder = Path(temporary, "bert"), Path(temporary, "start")
        save_bert(source)
        assert source_name(source) == "bert" and source_name("some/bert") == "some/bert"
        assert bert_folder(source) == source and read_bert(source)[0].vocab_size == len(small_vocabulary())
        refused(lambda: convert(source, folder, vocab_size=10, texts=["film"]), "vocab_size", "10")
        refused(lambda: convert(source, folder, vocab_size=0), "vocab_size", "0")
        refused(lambda: convert(source, folder, max_length=2), "max_length")
        assert not folder.exists(), "nothing is written before everything is checked"
        contents = {path.name: path.read_bytes() for path in source.iterdir()}
        broken = {
            "vocab.txt": [(None, "not the folder of a BERT"), (b"[PAD]\n[UNK]\n", "2 lines")],
            "config.json": [(None, "not the folder"), (b"{", "not the folder"), (b"{}", "12 layers")],
            "model.safetensors": [
                (None, "no model.safetensors"),
                (contents["model.safetensors"][:900], "complete"),
            ],
        }
        for name, cases in broken.items():
            for content, word in cases:
                (source / name).unlink()
                if content is not None:
                    (source / name).write_bytes(content)
                refused(lambda: convert(source, folder), word)
                (source / name).write_bytes(contents[name])
        folder.mkdir()
        (folder / "metrics.jsonl").write_text("")
        refused(lambda: convert(source, folder), "holds no run")
    with patch("huggingface_hub.snapshot_download", side_effect=OSError("no\nnetwork")):
        refused(lambda: convert("nobody/nothing", "unused"), "nobody/nothing", "no network")
    with patch("huggingface_hub.snapshot_download", return_value="cache") as download:
        assert bert_folder("some/bert") == Path("cache")
        assert set(download.call_args.kwargs["allow_patterns"]) == set(BERT_FILES)


TINY_READING = """
name: reading
corpus: toy
chunk_length: 30
model: {vocab_size: 200, d_model: 16, num_heads: 2, d_ff: 32, num_layers: 1, max_length: 32, dropout: 0.0}
"""

TINY_RUN = """
name: tiny
data: {name: toy, train_size: 300}
model: {vocab_size: 200, d_model: 16, num_heads: 2, d_ff: 32, num_layers: 1, max_length: 32}
"""


def stops_with(call: Callable[[], object], *words: str) -> None:
    """The call must raise a ValueError whose message holds the words."""
    try:
        call()
    except ValueError as error:
        assert all(word in str(error) for word in words), error
        return
    raise AssertionError(f"nothing was refused, expected {words}")


def tiny_recipe(folder: Path, text: str = "pretrain: reading.yaml") -> Path:
    (folder / "reading.yaml").write_text(TINY_READING)
    (folder / "run.yaml").write_text(TINY_RUN)
    (folder / "recipe.yaml").write_text(f"name: tiny\ntrain: run.yaml\nseeds: [0, 1]\n{text}\n")
    return folder / "recipe.yaml"


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


TAUGHT_RUN = """
name: tiny
data: {name: toy, train_size: 300}
model: {vocab_size: 120, d_model: 16, num_heads: 2, d_ff: 32, num_layers: 1, max_length: 128, norm_first: false,
  pooling: mean, layer_norm_eps: 1e-12, embedding_norm: true, type_vocab_size: 2}
"""


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


def test_make_encoder_reads_on():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = taught_recipe(folder)
        reading = read_settings(PretrainConfig, folder / "reading.yaml")
        model = replace(read_settings(RunConfig, folder / "run.yaml").model, dropout=0.0)
        save_settings(replace(reading, model=model), folder / "reading.yaml")
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
