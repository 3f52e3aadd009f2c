# Generated from chapters/workshop_reports.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.recipe`."""

import inspect
import tempfile
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from minitransformer.bert import config_from_bert
from minitransformer.data import Examples, toy_reviews
from minitransformer.evaluate import mean_interval
from minitransformer.experiment.folder import (
    _file_digest,
    _write_json,
    last_validation,
    load_run,
    read_answers,
    read_evaluations,
    read_run_record,
)
from minitransformer.experiment.recipe import (
    RecipeConfig,
    _make_encoder,
    _run_of_seed,
    _take_over,
    _write_summary,
    best_run,
    convert,
    load_recipe,
    reproduce,
    ship,
)
from minitransformer.experiment.report import _percent, _without_folders
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    _save_settings,
    read_settings,
)
from minitransformer.model import (
    ModelConfig,
    TransformerForSequenceClassification,
    _read_model_config,
    load_initial,
)
from minitransformer.tokenizer import WordPieceTokenizer, load_tokenizer


# chapters/workshop_reports.md · Weights to give away
def finished_run(folder: Path, **changes: Any) -> TransformerForSequenceClassification:
    """What `ship` needs of a run, with these changes in its config; returns its model."""
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(31, 8, 2, 12)).eval()
    model.save_pretrained(folder)
    config = RunConfig("x", DataConfig("toy"), model.config)
    _save_settings(replace(config, **changes), folder / "config.yaml")
    _write_json(folder / "run.json", {"class": "alone"})
    return model


def test_ship():
    with tempfile.TemporaryDirectory() as name:
        run, folder = Path(name, "run"), Path(name, "shipped")
        model = finished_run(run, initial=f"{name}/some/start")
        (run / "notes.md").write_text("notes")
        assert ship(run, folder, largest=2000) == folder
        config = read_settings(RunConfig, run / "config.yaml")
        shipped = read_settings(RunConfig, folder / "config.yaml")
        assert shipped == replace(config, initial="start"), "no path of this machine"
        sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
        whole = (run / "model.safetensors").stat().st_size
        assert len(sizes) > 1 and sum(sizes) < 0.7 * whole
        assert (folder / "notes.md").read_text() == "notes"
        rounded = TransformerForSequenceClassification.from_pretrained(folder)
        ids = torch.tensor([[2, 7, 9, 3]])
        torch.testing.assert_close(rounded(ids), model(ids), rtol=0, atol=2e-3)
        assert not torch.equal(rounded(ids), model(ids)), "it is half precision"


def test_ship_leaves_all_or_nothing():
    with tempfile.TemporaryDirectory() as name:
        run, folder = Path(name, "run"), Path(name, "shipped")
        with pytest.raises(ValueError, match="does not hold a finished run"):
            ship(run, folder)
        finished_run(run)
        with patch.dict(inspect.unwrap(ship).__globals__, {"save_torch_state_dict": None}):
            with pytest.raises(TypeError):
                ship(run, folder)
        left = [path.name for path in Path(name).iterdir()]
        assert left == ["run"], "half a parcel must not look like a whole one"
        ship(run, folder)
        with pytest.raises(ValueError, match="is not empty"):
            ship(run, folder)


def test_a_parcel_tells_no_folders():
    files = DataConfig(train="/some/where/mine.csv", validation="/some/where/b.tsv")
    cut = _without_folders(RunConfig("x", files, ModelConfig(31, 8, 2, 12)))
    assert cut.data == DataConfig(train="mine.csv", validation="b.tsv")
    words = DataConfig("toy", tokenizer="/some/where/start")
    for i, changes in enumerate(({"initial": "/some/where/start"}, {"data": words})):
        with tempfile.TemporaryDirectory() as name:
            run = Path(name, "run")
            finished_run(run, **changes)
            config = read_settings(RunConfig, run / "config.yaml")
            parcel = ship(run, Path(name, "parcel"))
            shipped = read_settings(RunConfig, parcel / "config.yaml")
            assert (shipped.initial, shipped.data.tokenizer)[i] == "start"
            assert shipped == _without_folders(config), "nothing but the paths changes"
            assert read_settings(RunConfig, run / "config.yaml") == config, "the run"


# chapters/workshop_reports.md · A BERT taken over
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

    model = TransformerForSequenceClassification(_read_model_config(folder / "config.json")).eval()
    fresh = load_initial(model, folder / "model.safetensors")
    assert fresh == ["classifier.bias", "classifier.weight"], "only the head is new"
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert tokenizer.max_length == model.config.max_length
    assert len(tokenizer.vocabulary) == model.config.vocab_size
    expected = bert(**BertTokenizer(vocab=str(vocabulary))(text, return_tensors="pt")).last_hidden_state
    found = model.encoder(torch.tensor([tokenizer.encode(text)]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=text)


def test_converted_folders_give_the_same_hidden_states():
    texts = ["not a bad film at all", "Waste of the cast"]
    whole = len(small_vocabulary())
    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name, "tiny-bert"), Path(name, "start")
        bert = save_bert(source)
        for vocab_size, length in ((None, 128), (whole - 8, 9)):
            config = convert(source, folder, vocab_size, length, texts)
            assert config.vocab_size == (vocab_size or whole)
            assert config.max_length == min(length, 13) and config.pooling == "mean"
            for text in texts:
                assert_reads_alike(bert, source / "vocab.txt", folder, text)
        record = read_run_record(folder)
        assert (record["class"], record["origin"]["source"]) == ("taught", "tiny-bert")
        assert name not in (folder / "run.json").read_text(), "no path of this machine"


def test_films_decide_which_entries_are_kept():
    texts = ["not a bad film", "fine cast"]
    films = {
        "load_examples": lambda *_: Examples(texts[:1], [1], ""),
        "load_imdb": lambda *_: Examples(texts[1:], [1], ""),
    }
    with tempfile.TemporaryDirectory() as name:
        source, given, default = (Path(name, part) for part in ("bert", "a", "b"))
        save_bert(source)
        size = len(small_vocabulary()) - 8
        convert(source, given, size, texts=texts)
        with patch.dict(inspect.unwrap(convert).__globals__, films):
            convert(source, default, size)
        a, b = (load_tokenizer(run / "tokenizer.json") for run in (given, default))
        assert a.vocabulary.tokens == b.vocabulary.tokens and len(a.vocabulary) == size


def test_convert_refuses_what_is_no_bert():
    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name, "bert"), Path(name, "start")
        save_bert(source)
        for changes, words in [
            ({"vocab_size": 10, "texts": ["film"]}, "vocab_size.* 10"),
            ({"vocab_size": 0, "texts": ["film"]}, "vocab_size.* 0"),
            ({"max_length": 2}, "max_length"),
        ]:
            with pytest.raises(ValueError, match=words):
                convert(source, folder, **changes)
        weights = (source / "model.safetensors").read_bytes()
        for file, content, words in [
            ("vocab.txt", None, "not the folder of a BERT"),
            ("vocab.txt", b"[PAD]\n[UNK]\n", "2 lines"),
            ("config.json", None, "not the folder"),
            ("config.json", b"{", "not the folder"),
            ("config.json", b"{}", "12 layers"),
            ("model.safetensors", None, r"no model\.safetensors"),
            ("model.safetensors", weights[:900], "complete"),
        ]:
            original = (source / file).read_bytes()
            (source / file).unlink()
            if content is not None:
                (source / file).write_bytes(content)
            with pytest.raises(ValueError, match=words) as found:
                convert(source, folder)
            assert "\n" not in str(found.value) and not folder.exists(), file
            del found  # it holds on to the weights, and Windows to their file
            (source / file).write_bytes(original)
        folder.mkdir()
        (folder / "metrics.jsonl").touch()
        with pytest.raises(ValueError, match="holds no run"):
            convert(source, folder)


# chapters/workshop_reports.md · The whole recipe
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


def tiny_recipe(folder: Path, text: str = "pretrain: reading.yaml") -> Path:
    (folder / "reading.yaml").write_text(TINY_READING)
    (folder / "run.yaml").write_text(TINY_RUN)
    (folder / "recipe.yaml").write_text(f"name: tiny\ntrain: run.yaml\nseeds: [0, 1]\n{text}\n")
    return folder / "recipe.yaml"


def files_below(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, with its content."""
    return {path: path.read_bytes() for path in folder.glob("**/*") if path.is_file()}


def readings_of(run: Path) -> int:
    """How often the test split was read with a run."""
    return read_evaluations(run).get("test", {}).get("readings", 0)


def test_reproduce_from_text_to_report():
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        plan, folder = load_recipe(tiny_recipe(Path(name))), Path(name, "out")
        text = reproduce(plan, folder).read_text()
        runs = [folder / "seed0", folder / "seed1"]
        accuracies = [last_validation(run).accuracy for run in runs]
        chosen = runs[accuracies.index(max(accuracies))]
        assert best_run(runs) == chosen
        readings = [readings_of(run) for run in runs]
        assert readings == [int(run == chosen) for run in runs], "one reading of test"
        mean, half = map(_percent, mean_interval(accuracies))
        assert f"{mean} ± {half} %" in text and "Class *read*" in text
        assert f"The chosen run, {chosen.name}" in text and "| encoder |" in text
        config, model, tokenizer = load_run(folder / "model")
        assert config.initial == "encoder"
        assert len(tokenizer.vocabulary) == model.config.vocab_size
        before = files_below(folder)
        assert reproduce(plan, folder).read_text() == text, "a finished recipe stays"
        assert files_below(folder) == before, "not a byte changes"
        other = next(run for run in runs if run != chosen)
        module = inspect.unwrap(reproduce).__globals__  # where it looks up what it calls
        with patch.dict(module, {"best_run": lambda _: other}):
            with pytest.raises(ValueError, match=f"{chosen.name}.*{other.name}.*second"):
                reproduce(plan, folder)


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


def test_reproduce_from_a_bert_that_reads_on():
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        here, folder = Path(name), Path(name, "out")
        path = taught_recipe(here)
        model = read_settings(RunConfig, here / "run.yaml").model
        reading = read_settings(PretrainConfig, here / "reading.yaml")
        read = replace(reading, model=replace(model, dropout=0.0))
        _save_settings(read, here / "reading.yaml")
        path.write_text(path.read_text() + "pretrain: reading.yaml\n")
        plan = load_recipe(path)
        text = reproduce(plan, folder).read_text()
        assert "Class *taught*" in text and "| encoder |" in text
        stages = [folder / stage for stage in ("bert", "encoder", "seed0", "model")]
        records = [read_run_record(stage) for stage in stages]
        assert [record["class"] for record in records] == 4 * ["taught"]
        start, after = (_file_digest(s / "model.safetensors") for s in stages[:2])
        assert records[1]["initial"]["sha256"] == start["sha256"]
        assert records[2]["initial"]["sha256"] == after["sha256"]
        before, after = (load_file(s / "model.safetensors") for s in stages[:2])
        embedding = "encoder.embedding.weight"
        assert (before[embedding] != after[embedding]).any(), "it has read"
        _, model, tokenizer = load_run(folder / "model")
        sizes = _read_model_config(stages[1] / "config.json")
        assert replace(model.config, dropout=0.0) == sizes
        assert tokenizer.decode(tokenizer.encode("a good film")) == "a good film"
        kept = files_below(folder)
        reproduce(plan, folder)
        assert files_below(folder) == kept, "a finished recipe stays"


def test_recipes_are_checked_before_any_work():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text, words in [
            ("", "pretrain must be given if convert is not"),
            ("pretrain: missing.yaml", "there is no config file"),
            ("convert: some/bert\nvocab_size: 3", "vocab_size must be greater than 5"),
            ("pretrain: run.yaml", r"run\.yaml"),
        ]:
            with pytest.raises(ValueError, match=words):
                load_recipe(tiny_recipe(folder, text))
        with chdir(tiny_recipe(folder).parent.parent):
            found = load_recipe(Path(folder.name, "recipe.yaml"))
            assert found.pretrain == f"{folder.name}/reading.yaml", "beside the recipe"
        path = tiny_recipe(folder, "convert: some/bert")
        taken = load_recipe(path, ["--convert", "a/folder"])
        assert isinstance(taken, RecipeConfig)
        assert taken.convert == "a/folder", "the command line wins over the file"
        (folder / "run.yaml").write_text("name: tiny\n")
        with pytest.raises(ValueError, match=r"run\.yaml"):
            load_recipe(path)


def test_an_encoder_is_kept_only_if_it_is_the_one_asked_for():
    plan = RecipeConfig("taken", "run.yaml", [0], convert="some/bert", vocab_size=90)
    with tempfile.TemporaryDirectory() as name:
        encoder = Path(name, "encoder")
        encoder.mkdir()
        origin = {"source": "some/bert", "vocab_size": 90}
        _write_json(encoder / "run.json", {"class": "taught", "origin": origin})
        assert _make_encoder(plan, Path(name)) == encoder, "done before, it is kept"
        assert _take_over(plan, encoder) == encoder
        with pytest.raises(ValueError, match="vocab_size is 90 there, 91 here"):
            _make_encoder(replace(plan, vocab_size=91), Path(name))
        with pytest.raises(ValueError, match="'some/bert' there"):
            _make_encoder(replace(plan, convert="other/bert"), Path(name))
        _write_json(encoder / "run.json", {"class": "read"})
        with pytest.raises(ValueError, match="convert is None there"):
            _make_encoder(plan, Path(name))


def test_parts_of_a_recipe():
    with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):
        folder = Path(name)
        plan = load_recipe(tiny_recipe(folder))
        _make_encoder(plan, folder)
        runs = [_run_of_seed(plan, folder, seed) for seed in (0, 1)]
        for run in runs:
            assert (run / "report.md").is_file()
            assert len(read_answers(run, "validation")) == 500
        text = _write_summary(folder, runs, runs[0]).read_text()
        record = read_run_record(runs[1])
        cost = (record["seconds"], record["tokens"], record["tokens_per_second"])
        assert "| seed1 | {:,.0f} | {:,} | {:,} | ".format(*cost) in text
        blocks = [block.splitlines() for block in text.strip().split("\n\n")]
        tables = [lines for lines in blocks if lines[0].startswith("|")]
        assert [len(lines) for lines in tables] == [4, 3, 5], "tables in one piece"
        assert [row.split(" | ")[0] for row in tables[2][2:]] == ["| encoder", "| seed0", "| seed1"]
        one = _write_summary(folder, runs[:1], runs[0]).read_text()
        accuracy = _percent(last_validation(runs[0]).accuracy)
        assert f"Validation accuracy: {accuracy} %.\n\n| run |" in one, "no interval"
