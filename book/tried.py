"""What was tried, beside what it was compared with: `book/runs/tried.json` as one table.

The accuracies of the changes stand in that file, because their code and their runs are gone; those of the bases come
from the recorded runs.
"""

import json
from pathlib import Path
from typing import Any

from scipy.stats import ttest_ind

from minitransformer.evaluate import mean_interval
from minitransformer.experiment.folder import last_validation

RUNS = Path(__file__).parent / "runs"


def commit(runs: Path = RUNS) -> str:
    """The commit at which every change can be repeated that names no other."""
    return json.loads((runs / "tried.json").read_text(encoding="utf-8"))["commit"]


def seeds_of(base: str, runs: Path = RUNS) -> list[Path]:
    """The recorded runs of a base: its folder, and those that end in _seed1, _seed2 and so on, if they are finished."""
    folders = [runs / base, *sorted(runs.glob(f"{base}_seed[0-9]"))]
    return [folder for folder in folders if (folder / "run.json").is_file()]


def base_accuracies(runs: Path, base: str) -> list[float]:
    """Their validation accuracies."""
    return [last_validation(folder).accuracy for folder in seeds_of(base, runs)]


def tried_rows(runs: Path = RUNS) -> list[dict[str, Any]]:
    """Each change with its accuracies, those of its base, and the 95 % interval of the difference of their means.

    The interval is Student's, with one variance for both sides, so that a side may be a single run.
    """
    rows = json.loads((runs / "tried.json").read_text(encoding="utf-8"))["tried"]
    for row in rows:
        row["before"] = base_accuracies(runs, row["base"])
        found = ttest_ind(row["accuracies"], row["before"]).confidence_interval()
        row["low"], row["high"] = float(found.low), float(found.high)
    return rows


def tried_table(rows: list[dict[str, Any]]) -> str:
    """Rows of `tried_rows` as a table in Markdown, in per cent and points."""
    lines = [
        "| base | change | base (%) | changed (%) | difference, 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        difference = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}".replace("-", "−")
        sides = f"{_side(row['before'])} | {_side(row['accuracies'])}"
        lines.append(f"| `{row['base']}` | {row['variant']} | {sides} | {difference} |")
    return "\n".join(lines)


def _side(accuracies: list[float]) -> str:
    """The mean with its 95 % interval over seeds, and how many there are."""
    if (n := len(accuracies)) == 1:
        return f"{100 * accuracies[0]:.1f} (1)"
    mean, half = mean_interval(accuracies)
    return f"{100 * mean:.1f}\u00a0±\u00a0{100 * half:.1f} ({n})"  # no line ends inside
