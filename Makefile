# Two commands matter: `make book` and `make test`. Both need only Python >= 3.11 and make; without make, say
# `python -m book.make book`. What each target does stands in book/make.py, and `make help` lists them.
PYTHON ?= python3
TARGETS := book test lint unit package chapters notebooks smoke reproduce gpu pdf browser wheel release colab mutants lab export format clean

.PHONY: $(TARGETS) help

$(TARGETS):
	$(PYTHON) -m book.make $@

help:
	@$(PYTHON) -m book.make || true
