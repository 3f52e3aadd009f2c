# Generated from chapters/day09_sprint.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.selftrain`."""

import json
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import torch

from minitransformer.config import DataConfig, RunConfig, read_settings
from minitransformer.data import Examples, join
from minitransformer.model import ModelConfig
from minitransformer.runs import balanced, load_run, read_labelled, read_run_record, sureness
from minitransformer.selftrain import (
    draw_sentences,
    keep_blocks,
    label_sentences,
    mean_positive,
    split_sentences,
)
from minitransformer.train import fit, furthest, prepare


# chapters/day09_sprint.md · The models label sentences
def test_split_sentences():
    text = "It is not bad at all. Is it good?<br /><br />Dr. No was a fine film! No. It is  not bad at all."
    assert split_sentences([text]) == ["It is not bad at all.", "No was a fine film!"], (
        "four words or more, each once"
    )
    assert split_sentences([text], least=1, most=3) == ["Is it good?", "Dr.", "No."]
    try:
        draw_sentences("toy", 10**6, 0)
        raise AssertionError("more than there are")
    except ValueError as error:
        assert "count must be in 1 … " in str(error)
    drawn = draw_sentences("toy", 50, 1)
    assert len(set(drawn)) == 50 and drawn == draw_sentences("toy", 50, 1) != draw_sentences("toy", 50, 2)


# chapters/day09_sprint.md · The models label sentences
def small_runs(folder: str, seeds: int = 2) -> list[Path]:
    """Runs of a second on the toy reviews."""
    model = ModelConfig(60, 8, 2, 12, num_layers=1, max_length=24)
    for seed in range(seeds):
        config = RunConfig("small", DataConfig("toy", train_size=64), model, seed=seed)
        with redirect_stdout(StringIO()):
            fit(config, Path(folder, f"small{seed}"))
    return [Path(folder, f"small{seed}") for seed in range(seeds)]


# chapters/day09_sprint.md · The models label sentences
def test_labels_are_the_mean():
    with tempfile.TemporaryDirectory() as folder:
        runs, out = small_runs(folder), Path(folder, "labelled")
        label_sentences(runs, out, "toy", 20)
        rows = [json.loads(line) for line in (out / "sentences.jsonl").read_text().splitlines()]
        texts, members = [row["text"] for row in rows], [load_run(run)[1:] for run in runs]
        assert texts == draw_sentences("toy", 20, 0)
        joint = mean_positive(members, texts).tolist()
        for row, share in zip(rows, joint, strict=True):
            alone = []  # one model and one text at a time
            for model, tokenizer in members:
                with torch.no_grad():
                    alone.append(
                        model(torch.tensor([tokenizer.encode(row["text"])])).softmax(-1)[0, 1].item()
                    )
            assert abs(sum(alone) / 2 - share) < 1e-5 and abs(row["positive"] - share) < 1e-5


# chapters/day09_sprint.md · The models label sentences
def test_labelling_survives_an_interruption():
    place = sys.modules[label_sentences.__module__]
    with tempfile.TemporaryDirectory() as folder, patch.object(place, "BLOCK", 8):
        runs, out = small_runs(folder), Path(folder, "labelled")
        label_sentences(runs, out, "toy", 20)
        path = out / "sentences.jsonl"
        whole = path.read_bytes()
        for size, left in (
            (0, 0),
            (300, 0),
            (len(whole) - 3, 16),
            (len(whole), 20),
        ):  # a crash may cut a line
            path.write_bytes(whole[:size])
            assert keep_blocks(path, 20) == left == len(path.read_bytes().splitlines())
            label_sentences(runs, out, "toy", 20)
            assert path.read_bytes() == whole
        try:
            label_sentences(runs, out, "toy", 21)
            raise AssertionError("another request")
        except ValueError as error:
            assert "belongs to another run: count is 20 there, 21 here" in str(error)


# chapters/day09_sprint.md · The models label sentences
def test_a_run_learns_from_labelled_sentences():
    with tempfile.TemporaryDirectory() as folder:
        runs, out = small_runs(folder), Path(folder, "labelled")
        label_sentences(runs, out, "toy", 30)
        rows = [
            {"text": text, "positive": 0.2 + 0.7 * (i % 3 == 0)}
            for i, text in enumerate(draw_sentences("toy", 30, 0))
        ]
        (out / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = read_settings(RunConfig, runs[0] / "config.yaml")
        data = replace(config.data, extra=str(out), confidence=0.5)
        config = replace(config, data=data)
        _, tokenizer, train, _ = prepare(config)
        extra = read_labelled(out, 0.5)
        assert sum(extra.labels) * 2 == len(extra) == 20, "ten sentences are positive"
        assert train.texts[64:] == extra.texts and train.labels[64:] == extra.labels
        assert train.source.endswith(f"and {len(extra)} labelled sentences")
        both = join(Examples(["a"], [0], "one"), Examples(["b"], [1], "two"))
        assert both == Examples(["a", "b"], [0, 1], "one and two")
        with redirect_stdout(StringIO()) as said:
            fit(config, Path(folder, "student"))
            config = replace(config, data=replace(data, extra=str(out.rename(Path(folder, "moved")))))
            fit(config, Path(folder, "student"), resume=True)
        assert (
            "is finished" in said.getvalue() and read_run_record(Path(folder, "student"))["class"] == "read"
        )
        assert furthest(["alone", "taught", "read"]) == "taught" and furthest([]) == "alone"


# chapters/day09_sprint.md · The models label sentences
def labelled_folder(folder: str, *shares: float) -> Path:
    """A folder of labelled sentences with these probabilities of "positive"; returns the file."""
    record = {"class": "read", "origin": {"count": len(shares)}}
    Path(folder, "run.json").write_text(json.dumps(record))
    rows = [{"text": f"{share}", "positive": share} for share in shares]
    path = Path(folder, "sentences.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# chapters/day09_sprint.md · The models label sentences
def test_read_labelled_takes_the_sure():
    assert sureness(0.25) == sureness(0.75) == 0.75
    with tempfile.TemporaryDirectory() as folder:
        labelled_folder(folder, 0.1, 0.89, 0.9, 0.05)
        found = read_labelled(folder, 0.9)
        assert (found.texts, found.labels) == (["0.1", "0.9"], [0, 1]), "as many of each, the first"
        assert read_labelled(folder, 0.5).texts == ["0.1", "0.89", "0.9", "0.05"]
        assert balanced([("a", 1), ("b", 1), ("c", 0)], "x").texts == ["a", "c"]


# chapters/day09_sprint.md · The models label sentences
def test_read_labelled_refuses():
    with tempfile.TemporaryDirectory() as folder:
        path = labelled_folder(folder, 0.1, 0.8, 0.9)
        whole = path.read_text()
        for content, reason in [
            (whole[: whole.index("\n") + 1], "holds 1 labelled sentences of 3"),
            ('{"text": "so"}\n' * 3, "is not a file of labelled sentences"),
            ("nonsense\n", "is not a file of labelled sentences"),
            (whole.replace("0.1", "0.8"), "both labels must have sure sentences, got 1 of one"),
            (None, "there is no sentences.jsonl in it"),
        ]:
            path.unlink() if content is None else path.write_text(content)
            try:
                read_labelled(folder, 0.9)
                raise AssertionError(reason)
            except ValueError as error:
                assert reason in str(error) and folder in str(error), error
