# Generated from chapters/; edit the chapters, not this file.
"""`python -m minitransformer` is the command `minitransformer`."""

import io
import os
import sys


def main() -> int:
    """The command; an interruption is a sentence also while PyTorch is still being loaded."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # as stderr does: a letter that the terminal lacks stops nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from minitransformer.cli import main as command
    except KeyboardInterrupt:
        print("minitransformer: interrupted", file=sys.stderr)
        return 130
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
