"""Which device and which number format a run takes, by pretending to have them, and the fused update of AdamW."""

import platform
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn

from book.press.floors import ROOT
from minitransformer.cli import main
from minitransformer.experiment.fit import _begin, fit
from minitransformer.experiment.folder import machine_state, read_run_record
from minitransformer.experiment.job import _prepare, identity
from minitransformer.experiment.recipe import load_recipe
from minitransformer.experiment.search import _variant_config, load_search
from minitransformer.experiment.settings import (
    DataConfig,
    PretrainConfig,
    RunConfig,
    TrainingConfig,
    read_settings,
)
from minitransformer.model import ModelConfig
from minitransformer.train import autocast_on, choose_autocast, choose_device, make_scaler, train_step

CPU = torch.device("cpu")
SIZES = {"d_model": 8, "num_heads": 2, "d_ff": 12, "num_layers": 1, "max_length": 24}


def tiny(kind=RunConfig, **training):
    """A run or a reading of a second."""
    settings = TrainingConfig(batch_size=16, **training)
    if kind is RunConfig:
        return RunConfig("tiny", DataConfig("toy", train_size=48), ModelConfig(500, **SIZES), settings)
    return PretrainConfig("tiny", "toy", ModelConfig(300, **SIZES), settings, chunk_length=22, held_out=20)


def accelerator(kind, count=1):
    """A context in which PyTorch sees so many accelerators of a kind, or none if there is no kind."""
    return mock.patch.multiple(
        torch.accelerator,
        is_available=lambda: kind is not None,
        current_accelerator=lambda *_: kind and torch.device(kind),
        device_count=lambda: count,
    )


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", "hpu"])
def test_auto_is_the_accelerator_that_is_there(kind):
    with accelerator(kind, 2):
        assert choose_device("auto") == torch.device(kind)
        assert [choose_device(f"{kind}:{i}").index for i in (0, 1)] == [0, 1]
        assert choose_device("cpu") == CPU


@pytest.mark.parametrize(
    "name", ["tpu", "cuda", "mps", "xpu:0", "meta", "", "CPU", " cpu", "cuda:", "cuda:-1", "0", "gpu", "cpu,"]
)
def test_what_is_not_there_is_refused_in_one_sentence(name):
    with (
        accelerator(None),
        pytest.raises(ValueError, match=r"training\.device must be one of auto, cpu on") as e,
    ):
        choose_device(name)
    assert repr(name) in str(e.value) and "\n" not in str(e.value)


def test_a_card_too_many_or_of_another_kind_is_refused():
    with accelerator("cuda", 2):
        for name in ("cuda:2", "cuda:11", "mps", "xpu"):
            with pytest.raises(
                ValueError, match=f"auto, cpu, cuda, cuda:0, cuda:1 on this machine, got '{name}'"
            ):
                choose_device(name)


@pytest.mark.parametrize("name", ["mps", "xpu", "cuda:1", "cuda"])
def test_a_config_may_name_a_device_of_another_machine(name):
    assert (
        read_settings(RunConfig, ROOT / "configs/toy.yaml", [f"--training.device={name}"]).training.device
        == name
    )


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:x", "Cuda", "cuda:-1"])
def test_a_config_may_not_name_what_no_machine_has(name, capsys, tmp_path):
    assert (
        main(["train", "configs/toy.yaml", "--training.device", name, "--output", str(tmp_path / "x")]) == 2
    )
    complaint = capsys.readouterr().err
    assert "training.device must be auto, cpu or an accelerator" in complaint and repr(name) in complaint


@pytest.mark.parametrize("old", ["off", "false", "float32", "AUTO"])
def test_other_words_for_a_number_format_are_refused(old):
    with pytest.raises(
        ValueError, match=r"training\.autocast must be one of 'auto', 'fp32', 'bf16', 'fp16', got"
    ):
        read_settings(RunConfig, ROOT / "configs/toy.yaml", [f"--training.autocast={old}"])


@pytest.mark.parametrize(
    "processor, avx512, arm, chosen",
    [
        ("x86_64", True, True, "bf16"),
        ("x86_64", False, True, "fp32"),  # mkldnn says yes to AVX-512 without bf16, and emulates
        ("AMD64", True, False, "bf16"),
        ("AMD64", False, False, "fp32"),
        ("i386", True, False, "bf16"),
        ("i686", True, False, "bf16"),
        ("aarch64", False, True, "bf16"),
        ("aarch64", False, False, "fp32"),
        ("arm64", True, False, "fp32"),
    ],
)
def test_a_processor_computes_in_16_bits_only_with_instructions(processor, avx512, arm, chosen):
    with (
        mock.patch.object(platform, "machine", return_value=processor),
        mock.patch.object(torch.cpu, "_is_avx512_bf16_supported", return_value=avx512),
        mock.patch.object(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", return_value=arm, create=True),
    ):
        with mock.patch.object(torch.backends.mkldnn, "is_available", return_value=True):
            assert choose_autocast(CPU, "auto") == chosen
            assert [choose_autocast(CPU, name) for name in ("fp16", "bf16", "fp32")] == [
                "fp16",
                "bf16",
                "fp32",
            ]
        with mock.patch.object(torch.backends.mkldnn, "is_available", return_value=False):
            assert choose_autocast(CPU, "auto") == "fp32"


def test_a_pytorch_that_cannot_tell_computes_in_32_bits(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert choose_autocast(CPU, "auto") == "fp32"


def test_a_card_without_bf16_takes_fp16_and_the_scaler():
    for device in (torch.device("cuda"), torch.device("cuda", 1)):
        seen = mock.Mock(return_value=False)
        with mock.patch.multiple(torch.cuda, device=mock.MagicMock(), is_bf16_supported=seen):
            assert choose_autocast(device, "auto") == "fp16"
            torch.cuda.device.assert_called_with(device)  # not the first card's answer for the second
        seen.assert_called_with(including_emulation=False)
    assert [choose_autocast(torch.device(kind), "auto") for kind in ("mps", "xpu", "hpu")] == ["fp32"] * 3


def test_auto_means_the_same_everywhere():
    """Also where a config was never settled: in a step by hand, and in the scaler of `_begin`."""
    with mock.patch("minitransformer.train.choose_autocast", return_value="fp16"):
        assert make_scaler(CPU, "auto").is_enabled()
        with autocast_on(CPU, "auto"):
            assert (torch.ones(2, 3) @ torch.ones(3, 5)).dtype == torch.float16


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_no_preset_asks_a_processor_for_16_bits_that_it_lacks(path):
    text = path.read_text()
    if "\nbase:" in text:
        plan = load_search(path)
        formats = {_variant_config(plan, variant, 0).training.autocast for variant in plan.variants}
    elif "\ntrain:" in text:
        load_recipe(path)  # its runs have files of their own
        return
    else:
        kind = PretrainConfig if "\ncorpus:" in text else RunConfig
        formats = {read_settings(kind, path).training.autocast}
    assert formats <= {"auto", "fp32"}


def machine(chosen):
    """A context in which "auto" means this number format."""
    choice = mock.Mock(side_effect=lambda _, name: name.replace("auto", chosen))
    return mock.patch("minitransformer.experiment.fit.choose_autocast", choice)


@pytest.mark.parametrize("kind", [RunConfig, PretrainConfig])
def test_the_chosen_format_is_printed_recorded_and_kept(kind, tmp_path, capsys):
    config = tiny(kind, autocast="auto")
    with machine("bf16"):
        fit(config, tmp_path)
    assert "computing in bf16 on cpu" in capsys.readouterr().out
    assert (
        read_run_record(tmp_path)["autocast"] == "bf16"
        and "autocast: bf16" in (tmp_path / "config.yaml").read_text()
    )
    with machine("fp32"):
        fit(config, tmp_path, resume=True)  # on another machine
        assert "is finished" in capsys.readouterr().out
        with pytest.raises(ValueError, match=r"training\.autocast is 'bf16' there, 'fp32' here"):
            fit(tiny(kind, autocast="fp32"), tmp_path, resume=True)


def test_a_resumed_run_goes_on_in_the_format_that_it_began_with(tmp_path):
    """Killed where auto is bf16, resumed where it is fp32: equal to the bit to the run that was left alone."""
    config, clip, calls = tiny(autocast="auto", epochs=2), nn.utils.clip_grad_norm_, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return clip(*arguments)

    with machine("bf16"):
        fit(config, tmp_path / "whole")
        with mock.patch.object(nn.utils, "clip_grad_norm_", dies), pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "broken")
    with machine("fp32"):
        fit(config, tmp_path / "broken", resume=True)
    for name in ("model.safetensors", "predictions.jsonl", "config.yaml"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert read_run_record(tmp_path / "broken")["autocast"] == "bf16"


def test_the_identity_of_a_run_does_not_hold_the_device(tmp_path):
    cpu, mps = (identity(_prepare(tiny(device=name), tmp_path)) for name in ("cpu", "mps"))
    assert cpu == mps and cpu["training.batch_size"] == 16


def test_the_record_names_the_device():
    with mock.patch("torch.get_device_module") as module:
        module.return_value.get_device_name.return_value = "a card"
        assert machine_state(torch.device("xpu", 1))["device"] == "a card"
        module.return_value.get_device_name.assert_called_with(torch.device("xpu", 1))


@pytest.mark.parametrize("kind", [RunConfig, PretrainConfig])
def test_adamw_is_fused_where_the_device_has_it(kind):
    config = tiny(kind, learning_rate=0.01, weight_decay=0.3)
    state = _begin(config, CPU)
    assert state.optimizer.defaults["fused"] is True
    assert all(group["weight_decay"] == 0.3 for group in state.optimizer.param_groups)
    state.model.to = lambda _: state.model
    with mock.patch.object(nn.Module, "to", lambda self, *_: self):
        assert _begin(config, torch.device("hpu")).optimizer.defaults["fused"] is False


def batches(count):
    """Some batches of random ids."""
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        ids = torch.randint(4, 90, (6, 9), generator=random)
        labels = torch.randint(2, (6,), generator=random)
        yield {"input_ids": ids, "attention_mask": torch.ones(6, 9, dtype=torch.bool), "labels": labels}


@pytest.mark.parametrize("autocast", ["fp32", "fp16"])
def test_the_fused_update_is_the_plain_one(autocast):
    """In all updates, clipped and scaled, with an overflow in between that changes nothing in either."""
    config = tiny(autocast=autocast, learning_rate=1e-3, weight_decay=0.1)
    config = replace(config, model=replace(config.model, dropout=0.0))
    fused, plain = _begin(config, CPU), _begin(config, CPU)
    plain.optimizer = torch.optim.AdamW(plain.optimizer.param_groups, fused=False)
    for group in plain.optimizer.param_groups:
        group["fused"] = False
    start = [weight.clone() for weight in fused.model.parameters()]
    for number, batch in enumerate(batches(8), 1):
        before = [weight.clone() for weight in fused.model.parameters()]
        if number == 4 and autocast == "fp16":
            for state in (fused, plain):
                state.scaler.update(2.0**60)
        results = [
            train_step(s.model, batch, s.optimizer, 0.05, number, 2, autocast, s.scaler)
            for s in (fused, plain)
        ]
        assert results[0].skipped == results[1].skipped == (number == 4 and autocast == "fp16")
        assert fused.scaler.get_scale() == plain.scaler.get_scale()
        if results[0].skipped:
            assert all(map(torch.equal, before, fused.model.parameters()))
            for state in (fused, plain):
                state.scaler.update(2.0**10)
        else:
            assert results[0].grad_norm > 0.05, "or nothing was clipped"
            assert results[0].grad_norm == pytest.approx(
                results[1].grad_norm, rel=1e-2 if autocast == "fp16" else 1e-4
            )
    for first, ours, theirs in zip(start, fused.model.parameters(), plain.model.parameters(), strict=True):
        assert (ours - theirs).abs().max() <= 0.02 * (ours - first).abs().max() + 1e-7
    steps = {int(s["step"]) for s in fused.optimizer.state.values()}
    assert steps == ({7} if autocast == "fp16" else {8}), "a skipped step counts in no mean"
