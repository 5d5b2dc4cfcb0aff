"""The command-line client as one file, which any Python 3.8 or newer runs: `asr`.

The file is a zip archive behind a first line that names the interpreter (PEP 441). It has no compression, fixed times
and a fixed order, so the same source always gives the same bytes.

python -m runners_project.client_file dist/asr
"""

from __future__ import annotations

import io
import stat
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `make zipapp` needs no Django
    from django.http import HttpRequest, HttpResponse

FIRST_LINE = b"#!/usr/bin/env python3\n"
MOMENT = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold
PACKAGE = Path(__file__).resolve().parent.parent / "runners"
SUFFIXES = (".py", ".json", ".bash", ".zsh", ".fish")
MAIN = """\
import sys

if sys.version_info < (3, 8):
    sys.exit("asr needs Python 3.8 or newer; this is %d.%d" % sys.version_info[:2])
from runners.cli.__main__ import main

sys.exit(main())
"""


@cache
def build() -> bytes:
    """Return the file."""
    files = {"__main__.py": MAIN.encode(), "runners/__init__.py": b""}
    for path in sorted((PACKAGE / "cli").iterdir()):
        if path.suffix in SUFFIXES:
            files[f"runners/cli/{path.name}"] = path.read_bytes()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, MOMENT)
            entry.create_system = 3  # Unix
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[name])
    return FIRST_LINE + made.getvalue()


def download(request: HttpRequest) -> HttpResponse:
    """Return the file, for everybody: it has no secret, and no setting of the service."""
    from django.http import HttpResponse, HttpResponseNotAllowed

    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    headers = {"Content-Disposition": 'attachment; filename="asr"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(build(), content_type="application/zip", headers=headers)


def main() -> None:
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build())
    path.chmod(0o755)


if __name__ == "__main__":
    main()
