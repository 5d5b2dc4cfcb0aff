"""Job lists and histories as versions of Autosubmit write them, for tests that need no real run.

    write(account, "a001", jobs, version="4.1.17")      jobs: [job("a001_SIM", "RUNNING", chunk=1), ...]
    history(account, [row("a001_SIM", ...), ...])       the database job_data_a001.db

The formats were measured: docs/jobs.md. The classes in the pickles have Autosubmit's names, and no such module exists.
"""

from __future__ import annotations

import pickle
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

VALUES = {"WAITING": 0, "READY": 1, "SUBMITTED": 2, "QUEUING": 3, "RUNNING": 4, "COMPLETED": 5, "FAILED": -1}
VALUES |= {"SUSPENDED": -3, "HELD": 6, "SKIPPED": 8}
SUBMITTED = 1_790_000_000  # epoch seconds

_SCHEMA = """CREATE TABLE job_data (id INTEGER PRIMARY KEY AUTOINCREMENT, counter INTEGER, job_name TEXT,
submit INTEGER, start INTEGER, finish INTEGER, status TEXT, job_id INTEGER, out TEXT, err TEXT, run_id INTEGER);
CREATE INDEX ID_JOB_NAME ON job_data (job_name);
CREATE TABLE experiment_run (run_id INTEGER PRIMARY KEY);"""


def job(name: str, status: str = "WAITING", **values: Any) -> dict[str, Any]:
    """Return the state of a job as 4.1.17 stores it. `values`: id, section, date, member, chunk, ..."""
    out, err = values.pop("out", None), values.pop("err", None)
    given = {"section": "SIM", "member": None, "chunk": None, "split": -1, "fail_count": 0} | values
    hidden = {f"_{key}": given.pop(key) for key in ("section", "member", "chunk", "split", "fail_count")}
    state = {
        "_name": name,
        "_status": VALUES[status],
        "id": 0,
        "date": None,
        "platform_name": "LOCAL",
        **hidden,
        **given,
    }
    if out or err:
        state["_local_logs"] = (out, err)
    return state


def row(name: str, counter: int = 0, **values: Any) -> dict[str, Any]:
    """Return an attempt in the history."""
    times = {"submit": SUBMITTED, "start": SUBMITTED + 10, "finish": SUBMITTED + 70}
    row = {"counter": counter, "job_name": name, **times, "status": "COMPLETED", "job_id": 100 + counter, "run_id": 1}
    return row | {"out": f"{name}.{counter}.out", "err": f"{name}.{counter}.err"} | values


def write(home: Path, expid: str, jobs: Sequence[dict[str, Any]], *, version: str = "4.1.17") -> Path:
    """Write the job list of an experiment below `home`/autosubmit. Return its file."""
    data: Any
    if version.startswith("4.0"):
        data = [
            (
                each["_name"],
                each["id"],
                each["_status"],
                0,
                each["_section"],
                each["date"],
                each["_member"],
                each["_chunk"],
                *each.get("_local_logs", ("", "")),
                *("", "", None),
            )
            for each in jobs
        ]
        return write_bytes(home, expid, pickle.dumps(data, protocol=2))
    if version < "4.1.12":
        with _modules() as (graph_type, job_type):
            graph = graph_type()
            graph._node = {}
            for each in jobs:
                found = job_type()
                found.__dict__.update(each)
                graph._node[each["_name"]] = {"job": found}
            return write_bytes(home, expid, pickle.dumps(graph, pickle.HIGHEST_PROTOCOL))
    return write_bytes(home, expid, pickle.dumps({each["_name"]: each for each in jobs}, pickle.HIGHEST_PROTOCOL))


def write_bytes(home: Path, expid: str, data: bytes) -> Path:
    folder = home / "autosubmit" / expid
    (folder / "tmp" / f"LOG_{expid}").mkdir(parents=True, exist_ok=True)
    (folder / "pkl").mkdir(exist_ok=True)
    file = folder / "pkl" / f"job_list_{expid}.pkl"
    new = file.with_suffix(".new")
    new.write_bytes(data)
    return new.replace(file)


def write_log(home: Path, expid: str, name: str, text: bytes) -> Path:
    file = home / "autosubmit" / expid / "tmp" / f"LOG_{expid}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    return file


def history(home: Path, expid: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the history database of an experiment. Return its file."""
    file = home / "autosubmit" / "metadata" / "data" / f"job_data_{expid}.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(_SCHEMA)
        for each in rows:
            names = ", ".join(each)
            database.execute(f"INSERT INTO job_data ({names}) VALUES ({', '.join('?' * len(each))})", [*each.values()])
    return file


def day(text: str) -> datetime:
    return datetime(int(text[:4]), int(text[4:6]), int(text[6:]))  # noqa: DTZ001  (as Autosubmit has it)


@contextmanager
def _modules() -> Iterator[tuple[Any, Any]]:
    """Make the classes that the pickles of 4.1.8 name, while they are written."""
    names = {"networkx.classes.digraph": "DiGraph", "autosubmit.job.job": "Job"}
    made = []
    for name, cls in names.items():
        module = ModuleType(name)
        made.append(type(cls, (), {"__module__": name}))
        setattr(module, cls, made[-1])
        sys.modules[name] = module
    try:
        yield made[0], made[1]
    finally:
        for name in names:
            del sys.modules[name]
