"""Day 1's W^Q: the weights of `MultiHeadAttention`'s formula for hand-made and typed matrices."""

import math

import torch

from book.sentence import EMBEDDINGS, TOKENS

MARKS = ["negates", "judges", "is a thing", "is glue"]
W_K = torch.eye(4, 3)
W_Q = torch.tensor([[0.0, 2.0, 0.0], [4.0, 0.0, 1.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])


def start() -> dict:
    return {"tokens": TOKENS, "x": EMBEDDINGS, "wq": W_Q, "wk": W_K, "marks": MARKS}


def looks(w_q: torch.Tensor) -> torch.Tensor:
    q, k = EMBEDDINGS @ w_q, EMBEDDINGS @ W_K
    return (q @ k.T / math.sqrt(3)).softmax(-1)


def answer(w_q: torch.Tensor, token: int = 3) -> dict:
    weights = looks(w_q)
    same = torch.isclose(weights, looks(W_Q), rtol=0, atol=1e-6).all(-1).tolist()
    most = int(weights[token].argmax())
    cells = {f"cell_{i}_{j}": weights[i, j].item() for i in range(6) for j in range(6)}
    return cells | {
        "token": TOKENS[token],
        "most": TOKENS[most],
        "weight": weights[token, most].item(),
        "changed": ", ".join(f"“{t}”" for t, s in zip(TOKENS, same, strict=True) if not s) or "none",
    }


def states() -> list:
    typed = W_Q.clone()
    typed[2] = torch.tensor([5.0, -1.5, 0.0])  # a thing looks for a negator
    steps = [("is a thing: looks for negator", 5), ("is a thing: looks for judgement", -1.5)]
    speak = ("The sentence below speaks of", "2")
    return [([], answer(W_Q)), (steps, answer(typed)), ([*steps, speak], answer(typed, 2))]
