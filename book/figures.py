"""One look for every figure of the book: palette, style, and the few shapes that diagrams are made of."""

import warnings
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from matplotlib_inline.backend_inline import set_matplotlib_formats

# Okabe and Ito's palette, safe for colour-blind readers. Queries, keys and values keep theirs everywhere.
QUERY, KEY, VALUE = "#0072B2", "#E69F00", "#009E73"
WEIGHT, BAD, NEUTRAL, SKY = "#CC79A7", "#D55E00", "#7F7F7F", "#56B4E9"
CYCLE = (QUERY, KEY, VALUE, BAD, WEIGHT, SKY, NEUTRAL)


def use_style() -> None:
    """Set the book's style: SVG, the palette, no frame at the top and right. Call it once per chapter."""
    set_matplotlib_formats("svg")
    warnings.filterwarnings("ignore", message="IProgress not found")  # progress bars are plain text here
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.25,
            "figure.figsize": (6.4, 3.2),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "svg.hashsalt": "minitransformer",
        }
    )


def canvas(width: float, height: float, scale: float = 0.8) -> Axes:
    """An empty drawing area of `width` by `height` units, for diagrams made of boxes and arrows.

    A unit is `scale` inches, or less: no diagram is wider than a column, so that its letters keep their size.
    """
    scale = min(scale, 6.2 / width)
    _, ax = plt.subplots(figsize=(width * scale, height * scale))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    return ax


def box(
    ax: Axes, x: float, y: float, text: str, color: str = NEUTRAL, width: float = 2.0, height: float = 0.6
) -> None:
    """A rounded box centred on (x, y)."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.1"
    ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color + "33", edgecolor=color, lw=1.5)
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=9)


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = NEUTRAL,
    text: str = "",
    bend: float = 0,
) -> None:
    """An arrow, optionally bent (radians of arc) and labelled at its middle."""
    style = {
        "arrowstyle": "-|>",
        "color": color,
        "lw": 1.2,
        "connectionstyle": f"arc3,rad={bend}",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    ax.annotate("", xy=end, xytext=start, arrowprops=style)
    if text:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        ax.text(*middle, " " + text, fontsize=8, va="center", ha="left")


def heatmap(
    ax: Axes,
    values: torch.Tensor,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    numbers: bool = True,
    title: str = "",
    digits: int = 2,
    **imshow: object,
) -> None:
    """A matrix as colours, with its numbers in the cells and its row and column names at the edges."""
    values = torch.as_tensor(values).detach().float()
    image = ax.imshow(values, **{"cmap": "Blues", "aspect": "auto", **imshow})
    ax.set_title(title, fontsize=10)
    ax.grid(False)
    ax.set_xticks(range(len(columns)), columns, rotation=45 if len(columns) > 6 else 0)
    ax.set_yticks(range(len(rows)), rows)
    if not numbers:
        return
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            shade = image.norm(value)
            color = "white" if shade > 0.6 else "black"
            ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", fontsize=8, color=color)


def looks(ax: Axes, tokens: Sequence[str], weights: torch.Tensor, color: str = NEUTRAL) -> None:
    """Who looks at whom: the tokens above and below, joined by lines as thick as the weights `[query, key]`."""
    named = bool(ax.texts)  # a second call adds lines only
    for i, token in enumerate(tokens):
        for height, side in () if named else ((1.03, "bottom"), (-0.03, "top")):
            ax.text(i, height, token, ha="center", va=side)
        for j, weight in enumerate(weights[i].tolist()):
            ax.plot([i, j], [1, 0], color=color, lw=7 * weight, alpha=0.7, solid_capstyle="butt")
    ax.set(xlim=(-0.5, len(tokens) - 0.5), ylim=(-0.25, 1.25))
    ax.axis("off")
