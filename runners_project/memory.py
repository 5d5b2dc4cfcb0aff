"""Memory of the long-lived processes: servers and workers."""

from __future__ import annotations

import gc


def freeze_startup() -> None:
    """Exclude all objects that exist now from later garbage collections. Call this once, when the process is ready.

    CPython makes a full collection only after the new objects have become a quarter of the old ones. Modules, models
    and templates are about 120,000 old objects. Without this call, a full collection ran after 324,000 new objects,
    if a tenth of them survive. With this call, it runs after 94,000. Until then, cycles such as the frames of failed
    requests hold memory.
    See https://docs.python.org/3/library/gc.html#gc.freeze.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # only a full collection counts the old objects again
