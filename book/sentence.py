"""The sentence that runs through the whole book: six tokens, four numbers each.

Every day meets the same six tokens. The four numbers are made up but can be read: one column each for
"negates", "judges", "names a thing" and "is glue". From Day 4 on a model learns such numbers by itself.
"""

import torch
from torch import Tensor

SENTENCE = "not a bad film at all"
TOKENS = SENTENCE.split()
EMBEDDINGS = torch.tensor(
    [
        # negates, judges, thing, glue
        [1.0, 0.0, 0.0, 0.2],  # not
        [0.0, 0.0, 0.1, 0.9],  # a
        [0.3, 1.0, 0.0, 0.0],  # bad
        [0.0, 0.1, 1.0, 0.0],  # film
        [0.1, 0.0, 0.0, 0.8],  # at
        [0.4, 0.2, 0.0, 0.5],  # all
    ]
)


def embed(d_model: int, seed: int = 0) -> Tensor:
    """Vectors of the six tokens at any width, shape [6, d_model]: the hand-made numbers first, then noise."""
    noise = torch.randn(len(TOKENS), d_model, generator=torch.Generator().manual_seed(seed))
    noise[:, : EMBEDDINGS.size(1)] = EMBEDDINGS[:, :d_model]
    return noise
