"""What the README says can be run and reached: its commands, and its links to files."""

import importlib.util
import re
import shlex
from itertools import dropwhile
from pathlib import Path

import pytest

from minitransformer.cli import _command_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """The words of every line in a README's console blocks, without comments and VARIABLE=value."""
    lines = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    split = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    kept = [list(dropwhile(lambda word: re.match(r"\w+=", word), words)) for words in split]
    return [words for words in kept if words]


def judge(words: list[str]) -> None:
    """Let those responsible judge a command: the Makefile, the parser, Python."""
    program = Path(words[0]).name
    if program == "make":
        for target in words[1:]:
            assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), f"make has no {target!r}"
    elif program == "minitransformer":
        _command_parser().parse_known_args(words[1:])
        for word in words:
            assert not word.endswith(".yaml") or (ROOT / word).is_file(), f"{word} does not exist"
    elif "-m" in words[:2]:
        assert importlib.util.find_spec(words[2]), f"Python has no module {words[2]!r}"


def test_every_command_of_the_readme_exists():
    assert any(words[0] == "make" for words in commands(README)), "no command to start with"
    for words in commands(README):
        judge(words)


@pytest.mark.parametrize(
    "stale", ["make documentation", "minitransformer fit configs/toy.yaml", "python -m book.printer"]
)
def test_a_stale_command_is_found(stale):
    with pytest.raises((AssertionError, ValueError, SystemExit, ModuleNotFoundError)):
        judge(shlex.split(stale))


def test_every_link_of_the_readme_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)\s#]+)", README) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
