"""What stands around the chapters: the press, figure helpers, exercise checks, pages and recorded runs."""

from pathlib import Path


def path(*parts: str) -> Path:
    """A file or folder of the book: `path("runs/shipped")`, `path("configs", "toy.yaml")`, `path("chapters")`.

    `runs` lies inside this package. `configs`, `chapters` and `pyproject.toml` stand beside it in a checkout,
    and inside it where a wheel has brought them.
    """
    here = Path(__file__).resolve().parent
    inside = here.joinpath(*parts)
    return inside if inside.exists() else here.parent.joinpath(*parts)
