# Generated from chapters/day05_training.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.cli`."""

import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from minitransformer.cli import Parser, build_parser, evaluate_run, main, run_command, yaml_file
from minitransformer.config import load_config
from minitransformer.runs import open_run_folder


# chapters/day05_training.md · The command line
def command(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `minitransformer WORDS`."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


# chapters/day05_training.md · The command line
SMALL_RUN = """
name: small
data: {name: toy, train_size: 30}
model: {vocab_size: 300, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 24}
training: {epochs: 1, batch_size: 16}
"""


# chapters/day05_training.md · The command line
def test_main_trains_and_evaluates() -> None:
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        code, out, err = command("train", config, "--seed", 5, "--output", run, "--training.epochs", 2)
        assert code == 0 and out.count("epoch ") == 2, (out, err)
        assert load_config(run / "config.yaml").seed == 5
        code, out, _ = command("evaluate", run)
        source, metrics = evaluate_run(run, "validation")
        assert code == 0 and str(metrics) in out and source in out
        assert evaluate_run(run, "test")[0] != source, "the split was ignored"
        assert command("train", config, "--output", run, "--overwrite")[0] == 0


# chapters/day05_training.md · The command line
def test_main_answers_mistakes_with_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as base:
        config, run = Path(base, "small.yaml"), Path(base, "run")
        config.write_text(SMALL_RUN)
        open_run_folder(run).joinpath("run.json").write_text("{}")
        for words, mentioned in [
            (("train", config, "--output", run), "--overwrite"),
            (("train", config, "--data.train_size", 10**6, "--output", base), "train_size"),
            (("train", config, "--training.speed", 3), "training.speed"),
            (("train", "--seed", 3, config), ".yaml"),
            (("train", Path(base, "none.yaml")), "none.yaml"),
            (("evaluate", run), "config.yaml"),
            (("evaluate", run, "--split", "train"), "validation"),
            (("evaluate", run, "--speed"), "--speed"),
            (("fly",), "fly"),
            ((), "COMMAND"),
        ]:
            code, out, err = command(*words)
            assert code == 2 and mentioned in err and err.count("\n") == 1, (words, code, err)
            assert "Traceback" not in err and not out
        assert isinstance(build_parser(), Parser) and yaml_file("a.yml") == "a.yml"
        with redirect_stdout(StringIO()) as out:
            run_command(*build_parser().parse_known_args(["train", str(config), "--output", f"{base}/b"]))
        assert f"saved in {base}/b" in out.getvalue()
