"""What pyproject.toml cannot say: a wheel carries inside `book` what a checkout has beside it (see `book.path`)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithTheBook(build_py):
    """Copy the packages, then what the chapters read."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        inside, litter = Path(self.build_lib, "book"), shutil.ignore_patterns("*.ipynb", ".*")
        for name in ("chapters", "configs"):
            shutil.copytree(name, inside / name, ignore=litter, dirs_exist_ok=True)
        shutil.copy("pyproject.toml", inside)


setup(cmdclass={"build_py": WithTheBook})
