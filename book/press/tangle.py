"""Tangle: the cells of all chapters become the modules of the package and the test files.

The last definition of a name wins, at the place of the first. Output is a pure function of the chapters.
"""

import ast
import builtins
import subprocess
import symtable
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

from book.press.floors import FLOORS, PACKAGE, ROOT, SUBPACKAGES, module_path, tests_path
from book.press.read import Cell, Chapter, PressError, relative

BUILTINS = frozenset(dir(builtins)) | {"__file__", "__name__"}
GENERATED = "# Generated from chapters/; edit the chapters, not this file.\n"
EAGER = {"listcomp", "setcomp", "dictcomp", "genexpr"}  # scopes that run where they stand


@dataclass(frozen=True)
class Import:
    """One imported name: `from module import name as alias`, or `import module as alias` where `name` is None."""

    module: str
    name: str | None
    alias: str

    @property
    def statement(self) -> str:
        if self.name is None:
            plain = (
                self.module if self.module.split(".")[0] == self.alias else f"{self.module} as {self.alias}"
            )
            return f"import {plain}"
        return f"from {self.module} import {self.name}" + (
            f" as {self.alias}" if self.alias != self.name else ""
        )


@dataclass(frozen=True)
class Definition:
    """A function, class or constant as one chapter writes it."""

    name: str
    source: str
    free: frozenset[str]  # every global name that it uses, builtins left out
    eager: frozenset[
        str
    ]  # those it needs while it is being defined: decorators, defaults, bases, annotations
    kind: str  # "function", "class", "constant"
    cell: Cell
    chapter: Chapter

    @property
    def public(self) -> bool:
        return not self.name.startswith("_")

    @property
    def origin(self) -> str:
        return f"{relative(self.chapter.path)} · {self.cell.section.title}"


@dataclass
class Unit:
    """What goes into one file: definitions in order, each with the versions that it supersedes."""

    definitions: dict[str, Definition]
    versions: dict[str, list[Definition]]

    def add(self, definition: Definition) -> None:
        self.definitions[definition.name] = definition  # a dict keeps the place of the first
        self.versions.setdefault(definition.name, []).append(definition)


@dataclass(frozen=True)
class Book:
    """All that the chapters define, before it becomes files."""

    chapters: tuple[Chapter, ...]
    modules: dict[str, Unit]
    tests: dict[str, Unit]
    imports: dict[Path, dict[str, Import]]

    @property
    def homes(self) -> dict[str, str]:
        """Every exported name and the module that holds it."""
        return {name: module for module, unit in self.modules.items() for name in unit.definitions}


def read_book(chapters: Iterable[Chapter]) -> Book:
    """Collect the definitions of all chapters: what each module and each test file holds."""
    book = Book(tuple(chapters), {}, {}, {})
    for chapter in book.chapters:
        book.imports[chapter.path] = chapter_imports(chapter)
        for cell in chapter.code:
            for tag, units in (("export", book.modules), ("test", book.tests)):
                if tag in cell.tags:
                    unit = units.setdefault(str(cell.module), Unit({}, {}))
                    for definition in definitions(cell, chapter):
                        one_order(definition, unit, book, tag)
                        unit.add(definition)
    return book


def one_order(new: Definition, unit: Unit, book: Book, tag: str) -> None:
    """Refuse a name that two places claim and no order decides between."""
    if tag == "export" and book.homes.get(new.name, new.cell.module) != new.cell.module:
        raise PressError(
            f"{new.cell.place}: {new.name!r} is exported to two modules, {book.homes[new.name]} and {new.cell.module}"
        )
    old = unit.definitions.get(new.name)
    if old is None:
        return
    if old.chapter.path != new.chapter.path and old.chapter.place == new.chapter.place:
        places = f"{relative(old.chapter.path)} and {relative(new.chapter.path)}"
        when = f"{'before' if new.chapter.workshop else 'on'} day {new.chapter.day}"
        raise PressError(
            f"{places} both define {new.name!r} {when}: give them different days, so that one supersedes the other"
        )
    if (
        tag == "test"
        and (old.chapter.path == new.chapter.path or not new.name.startswith("test_"))
        and old.source != new.source
    ):
        raise PressError(
            f"{new.cell.place}: {new.name!r} is defined differently at {old.cell.place}: rename one of them"
        )


def chapter_imports(chapter: Chapter) -> dict[str, Import]:
    """The names that a chapter imports at the top level of any of its cells."""
    found: dict[str, Import] = {}
    for cell in chapter.code:
        for node in cell.tree.body:
            for item in import_names(node, cell):
                if found.setdefault(item.alias, item) != item and "solution" not in cell.tags:
                    raise PressError(
                        f"{cell.place}: {item.alias!r} is imported twice, from {found[item.alias].module} and {item.module}"
                    )
    return found


def import_names(node: ast.stmt, cell: Cell) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for item in node.names:
            yield Import(item.name, None, item.asname or item.name.split(".")[0])
    elif isinstance(node, ast.ImportFrom):
        if node.level or node.module == "__future__" or any(item.name == "*" for item in node.names):
            raise PressError(
                f"{cell.place}: star, relative and __future__ imports cannot be exported; name what you import"
            )
        for item in node.names:
            yield Import(str(node.module), item.name, item.asname or item.name)


def definitions(cell: Cell, chapter: Chapter) -> Iterator[Definition]:
    """The definitions of an exported or test cell, each with the comments that stand above it."""
    lines = cell.source.splitlines()
    start = 0
    for node in cell.tree.body:
        name, kind = defined_name(node)
        if name:
            source = "\n".join(lines[start : node.end_lineno]).strip("\n")
            free, eager = free_names(source, cell)
            yield Definition(name, source, free - {name}, eager - {name}, kind, cell, chapter)
        elif not isinstance(node, ast.Import | ast.ImportFrom) and not (
            "test" in cell.tags and is_test_call(node)
        ):
            what = (
                "test_* functions followed by their calls"
                if "test" in cell.tags
                else "imports, functions, classes and constants"
            )
            raise PressError(
                f"{relative(cell.path)}:{cell.line + node.lineno - 1}: this cell is tagged {cell.tags[0]}; it may hold only {what}"
            )
        start = node.end_lineno or 0


def defined_name(node: ast.stmt) -> tuple[str, str]:
    match node:
        case ast.FunctionDef():
            return node.name, "function"
        case ast.ClassDef():
            return node.name, "class"
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name, "constant"
    return "", ""


def is_test_call(node: ast.stmt) -> bool:
    """Whether a statement of a test cell only runs tests: a call of one, or a loop over such calls."""
    if isinstance(node, ast.For):
        return all(is_test_call(inner) for inner in node.body)
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id.startswith("test_")
    )


def free_names(source: str, cell: Cell) -> tuple[frozenset[str], frozenset[str]]:
    """The global names that a piece of code uses at all, and those that it uses as soon as it is defined."""
    every: set[str] = set()
    eager: set[str] = set()

    def visit(table: symtable.SymbolTable, runs_now: bool) -> None:
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                every.add(symbol.get_name())
                if runs_now:
                    eager.add(symbol.get_name())
        for child in table.get_children():
            visit(child, runs_now and (child.get_type() == "class" or child.get_name() in EAGER))

    visit(symtable.symtable(source, cell.place, "exec"), True)
    return frozenset(every - BUILTINS), frozenset(eager - BUILTINS)


def ordered(unit: Unit) -> list[Definition]:
    """In order of first appearance, but what a definition needs at once comes before it."""
    done: dict[str, Definition] = {}

    def place(definition: Definition, above: frozenset[str] = frozenset()) -> None:
        for name in unit.definitions:
            if name in definition.eager - done.keys() - above:
                place(unit.definitions[name], above | {definition.name})
        done.setdefault(definition.name, definition)

    for definition in unit.definitions.values():
        place(definition)
    return list(done.values())


def resolve(definition: Definition, unit: Unit, book: Book) -> list[Import]:
    """The imports that a definition needs in its file."""
    chapter = book.imports[definition.chapter.path]
    here = definition.cell.module if "export" in definition.cell.tags else None
    found = []
    for name in sorted(definition.free - unit.definitions.keys()):
        if name in chapter and chapter[name].module != f"{PACKAGE}.{here}":
            found.append(chapter[name])
        elif name in book.homes:
            found.append(Import(f"{PACKAGE}.{book.homes[name]}", name, name))
        else:
            raise PressError(
                f"{definition.cell.place}: {definition.name!r} uses {name!r}, which no chapter exports and this chapter does not "
                f"import at the top of a cell: tag its cell 'export', import it, or define it inside"
            )
    return found


def file_imports(unit: Unit, book: Book, name: str) -> list[str]:
    chosen: dict[str, Import] = {}
    for definition in unit.definitions.values():
        for item in resolve(definition, unit, book):
            if chosen.setdefault(item.alias, item) != item:
                raise PressError(
                    f"{name}: two chapters import {item.alias!r} from different places, {chosen[item.alias].module} and {item.module}"
                )
    return [item.statement for item in chosen.values()]


def tangle(book: Book) -> dict[str, str]:
    """Every file that the chapters make, by its path under the root of the project; formatted."""
    files = {module_path(module): module_text(module, unit, book) for module, unit in book.modules.items()}
    files |= {tests_path(module): tests_text(module, unit, book) for module, unit in book.tests.items()}
    files[f"{PACKAGE}/__init__.py"] = package_text(book)
    files[f"{PACKAGE}/py.typed"] = ""
    for folder in {module.split(".")[0] for module in book.modules if "." in module}:
        files[f"{PACKAGE}/{folder}/__init__.py"] = f'{GENERATED}"""{SUBPACKAGES[folder]}"""\n'
    if "cli" in book.modules:
        files[f"{PACKAGE}/__main__.py"] = main_text()
    return dict(sorted(formatted(files).items()))


def header(unit: Unit) -> str:
    origins = sorted({relative(d.chapter.path) for d in unit.definitions.values()})
    which = "the chapter" if len(origins) == 1 else "the chapters"
    return f"# Generated from {', '.join(origins)}; edit {which}, not this file.\n"


def module_text(module: str, unit: Unit, book: Book) -> str:
    about = [chapter.about[module] for chapter in book.chapters if module in chapter.about]
    if not about:
        first = next(iter(unit.definitions.values())).chapter
        raise PressError(
            f"{relative(first.path)}: the front matter lacks the key 'minitransformer: about: {module}' (one sentence)"
        )
    names = sorted(d.name for d in unit.definitions.values() if d.public)
    parts = [header(unit) + f'"""{about[-1]}"""', "\n".join(file_imports(unit, book, module_path(module)))]
    parts += [exported(names), *with_origins(unit)]
    return "\n\n".join(part for part in parts if part) + "\n"


def exported(names: list[str]) -> str:
    """`__all__`, several names a line: ruff would give each a line of its own."""
    lines = wrap(" ".join(f'"{name}",' for name in names), 100)
    if len(lines) < 2:
        return f"__all__ = {names!r}"
    return "\n".join(["__all__ = [", *(f"    {line}" for line in lines), "]  # fmt: skip"])


def with_origins(unit: Unit) -> Iterator[str]:
    """The definitions of a file in order; where another section of a chapter begins, a comment names it."""
    last = ""
    for definition in ordered(unit):
        origin = f"# {definition.origin}\n" if definition.origin != last else ""
        last = definition.origin
        yield origin + definition.source


def tests_text(module: str, unit: Unit, book: Book) -> str:
    parts = [header(unit) + f'"""The tests that the chapters run in their text, for `{PACKAGE}.{module}`."""']
    parts += ["\n".join(file_imports(unit, book, tests_path(module)))]
    parts += with_origins(unit)
    return "\n\n".join(part for part in parts if part) + "\n"


def package_text(book: Book) -> str:
    """The package's front door: every public name, imported only when it is asked for."""
    modules = [module for module in FLOORS if module in book.modules]
    stars = ""
    for module in modules:
        both = module in book.modules[module].definitions  # a name of both is the module's
        stars += f"    import {PACKAGE}.{module} as {module}\n" if both else ""
        stars += f"    from {PACKAGE}.{module} import *{'  # type: ignore[no-redef]' if both else ''}\n"
    return f'''{GENERATED}"""A Transformer encoder written by hand: the package that the chapters of *Twelve days to a Transformer* export."""

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = {modules!r}

if TYPE_CHECKING:
{stars or "    pass"}
else:

    def __getattr__(name: str) -> object:
        """Look a public name up, module by module from the ground, so that `import {PACKAGE}` stays light."""
        if name == "__all__":
            return __dir__()
        if name in {{module.partition(".")[0] for module in _MODULES}}:
            return import_module(f"{PACKAGE}.{{name}}")
        for module in _MODULES if not name.startswith("_") else []:
            if name in (found := import_module(f"{PACKAGE}.{{module}}")).__all__:
                return getattr(found, name)
        raise AttributeError(f"module {PACKAGE!r} has no attribute {{name!r}}")


def __dir__() -> list[str]:
    return sorted(name for module in _MODULES for name in import_module(f"{PACKAGE}.{{module}}").__all__)
'''


def main_text() -> str:
    return f'''{GENERATED}"""`python -m {PACKAGE}` is the command `{PACKAGE}`."""

import io
import os
import sys


def main() -> int:
    """The command; an interruption is a sentence also while PyTorch is still being loaded."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr does: a letter that the terminal lacks stops nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from {PACKAGE}.cli import main as command
    except KeyboardInterrupt:
        print("{PACKAGE}: interrupted", file=sys.stderr)
        return 130
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
'''


def formatted(files: dict[str, str]) -> dict[str, str]:
    """Imports sorted and code formatted by ruff, with the project's own settings."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        ruff("check", "--quiet", "--select", "I,RUF022", "--fix-only", "--exit-zero", folder)
        ruff("format", "--quiet", folder)
        return {name: Path(folder, name).read_text(encoding="utf-8") for name in files}


def ruff(*arguments: str) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        *arguments,
        "--no-cache",
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PressError(f"ruff {arguments[0]} failed: {' '.join((done.stderr or done.stdout).split())}")


def superseded(book: Book) -> dict[tuple[Path, int], list[tuple[Definition, Definition]]]:
    """For every cell (chapter and line) that redefines names: the pairs (earlier version, this version)."""
    pairs: dict[tuple[Path, int], list[tuple[Definition, Definition]]] = {}
    for unit in book.modules.values():
        for versions in unit.versions.values():
            for old, new in pairwise(versions):
                pairs.setdefault((new.chapter.path, new.cell.line), []).append((old, new))
    return pairs
