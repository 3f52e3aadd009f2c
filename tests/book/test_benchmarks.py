"""The benchmarks print whole tables, and what they compare computes the same; no test looks at a time."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import distributed, scaling, speed, step
from book.press.floors import ROOT
from book.press.write import files_on_disk
from minitransformer.attention import padding_mask
from minitransformer.model import ModelConfig

TWINS = [name for name in speed.VARIANTS if name != speed.COMPILED]
CONFIG = ModelConfig(
    19, 12, 2, 20, 3, 9, dropout=0.0, norm_first=False, embedding_norm=True, type_vocab_size=1
)
SETTING = speed.Setting(CONFIG, batch_size=5, device=torch.device("cpu"), dtype="float32")


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A benchmark as a reader starts it."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    everything = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=everything, timeout=300)


def cells(output: str) -> list[list[str]]:
    """The rows of a Markdown table without its header; all are as wide as it."""
    rows = [line[1:-1].split("|") for line in output.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, output
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("batch", ["padded", "packed"])
def test_the_models_compare_equal_on_copied_weights(batch):
    """On weights so large that a wrong one would show, biases and norms too; in both modes, as inference has a fast path."""
    ours = speed.our_encoder(CONFIG)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    real = padding_mask(SETTING.lengths(batch))
    assert real.all() == (batch == "packed")
    ids = torch.randint(1, 19, real.shape, generator=torch.Generator().manual_seed(3)) * real
    models = {name: speed.VARIANTS[name](ours, CONFIG) for name in TWINS}
    for training in (False, True):
        outs = {
            name: speed.infer(model.train(training), ids, None if real.all() else real)[real]
            for name, model in models.items()
        }
        assert outs[speed.FUSED].std() > 0.5
        for name, out in outs.items():
            torch.testing.assert_close(out, outs[speed.FUSED], rtol=0, atol=1e-4, msg=f"{name}, {batch}")


@pytest.mark.parametrize("batch", ["padded", "packed"])
def test_the_models_learn_the_same(batch):
    """The losses of three updates agree, so gradients and optimizer do the same work; the first is over real tokens."""
    losses, real = {}, padding_mask(SETTING.lengths(batch))
    for name in TWINS:
        work = speed.prepare(speed.Case("training", batch, name), SETTING)
        model, _, _, ids, mask, y = work.args
        expected = F.cross_entropy(model(ids, mask)[real], y[real])
        losses[name] = torch.stack([work() for _ in range(3)])
        torch.testing.assert_close(losses[name][0], expected, rtol=0, atol=1e-6)
    assert losses[speed.FUSED].diff().abs().min() > 1e-3, "a step must move the loss by more than is allowed"
    for name, found in losses.items():
        torch.testing.assert_close(found, losses[speed.FUSED], rtol=0, atol=1e-4, msg=f"{name}, {batch}")


def test_operations_are_those_of_the_products():
    """PyTorch's own counter sees the same in the written-out model, forward, where nothing is padded."""
    case = speed.Case("inference", "packed", "ours, explicit attention")
    work = speed.prepare(case, SETTING)
    with FlopCounterMode(display=False) as counter:
        work()
    assert counter.get_total_flops() == SETTING.operations(case)
    assert SETTING.operations(case._replace(work="training")) == 3 * SETTING.operations(case)
    one = replace(SETTING, batch_size=2)  # lengths 9 and 2
    parts = [replace(CONFIG, max_length=length) for length in one.lengths("padded").tolist()]
    alone = [replace(SETTING, config=config, batch_size=1).operations(case) for config in parts]
    assert sum(alone) == one.operations(case._replace(batch="padded"))


def test_speed_prints_every_row(tmp_path):
    """Also where no compiler works."""
    small = ["--d-model", "128", "--layers", "1", "--length", "8", "--batch-size", "3", "--seconds", "0"]
    done = run("speed", "--device", "cpu", *small, CXX="none", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = cells(done.stdout)
    assert [tuple(row[:3]) for row in rows] == speed.CASES
    for *_, name, rate, ratio, memory in rows:
        if name == speed.COMPILED:
            assert (rate, ratio, memory) == ("no compiler", "", "")
            continue
        assert int(rate.replace(",", "")) > 0 and re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", ratio)
        assert memory.endswith(" MiB") if speed.CLEAR.exists() else memory == "not measured"
    assert float(re.search(r"output from ours: (\S+);", done.stdout)[1]) < 1e-4


@pytest.mark.skipif(not speed.CLEAR.exists(), reason="the peak of memory is read from Linux")
def test_memory_of_a_training_step_holds_weights_gradients_and_moments():
    """Four copies of the weights are the most of it here, and inference needs but one."""
    wide = replace(CONFIG, d_model=512, d_ff=2048, num_layers=2)
    weights = 4 * sum(parameter.numel() for parameter in speed.our_encoder(wide).parameters())
    cases = [speed.Case(work, "packed", speed.FUSED) for work in ("training", "inference")]
    training, inference = speed.peaks_of_memory(cases, replace(SETTING, config=wide)).values()
    assert 3.8 * weights < training < 6 * weights and 0.8 * weights < inference < 2.5 * weights


def test_exponent_is_the_slope_and_has_an_error():
    sizes = [2, 4, 8, 16, 32]
    assert scaling.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx((1.5, 0), abs=1e-6)
    bent = [size * 2 ** (0.1 * sign) for size, sign in zip(sizes, (1, -1, 0, -1, 1), strict=True)]
    slope, error = scaling.exponent(
        sizes, bent
    )  # a residual of 0.2 square bits, 3 degrees of freedom, spread 10
    assert slope == pytest.approx(1) and error == pytest.approx(math.sqrt(0.04 / 3 / 10))


def test_scaling_prints_every_row():
    done = run("scaling", "--device", "cpu", "--longest", "16", "--widest", "64", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    rows = cells(done.stdout)
    parts = [*scaling.ATTENTION, scaling.LAYER]
    assert [row[:3] for row in rows] == [
        [p, *axis] for p in parts for axis in (("T", "1, 16"), ("d_model", "4, 64"))
    ]
    for values in (3, 6):  # milliseconds, bytes, and behind each the two exponents
        assert all(len(row[values].split()) == 5 for row in rows)
        assert all(re.fullmatch(r"-?[\d.]+ ± [\d.]+", row[values + 1]) for row in rows)
    assert [row[5] for row in rows[:4]] == ["2.00", "1.00", "2.00", "1.00"]
    assert all(row[7].split()[0] == row[8] for row in rows), "memory goes by formula"


def test_what_is_kept_is_what_the_formula_says():
    """To the byte: each tensor once, also where several operations keep it, inputs too, weights not."""
    for part in (*scaling.ATTENTION, scaling.LAYER):
        for size in (scaling.Size(part, 7, 128), scaling.Size(part, 33, 20)):
            work = scaling.prepare(size, 3, torch.device("cpu"))
            assert scaling.kept_bytes(work) == 3 * 4 * size.kept(), size


def test_each_timed_step_follows_one_of_its_own_size():
    """And the sizes take turns, in an order that changes, so that none always follows the largest."""
    names, steps = [scaling.Size("part", length, 8) for length in range(1, 7)], []
    works = {name: lambda name=name: steps.append(name) for name in names}
    times = scaling.take_turns(works, 0, torch.device("cpu"))
    assert times.keys() == works.keys() and {len(of_one) for of_one in times.values()} == {8}
    assert steps[::2] == steps[1::2]
    rounds = [tuple(steps[start : start + 12 : 2]) for start in range(0, len(steps), 12)]
    assert all(sorted(one) == names for one in rounds) and len(set(rounds)) > 4


def test_attention_costs_what_the_formula_says():
    q, k, v = torch.randn(3, 1, 2, 7, 5)
    with FlopCounterMode(display=False) as counter:
        scaling.ATTENTION["attention, explicit"](q, k, v)
    assert counter.get_total_flops() == scaling.Size("attention, explicit", 7, 10).operations()


def test_two_processes_see_the_losses_of_one():
    """In float64, where even gradients of the wrong scale, which AdamW all but hides, would show."""
    done = run("distributed", "--steps", "6", "--batch-size", "4", "--dtype", "float64")
    assert done.returncode == 0, done.stderr
    (one, *first), (two, *second) = cells(done.stdout)
    assert (one, two) == ("1", "2") and first[0] == second[0] == "8"
    assert first[-2:] == second[-2:] and first[-1] != first[-2]
    assert float(re.search(r"losses in 8 steps: (\S+);", done.stdout)[1]) < 1e-8


@pytest.mark.parametrize(
    "module, arguments, complaint",
    [
        (speed, ["--length", "3"], "--length at least 4"),
        (speed, ["--d-model", "100", "--dropout", "1"], "dropout must be a number in [0, 1)"),
        (scaling, ["--widest", "100"], "a power of two"),
        (distributed, ["--steps", "1"], "--steps must be at least 2"),
    ],
)
def test_bad_sizes_are_one_sentence(module, arguments, complaint, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_press_prints_every_row():
    done = run("press", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    count = len(files_on_disk(ROOT))
    names, seconds = zip(*cells(done.stdout), strict=True)
    assert names == ("reading the chapters", f"tangling them into {count} files")
    assert all(re.fullmatch(r"\d+\.\d\d", value) for value in seconds)
    refused = run("press", "--rounds", "0")
    assert refused.returncode == 2 and "--rounds must be at least 1" in refused.stderr


def test_step_prints_every_way():
    done = run("step", "--device", "cpu", "--data", "toy", "--batch-size", "2", "--batches", "1")
    assert done.returncode == 0, done.stderr
    rows = cells(done.stdout)
    assert [row[:2] for row in rows] == [[sizes, way] for sizes in step.CONFIGS for way in step.WAYS]
    for row in rows:
        assert re.fullmatch(r"[\d,]+", row[2]) and re.fullmatch(r"[\d.]+ times", row[3])
    assert [row[3] for row in rows if row[1] == "ours"] == ["1.00 times"] * 2
    refused = run("step", "--batches", "0")
    assert refused.returncode == 2 and "--batches" in refused.stderr


def test_bert_s_twin_is_as_large_as_our_encoder():
    """But for its second kind of segment; the rest of its model is a head with a layer more."""
    ours, twin = speed.our_encoder(CONFIG), step.BertTwin(replace(CONFIG, dropout=0.5)).bert
    sizes = [
        sum(p.numel() for p in model.parameters())
        for model in (ours, twin.bert.embeddings, twin.bert.encoder)
    ]
    assert sizes[1] + sizes[2] == sizes[0] + CONFIG.d_model
    assert {m.p for m in twin.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
