# Generated from chapters/day08_data_schedule_monitoring.md; edit the chapter, not this file.
"""How the learning rate changes during a run: warm-up and decay."""

__all__ = ["constant_schedule", "linear_schedule"]


# chapters/day08_data_schedule_monitoring.md · Warm-up and linear decay
def linear_schedule(step: int, total: int, warmup: int = 0) -> float:
    """The share of the full rate after `step` updates: up in `warmup`, then down to 0.

    Raises:
        ValueError: if a count is negative, or `warmup` exceeds `total`.
    """
    if not 0 <= warmup <= total or step < 0:
        raise ValueError(
            f"step and warmup must not be negative, and warmup at most total, "
            f"got step={step}, total={total}, warmup={warmup}"
        )
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def constant_schedule(step: int, total: int, warmup: int = 0) -> float:
    """As `linear_schedule`, but the rate stays full after the warm-up."""
    return linear_schedule(step, total, warmup) if step < warmup else 1.0


_SCHEDULES = {"constant": constant_schedule, "linear": linear_schedule}
