"""Day 3's clocks: the dot product of two rows of `sinusoidal_encoding`."""

from minitransformer.layers import sinusoidal_encoding

LAST = 40


def start() -> dict:
    return {"last": LAST, "query": 9, "key": 4, "pairs": 4}


def answer(query: int, key: int, pairs: int = 4) -> dict[str, float]:
    table = sinusoidal_encoding(LAST + 1, 2 * pairs).double()
    score = (table[query] @ table[key]).item()
    return {"query": query, "key": key, "distance": query - key, "score": score, "most": pairs}


def states() -> list:
    place = [("Position of the query", 20), ("Position of the key", 33)]
    return [
        ([], answer(9, 4)),
        ([("Both one token further", "click")] * 3, answer(12, 7)),
        (place, answer(20, 33)),
        ([*place, ("Pairs of sine and cosine", 7)], answer(20, 33, 7)),
        ([("Position of the query", 40), ("Both one token further", "click")], answer(40, 4)),
    ]
