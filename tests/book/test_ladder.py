"""The parity ladder: every block is on it, every rung holds, and a wrong weight breaks its rung."""

import pytest
import torch

from book.ladder import HUGGING_FACE, PYTORCH, TOLERANCE, all_pairs, climb, measure, table

MASKLESS = {"Linear", "LayerNorm", "Feed-forward", "Embeddings", "Masked-LM head"}
BLOCKS = {
    PYTORCH: {
        "Linear",
        "LayerNorm",
        "Feed-forward",
        "Scaled dot-product attention",
        "Attention, backward by hand",
        "Multi-head attention",
        "Encoder layer, post-norm",
        "Encoder layer, pre-norm",
        "Encoder layer, backward by hand",
        "Encoder",
    },
    HUGGING_FACE: {
        "Feed-forward",
        "Scaled dot-product attention",
        "Attention, backward by hand",
        "Multi-head attention",
        "Encoder layer, post-norm",
        "Encoder layer, pre-norm",
        "Embeddings",
        "BERT",
        "Masked-LM head",
        "BERT with masked-LM head",
    },
}


def test_every_block_is_there_and_holds():
    rungs = climb()
    found = [(r.against, r.block, r.dtype, r.masked) for r in rungs]
    expected = {
        (against, block, dtype, masked)
        for against, blocks in BLOCKS.items()
        for block in blocks
        for dtype in ("float32", "float64")
        for masked in ((False,) if block in MASKLESS else (False, True))
    }
    assert set(found) == expected and len(found) == len(expected)
    for rung in rungs:
        assert rung.tolerance == TOLERANCE[getattr(torch, rung.dtype)]
        assert max(rung.forward, rung.backward) <= rung.tolerance
    assert table(rungs).count("\n") == len(rungs) + 1


def test_a_wrong_weight_breaks_its_rung():
    for pair, masked in all_pairs():
        ours = pair.ours
        if pair.weights:
            with torch.no_grad():
                pair.weights[0][0][0].mul_(1.01)
        else:  # attention without projections
            pair.ours = lambda q, k, v, ours=ours: ours(1.01 * q, k, v)
        with pytest.raises(AssertionError, match=pair.block):
            measure(pair, masked)


def test_a_wrong_gradient_breaks_its_rung():
    """Forward alone is not enough: the output may be right and the way back wrong."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 1.01 * grad

    for pair, masked in all_pairs():
        if pair.inputs:
            ours = pair.ours
            pair.ours = lambda *inputs, ours=ours: ours(*map(Doubled.apply, inputs))
            with pytest.raises(AssertionError, match=pair.block):
                measure(pair, masked)
