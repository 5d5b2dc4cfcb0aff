"""Which experiments a form can suggest: those of runs that this service knows, and those that an account can read.

This module does not check permissions for `on_machine`: callers check them before.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from runners.exceptions import RunnerUnreachable
from runners.models import RunnerRun
from runners.services import access, experiment_descriptions
from runners.services.machines import experiments, scripts
from runners.services.machines.answers import Unreadable
from runners.services.machines.bulkheads import BULKHEADS
from runners.services.machines.experiments import Experiments
from runners.services.machines.registry import get_module_loader
from runners.services.machines.runner import Runner
from runners_project.shared_calls import SharedCalls, StillUnderWay

FRESHNESS = 30.0  # seconds for which a list is used again
PATIENCE = 5.0  # seconds that a viewer waits for the read of another viewer's request
DEADLINE = 10  # seconds for the machine
KEPT = 32  # lists, of at most 1000 experiments each
SHOWN = 100  # experiments of known runs
LOOKED_AT = 500  # runs

_lock = threading.Lock()
_lists: OrderedDict[Hashable, tuple[float, Experiments | None]] = OrderedDict()
_reads = SharedCalls()


def of_known_runs(user: Any) -> list[str]:
    """Return the expids of the newest runs that `user` may see, the last used first. No machine is asked."""
    newest = access.visible(RunnerRun.objects.all(), user).order_by("-id").values_list("expid", flat=True)[:LOOKED_AT]
    return list(dict.fromkeys(newest))[:SHOWN]


def on_machine(runner: Runner) -> Experiments | None:
    """Return the experiments that the runner's account can read, up to FRESHNESS seconds old; None if it has no list.

    All viewers in this process share one read per account and environment. Raises the errors of `Runner.execute`.
    """
    config = runner.config
    key = (runner.target, config.module_loader_type, config.modules)
    with _lock:
        asked, known = _lists.get(key, (0.0, None))
    if asked and time.monotonic() - asked < FRESHNESS:
        return known

    def ask_and_keep() -> Experiments | None:
        begin = time.monotonic()
        found = _ask(runner)
        if found:
            texts = {each.expid: each.description for each in found.listed}
            experiment_descriptions.learn(experiment_descriptions.home_of(config), texts, limit=experiments.MOST_TEXT)
        with _lock:
            _lists.pop(key, None)
            _lists[key] = (begin, found)
            while len(_lists) > KEPT:
                _lists.popitem(last=False)
        return found

    try:
        with BULKHEADS.reading(runner.target, PATIENCE) as seconds:
            if seconds is None:
                raise BULKHEADS.busy(runner.target, runner.where)
            return _reads.call(key, ask_and_keep, seconds)
    except StillUnderWay:
        raise RunnerUnreachable("Another request is reading this list. Try again in some seconds.") from None


def _ask(runner: Runner) -> Experiments | None:
    script = scripts.experiments(seconds=DEADLINE - 2)
    lines = [scripts.surroundings("/"), *get_module_loader(runner.config).prelude(), script]
    result = runner.execute(" && ".join(lines), login=True, timeout=DEADLINE)
    try:
        return experiments.parse(result.stdout.decode("utf-8", "replace"))
    except Unreadable:
        return None  # a list of suggestions: without it people type


def forget() -> None:
    """Clear the lists of this process, for tests."""
    with _lock:
        _lists.clear()
