"""Read an experiment's job list, its attempts and its jobs' logs. This file runs on the machine: see `scripts.jobs`.

It needs Python 3.6 and the standard library only. It changes nothing, starts nothing and imports nothing of Autosubmit.
The job list is a pickle: every class and function in it is replaced by a stand-in that does nothing (`_Reader`).
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from typing import Any

from runners.services.machines.scripts.autosubmitrc import autosubmit_configuration, experiments_root, open_file

MOST_BYTES = 64 * 1024 * 1024  # of a job list; 10,000 jobs of Autosubmit 4.1.17 have 9 MB
MOST_MEMORY = 1024 * 1024 * 1024  # bytes of this process
MOST_JOBS = 200000
MOST_ATTEMPTS = 50  # of one job
MOST_NAMES = 50  # failed jobs in counts
MOST_SECTIONS = 200
MOST_DESCRIPTION = 1000  # characters
MOST_TEXT = 255  # characters of one value
STATUSES = {
    -3: "SUSPENDED",
    -2: "UNKNOWN",
    -1: "FAILED",
    0: "WAITING",
    1: "READY",
    2: "SUBMITTED",
    3: "QUEUING",
    4: "RUNNING",
    5: "COMPLETED",
    6: "HELD",
    7: "PREPARED",
    8: "SKIPPED",
    9: "DELAYED",
}
# The places of values in the tuples of Autosubmit 3.14 and 4.0.
TUPLE = ("name", "id", "status", "priority", "section", "date", "member", "chunk", "out", "err")
FILTERS = ("section", "member", "date", "platform", "chunk", "split")
# What a pickle that is not complete, or not from Autosubmit, raises.
UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError)
ATTEMPT = ("submit", "start", "finish", "status", "remote_id", "out", "err")
OLD_PYTHON = 79  # exit code: another Python has to read this job list


class Problem(Exception):
    """Nothing can be read. The first argument is a word for the service, the second one is for people."""


class _Anything:
    """Stands for every object in the job list: it keeps the state that it is given and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Anything()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:
            state = dict(state[0] or {}, **(state[1] or {}))
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


def _date(packed: Any = b"", *_: Any) -> Any:
    """Return the time in the bytes of a pickled datetime, as text."""
    if isinstance(packed, str):
        packed = packed.encode("latin-1", "replace")
    if not isinstance(packed, bytes) or len(packed) < 4:
        return None
    day = "%04d%02d%02d" % (packed[0] * 256 + packed[1], packed[2] & 127, packed[3])
    clock = packed[4:7] if len(packed) == 10 else b"\0\0\0"
    if clock[2]:
        return day + "%02d%02d%02d" % tuple(clock)
    if clock[1]:
        return day + "%02d%02d" % (clock[0], clock[1])
    return day + ("%02d" % clock[0] if clock[0] else "")


def _encode(text: Any = "", *_: Any) -> bytes:
    return text.encode("latin-1", "replace") if isinstance(text, str) else b""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "datetime" and name in ("datetime", "date"):
            return _date
        if module == "_codecs" and name == "encode":
            return _encode
        return _Anything

    def persistent_load(self, pid: Any) -> Any:
        return None


def _text(value: Any) -> str | None:
    """Return a short text; None if there is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str) and value in ("", "None", "NA"):
        return None
    return str(value)[:MOST_TEXT]


def _number(value: Any) -> int | None:
    """Return a positive integer; None if there is none."""
    if isinstance(value, str) and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, float) and 0 < value < 1e15:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**15:
        return None
    return value


def _configuration(base: str, key: str) -> dict[tuple[str, str], str]:
    """Return the values of Autosubmit's configuration file. Empty: there is no file, or it cannot be read.

    `key`: that of a run of the experiment, or empty. Its directory tells which file the environment of the run named.
    """
    named = os.environ.get("AUTOSUBMIT_CONFIGURATION") or ""
    if key:
        try:
            with open(open_file(os.path.join(base, key, "begun")), "rb") as file:
                named = os.fsdecode(file.read(4096))
        except OSError:
            pass
    try:
        return autosubmit_configuration(base, named)
    except OSError:
        return {}


class Experiment:
    def __init__(self, request: dict[str, Any], expid: str = "", key: str = "") -> None:
        self.expid = expid or request["expid"]
        self.key = key or request.get("key") or ""
        place: Any = request.get("place") or ("", "")
        self.root, data = place
        if not self.root:
            configuration = _configuration(request["base"], self.key)
            self.root = experiments_root(configuration)
            data = configuration.get(("historicdb", "path"))
        self.data = data or os.path.join(self.root, "metadata", "data")
        self.path = os.path.join(self.root, self.expid)
        if not os.path.isdir(self.path):
            raise Problem("no_experiment", "There is no experiment %s in %s." % (self.expid, self.root))
        self.job_list = os.path.join(self.path, "pkl", "job_list_%s.pkl" % self.expid)
        self.database = os.path.join(self.data, "job_data_%s.db" % self.expid)

    def stamp(self) -> str | None:
        """Return a text that changes when the job list is written; None if there is no job list."""
        try:
            found = os.stat(self.job_list)
        except FileNotFoundError:
            return None
        return "%d.%d.%d" % (found.st_mtime_ns, found.st_size, found.st_ino)

    def jobs(self) -> tuple[list[dict[str, Any]], str]:
        """Return the jobs, and the stamp of the file that was read. Autosubmit 4.0 writes in place: read it twice."""
        for pause in (0.05, 0.2, None):
            stamp = self.stamp()
            if stamp is None:
                raise Problem("no_job_list", "The experiment %s has no job list." % self.expid)
            try:
                found = self._read()
                if stamp == self.stamp() or pause is None:
                    return found, stamp
            except (
                pickle.UnpicklingError,
                EOFError,
                AttributeError,
                IndexError,
                KeyError,
                TypeError,
                ValueError,
            ) as error:
                if "unsupported pickle protocol" in str(error):
                    sys.exit(OLD_PYTHON)
                if pause is None:
                    raise Problem("damaged", "The job list cannot be read: %s" % type(error).__name__) from error
            time.sleep(pause or 0)
        raise AssertionError("the last pass returns or raises")

    def _read(self) -> list[dict[str, Any]]:
        with open(open_file(self.job_list), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise Problem("too_large", "The job list has %d bytes; at most %d are read." % (size, MOST_BYTES))
            found = _Reader(file, encoding="latin-1").load()
        state = getattr(found, "state", None)
        if isinstance(state, dict) and isinstance(state.get("_node"), dict):  # a graph: 4.1 before 4.1.12
            found = {name: node["job"].state for name, node in state["_node"].items()}
        if isinstance(found, dict):  # 4.1.12 and newer
            jobs = list(found.values())
            if not all(isinstance(job, dict) for job in jobs):
                raise ValueError
        elif isinstance(found, list):  # 3.14 and 4.0
            jobs = [dict(zip(TUPLE, job)) for job in found]
        else:
            raise ValueError
        if len(jobs) > MOST_JOBS:
            raise Problem("too_large", "The job list has %d jobs; at most %d are read." % (len(jobs), MOST_JOBS))
        return jobs


def _value(job: dict[str, Any], key: str) -> Any:
    """Return a value of a job: some names begin with an underscore in some versions."""
    found = job.get("_" + key)
    return job.get(key) if found is None else found


def _status(job: dict[str, Any]) -> str:
    found = _value(job, "status")
    return STATUSES.get(found, "UNKNOWN") if isinstance(found, int) else "UNKNOWN"


def _name(job: dict[str, Any]) -> str:
    return _text(_value(job, "name")) or ""


def _log(job: dict[str, Any], place: int) -> str | None:
    found = _value(job, "local_logs")
    name = found[place] if isinstance(found, (list, tuple)) and len(found) == 2 else job.get(("out", "err")[place])
    return os.path.basename(name)[:MOST_TEXT] or None if isinstance(name, str) else None


def _date_of(job: dict[str, Any]) -> str | None:
    found = job.get("date")
    return found[:MOST_TEXT] if isinstance(found, str) else None


def _platform(job: dict[str, Any]) -> str | None:
    return _text(job.get("platform_name")) or _text(job.get("_platform_name"))


READ = {
    "section": lambda job: _text(_value(job, "section")),
    "member": lambda job: _text(_value(job, "member")),
    "date": _date_of,
    "platform": _platform,
    "chunk": lambda job: _number(_value(job, "chunk")),
    "split": lambda job: _number(_value(job, "split")),
    "status": _status,
    "name": _name,
}


def _counts(jobs: list[dict[str, Any]], stamp: str, names: int) -> dict[str, Any]:
    by_status: dict[str, int] = {}
    failed: list[str] = []
    for job in jobs:
        status = _status(job)
        by_status[status] = by_status.get(status, 0) + 1
        if status == "FAILED" and len(failed) < names:
            failed.append(_name(job))
    return {"total": len(jobs), "by_status": by_status, "failed": failed, "stamp": stamp}


def _described(job: dict[str, Any]) -> dict[str, Any]:
    return {key: read(job) for key, read in READ.items()}


def _attempts(path: str, names: list[str]) -> dict[str, list[dict[str, Any]]] | None:
    """Return the rows of the history database for these jobs, by name; None if it cannot be read within 1 s.

    Autosubmit waits 5 s for a lock. A query holds its shared lock for some milliseconds.
    """
    try:
        import sqlite3

        os.close(open_file(path))
    except (ImportError, OSError, ValueError):
        return None
    end = time.time() + 1
    while True:
        try:
            return _history(path, names, end)
        except sqlite3.OperationalError:  # locked, or just between the steps of a writer
            if time.time() > end:
                return None
            time.sleep(0.02)
        except sqlite3.Error:  # no database, or a damaged one
            return None


def _history(path: str, names: list[str], end: float) -> dict[str, list[dict[str, Any]]] | None:
    """Return what `_attempts` does. Raises sqlite3.Error; OperationalError also at the time `end`."""
    import sqlite3

    uri = "file:%s?mode=ro" % path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    database = sqlite3.connect(uri, uri=True, timeout=0.1, isolation_level=None)
    try:
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        database.set_progress_handler(lambda: time.time() > end, 10000)
        columns = [row[1] for row in database.execute("PRAGMA table_info(job_data)")]
        wanted = ["job_name", "counter", "submit", "start", "finish", "status", "job_id"]
        if not set(wanted) <= set(columns):
            return None
        wanted += [each for each in ("out", "err", "run_id") if each in columns]
        last_run = database.execute("SELECT max(run_id) FROM job_data").fetchone()[0] if "run_id" in columns else None
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for first in range(0, len(names), 500):
            part = names[first : first + 500]
            query = "SELECT %s FROM job_data WHERE job_name IN (%s) ORDER BY counter DESC LIMIT %d" % (
                ", ".join(wanted),
                ", ".join("?" * len(part)),
                MOST_ATTEMPTS * len(part),
            )
            for row in database.execute(query, part).fetchall():
                values = dict(zip(wanted, row))
                rows = found.get(values["job_name"])
                if rows is not None and len(rows) < MOST_ATTEMPTS:
                    rows.append(values)
    finally:
        database.close()
    return {name: [_attempt(row, last_run) for row in reversed(rows)] for name, rows in found.items()}


def _attempt(row: dict[str, Any], last_run: Any) -> dict[str, Any]:
    found: dict[str, Any] = {key: _number(row[key]) for key in ("submit", "start", "finish")}
    found["run"], found["last_run"] = row.get("run_id"), last_run
    found["remote_id"] = _number(row["job_id"])
    found["status"] = _text(row["status"])
    for key in ("out", "err"):
        name = row.get(key)
        found[key] = _text(os.path.basename(name)) if isinstance(name, str) else None
    return found


def _page(jobs: list[dict[str, Any]], query: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """Return how many jobs match, and those of the page."""
    statuses = set(query.get("status") or ())
    text, filters = query.get("name"), [key for key in FILTERS if query.get(key) is not None]
    found = []
    for job in jobs:
        if statuses and _status(job) not in statuses:
            continue
        if text is not None and text.lower() not in _name(job).lower():
            continue
        if any(query[key] != READ[key](job) for key in filters):
            continue
        found.append(job)
    order = query.get("ordering") or ""
    if order:
        read: Any = READ[order.lstrip("-")]
        without = [job for job in found if read(job) is None]
        found = [job for job in found if read(job) is not None]
        found.sort(key=read, reverse=order.startswith("-"))
        found += without
    begin = query["offset"]
    return len(found), found[begin : begin + query["limit"]]


def _moment(value: Any) -> int | None:
    """Return epoch seconds. The job list has them as a number, or as the local time YYYYMMDDHHMMSS."""
    number = _number(value)
    if number is not None and number > 10**13:
        try:
            return _number(time.mktime(time.strptime(str(number), "%Y%m%d%H%M%S")))
        except (ValueError, OverflowError):
            return None
    return number


def _all_attempts(job: dict[str, Any], status: str, rows: Any) -> list[dict[str, Any]]:
    """Return the attempts of a job, oldest first: the rows of the history, and the attempt that only the job list has.

    Some versions write the rows at the end of the run only. Then attempts are missing: the job list says how often the
    job has failed. Nothing is known of them, but the numbers of the other attempts are right.
    """
    remote_id = _number(job.get("id"))
    # 4.1.8 writes two rows for one submission, and fills in the second one only.
    rows = list(rows)
    found = [
        row
        for row, after in zip(rows, rows[1:] + [{"remote_id": None}])
        if row["finish"] or row["remote_id"] is None or row["remote_id"] != after["remote_id"]
    ]
    is_under_way = status in ("SUBMITTED", "QUEUING", "RUNNING", "HELD")
    if is_under_way or (remote_id is not None and status in ("COMPLETED", "FAILED")):
        if not found or found[-1]["remote_id"] != remote_id:
            fails = _number(_value(job, "fail_count")) or 0
            missing = min(fails, MOST_ATTEMPTS) - sum(
                1 for row in found if row["run"] and row["run"] == row["last_run"]
            )
            found += [dict.fromkeys(ATTEMPT)] * max(0, missing)
            submit, start = _moment(job.get("submit_time_timestamp")), _moment(job.get("start_time_timestamp"))
            found.append(
                {
                    "submit": submit,
                    "start": start if submit and start and start >= submit - 1 else None,
                    "finish": None,
                    "remote_id": remote_id,
                    "status": status,
                    "out": _log(job, 0),
                    "err": _log(job, 1),
                }
            )
        elif is_under_way and not found[-1]["finish"]:
            found[-1]["status"] = status
    if found and not found[-1]["out"] and status != "WAITING":
        found[-1] = dict(found[-1], out=_log(job, 0), err=_log(job, 1))
    return [{key: each[key] for key in ATTEMPT} for each in found[-MOST_ATTEMPTS:]]


def answer_counts(request: dict[str, Any], write: Any) -> None:
    for key, expid, known in request["experiments"]:
        found: dict[str, Any] = {}
        try:
            experiment = Experiment(request, expid, key)
            if known and experiment.stamp() == known:
                found = {"unchanged": True}
            else:
                jobs, stamp = experiment.jobs()
                found = _counts(jobs, stamp, request["names"])
        except Problem as problem:
            found = {"problem": problem.args[0], "detail": problem.args[1]}
        except OSError as error:
            found = {"problem": "unreadable", "detail": "The job list cannot be read: %s" % error.strerror}
        except (MemoryError, RecursionError):
            found = {"problem": "too_large", "detail": "The job list needs too much memory."}
        jobs = []  # free it before the next one is read
        write(key, found)


def answer_page(request: dict[str, Any], write: Any) -> None:
    experiment = Experiment(request)
    jobs, stamp = experiment.jobs()
    found = _counts(jobs, stamp, MOST_NAMES)
    found["matching"], page = _page(jobs, request["query"])
    found["jobs"] = [_described(job) for job in page]
    rows = _attempts(experiment.database, [job["name"] for job in found["jobs"]])
    for job, described in zip(page, found["jobs"]):
        described["attempts"] = _all_attempts(job, described["status"], (rows or {}).get(described["name"], ()))
    found["history"], found["place"] = rows is not None, [experiment.root, experiment.data]
    write(experiment.key, found)


def answer_selection(request: dict[str, Any], write: Any) -> None:
    """Write the counts of all jobs, of each section and of the selected jobs, and the names of some selected jobs."""
    experiment = Experiment(request)
    jobs, stamp = experiment.jobs()
    found = _counts(jobs, stamp, 0)
    has_splits = any(_is_split(job) for job in jobs)
    chosen = [job for job in jobs if _is_selected(job, request["selection"], has_splits)]
    sections: dict[str, int] = {}
    for job in jobs:
        section = str(READ["section"](job) or "")
        if section in sections or len(sections) < MOST_SECTIONS:
            sections[section] = sections.get(section, 0) + 1
    found["sections"], found["selected"] = sections, _counts(chosen, stamp, 0)
    found["jobs"] = [[_name(job), _status(job)] for job in chosen[: request["limit"]]]
    found["place"] = [experiment.root, experiment.data]
    write(experiment.key, found)


def _is_selected(job: dict[str, Any], selection: dict[str, Any], has_splits: bool) -> bool:
    """Return True if all filters match, as in `setstatus` of Autosubmit 4.1.17.1. None matches every value.

    `has_splits`: a job of the job list has splits. Then a filter by section selects only jobs with splits.
    """
    names, statuses = selection["names"], selection["statuses"]
    if names is not None and _name(job) not in names:
        return False
    if statuses is not None and _status(job) not in statuses:
        return False
    for wanted in selection["sections"]:
        if not any(_has_section(job, has_splits, *each) for each in wanted):
            return False
    chunks = selection["chunks"]
    return chunks is None or any(_is_in_chunks(job, *each) for each in chunks)


def _has_section(job: dict[str, Any], has_splits: bool, section: str | None, splits: list[int] | None) -> bool:
    if section is not None and str(READ["section"](job) or "").upper() != section:
        return False
    if splits is None:
        return _is_split(job) or not has_splits
    return _is_split(job) and READ["split"](job) in splits


def _is_split(job: dict[str, Any]) -> bool:
    return (_number(_value(job, "splits")) or 0) > 1


def _is_in_chunks(job: dict[str, Any], date: str | None, member: str | None, chunks: list[int] | None) -> bool:
    day, name, chunk = (READ[key](job) for key in ("date", "member", "chunk"))
    if day is None or name is None or chunk is None:
        return False
    if (date is not None and str(day)[:8] != date) or (member is not None and str(name).upper() != member):
        return False
    return chunks is None or chunk in chunks


def answer_failures(request: dict[str, Any], write: Any) -> None:
    """Write the counts, and the end of the last error log of some of the failed jobs; without one, of the output."""
    experiment = Experiment(request)
    jobs, stamp = experiment.jobs()
    found = _counts(jobs, stamp, MOST_NAMES)
    failed = [job for job in jobs if _status(job) == "FAILED"][: request["jobs"]]
    rows = _attempts(experiment.database, [_name(job) for job in failed]) or {}
    found["failures"] = [_failure(experiment, job, rows.get(_name(job), ()), request["limit"]) for job in failed]
    write(experiment.key, found)


def _failure(experiment: Experiment, job: dict[str, Any], rows: Any, limit: int) -> dict[str, Any]:
    attempts = _all_attempts(job, "FAILED", rows)
    text = ""
    for stream in ("err", "out"):
        file = attempts[-1][stream] if attempts else None
        try:
            log = _open_log(experiment, _name(job), file, stream, True)
        except (OSError, Problem):
            continue
        begin = max(0, os.fstat(log).st_size - limit)
        os.lseek(log, begin, os.SEEK_SET)
        text = os.read(log, limit).decode("utf-8", "replace")
        os.close(log)
        if begin:  # an incomplete word may be the end of an address with a password
            text = text.partition("\n" if "\n" in text else " ")[2]
        if text.strip():
            break
    return {"name": _name(job), "text": text}


def answer_log(request: dict[str, Any], write: Any) -> None:
    experiment = Experiment(request)
    name, stream = request["name"], request["stream"]
    jobs, _ = experiment.jobs()
    job = next((job for job in jobs if _name(job) == name), None)
    if job is None:
        raise Problem("no_job", "The experiment %s has no job of this name." % experiment.expid)
    rows = (_attempts(experiment.database, [name]) or {}).get(name, ())
    attempts = _all_attempts(job, _status(job), rows)
    number = request["attempt"] or len(attempts)
    if not 1 <= number <= len(attempts):
        raise Problem("no_attempt", "The job has %d attempts." % len(attempts))
    attempt = attempts[number - 1]
    log = _open_log(experiment, name, attempt[stream], stream, number == len(attempts))
    size = os.fstat(log).st_size
    offset = request["offset"] if request["offset"] >= 0 else max(0, size + request["offset"])
    is_over = attempt["status"] not in ("SUBMITTED", "QUEUING", "RUNNING", "HELD", None)
    found = {"size": size, "offset": offset, "over": is_over, "attempt": number}
    write(experiment.key, found)
    sys.stdout.flush()
    left = min(request["limit"], max(0, size - offset))
    os.lseek(log, offset, os.SEEK_SET)
    while left > 0:
        part = os.read(log, min(left, 65536))
        if not part:
            break
        sys.stdout.buffer.write(part)
        left -= len(part)


def answer_description(request: dict[str, Any], write: Any) -> None:
    """Write the description of an experiment in Autosubmit's database; empty: there is none, or it cannot be read.

    Source: `DB_PATH` and the table `experiment` of Autosubmit 3.14 to 4.1.17.
    """
    configuration = _configuration(request["base"], request.get("key") or "")
    folder = configuration.get(("database", "path")) or experiments_root(configuration)
    path = os.path.join(folder, configuration.get(("database", "filename")) or "autosubmit.db")
    text: Any = None
    try:
        import sqlite3

        os.close(open_file(path))
        uri = "file:%s?mode=ro" % path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        database = sqlite3.connect(uri, uri=True, timeout=1)
        try:
            row = database.execute("SELECT description FROM experiment WHERE name = ?", [request["expid"]]).fetchone()
            text = row[0] if row else None
        finally:
            database.close()
    except (ImportError, OSError, ValueError):
        pass
    except sqlite3.Error:  # locked, no such table, or not a database
        pass
    write(request.get("key"), {"description": text[:MOST_DESCRIPTION] if isinstance(text, str) else ""})


def _open_log(experiment: Experiment, name: str, file: str | None, stream: str, is_last: bool) -> int:
    """Open a log of a job. It is a file in the experiment's folder of logs: no link is followed there.

    While a job runs on the local platform, its output is in NAME.cmd.out.0; later it gets the name that the job list
    and the history have.
    """
    folder = os.open(os.path.join(experiment.path, "tmp"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = os.open(
        "LOG_" + experiment.expid, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
    )
    candidates = [file] if file else []
    if is_last:
        begin = "%s.cmd.%s" % (name, stream)
        found = [each for each in os.listdir(folder) if each == begin or each.startswith(begin + ".")]
        candidates += sorted(found, key=lambda each: (len(each), each), reverse=True)
    for each in candidates:
        try:
            return open_file(each, folder)
        except OSError:
            continue
    raise Problem("no_log", "The machine does not have this log (yet).")


ANSWERS = {
    "counts": answer_counts,
    "page": answer_page,
    "selection": answer_selection,
    "log": answer_log,
    "failures": answer_failures,
    "description": answer_description,
}


def main(request: dict[str, Any]) -> None:
    import gc

    gc.disable()  # it takes half of the time of reading many small objects, and this process ends soon
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
    sys.setrecursionlimit(20000)

    def write(key: Any, answer: dict[str, Any]) -> None:
        sys.stdout.write("%s %s %s\n" % (request["mark"], key or "-", json.dumps(answer, separators=(",", ":"))))

    try:
        ANSWERS[request["ask"]](request, write)
    except Problem as problem:
        write(request.get("key"), {"problem": problem.args[0], "detail": problem.args[1]})
    except OSError as error:
        write(request.get("key"), {"problem": "unreadable", "detail": "It cannot be read: %s" % error.strerror})
    except (MemoryError, RecursionError):
        write(request.get("key"), {"problem": "too_large", "detail": "The job list needs too much memory."})
    sys.stdout.flush()
    os._exit(0)  # without freeing every object


if __name__ == "__main__":
    main(dict(json.loads(sys.argv[1]), base=sys.argv[2]))
