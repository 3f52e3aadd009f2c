# Generated from chapters/day11_deeper.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.bert`."""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from minitransformer.bert import (
    _bert_folder,
    _bert_names,
    _kept_pieces,
    _plain_normalizer,
    _source_name,
    _wordpiece,
    config_from_bert,
    config_to_bert,
    from_bert,
    from_pretrained,
    read_bert,
    to_bert,
)
from minitransformer.data import toy_reviews
from minitransformer.encoder import TransformerEncoder
from minitransformer.model import ModelConfig
from minitransformer.tokenizer import SPECIAL_TOKENS


# chapters/day11_deeper.md · The same settings, the same numbers
def tiny_bert(seed: int = 0, **changes: object) -> tuple[Any, ModelConfig]:
    """A random `BertModel` in float64 and evaluation mode, with weights large enough to show a mistake."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": 31, "hidden_size": 24, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 40, "num_hidden_layers": 2}
    sizes |= {"max_position_embeddings": 13, "type_vocab_size": 2}
    settings = BertConfig(**sizes | changes)
    model = BertModel(settings, add_pooling_layer=False).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, config_from_bert(settings.to_dict())


def our_encoder(bert: Any, config: ModelConfig) -> TransformerEncoder:
    settings = asdict(config)
    del settings["num_labels"], settings["pooling"]
    encoder = TransformerEncoder(**settings).double().eval()
    encoder.load_state_dict(from_bert(bert.state_dict(), config.num_layers))
    return encoder


def bert_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 31, (4, 11), generator=generator)
    mask = torch.arange(11) < torch.tensor([[11], [3], [7], [1]])
    types = torch.randint(0, 2, (4, 11), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


VARIANTS = [
    {},
    {"num_hidden_layers": 3, "hidden_act": "relu"},
    {"num_attention_heads": 8, "layer_norm_eps": 0.1},
    {"hidden_size": 20, "num_attention_heads": 1, "type_vocab_size": 3},
]


def test_our_encoder_is_bert():
    for seed, variant in enumerate(VARIANTS):
        bert, config = tiny_bert(seed, **variant)
        ours, batch = our_encoder(bert, config), bert_batch()
        mine, theirs = ours(**batch), bert(**batch).last_hidden_state
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10), variant
        weight = torch.randn_like(mine)
        (mine * weight).sum().backward()
        (theirs * weight).sum().backward()
        gradients = {name: p.grad for name, p in bert.named_parameters()}
        gradients = from_bert(gradients, config.num_layers)
        for name, parameter in ours.named_parameters():
            close = torch.allclose(parameter.grad, gradients[name], rtol=0, atol=1e-10)
            assert close, f"{name}, {variant}"
        with torch.no_grad():
            expected = bert.float()(**batch).last_hidden_state
            single = (ours.float()(**batch) - expected).abs().max()
        assert single < 1e-5, f"float32, {variant}: {single:.1e}"


def test_bert_and_back_is_the_same_to_the_bit():
    for seed, variant in enumerate(VARIANTS):
        bert, config = tiny_bert(seed, **variant)
        back = to_bert(our_encoder(bert, config).state_dict(), config.num_layers)
        state = bert.state_dict()
        assert back.keys() == state.keys(), "nothing is left out"
        assert all(torch.equal(back[name], value) for name, value in state.items())
        assert set(_bert_names(config.num_layers)) == set(back)
        assert config_from_bert(config_to_bert(config)) == config


def refused(call: Callable[[], object], *words: str) -> None:
    """`call` must raise a ValueError of one line that holds all words."""
    try:
        call()
    except ValueError as error:
        assert all(word in str(error) for word in words) and "\n" not in str(error), error
        return
    raise AssertionError(f"accepted, but {words} should have been refused")


def test_from_bert_reads_old_names_and_refuses_other_models():
    bert, config = tiny_bert()
    state = bert.state_dict()
    right = from_bert(state, 2)
    names = [re.sub("Norm.weight$", "Norm.gamma", name) for name in state]
    names = [re.sub("Norm.bias$", "Norm.beta", f"bert.{name}") for name in names]
    old = dict(zip(names, state.values(), strict=True))
    old |= {"bert.pooler.dense.weight": torch.zeros(1), "cls.predictions.bias": torch.zeros(1)}
    found = from_bert(old, 2)
    assert found.keys() == right.keys() and all(torch.equal(found[name], right[name]) for name in right)
    assert "bert.embeddings.LayerNorm.gamma" in old, "the test renames something"
    refused(lambda: from_bert(state, 3), "3 layers", "encoder.layer.2.attention.self.query.weight")
    settings = config_to_bert(config)
    refused(lambda: config_from_bert(settings | {"model_type": "roberta"}), "'roberta'")
    refused(lambda: config_from_bert(settings | {"position_embedding_type": "relative_key"}), "relative_key")
    refused(lambda: config_from_bert(settings | {"is_decoder": True}), "is_decoder", "True")
    refused(lambda: config_from_bert(settings | {"hidden_act": "silu"}), "activation", "'silu'")
    assert config_from_bert({}).layer_norm_eps == 1e-12, "what is left out is as in BERT-base"
    refused(lambda: config_to_bert(replace(config, norm_first=True)), "norm_first", "True")
    refused(lambda: config_to_bert(replace(config, type_vocab_size=0)), "type_vocab_size", "0")


# chapters/day11_deeper.md · Real weights, and their tokenizer
def test_plain_normalizer_spells_as_ordinary_text_does():
    for torn, whole in (
        ("do n't -lrb- it 's -rrb-", "don't ( it 's )"),
        ("DID N'T -LRB-", "didn't ("),
        ("fine.<br /><br>Not<BR/>bad", "fine.  not bad"),
        ("an n't", "ann't"),  # joined after a word,
        ("n't ? n't do n'ts", "n't ? n't do n'ts"),  # and as a whole word only
        ("a < b and br />", "a < b and br />"),
    ):
        assert _plain_normalizer().normalize_str(torn) == whole, torn
    assert _plain_normalizer(lowercase=False).normalize_str("A<BR>b") == "A b"


def small_vocabulary() -> list[str]:
    """A vocabulary in BERT's own order, with an unused entry before the special tokens that matter."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    marks = list("0123456789.,;:!?'()-\"&/")
    words = "not a bad film at all the and of it don didn t s cast fine waste"
    words += " ##d ##ing ##able un ##less 看"
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*letters, *marks, *(f"##{letter}" for letter in letters), *words.split()]
    return special + list(dict.fromkeys(pieces))


AWKWARD = [
    "", " ", "Not a BAD film, at all!", "naïve café Ünder", "(don't... didn't)", "it's   the\tcast\n\nof 1999",
    "看 a 看片 film", "a\u200bfilm\u0000 \u2014 really?", "'tis un-wastable & wasteless/fine", "x" * 120, "😀 fine",
]  # fmt: skip


def save_bert(folder: Path, **changes: object) -> Any:
    """A random BERT with the small vocabulary, saved as its library does."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    bert, _ = tiny_bert(7, vocab_size=len(small_vocabulary()), **changes)
    bert.float().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(small_vocabulary()) + "\n", encoding="utf-8")
    return bert


def test_from_pretrained_is_the_bert_that_was_saved():
    with tempfile.TemporaryDirectory() as name:
        bert, batch = save_bert(Path(name)), bert_batch()
        with torch.no_grad():
            expected = bert(**batch).last_hidden_state
        with patch("huggingface_hub.snapshot_download", return_value=name) as hub:
            for source in (Path(name), name, "some/bert"):
                with torch.no_grad():
                    found = from_pretrained(source)(**batch)
                assert torch.allclose(found, expected, rtol=0, atol=1e-5), source
        assert hub.call_count == 1, "the hub is asked for the third only"


def test_our_pieces_are_bert_s():
    from transformers import BertTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(small_vocabulary()) + "\n", encoding="utf-8")
        theirs = BertTokenizer(vocab=str(path))
    ours = _wordpiece(small_vocabulary())
    for text in [*AWKWARD, *toy_reviews(300, seed=1).texts]:
        found = ours.encode(text, add_special_tokens=False).tokens
        assert found == theirs.tokenize(text), text


def test_kept_pieces_are_the_most_used_and_can_spell_everything():
    tokens, texts = small_vocabulary(), ["the film the film the cast", "wasted film"]
    everything = _kept_pieces(tokens, [], len(tokens))
    assert sorted(everything) == sorted(tokens) and tuple(everything[:5]) == SPECIAL_TOKENS
    single = [t for t in tokens if len(t.removeprefix("##")) == 1 and t.isascii()]
    least = len(SPECIAL_TOKENS) + len(single)
    kept = _kept_pieces(tokens, texts, least + 2)
    assert set(kept) == {*SPECIAL_TOKENS, *single, "film", "the"}, "the two that are used most"
    assert kept[5:] == [t for t in tokens if t in kept[5:]], "in the vocabulary's order"
    pieces = _wordpiece(kept).encode("the cast", add_special_tokens=False).tokens
    assert pieces == ["the", "c", "##a", "##s", "##t"], pieces
    refused(lambda: _kept_pieces(tokens, texts, least - 1), "vocab_size", str(least))
    refused(lambda: _kept_pieces(tokens, [], least), "texts")
    refused(lambda: _kept_pieces(tokens[1:], texts, least), "[PAD]")


def test_the_folder_of_a_bert_is_read_or_refused():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "bert")
        save_bert(folder)
        assert _bert_folder(folder) == folder and _source_name(folder) == "bert"
        assert _source_name("some/bert") == "some/bert", "a name on the hub stays"
        config, tokens, weights = read_bert(folder)
        assert tokens == small_vocabulary() and config.vocab_size == len(tokens)
        assert len(weights) == 5 + 16 * config.num_layers
        settings = json.loads((folder / "config.json").read_text())
        changed = settings | {"intermediate_size": 41}
        (folder / "config.json").write_text(json.dumps(changed))
        words = (name, "to fit config.json", "intermediate.dense")
        refused(lambda: from_pretrained(folder), *words)
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        refused(lambda: read_bert(folder), "model.safetensors", "pytorch_model.bin")
    with patch("huggingface_hub.snapshot_download", side_effect=OSError("no\nnetwork")):
        refused(lambda: _bert_folder("some/bert"), "some/bert", "no network")
