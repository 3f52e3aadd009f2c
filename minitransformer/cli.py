# Generated from chapters/workshop_command_line.md; edit the chapter, not this file.
"""The command line."""

import argparse
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NoReturn

import minitransformer
from minitransformer.evaluate import classify
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import _record_evaluation, load_run
from minitransformer.experiment.recipe import convert, load_recipe, reproduce
from minitransformer.experiment.report import _measure_split, write_report
from minitransformer.experiment.search import load_search, markdown_table, search, summarize
from minitransformer.experiment.settings import PretrainConfig, RunConfig, _keys, read_settings
from minitransformer.tokenizer import WordTokenizer

__all__ = ["SHIPPED", "main"]

# chapters/workshop_command_line.md · Measured, and counted
SHIPPED = Path(minitransformer.__file__).parents[1] / "book" / "runs" / "shipped"


def _report_evaluation(folder: str | Path, split: str, as_json: bool) -> None:
    """Print how the model of a run folder does on a split; count the reading, unless it is the shipped one or has no record."""
    foreign = Path(folder).resolve() != SHIPPED.resolve()
    keep = foreign and Path(folder, "run.json").is_file()
    source, metrics, answers = _measure_split(folder, split, keep)
    keys = ("n", "accuracy", "interval95", "loss")
    record = {"run": str(folder), "split": split}
    record |= {key: getattr(metrics, key) for key in keys}
    line = f"{folder} on {source}: {metrics}"
    try:
        if keep:
            line += f", reading {_record_evaluation(folder, split, answers, metrics)}"
    except (OSError, ValueError) as error:
        raise OSError(f"the figure could not be recorded: {error}") from None
    finally:  # it is printed in any case
        print(json.dumps(record) if as_json else line, flush=True)


# chapters/workshop_command_line.md · Texts that others send
def _lines_of(stream: BufferedIOBase) -> Iterator[list[str]]:
    """The lines of a stream without their ends (the last may keep its own), as many at once as have come."""
    rest = [b""]  # of a line, in the pieces that came
    while chunk := stream.read1(1 << 14):
        rest.append(chunk)
        if not re.search(rb"[\r\n]", rest[-2][-2:] + chunk):
            yield []
            continue
        *lines, last = re.split(rb"\r{0,2}\n|\r(?!\r?\Z)", b"".join(rest))
        rest = [last]
        yield [line.decode(errors="surrogateescape") for line in lines]
    yield [b"".join(rest).decode(errors="surrogateescape")]


def _read_texts(arguments: Sequence[str], stdin: object) -> Iterator[list[tuple[str, str]]]:
    """Where each text stands, and the text, window by window: the arguments or, without any, the input's lines."""
    stream: Any = getattr(stdin, "buffer", None)
    if not arguments and stream is None:
        raise ValueError("there is no standard input: give the texts as arguments")
    word, windows = ("text", [arguments]) if arguments else ("line", _lines_of(stream))
    waiting: list[tuple[str, str]] = []
    places = (f"{word} {number}" for number in itertools.count(1))
    for window in windows:
        texts = [text.lstrip("\ufeff").rstrip("\r\n") for text in window]
        waiting += [(next(places), text) for text in texts]
        filled = [bool(arguments or text.strip()) for _, text in waiting]
        end = max((i for i, full in enumerate(filled, 1) if full), default=0)
        ready, waiting = waiting[:end], waiting[end:]
        yield ready


def _check_text(place: str, text: str, tokenizer: WordTokenizer) -> str:
    """The text, if a model can answer it; a warning is printed if it is cut, or mostly unknown."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code, what = ord(text[error.start]), "half of a character"
        if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
            what = f"the byte 0x{code - 0xDC00:02x}"
        reason = f"is not UTF-8, the encoding that is read: it holds {what}"
        raise ValueError(f"{place} {reason}") from None
    tokens, limit = tokenizer.tokenize(text), tokenizer.max_length
    seen = any(letter.isprintable() and not letter.isspace() for letter in text)
    if not seen or not tokens:
        raise ValueError(f"{place} is empty, and an empty text has no sentiment")
    if "\0" in text:
        raise ValueError(f"{place} holds a NUL, as UTF-16 does: it must be UTF-8")
    if (size := len(tokens) + 2) > limit:
        most = f"of which the first {limit} are read"
        print(f"warning: {place} has {size} tokens, {most}", file=sys.stderr)
    tokens = tokens[: limit - 2]
    if 2 * (unknown := _unknown(tokens, tokenizer)) > len(tokens):
        words = (w for w in text.split() if _unknown(tokenizer.tokenize(w), tokenizer))
        some = " ".join(word[:20] for word in itertools.islice(words, 5))
        which = f"unknown to the model, {unknown} of its tokens, as in: {some}"
        print(f"warning: {place} is mostly {which}", file=sys.stderr)
    return text


def _unknown(tokens: list[str], tokenizer: WordTokenizer) -> int:
    known = tokenizer.vocabulary.ids
    return sum(token == "[UNK]" or token not in known for token in tokens)


def _predict_texts(folder: str | Path, texts: Iterable[list[tuple[str, str]]], as_json: bool) -> None:
    """Label the texts of each window, and print the answers in order, up to the first text that has none."""
    _, model, tokenizer = load_run(folder)
    for window in texts:
        ready: list[str] = []
        try:
            for place, text in window:
                ready.append(_check_text(place, text, tokenizer))
        finally:  # what came before a text that is refused
            for answer in classify(model, tokenizer, ready) if ready else []:
                line = f"{answer.label}  {answer.probability:.2f}  {answer.text}"
                record = json.dumps(asdict(answer), ensure_ascii=False)
                print(record if as_json else line)
            sys.stdout.flush()


# chapters/workshop_command_line.md · The words of a command
class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are exceptions of one sentence; it takes no abbreviations."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, instead of printing the usage and leaving."""
        raise ValueError(f"{message}; see `{self.prog} --help`")


def _yaml_file(value: str) -> str:
    """The name of a file of settings; anything else has slipped into its place."""
    if not value.endswith((".yaml", ".yml")):
        wanted = "expected a .yaml file right after the command"
        raise argparse.ArgumentTypeError(f"{wanted}, got {value!r}")
    return value


_FLAG = {"action": "store_true"}

_SOME_RUN = {"default": SHIPPED, "help": "a run's folder (default: the shipped model)"}

_OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"type": _yaml_file, "help": "settings in YAML, as in configs/"},
    "--output": {"help": "the folder to work in (default: runs/NAME)"},
    "--overwrite": {**_FLAG, "help": "replace an earlier run in that folder"},
    "--resume": {**_FLAG, "help": "go on with an interrupted run in that folder"},
    "--seeds": {"type": int, "nargs": "+", "help": "only these, to share the work"},
    "source": {"help": "a folder, or a name on the Hugging Face hub"},
    "folder": {"help": "where to write; then `initial` of a config may name it"},
    "--vocab-size": {"type": int, "help": "keep the entries that film reviews use most"},
    "--max-length": {"type": int, "default": 128, "help": "keep the first positions"},
    "run": {"help": "a run's folder"},
    "[run]": {"nargs": "?", **_SOME_RUN},
    "--run": _SOME_RUN,
    "--split": {"choices": ("validation", "test"), "default": "validation"},
    "--json": {**_FLAG, "help": "print one JSON object a line"},
    "texts": {"nargs": "*", "help": "without any: one text a line on standard input"},
}

_COMMANDS = {
    "train": ("train a model on labelled texts", "file --output --overwrite --resume"),
    "pretrain": ("read with hidden words", "file --output --overwrite --resume"),
    "convert": ("take over a BERT", "source folder --vocab-size --max-length"),
    "search": ("train every variant with every seed", "file --output --seeds"),
    "reproduce": ("go from raw text to the report", "file --output"),
    "evaluate": ("measure a trained model", "[run] --split --json"),
    "predict": ("label texts as negative or positive", "texts --run --json"),
    "report": ("write the report of a run, with its curves", "run"),
}


def _command_parser() -> _Parser:
    parser = _Parser(prog="minitransformer", description="Train and use a Transformer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    hints = {"predict": "a text that begins with a dash goes after --, as in -- -boring"}
    for name, kind in {"train": RunConfig, "pretrain": PretrainConfig}.items():
        hints[name] = f"Settings, as in --seed 1: {', '.join(_keys(kind))}"
    for name, (title, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=title, epilog=hints.get(name))
        for option in options.split():
            command.add_argument(option.strip("[]"), **_OPTIONS[option])
    return parser


def _run_command(asked: argparse.Namespace, settings: list[str]) -> None:
    """Do what the command line asks for."""
    if settings and asked.command not in ("train", "pretrain", "reproduce"):
        hint = f"see `minitransformer {asked.command} --help`"
        if asked.command == "predict":
            hint += f"; a text goes after --: predict -- {settings[0]!r}"
        raise ValueError(f"unknown arguments {' '.join(settings)}; {hint}")
    match asked.command:
        case "train" | "pretrain":
            kind: Any = RunConfig if asked.command == "train" else PretrainConfig
            config = read_settings(kind, asked.file, settings)
            folder = asked.output or Path("runs", config.name)
            found = fit(config, folder, asked.overwrite, asked.resume)
            if asked.command == "pretrain":
                print(f"held-out reviews: {found}")
            print(f"saved in {folder}")
        case "search":
            plan = load_search(asked.file)
            folder = asked.output or Path("runs", plan.name)
            diverged = search(plan, folder, asked.seeds)
            print(markdown_table(summarize(folder)))
            if diverged:
                raise FloatingPointError(f"not in the table: {', '.join(diverged)}")
        case "reproduce":
            recipe = load_recipe(asked.file, settings)
            summary = reproduce(recipe, asked.output or Path("runs", recipe.name))
            print(summary.read_text(encoding="utf-8"))
        case "convert":
            size, length = asked.vocab_size, asked.max_length
            model = convert(asked.source, asked.folder, size, length)
            print(f"saved in {asked.folder}: {model}")
        case "evaluate":
            _report_evaluation(asked.run, asked.split, asked.json)
        case "predict":
            _predict_texts(asked.run, _read_texts(asked.texts, sys.stdin), asked.json)
        case "report":
            print(f"written: {write_report(asked.run)}")


_RESUMES = "; --resume goes on from the last checkpoint"

_GOES_ON = "; the same command goes on where it stopped"

_HINTS = dict(train=_RESUMES, pretrain=_RESUMES, search=_GOES_ON, reproduce=_GOES_ON)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `minitransformer`.

    0 if all went well; 2, and one sentence on standard error, if not; 130 after an
    interruption; 141 if nobody reads the output to its end.
    """
    command = ""
    try:
        try:
            asked, settings = _command_parser().parse_known_args(argv)
            command = asked.command
            _run_command(asked, settings)
        finally:
            sys.stdout.flush()  # here it is noticed that nobody reads on, as behind `| head`
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        reason = "the memory is not enough; try a smaller batch, or a smaller model"
        print(f"minitransformer: {reason}", file=sys.stderr)
        return 2
    except (ValueError, OSError, FloatingPointError) as error:
        print("minitransformer:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = _HINTS.get(command, "")
        print(f"minitransformer: interrupted{hint}", file=sys.stderr)
        return 130
    return 0
