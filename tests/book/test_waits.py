"""A step of training or reading looks at no value on its device: nothing waits, and the device always has work.

No accelerator is needed. On PyTorch's "meta" device tensors have a shape and no values, so whoever looks at one is
caught: here he gets a made-up value, and is counted.
"""

import sys
from collections import Counter
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minitransformer.experiment import fit
from minitransformer.experiment.job import _prepare
from minitransformer.experiment.settings import DataConfig, PretrainConfig, RunConfig, TrainingConfig
from minitransformer.model import ModelConfig

META = torch.device("meta")
SIZES = {"d_model": 8, "num_heads": 2, "d_ff": 12, "num_layers": 1, "max_length": 24}
FUSED_CHECK = mock.patch.object(  # AdamW's fused form has a meta kernel, but does not know it
    sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_, **__: None
)


class Waits(TorchDispatchMode):
    """Counts what a device would have to be waited for: values, counts of a mask, copies back, copies not in passing."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
        there = [t for t in tensors if t.is_meta]
        target = str(kwargs.get("device", args[0].device if name == "copy_" else "meta"))
        if there and name == "_local_scalar_dense":
            self.found["value"] += 1
            return {True: 1.0}.get(there[0].is_floating_point(), 1)
        if there and (name == "nonzero" or (name == "index" and any(_is_mask(i) for i in args[1]))):
            self.found["mask"] += 1
            return there[0].flatten()[:3, None] if name == "nonzero" else there[0][:3]
        if there and target == "cpu":
            self.found["copy back"] += 1
            return torch.ones(there[0].shape, dtype=kwargs.get("dtype") or there[0].dtype)
        if name == "_to_copy" and not there and target == "meta" and not kwargs.get("non_blocking"):
            self.found["blocking copy"] += 1
        return func(*args, **kwargs)


def _is_mask(index):
    return index is not None and index.dtype == torch.bool


def tiny(kind, **training):
    settings = TrainingConfig(batch_size=16, **training)
    if kind is RunConfig:
        return RunConfig("tiny", DataConfig("toy", train_size=48), ModelConfig(500, **SIZES), settings)
    small = ModelConfig(300, **SIZES)
    return PretrainConfig("tiny", "toy", small, settings, chunk_length=22, held_out=20, label_weight=0.5)


def waits_of_steps(config, folder, steps=(1, 2)):
    """What is waited for in some steps; the step 0 is measured, the next ones are not."""
    job = _prepare(config, folder)
    with FUSED_CHECK, mock.patch.object(fit, "_FUSED", ("meta",)):
        state, batches = fit._begin(job.config, META), list(job.loader)
        if state.averaged is not None:
            state.averaged.update_parameters(state.model)
        with Waits() as waits:
            for state.step in steps:
                fit._measured_step(state, batches[state.step], job.config.training, 100, job.objective)
    return dict(waits.found)


KINDS = {
    "run": (RunConfig, {}),
    "run with R-Drop, an average and two parts": (RunConfig, {"r_drop": 1.0, "ema": 0.9, "micro_batches": 2}),
    "reading": (PretrainConfig, {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_step_waits_for_nothing(name, tmp_path):
    kind, training = KINDS[name]
    assert waits_of_steps(tiny(kind, **training), tmp_path) == {}


@pytest.mark.parametrize("name", KINDS)
def test_a_step_that_is_recorded_waits_for_its_two_lengths(name, tmp_path):
    kind, training = KINDS[name]
    assert waits_of_steps(tiny(kind, **training), tmp_path, steps=(0,)) == {"value": 2}


@pytest.mark.parametrize(
    "look, kind",
    [
        (lambda x: x.sum().item(), "value"),
        (lambda x: bool(x[0, 0] > 0), "value"),
        (lambda x: float(x.sum()), "value"),
        (lambda x: x[x > 0], "mask"),
        (lambda x: (x > 0).nonzero(), "mask"),
        (lambda x: x.cpu(), "copy back"),
        (lambda x: torch.ones(3, 4).to(META), "blocking copy"),
    ],
)
def test_each_kind_of_wait_is_noticed(look, kind):
    with Waits() as waits:
        look(torch.ones(3, 4, device=META))
    assert waits.found == {kind: 1}


@pytest.mark.parametrize("log_every, reads", [(1, [1] * 6), (4, [1, 2, 2, 1]), (100, [1, 2, 3])])
def test_steps_are_read_where_a_record_is_due(log_every, reads, tmp_path, monkeypatch):
    """48 texts in batches of 16, twice: steps 1 to 6. An epoch ends with all of its steps read."""
    read, found = fit._read, []
    monkeypatch.setattr(
        fit, "_read", lambda state, unread, *rest: (found.append(len(unread)), read(state, unread, *rest))
    )
    fit.fit(tiny(RunConfig, epochs=2, log_every=log_every), tmp_path)
    assert found == reads


def test_what_is_prepared_ahead_comes_in_order_and_with_its_errors():
    def source():
        yield from range(5)
        raise ValueError("the sixth")

    seen = []
    with pytest.raises(ValueError, match="the sixth"):
        for number in fit._ahead(source()):
            seen.append(number)
    assert seen == [0, 1, 2, 3, 4]
    assert list(fit._ahead([])) == [] and list(fit._ahead([None, 0])) == [None, 0]


def test_a_step_that_is_not_finite_changes_nothing_though_nobody_looks():
    """The fused update leaves weights, means and the count of steps alone, and goes on with the next batch."""
    from minitransformer.train import _update, make_scaler

    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1, fused=True)
    scaler = make_scaler(torch.device("cpu"), "fp32")
    for factor in (1.0, torch.nan, torch.inf, 1.0):
        before = [w.detach().clone() for w in layer.parameters()]
        optimizer.zero_grad()
        loss = factor * layer(torch.ones(1, 3)).square().sum()
        loss.backward()
        _, finite = _update(layer, optimizer, scaler, loss.detach(), 1.0)
        assert bool(finite) == (factor == 1.0)
        same = all(map(torch.equal, before, layer.parameters()))
        assert same == (factor != 1.0)
    assert {int(s["step"]) for s in optimizer.state.values()} == {2}
