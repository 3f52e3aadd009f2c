# Generated from chapters/day11_deeper.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.bert`."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from minitransformer.bert import (
    bert_names,
    config_from_bert,
    config_to_bert,
    from_bert,
    from_pretrained,
    kept_pieces,
    plain_normalizer,
    to_bert,
    wordpiece,
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
    sizes = {"vocab_size": 31, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    sizes |= {"num_hidden_layers": 2, "max_position_embeddings": 13, "type_vocab_size": 2}
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
    {"hidden_size": 20, "num_attention_heads": 1, "type_vocab_size": 3, "num_hidden_layers": 1},
]


def test_our_encoder_is_bert():
    for seed, variant in enumerate(VARIANTS):
        bert, config = tiny_bert(seed, **variant)
        ours, batch = our_encoder(bert, config), bert_batch()
        mine, theirs = ours(**batch), bert(**batch).last_hidden_state
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10, msg=f"hidden states, {variant}")
        weight = torch.randn_like(mine)
        (mine * weight).sum().backward()
        (theirs * weight).sum().backward()
        gradients = from_bert({n: p.grad for n, p in bert.named_parameters()}, config.num_layers)
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-10, msg=name)
        with torch.no_grad():
            single = (ours.float()(**batch) - bert.float()(**batch).last_hidden_state).abs().max()
        assert single < 1e-5, f"float32, {variant}: {single:.1e}"


def test_bert_and_back_is_the_same_to_the_bit():
    for seed, variant in enumerate(VARIANTS):
        bert, config = tiny_bert(seed, **variant)
        back = to_bert(our_encoder(bert, config).state_dict(), config.num_layers)
        assert back.keys() == bert.state_dict().keys(), "nothing is left out"
        assert all(torch.equal(back[name], value) for name, value in bert.state_dict().items())
        assert set(bert_names(config.num_layers)) == set(back)
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
    old = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": v
        for name, v in state.items()
    }
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
def small_vocabulary() -> list[str]:
    """A vocabulary in BERT's own order, with an unused entry before the special tokens that matter."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    marks = list("0123456789.,;:!?'()-\"&/")
    words = "not a bad film at all the and of it don didn t s cast fine waste ##d ##ing ##able un ##less 看"
    return [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *dict.fromkeys([*letters, *marks, *(f"##{letter}" for letter in letters), *words.split()]),
    ]


AWKWARD = [
    "", " ", "Not a BAD film, at all!", "naïve café Ünder", "(don't... didn't)", "it's   the\tcast\n\nof 1999",
    "看 a 看片 film", "a\u200bfilm\u0000 \u2014 really?", "'tis un-wastable & wasteless/fine", "x" * 120, "😀 fine",
]  # fmt: skip


def test_our_pieces_are_bert_s():
    from transformers import BertTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(small_vocabulary()) + "\n", encoding="utf-8")
        theirs = BertTokenizer(vocab=str(path))
    ours = wordpiece(small_vocabulary())
    for text in [*AWKWARD, *toy_reviews(300, seed=1).texts]:
        assert ours.encode(text, add_special_tokens=False).tokens == theirs.tokenize(text), text
    for torn, whole in (("do n't -lrb- it 's -rrb-", "don't ( it 's )"), ("DID N'T -LRB-", "didn't (")):
        assert ours.encode(torn, add_special_tokens=False).tokens == theirs.tokenize(whole), torn
    same = [plain_normalizer().normalize_str(text) for text in ("an n't", "n't", "? n't", "do n'ts")]
    assert same == ["ann't", "n't", "? n't", "do n'ts"], "joined after a word, and as a whole word only"


def test_kept_pieces_are_the_most_used_and_can_spell_everything():
    tokens, texts = small_vocabulary(), ["the film the film the cast", "wasted film"]
    everything = kept_pieces(tokens, [], len(tokens))
    assert sorted(everything) == sorted(tokens) and tuple(everything[:5]) == SPECIAL_TOKENS
    single = [t for t in tokens if len(t.removeprefix("##")) == 1 and t.isascii()]
    least = len(SPECIAL_TOKENS) + len(single)
    kept = kept_pieces(tokens, texts, least + 2)
    assert set(kept) == {*SPECIAL_TOKENS, *single, "film", "the"}, "the two that are used most"
    assert kept[5:] == [t for t in tokens if t in kept[5:]], "in the vocabulary's order"
    pieces = wordpiece(kept).encode("the cast", add_special_tokens=False).tokens
    assert pieces == ["the", "c", "##a", "##s", "##t"], pieces
    refused(lambda: kept_pieces(tokens, texts, least - 1), "vocab_size", str(least))
    refused(lambda: kept_pieces(tokens, [], least), "texts")
    refused(lambda: kept_pieces(tokens[1:], texts, least), "[PAD]")


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
        with patch("huggingface_hub.snapshot_download", return_value=name) as download, torch.no_grad():
            expected = bert(**batch).last_hidden_state
            for source in (Path(name), name, "some/bert"):
                found = from_pretrained(source)(**batch)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=str(source))
        assert download.call_count == 1 and download.call_args.args == ("some/bert",), "the hub is asked once"
        settings = json.loads(Path(name, "config.json").read_text())
        Path(name, "config.json").write_text(json.dumps(settings | {"intermediate_size": 41}))
        refused(lambda: from_pretrained(name), name, "to fit config.json", "intermediate.dense")
    with patch("huggingface_hub.snapshot_download", side_effect=OSError("no\nnetwork")):
        refused(lambda: from_pretrained("some/bert"), "some/bert", "no network")
