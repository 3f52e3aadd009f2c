"""Run the pages' cells side by side, one process for each core, before Sphinx reads the pages one after the other.

What ran well goes into myst-nb's own cache, where Sphinx finds it. A page that fails is left to Sphinx, which runs it
again and reports it like any other warning.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from myst_nb.core.read import create_nb_reader
from myst_nb.sphinx_ import SphinxEnvType
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def run(notebook: Any, folder: Path, timeout: int) -> ExecutionResult:
    """All cells of one notebook in a kernel that starts in `folder`."""
    return single_nb_execution(notebook, cwd=str(folder), timeout=timeout, allow_errors=False)


def notebooks(env: SphinxEnvType, names: Sequence[str]) -> dict[Path, Any]:
    """The notebooks among the pages, read as myst-nb reads them, the longest first."""
    found = {}
    for path in (Path(env.doc2path(name)) for name in names):
        text = path.read_text(encoding="utf-8")
        reader = create_nb_reader(str(path), env.myst_config, env.mystnb_config, text)
        if reader is not None:
            found[path] = reader.read(text)
    return dict(sorted(found.items(), key=lambda item: -len(item[1].cells)))


def execute_ahead(app: Sphinx, env: SphinxEnvType, names: list[str]) -> None:
    """Put the outputs of all pages that Sphinx is about to read into the cache, unless they are there."""
    settings = env.mystnb_config
    if settings.execution_mode != "cache" or (cores := os.cpu_count() or 1) < 2:
        return
    cache, waiting = get_cache(settings.execution_cache_path), {}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # kernels side by side: more threads than cores would wait
    with ProcessPoolExecutor(min(cores, 61), get_context("spawn")) as pool:  # Windows spawns, 61 at most
        for path, notebook in notebooks(env, names).items():
            try:
                cache.match_cache_notebook(notebook)
            except KeyError:
                waiting[pool.submit(run, notebook, path.parent, settings.execution_timeout)] = path
        for done, future in enumerate(as_completed(waiting), 1):
            path, how = waiting[future], "failed"
            if future.exception() is None and (result := future.result()).err is None:
                bundle = CacheBundleIn(result.nb, str(path), data={"execution_seconds": result.time})
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                how = f"run in {result.time:.0f} s"
            logger.info(f"[{done}/{len(waiting)}] {path.relative_to(app.srcdir)} {how}")
