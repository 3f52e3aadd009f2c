# Generated from chapters/workshop_command_line.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.cli`."""

import inspect
import json
import shutil
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from huggingface_hub import load_torch_model
from torch import Tensor, nn

from minitransformer.cli import (
    SHIPPED,
    _check_text,
    _lines_of,
    _predict_texts,
    _read_texts,
    _report_evaluation,
    main,
)
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import load_run, read_answers, read_evaluations, read_run_record
from minitransformer.experiment.recipe import RecipeConfig
from minitransformer.experiment.report import evaluate_split
from minitransformer.experiment.settings import RunConfig, read_settings
from minitransformer.model import TransformerForSequenceClassification

# chapters/workshop_command_line.md · Measured, and counted
HOME = tempfile.TemporaryDirectory()  # goes when Python does

SMALL_RUN = """
name: small
data: {name: toy, train_size: 30}
model: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}
training: {epochs: 1, batch_size: 16}
"""


@cache
def small_run() -> Path:
    """A run of a second on toy reviews, made once; whoever changes it takes a copy."""
    config, run = Path(HOME.name, "small.yaml"), Path(HOME.name, "run")
    config.write_text(SMALL_RUN)
    with redirect_stdout(StringIO()):
        fit(read_settings(RunConfig, config), run)
    return run


def copied(folder: str) -> Path:
    """The small run, in a folder of its own."""
    return shutil.copytree(small_run(), Path(folder, "copy"))


def module_of(function: Any) -> dict[str, Any]:
    """Where a function of the package looks names up, past any wrapper around it."""
    return inspect.unwrap(function).__globals__


def test_readings_are_counted() -> None:
    keys = ["run", "split", "n", "accuracy", "interval95", "loss"]
    with tempfile.TemporaryDirectory() as folder:
        run = copied(folder)
        before = read_run_record(run)
        assert "evaluations" not in before and read_answers(run, "test") == []
        for reading in (1, 2):
            with redirect_stdout(StringIO()) as out:
                _report_evaluation(run, "test", as_json=True)
            printed, found = json.loads(out.getvalue()), read_evaluations(run)["test"]
            assert list(printed) == keys and found["readings"] == reading
            assert all(found[key] == printed[key] for key in ("n", "accuracy", "loss"))
        answers, after = read_answers(run, "test"), read_run_record(run)
        assert sum(a["correct"] for a in answers) == found["accuracy"] * len(answers)
        assert {k: v for k, v in after.items() if k != "evaluations"} == before


def test_the_shipped_model_is_not_counted() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = copied(folder)
        before = (run / "run.json").read_bytes()
        with patch.dict(module_of(_report_evaluation), {"SHIPPED": run}):
            with redirect_stdout(StringIO()) as out:
                _report_evaluation(run, "test", as_json=False)
        assert "accuracy" in out.getvalue() and "reading" not in out.getvalue()
        assert (run / "run.json").read_bytes() == before and not read_answers(run, "test")
        (run / "run.json").unlink()
        with redirect_stdout(StringIO()) as out:
            _report_evaluation(run, "test", as_json=False)
        assert "accuracy" in out.getvalue()
        assert not (run / "run.json").exists(), "nothing to count in"


def test_a_reading_that_cannot_be_kept_is_printed_and_an_error() -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError("no space left")

    with patch.dict(module_of(_report_evaluation), {"_record_evaluation": full}):
        with redirect_stdout(StringIO()) as out:
            try:
                _report_evaluation(small_run(), "validation", as_json=True)
                raise AssertionError("the error was swallowed")
            except OSError as error:
                assert "could not be recorded: no space left" in str(error)
    assert json.loads(out.getvalue())["split"] == "validation"


def test_a_reading_that_cannot_be_counted_is_not_made() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = copied(folder)
        broken = {"name": "x", "class": "alone", "evaluations": 3}
        (run / "run.json").write_text(json.dumps(broken))
        with redirect_stdout(StringIO()) as out:
            try:
                _report_evaluation(run, "test", as_json=True)
                raise AssertionError("counted in a broken record")
            except ValueError as error:
                assert "evaluations are broken" in str(error) and not out.getvalue()


# chapters/workshop_command_line.md · Texts that others send
class Pieces(BytesIO):
    """A stream that comes piece by piece, as a slow pipe does."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(b"".join(pieces))
        self.sizes = [len(piece) for piece in pieces]

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(self.sizes.pop(0) if self.sizes else size)


def windows(*pieces: bytes) -> list[list[tuple[str, str]]]:
    return list(_read_texts([], SimpleNamespace(buffer=Pieces(*pieces))))


def test_texts_come_in_windows_with_their_place() -> None:
    first, second, third, end = windows(b"a fine fi", b"lm\n\n", b"a dull film\n\n")
    assert first == [] and second == [("line 1", "a fine film")]
    assert third == [("line 2", ""), ("line 3", "a dull film")] and end == []
    assert list(_read_texts(["a", ""], None)) == [[("text 1", "a"), ("text 2", "")]]


def test_predict_stops_at_the_first_bad_text() -> None:
    texts = windows("\ufeffa film\r\nfine\u2028film\n".encode() + b"caf\xe9\na dull film")
    with redirect_stdout(StringIO()) as out:
        try:
            _predict_texts(small_run(), texts, as_json=False)
            raise AssertionError("a text was answered that is not UTF-8")
        except ValueError as error:
            assert "line 3 is not UTF-8" in str(error) and "the byte 0xe9" in str(error)
    answers = [line.split("  ")[2] for line in out.getvalue().split("\n") if line]
    assert answers == ["a film", "fine\u2028film"], "neither mark nor line end"


def test_lines_end_in_many_ways() -> None:
    assert list(_lines_of(BytesIO(b"one\r\ntw\xc3\xb6"))) == [["one"], ["twö"]]
    cut = _lines_of(Pieces(b"a\r", b"\nb\rc\r\r", b"\nd"))
    assert [line for window in cut for line in window] == list("abcd")
    try:
        next(_read_texts([], None))
        raise AssertionError("no input went unnoticed")
    except ValueError as error:
        assert "give the texts as arguments" in str(error)


def test_what_can_be_answered_is_answered_with_a_warning() -> None:
    tokenizer = load_run(small_run())[2]
    with redirect_stderr(StringIO()) as err:
        assert _check_text("text 7", "a film " * 20, tokenizer) == "a film " * 20
        _check_text("text 8", "ein schöner Film", tokenizer)
        _check_text("text 9", "a film", tokenizer)
    long, foreign, *rest = err.getvalue().splitlines()
    assert long == "warning: text 7 has 42 tokens, of which the first 24 are read"
    assert foreign.startswith("warning: text 8 is mostly unknown") and not rest
    for text, words in [
        (" \t", "text 1 is empty, and an empty text has no sentiment"),
        ("\u200b", "text 1 is empty"),
        ("a\0film", "holds a NUL, as UTF-16 does"),
        ("\ud83c", "it holds half of a character"),
    ]:
        try:
            _check_text("text 1", text, tokenizer)
            raise AssertionError(f"accepted: {text!r}")
        except ValueError as error:
            assert words in str(error)


# chapters/workshop_command_line.md · The words of a command
def said(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `minitransformer WORDS`."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_main_trains_evaluates_predicts_and_reports() -> None:
    config = small_run().parent / "small.yaml"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        changes = ("--seed", 5, "--training.epochs", 2)
        code, out, err = said("train", config, "--output", run, *changes)
        assert code == 0 and out.count("epoch ") == 2 and f"saved in {run}" in out, err
        assert read_settings(RunConfig, run / "config.yaml").seed == 5
        code, out, _ = said("evaluate", run)
        source, metrics = evaluate_split(run, "validation", record=False)
        assert code == 0 and out == f"{run} on {source}: {metrics}, reading 1\n"
        code, out, _ = said("predict", "a fine film", "a dull film", "--run", run)
        assert code == 0 and out.count("\n") == 2
        code, out, _ = said("report", run)
        assert code == 0 and out == f"written: {run / 'report.md'}\n"
        assert said("train", config, "--output", run, "--overwrite")[0] == 0


def test_main_answers_mistakes_with_one_sentence() -> None:
    config, run = small_run().parent / "small.yaml", small_run()
    with tempfile.TemporaryDirectory() as base:
        new = ("--output", Path(base, "new"))
        for words, mentioned in [
            (("train", config, "--output", run), "already holds a run"),
            (("train", config, *new, "--resume", "--overwrite"), "either resumed or overwritten"),
            (("train", config, *new, "--data.train_size", 10**6), "train_size"),
            (("train", config, *new, "--training.speed", 3), "--training.speed 3; allowed are name,"),
            (("train", config, *new, "--training.autocast", "half"), "training.autocast must be one of 'auto', 'fp32', 'bf16', 'fp16', got 'half'"),
            (("train", config, *new, "--training.micro_batches", 17), "training.micro_batches must be at most training.batch_size=16, got 17"),
            (("train", config, *new, "--training.device", "tpu"), "training.device must be auto, cpu"),
            (("train", "--seed", 3, config), "expected a .yaml file right after the command, got '3'"),
            (("train", Path(base, "none.yaml")), "none.yaml"),
            (("train", config, *new, "--over"), "--over"),
            (("pretrain", "toy"), "expected a .yaml file right after the command, got 'toy'"),
            (("evaluate", base), "is not the folder of a run"),
            (("evaluate", run, "--split", "train"), "validation"),
            (("evaluate", run, "--speed"), "unknown arguments --speed; see `minitransformer evaluate --help`"),
            (("predict", "a film", "--run", base), "is not the folder of a run"),
            (("predict", "a film", "--run", run, "--fast"), "--fast; see `minitransformer predict --help`; a text goes after --: predict -- '--fast'"),
            (("report", base), "run.json"),
            (("report", run, "--fast"), "report --help"),
            (("convert", "other", "there", "--vocab", 9), "--vocab 9"),
            (("search", run), ".yaml"),
            (("search", config, "--training.epochs", 3), "--training.epochs 3"),
            (("search", Path(base, "none.yaml")), "none.yaml"),
            (("fly",), "fly"),
            ((), "COMMAND"),
        ]:  # fmt: skip
            code, out, err = said(*words)
            assert code == 2 and mentioned in err, (words, code, err)
            assert err.count("\n") == 1 and not out and "Traceback" not in err, (words, err)
            assert not any(Path(base).iterdir()), "something was started"


def test_predict_keeps_its_promise_to_programs() -> None:
    texts = ["a fine film", "ein schöner Film", "x " * 30]
    code, out, err = said("predict", *texts, "--run", small_run(), "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [answer["text"] for answer in answers] == texts
    assert "schöner" in out and "text 2 is mostly unknown" in err
    assert "text 3 has 32 tokens" in err
    for answer in answers:
        assert list(answer) == ["text", "label", "probability"]
        assert answer["label"] in ("negative", "positive")
        assert 0.5 <= answer["probability"] <= 1
    given = TextIOWrapper(BytesIO(b"a fine film\n  \na dull film\n"))
    with patch.object(sys, "stdin", given):
        code, out, err = said("predict", "--run", small_run())
    assert code == 2 and out.count("\n") == 1, "answers before the empty line"
    assert "line 2 is empty" in err


def test_predict_takes_every_text() -> None:
    """With pieces of words instead of words: `test_the_shipped_model`'s model."""
    foreign = ["\N{PILE OF POO}\N{THUMBS UP SIGN}", "это хорошо", "好电影", "a\x01\x07film"]
    code, out, err = said("predict", "--", *foreign, "-boring", "good " * 10_000)
    assert code == 0 and out.count("\n") == 6, err
    assert all(line.startswith(("negative", "positive")) for line in out.splitlines())
    assert "text 6 has" in err and "tokens, of which the first" in err
    code, out, err = said("predict", " \t")
    assert (code, out) == (2, "") and "text 1 is empty" in err


def test_nobody_reads_to_the_end() -> None:
    words = ["predict", "a film", "--run", str(small_run())]
    with tempfile.TemporaryFile("w") as out, patch.object(sys, "stdout", out):
        with patch.object(out, "write", side_effect=BrokenPipeError):
            assert main(words) == 141


def test_main_resumes_after_an_interruption() -> None:
    clip, calls, config = (nn.utils.clip_grad_norm_, [], small_run().parent / "small.yaml")

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return clip(*arguments)

    with tempfile.TemporaryDirectory() as base:
        run = Path(base, "run")
        words = ("train", config, "--output", run, "--training.epochs", 2)
        with patch.object(nn.utils, "clip_grad_norm_", interrupted):
            code, _, err = said(*words)
        hint = "interrupted; --resume goes on from the last checkpoint"
        assert (code, err) == (130, f"minitransformer: {hint}\n")
        assert said(*words)[0] == 2, "without --resume the interrupted run is protected"
        code, out, err = said(*words, "--resume")
        assert code == 0 and "going on after step 2" in out and not err, (out, err)
        code, _, err = said(*words, "--resume", "--training.learning_rate", "7e-4")
        assert code == 2
        assert "training.learning_rate is 0.0005 there, 0.0007 here" in err, err


def test_an_interrupted_command_says_how_it_goes_on() -> None:
    def interrupted(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    names = ("load_search", "load_recipe", "load_run")
    with patch.dict(module_of(main), dict.fromkeys(names, interrupted)):
        for words, hint in [
            (("search", "a.yaml"), "; the same command goes on where it stopped"),
            (("reproduce", "a.yaml"), "; the same command goes on where it stopped"),
            (("predict", "a film"), ""),
        ]:
            assert said(*words) == (130, "", f"minitransformer: interrupted{hint}\n")


def test_search_from_the_command_line() -> None:
    base = small_run().parent / "small.yaml"
    with tempfile.TemporaryDirectory() as folder:
        file, runs = Path(folder, "plan.yaml"), Path(folder, "runs")
        variants = "{a: {}, b: {model.dropout: 0.5}}"
        file.write_text(f"name: s\nbase: {base}\nseeds: [0, 1]\nvariants: {variants}\n")
        code, out, err = said("search", file, "--output", runs, "--seeds", 1)
        found = sorted(path.name for path in runs.iterdir())
        assert code == 0 and found == ["a_seed1", "b_seed1"], err
        assert "| a | 1 |" in out and "| b | 1 |" in out
        code, out, _ = said("search", file, "--output", runs)
        assert code == 0 and out.count("is finished") == 2
        assert "| a | 2 |" in out and "±" in out


def test_pretrain_command() -> None:
    small = "--model.d_model 8 --model.d_ff 12 --model.num_layers 1 --model.max_length 24"
    small += " --model.num_heads 2 --model.vocab_size 200 --training.batch_size 64"
    text = "name: tiny\ncorpus: toy\nchunk_length: 16\nheld_out: 50\nmodel: {vocab_size: 500}\n"
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "reading.yaml"), str(Path(folder, "out"))
        path.write_text(text)
        command = ("pretrain", path, "--output", output, *small.split())
        code, out, err = said(*command)
        assert code == 0 and "held-out reviews: accuracy" in out, err
        assert f"saved in {output}" in out
        for options, reason in [
            ((), "already holds a run"),
            (("--mask_rate", 1.5), "mask_rate must be less than 1, got 1.5"),
            (("--mask_rate", 0), "mask_rate must be greater than 0, got 0"),
            (("--chunk_length", 99), "chunk_length must be at most 22"),
            (("--mask_share", 0.2), "--mask_share"),
            (("--held_out", 9999), "held_out must be below the 750 reviews there are"),
        ]:
            code, out, err = said(*command, *(options and ("--overwrite", *options)))
            assert code == 2 and reason in err and err.count("\n") == 1, err


def test_convert_from_the_command_line() -> None:
    with patch.dict(module_of(main), {"convert": lambda *values: values}):
        for words, size, length in ((("--vocab-size", 8000), 8000, 128), (("--max-length", 64), None, 64)):
            code, out, _ = said("convert", "some/bert", "there", *words)
            values = ("some/bert", "there", size, length)
            assert (code, out) == (0, f"saved in there: {values}\n")


def test_reproduce_from_the_command_line() -> None:
    asked: list[tuple[str | None, str]] = []

    def stand_in(plan: RecipeConfig, folder: str | Path) -> Path:
        asked.append((plan.convert, str(folder)))
        return summary

    def read(path: str, settings: list[str]) -> RecipeConfig:
        start = " ".join(settings) or "some/bert"
        return RecipeConfig("tiny", path, [0], convert=start)

    with tempfile.TemporaryDirectory() as name:
        summary = Path(name, "summary.md")
        summary.write_text("# tiny\n")
        with patch.dict(module_of(main), {"load_recipe": read, "reproduce": stand_in}):
            assert said("reproduce", "r.yaml") == (0, "# tiny\n\n", "")
            said("reproduce", "r.yaml", "--convert", "a/folder", "--output", "there")
    default = ("some/bert", str(Path("runs", "tiny")))
    assert asked == [default, ("--convert a/folder", "there")]


def test_the_help_of_a_command_names_its_settings() -> None:
    for command, key in (("train", "data.min_frequency"), ("pretrain", "mask_rate")):
        with redirect_stdout(StringIO()) as out:
            try:
                main([command, "--help"])
                raise AssertionError("help does not end the command")
            except SystemExit as end:
                assert end.code == 0
        assert key in out.getvalue() and "--resume" in out.getvalue()


def test_the_shipped_model() -> None:
    config, model, tokenizer = load_run(SHIPPED)
    size = model.config.vocab_size
    assert len(tokenizer.vocabulary) == config.model.vocab_size == size
    theirs = TransformerForSequenceClassification(model.config)
    load_torch_model(theirs, SHIPPED, strict=True)
    pairs = zip(model.named_parameters(), theirs.named_parameters(), strict=True)
    for (name, ours), (_, other) in pairs:
        assert torch.equal(ours, other) and torch.equal(ours, ours.half().float()), name
    code, out, _ = said("predict", "a triumph", "a waste of time", "--json")
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert code == 0 and labels == ["positive", "negative"]
