"""The command line of the press: `python -m book.press export | check | format`."""

import argparse
import sys
from pathlib import Path

from book.press.check import check
from book.press.floors import CHAPTERS, ROOT
from book.press.read import PressError, chapter_paths, read_chapters
from book.press.tangle import read_book, tangle
from book.press.tidy import tidy
from book.press.write import write


def export(arguments: argparse.Namespace) -> int:
    if arguments.through is not None and arguments.into is None:
        raise PressError("--through needs --into DIR: the project's own package always holds every day")
    root = arguments.into or ROOT
    files = tangle(read_book(read_chapters(arguments.chapters, arguments.through)))
    for path, how in (changes := write(files, root)).items():
        print(f"{how:8} {path}")
    print(f"{len(files)} files from {arguments.chapters.name}/, {len(changes)} moved, in {root}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    findings = check(
        arguments.chapters, ROOT if arguments.chapters == CHAPTERS else arguments.chapters.parent
    )
    for finding in findings:
        print(finding)
    print(f"press check: {len(findings)} findings" if findings else "press check: green")
    return 1 if findings else 0


def run_format(arguments: argparse.Namespace) -> int:
    for name in tidy(arguments.paths or chapter_paths()):
        print(f"formatted {name}")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m book.press",
        description="Turn the chapters into the package, its tests and the pages.",
    )
    commands = top.add_subparsers(required=True)
    one = commands.add_parser("export", help="write minitransformer/ and tests/ from the chapters")
    one.add_argument("--into", type=Path, metavar="DIR", help="write below DIR instead of the project")
    one.add_argument("--through", type=int, metavar="N", help="the package as of day N (needs --into)")
    one.set_defaults(run=export)
    two = commands.add_parser(
        "check", help="compare package and chapters both ways, and apply the rules of the book"
    )
    two.set_defaults(run=run_check)
    for command in (one, two):
        command.add_argument(
            "--chapters", type=Path, default=CHAPTERS, metavar="DIR", help="the folder of chapters"
        )
    three = commands.add_parser(
        "format", help="bring chapters into canonical form, their cells formatted by ruff"
    )
    three.add_argument("paths", nargs="*", type=Path, help="chapters (default: all)")
    three.set_defaults(run=run_format)
    return top


def main() -> int:
    arguments = parser().parse_args()
    try:
        return arguments.run(arguments)
    except PressError as error:
        print(f"press: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
