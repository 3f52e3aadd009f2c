"""What strangers did to the command line: nothing that was computed is lost, and each mistake gets one sentence."""

import json
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from minitransformer.cli import _lines_of, main
from minitransformer.data import load_examples
from minitransformer.experiment.fit import fit
from minitransformer.experiment.folder import last_validation, read_evaluations, read_records
from minitransformer.experiment.settings import RunConfig, read_settings

RUN = """
name: small
data: {name: toy, train_size: 40}
model: {vocab_size: 200, d_model: 8, num_heads: 2, d_ff: 8, num_layers: 1, max_length: 24}
training: {batch_size: 16}
"""
READING = """
name: reading
corpus: toy
chunk_length: 20
held_out: 20
model: {vocab_size: 200, d_model: 8, num_heads: 2, d_ff: 8, num_layers: 1, max_length: 24}
training: {batch_size: 512}
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with the settings of a run and of a reading of a second."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    Path("reading.yaml").write_text(READING)
    return tmp_path


def refused(capsys, *words: str) -> str:
    """The one sentence of a command that fails."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("minitransformer: ")
    return said


WRONG = {
    "a file that is not there": (["--data.name", "files", "--data.train", "no.csv", "--data.validation", "no.csv"], "no.csv"),
    "more examples than there are": (["--data.train_size", "9999"], "train_size is 9999"),
    "a width that no memory holds": (["--model.d_model", "10000000000000"], "memory is not enough"),
    "an encoder that is not there": (["--initial", "nowhere"], "nowhere"),
    "itself": (["--initial", "keep"], "initial must be another folder than the run's own"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_run_is_replaced_only_by_one_that_can_begin(here, capsys, case):
    assert main(["train", "run.yaml", "--output", "keep"]) == 0
    before = {path.name: path.read_bytes() for path in Path("keep").iterdir() if path.is_file()}
    words, sentence = WRONG[case]
    assert sentence in refused(capsys, "train", "run.yaml", "--output", "keep", "--overwrite", *words)
    after = {path.name: path.read_bytes() for path in Path("keep").iterdir() if path.is_file()}
    assert after == before and "model.safetensors" in before


def test_nothing_of_a_replaced_run_is_left(here):
    assert main(["train", "run.yaml", "--output", "keep", "--training.epochs", "3"]) == 0
    Path("keep/report.md").write_text("of the old run")
    Path("keep/tensorboard").mkdir()
    Path("keep/mine.txt").write_text("a note")
    assert main(["train", "run.yaml", "--output", "fresh"]) == 0
    assert main(["train", "run.yaml", "--output", "keep", "--overwrite"]) == 0
    names = {path.name for path in Path("keep").rglob("*")}
    assert names == {path.name for path in Path("fresh").rglob("*")} | {"mine.txt"}
    assert len(read_records("keep", "epoch")) == 1


def test_the_test_split_is_not_read_again_for_fewer_seeds(here, capsys):
    Path("recipe.yaml").write_text("name: r\npretrain: reading.yaml\ntrain: run.yaml\nseeds: [0, 1]\n")
    assert main(["reproduce", "recipe.yaml", "--output", "out"]) == 0
    runs = [Path("out/seed0"), Path("out/seed1")]
    chosen = max(runs, key=lambda run: last_validation(run).accuracy)
    (other,) = set(runs) - {chosen}
    seeds = f"[{other.name[-1]}]"
    assert "take a new folder" in refused(
        capsys, "reproduce", "recipe.yaml", "--output", "out", "--seeds", seeds
    )
    assert "test" in read_evaluations(chosen) and "test" not in read_evaluations(other)
    assert main(["reproduce", "recipe.yaml", "--output", "out"]) == 0


def test_a_recipe_whose_parts_do_not_fit_is_refused_before_it_reads(here, capsys):
    Path("run.yaml").write_text(RUN.replace("d_ff: 8", "d_ff: 16"))
    Path("recipe.yaml").write_text("name: r\npretrain: reading.yaml\ntrain: run.yaml\nseeds: [0]\n")
    said = refused(capsys, "reproduce", "recipe.yaml", "--output", "out")
    assert "run.yaml: model.d_ff must be 8, as in reading.yaml, got 16" in said
    assert not Path("out").exists()
    Path("run.yaml").write_text(RUN)
    said = refused(capsys, "reproduce", "recipe.yaml", "--seeds", "[0, -1]")
    assert "seeds must be different numbers from 0, one at least, got [0, -1]" in said


@pytest.mark.parametrize("text", ["training:\n", "training: [1]\n", "model: big\n", "data: null\n"])
def test_a_section_that_is_none_is_named(here, capsys, text):
    key = text.partition(":")[0]
    kept = [line for line in RUN.strip().splitlines() if not line.startswith(key)]
    Path("odd.yaml").write_text("\n".join([*kept, text]))
    said = refused(capsys, "train", "odd.yaml")
    assert "each of data, model, training must map keys to values" in said and "partial" not in said


def test_no_second_file_slips_in(here, capsys):
    for words in (["--config", "reading.yaml"], ["--config=reading.yaml"], ["--print_config"]):
        assert "is no setting" in refused(capsys, "train", "run.yaml", *words)


def test_deep_nesting_is_refused(here, capsys):
    Path("deep.yaml").write_text("a: " + "[" * 3000 + "]" * 3000)
    assert "deep.yaml" in refused(capsys, "train", "deep.yaml")


@pytest.mark.parametrize("key", ["seed", "name", "config", "print_config", "training"])
def test_a_variant_changes_settings_and_nothing_else(here, capsys, key):
    Path("search.yaml").write_text(f"name: s\nbase: run.yaml\nseeds: [0]\nvariants: {{a: {{{key}: 5}}}}\n")
    assert "variant 'a': the setting must be one of" in refused(capsys, "search", "search.yaml")


def test_a_variant_that_diverges_leaves_the_others_alone(here, capsys):
    wild = "{training.learning_rate: 1e308, training.epochs: 4}"
    Path("search.yaml").write_text(
        "name: s\nbase: run.yaml\nseeds: [0]\n"
        f"variants: {{a: {{training.weight_decay: 0.0}}, b: {wild}, c: {{training.epochs: 1}}}}\n"
    )
    assert main(["search", "search.yaml", "--output", "out"]) == 2
    out, err = capsys.readouterr()
    assert "| a | 1 |" in out and "| c | 1 |" in out and "| b |" not in out
    assert "diverged: b_seed0" in err and "not in the table: b_seed0" in err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried")])
def test_too_little_memory_is_a_sentence(here, capsys, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("minitransformer.cli._run_command", fail)
    assert "memory is not enough" in refused(capsys, "train", "run.yaml")


def test_a_fault_of_ours_is_not_hidden(here, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("minitransformer.cli._run_command", fail)
    with pytest.raises(RuntimeError):
        main(["train", "run.yaml"])


@pytest.mark.parametrize("words", [["--training.learning_rate", "1e308"], ["--training.r_drop", "1e30"]])
def test_a_run_without_a_sound_model_says_so(here, capsys, words):
    said = refused(capsys, "train", "run.yaml", "--output", "out", *words)
    assert "no model to save" in said and "smaller learning rate" in said
    assert not Path("out/run.json").exists() and Path("out/metrics.jsonl").exists()


def test_an_epoch_is_saved_before_it_is_printed(here, monkeypatch):
    def nobody_reads(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("minitransformer.experiment.fit.tqdm.write", nobody_reads)
    with pytest.raises(BrokenPipeError):
        fit(read_settings(RunConfig, "run.yaml"), "out")
    assert list(Path("out/checkpoints").glob("step_*.safetensors"))


@pytest.mark.parametrize("damage", ["corpus.json", "tokens.npy", "spans.npy", "labels.npy"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x93NUMPY"])
def test_a_damaged_corpus_is_made_again(here, damage, content):
    assert main(["pretrain", "reading.yaml", "--output", "out"]) == 0
    sound = Path("out/corpus", damage).read_bytes()
    Path("out/corpus", damage).write_bytes(content)
    assert main(["pretrain", "reading.yaml", "--output", "out", "--overwrite"]) == 0
    assert Path("out/corpus", damage).read_bytes() == sound


def test_an_open_quote_swallows_no_rows(here):
    Path("open.tsv").write_text('text\tlabel\n"a fine film\t1\na bad film\t0\nanother nice"\t1\nplot\t0\n')
    with pytest.raises(ValueError, match=r"open.tsv cannot be read: .*a quote .* over a tab or a line end"):
        load_examples("open.tsv", "train")
    Path("shut.tsv").write_text('text\tlabel\n"a ""fine"" film"\t1\nit \'s "new"\t0\n')
    assert load_examples("shut.tsv", "train").texts == ['a "fine" film', 'it \'s "new"']


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_a_command_needs_no_terminal(here, closed):
    code = f"import os, sys\nfor n in {closed}: os.close(n)\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", code, "-m", "minitransformer", "train", "run.yaml", "--output", "out"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert json.loads(Path("out/run.json").read_text())["name"] == "small"


def test_a_long_line_is_cut_once(monkeypatch):
    """Were it cut anew for each piece that comes, its cost would grow with the square of its length."""
    cuts, split = [], re.split
    monkeypatch.setattr("minitransformer.cli.re.split", lambda *words: cuts.append(1) or split(*words))
    stream = BytesIO(b"x" * (1 << 20) + b"\r" + b"y\r\n\r" + b"z")
    lines = [line for window in _lines_of(stream) for line in window]
    assert lines == ["x" * (1 << 20), "y", "", "z"] and len(cuts) <= 2


@pytest.mark.parametrize("size", range(1, 9))
def test_lines_are_the_same_wherever_the_pieces_end(size):
    class Slow(BytesIO):
        def read1(self, most: int = -1) -> bytes:
            return super().read1(size)

    found = [line for window in _lines_of(Slow(b"a\r\nb\rc\r\r\nd\n\ne")) for line in window]
    assert found == ["a", "b", "c", "d", "", "e"]
