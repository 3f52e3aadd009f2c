"""Running the check of an exercise against the reader's attempt."""

import os
from collections.abc import Callable


def attempt(check: Callable, *solution: object) -> None:
    """Run `check(*solution)` and say what it found: a diagnosis, or that the exercise is solved.

    The reader's page must stay runnable from top to bottom, so a failing check is printed, not raised.
    While the book itself is built or tested (`MINITRANSFORMER_BOOK=1`) the attempt is the untouched stub,
    and a check that lets the stub pass checks nothing: then this raises.
    """
    try:
        check(*solution)
    except NotImplementedError:
        print("Not yet: the stub is still empty.")
    except Exception as error:  # whatever the attempt raises is part of the diagnosis
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        print(f"Not yet: {kind}{error}")
    else:
        if os.environ.get("MINITRANSFORMER_BOOK") == "1":
            raise RuntimeError(f"{check.__name__} passes on the exercise's stub, so it checks nothing")
        print("Solved.")
