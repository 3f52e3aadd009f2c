# Generated from chapters/day04_encoder_and_data.md; edit the chapter, not this file.
"""Models: the encoder with a head, its configuration, saving and loading."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minitransformer.encoder import POSITIONS, TransformerEncoder
from minitransformer.layers import ACTIVATIONS
from minitransformer.linear import Linear

__all__ = [
    "ModelConfig",
    "PreTrained",
    "TransformerForSequenceClassification",
    "initialize",
    "load_weights",
    "read_model_config",
]


# chapters/day04_encoder_and_data.md · One object for thirteen settings
def _field(config: object, name: str, description: str, allowed: Callable[[Any], bool]) -> None:
    """Refuse a field that is not of its annotated type, or not `allowed`, in one sentence."""
    value, kind = getattr(config, name), type(config).__annotations__[name]
    of_kind = type(value) is kind or (kind is float and type(value) is int)
    if not of_kind or not allowed(value):
        raise ValueError(f"{name} must be {description}, got {value!r}")


# chapters/day04_encoder_and_data.md · One object for thirteen settings
@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model, checked field by field when it is made."""

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

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "num_heads", "d_ff", "num_layers", "max_length"):
            _field(self, name, "an integer of at least 1", lambda value: value >= 1)
        even, last = self.positions != "sinusoidal" or self.d_model % 2 == 0, self.vocab_size - 1
        _field(self, "d_model", "even for sinusoidal positions", lambda _: even)
        _field(
            self, "num_heads", f"a divisor of d_model={self.d_model}", lambda value: self.d_model % value == 0
        )
        _field(self, "dropout", "a number in [0, 1)", lambda value: 0 <= value < 1)
        _field(self, "activation", f"one of {sorted(ACTIVATIONS)}", lambda value: value in ACTIVATIONS)
        _field(self, "norm_first", "true or false", lambda _: True)
        _field(self, "positions", f"one of {sorted(POSITIONS)}", lambda value: value in POSITIONS)
        _field(self, "padding_id", f"an integer in 0 … {last}", lambda value: 0 <= value <= last)
        _field(self, "fused", "true or false", lambda _: True)
        _field(self, "num_labels", "an integer of at least 2", lambda value: value >= 2)


# chapters/day04_encoder_and_data.md · How the weights start
def initialize(module: nn.Module) -> None:
    """BERT's initialisation: weights normal with standard deviation 0.02, biases and the padding row zero.

    Meant for `model.apply(initialize)`; other modules keep what their constructor gave them.
    """
    if isinstance(module, Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


# chapters/day04_encoder_and_data.md · Saving: no pickles
def read_model_config(path: Path) -> ModelConfig:
    """The `ModelConfig` in a JSON file; a missing or broken file is a ValueError of one sentence."""
    try:
        return ModelConfig(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (TypeError, ValueError) as error:  # no JSON, or not the fields of a ModelConfig
        raise ValueError(f"{path} is not the config of a model: {error}") from None


# chapters/day04_encoder_and_data.md · Saving: no pickles
def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` with the tensors of a safetensors file, which must fit name by name and shape by shape.

    Raises:
        ValueError: one sentence, if the file is missing or broken, or about the first tensor that does not fit.
    """
    try:
        found = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path} cannot be read: there is no such file") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        ours, theirs = (list(state[name].shape) if name in state else "missing" for state in (wanted, found))
        if ours != theirs:
            raise ValueError(
                f"{path} does not fit the config: {name} is {theirs} in the file, {ours} in the model"
            )
    model.load_state_dict(found)


# chapters/day04_encoder_and_data.md · Saving: no pickles
_Model = TypeVar("_Model", bound="PreTrained")


# chapters/day04_encoder_and_data.md · Saving: no pickles
class PreTrained(nn.Module):
    """A model that is built from a `config`, and can be saved to a folder and loaded from it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into `folder`, which is made if it is missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self.config), indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls: type[_Model], folder: str | Path) -> _Model:
        """Build the model that `save_pretrained` left in `folder`, in evaluation mode (no dropout).

        Raises:
            ValueError: one sentence, if a file is missing or broken or the weights do not fit the config.
        """
        model = cls(read_model_config(Path(folder, "config.json")))
        load_weights(model, Path(folder, "model.safetensors"))
        return model.eval()


# chapters/day04_encoder_and_data.md · The model
class TransformerForSequenceClassification(PreTrained):
    """The encoder, and a linear layer that turns the vector of the first token, [CLS], into one logit per label.

    Source: the classifier of BERT (Devlin et al., 2019, section 4.1), without its pooling layer.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        settings = asdict(config)
        num_labels = settings.pop("num_labels")
        self.encoder = TransformerEncoder(**settings)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = Linear(config.d_model, num_labels)
        self.apply(initialize)

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B labels"]:
        """Logits, one row per sequence; the mask is True on real tokens."""
        hidden = self.encoder(input_ids, attention_mask)
        return self.classifier(self.dropout(hidden[:, 0]))
