"""How the rounded models of the page do beside the package's: `python -m book.play measure`, recorded in book/runs/play.json."""

import json
from pathlib import Path

import torch

from book.play.weights import MODELS, rounded_weights
from book.press.floors import ROOT
from minitransformer.data import collate, load_sst2, load_sst2_test
from minitransformer.evaluate import predict
from minitransformer.experiment.folder import load_run

RECORD = ROOT / "book" / "runs" / "play.json"


def logits(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """The logits of texts in their order, computed in batches of similar length."""
    items = sorted(
        ((tokenizer.encode(text), i) for i, text in enumerate(texts)), key=lambda item: len(item[0])
    )
    parts = (collate(items[i : i + 32], tokenizer.padding_id) for i in range(0, len(items), 32))
    found, places = predict(model, parts)
    return found[places.argsort()]


def measured(name: str) -> dict[str, float]:
    """Accuracy on validation and test before and after rounding, and the share of verdicts that stay."""
    _, model, tokenizer = load_run(MODELS[name])
    splits = {"validation": load_sst2("validation"), "test": load_sst2_test()}
    texts = [text for split in splits.values() for text in split.texts]
    labels = torch.tensor([label for split in splits.values() for label in split.labels])
    exact = logits(model, tokenizer, texts)
    model.load_state_dict(rounded_weights(name, model.state_dict()))
    rounded = logits(model, tokenizer, texts)
    same = exact.argmax(-1) == rounded.argmax(-1)
    shares = (exact.softmax(-1) - rounded.softmax(-1)).abs()[:, 1]
    record = {
        "texts": len(texts),
        "same_verdict": same.float().mean().item(),
        "mean_difference": shares.mean().item(),
    }
    cut = len(splits["validation"])
    for split, place in (("validation", slice(None, cut)), ("test", slice(cut, None))):
        for kind, found in (("exact", exact), ("page", rounded)):
            right = found[place].argmax(-1) == labels[place]
            record[f"{split}_{kind}"] = right.float().mean().item()
    return record


def record(path: Path = RECORD) -> dict[str, dict[str, float]]:
    """Measure both models and write what was found."""
    found = {name: measured(name) for name in MODELS}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
