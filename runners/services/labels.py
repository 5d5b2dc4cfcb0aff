"""The label of a directory on a machine: the row of its run or operation, signed, so that a lost row can be made again.

A service that is restored from a backup does not have the rows of commands that were started after the backup. The
directory of each command has a label with what the row held at its start (found_runs.py reads it). The signature of
SECRET_KEY shows that this service has written the label, and not the owner of the account or another service that uses
the same account.
"""

from __future__ import annotations

import re
from typing import Any

from django.core import signing
from django.core.exceptions import ValidationError
from django.utils.dateparse import parse_datetime

from runners.models import DetachedCommand, Operation, RunnerRun

SALT = "runners.label"
COMMON = ("key", "expid", "installation", "profile_name", "profile_id", "config", "node", "started_by")
COLUMNS: dict[type[DetachedCommand], tuple[str, ...]] = {
    RunnerRun: (
        *COMMON,
        *("runner", "module_loader", "modules", "user"),
        *("command_params", "previous_run", "restart", "restarts"),
    ),
    Operation: (*COMMON, "kind", "argv", "timeout", "notes"),
}


_KEY = re.compile(r"[0-9a-f]{32}")


class NotOurs(Exception):
    """The label is missing, is of another service, or was signed with a key that is not known any more."""


def is_key(text: str) -> bool:
    """Return True if a text may be the name of a directory of a run."""
    return _KEY.fullmatch(text) is not None


def of(row: DetachedCommand) -> str:
    """Return the label of a row that is being launched: letters, digits and `_:.-`."""
    values = {name: getattr(row, name) for name in COLUMNS[type(row)]}
    values |= {"model": row._meta.model_name, "id": row.pk, "created": row.created.isoformat()}
    return signing.dumps(values, salt=SALT, compress=True)


def read(label: str, key: str) -> DetachedCommand:
    """Return the row of a label, not saved, with the number that it had. Raises NotOurs.

    `key`: the name of the directory. A label that somebody has copied into another directory is not accepted.
    """
    try:
        values: dict[str, Any] = signing.loads(label, salt=SALT)
    except (signing.BadSignature, ValueError):  # ValueError: signed, but not JSON
        raise NotOurs from None
    models = {model._meta.model_name: model for model in COLUMNS}
    model = models.get(values.pop("model", None))
    created = parse_datetime(str(values.pop("created", "")))
    if model is None or created is None or values.get("key") != key:
        raise NotOurs
    known = ("id", *COLUMNS[model])  # a label of a newer version may have more columns
    row = model(created=created, **{name: value for name, value in values.items() if name in known})
    try:
        row.clean_fields()
    except ValidationError:
        raise NotOurs from None
    row.name_machine()  # otherwise `save` does it, and sets the node of this process
    return row
