"""Word vectors counted from IMDB, as the first embeddings of `configs/sst2_alone.yaml`.

    python -m benchmarks.word_vectors runs/vectors --seed 0
    minitransformer train configs/sst2_alone.yaml --initial runs/vectors --name sst2_vectors

Which words stand within five places of each other in a review (nearer ones count more), as positive pointwise mutual
information with the contexts' counts smoothed by 0.75 (Levy et al., 2015), and of it the 128 largest singular vectors, each
word's row scaled to length 1. All else is as random as in any run of the seed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import svds

from minitransformer.data import load_sst2
from minitransformer.experiment.folder import _source_state, _write_json
from minitransformer.experiment.settings import RunConfig, read_settings
from minitransformer.model import TransformerForSequenceClassification
from minitransformer.pretrain import Corpus, _load_corpus_texts, build_corpus
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "sst2_alone.yaml"


def together(corpus: Corpus, size: int, window: int = 5) -> csr_matrix:
    """How often each two words stand within `window` places in one review, each pair divided by its distance."""
    ids = np.asarray(corpus.tokens, dtype=np.int64)
    review = np.repeat(np.arange(len(corpus.spans)), corpus.spans[:, 1] - corpus.spans[:, 0])
    counts = csr_matrix((size, size))
    for distance in range(1, window + 1):
        left, right = ids[:-distance], ids[distance:]
        real = (left >= len(SPECIAL_TOKENS)) & (right >= len(SPECIAL_TOKENS))
        real &= review[:-distance] == review[distance:]
        pairs, often = np.unique(left[real] * size + right[real], return_counts=True)
        counts = counts + coo_matrix((often / distance, divmod(pairs, size)), shape=(size, size)).tocsr()
    return counts + counts.T


def vectors(counts: csr_matrix, width: int) -> np.ndarray:
    """Rows of length 1 for the words that occur, of zeros for the others."""
    pairs, totals = counts.tocoo(), np.asarray(counts.sum(1)).ravel()
    share = totals**0.75 / (totals**0.75).sum()
    information = np.log(pairs.data / (totals[pairs.row] * share[pairs.col]))
    kept = information > 0
    where = (pairs.row[kept], pairs.col[kept])
    left, values, _ = svds(
        coo_matrix((information[kept], where), shape=counts.shape).tocsr(), k=width, random_state=0
    )
    rows = left * np.sqrt(values)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(lengths > 1e-6, rows / np.maximum(lengths, 1e-9), 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.word_vectors", description="First embeddings."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = read_settings(RunConfig, CONFIG).model
    vocabulary = Vocabulary.from_texts(load_sst2("train").texts, max_size=config.vocab_size)
    tokenizer, size = WordTokenizer(vocabulary, config.max_length), len(vocabulary)
    found = vectors(together(build_corpus(_load_corpus_texts("imdb"), tokenizer), size), config.d_model)
    torch.manual_seed(given.seed)
    model = TransformerForSequenceClassification(config.__class__(**{**vars(config), "vocab_size": size}))
    rows = torch.tensor(found, dtype=torch.float32)
    with torch.no_grad():
        known = rows.any(1)
        model.encoder.embedding.weight[known] = rows[known]
    model.save_pretrained(given.folder)
    tokenizer.save(given.folder / "tokenizer.json")
    _write_json(
        given.folder / "run.json", {"name": given.folder.name, "class": "read", "code": _source_state()}
    )


if __name__ == "__main__":
    main()
