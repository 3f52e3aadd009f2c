"""What README, CONTRIBUTING and the workflows say can be run and reached: their commands, and links to files."""

import importlib.util
import re
import shlex
import tomllib
from itertools import dropwhile
from pathlib import Path

import pytest
import yaml

from book.make import TARGETS
from minitransformer.cli import _command_parser

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in (ROOT / ".github/workflows").glob("*.yml")
}


def commands(text: str) -> list[list[str]]:
    """The words of every line in a text's console blocks, without comments and VARIABLE=value."""
    lines = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    split = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    kept = [list(dropwhile(lambda word: re.match(r"\w+=", word), words)) for words in split]
    return [words for words in kept if words]


def judge(words: list[str]) -> None:
    """Let those responsible judge a command: the Makefile, the parser, Python."""
    program = Path(words[0]).name
    if program == "make":
        assert set(words[1:]) <= TARGETS.keys() | {"help"}, f"make does not know {words[1:]}"
    elif program == "minitransformer":
        _command_parser().parse_known_args(words[1:])
        for word in words:
            assert not word.endswith(".yaml") or (ROOT / word).is_file(), f"{word} does not exist"
    elif "-m" in words[:2]:
        assert importlib.util.find_spec(words[2]), f"Python has no module {words[2]!r}"
        assert words[2] != "book.make" or set(words[3:]) <= TARGETS.keys()
    else:
        assert program in ("pytest", "pip"), f"who judges {program!r}?"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_command_of_the_texts_exists(name):
    assert any(words[0] == "make" for words in commands(TEXTS[name])), "no command to start with"
    for words in commands(TEXTS[name]):
        judge(words)


def test_make_and_its_twin_know_the_same_targets():
    assert re.search(r"^TARGETS := (.*)$", MAKEFILE, re.MULTILINE)[1].split() == list(TARGETS)


def test_the_workflows_say_nothing_that_make_does_not():
    steps = [s for w in WORKFLOWS.values() for job in w["jobs"].values() for s in job["steps"]]
    for words in (shlex.split(step["run"]) for step in steps if "run" in step):
        if words[0] != "gh":  # which needs a token of GitHub's
            assert words[0] == "make" or words[:3] == ["python", "-m", "book.make"], words
            judge(words)


def test_the_workflows_have_no_rights_and_no_moving_actions():
    assert set(WORKFLOWS) == {"tests.yml", "book.yml", "release.yml"}
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {}, f"{name}: permissions are given by job"
        for job in workflow["jobs"].values():
            assert job["permissions"] and job["timeout-minutes"]
            for action in (step["uses"] for step in job["steps"] if "uses" in step):
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), f"{name}: {action}"


def test_the_citation_names_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert TEXTS["README.md"].startswith(f"# {citation['title']}\n")


@pytest.mark.parametrize(
    "stale",
    [
        "make documentation",
        "minitransformer fit configs/toy.yaml",
        "python -m book.printer",
        "python -m book.make tests",
        "tox -e py311",
    ],
)
def test_a_stale_command_is_found(stale):
    with pytest.raises((AssertionError, ValueError, SystemExit, ModuleNotFoundError)):
        judge(shlex.split(stale))


def test_every_link_of_the_texts_leads_to_a_file():
    links = [link for text in TEXTS.values() for link in re.findall(r"\]\(([^)\s#]+)", text)]
    links = [link for link in links if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
