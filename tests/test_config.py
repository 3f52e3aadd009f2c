# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day07_experiments.md, chapters/day08_data_schedule_monitoring.md, chapters/day09_sprint.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.config`."""

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from minitransformer.config import (
    DataConfig,
    RunConfig,
    SearchConfig,
    SettingsLoader,
    TrainingConfig,
    check_run,
    check_training,
    config_keys,
    core_schema,
    examples_of,
    is_device,
    load_config,
    load_search,
    one_sentence,
    read_settings,
    require,
    save_config,
    variant_config,
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


# chapters/day06_engineering.md · Settings for today's switches
def test_training_config_checks_todays_switches() -> None:
    assert TrainingConfig(batch_size=8, micro_batches=8, autocast="bf16").max_skipped == 10
    assert is_device("mps") and is_device("cuda:1") and not is_device("tpu")
    for changes, words in [
        ({"micro_batches": 0}, "training.micro_batches must be at least 1, got 0"),
        (
            {"batch_size": 4, "micro_batches": 5},
            "training.micro_batches must be at most training.batch_size=4, got 5",
        ),
        ({"max_skipped": 0}, "training.max_skipped must be at least 1, got 0"),
    ]:
        try:
            TrainingConfig(**changes)
            raise AssertionError(f"{changes} was accepted")
        except ValueError as error:
            assert str(error) == words


# chapters/day06_engineering.md · `off` is False
def test_settings_loader_reads_yaml_1_2() -> None:
    def read(text: str) -> object:
        return yaml.load(text, Loader=SettingsLoader)

    for text, value in [
        ("off", "off"), ("on", "on"), ("no", "no"), ("yes", "yes"), ("true", True), ("False", False),
        ("1e-3", 0.001), ("5E2", 500.0), (".5", 0.5), ("2.", 2.0), ("-.inf", -math.inf), ("null", None),
        ("~", None), ("7", 7), ("-0", 0), ("010", 10.0), ("1_000", "1_000"), ("1:30", "1:30"), ("'7'", "7"),
        ("0x1F", "0x1F"), ("2026-11-24", "2026-11-24"), ("e3", "e3"), (".", "."),
    ]:  # fmt: skip
        found = read(text)
        assert found == value and type(found) is type(value), f"{text} became {found!r}"
    assert math.isnan(read(".nan")) and read("a: {b: [1, off]}\nc:\n") == {"a": {"b": [1, "off"]}, "c": None}
    for text in ("a: 1\nb: 2\na: 3", "x: {y: 1, y: 1}"):
        try:
            read(text)
            raise AssertionError(f"accepted: {text!r}")
        except yaml.YAMLError as error:
            assert "stands twice" in str(error)
    assert {tag.split(":")[-1] for tag, _ in core_schema()["1"]} == {"int", "float"}


# chapters/day06_engineering.md · `off` is False
@dataclass(frozen=True)
class Oven:
    """Some settings that have nothing to do with training."""

    mode: Literal["off", "grill"]
    heat: float = 1.0


# chapters/day06_engineering.md · `off` is False
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
            ("mode: off\nmode: grill\n", "'mode' stands twice"),
        ]:
            path.write_text(text)
            try:
                read_settings(Oven, path)
                raise AssertionError(f"accepted: {text!r}")
            except ValueError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
                assert all(word in str(error) for word in words), error


# chapters/day06_engineering.md · `off` is False
def test_load_config_reads_no_as_a_word() -> None:
    text = "name: no\ndata: {name: toy}\nmodel: {vocab_size: 50}\ntraining: {autocast: auto, learning_rate: 1e-3}\n"
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder, "run.yaml"), Path(folder, "copy.yaml")
        path.write_text(text)
        config = load_config(path)
        assert config.name == "no" and config.training.learning_rate == 0.001
        save_config(config, copy)
        assert load_config(copy) == config, "a saved config must read back as it was"
        assert load_config(copy, ["--training.autocast", "fp16"]).training.autocast == "fp16"
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
                load_config(path, [override])
                raise AssertionError(f"{override} was accepted")
            except ValueError as error:
                assert all(word in str(error) for word in words), error
    assert one_sentence(TypeError("unrecognized x"), Oven).endswith("; allowed are mode, heat")


# chapters/day07_experiments.md · The plan is a file
SEARCH_BASE = "name: b\ndata: {name: toy, train_size: 30}\nmodel: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}\ntraining: {epochs: 1, batch_size: 16}\n"

# chapters/day07_experiments.md · The plan is a file
SEARCH_PLAN = "name: s\nbase: base.yaml\nseeds: [3, 4]\nvariants:\n  plain: {}\n  fast: {training.learning_rate: 1e-2, model.dropout: 0.3}\n"


# chapters/day07_experiments.md · The plan is a file
def write_plan(folder: str, text: str = SEARCH_PLAN) -> Path:
    """A search's file with its base beside it."""
    Path(folder, "base.yaml").write_text(SEARCH_BASE, encoding="utf-8")
    path = Path(folder, "plan.yaml")
    path.write_text(text, encoding="utf-8")
    return path


# chapters/day07_experiments.md · The plan is a file
def test_variant_config_changes_what_the_plan_says_and_nothing_else() -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = load_search(write_plan(folder))
        base = load_config(Path(folder, "base.yaml"))
        assert isinstance(plan, SearchConfig) and plan.seeds == [3, 4]
        assert variant_config(plan, "plain", 4) == replace(base, name="plain", seed=4)
        fast = variant_config(plan, "fast", 3)
        assert (fast.training.learning_rate, fast.model.dropout) == (1e-2, 0.3)
        undone = replace(fast, name="b", seed=0, training=base.training, model=base.model)
        assert undone == base, "something else changed"


# chapters/day07_experiments.md · The plan is a file
def test_load_search_complains_before_anything_is_trained() -> None:
    for old, new, *words in [
        ("learning_rate", "learning_rte", "fast", "learning_rte"),
        ("1e-2", "-1", "fast", "training.learning_rate", "positive"),
        ("[3, 4]", "[3, 3]", "seeds", "different"),
        ("[3, 4]", "[]", "seeds"),
        ("base.yaml", "none.yaml", "none.yaml"),
        ("seeds:", "seed:", "seed"),
        ("  fast:", "  plain:", "plain", "twice"),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                load_search(write_plan(folder, SEARCH_PLAN.replace(old, new)))
            except ValueError as error:
                assert all(word in str(error) for word in words) and "\n" not in str(error), error
            else:
                raise AssertionError(f"{new!r} was accepted")
    try:
        SearchConfig("s", "base.yaml", [0], {})
        raise AssertionError("a search without variants was accepted")
    except ValueError as error:
        assert "variants" in str(error)


# chapters/day08_data_schedule_monitoring.md · Tokenize once
def settings_of(*lines: str) -> RunConfig:
    """The settings that a YAML file with these lines, and the least that a run needs, gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text("\n".join(["name: x", "model: {vocab_size: 50, d_model: 12, num_heads: 3}", *lines]))
        return load_config(path)


# chapters/day08_data_schedule_monitoring.md · Tokenize once
def test_data_config_reads_group_by_length() -> None:
    read = settings_of("data: {name: toy, group_by_length: true}").data
    assert asdict(DataConfig("toy", group_by_length=True)).items() <= asdict(read).items()
    assert settings_of("data: {name: toy}").data.group_by_length is False
    try:
        settings_of("data: {name: toy, group_by_length: 7}")
        raise AssertionError("7 is neither true nor false")
    except ValueError as error:
        assert "data.group_by_length" in str(error) and "bool" in str(error), error


# chapters/day08_data_schedule_monitoring.md · In the training script
def test_training_config_refuses_what_no_schedule_can_do() -> None:
    for changes, name in [
        ({"warmup": 1.0}, "training.warmup"),
        ({"warmup": -0.1}, "training.warmup"),
        ({"checkpoint_every": 0}, "training.checkpoint_every"),
        ({"log_every": 0}, "training.log_every"),
        ({"max_skipped": 0}, "training.max_skipped"),
        ({"batch_size": 4, "micro_batches": 5}, "training.micro_batches"),
        ({"max_grad_norm": 0.0}, "training.max_grad_norm"),
    ]:
        try:
            TrainingConfig(**changes)
            raise AssertionError(f"{changes} was accepted")
        except ValueError as error:
            assert str(error).startswith(name), error
    for word in ("schedule: cosine", "device: tpu", "autocast: int8"):
        try:
            settings_of("data: {name: toy}", f"training: {{{word}}}")
            raise AssertionError(f"{word} was accepted")
        except ValueError as error:
            assert f"training.{word.split(':')[0]}" in str(error) and word.split()[1] in str(error), error
    read = settings_of(
        "data: {name: toy}", "training: {schedule: linear, warmup: 0.06, autocast: fp32}"
    ).training
    wanted = TrainingConfig(schedule="linear", warmup=0.06)
    assert asdict(wanted).items() <= asdict(read).items() and read.tensorboard is False


# chapters/day09_sprint.md · The settings of a reading, and the run
def test_check_run_refuses():
    size = ModelConfig(vocab_size=60, d_model=8, num_heads=2)
    check_run("a_run-1.5", 0, size)
    for arguments, reason in [
        (("a/b", 0, size), "name must be a plain folder name"),
        (("x", -1, size), "seed must be in 0"),
        (("x", 0, replace(size, padding_id=3)), "model.padding_id must be 0"),
        (("x", 0, replace(size, num_labels=3)), "model.num_labels must be 2"),
        (("x", 0, replace(size, vocab_size=4)), "model.vocab_size must be at least 5"),
        (("x", 0, replace(size, max_length=2)), "model.max_length must be at least 3"),
    ]:
        try:
            check_run(*arguments)
            raise AssertionError(reason)
        except ValueError as error:
            assert reason in str(error), error


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def test_training_config_refuses_new_settings():
    wrong = {"layer_decay": 0.0}, {"layer_decay": 1.5}, {"ema": 1.0}, {"ema": -0.1}, {"warmup": 1.0}
    for change in (*wrong, {"r_drop": -1.0}, {"r_drop": math.inf}):
        try:
            TrainingConfig(**change)
            raise AssertionError(change)
        except ValueError as error:
            assert f"training.{next(iter(change))}" in str(error), error
    check_training(TrainingConfig(layer_decay=0.5, ema=0.99, r_drop=1.0))
    twice = TrainingConfig(r_drop=1.0)
    RunConfig("twice", DataConfig("toy"), ModelConfig(50, dropout=0.1), twice)
    try:
        RunConfig("twice", DataConfig("toy"), ModelConfig(50, dropout=0.0), twice)
        raise AssertionError("without dropout")
    except ValueError as error:
        assert "training.r_drop" in str(error) and "model.dropout" in str(error), error


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def test_examples_come_from_a_name_or_from_files():
    files = DataConfig(train="mine.csv", validation="other.parquet")
    assert [examples_of(files, split) for split in ("train", "validation")] == ["mine.csv", "other.parquet"]
    assert examples_of(DataConfig("toy"), "test") == "toy"
    for cause, name in (
        (lambda: examples_of(files, "test"), "data.test"),
        (lambda: DataConfig("toy", train="mine.csv"), "data.train"),
        (lambda: DataConfig(train="mine.csv"), "data.validation"),
    ):
        try:
            cause()
            raise AssertionError(name)
        except ValueError as error:
            assert name in str(error), error
