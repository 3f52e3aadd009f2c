# Generated from chapters/day04_encoder_and_data.md, chapters/day09_sprint.md, chapters/day11_deeper.md, chapters/workshop_weights.md; edit the chapters, not this file.
"""Models: the encoder with a head for labels or for hidden tokens, configuration, saving and loading."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minitransformer.attention import _setting
from minitransformer.encoder import TransformerEncoder, _check_encoder
from minitransformer.layers import ACTIVATIONS, LayerNorm
from minitransformer.linear import Linear

__all__ = [
    "ModelConfig", "PreTrained", "TransformerForMaskedLM", "TransformerForSequenceClassification",
    "initialize", "load_initial", "read_weights",
]  # fmt: skip


# chapters/day11_deeper.md · What BERT has and our encoder lacked
@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model, checked field by field when it is made.

    That is what `TransformerEncoder` takes, the number of labels, and pooling: "cls"
    (the first token's vector is judged) or "mean" (that of all).
    """

    vocab_size: int
    d_model: int = 128
    num_heads: int = 4
    d_ff: int = 512
    num_layers: int = 2
    max_length: int = 128
    dropout: float = 0.1
    activation: str = "gelu"
    norm_first: bool = True
    positions: str = "learned"
    padding_id: int = 0
    fused: bool = True
    num_labels: int = 2
    pooling: str = "cls"
    layer_norm_eps: float = 1e-5
    embedding_norm: bool = False
    type_vocab_size: int = 0

    def __post_init__(self) -> None:
        _check_encoder(vars(self))
        _setting("num_labels", self.num_labels, int, "an integer of at least 2", lambda value: value >= 2)
        _setting(
            "pooling", self.pooling, str, f"one of {sorted(_POOLINGS)}", lambda value: value in _POOLINGS
        )


# chapters/day04_encoder_and_data.md · How the weights start
def initialize(module: nn.Module) -> None:
    """BERT's start: weights normal, deviation 0.02; biases and the padding row zero.

    Meant for `model.apply(initialize)`; other modules keep what they have.
    """
    if isinstance(module, Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


# chapters/day04_encoder_and_data.md · Saving: no pickles
def _read_model_config(path: Path) -> ModelConfig:
    """The `ModelConfig` in a JSON file; a missing or broken file is a ValueError of one sentence."""
    try:
        return ModelConfig(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (TypeError, ValueError) as error:  # no JSON, or not the fields of a ModelConfig
        raise ValueError(f"{path} is not the config of a model: {error}") from None


# chapters/workshop_weights.md · Cut, and put together again
def _load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` with the tensors of a safetensors file, which must fit name by name and shape by shape.

    Half precision is widened to the model's own type.

    Raises:
        ValueError: one sentence, if the file is missing or broken, or about the first tensor that does not fit.
    """
    found, wanted = read_weights(path), model.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        ours, theirs = (list(state[name].shape) if name in state else "missing" for state in (wanted, found))
        if ours != theirs:
            raise ValueError(
                f"{path} does not fit the config: {name} is {theirs} in the file, {ours} in the model"
            )
    model.load_state_dict(found)


# chapters/day04_encoder_and_data.md · Saving: no pickles
_Model = TypeVar("_Model", bound="PreTrained")


class PreTrained(nn.Module):
    """A model that is built from a `config`, saved to a folder and loaded from it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into `folder` (made here)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self.config), indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls: type[_Model], folder: str | Path) -> _Model:
        """The model that `save_pretrained` left in `folder`, in evaluation mode.

        Raises:
            ValueError: one sentence, if a file is missing, broken or does not fit.
        """
        model = cls(_read_model_config(Path(folder, "config.json")))
        _load_weights(model, Path(folder, "model.safetensors"))
        return model.eval()


# chapters/day11_deeper.md · What BERT has and our encoder lacked
class TransformerForSequenceClassification(PreTrained):
    """The encoder, and a linear layer that turns one vector per text into one logit per label.

    `config.pooling` says which vector: that of the first token, [CLS], or the mean over all real tokens.
    Source: the classifier of BERT (Devlin et al., 2019, section 4.1), without its tanh layer.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        settings = asdict(config)
        num_labels, pooling = settings.pop("num_labels"), settings.pop("pooling")
        self.encoder = TransformerEncoder(**settings)
        self.pool = _POOLINGS[pooling]
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = Linear(config.d_model, num_labels)
        self.apply(initialize)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B labels"]:
        """Logits, one row per sequence; the mask is True on real tokens."""
        if attention_mask is None:
            attention_mask = input_ids != self.config.padding_id
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        return self.classify(hidden, attention_mask)

    def classify(
        self, hidden: Float[Tensor, "B T C"], attention_mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B labels"]:
        """Logits from what the encoder made of a batch."""
        return self.classifier(self.dropout(self.pool(hidden, attention_mask)))


# chapters/day09_sprint.md · A second head, and the mean of the tokens
def _first_token(hidden: Float[Tensor, "B T C"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B C"]:
    """The vector of the first token, [CLS]."""
    return hidden[:, 0]


def _mean_of_tokens(
    hidden: Float[Tensor, "B T C"], attention_mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B C"]:
    """The mean of the vectors of all real tokens; zeros for a text that has none."""
    if attention_mask.shape != hidden.shape[:2]:
        raise ValueError(
            f"attention_mask must have shape [B, T] = {list(hidden.shape[:2])}, "
            f"got {list(attention_mask.shape)}"
        )
    weights = attention_mask.to(hidden.dtype)
    return (hidden * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)


_POOLINGS = {"cls": _first_token, "mean": _mean_of_tokens}


class TransformerForMaskedLM(TransformerForSequenceClassification):
    """The encoder with two heads: one names hidden tokens, the other labels the text.

    The token head is BERT's: a layer, the activation, LayerNorm, and the embedding
    table itself as output (Devlin et al., 2019, section 3.1; Press and Wolf, 2017).
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.transform = Linear(config.d_model, config.d_model)
        norms = (m.eps for m in self.encoder.modules() if isinstance(m, LayerNorm))
        eps = next(norms)  # the encoder's own; Day 11 sets another
        self.norm = LayerNorm(config.d_model, eps, config.fused)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialize(self.transform)  # not yet there when the base class did the rest

    def name_tokens(self, hidden: Float[Tensor, "N C"]) -> Float[Tensor, "N V"]:
        """One logit per entry of the vocabulary, for each of N vectors."""
        states = self.norm(ACTIVATIONS[self.config.activation](self.transform(hidden)))
        return F.linear(states, self.encoder.embedding.weight, self.bias)


# chapters/day09_sprint.md · Weights and tokenizer from a folder
def load_initial(model: PreTrained, path: str | Path) -> list[str]:
    """Fill `model` with what it shares with a pretrained model's safetensors file.

    All of the encoder must be there and fit; heads are taken where both have them.
    Returns the names of the tensors that keep their fresh values.

    Raises:
        ValueError: one sentence, about the file or the first tensor that does not fit.
    """
    found, wanted = read_weights(path), model.state_dict()
    for name in sorted(wanted):
        ours, theirs = (list(wanted[name].shape), list(found[name].shape) if name in found else "missing")
        if ours != theirs and (theirs != "missing" or name.startswith("encoder.")):
            raise ValueError(
                f"{path} does not fit the config: {name} is {theirs} in the file, {ours} in the model"
            )
    shared = {name: found[name] for name in wanted if name in found}
    model.load_state_dict(wanted | shared)
    return sorted(wanted.keys() - shared.keys())


# chapters/workshop_weights.md · Cut, and put together again
def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of the several files that its index names.

    Raises:
        ValueError: one sentence, if a file is missing or broken.
    """
    found: dict[str, Tensor] = {}
    for file in _weight_files(Path(path)):
        part = _read_file(file)
        if found.keys() & part.keys():
            index = f"{path}.index.json"
            raise ValueError(f"{index}: its files must hold the tensors each once")
        found |= part
    return found


# chapters/day11_deeper.md · The same settings, the same numbers
def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a setting with one sentence that names it, what it was and what it may be."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


# chapters/workshop_weights.md · Cut, and put together again
def _weight_files(path: Path) -> list[Path]:
    """The safetensors file `path`, or, if it is not there, the several files that its index names."""
    index = path.with_name(path.name + ".index.json")
    if path.is_file() or not index.is_file():
        return [path]
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
        inside = all(Path(n).name == n not in ("", "..") for n in names)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index} is not the index of a model's files") from None
    if not inside:
        raise ValueError(f"{index} names a file outside its folder")
    return [path.with_name(name) for name in names]


def _read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path} cannot be read: there is no such file") from None
    except (OSError, SafetensorError) as error:
        if path.is_file() and path.read_bytes()[:23] == b"version https://git-lfs":
            raise ValueError(
                f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` there"
            ) from None
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
