"""Day 2's mask: what softmax, autograd and `masked_softmax` say of each way to apply it."""

import math

import torch

from book.sentence import EMBEDDINGS, TOKENS
from minitransformer.attention import masked_softmax

SCORES = EMBEDDINGS @ EMBEDDINGS.T / math.sqrt(EMBEDDINGS.size(1))
VALUES = EMBEDDINGS[:, 1]  # what is passed on: how much a token judges
MASK = torch.tensor([[True] * 4 + [False] * 2] * 5 + [[False] * 6])


def start() -> dict:
    return {"tokens": TOKENS, "scores": SCORES, "values": VALUES, "mask": MASK}


def answer(way: str, mask: torch.Tensor, shown: str = "weights") -> dict[str, float]:
    scores = SCORES.clone().requires_grad_()
    forbidden = torch.zeros(6, 6).masked_fill(~mask, -math.inf)
    weights = {
        "scores": lambda: (scores * mask).softmax(-1),
        "weights": lambda: scores.softmax(-1) * mask,
        "infinity": lambda: (scores + forbidden).softmax(-1),
        "repaired": lambda: (scores + forbidden).softmax(-1).nan_to_num(),
        "lowest": lambda: masked_softmax(scores, mask),
    }[way]()
    (weights @ VALUES).sum().backward()
    leaks = weights[~mask].detach()
    cells = weights.detach() if shown == "weights" else scores.grad
    return {
        "whole": ((weights.sum(-1) - 1).abs() < 1e-6).sum().item(),
        "all": 6,
        "leak": leaks.nansum().item(),
        "nan": weights.isnan().sum().item(),
        "lost": scores.grad.isnan().sum().item(),
    } | {f"cell_{i}_{j}": cells[i, j].item() for i in range(6) for j in range(6)}


def states() -> list:
    """Steps, each a control's label and what to set it to, and the numbers that the sentence must then say."""
    found = []
    one_more = MASK.clone()
    one_more[3, 0] = False  # film no longer sees not
    some = MASK.clone()
    some[5, 5] = True  # the empty row gets a key
    for way in ("scores", "weights", "infinity", "repaired", "lowest"):
        choose = [("The mask is applied as", way)]
        found.append((choose, answer(way, MASK)))
        found.append(([*choose, ("The cells show", "gradient")], answer(way, MASK, "gradient")))
        found.append(([*choose, ("query film, key not:", "click")], answer(way, one_more)))
        found.append(([*choose, ("query all, key all:", "click")], answer(way, some)))
    return found
