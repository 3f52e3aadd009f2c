# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.config`."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

from minitransformer.config import (
    DataConfig,
    RunConfig,
    TrainingConfig,
    config_keys,
    load_config,
    one_sentence,
    require,
    save_config,
)
from minitransformer.model import ModelConfig

# chapters/day05_training.md · Settings: dataclasses and YAML
GOOD_YAML = "name: x\ndata: {name: toy}\nmodel: {vocab_size: 50, d_model: 12, num_heads: 3}\ntraining: {learning_rate: 2e-3}\n"


# chapters/day05_training.md · Settings: dataclasses and YAML
def complaint(text: str, *overrides: str) -> str:
    """What `load_config` says about a file with this text; a single line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            load_config(path, overrides)
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path)), error
            return str(error)
    raise AssertionError(f"accepted: {text!r} with {overrides}")


# chapters/day05_training.md · Settings: dataclasses and YAML
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


# chapters/day05_training.md · Settings: dataclasses and YAML
def test_save_config_and_load_config_are_inverse() -> None:
    config = RunConfig(
        name="y-1.b",
        data=DataConfig("sst2", min_frequency=3, train_size=None),
        model=ModelConfig(vocab_size=77, d_model=20, num_heads=5, dropout=0.25),
        training=TrainingConfig(epochs=9, learning_rate=1e-5, max_grad_norm=math.inf),
        seed=11,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_config(config, Path(folder, "run.yaml"))
        assert load_config(Path(folder, "run.yaml")) == config
        assert load_config(Path(folder, "run.yaml"), ["--seed", "12"]) == replace(config, seed=12)
        try:
            load_config(Path(folder, "none.yaml"))
            raise AssertionError("a missing file went unnoticed")
        except ValueError as error:
            assert "none.yaml" in str(error)


# chapters/day05_training.md · Settings: dataclasses and YAML
def test_settings_check_their_ranges() -> None:
    model = ModelConfig(vocab_size=9)
    for make, name in [
        (lambda: DataConfig("toy", min_frequency=0), "data.min_frequency"),
        (lambda: DataConfig("toy", train_size=0), "data.train_size"),
        (lambda: TrainingConfig(weight_decay=-1.0), "training.weight_decay"),
        (lambda: TrainingConfig(max_grad_norm=0.0), "training.max_grad_norm"),
        (lambda: RunConfig("x", DataConfig("toy"), replace(model, padding_id=3)), "model.padding_id"),
        (lambda: RunConfig("x", DataConfig("toy"), replace(model, num_labels=3)), "model.num_labels"),
        (lambda: RunConfig("x", DataConfig("toy"), replace(model, vocab_size=4)), "model.vocab_size"),
        (lambda: RunConfig("x", DataConfig("toy"), replace(model, max_length=2)), "model.max_length"),
        (lambda: RunConfig("x", DataConfig("toy"), model, seed=-1), "seed"),
        (lambda: require(1 > 2, "speed", 1, "above 2"), "speed must be above 2, got 1"),
    ]:
        try:
            make()
            raise AssertionError(f"a wrong {name} was accepted")
        except ValueError as error:
            assert str(error).startswith(name), error
    keys = config_keys(RunConfig)
    assert {"seed", "data.name", "model.d_model"} <= set(keys) and "model" not in keys
    assert (
        one_sentence(TypeError("Parser key \"a\":\n  Expected a <class 'int'>. Got value: b"))
        == "a must be of type int, got 'b'"
    )
