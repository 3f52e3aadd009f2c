"""Read chapters: MyST Markdown through jupytext, into chapters, sections and cells. Nothing else parses them."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from jupytext.myst import MystMetadataParsingError, myst_to_notebook

from book.press.floors import CHAPTERS, FLOORS, ROOT

HEADING = re.compile(r"^(#{1,6}) +(.+?) *$")
LABEL = re.compile(r"^\(([A-Za-z0-9_.-]+)\)= *$")
FENCE = re.compile(r"^ *(`{3,}|:{3,}|~{3,}|\$\$)")
KEYS = {"day", "before", "module", "about"}
PATTERNS = ("day*.md", "workshop_*.md")


class PressError(Exception):
    """Something that stops the press: one clear sentence, and nothing is written."""


@dataclass(frozen=True)
class Section:
    """A heading of a chapter. `part` is the `##` heading that it belongs to (its own title for a `##`)."""

    title: str
    level: int
    labels: tuple[str, ...]
    part: str
    line: int


@dataclass(frozen=True)
class Cell:
    """One cell: its source, the tags and options of its fence, and where it stands."""

    kind: str
    source: str
    metadata: dict = field(hash=False)
    line: int  # of the cell's first source line, counted from 1
    section: Section
    path: Path
    module: str | None  # the module that an exported or test cell belongs to

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(self.metadata.get("tags", ()))

    @property
    def place(self) -> str:
        """`chapters/day02_….md:120`, as editors and terminals link it."""
        return f"{relative(self.path)}:{self.line}"

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)


@dataclass(frozen=True)
class Chapter:
    path: Path
    text: str
    day: int  # of a workshop chapter: the day before which it stands
    workshop: bool
    title: str
    about: dict[str, str]
    cells: tuple[Cell, ...]
    sections: tuple[Section, ...]

    @property
    def code(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.kind == "code")

    @property
    def place(self) -> tuple[int, bool]:
        """Where the chapter stands in the book: workshop chapters right before their day."""
        return self.day, not self.workshop

    @property
    def name(self) -> str:
        """How pages call it: `Day 4`, or `Workshop: Files of sentences`."""
        title = self.title.removeprefix("Workshop: ")
        return f"Workshop: {title}" if self.workshop else f"Day {self.day}"


def relative(path: Path) -> str:
    """The path as the reader knows it: from the root of the project where it lies inside."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else f"chapters/{path.name}"


def chapter_paths(folder: Path = CHAPTERS) -> list[Path]:
    paths = sorted(path for pattern in PATTERNS for path in folder.glob(pattern))
    if not paths:
        raise PressError(f"no chapter ({', '.join(PATTERNS)}) in {folder}")
    return paths


def read_chapters(folder: Path = CHAPTERS, through: int | None = None) -> list[Chapter]:
    """All chapters of a folder in the order of their days, up to and including day `through`."""
    chapters = sorted(map(read_chapter, chapter_paths(folder)), key=lambda c: (*c.place, c.path.name))
    if through is None:
        return chapters
    days = sorted({chapter.day for chapter in chapters if not chapter.workshop})
    if through not in days:
        raise PressError(f"--through must be one of the days {', '.join(map(str, days))}, got {through}")
    return [chapter for chapter in chapters if chapter.day <= through]


def read_chapter(path: Path) -> Chapter:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PressError(f"{relative(path)} cannot be parsed: {' '.join(str(error).split())}") from None
    return parsed_chapter(path, text)


@cache  # the text is part of the key: a chapter that has changed is parsed anew
def parsed_chapter(path: Path, text: str) -> Chapter:
    try:
        notebook = myst_to_notebook(text, code_directive="{code-cell}", add_source_map=True)
    except (MystMetadataParsingError, yaml.YAMLError) as error:
        raise PressError(f"{relative(path)} cannot be parsed: {' '.join(str(error).split())}") from None
    day, workshop, module, about = front_matter(path, notebook.metadata)
    cells: list[Cell] = []
    sections: list[Section] = [Section("", 0, (), "", 1)]
    for raw, start in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
        if raw.cell_type == "markdown":
            sections += headings(raw.source, start + 1, sections[-1])
        line = first_line(text, start) if raw.cell_type == "code" else start + 1
        cell = Cell(raw.cell_type, raw.source, dict(raw.metadata), line, sections[-1], path, None)
        cells.append(housed(cell, module, cells))
    title = next((section.title for section in sections if section.level == 1), path.stem)
    return Chapter(path, text, day, workshop, title, about, tuple(cells), tuple(sections[1:]))


def front_matter(path: Path, metadata: dict) -> tuple[int, bool, str | None, dict[str, str]]:
    """The `minitransformer:` entry of a chapter's header: its day, or the day before which it stands as a workshop
    chapter, its usual module, and what its modules are about."""
    where = f"{relative(path)}: the front matter"
    entry = metadata.get("minitransformer")
    if not isinstance(entry, dict):
        raise PressError(f"{where} lacks the key 'minitransformer' (a mapping with 'day', 'module', 'about')")
    for key in entry.keys() - KEYS:
        raise PressError(f"{where} has the unknown key 'minitransformer: {key}'; allowed are {sorted(KEYS)}")
    workshop = path.name.startswith("workshop_")
    key, other = ("before", "day") if workshop else ("day", "before")
    if key not in entry:
        raise PressError(f"{where} lacks the key 'minitransformer: {key}' (a number from 1 to 12)")
    if other in entry:
        raise PressError(f"{where} has the key 'minitransformer: {other}'; this chapter has {key!r}")
    day, module, about = entry[key], entry.get("module"), entry.get("about") or {}
    if type(day) is not int or not 1 <= day <= 12:
        raise PressError(f"{where} has 'minitransformer: {key}' {day!r}; it must be a number from 1 to 12")
    if not isinstance(about, dict):
        raise PressError(
            f"{where} has 'minitransformer: about' {about!r}; it must map module names to sentences"
        )
    for name in [*about, *([module] if module is not None else [])]:
        known_module(name, where)
    return day, workshop, module, about


def known_module(name: str, where: str) -> str:
    if name not in FLOORS:
        raise PressError(f"{where} names the unknown module {name!r}; known are {', '.join(FLOORS)}")
    return name


def housed(cell: Cell, default: str | None, earlier: Iterable[Cell]) -> Cell:
    """Check a code cell's syntax and settle the module of exported cells and tests.

    An exported cell goes to its own `module:` or to the chapter's; a test goes where the export before it went.
    """
    if cell.kind != "code":
        return cell
    try:
        ast.parse(cell.source)
    except SyntaxError as error:
        line = cell.line + (error.lineno or 1) - 1
        raise PressError(f"{relative(cell.path)}:{line}: syntax error in a code cell: {error.msg}") from None
    module = cell.metadata.get("module")
    if "export" not in cell.tags and "test" not in cell.tags:
        if module is not None:
            raise PressError(
                f"{cell.place}: 'module: {module}' on a cell that is tagged neither export nor test"
            )
        return cell
    if module is None and "test" in cell.tags:
        module = next((c.module for c in reversed(list(earlier)) if "export" in c.tags), None)
    module = module or default
    if module is None:
        raise PressError(
            f"{cell.place}: no module for this cell; set 'module' in the front matter's 'minitransformer' or on the cell"
        )
    return Cell(**{**vars(cell), "module": known_module(module, cell.place)})


def fenced(markdown: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Every line of a Markdown text with its offset and the fences that it stands in, the outermost first.

    A fence is named by its info string: `{admonition} Plan for the day`, `python`, or nothing; `$$` is a fence too.
    The lines that open and close a fence belong to it.
    """
    stack: list[tuple[str, str]] = []
    for offset, line in enumerate(markdown.splitlines()):
        text = line.strip()
        mark = FENCE.match(line)
        if stack and closes(text, stack[-1][0]):
            yield offset, line, tuple(info for _, info in stack)
            stack.pop()
            continue
        if (
            mark
            and (not stack or stack[-1][1].startswith("{"))
            and not (mark[1] == "$$" and text.count("$$") > 1)
        ):
            stack.append((mark[1], text[len(mark[1]) :].strip()))
        yield offset, line, tuple(info for _, info in stack)


def closes(text: str, fence: str) -> bool:
    if fence == "$$":
        return text.startswith("$$")
    return text.startswith(fence) and not text.strip(fence[0])


def headings(markdown: str, start: int, last: Section) -> list[Section]:
    """The headings of a Markdown cell, with the labels that stand right before them; fenced blocks are skipped."""
    found: list[Section] = []
    labels: list[str] = []
    part = last.part
    for offset, line, fences in fenced(markdown):
        label, heading = LABEL.match(line), HEADING.match(line)
        if not fences and label:
            labels.append(label[1])
        elif not fences and heading:
            level, title = len(heading[1]), heading[2]
            part = title if level <= 2 else part
            found.append(Section(title, level, tuple(labels), part, start + offset))
            labels = []
        elif line.strip():
            labels = []
    return found


def first_line(text: str, start: int) -> int:
    """The line (from 1) of the first source line of the code cell whose fence stands on line `start`."""
    lines = text.splitlines()
    index = start
    if index < len(lines) and lines[index].startswith("---"):
        index = next((i + 1 for i in range(index + 1, len(lines)) if lines[i].startswith("---")), len(lines))
    else:
        while index < len(lines) and lines[index].lstrip().startswith(":"):
            index += 1
    if index < len(lines) and not lines[index].strip():
        index += 1
    return index + 1
