"""The documents as a site, at /docs/guide/, if `make docs` has built it."""

from __future__ import annotations

import base64
import hashlib
import re
from wsgiref.headers import Headers

PREFIX = "/docs/guide/"
# The theme has a few scripts in each page. Only these are allowed, by their hashes.
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "script-src 'self'"
)


def add_headers(headers: Headers, path: str, url: str) -> None:
    """Add the security headers to a page of the guide. WhiteNoise calls this once per static file, at the start."""
    if not (url.startswith(PREFIX) and path.endswith(".html")):
        return
    with open(path, encoding="utf-8", newline="") as file:
        scripts = _SCRIPT.findall(file.read())
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    headers["Content-Security-Policy"] = " ".join((_POLICY, *dict.fromkeys(f"'sha256-{value}'" for value in hashes)))
    headers["X-Content-Type-Options"] = "nosniff"
