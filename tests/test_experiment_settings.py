# Generated from chapters/workshop_settings.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.experiment.settings`."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    read_settings,
    save_settings,
)
from minitransformer.model import ModelConfig

# chapters/workshop_settings.md · The settings of a run as dataclasses, read from YAML and the command line.
GOOD_YAML = "name: x\ndata: {name: toy}\nmodel: {vocab_size: 50, d_model: 12, num_heads: 3}\ntraining: {learning_rate: 2e-3}\n"


def complaint(text: str, *overrides: str) -> str:
    """What `load_config` says about a file with this text; a single line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            read_settings(RunConfig, path, overrides)
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path)), error
            return str(error)
    raise AssertionError(f"accepted: {text!r} with {overrides}")


def test_load_config_names_what_is_wrong() -> None:
    for wrong, *words in [
        (GOOD_YAML + "foo: 1\n", "foo", "training.epochs"),
        (GOOD_YAML.replace("learning_rate", "lr"), "'lr'", "training.learning_rate"),
        (GOOD_YAML.replace("toy", "imdb"), "data.name", "imdb", "sst2"),
        (GOOD_YAML.replace("2e-3", "fast"), "training.learning_rate", "float", "fast"),
        (GOOD_YAML.replace("2e-3", ".nan"), "training.learning_rate", "nan"),
        (GOOD_YAML.replace("num_heads: 3", "num_heads: 5"), "num_heads"),
        (GOOD_YAML.replace("name: x", "name: ../x"), "name", "folder"),
        (GOOD_YAML.replace("vocab_size: 50, ", ""), "model.vocab_size"),
        ("- 1\n- 2\n", "map keys to values"),
        ("", "map keys to values"),
        ("a: [1\n", "config"),
    ]:
        for word in words:
            assert word in complaint(wrong), f"{complaint(wrong)!r} does not mention {word!r}"
    assert "training.batch_size" in complaint(GOOD_YAML, "--training.batch_size", "0")
    assert "--training.epoch" in complaint(GOOD_YAML, "--training.epoch", "3"), "abbreviations must not pass"


def test_save_config_and_load_config_are_inverse() -> None:
    config = RunConfig(
        name="y-1.b",
        data=DataConfig("sst2", min_frequency=3, train_size=None),
        model=ModelConfig(vocab_size=77, d_model=20, num_heads=5, dropout=0.25),
        training=TrainingConfig(epochs=9, learning_rate=1e-5, max_grad_norm=math.inf),
        seed=11,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_settings(config, Path(folder, "run.yaml"))
        assert read_settings(RunConfig, Path(folder, "run.yaml")) == config
        assert read_settings(RunConfig, Path(folder, "run.yaml"), ["--seed", "12"]) == replace(
            config, seed=12
        )
        try:
            read_settings(RunConfig, Path(folder, "none.yaml"))
            raise AssertionError("a missing file went unnoticed")
        except ValueError as error:
            assert "none.yaml" in str(error)


def refused(make: Callable[[], object]) -> str:
    """The one sentence with which settings are refused."""
    try:
        made = make()
    except ValueError as error:
        assert "\n" not in str(error), error
        return str(error)
    raise AssertionError(f"accepted: {made}")


def test_settings_check_their_ranges() -> None:
    model, toy = ModelConfig(vocab_size=9), DataConfig("toy")
    for make, words in [
        (lambda: DataConfig("toy", min_frequency=0), "data.min_frequency must be greater than or equal to 1, got 0"),
        (lambda: DataConfig("toy", train_size=0), "data.train_size must be greater than or equal to 1, got 0"),
        (lambda: TrainingConfig(epochs=True), "training.epochs must be a valid integer, got True"),
        (lambda: TrainingConfig(learning_rate=math.nan), "training.learning_rate"),
        (lambda: TrainingConfig(weight_decay=-1.0), "training.weight_decay"),
        (lambda: TrainingConfig(max_grad_norm=0.0), "training.max_grad_norm"),
        (lambda: TrainingConfig(max_skipped=0), "training.max_skipped"),
        (lambda: TrainingConfig(ema=1.0), "training.ema must be less than 1, got 1.0"),
        (lambda: TrainingConfig(warmup=-0.1), "training.warmup"),
        (lambda: TrainingConfig(r_drop=math.inf), "training.r_drop"),
        (lambda: TrainingConfig(schedule="cosine"), "training.schedule must be 'constant' or 'linear', got 'cosine'"),
        (lambda: TrainingConfig(device="tpu"), "training.device must be auto, cpu or an accelerator"),
        (lambda: TrainingConfig(batch_size=4, micro_batches=5), "training.micro_batches must be at most training.batch_size=4, got 5"),
        (lambda: RunConfig("x", toy, replace(model, padding_id=3)), "model.padding_id must be 0"),
        (lambda: RunConfig("x", toy, replace(model, num_labels=3)), "model.num_labels must be 2"),
        (lambda: RunConfig("x", toy, replace(model, vocab_size=4)), "model.vocab_size must be at least 5"),
        (lambda: RunConfig("x", toy, replace(model, max_length=2)), "model.max_length must be at least 3"),
        (lambda: RunConfig("x", toy, model, seed=-1), "seed must be greater than or equal to 0, got -1"),
        (lambda: RunConfig("a/b", toy, model), "name must be a plain folder name, got 'a/b'"),
        (lambda: RunConfig("x", toy, replace(model, dropout=0.0), TrainingConfig(r_drop=1.0)), "training.r_drop must be 0 where model.dropout is 0"),
        (lambda: RunConfig("x", DataConfig("toy", tokenizer="a"), model, initial="b"), "data.tokenizer must be null where initial is given"),
    ]:  # fmt: skip
        assert refused(make).startswith(words), refused(make)
    RunConfig("twice", toy, model, TrainingConfig(r_drop=1.0, device="cuda:1", batch_size=8, micro_batches=8))


@dataclass(frozen=True)
class Oven:
    """Some settings that have nothing to do with training."""

    mode: Literal["off", "grill"]
    heat: float = 1.0


def test_read_settings_reads_any_dataclass() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "oven.yaml")
        path.write_text("mode: off\nheat: 2e2\n")
        assert read_settings(Oven, path) == Oven("off", 200.0)
        assert read_settings(Oven, path, ["--mode=grill", "--heat", "1e-3"]) == Oven("grill", 0.001)
        for text, *words in [
            ("mode: of\n", "mode must be one of 'off', 'grill', got 'of'"),
            ("mode: off\nheat: warm\n", "heat must be of type float, got 'warm'"),
            ("mode: off\nhaet: 1\n", "haet", "allowed are mode, heat"),
            ("mode: off\nmode: grill\n", "duplicate key", "mode"),
        ]:
            path.write_text(text)
            try:
                read_settings(Oven, path)
                raise AssertionError(f"accepted: {text!r}")
            except ValueError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
                assert all(word in str(error) for word in words), error


def test_load_config_reads_no_as_a_word() -> None:
    text = "name: no\ndata: {name: toy}\nmodel: {vocab_size: 50}\ntraining: {autocast: auto, learning_rate: 1e-3}\n"
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder, "run.yaml"), Path(folder, "copy.yaml")
        path.write_text(text)
        config = read_settings(RunConfig, path)
        assert config.name == "no" and config.training.learning_rate == 0.001
        save_settings(config, copy)
        assert read_settings(RunConfig, copy) == config, "a saved config must read back as it was"
        assert read_settings(RunConfig, copy, ["--training.autocast", "fp16"]).training.autocast == "fp16"
        for override, words in [
            (
                "--training.autocast=half",
                ("training.autocast must be one of 'auto', 'fp32', 'bf16', 'fp16', got 'half'",),
            ),
            ("--training.autocast=off", ("training.autocast", "got 'off'")),
            ("--training.micro_batches=65", ("training.micro_batches", "65", "training.batch_size=64")),
            ("--training.device=tpu", ("training.device", "'tpu'", "cuda")),
        ]:
            try:
                read_settings(RunConfig, path, [override])
                raise AssertionError(f"{override} was accepted")
            except ValueError as error:
                assert all(word in str(error) for word in words), error


def test_examples_come_from_a_name_or_from_files():
    files = DataConfig(train="mine.csv", validation="other.parquet")
    assert [files.source(split) for split in ("train", "validation")] == ["mine.csv", "other.parquet"]
    assert DataConfig("toy").source("test") == "toy"
    for cause, name in (
        (lambda: files.source("test"), "data.test"),
        (lambda: DataConfig("toy", train="mine.csv"), "data.train"),
        (lambda: DataConfig(train="mine.csv"), "data.validation"),
    ):
        try:
            cause()
            raise AssertionError(name)
        except ValueError as error:
            assert name in str(error), error


def pretrain_config(**changes: object) -> PretrainConfig:
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24)
    training = TrainingConfig(
        batch_size=64, learning_rate=3e-3, schedule="linear", warmup=0.1, checkpoint_every=9
    )
    config = {"name": "tiny", "corpus": "toy", "model": model, "training": training, "chunk_length": 16}
    return PretrainConfig(**config | {"held_out": 50, "label_weight": 0.2} | changes)


def test_pretrain_config_refuses():
    for change, text in [
        ({"corpus": "books"}, "corpus"),
        ({"chunk_length": 23}, "chunk_length must be at most 22"),
        ({"held_out": 0}, "held_out"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"label_weight": -1.0}, "label_weight"),
        ({"training": TrainingConfig(micro_batches=2)}, "training.micro_batches"),
        ({"training": TrainingConfig(r_drop=1.0)}, "training.r_drop"),
        ({"training": TrainingConfig(ema=0.5)}, "training.ema must be 0"),
        ({"model": ModelConfig(vocab_size=70_000, d_model=8, num_heads=2)}, "model.vocab_size"),
        ({"name": "a/b"}, "name"),
    ]:
        try:
            pretrain_config(**change)
            raise AssertionError(change)
        except (ValueError, TypeError) as error:
            assert text in str(error), error
    assert pretrain_config(chunk_length=22).chunk_length == 22
