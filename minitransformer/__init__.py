# Generated from chapters/; edit the chapters, not this file.
"""A Transformer encoder written by hand: the package that the chapters of *Twelve days to a Transformer* export."""

from importlib import import_module
from typing import TYPE_CHECKING

_MODULES = [
    "linear",
    "attention",
    "layers",
    "files",
    "tokenizer",
    "encoder",
    "data",
    "model",
    "schedule",
    "evaluate",
    "train",
    "pretrain",
    "bert",
    "experiment.settings",
    "experiment.folder",
    "experiment.checkpoint",
    "experiment.job",
    "experiment.fit",
    "experiment.search",
    "experiment.report",
    "experiment.recipe",
    "cli",
]

if TYPE_CHECKING:
    import minitransformer.evaluate as evaluate
    from minitransformer.attention import *
    from minitransformer.bert import *
    from minitransformer.cli import *
    from minitransformer.data import *
    from minitransformer.encoder import *
    from minitransformer.evaluate import *  # type: ignore[no-redef]
    from minitransformer.experiment.checkpoint import *
    from minitransformer.experiment.fit import *
    from minitransformer.experiment.folder import *
    from minitransformer.experiment.job import *
    from minitransformer.experiment.recipe import *
    from minitransformer.experiment.report import *
    from minitransformer.experiment.search import *
    from minitransformer.experiment.settings import *
    from minitransformer.files import *
    from minitransformer.layers import *
    from minitransformer.linear import *
    from minitransformer.model import *
    from minitransformer.pretrain import *
    from minitransformer.schedule import *
    from minitransformer.tokenizer import *
    from minitransformer.train import *

else:

    def __getattr__(name: str) -> object:
        """Look a public name up, module by module from the ground, so that `import minitransformer` stays light."""
        if name == "__all__":
            return __dir__()
        if name in {module.partition(".")[0] for module in _MODULES}:
            return import_module(f"minitransformer.{name}")
        for module in _MODULES if not name.startswith("_") else []:
            if name in (found := import_module(f"minitransformer.{module}")).__all__:
                return getattr(found, name)
        raise AttributeError(f"module 'minitransformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for module in _MODULES for name in import_module(f"minitransformer.{module}").__all__)
