# Generated from chapters/day04_encoder_and_data.md, chapters/day09_sprint.md, chapters/day11_deeper.md, chapters/workshop_weights.md; edit the chapters, not this file.
"""The tests that the chapters run in their text, for `minitransformer.model`."""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import load_torch_model, save_torch_state_dict
from safetensors.torch import save_file
from torch import nn

from minitransformer.layers import LayerNorm
from minitransformer.linear import Linear
from minitransformer.model import (
    _POOLINGS,
    ModelConfig,
    PreTrained,
    TransformerForMaskedLM,
    TransformerForSequenceClassification,
    _first_token,
    _load_weights,
    _mean_of_tokens,
    _read_model_config,
    _require,
    _weight_files,
    initialize,
    load_initial,
    read_weights,
)


# chapters/day04_encoder_and_data.md · The model
def small_model(**changes: Any) -> TransformerForSequenceClassification:
    """All sizes different, three labels, float64, evaluation mode, every parameter random."""
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=31, d_model=12, num_heads=4, d_ff=20, max_length=16, num_labels=3)
    model = TransformerForSequenceClassification(replace(config, **changes)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def test_logits_come_from_the_first_token():
    model = small_model()
    input_ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    hidden = model.encoder(input_ids)
    expected = hidden[:, 0] @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(input_ids), expected, rtol=0, atol=1e-12)
    alone = model(input_ids[1:, :3])
    torch.testing.assert_close(model(input_ids)[1:], alone, rtol=0, atol=1e-12)
    mask = input_ids != 0
    mask[0, 2] = False
    moved = (model(input_ids, mask) - model(input_ids))[0].abs().max()
    assert moved > 1e-3, "the mask must reach the encoder"


def test_save_and_load():
    model = small_model().float()
    input_ids = torch.tensor([[2, 5, 6, 7, 3]])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder, "new", "run"))
        loaded = TransformerForSequenceClassification.from_pretrained(Path(folder, "new", "run"))
    assert loaded.config == model.config and not loaded.training
    assert isinstance(loaded, PreTrained)
    assert torch.equal(loaded(input_ids), model(input_ids))


def test_model_config():
    wrong = {
        "vocab_size": (0, "at least 1"), "d_model": (0, "at least 1"), "num_heads": (5, "a divisor of d_model=12"),
        "d_ff": (-1, "at least 1"), "num_layers": (0, "at least 1"), "max_length": (0, "at least 1"),
        "dropout": (1.0, r"in \[0, 1\)"), "activation": ("tanh", r"\['gelu', 'relu'\]"),
        "positions": ("none", r"\['learned', 'sinusoidal'\]"), "padding_id": (31, "0 … 30"),
        "num_labels": (1, "at least 2"),
    }  # fmt: skip
    right = {"vocab_size": 31, "d_model": 12, "num_heads": 3}
    assert ModelConfig(**right) == replace(ModelConfig(**right, d_ff=20), d_ff=512)
    for name, (value, words) in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be .*{words}.*, got {value!r}"):
            ModelConfig(**(right | {name: value}))
    with pytest.raises(ValueError, match="d_model must be even for sinusoidal positions, got 9"):
        ModelConfig(vocab_size=31, d_model=9, num_heads=3, positions="sinusoidal")
    for name in ("norm_first", "fused", "num_heads"):
        with pytest.raises(
            (ValueError, TypeError), match=name
        ):  # pytest's own checks of types raise the other
            ModelConfig(**(right | {name: 1.5}))


def test_initialize():
    torch.manual_seed(0)
    linear, embedding, norm = (Linear(300, 200), nn.Embedding(400, 100, padding_idx=3), LayerNorm(7))
    nn.Sequential(linear, embedding, norm).apply(initialize)
    assert linear.bias.abs().max() == 0
    assert embedding.weight[3].abs().max() == 0, "the padding row must be zero"
    assert embedding.weight.requires_grad, "the table must stay trainable"
    for weight in (linear.weight, embedding.weight):  # 0.02 up to four standard errors
        assert abs(weight.std().item() - 0.02) < 4 * 0.02 / math.sqrt(2 * weight.numel()) + 1e-4
        assert abs(weight.mean().item()) < 4 * 0.02 / math.sqrt(weight.numel())
    assert (norm.weight == 1).all(), "other modules keep their start"


def test_model_starts_undecided():
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(vocab_size=31, num_labels=3)).eval()
    assert model.classifier.bias.abs().max() == 0 and model.encoder.embedding.weight[0].abs().max() == 0
    assert model(torch.randint(1, 31, (5, 7))).softmax(-1).sub(1 / 3).abs().max() < 0.2


def test_loading_refuses_broken_folders():
    def refuses(words: str) -> None:
        with pytest.raises(ValueError, match=words):
            TransformerForSequenceClassification.from_pretrained(folder)

    with tempfile.TemporaryDirectory() as folder:
        refuses("config.json cannot be read: No such file")
        small_model().float().save_pretrained(folder)
        weights, config = Path(folder, "model.safetensors"), Path(folder, "config.json")
        good = config.read_text()
        config.write_text(good.replace('"d_ff": 20', '"d_ff": 24'))
        refuses(r"layers.0.feed_forward.linear1.bias is \[20\] in the file, \[24\] in the model")
        config.write_text(good.replace('"num_layers": 2', '"num_layers": 1'))
        refuses(r"layers.1.*in the file, missing in the model")
        for broken, words in ((good[:20], "not the config"), ("[]", "not the config"), ("{}", "vocab_size")):
            config.write_text(broken)
            refuses(words)
        config.write_text(good)
        weights.write_bytes(weights.read_bytes()[:5000])
        refuses("model.safetensors is not a complete safetensors file")
        weights.unlink()
        refuses("model.safetensors cannot be read: there is no such file")


def test_reading_the_parts():
    model = small_model().float()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        assert _read_model_config(Path(folder, "config.json")) == model.config
        other = small_model().float()
        nn.init.zeros_(other.classifier.weight)
        _load_weights(other, Path(folder, "model.safetensors"))
        assert torch.equal(other.classifier.weight, model.classifier.weight)


# chapters/day09_sprint.md · A second head, and the mean of the tokens
def test_token_head_is_tied():
    config = ModelConfig(vocab_size=31, d_model=12, num_heads=4, d_ff=20, max_length=16)
    model = TransformerForMaskedLM(config).double().eval()
    hidden = torch.randn(5, 12, dtype=torch.float64)
    logits = model.name_tokens(hidden)
    states = model.norm(F.gelu(model.transform(hidden)))
    expected = torch.stack([states @ model.encoder.embedding.weight[v] for v in range(31)], -1)
    torch.testing.assert_close(logits, expected + model.bias)
    logits.sum().backward()
    assert model.encoder.embedding.weight.grad.abs().sum() > 0, "the table learns from the output too"
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"encoder", "classifier", "transform", "norm", "bias"}
    texts, labels = torch.tensor([[2, 7, 3]]), model(torch.tensor([[2, 7, 3]]))
    assert labels.shape == (1, 2) and not model(texts).isnan().any()


def test_pooling():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, False]])
    assert _first_token(hidden, mask).tolist() == [[1.0, 2.0]]
    assert _mean_of_tokens(hidden, mask).tolist() == [[2.0, 4.0]], "padding does not count"
    assert _mean_of_tokens(hidden, ~(mask | True)).tolist() == [[0.0, 0.0]], "no token, no NaN"
    for pooling in _POOLINGS:
        config = ModelConfig(vocab_size=31, d_model=12, num_heads=4, d_ff=20, max_length=16, pooling=pooling)
        model = TransformerForSequenceClassification(config).double().eval()
        ids = torch.tensor([[2, 7, 9, 3, 0, 0]])
        expected = model.classifier(_POOLINGS[pooling](model.encoder(ids), ids != 0))
        torch.testing.assert_close(model(ids), expected)
        torch.testing.assert_close(model(ids), model(ids[:, :4]), msg="padding changes something")
    try:
        ModelConfig(vocab_size=9, pooling="max")
        raise AssertionError("max")
    except ValueError as error:
        assert str(error) == "pooling must be one of ['cls', 'mean'], got 'max'"


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def test_load_initial_names_what_is_wrong():
    size = ModelConfig(31, 8, 2, 12, num_layers=1, max_length=16)
    with tempfile.TemporaryDirectory() as folder:
        source, path = TransformerForMaskedLM(size), Path(folder, "model.safetensors")
        source.save_pretrained(folder)
        fresh = TransformerForSequenceClassification(replace(size, num_labels=2))
        assert load_initial(fresh, path) == [] and torch.equal(
            fresh.classifier.weight, source.classifier.weight
        )
        tensors = read_weights(path)
        assert tensors.keys() == source.state_dict().keys()
        headless, other = (Path(folder, "headless.safetensors"), TransformerForSequenceClassification(size))
        save_file({k: v for k, v in tensors.items() if k.startswith("encoder.")}, headless)
        head = other.classifier.weight.clone()
        assert load_initial(other, headless) == ["classifier.bias", "classifier.weight"], "they stay fresh"
        assert torch.equal(other.classifier.weight, head)
        deeper = TransformerForSequenceClassification(replace(size, num_layers=2))
        path.rename(path.with_name("other.safetensors"))
        path.write_bytes(b"nonsense")
        for model, name, reason in [
            (deeper, "other.safetensors", "does not fit the config: encoder.layers.1"),
            (fresh, "model.safetensors", "is not a complete safetensors file"),
            (fresh, "missing.safetensors", "there is no such file"),
        ]:
            try:
                load_initial(model, path.with_name(name))
                raise AssertionError(name)
            except ValueError as error:
                assert reason in str(error), error


# chapters/day11_deeper.md · What BERT has and our encoder lacked
def test_token_types_reach_the_classifier():
    torch.manual_seed(0)
    model = TransformerForSequenceClassification(ModelConfig(9, 12, 4, 20, type_vocab_size=2)).eval()
    ids, types = torch.tensor([[3, 5, 8]]), torch.tensor([[0, 1, 1]])
    expected = model.classify(model.encoder(ids, None, types), ids != 0)
    torch.testing.assert_close(model(ids, token_type_ids=types), expected)
    assert not torch.equal(model(ids), expected), "the types change the answer"


def test_model_config_checks_what_bert_needs():
    assert ModelConfig(9, layer_norm_eps=1e-12, embedding_norm=True, type_vocab_size=2).type_vocab_size == 2
    for name, value in (("layer_norm_eps", 0.0), ("layer_norm_eps", -1e-5), ("type_vocab_size", -1)):
        try:
            ModelConfig(9, **{name: value})
            raise AssertionError(f"{name}={value!r} was accepted")
        except ValueError as error:
            assert name in str(error) and repr(value) in str(error), error


# chapters/day11_deeper.md · The same settings, the same numbers
def test_require_says_what_is_allowed():
    _require(True, "size", 3, "odd")
    try:
        _require(4 % 2 == 1, "size", 4, "odd")
        raise AssertionError("an even size was accepted")
    except ValueError as error:
        assert str(error) == "size must be odd, got 4"


# chapters/workshop_weights.md · Cut, and put together again
def model_of_shards(seed: int = 0) -> TransformerForSequenceClassification:
    torch.manual_seed(seed)
    return TransformerForSequenceClassification(ModelConfig(31, 8, 2, 12))


def test_shards_are_the_same_weights() -> None:
    model = model_of_shards()
    with tempfile.TemporaryDirectory() as name:
        folder, whole = Path(name), Path(name, "model.safetensors")
        save_torch_state_dict(model.state_dict(), folder)
        assert _weight_files(whole) == [whole] and whole.is_file()
        save_torch_state_dict(model.state_dict(), folder, max_shard_size=2000)
        files = _weight_files(whole)
        assert len(files) > 3 and files == sorted(folder.glob("model-*.safetensors"))
        found = read_weights(whole)
        assert found.keys() == model.state_dict().keys()
        twin, theirs = model_of_shards(1), model_of_shards(2)  # other weights
        _load_weights(twin, whole)
        load_torch_model(theirs, folder, strict=True)  # Hugging Face's loader
        for name, value in model.state_dict().items():
            assert torch.equal(twin.state_dict()[name], value), name
            assert torch.equal(theirs.state_dict()[name], value), name
        half = {name: value.half() for name, value in model.state_dict().items()}
        save_torch_state_dict(half, folder)
        _load_weights(twin, whole)
        for name, value in twin.state_dict().items():
            assert value.dtype == torch.float32, name
            assert torch.equal(value, half[name].float()), name


def test_broken_shards_are_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, whole = Path(name), Path(name, "model.safetensors")
        weights = model_of_shards().state_dict()
        save_torch_state_dict(weights, folder, max_shard_size=2000)
        files = _weight_files(whole)
        files[1].unlink()
        with pytest.raises(ValueError, match=files[1].name):
            read_weights(whole)
        Path(folder, "copy").write_bytes(files[0].read_bytes())
        twice = {"weight_map": {"a": files[0].name, "b": "copy"}}
        for text, words in (
            ("[]", "is not the index"),
            ("{", "is not the index"),
            ('{"weight_map": {"a": "../x"}}', "outside its folder"),
            ('{"weight_map": {"a": ".."}}', "outside its folder"),
            (json.dumps(twice), "each once"),
        ):
            (folder / "model.safetensors.index.json").write_text(text)
            with pytest.raises(ValueError, match=words):
                read_weights(whole)
