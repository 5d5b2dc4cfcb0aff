"""Memory of the long-lived processes: servers and workers."""

from __future__ import annotations

import gc


def freeze_startup() -> None:
    """Exclude all objects that exist now from later garbage collections. Call this once, when the process is ready.

    CPython makes a full collection only after the new objects have become a quarter of the old ones. With all modules
    among the old ones, cycles such as the frames of failed requests waited for 60,000 new objects, so memory grew for
    half an hour. Full collections also become faster. See https://docs.python.org/3/library/gc.html#gc.freeze.
    """
    gc.collect()
    gc.freeze()
