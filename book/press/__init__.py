"""The press: turns the chapters into the package, its tests and the pages.

One room per step:

- `floors`   what the house looks like: the modules from the ground up, the tasks of the plan
- `read`     chapters (MyST Markdown, through jupytext) -> chapters, sections, cells
- `tangle`   cells -> the files of `minitransformer/` and `tests/`
- `write`    files -> disk, all or nothing
- `check`    rules over chapters and output
- `tidy`     canonical Markdown and ruff formatting of the chapters' own cells
- `execute`  the pages' cells, side by side, before Sphinx reads the pages
- `sphinx_extension`   badges, diffs and the problem log on the pages
- `__main__` the command line, `python -m book.press`
"""
