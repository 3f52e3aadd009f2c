# Generated from chapters/day11_deeper.md; edit the chapter, not this file.
"""Weights and tokenizers from and to BERT as Hugging Face keeps it."""

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, models, normalizers
from torch import Tensor

from minitransformer.encoder import TransformerEncoder
from minitransformer.model import ModelConfig, _require, read_weights
from minitransformer.tokenizer import SPECIAL_TOKENS, _bert_backend

__all__ = ["config_from_bert", "config_to_bert", "from_bert", "from_pretrained", "read_bert", "to_bert"]

# chapters/day11_deeper.md · Two lists of names
_EMBEDDING_NAMES = {
    "embeddings.word_embeddings.weight": "embedding.weight",
    "embeddings.position_embeddings.weight": "positions.encoding",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "embedding_norm.weight",
    "embeddings.LayerNorm.bias": "embedding_norm.bias",
}

_LAYER_NAMES = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "feed_forward.linear1",
    "output.dense": "feed_forward.linear2",
    "output.LayerNorm": "norm2",
}


def _bert_names(num_layers: int) -> dict[str, str]:
    """Every parameter of `BertModel`, and its name in `TransformerEncoder`."""
    names = dict(_EMBEDDING_NAMES)
    for i in range(num_layers):
        for theirs, ours in _LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                name = f"encoder.layer.{i}.{theirs}.{kind}"
                names[name] = f"layers.{i}.{ours}.{kind}"
    return names


def from_bert(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The weights of a BERT under the names of `TransformerEncoder`, without its heads.

    Raises:
        ValueError: about the first weight that is missing, there twice or has no place.
    """
    plain: dict[str, str] = {}  # BERT's name: the name in the file
    for name in state:
        short = re.sub(r"^((module|_orig_mod|bert)\.)+", "", name)
        short = re.sub("gamma$", "weight", re.sub("beta$", "bias", short))
        if short in plain:
            raise ValueError(f"{short} is there twice, as {plain[short]} and as {name}")
        plain[short] = name
    names = _bert_names(num_layers)
    _refuse_other_models(names, plain, num_layers)
    return {ours: state[plain[theirs]] for theirs, ours in names.items()}


def to_bert(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The way back: a `TransformerEncoder`'s weights under the names of `BertModel`."""
    return {theirs: state[ours] for theirs, ours in _bert_names(num_layers).items()}


def _refuse_other_models(names: dict[str, str], plain: dict[str, str], num_layers: int) -> None:
    """Refuse a file that lacks a wanted name, or has one of the encoder's that is not wanted."""
    wanted = f"these are not the weights of a BERT of {num_layers} layers"
    if missing := [name for name in names if name not in plain]:
        there = ", ".join(list(plain.values())[:3]) or "none"
        raise ValueError(f"{wanted}: {missing[0]} is missing; the first names there are {there}")
    no_weights = {"embeddings.position_ids", "embeddings.token_type_ids"}
    for short in plain.keys() - names.keys() - no_weights:
        if short.startswith(("embeddings.", "encoder.")):
            raise ValueError(f"{wanted}: {plain[short]} has no place in it")


# chapters/day11_deeper.md · The same settings, the same numbers
_CONFIG_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "num_layers",
    "max_position_embeddings": "max_length",
    "hidden_dropout_prob": "dropout",
    "hidden_act": "activation",
    "layer_norm_eps": "layer_norm_eps",
    "type_vocab_size": "type_vocab_size",
    "pad_token_id": "padding_id",
}

_BERT_DEFAULTS = dict(  # what a config.json leaves out is as in BERT-base
    zip(_CONFIG_NAMES, (30522, 768, 12, 3072, 12, 512, 0.1, "gelu", 1e-12, 2, 0), strict=True)
)


def config_from_bert(settings: dict[str, Any]) -> ModelConfig:
    """The `ModelConfig` of a BERT's `config.json`.

    Raises:
        ValueError: if it is another kind of model, or a setting is not one of ours.
    """
    if not isinstance(settings, dict):
        raise ValueError(f"the config of a BERT must be an object of names and values, got {settings!r:.40}")
    fixed = {"model_type": "bert", "position_embedding_type": "absolute"}
    for name, wanted in (fixed | {"is_decoder": False, "add_cross_attention": False}).items():
        _require(
            settings.get(name, wanted) == wanted, name, settings.get(name), f"{wanted!r} for our encoder"
        )
    found = {ours: settings.get(theirs, _BERT_DEFAULTS[theirs]) for theirs, ours in _CONFIG_NAMES.items()}
    if (rate := settings.get("attention_probs_dropout_prob", 0.1)) != found["dropout"]:
        warnings.warn(
            f"attention_probs_dropout_prob is {rate}, but our encoder has one dropout, "
            f"hidden_dropout_prob: {found['dropout']}",
            stacklevel=2,
        )
    try:
        return ModelConfig(**found, norm_first=False, embedding_norm=True)
    except ValueError as error:
        names = {ours: theirs for theirs, ours in _CONFIG_NAMES.items()}
        name = names.get(str(error).split()[0], "a value")
        raise ValueError(f"{name} in the config of a BERT: {error}") from None


def config_to_bert(config: ModelConfig) -> dict[str, Any]:
    """The settings of the BERT that computes what an encoder of this config does.

    Raises:
        ValueError: if there is none, because a setting is not BERT's.
    """
    wanted = {"norm_first": False, "embedding_norm": True, "positions": "learned"}
    for name, value in wanted.items():
        _require(getattr(config, name) == value, name, getattr(config, name), f"{value!r} in a BERT")
    _require(config.type_vocab_size >= 1, "type_vocab_size", config.type_vocab_size, "at least 1 in a BERT")
    found = {theirs: getattr(config, ours) for theirs, ours in _CONFIG_NAMES.items()}
    return found | {"model_type": "bert", "attention_probs_dropout_prob": config.dropout}


# chapters/day11_deeper.md · Real weights, and their tokenizer
def _plain_normalizer(**casing: bool | None) -> normalizers.Normalizer:
    """BERT's lower case, or its normalizer's own `casing`; then plain spelling.

    What a treebank tore apart is joined, "do n't" to "don't", and a line break of HTML
    becomes a space.
    """
    return normalizers.Sequence(
        [
            normalizers.BertNormalizer(**cast(Any, casing)),
            normalizers.Replace(Regex(r"(?i)<br\s*/?>"), " "),
            normalizers.Replace(Regex(r"(?<=\w) n't\b"), "n't"),
            normalizers.Replace("-lrb-", "("),
            normalizers.Replace("-rrb-", ")"),
        ]
    )


def _wordpiece(tokens: Sequence[str], **casing: bool | None) -> Tokenizer:
    """The library's WordPiece tokenizer of a vocabulary, with `_plain_normalizer`."""
    ids = {token: i for i, token in enumerate(tokens)}
    backend = _bert_backend(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = _plain_normalizer(**casing)
    return backend


def _kept_pieces(tokens: Sequence[str], texts: Iterable[str], size: int, **casing: bool | None) -> list[str]:
    """At most `size` pieces of a BERT vocabulary: special tokens, single characters, then those that `texts` use most.

    Special tokens come first, where our tokenizers want them; the rest keeps the vocabulary's order.

    Raises:
        ValueError: if a special token is missing, or `size` is too small, or texts are needed and there are none.
    """
    for token in SPECIAL_TOKENS:
        _require(token in tokens, "vocab.txt", f"{len(tokens)} lines", f"a vocabulary with {token}")
    needed = [t for t in tokens if len(t.removeprefix("##")) == 1 and t.isascii()]
    room = size - len(SPECIAL_TOKENS) - len(needed)
    _require(
        room >= 0, "vocab_size", size, f"at least {size - room}, the special tokens and single characters"
    )
    counts: Counter[str] = Counter()
    if size < len(tokens):
        full = _wordpiece(tokens, **casing)
        for text in texts:
            counts.update(full.encode(text, add_special_tokens=False).tokens)
        _require(bool(counts), "texts", "none", "given, to choose the entries by")
    others = sorted(set(tokens) - set(needed) - set(SPECIAL_TOKENS), key=lambda t: (-counts[t], t))
    chosen = {*needed, *others[:room]}
    return [*SPECIAL_TOKENS, *(token for token in tokens if token in chosen)]


_BERT_FILES = (
    *("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("vocab.txt", "tokenizer_config.json", "tokenizer.json"),
)


def _bert_folder(source: str | Path) -> Path:
    """The folder of a BERT: a local one, or else the files of that name on the Hugging Face hub.

    Raises:
        ValueError: one sentence, if there is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(_BERT_FILES)))
    except Exception as error:  # no network, no such model, no such name
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{source} is neither a folder nor to be had from the hub: {reason}") from None


def _source_name(source: str | Path) -> str:
    """What a record calls the source of weights: the name on the hub, or of the folder, never a path."""
    return Path(source).resolve().name if Path(source).is_dir() else str(source)


def _text(path: Path) -> str:
    """The text of a file in the folder of a BERT, without a byte-order mark."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.parent} is not the folder of a BERT: {path.name}: {error}") from None
    if text.startswith("version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` there")
    return text


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of the folder of a BERT."""
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.parent} is not the folder of a BERT: {path.name} is not JSON: {error}"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.parent} is not the folder of a BERT: {path.name} is not a JSON object")
    return found


def _casing(folder: Path) -> dict[str, bool | None]:
    """What the tokenizer of a BERT does to letters, for `BertNormalizer`; one of another kind is refused."""
    paths = (folder / "tokenizer_config.json", folder / "tokenizer.json")
    config, whole = (_json(path) if path.exists() else {} for path in paths)
    known = (None, "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
    parts = {"normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}
    allowed: dict[str, tuple[object, ...]] = {"tokenizer_class": known, "never_split": (None, [])}
    allowed |= {"do_basic_tokenize": (None, True), "do_lower_case": (None, True, False)}
    allowed |= {name: (None, True, False) for name in ("strip_accents", "tokenize_chinese_chars")}
    allowed |= {f"{token.strip('[]').lower()}_token": (None, token) for token in SPECIAL_TOKENS}
    for name, values in allowed.items():
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        _require(value in values, f"{paths[0]}: {name}", value, f"one of {list(values)}")
    for name, kind in parts.items() if whole else ():
        found = (whole.get(name) or {}).get("type")
        _require(found == kind, f"{paths[1]}: the type of {name}", found, kind)
    added = [*(config.get("added_tokens_decoder") or {}).values(), *(whole.get("added_tokens") or [])]
    for token in added:
        content = token.get("content")
        _require(content in SPECIAL_TOKENS, f"{folder}: an added token", content, "one of BERT's five")
    says = whole.get("normalizer", {})
    _require(says.get("clean_text", True), f"{paths[1]}: clean_text", False, "true")
    first = {"lowercase": "do_lower_case", "handle_chinese_chars": "tokenize_chinese_chars"}
    casing = {"lowercase": True, "handle_chinese_chars": True, "strip_accents": None}
    return {n: config.get(first.get(n, n), says.get(n, value)) for n, value in casing.items()}


def read_bert(folder: str | Path) -> tuple[ModelConfig, list[str], dict[str, Tensor]]:
    """Config, vocabulary and weights (float32, under our names) in the folder of a BERT.

    Raises:
        ValueError: one sentence, if a file is missing, broken, or not that of a BERT.
    """
    folder = Path(folder)
    config = config_from_bert(_json(folder / "config.json"))
    lines = _text(folder / "vocab.txt").removesuffix("\n").split("\n")  # no other character ends a line
    tokens = [line.removesuffix("\r") for line in lines]
    token, count = Counter(tokens).most_common(1)[0]
    _require(count == 1, f"{folder}: a token of vocab.txt", token, f"there once, not {count} times")
    if len(tokens) > config.vocab_size:
        raise ValueError(
            f"{folder}: vocab.txt has {len(tokens)} lines, but the model {config.vocab_size} entries"
        )
    for token in SPECIAL_TOKENS:
        _require(
            token in tokens, f"{folder}: vocab.txt", f"{len(tokens)} lines", f"a vocabulary with {token}"
        )
    path = folder / "model.safetensors"
    if not path.is_file() and not path.with_name(f"{path.name}.index.json").is_file():
        kinds = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt", ".index")
        others = sorted(other.name for other in folder.iterdir() if other.suffix in kinds)
        raise ValueError(
            f"{folder} has no model.safetensors{', only ' + ', '.join(others) if others else ''}: "
            "load it with transformers and write one with save_pretrained; other formats are not read here"
        )
    weights = from_bert(read_weights(path), config.num_layers)
    with torch.device("meta"):
        shapes = _encoder(config).state_dict()
    theirs = {ours: theirs for theirs, ours in _bert_names(config.num_layers).items()}
    for name, value in weights.items():
        ours, fits = (shapes[name].shape if name in shapes else "missing", f"{path}: {theirs[name]}")
        _require(value.shape == ours, fits, list(value.shape), f"{list(ours)} to fit config.json")
        _require(value.is_floating_point(), fits, str(value.dtype), "of a floating-point type")
        _require(bool(value.isfinite().all()), fits, "NaN or infinity", "finite")
    return config, tokens, {name: value.float() for name, value in weights.items()}


def _encoder(config: ModelConfig) -> TransformerEncoder:
    """A fresh encoder of a config."""
    settings = asdict(config)
    del settings["num_labels"], settings["pooling"]  # the two that belong to the head
    return TransformerEncoder(**settings)


def from_pretrained(source: str | Path) -> TransformerEncoder:
    """The encoder with the weights of a BERT, a folder or a hub's name; no dropout.

    Raises:
        ValueError: if there is no BERT, or its weights do not fit its config.
    """
    config, _, weights = read_bert(_bert_folder(source))
    encoder = _encoder(config)
    encoder.load_state_dict(weights)
    return encoder.eval()
