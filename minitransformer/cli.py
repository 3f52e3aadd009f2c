# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The command line, `minitransformer train` and `minitransformer evaluate`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from minitransformer.config import load_config
from minitransformer.data import load_examples, make_loader
from minitransformer.evaluate import Metrics, evaluate
from minitransformer.model import TransformerForSequenceClassification
from minitransformer.tokenizer import WordTokenizer
from minitransformer.train import fit

__all__ = ["Parser", "build_parser", "evaluate_run", "main", "run_command", "yaml_file"]


# chapters/day05_training.md · The command line
class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are exceptions of one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong, instead of printing the usage and leaving."""
        raise ValueError(f"{message}; see `{self.prog} --help`")


# chapters/day05_training.md · The command line
def yaml_file(value: str) -> str:
    """The name of a config file; anything else has slipped into its place."""
    if not value.endswith((".yaml", ".yml")):
        raise argparse.ArgumentTypeError(f"expected a .yaml file right after 'train', got {value!r}")
    return value


# chapters/day05_training.md · The command line
def build_parser() -> Parser:
    """The commands and their own options; a run's settings pass through to `load_config`."""
    parser = Parser(prog="minitransformer", description="Train and evaluate a small Transformer.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    hint = "Every setting of CONFIG can be given as well: --seed 1 --training.epochs 3"
    train = commands.add_parser("train", allow_abbrev=False, help="train a model", epilog=hint)
    train.add_argument(
        "config", type=yaml_file, metavar="CONFIG", help="a YAML file, such as configs/toy.yaml"
    )
    train.add_argument("--output", metavar="DIR", help="the run's folder (default: runs/NAME)")
    train.add_argument("--overwrite", action="store_true", help="replace an earlier run in that folder")
    score = commands.add_parser("evaluate", allow_abbrev=False, help="measure a trained model")
    score.add_argument("run", metavar="RUN", help="a run's folder")
    score.add_argument("--split", choices=("validation", "test"), default="validation")
    return parser


# chapters/day05_training.md · The command line
def evaluate_run(folder: str | Path, split: str) -> tuple[str, Metrics]:
    """Where the examples of a split come from, and how the model of a run folder does on them."""
    config = load_config(Path(folder, "config.yaml"))
    model = TransformerForSequenceClassification.from_pretrained(folder)
    tokenizer = WordTokenizer.load(Path(folder, "tokenizer.json"))
    examples = load_examples(config.data.name, split)
    return examples.source, evaluate(model, make_loader(examples, tokenizer, 256, shuffle=False, seed=0))


# chapters/day05_training.md · The command line
def run_command(arguments: argparse.Namespace, settings: list[str]) -> None:
    """Do what the command line asks for."""
    if arguments.command == "train":
        config = load_config(arguments.config, settings)
        folder = arguments.output or Path("runs", config.name)
        fit(config, folder, arguments.overwrite)
        print(f"saved in {folder}")
    elif settings:
        raise ValueError(f"unknown arguments {' '.join(settings)}; see `minitransformer evaluate --help`")
    else:
        source, metrics = evaluate_run(arguments.run, arguments.split)
        print(f"{arguments.run} on {source}: {metrics}")


# chapters/day05_training.md · The command line
def main(argv: Sequence[str] | None = None) -> int:
    """The command `minitransformer`: 0 if all went well; 2, and one sentence on standard error, if not."""
    try:
        run_command(*build_parser().parse_known_args(argv))
    except (ValueError, OSError, FloatingPointError) as error:
        print("minitransformer:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
