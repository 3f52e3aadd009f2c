# Generated from chapters/day05_training.md, chapters/day06_engineering.md, chapters/day07_experiments.md, chapters/day09_sprint.md, chapters/day11_deeper.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.cli`."""

import argparse
import inspect
import json
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest import mock
from unittest.mock import patch

import torch
from huggingface_hub import load_torch_model
from torch import Tensor, nn

from minitransformer.cli import (
    SHIPPED,
    Parser,
    add_label,
    add_train,
    add_training,
    build_parser,
    check_text,
    convert_bert,
    evaluate_run,
    main,
    predict_texts,
    read_lines,
    read_texts,
    report_evaluation,
    reproduce_recipe,
    run_command,
    yaml_file,
)
from minitransformer.config import (
    DataConfig,
    PretrainConfig,
    RecipeConfig,
    RunConfig,
    TrainingConfig,
    load_config,
    load_pretrain_config,
    save_config,
)
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.pretrain import pretrain
from minitransformer.runs import load_run, open_run_folder
from minitransformer.train import fit


# chapters/day06_engineering.md · The command line
def command(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `minitransformer WORDS`."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


# chapters/day06_engineering.md · The command line
SMALL_RUN = """
name: small
data: {name: toy, train_size: 30}
model: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}
training: {epochs: 1, batch_size: 16}
"""


# chapters/day05_training.md · The command line
def test_main_trains_and_evaluates() -> None:
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        code, out, err = command("train", config, "--seed", 5, "--output", run, "--training.epochs", 2)
        assert code == 0 and out.count("epoch ") == 2, (out, err)
        assert load_config(run / "config.yaml").seed == 5
        code, out, _ = command("evaluate", run)
        source, metrics = evaluate_run(run, "validation")
        assert code == 0 and str(metrics) in out and source in out
        assert evaluate_run(run, "test")[0] != source, "the split was ignored"
        assert command("train", config, "--output", run, "--overwrite")[0] == 0


# chapters/day05_training.md · The command line
def test_main_answers_mistakes_with_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        open_run_folder(run).joinpath("run.json").write_text("{}")
        for words, mentioned in [
            (("train", config, "--output", run), "--overwrite"),
            (("train", config, "--data.train_size", 10**6, "--output", base), "train_size"),
            (("train", config, "--training.speed", 3), "training.speed"),
            (("train", "--seed", 3, config), ".yaml"),
            (("train", Path(base, "none.yaml")), "none.yaml"),
            (("evaluate", run), "config.yaml"),
            (("evaluate", run, "--split", "train"), "validation"),
            (("evaluate", run, "--speed"), "--speed"),
            (("fly",), "fly"),
            ((), "COMMAND"),
        ]:
            code, out, err = command(*words)
            assert code == 2 and mentioned in err and err.count("\n") == 1, (words, code, err)
            assert "Traceback" not in err and not out
        assert isinstance(build_parser(), Parser) and yaml_file("a.yml") == "a.yml"
        with redirect_stdout(StringIO()) as out:
            run_command(*build_parser().parse_known_args(["train", str(config), "--output", f"{base}/b"]))
        assert f"saved in {base}/b" in out.getvalue()


# chapters/day06_engineering.md · The command line
def test_evaluate_and_predict_keep_their_promise_to_programs() -> None:
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        assert command("train", config, "--output", run)[0] == 0
        code, out, err = command("evaluate", run, "--json", "--split", "test")
        record = json.loads(out)
        assert (
            code == 0 and not err and list(record) == ["run", "split", "n", "accuracy", "interval95", "loss"]
        )
        source, metrics = evaluate_run(run, "test")
        assert (record["n"], record["accuracy"], record["loss"]) == (
            metrics.n,
            metrics.accuracy,
            metrics.loss,
        )
        assert record["split"] == "test" and tuple(record["interval95"]) == metrics.interval95
        with redirect_stdout(StringIO()) as plain:
            report_evaluation(run, "test", as_json=False)
        assert str(metrics) in plain.getvalue() and source in plain.getvalue()
        texts = ["a fine film", "ein schöner Film", "x " * 30]
        code, out, err = command("predict", *texts, "--run", run, "--json")
        answers = [json.loads(line) for line in out.splitlines()]
        assert code == 0 and [answer["text"] for answer in answers] == texts and "schöner" in out
        assert "text 3 has 32 tokens" in err and "text 2 is mostly unknown" in err, err
        for answer in answers:
            assert list(answer) == ["text", "label", "probability"]
            assert answer["label"] in ("negative", "positive") and 0.5 <= answer["probability"] <= 1
        with mock.patch.object(sys, "stdin", TextIOWrapper(BytesIO(b"a fine film\n  \na dull film\n"))):
            code, out, err = command("predict", "--run", run)
        assert code == 2 and out.count("\n") == 1 and "line 2 is empty" in err, (
            "answers before the empty line"
        )


# chapters/day06_engineering.md · The command line
def test_main_resumes_after_an_interruption() -> None:
    clip, calls = nn.utils.clip_grad_norm_, []

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return clip(*arguments)

    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        words = ("train", config, "--output", run, "--training.epochs", 2)
        with mock.patch.object(nn.utils, "clip_grad_norm_", interrupted):
            code, _, err = command(*words)
        assert code == 130 and "--resume" in err and err.count("\n") == 1, (code, err)
        assert command(*words)[0] == 2, "without --resume the interrupted run is protected"
        code, out, err = command(*words, "--resume")
        assert code == 0 and "going on after step 2" in out and not err, (out, err)
        code, _, err = command(*words, "--resume", "--training.learning_rate", "7e-4")
        assert code == 2 and "training.learning_rate is 0.0005 there, 0.0007 here" in err, err


# chapters/day06_engineering.md · The command line
def test_wrong_settings_start_nothing() -> None:
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        for setting, value in (("autocast", "half"), ("micro_batches", 17), ("device", "tpu"), ("speed", 1)):
            code, out, err = command("train", config, "--output", run, f"--training.{setting}", value)
            assert code == 2 and not out and err.count("\n") == 1, (code, out, err)
            assert f"training.{setting}" in err and str(value) in err, err
            assert not run.exists(), "a folder was made for a run that cannot start"
        code, _, err = command("predict", "a film", "--run", base)
        assert code == 2 and "not the folder of a run" in err
    arguments, rest = build_parser().parse_known_args(["predict", "x", "--fast"])
    assert arguments.run == SHIPPED and rest == ["--fast"]
    try:
        run_command(arguments, rest)
        raise AssertionError("an unknown option was ignored")
    except ValueError as error:
        assert "--fast" in str(error) and "predict --help" in str(error)
    commands = Parser().add_subparsers()
    add_train(commands)
    assert commands.choices["train"].parse_args(["a.yaml", "--resume"]).resume is True


# chapters/day06_engineering.md · The command line
def test_texts_come_with_their_place_and_stop_at_the_first_bad_one() -> None:
    assert list(read_texts(["a", "b c"], None)) == [[("text 1", "a"), ("text 2", "b c")]]
    assert list(read_lines(BytesIO(b"one\r\ntw\xc3\xb6"))) == [["one"], ["twö"]]
    content = "\ufeffa film\r\nfine\u2028film\n".encode() + b"caf\xe9\na dull film\n\n"
    texts = list(read_texts([], TextIOWrapper(BytesIO(content))))
    places = [
        ("line 1", "a film"),
        ("line 2", "fine\u2028film"),
        ("line 3", "caf\udce9"),
        ("line 4", "a dull film"),
    ]
    assert texts == [places, []], "neither mark nor line end, and no blank line at the end"
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        assert command("train", config, "--output", run)[0] == 0
        tokenizer = load_run(run)[2]
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            assert check_text("text 7", "a film " * 20, tokenizer) == "a film " * 20
            try:
                predict_texts(run, texts, as_json=False)
                raise AssertionError("a text was answered that is not UTF-8")
            except ValueError as error:
                assert "line 3 is not UTF-8" in str(error) and "0xe9" in str(error), error
    assert out.getvalue().count("\n") == 2 and "text 7 has 42 tokens" in err.getvalue()


# chapters/day07_experiments.md · `report` and `search` on the command line
def said(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `minitransformer WORDS`."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


# chapters/day07_experiments.md · `report` and `search` on the command line
def test_search_and_report_from_the_command_line() -> None:
    base = "name: b\ndata: {name: toy, train_size: 20}\nmodel: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}\n"
    with tempfile.TemporaryDirectory() as folder:
        file, runs = Path(folder, "plan.yaml"), Path(folder, "runs")
        Path(folder, "base.yaml").write_text(base, encoding="utf-8")
        file.write_text(
            "name: s\nbase: base.yaml\nseeds: [0, 1]\nvariants: {a: {}, b: {model.dropout: 0.5}}\n"
        )
        code, out, err = said("search", file, "--output", runs, "--seeds", 1)
        assert code == 0 and sorted(path.name for path in runs.iterdir()) == ["a_seed1", "b_seed1"], err
        assert "| a | 1 |" in out and "| b | 1 |" in out
        code, out, _ = said("search", file, "--output", runs)
        assert code == 0 and out.count("is finished") == 2 and "| a | 2 |" in out and "±" in out
        code, out, _ = said("report", runs / "b_seed0")
        assert code == 0 and "report.md" in out and (runs / "b_seed0" / "report.md").is_file()
        for words, mentioned in [
            (("report", folder), "run.json"),
            (("report", runs / "b_seed0", "--fast"), "--fast"),
            (("search", runs), ".yaml"),
            (("search", file, "--training.epochs", 3), "--training.epochs"),
            (("search", Path(folder, "none.yaml")), "none.yaml"),
        ]:
            code, out, err = said(*words)
            assert code == 2 and mentioned in err and err.count("\n") == 1 and not out, (words, err)


# chapters/day07_experiments.md · `report` and `search` on the command line
def test_build_parser_passes_on_what_it_does_not_know() -> None:
    arguments, rest = build_parser().parse_known_args(["search", "a.yaml", "--seeds", "0", "2", "--x"])
    assert (arguments.command, arguments.file, arguments.seeds, rest) == ("search", "a.yaml", [0, 2], ["--x"])
    assert arguments.output is None
    try:
        run_command(*build_parser().parse_known_args(["report", "somewhere", "--x"]))
        raise AssertionError("an unknown option was ignored")
    except ValueError as error:
        assert "--x" in str(error) and "report --help" in str(error)


# chapters/day09_sprint.md · The command
def tiny_reading() -> PretrainConfig:
    """A reading of a second."""
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24)
    training = TrainingConfig(batch_size=64, learning_rate=3e-3)
    return PretrainConfig("tiny", "toy", model, training, chunk_length=16, held_out=50)


# chapters/day09_sprint.md · The command
def tiny_run(folder: str) -> str:
    """The folder of a run on pieces that knows no more than it must."""
    reading, run = Path(folder, "reading"), Path(folder, "run")
    with redirect_stdout(StringIO()):
        pretrain(tiny_reading(), reading)
        model = load_pretrain_config(reading / "config.yaml").model
        fit(RunConfig("run", DataConfig("toy", train_size=64), model, initial=str(reading)), run)
    return str(run)


# chapters/day09_sprint.md · The command
def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


# chapters/day09_sprint.md · The command
def test_predict_takes_every_text():
    with tempfile.TemporaryDirectory() as folder:
        run = tiny_run(folder)
        for text in (
            "\N{PILE OF POO}\N{THUMBS UP SIGN}",
            "ein wunderbarer Film",
            "это хорошо",
            "好电影",
            "a\x01\x07film",
        ):
            code, out, err = call("predict", "--run", run, "--", text)
            assert code == 0 and out.count("\n") == 1 and (not err or "mostly unknown" in err), (
                text,
                out,
                err,
            )
            assert out.split()[0] in ("negative", "positive")
        code, out, err = call("predict", "--run", run, "good " * 10_000)
        assert code == 0 and out.startswith(("negative", "positive"))
        assert "warning: text 1 has" in err and "of which the first 24 are read" in err
        code, out, err = call("predict", "--run", run, " \t")
        assert (code, out) == (2, "") and "text 1 is empty, and an empty text has no sentiment" in err


# chapters/day09_sprint.md · The command
def test_commands_that_train():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command")
    add_train(commands)
    add_training(commands, "study", "an example", "x.yaml")
    for command in ("train", "pretrain", "study"):
        found = parser.parse_args([command, "a.yaml", "--resume"])
        assert (found.command, found.config, found.resume, found.overwrite) == (
            command,
            "a.yaml",
            True,
            False,
        )
    assert yaml_file("x.yml") == "x.yml"
    add_label(others := argparse.ArgumentParser().add_subparsers())
    asked = others.choices["label"].parse_args(["a", "b", "--count", "5"])
    assert (asked.runs, asked.count, asked.corpus, asked.seed) == (["a", "b"], 5, "imdb", 0)
    with tempfile.TemporaryDirectory() as folder:
        save_config(tiny_reading(), Path(folder, "r.yaml"))
        arguments = parser.parse_args(["pretrain", str(Path(folder, "r.yaml")), "--output", folder + "/out"])
        try:
            run_command(arguments, ["--mask_rate", "0"])
            raise AssertionError("nothing hidden")
        except ValueError as error:
            assert "mask_rate must be a share in (0, 1)" in str(error)


# chapters/day09_sprint.md · The command
def test_pretrain_command():
    small = (
        "--model.d_model 8 --model.d_ff 12 --model.num_layers 1 --training.epochs 1 --training.batch_size 64"
    )
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "reading.yaml"), str(Path(folder, "out"))
        save_config(tiny_reading(), path)
        code, out, err = call("pretrain", str(path), "--output", output, *small.split())
        assert code == 0 and f"saved in {output}" in out and "held-out reviews: accuracy" in out, err
        for options, reason in [
            ([], "already holds a run"),
            (["--overwrite", "--mask_rate", "1.5"], "mask_rate must be a share in (0, 1), got 1.5"),
            (["--overwrite", "--chunk_length", "99"], "chunk_length must be in 1 … 22"),
            (["--overwrite", "--mask_share", "0.2"], "mask_share"),
            (["--overwrite", "--held_out", "9999"], "held_out must be below the 750 reviews there are"),
        ]:
            code, out, err = call("pretrain", str(path), "--output", output, *options)
            assert code == 2 and reason in err and err.count("\n") == 1, err
        code, out, err = call("pretrain", "toy")
        assert code == 2 and "expected a .yaml file" in err


# chapters/day09_sprint.md · The command
def test_label_command():
    with tempfile.TemporaryDirectory() as folder:
        run, output = tiny_run(folder), str(Path(folder, "labelled"))
        options = ["--corpus", "toy", "--output", output, "--count"]
        code, out, err = call("label", run, *options, "10")
        assert (code, out) == (0, f"10 sentences of toy, labelled by 1 models, in {output}\n"), err
        for runs, count, reason in [
            ([run], "11", "belongs to another run: count is 10 there, 11 here"),
            ([run], "0", "count must be in 1 … "),
            ([folder], "10", "is not the folder of a run"),
            ([], "10", "RUN"),
        ]:
            code, out, err = call("label", *runs, *options, count)
            assert code == 2 and reason in err and err.strip().count("\n") == 0, err


# chapters/day11_deeper.md · The transfer to SST-2
def test_the_shipped_model() -> None:
    config, model, tokenizer = load_run(SHIPPED)
    assert len(tokenizer.vocabulary) == config.model.vocab_size == model.config.vocab_size
    theirs = TransformerForSequenceClassification(model.config)
    load_torch_model(theirs, SHIPPED, strict=True)
    for (name, ours), (_, other) in zip(model.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(ours, other) and torch.equal(ours, ours.half().float()), name
    with redirect_stdout(StringIO()) as out:
        assert main(["predict", "a triumph", "a waste of time", "--json"]) == 0
    labels = [json.loads(line)["label"] for line in out.getvalue().splitlines()]
    assert labels == ["positive", "negative"]


# chapters/day11_deeper.md · `convert` and `reproduce` on the command line
def typed(*words: str) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(prog="minitransformer")
    add_train(parser.add_subparsers(dest="command", required=True))
    return parser.parse_known_args(words)


# chapters/day11_deeper.md · `convert` and `reproduce` on the command line
def test_convert_from_the_command_line():
    arguments, rest = typed("convert", "some/bert", "runs/start", "--vocab-size", "8000")
    assert (arguments.source, arguments.folder, rest) == ("some/bert", "runs/start", [])
    assert (arguments.vocab_size, arguments.max_length) == (8000, 128)
    module = inspect.unwrap(convert_bert).__globals__  # where it looks up what it calls
    with (
        patch.dict(module, {"film_texts": lambda: ["a film", "the cast"]}),
        redirect_stdout(StringIO()) as out,
    ):
        with patch.dict(module, {"convert": lambda *values: values}):
            convert_bert(arguments)
            assert str(("some/bert", "runs/start", 8000, 128, ["a film", "the cast"])) in out.getvalue()
            run_command(*typed("convert", "other", "there", "--max-length", "64"))
            assert str(("other", "there", None, 64, [])) in out.getvalue(), (
                "no data needed to keep all entries"
            )
    try:
        run_command(*typed("convert", "other", "there", "--vocab", "9"))
        raise AssertionError("an abbreviated option was accepted")
    except ValueError as error:
        assert "--vocab 9" in str(error), error


# chapters/day11_deeper.md · `convert` and `reproduce` on the command line
def test_reproduce_from_the_command_line():
    asked: list[tuple[str | None, str]] = []

    def stand_in(plan: RecipeConfig, folder: str | Path) -> Path:
        asked.append((plan.convert, str(folder)))
        return summary

    def read(path: object, settings: list[str]) -> RecipeConfig:
        return RecipeConfig("tiny", str(path), [0], convert=" ".join(settings) or "some/bert")

    with tempfile.TemporaryDirectory() as name:
        summary = Path(name, "summary.md")
        summary.write_text("# tiny\n")
        module = inspect.unwrap(reproduce_recipe).__globals__
        with patch.dict(module, {"load_recipe": read, "reproduce": stand_in}):
            with redirect_stdout(StringIO()) as out:
                run_command(*typed("reproduce", "recipe.yaml"))
                run_command(*typed("reproduce", "recipe.yaml", "--convert", "a/folder", "--output", "there"))
    assert asked == [("some/bert", str(Path("runs", "tiny"))), ("--convert a/folder", "there")]
    assert out.getvalue() == 2 * "# tiny\n\n", "the summary is printed"
