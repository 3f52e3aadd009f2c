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
from minitransformer.experiment.folder import load_run, record_evaluation
from minitransformer.experiment.recipe import convert, film_texts, load_recipe, reproduce
from minitransformer.experiment.report import measure_split, write_report
from minitransformer.experiment.search import load_search, markdown_table, search, summarize
from minitransformer.experiment.settings import PretrainConfig, RunConfig, read_settings
from minitransformer.tokenizer import WordTokenizer

__all__ = [
    "SHIPPED",
    "Parser",
    "add_train",
    "add_training",
    "build_parser",
    "check_text",
    "convert_bert",
    "main",
    "predict_texts",
    "read_lines",
    "read_texts",
    "report_evaluation",
    "reproduce_recipe",
    "run_command",
    "yaml_file",
]  # fmt: skip


# chapters/workshop_command_line.md · The command line.
class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are exceptions of one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong, instead of printing the usage and leaving."""
        raise ValueError(f"{message}; see `{self.prog} --help`")


def yaml_file(value: str) -> str:
    """The name of a config file; anything else has slipped into its place."""
    if not value.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f"expected a .yaml file right after the command, got {value!r}")
    return value


def build_parser() -> Parser:
    """The commands and their own options; a run's settings pass through to `load_config`."""
    parser = Parser(prog="minitransformer", description="Train and use a small Transformer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_train(commands)
    score = commands.add_parser("evaluate", allow_abbrev=False, help="measure a trained model")
    score.add_argument("run", metavar="RUN", nargs="?", default=SHIPPED, help="a run's folder")
    score.add_argument("--split", choices=("validation", "test"), default="validation")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    label = commands.add_parser("predict", allow_abbrev=False, help="label texts as negative or positive")
    label.epilog = "a text that begins with a dash goes after --: predict -- -boring"
    label.add_argument(
        "texts", metavar="TEXT", nargs="*", help="without any: one text a line on standard input"
    )
    label.add_argument(
        "--run", metavar="RUN", default=SHIPPED, help="a run's folder (default: the shipped model)"
    )
    label.add_argument("--json", action="store_true", help="print one JSON object a line")
    paper = commands.add_parser(
        "report", allow_abbrev=False, help="write the report of a run, with its curves"
    )
    paper.add_argument("run", metavar="RUN", help="a run's folder")
    grid = commands.add_parser(
        "search",
        allow_abbrev=False,
        help="train every variant with every seed; runs that are finished are kept",
    )
    grid.add_argument(
        "file", type=yaml_file, metavar="SEARCH", help="a YAML file, such as configs/search.yaml"
    )
    grid.add_argument("--output", metavar="DIR", help="the folder of the runs (default: runs/NAME)")
    grid.add_argument("--seeds", type=int, nargs="+", help="only these, to share the work between processes")
    return parser


def run_command(arguments: argparse.Namespace, settings: list[str]) -> None:
    """Do what the command line asks for."""
    if arguments.command == "train":
        config = read_settings(RunConfig, arguments.config, settings)
        folder = arguments.output or Path("runs", config.name)
        fit(config, folder, arguments.overwrite, arguments.resume)
        print(f"saved in {folder}")
    elif arguments.command == "pretrain":
        reading = read_settings(PretrainConfig, arguments.config, settings)
        folder = arguments.output or Path("runs", reading.name)
        print(f"held-out reviews: {fit(reading, folder, arguments.overwrite, arguments.resume)}")
        print(f"saved in {folder}")
    elif arguments.command == "reproduce":
        reproduce_recipe(arguments.recipe, arguments.output, settings)
    elif settings:
        raise ValueError(
            f"unknown arguments {' '.join(settings)}; see `minitransformer {arguments.command} --help`"
            + (f"; a text goes after --: predict -- {settings[0]!r}" if "texts" in arguments else "")
        )
    elif arguments.command == "convert":
        convert_bert(arguments)
    elif arguments.command == "evaluate":
        report_evaluation(arguments.run, arguments.split, arguments.json)
    elif arguments.command == "predict":
        predict_texts(arguments.run, read_texts(arguments.texts, sys.stdin), arguments.json)
    elif arguments.command == "report":
        print(f"written: {write_report(arguments.run)}")
    else:
        plan = load_search(arguments.file)
        folder = Path(arguments.output or Path("runs", plan.name))
        search(plan, folder, arguments.seeds)
        print(markdown_table(summarize(folder)))


def main(argv: Sequence[str] | None = None) -> int:
    """The command `minitransformer`.

    0 if all went well; 2, and one sentence on standard error, if not; 130 after an interruption; 141 if nobody
    reads the output to its end.
    """
    command = ""
    try:
        try:
            arguments, settings = build_parser().parse_known_args(argv)
            command = arguments.command
            run_command(arguments, settings)
        finally:
            sys.stdout.flush()  # here, where it is noticed that nobody reads on, as behind `| head -1`
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, FloatingPointError) as error:
        print("minitransformer:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"minitransformer: interrupted{_GOES_ON.get(command, '')}", file=sys.stderr)
        return 130
    return 0


SHIPPED = Path(minitransformer.__file__).parents[1] / "book" / "runs" / "shipped"


def add_train(commands: argparse._SubParsersAction) -> None:
    """`train`, `pretrain`, `convert`, `reproduce` and their options."""
    add_training(commands, "train", "train a model on labelled texts", "configs/toy.yaml")
    add_training(commands, "pretrain", "let an encoder read with hidden words", "configs/toy_reading.yaml")
    bert = commands.add_parser("convert", allow_abbrev=False, help="take over the encoder of a BERT")
    bert.add_argument("source", metavar="SOURCE", help="a folder, or a name on the Hugging Face hub")
    bert.add_argument(
        "folder", metavar="FOLDER", help="where to write it; then `initial` of a config may name it"
    )
    bert.add_argument(
        "--vocab-size", type=int, metavar="N", help="keep the N entries that film reviews use most"
    )
    bert.add_argument("--max-length", type=int, default=128, metavar="T", help="keep the first T positions")
    recipe = commands.add_parser(
        "reproduce",
        allow_abbrev=False,
        help="everything, from raw text to the report; goes on where it stopped",
    )
    recipe.add_argument("recipe", type=yaml_file, metavar="RECIPE", help="such as configs/reproduce_toy.yaml")
    recipe.add_argument("--output", metavar="DIR", help="the folder of the whole (default: runs/NAME)")


def report_evaluation(folder: str | Path, split: str, as_json: bool) -> None:
    """Print how the model of a run folder does on a split: a line for people, or one JSON object.

    The result is also kept in the folder, unless it is that of the shipped model, whose results are. If it cannot be
    kept, it is printed first, and then the error raised: a reading that is not counted is no success.
    """
    keep = Path(folder).resolve() != SHIPPED.resolve() and Path(folder, "run.json").is_file()
    source, metrics, answers = measure_split(folder, split, keep)
    readings, problem = "", None
    try:
        readings = f", reading {record_evaluation(folder, split, answers, metrics)}" if keep else ""
    except (OSError, ValueError) as error:
        problem = OSError(f"the figure could not be recorded: {error}")
    record = {
        "run": str(folder),
        "split": split,
        "n": metrics.n,
        "accuracy": metrics.accuracy,
        "interval95": list(metrics.interval95),
        "loss": metrics.loss,
    }
    print(json.dumps(record) if as_json else f"{folder} on {source}: {metrics}{readings}", flush=True)
    if problem is not None:
        raise problem


def read_lines(stream: BufferedIOBase) -> Iterator[list[str]]:
    """The lines of a stream without their ends, as many at once as have come; they end as in Unix, Windows or old Macs."""
    rest = b""
    while chunk := stream.read1(1 << 14):
        *lines, rest = re.split(rb"\r{0,2}\n|\r(?!\r?\Z)", rest + chunk)
        yield [line.decode(errors="surrogateescape") for line in lines]
    yield [rest.decode(errors="surrogateescape")]


def read_texts(arguments: Sequence[str], stdin: object) -> Iterator[list[tuple[str, str]]]:
    """Where each text stands, and the text: the arguments, or the lines of standard input if there are none.

    A byte-order mark and a line's end are no part of a text, blank lines at the end are no texts. The lists are
    windows: what has come. Raises ValueError if there is no standard input.
    """
    stream: Any = getattr(stdin, "buffer", None)
    if not arguments and stream is None:
        raise ValueError("there is no standard input: give the texts as arguments")
    word, windows = ("text", [arguments]) if arguments else ("line", read_lines(stream))
    places, waiting = itertools.count(1), []
    for window in windows:
        waiting += [(f"{word} {next(places)}", text.lstrip("\ufeff").rstrip("\r\n")) for text in window]
        filled = [i for i, (_, text) in enumerate(waiting, 1) if arguments or text.strip()]
        end = max(filled, default=0)
        ready, waiting = waiting[:end], waiting[end:]
        yield ready


def check_text(place: str, text: str, tokenizer: WordTokenizer) -> str:
    """The text, if a model can answer it; a warning is printed if it is cut, or mostly unknown.

    Raises:
        ValueError: if it is not UTF-8, or nothing in it can be read.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        what = f"the byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "half of a character"
        raise ValueError(f"{place} is not UTF-8, the encoding that is read: it holds {what}") from None
    if not any(letter.isprintable() and not letter.isspace() for letter in text):
        raise ValueError(f"{place} is empty, and an empty text has no sentiment")
    if "\0" in text:
        raise ValueError(f"{place} holds a NUL, as UTF-16 does: it must be UTF-8")
    tokens, limit = tokenizer.tokenize(text), tokenizer.max_length
    if not tokens:
        raise ValueError(f"{place} is empty for the tokenizer, and an empty text has no sentiment")
    if len(tokens) + 2 > limit:
        _warn(f"{place} has {len(tokens) + 2} tokens, of which the first {limit} are read")
    if 2 * (unknown := _unknown(tokens[: limit - 2], tokenizer)) > len(tokens[: limit - 2]):
        words = (word[:20] for word in text.split() if _unknown(tokenizer.tokenize(word), tokenizer))
        some = " ".join(itertools.islice(words, 5))
        _warn(f"{place} is mostly unknown to the model, {unknown} of its tokens, as in: {some}")
    return text


def _unknown(tokens: list[str], tokenizer: WordTokenizer) -> int:
    return sum(token == "[UNK]" or token not in tokenizer.vocabulary.ids for token in tokens)


def _warn(message: str) -> None:
    print("warning:", message, file=sys.stderr)


def predict_texts(folder: str | Path, texts: Iterable[list[tuple[str, str]]], as_json: bool) -> None:
    """Label the texts of each window, and print the answers in order.

    Raises:
        ValueError: at the first text that cannot be answered; what came before has been printed.
    """
    _, model, tokenizer = load_run(folder)
    for window in texts:
        ready, fault = [], None
        try:
            for place, text in window:
                ready.append(check_text(place, text, tokenizer))
        except ValueError as error:
            fault = error
        for answer in classify(model, tokenizer, ready) if ready else []:
            for_people = f"{answer.label}  {answer.probability:.2f}  {answer.text}"
            print(json.dumps(asdict(answer), ensure_ascii=False) if as_json else for_people)
        sys.stdout.flush()
        if fault:
            raise fault


_RESUME = "; --resume goes on from the last checkpoint"

_AGAIN = "; the same command goes on where it stopped"

_GOES_ON = {"train": _RESUME, "pretrain": _RESUME, "search": _AGAIN, "reproduce": _AGAIN}


def add_training(commands: argparse._SubParsersAction, command: str, title: str, example: str) -> None:
    """A command that trains from a config, and its options."""
    hint = "Every setting of CONFIG can be given as well: --seed 1 --training.epochs 3"
    train = commands.add_parser(command, allow_abbrev=False, help=title, epilog=hint)
    train.add_argument("config", type=yaml_file, metavar="CONFIG", help=f"a YAML file, such as {example}")
    train.add_argument("--output", metavar="DIR", help="the run's folder (default: runs/NAME)")
    train.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run in that folder")


def convert_bert(arguments: argparse.Namespace) -> None:
    """Do `convert`."""
    texts = film_texts() if arguments.vocab_size is not None else []
    config = convert(arguments.source, arguments.folder, arguments.vocab_size, arguments.max_length, texts)
    print(f"saved in {arguments.folder}: {config}")


def reproduce_recipe(path: str, output: str | None, settings: list[str]) -> None:
    """Do `reproduce`, and print its summary."""
    plan = load_recipe(path, settings)
    print(reproduce(plan, output or Path("runs", plan.name)).read_text(encoding="utf-8"))
