"""Bad values, from the outside: each gets one sentence that names the value, and nothing is started."""

import shutil
from pathlib import Path

import pytest
import torch

from book.press.floors import ROOT
from minitransformer.attention import MultiHeadAttention
from minitransformer.cli import main
from minitransformer.data import collate, load_sst2, make_loader
from minitransformer.encoder import TransformerEncoder
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer

IDS = torch.tensor([[2, 5, 3]])


def encoder(**settings: object) -> TransformerEncoder:
    return TransformerEncoder(
        **{"vocab_size": 20, "d_model": 12, "num_heads": 3, "d_ff": 8, "max_length": 8, **settings}
    )


def attend(mask: torch.Tensor) -> None:
    MultiHeadAttention(12, 3)(torch.zeros(2, 5, 12), attention_mask=mask)


FAULTS = {
    "d_model not divisible by num_heads": (lambda: MultiHeadAttention(10, 3), r"d_model.*10.*3"),
    "the same in a config": (lambda: ModelConfig(20, d_model=10, num_heads=3), r"num_heads.*d_model=10.*3"),
    "dropout of one": (lambda: MultiHeadAttention(12, 3, dropout=1.0), r"dropout.*\[0, 1\).*1\.0"),
    "dropout below zero": (lambda: ModelConfig(20, dropout=-0.1), r"dropout.*\[0, 1\).*-0\.1"),
    "a mask of the wrong shape": (
        lambda: attend(torch.ones(2, 4, dtype=torch.bool)),
        r"mask.*\[2, 5\].*\[2, 4\]",
    ),
    "a mask of the wrong type": (lambda: attend(torch.ones(2, 5)), r"mask.*bool.*float32"),
    "an id beyond the vocabulary": (lambda: encoder()(torch.tensor([[2, 20, 3]])), r"vocab_size=20.*20"),
    "a negative id": (lambda: encoder()(torch.tensor([[2, -1, 3]])), r"vocab_size=20.*-1"),
    "an empty batch": (lambda: encoder()(IDS[:0]), r"at least one token.*\[0, 3\]"),
    "an empty sequence": (lambda: encoder()(IDS[:, :0]), r"at least one token.*\[1, 0\]"),
    "no item to collate": (lambda: collate([]), r"at least one item"),
    "a sequence that is too long": (lambda: encoder()(torch.full((1, 9), 5)), r"9.*max_length=8"),
    "an unknown activation": (lambda: ModelConfig(20, activation="tanh"), r"activation.*gelu.*relu.*'tanh'"),
    "unknown positions": (lambda: encoder(positions="polar"), r"positions.*learned.*sinusoidal.*'polar'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_bad_value_is_named_in_one_sentence(name):
    cause, words = FAULTS[name]
    with pytest.raises(ValueError, match=words) as caught:
        cause()
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_data_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"MINITRANSFORMER_DATA must name a folder.*nowhere"):
        load_sst2("train")


def test_a_corrupt_parquet_file_is_named(monkeypatch, tmp_path):
    folder = tmp_path / "stanfordnlp/sst2"
    folder.mkdir(parents=True)
    (folder / "train.parquet").write_bytes(b"this is no parquet file")
    (folder / "validation.parquet").write_bytes(b"nor is this")
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"SST-2 train cannot be loaded.*stanfordnlp/sst2") as caught:
        load_sst2("train")
    assert len(str(caught.value).splitlines()) == 1


def fault_of(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What the command line says on standard error when it refuses; its exit code must be 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1
    return text


COMMANDS = {
    "missing file": (["train", "nowhere.yaml"], "nowhere.yaml"),
    "unknown key": (["train", "configs/toy.yaml", "--training.epoch", "3"], "training.epoch"),
    "wrong type": (["train", "configs/toy.yaml", "--training.epochs", "many"], "training.epochs"),
    "out of range": (
        ["train", "configs/toy.yaml", "--model.dropout", "1.5"],
        "dropout must be a number in [0, 1), got 1.5",
    ),
    "unknown data": (["train", "configs/toy.yaml", "--data.name", "imdb"], "data.name"),
    "no command": ([], "COMMAND"),
    "no such run": (["evaluate", "runs/nowhere"], "runs/nowhere"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_refuses_in_one_sentence_and_starts_nothing(capsys, monkeypatch, tmp_path, name):
    arguments, words = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    before = sorted(tmp_path.rglob("*"))
    assert words in fault_of(capsys, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_yaml_that_is_no_mapping_is_refused(capsys, tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n- 2\n")
    assert "map keys to values" in fault_of(capsys, "train", path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model's folder."""
    TransformerForSequenceClassification(ModelConfig(20, d_model=12, num_heads=3, d_ff=8)).save_pretrained(
        tmp_path
    )
    return tmp_path


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_weights_are_refused(saved, size):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        TransformerForSequenceClassification.from_pretrained(saved)


def test_weights_of_another_model_are_refused(saved):
    config = saved / "config.json"
    config.write_text(config.read_text().replace('"d_ff": 8', '"d_ff": 9'))
    with pytest.raises(ValueError, match=r"does not fit the config: .* in the file, .* in the model"):
        TransformerForSequenceClassification.from_pretrained(saved)


def test_nothing_that_is_loaded_is_a_pickle():
    """No module of the package can run code that hides in a file."""
    for path in (ROOT / "minitransformer").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load(", "joblib", "yaml.load("):
            assert word not in text, f"{path.name} uses {word}"


@pytest.mark.parametrize("text", ["", " \n\t", "🎬" * 3, "\x00\x07", "ein schöner Film", "word " * 10_000])
def test_any_text_becomes_a_batch(text):
    tokenizer = WordTokenizer(Vocabulary.from_texts(["a fine film"]), max_length=8)
    ids = tokenizer.encode(text)
    assert 2 <= len(ids) <= 8 and ids[0] == 2 and ids[-1] == 3
    assert encoder()(collate([(ids, 0)])["input_ids"]).isfinite().all()


def test_a_loader_without_examples_is_refused():
    from minitransformer.data import Examples

    with pytest.raises(ValueError, match="nothing holds no examples"):
        make_loader(Examples([], [], "nothing"), WordTokenizer(Vocabulary.from_texts(["a"])))
