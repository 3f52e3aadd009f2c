"""The record of small edits: counts that are right, of the run that ships, and never of a part of the sentences."""

import json
from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch
from torch import nn

from book import edits
from minitransformer.cli import SHIPPED
from minitransformer.data import Examples, load_examples, sst2_is_present
from minitransformer.evaluate import _EDITS
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import checksum, last_validation, load_run, read_run_record
from minitransformer.experiment.settings import DataConfig, RunConfig
from minitransformer.model import ModelConfig
from minitransformer.tokenizer import SPECIAL_TOKENS, Vocabulary, WordTokenizer

MODEL = ModelConfig(vocab_size=500, d_model=16, num_heads=2, d_ff=32, num_layers=1, max_length=32)
NAMES = {"changed", "turned", "right_before", "right_after"}
TURNED_BY_ROUNDING = 2  # answers that another machine may give differently


class Shouting(nn.Module):
    """Positive if there is a "!" (token 7) in the text."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask):
        shouts = (input_ids == 7).any(1).float()
        return torch.stack([1 - shouts, shouts], -1)


@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_the_counts_do_not_depend_on_the_blocks(size):
    """Of five texts two shout; exclamation marks turn the other three. SST-2's space at the end is no change."""
    tokenizer = WordTokenizer(Vocabulary([*SPECIAL_TOKENS, "a", "b", "!"]), 12)
    examples = Examples(["a b .", "a , b ", "b !", "a .", "a ! ! !"], [1, 0, 1, 1, 0], "five")
    found = edits.measure(Shouting(), tokenizer, examples, size)
    assert found["sentences"] == 5 and set(found["edits"]) == set(_EDITS)
    shout = {"changed": 5, "turned": 3, "right_before": 2, "right_after": 3}
    assert found["edits"]["with exclamation marks"] == shout
    stops = {"changed": 2, "turned": 0, "right_before": 2, "right_after": 2}
    assert found["edits"]["without full stops at the end"] == stops
    assert found["edits"]["without commas"]["changed"] == 1
    first = edits.measure(Shouting(), tokenizer, next(edits.blocks(examples, size)))
    assert found["first"] == {key: first[key] for key in ("sentences", "edits")}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A small run in the place of the shipped one, and a place for its record."""
    with redirect_stdout(StringIO()):
        fit(RunConfig("toy", DataConfig("toy", train_size=400), MODEL), tmp_path / "toy")
    monkeypatch.setattr(edits, "SHIPPED", tmp_path / "toy")
    monkeypatch.setattr(edits, "RECORD", tmp_path / "edits.json")
    return tmp_path / "toy"


def test_the_script_writes_what_belongs_to_the_run(toy, capsys):
    edits.main(["--first", "50"])
    trial = capsys.readouterr().out
    assert "50 of 50 sentences" in trial and not edits.RECORD.exists(), "a part is no record"
    assert edits.recorded_edits(read_run_record(toy)) is None
    edits.main([])
    said, run, examples = capsys.readouterr().out, read_run_record(toy), load_examples("toy", "validation")
    assert "40 of 500 sentences" in said and "500 of 500 sentences" in said
    record = edits.recorded_edits(run)
    assert record == json.loads(edits.RECORD.read_text()) and record["sentences"] == len(examples)
    assert record["validation_sha256"] == checksum(examples)
    right = round(last_validation(toy).accuracy * len(examples))
    assert {counts["right_before"] for counts in record["edits"].values()} == {right}
    for other in ({"name": "other"}, {"class": "read"}, {"seed": 7}):
        assert edits.recorded_edits(run | other) is None, "the record of another run"


@pytest.mark.skipif(not edits.RECORD.is_file(), reason="book.edits has not been run")
def test_the_record_is_that_of_the_shipped_model():
    record, trained = edits.recorded_edits(read_run_record(SHIPPED)), last_validation(SHIPPED)
    assert record is not None, "run `python -m book.edits` again: another model ships now"
    assert record["sentences"] == trained.n and set(record["edits"]) == set(_EDITS)
    assert record["first"]["sentences"] == edits.BLOCK and set(record["first"]["edits"]) == set(_EDITS)
    assert record["edits"]["in capitals"]["turned"] == 0
    for counts in record["edits"].values():
        assert set(counts) == NAMES and counts["turned"] <= counts["changed"] <= trained.n
        assert abs(counts["right_before"] - trained.accuracy * trained.n) <= TURNED_BY_ROUNDING
        assert abs(counts["right_after"] - counts["right_before"]) <= counts["turned"]


@pytest.mark.skipif(not (edits.RECORD.is_file() and sst2_is_present()), reason="no record, or no SST-2")
def test_the_shipped_model_gives_the_recorded_counts():
    record, examples = edits.recorded_edits(read_run_record(SHIPPED)), load_examples("sst2", "validation")
    assert record is not None and record["validation_sha256"] == checksum(examples)
    first = next(edits.blocks(examples, record["first"]["sentences"]))
    found = edits.counts_of(*load_run(SHIPPED)[1:], first)
    for name, counts in record["first"]["edits"].items():
        assert found[name]["changed"] == counts["changed"], name
        assert all(abs(found[name][key] - counts[key]) <= TURNED_BY_ROUNDING for key in NAMES), name
