"""What pressing the book costs: `python -m benchmarks.press` prints one table, measured on the machine at hand.

Reading parses the chapters, tangling makes the package and its tests. Counted is processor time of this process and of
the formatter that it starts, so that other work on the machine disturbs little; the shortest of all rounds stands for each.
"""

import argparse
import os

from book.press.read import parsed_chapter, read_chapters
from book.press.tangle import read_book, tangle


def busy() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def measure(rounds: int) -> tuple[int, list[float]]:
    """How many files the book makes, and the fewest seconds for reading and for tangling."""
    files: dict[str, str] = {}
    reading, tangling = [], []
    for _ in range(rounds):
        parsed_chapter.cache_clear()
        began = busy()
        chapters = read_chapters()
        between = busy()
        files = tangle(read_book(chapters))
        reading.append(between - began)
        tangling.append(busy() - between)
    return len(files), [min(reading), min(tangling)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.press", description="What pressing costs.")
    parser.add_argument("--rounds", type=int, default=3, help="the shortest of so many counts")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    count, (reading, tangling) = measure(given.rounds)
    print("| work | processor seconds |\n|---|---:|")
    print(f"| reading the chapters | {reading:.2f} |\n| tangling them into {count} files | {tangling:.2f} |")


if __name__ == "__main__":
    main()
