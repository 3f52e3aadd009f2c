# Generated from chapters/day08_data_schedule_monitoring.md; edit the chapter, not this file.
"""The tests that the chapters run in their text, for `minitransformer.schedule`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from minitransformer.schedule import _SCHEDULES, constant_schedule, linear_schedule


# chapters/day08_data_schedule_monitoring.md · Warm-up and linear decay
def library_shares(make: Callable, steps: int) -> list[float]:
    """The rates that a scheduler gives an optimizer whose full rate is 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_schedules_equal_those_of_the_libraries() -> None:
    from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

    for total, warmup in ((10, 4), (37, 0), (12, 12), (7, 1)):
        steps = range(total + 3)
        linear = [linear_schedule(s, total, warmup) for s in steps]
        constant = [constant_schedule(s, total, warmup) for s in steps]
        for ours, make in (
            (linear, lambda o, n=total, w=warmup: get_linear_schedule_with_warmup(o, w, n)),
            (constant, lambda o, w=warmup: get_constant_schedule_with_warmup(o, w)),
            (
                linear,
                lambda o, n=total, w=warmup: torch.optim.lr_scheduler.LambdaLR(
                    o, lambda step: linear_schedule(step, n, w)
                ),
            ),
        ):
            theirs = library_shares(make, total + 3)
            assert np.allclose(ours, theirs, rtol=0, atol=1e-12), (total, warmup, ours, theirs)


def test_linear_schedule_by_hand_and_at_its_edges() -> None:
    expected = [0, 1 / 4, 2 / 4, 3 / 4, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0]
    assert np.allclose([linear_schedule(s, 10, 4) for s in range(12)], expected, rtol=0, atol=1e-12)
    assert constant_schedule(5, 10, 4) == constant_schedule(999, 10) == 1.0
    assert set(_SCHEDULES) == {"constant", "linear"} and _SCHEDULES["linear"](3, 10, 4) == 3 / 4
    for wrong in ((-1, 10, 0), (1, 10, -2), (1, 10, 11)):
        try:
            linear_schedule(*wrong)
            raise AssertionError(f"{wrong} was accepted")
        except ValueError as error:
            assert f"step={wrong[0]}" in str(error)
