"""Weights for the model inside the page: small whole numbers with one scale for each row, as text in scripts.

A script in UTF-16 holds fifteen bits in each character, where base64 would hold six in each byte: the shipped model
stays below 20 MB, and a page that was opened from the disk can load it. `encoder.js` reads it back.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from book.press.floors import ROOT
from minitransformer.model import read_weights
from minitransformer.tokenizer import load_tokenizer

MODELS = {"first": ROOT / "book/runs/sst2_scratch", "shipped": ROOT / "book/runs/shipped"}
PIECE = 3_735_000  # bytes, a multiple of 15, of a piece before they become text: below 4 MB after
FIRST_CHARACTER = 0x3000  # up to 0xAFFF: no quotes, no line ends, no halves of characters
EMBEDDING = "encoder.embedding.weight"
EMBEDDING_BITS = {
    "first": 6
}  # its table is nine tenths of the first model, which is to stay below a megabyte


def rounded(value: Tensor, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a matrix as whole numbers from -m to m, m = 2^(bits-1) - 1, and the scale of each row."""
    rows = value.float().numpy()
    largest = 2 ** (bits - 1) - 1
    scales = (np.abs(rows).max(1) / largest).astype(np.float32)
    scales[scales == 0] = 1
    return np.rint(rows / scales[:, None]).astype(np.int16), scales


def width(model: str, name: str, value: Tensor, exact: bool) -> int:
    """How many bits a number of a tensor gets: matrices are rounded, vectors and the classifier stay floats."""
    if exact or value.dim() < 2 or name.startswith("classifier"):
        return 32
    return EMBEDDING_BITS.get(model, 8) if name == EMBEDDING else 8


def packed(value: Tensor, bits: int) -> bytes:
    if bits == 32:
        return value.float().numpy().astype("<f4").tobytes()
    whole, scales = rounded(value, bits)
    positive = (whole + 2 ** (bits - 1) - 1).astype(np.uint8).reshape(-1, 1)
    return (
        scales.astype("<f4").tobytes() + np.packbits(np.unpackbits(positive, axis=1)[:, 8 - bits :]).tobytes()
    )


def as_text(data: bytes) -> str:
    """Fifteen bits in each character."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.concatenate([bits, np.zeros(-len(bits) % 15, np.uint8)]).reshape(-1, 15)
    codes = bits.astype(np.uint16) @ (1 << np.arange(14, -1, -1)).astype(np.uint16)
    return (codes + FIRST_CHARACTER).astype("<u2").tobytes().decode("utf-16-le")


def rounded_weights(model: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the page computes with: the weights after rounding."""
    found = {}
    for name, value in state.items():
        bits = width(model, name, value, exact=False)
        if bits < 32:
            whole, scales = rounded(value, bits)
            value = torch.from_numpy(whole * scales[:, None])
        found[name] = value.float()
    return found


def replacements(folder: Path) -> list[list[str]] | None:
    """The replacements of a tokenizer of pieces after BERT's normalizer, as patterns for the page; None for one of words."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if "model" not in content:
        return None
    first, *replacing = content["normalizer"]["normalizers"]
    if first["type"] != "BertNormalizer" or any(step["type"] != "Replace" for step in replacing):
        raise ValueError(f"{folder}: the page knows BERT's normalizer and then replacements, not this one")
    return [
        [step["pattern"].get("Regex") or step["pattern"]["String"], step["content"]] for step in replacing
    ]


def scripts(model: str, folder: Path, exact: bool = False) -> Iterator[tuple[str, str, str]]:
    """Name, encoding and text of each script of a model: first what it is, then its weights in pieces."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["positions"] != "learned":
        raise ValueError(f"{folder}: the page knows learned positions only, got {config['positions']!r}")
    state, tokenizer = read_weights(folder / "model.safetensors"), load_tokenizer(folder / "tokenizer.json")
    tensors, stream = [], b""
    parts = []
    for name, value in state.items():
        bits = width(model, name, value, exact)
        tensors.append({"name": name, "shape": list(value.shape), "width": bits})
        parts.append(packed(value, bits))
    stream = b"".join(parts)
    pieces = [stream[i : i + PIECE] for i in range(0, len(stream), PIECE)]
    header = {
        "config": config,
        "tensors": tensors,
        "pieces": len(pieces),
        "max_length": tokenizer.max_length,
        "tokens": " ".join(tokenizer.vocabulary.tokens),
        "replacements": replacements(folder),
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    yield f"{model}.js", "utf-8", f'play.model("{model}", {text});\n'
    for i, piece in enumerate(pieces):
        yield f"{model}-{i}.js", "utf-16", f'play.piece("{model}", {i}, "{as_text(piece)}");\n'


def write(target: Path) -> None:
    """The scripts of both models into a folder, unless they are there already."""
    sources = [Path(__file__)] + [
        p for folder in MODELS.values() for p in sorted(folder.glob("*.safetensors"))
    ]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = target / "state.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
        return
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.js"):
        old.unlink()
    for model, folder in MODELS.items():
        for name, encoding, text in scripts(model, folder):
            (target / name).write_text(text, encoding=encoding)
    stamp.write_text(state, encoding="utf-8")


def megabytes(model: str) -> int:
    """How much a reader loads for the weights of a model."""
    state = read_weights(MODELS[model] / "model.safetensors")
    bits = sum(value.numel() * width(model, name, value, exact=False) for name, value in state.items())
    return round(bits / 15 * 2 / 1e6)
