# Generated from chapters/workshop_settings.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.settings`."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    _save_settings,
    read_settings,
    settings,
)
from minitransformer.model import ModelConfig


# chapters/workshop_settings.md · The range stands in the field
@settings("oven")
class Oven:
    """Settings that have nothing to do with training."""

    mode: Literal["off", "grill"]
    heat: Annotated[float, Field(ge=0, le=300)] = 180.0


def refused(make: Callable[[], object]) -> str:
    """The one sentence with which settings are refused."""
    try:
        made = make()
    except ValueError as error:
        assert "\n" not in str(error), error
        return str(error)
    raise AssertionError(f"accepted: {made}")


def test_settings_are_refused_in_one_sentence() -> None:
    assert Oven("grill") == Oven("grill", 180.0) != replace(Oven("grill"), heat=200.0)
    assert "oven.heat must be less than" in refused(lambda: Oven("grill", 400.0))
    assert "oven.heat must be a valid number" in refused(lambda: Oven("grill", True))
    assert "oven.mode must be 'off' or 'grill'" in refused(lambda: Oven("on"))
    assert refused(lambda: Oven()) == "oven.mode: field required"
    assert "oven.haet: unexpected" in refused(lambda: Oven("off", haet=1.0))


# chapters/workshop_settings.md · What a run is
def test_examples_come_from_a_name_or_from_files() -> None:
    files = DataConfig(train="mine.csv", validation="other.parquet")
    sources = [files.source(split) for split in ("train", "validation")]
    assert sources == ["mine.csv", "other.parquet"]
    assert DataConfig("toy").source("test") == "toy"
    assert "add data.test" in refused(lambda: files.source("test"))
    for make, words in [
        (lambda: DataConfig("toy", train="a.csv"), "data.train must be null where data.name is 'toy'"),
        (lambda: DataConfig(train="a.csv"), "data.validation must be a file"),
        (lambda: DataConfig(train="a.csv", validation="b.csv", test=""), "data.test must be a file"),
        (lambda: DataConfig("toy", min_frequency=0), "data.min_frequency must be greater than or equal to 1, got 0"),
        (lambda: DataConfig("toy", train_size=0), "data.train_size must be greater than or equal to 1, got 0"),
    ]:  # fmt: skip
        assert words in refused(make)


def test_training_settings_check_their_ranges() -> None:
    for values, words in [
        ({"epochs": True}, "epochs must be a valid integer, got True"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number"),
        ({"weight_decay": -1.0}, "weight_decay must be greater than or equal to 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be greater than 0"),
        ({"max_skipped": 0}, "max_skipped must be greater than or equal to 1"),
        ({"ema": 1.0}, "ema must be less than 1, got 1.0"),
        ({"warmup": -0.1}, "warmup must be greater than or equal to 0"),
        ({"r_drop": math.inf}, "r_drop must be a finite number"),
        ({"schedule": "cosine"}, "schedule must be 'constant' or 'linear'"),
        ({"autocast": "half"}, "autocast must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ({"device": "tpu"}, "device must be auto, cpu or an accelerator"),
        ({"batch_size": 4, "micro_batches": 5}, "micro_batches must be at most"),
    ]:
        assert refused(lambda v=values: TrainingConfig(**v)).startswith(f"training.{words}")
    TrainingConfig(device="cuda:1", batch_size=8, micro_batches=8, max_grad_norm=math.inf)


@settings("tray")
class Tray:
    """Settings with a list, whose places are not those of the settings."""

    rows: list[int]
    heat: float = 180.0


def test_the_place_in_a_list_is_named() -> None:
    for tray in (lambda: Tray([0, "x"]), lambda: Tray(rows=[0, "x"])):
        assert refused(tray) == "tray.rows.1 must be a valid integer, got 'x'"


def test_the_parts_of_a_run_fit_each_other() -> None:
    model, toy = ModelConfig(vocab_size=9), DataConfig("toy")
    twice, other = TrainingConfig(r_drop=1.0), DataConfig("toy", tokenizer="a")
    assert RunConfig("x", toy, model, twice).training.r_drop == 1.0
    for make, words in [
        (lambda: RunConfig("x", toy, replace(model, padding_id=3)), "model.padding_id must be 0"),
        (lambda: RunConfig("x", toy, replace(model, num_labels=3)), "model.num_labels must be 2"),
        (lambda: RunConfig("x", toy, replace(model, vocab_size=4)), "model.vocab_size must be at least 5"),
        (lambda: RunConfig("x", toy, replace(model, max_length=2)), "model.max_length must be at least 3"),
        (lambda: RunConfig("x", toy, model, seed=-1), "seed must be greater than or equal to 0, got -1"),
        (lambda: RunConfig("a/b", toy, model), "name must be a plain folder name, got 'a/b'"),
        (lambda: RunConfig("x", toy, replace(model, dropout=0.0), twice), "training.r_drop must be 0 where model.dropout is 0"),
        (lambda: RunConfig("x", other, model, initial="b"), "data.tokenizer must be null where initial is given"),
    ]:  # fmt: skip
        assert refused(make).startswith(words), refused(make)


# chapters/workshop_settings.md · What a reading is
def reading(**changes: Any) -> PretrainConfig:
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, max_length=24)
    values = {"name": "tiny", "corpus": "toy", "model": model, "chunk_length": 16}
    return PretrainConfig(**values | changes)


def test_pretrain_config_refuses() -> None:
    assert reading(chunk_length=22).chunk_length == 22
    for change, words in [
        ({"corpus": "books"}, "corpus must be 'imdb', 'imdb_train' or 'toy'"),
        ({"chunk_length": 23}, "chunk_length must be at most 22"),
        ({"held_out": 0}, "held_out must be"),
        ({"mask_rate": 1.0}, "mask_rate must be less than 1"),
        ({"label_weight": -1.0}, "label_weight must be"),
        ({"training": TrainingConfig(micro_batches=2)}, "training.micro_batches must be 1 when pretraining"),
        ({"training": TrainingConfig(r_drop=1.0)}, "training.r_drop must be 0"),
        ({"training": TrainingConfig(ema=0.5)}, "training.ema must be 0"),
        ({"model": ModelConfig(vocab_size=70_000)}, "model.vocab_size must be at most 65536"),
        ({"name": "a/b"}, "name must be a plain folder name"),
    ]:  # fmt: skip
        assert refused(lambda c=change: reading(**c)).startswith(words), change


# chapters/workshop_settings.md · A file, and what wins over it
GOOD_YAML = """
name: no
data: {name: toy}
model: {vocab_size: 50, d_model: 12, num_heads: 3}
training: {learning_rate: 2e-3}
"""


def read(text: str, *overrides: str, kind: type = RunConfig) -> Any:
    """Settings from a file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(text, encoding="utf-8")
        return read_settings(kind, path, overrides)


def test_what_is_saved_is_read_back_and_overrides_win() -> None:
    config = read(GOOD_YAML)
    assert (config.name, config.training.learning_rate) == ("no", 0.002)
    rates = {"learning_rate": 1e-5, "max_grad_norm": math.inf}
    config = replace(config, training=TrainingConfig(epochs=9, **rates))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "saved.yaml")
        for name in ("2e-3", "0o7", "on", "no"):
            config = replace(config, name=name, initial="übung: 1")
            _save_settings(config, path)
            assert read_settings(RunConfig, path) == config
        again = read_settings(RunConfig, path, ["--seed", "12", "--name=yes"])
        assert again == replace(config, seed=12, name="yes")


def test_a_wrong_file_is_one_sentence() -> None:
    for text, *words in [
        (GOOD_YAML + "foo: 1\n", "'foo'", "training.epochs"),
        (GOOD_YAML.replace("learning_rate", "lr"), "'lr'", "training.learning_rate"),
        (GOOD_YAML.replace("toy", "imdb"), "data.name must be one of 'sst2', 'toy', 'files', got 'imdb'"),
        (GOOD_YAML.replace("2e-3", "fast"), "training.learning_rate must be of type float, got 'fast'"),
        (GOOD_YAML.replace("2e-3", ".nan"), "training.learning_rate must be a finite number, got nan"),
        (GOOD_YAML.replace("num_heads: 3", "num_heads: 5"), "num_heads"),
        (GOOD_YAML.replace("name: no", "name: ../x"), "name must be a plain folder name, got '../x'"),
        (GOOD_YAML.replace("vocab_size: 50, ", ""), "model.vocab_size"),
        (GOOD_YAML + "seed: 1\nseed: 2\n", "duplicate key", "seed"),
        ("- 1\n- 2\n", "map keys to values"),
        ("", "map keys to values"),
        ("a: [1\n", "line 1"),
    ]:  # fmt: skip
        sentence = refused(lambda text=text: read(text))
        assert all(word in sentence for word in words) and "run.yaml: " in sentence, sentence
    for override, words in [
        ("--training.batch_size=0", "training.batch_size must be greater than or equal to 1, got 0"),
        ("--training.epoch=3", "unrecognized arguments: --training.epoch=3; allowed are name, data.name"),
        ("--training.autocast=off", "training.autocast must be one of 'auto', 'fp32', 'bf16', 'fp16', got 'off'"),
        ("--training.micro_batches=65", "training.micro_batches must be at most training.batch_size=64, got 65"),
        ("--training.device=tpu", "training.device must be auto, cpu or an accelerator"),
    ]:  # fmt: skip
        sentence = refused(lambda override=override: read(GOOD_YAML, override))
        assert words in sentence, sentence
    missing = refused(lambda: read_settings(RunConfig, "none.yaml"))
    assert missing == "there is no config file none.yaml"


def test_read_settings_reads_any_settings() -> None:
    assert read("mode: off\nheat: 2e2\n", kind=Oven) == Oven("off", 200.0)
    changes = ["--mode=grill", "--heat", "1e-3"]
    assert read("mode: off\n", *changes, kind=Oven) == Oven("grill", 0.001)
    for text, words in [
        ("mode: of\n", "mode must be one of 'off', 'grill', got 'of'"),
        ("mode: off\nheat: warm\n", "heat must be of type float, got 'warm'"),
        ("mode: off\nhaet: 1\n", "allowed are mode, heat"),
    ]:
        assert words in refused(lambda text=text: read(text, kind=Oven))
