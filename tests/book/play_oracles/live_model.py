"""The model inside the page starts with the book's sentence; `test_live_model.py` compares its answers."""

from book.play.weights import megabytes
from book.sentence import SENTENCE


def start() -> dict:
    return {"text": SENTENCE, "megabytes": megabytes("shipped")}


def states() -> list:
    return []
