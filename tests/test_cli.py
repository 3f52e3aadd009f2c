# Generated from chapters/workshop_command_line.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.cli`."""

import argparse
import inspect
import json
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import torch
from huggingface_hub import load_torch_model

from minitransformer.cli import (
    SHIPPED,
    Parser,
    add_train,
    build_parser,
    convert_bert,
    main,
    reproduce_recipe,
    run_command,
)
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import load_run
from minitransformer.experiment.recipe import RecipeConfig
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    read_settings,
    save_settings,
)
from minitransformer.model import ModelConfig, TransformerForSequenceClassification


# chapters/workshop_command_line.md · The command line.
def said(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `minitransformer WORDS`."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


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


def test_build_parser_passes_on_what_it_does_not_know() -> None:
    arguments, rest = build_parser().parse_known_args(["search", "a.yaml", "--seeds", "0", "2", "--x"])
    assert (arguments.command, arguments.file, arguments.seeds, rest) == ("search", "a.yaml", [0, 2], ["--x"])
    assert arguments.output is None
    try:
        run_command(*build_parser().parse_known_args(["report", "somewhere", "--x"]))
        raise AssertionError("an unknown option was ignored")
    except ValueError as error:
        assert "--x" in str(error) and "report --help" in str(error)


def tiny_reading() -> PretrainConfig:
    """A reading of a second."""
    model = ModelConfig(vocab_size=200, d_model=8, num_heads=2, d_ff=12, num_layers=1, max_length=24)
    training = TrainingConfig(batch_size=64, learning_rate=3e-3)
    return PretrainConfig("tiny", "toy", model, training, chunk_length=16, held_out=50)


def tiny_run(folder: str) -> str:
    """The folder of a run on pieces that knows no more than it must."""
    reading, run = Path(folder, "reading"), Path(folder, "run")
    with redirect_stdout(StringIO()):
        fit(tiny_reading(), reading)
        model = read_settings(PretrainConfig, reading / "config.yaml").model
        fit(RunConfig("run", DataConfig("toy", train_size=64), model, initial=str(reading)), run)
    return str(run)


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


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


def test_pretrain_command():
    small = (
        "--model.d_model 8 --model.d_ff 12 --model.num_layers 1 --training.epochs 1 --training.batch_size 64"
    )
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "reading.yaml"), str(Path(folder, "out"))
        save_settings(tiny_reading(), path)
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


def typed(*words: str) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(prog="minitransformer")
    add_train(parser.add_subparsers(dest="command", required=True))
    return parser.parse_known_args(words)


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


def assert_one_sentence(run: Path, command: str, file: str, content: str, part: str) -> None:
    """A file of a run replaced (removed, without content): the command ends with a sentence that holds `part`."""
    original = (run / file).read_bytes()
    (run / file).write_text(content) if content else (run / file).unlink()
    before = {path.name: path.read_bytes() for path in run.glob("*.*")}
    with redirect_stderr(StringIO()) as said, redirect_stdout(StringIO()):
        code = main([command, str(run)])
    message = said.getvalue()
    assert code == 2 and message.count("\n") == 1 and part in message, (command, file, part, message)
    after = {path.name: path.read_bytes() for path in run.glob("*.*")}
    assert after == before, f"{command} failed on a broken {file} and yet changed the folder"
    (run / file).write_bytes(original)
