"""Widgets of the pages: what a chapter's cell hands to them. `AUTHORS.md` says how to add one."""

import json
from collections.abc import Iterable
from typing import Any

from IPython.display import display

__all__ = ["script_names", "start", "start_script"]


def script_names(widgets: Iterable[str]) -> list[str]:
    """The scripts that a page with these widgets loads, in their order."""
    wanted = sorted(set(widgets))
    return ["play", *(["encoder"] if "live-model" in wanted else []), *wanted]


def start_script(name: str, values: dict[str, Any]) -> str:
    """The values as a script of JSON, which a page keeps for its widget. Tensors and arrays become lists.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
    text = text.replace("</", r"<\/")  # no value may end the script
    return f'<script type="application/json" data-play-start="{name}">{text}</script>'


def start(name: str, **values: Any) -> None:
    """Hand a widget what it starts from: call it in a cell of the page, once for each widget."""
    note = f"The widget {name!r} starts from {', '.join(values)}."
    data = {"text/html": f'<p class="play-note">{note}</p>{start_script(name, values)}', "text/plain": note}
    display(data, raw=True)
