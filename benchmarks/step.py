"""A whole training step beside one of BERT's: `python -m benchmarks.step` prints one table, measured on the machine at hand.

Forward, backward, clipping and update of two models, the shipped one and that of `configs/sst2_scratch.yaml`, on SST-2's
phrases where they are present: ours as runs train it (texts of similar length together, AdamW fused), ours with the plain
AdamW, and `transformers.BertForSequenceClassification` of the same sizes, with the plain AdamW on the same batches and on
batches of mixed lengths. The ways take turns batch by batch, so that other work on the machine hits all alike.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from benchmarks.loader import throughput
from minitransformer.cli import SHIPPED
from minitransformer.data import EpochSampler, Examples, collate, load_examples, sst2_is_present
from minitransformer.experiment.folder import machine_state
from minitransformer.experiment.settings import RunConfig, read_settings
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import Vocabulary, WordTokenizer
from minitransformer.train import choose_device, train_step

CONFIGS = {
    "shipped": SHIPPED / "config.yaml",
    "sst2_scratch": Path(__file__).resolve().parents[1] / "configs" / "sst2_scratch.yaml",
}
WAYS = {  # model, whether AdamW is fused, whether texts of similar length stand together
    "ours": ("ours", True, True),
    "ours, plain AdamW": ("ours", False, True),
    "BERT, plain AdamW": ("BERT", False, True),
    "BERT, plain AdamW, mixed lengths": ("BERT", False, False),
}


class BertTwin(nn.Module):
    """Hugging Face's BERT of the same sizes, called as ours is."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        settings = {
            "vocab_size": config.vocab_size,
            "hidden_size": config.d_model,
            "num_attention_heads": config.num_heads,
            "intermediate_size": config.d_ff,
            "num_hidden_layers": config.num_layers,
            "max_position_embeddings": config.max_length,
            "attn_implementation": "sdpa",
        }
        settings |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), config.dropout)
        self.bert = transformers.BertForSequenceClassification(transformers.BertConfig(**settings))

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        return self.bert(input_ids, attention_mask=mask).logits


MODELS = {"ours": TransformerForSequenceClassification, "BERT": BertTwin}


def steps(
    config: ModelConfig, examples: Examples, batch_size: int, device: torch.device
) -> dict[str, Callable[[int], int]]:
    """What makes update number n in each way, and returns how many real tokens it saw."""
    vocabulary = Vocabulary.from_texts(examples.texts, max_size=config.vocab_size)
    tokenizer = WordTokenizer(vocabulary, config.max_length)
    ids = [tokenizer.encode(text) for text in examples.texts]
    lengths, works = [len(row) for row in ids], {}
    for way, (kind, fused, grouped) in WAYS.items():
        torch.manual_seed(0)
        model = MODELS[kind](config).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        batches = list(EpochSampler(lengths, batch_size, True, grouped))

        def step(number: int, model=model, optimizer=optimizer, batches=batches) -> int:
            rows = batches[number % len(batches)]
            batch = collate([(ids[i], examples.labels[i]) for i in rows])
            return train_step(model, batch, optimizer).tokens

        works[way] = step
    return works


def main() -> None:
    """Measure, and print the table with the machine and the data that it stands for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description="Whole training steps.")
    parser.add_argument("--device", default="auto", help="such as auto, cpu, cuda or mps")
    parser.add_argument("--data", choices=("sst2", "toy"), default="sst2" if sst2_is_present() else "toy")
    parser.add_argument("--batches", type=int, default=20, help="training steps of each kind")
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    if given.batches < 1 or given.batch_size < 1:
        parser.error("--batches and --batch-size must be at least 1")
    try:
        device = choose_device(given.device)
    except ValueError as error:
        parser.error(str(error))
    examples = load_examples(given.data, "train")
    print("| sizes of | a step of | tokens/s | ours is faster |\n|---|---|---:|---:|")
    for name, path in CONFIGS.items():
        config = read_settings(RunConfig, path).model
        speeds = throughput(steps(config, examples, given.batch_size, device), given.batches)
        for way, speed in speeds.items():
            print(f"| {name} | {way} | {speed:,.0f} | {speeds['ours'] / speed:.2f} times |")
    machine = machine_state(device)
    print(
        f"\n{examples.source}; float32, batches of {given.batch_size}, {given.batches} steps each; {machine['device']}, "
        f"{machine['cpu']}, {machine['threads']} thread(s), torch {machine['torch']}, transformers {transformers.__version__}"
    )


if __name__ == "__main__":
    main()
