"""Rules that a machine can judge, over the chapters and over what they export.

Every rule is a function that yields findings; each finding names the place and says what to do.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from book.press.floors import FLOORS, PACKAGE, TASKS
from book.press.read import Cell, Chapter, fenced, read_chapters, relative
from book.press.tangle import Book, Definition, read_book, tangle
from book.press.tidy import untidy
from book.press.write import diff, files_on_disk, moved

LONGEST_CELL = 40  # of those that a reader sees; a folded one may be
LONGEST_CLASS = 55  # a class with its docstring stands in one piece
LONGEST_FOLDED = 90
WIDEST = 88  # columns of the open code of a day, so that nothing scrolls sideways on a laptop
FOLDED = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
COMPARISONS = {"allclose", "equal", "isclose", "array_equal", "is_close"}
PROSE = re.compile(
    r"\{(?!math|code|eval-rst|raw|bibliography)"
)  # directives that hold prose; code and formulas do not
NOT_PROSE = re.compile(r"`[^`]*`|\$[^$]*\$|\[[^\]]*\]\([^)]*\)")
EXEMPT = re.compile(r"^% typed: \S+")
UNIT = r"(?:%|‰|points?|seconds?|s|ms|minutes?|MB|MiB|GB|GiB|tokens/s|TFLOP/s|times faster|times slower)(?![\w-])"
MEASURED = re.compile(
    rf"(?<![\w.§-])\d+\.\d+\s?{UNIT}|(?<![\w.§-])\d+\s?(?:tokens/s|ms|MB|MiB|GB|GiB)(?![\w-])"
)
RESULT = re.compile(
    r"\b(?:accuracy|loss|variance|norm)\s+(?:of|is|was|reaches|reached|fell to|falls to|about)\s+\d+\.\d+",
    re.I,
)


def check(folder: Path, root: Path) -> list[str]:
    """All findings: first the package against its chapters, then the rules of the book."""
    chapters = read_chapters(folder)
    book = read_book(chapters)
    findings = list(out_of_date(book, root))
    findings += [finding for chapter in chapters for rule in CHAPTER_RULES for finding in rule(chapter)]
    findings += [finding for rule in BOOK_RULES for finding in rule(book)]
    findings += missing_in_toc(chapters, root)
    return findings


def out_of_date(book: Book, root: Path) -> Iterator[str]:
    """The generated files are exactly what the chapters export: nothing changed, missing or left over."""
    new, old = tangle(book), files_on_disk(root)
    for path, how in moved(old, new).items():
        if how == "deleted":
            yield f"{path}: no chapter exports this file; run `python -m book.press export` to delete it, or move it elsewhere"
        else:
            text = diff(old.get(path, ""), new[path], f"{path} (on disk)", f"{path} (from the chapters)")
            yield f"{path}: differs from the chapters; edit the chapter, then run `python -m book.press export`\n{text}"


def place(cell: Cell) -> str:
    return f"{cell.place} ({cell.section.title or 'before the first heading'})"


def canonical(chapter: Chapter) -> Iterator[str]:
    if text := untidy(chapter.path):
        yield f"{relative(chapter.path)}: not in canonical form; run `python -m book.press format`\n{text}"


def short_cells(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.code:
        one_class = len(cell.tree.body) == 1 and isinstance(cell.tree.body[0], ast.ClassDef)
        most = LONGEST_FOLDED if FOLDED & set(cell.tags) else LONGEST_CLASS if one_class else LONGEST_CELL
        if (length := len(cell.source.splitlines())) > most:
            yield f"{place(cell)}: the cell has {length} lines, more than {most}; split it by its ideas"


def narrow_cells(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.code:
        if chapter.workshop or FOLDED & set(cell.tags):
            continue
        for line in cell.source.splitlines():
            if len(line) > WIDEST:
                yield f"{place(cell)}: a line has {len(line)} columns, more than {WIDEST}: {line.strip()}"


def no_bare_comparison(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.code:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Expr) and is_comparison(node.value):
                yield f"{place(cell)}: `{ast.unparse(node)}` compares but cannot fail; write `assert`"


def is_comparison(node: ast.expr) -> bool:
    """A comparison whose outcome nobody uses, or which is only printed."""
    if isinstance(node, ast.Compare):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "print":
        return any(isinstance(argument, ast.Call) and is_comparison(argument) for argument in node.args)
    return name in COMPARISONS


def tests_can_fail(chapter: Chapter) -> Iterator[str]:
    """Every test asserts something and is run in front of the reader."""
    for cell in (cell for cell in chapter.code if "test" in cell.tags):
        calls = {
            n.func.id for n in ast.walk(cell.tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        for node in cell.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                if not asserts(node):
                    yield f"{place(cell)}: {node.name} asserts nothing; state what must hold"
                if node.name not in calls:
                    yield f"{place(cell)}: {node.name} is not run in its cell; call it after its definition"


def asserts(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            if name in {"raises", "assert_close", "assert_allclose", "gradcheck"} or name.startswith(
                ("assert_", "_assert")
            ):
                return True
    return False


def exercises_complete(chapter: Chapter) -> Iterator[str]:
    """Each exercise has, in this order, a stub, a check that is attempted, and a solution that runs the check."""
    current = ""
    seen: dict[str, list[tuple[str, Cell]]] = {}
    solutions: dict[str, list[Cell]] = {}
    where: dict[str, Cell] = {}
    for cell in chapter.cells:
        if cell.kind == "markdown":
            for kind, label, option in re.findall(
                r"^`{3,}\{(exercise|solution-start)\} ?(.*)\n(?::label: (\S+))?", cell.source, re.M
            ):
                current = option if kind == "exercise" else label
                seen.setdefault(current, []) if kind == "exercise" else solutions.setdefault(current, [])
                where.setdefault(current, cell)
        else:
            for tag in {"stub", "check"} & set(cell.tags):
                seen.setdefault(current, []).append((tag, cell))
            if "solution" in cell.tags:
                solutions.setdefault(current, []).append(cell)
    for label, cells in seen.items():
        yield from exercise_findings(
            label, cells, solutions.get(label, []), place(where[label]) if label else relative(chapter.path)
        )
    for label in solutions.keys() - seen.keys():
        yield f"{place(where[label])}: a solution for the unknown exercise {label!r}; write its label as the exercise has it"


def exercise_findings(
    label: str, cells: list[tuple[str, Cell]], solutions: list[Cell], where: str
) -> Iterator[str]:
    if not label:
        yield f"{where}: a stub or check without an exercise before it; give the exercise a ':label:' and put the cell after it"
        return
    kinds = [kind for kind, _ in cells]
    if kinds[:1] != ["stub"] or "check" not in kinds:
        yield f"{where}: exercise {label} needs a cell tagged stub, then one tagged check; found {kinds or 'none'}"
        return
    names = [
        n.name for kind, c in cells if kind == "check" for n in c.tree.body if isinstance(n, ast.FunctionDef)
    ]
    checks = [name for name in names if name.startswith("check_")]
    attempted = "\n".join(cell.source for kind, cell in cells if kind == "check")
    solved = "\n".join(cell.source for cell in solutions)
    if not checks or not re.search(rf"^attempt\(\s*{checks[-1]}\b", attempted, re.M):
        yield f"{where}: exercise {label} must define check_… and end with `attempt(check_…, …)`"
    elif not re.search(rf"^{checks[-1]}\(", solved, re.M):
        yield f"{where}: exercise {label} needs a cell tagged solution that ends by calling {checks[-1]}(…)"


def no_typed_results(chapter: Chapter) -> Iterator[str]:
    """Measured numbers in prose come from {glue}; a line above the paragraph `% typed: why` marks an exception."""
    for cell in chapter.cells:
        if cell.kind != "markdown":
            continue
        exempt = False
        for offset, line, fences in fenced(cell.source):
            exempt = bool(EXEMPT.match(line)) or (exempt and bool(line.strip()))
            if exempt or not all(PROSE.match(info) for info in fences):
                continue
            prose = NOT_PROSE.sub(" ", line)
            if hit := MEASURED.search(prose) or RESULT.search(prose):
                yield (
                    f"{relative(chapter.path)}:{cell.line + offset} ({cell.section.title}): the number {hit[0].strip()!r} is typed; "
                    "compute it in a cell and {glue} it, or put `% typed: reason` above the paragraph"
                )


def figures_described(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.code:
        if "plt.show(" in cell.source:
            options = cell.metadata.get("mystnb", {})
            if not options.get("figure", {}).get("caption") or not options.get("image", {}).get("alt"):
                yield f"{place(cell)}: a figure needs 'mystnb: figure: caption' and 'mystnb: image: alt' in its cell's options"


def plan_delivered(chapter: Chapter) -> Iterator[str]:
    """A day delivers the tasks of the plan; a workshop chapter needs only the label by which days link to it."""
    labels = {label for section in chapter.sections for label in section.labels}
    wanted = {chapter.path.stem.replace("_", "-") if chapter.workshop else f"day{chapter.day:02}"}
    if not chapter.workshop:
        wanted |= {f"t{chapter.day}-{task}" for task in range(1, TASKS[chapter.day] + 1)}
    for label in sorted(wanted - labels):
        what = (
            f"task T{label[1:].replace('-', '.')} of the plan"
            if re.match(r"t\d", label)
            else "the chapter itself"
        )
        yield f"{relative(chapter.path)}: no heading labelled ({label})= for {what}; put the label on the line before the heading"
    if chapter.workshop:
        return
    if not chapter.path.name.startswith(f"day{chapter.day:02}_"):
        yield f"{relative(chapter.path)}: the file of day {chapter.day} must be named day{chapter.day:02}_….md"
    if not any(cell.kind == "markdown" and ":class: plan" in cell.source for cell in chapter.cells):
        yield f"{relative(chapter.path)}: no plan box; open with an admonition of ':class: plan'"


def documented(book: Book) -> Iterator[str]:
    for definition in newest(book):
        if definition.kind != "constant" and not ast.get_docstring(definition_node(definition)):
            yield f"{place(definition.cell)}: {definition.name} has no docstring; say what it does, its shapes and its source"


def tested_in_place(book: Book) -> Iterator[str]:
    """Each exported function or class is followed by a test that uses it, in the same `##` section."""
    for unit in book.modules.values():
        for definition in (d for versions in unit.versions.values() for d in versions):
            if definition.kind != "constant" and definition.public and not has_test(definition, book):
                yield (
                    f"{place(definition.cell)}: {definition.name} is exported, but no test after it in section "
                    f"'{definition.cell.section.part}' uses it; add a cell tagged test"
                )


def has_test(definition: Definition, book: Book) -> bool:
    return any(
        definition.name in test.free
        and test.chapter == definition.chapter
        and is_after(test.cell, definition.cell)
        for unit in book.tests.values()
        for versions in unit.versions.values()
        for test in versions
    )


def is_after(test: Cell, definition: Cell) -> bool:
    return test.line > definition.line and test.section.part == definition.section.part


def floors_kept(book: Book) -> Iterator[str]:
    """A module imports only from modules below it."""
    for module, unit in book.modules.items():
        for definition in unit.definitions.values():
            for name in sorted(definition.free - unit.definitions.keys()):
                other = book.homes.get(name, module)
                if FLOORS.index(other) > FLOORS.index(module):
                    yield f"{place(definition.cell)}: {PACKAGE}.{module} uses {name} of {PACKAGE}.{other}, a floor above it; move one of them"


def no_book_in_package(book: Book) -> Iterator[str]:
    for unit in book.modules.values():
        for definition in unit.definitions.values():
            imports = book.imports[definition.chapter.path]
            for name in sorted(definition.free & imports.keys()):
                if imports[name].module.split(".")[0] == "book":
                    yield f"{place(definition.cell)}: {definition.name} uses {name} from the book's tools, which are not installed with the package"


def newest(book: Book) -> Iterator[Definition]:
    for unit in book.modules.values():
        yield from (d for d in unit.definitions.values() if d.public)


def definition_node(definition: Definition) -> ast.FunctionDef | ast.ClassDef:
    return next(n for n in ast.parse(definition.source).body if isinstance(n, ast.FunctionDef | ast.ClassDef))


def missing_in_toc(chapters: list[Chapter], root: Path) -> Iterator[str]:
    toc = root / "_toc.yml"
    listed = (
        set(re.findall(r"file: (?:chapters/)(\S+?)(?:\.md)?\s*$", toc.read_text(encoding="utf-8"), re.M))
        if toc.is_file()
        else set()
    )
    if not toc.is_file():
        return
    for chapter in chapters:
        if chapter.path.stem not in listed:
            yield f"_toc.yml: the chapter {relative(chapter.path)} is not listed; add `- file: chapters/{chapter.path.stem}`"
    for name in sorted(listed - {chapter.path.stem for chapter in chapters}):
        yield f"_toc.yml: lists chapters/{name}, which does not exist; write it or take the line out"


CHAPTER_RULES = (
    canonical,
    short_cells,
    narrow_cells,
    no_bare_comparison,
    tests_can_fail,
    exercises_complete,
    no_typed_results,
    figures_described,
    plan_delivered,
)
BOOK_RULES = (documented, tested_in_place, floors_kept, no_book_in_package)
