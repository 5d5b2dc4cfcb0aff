"""The documents as a site: `make docs` builds it, and the service shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from wsgiref.headers import Headers

import pytest

from runners_project import guide
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site. In strict mode, mkdocs fails at a link that leads nowhere, but not with --quiet."""
    folder = tmp_path_factory.mktemp("guide")
    argv = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=100 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe|link rel=\"?stylesheet)\b[^>]*?(?:src|href)=\"?(https?:[^\" >]+)", page.read_text()
        )
        assert not loaded, page


def test_blocks_of_code_are_shown_as_code(site: Path) -> None:
    for page in site.rglob("index.html"):
        assert "```" not in re.sub(r"<code>.*?</code>", "", page.read_text(), flags=re.DOTALL), page


def test_the_policy_allows_only_the_scripts_of_the_page(site: Path) -> None:
    page = site / "guides/scientist/index.html"
    headers = Headers([])
    guide.add_headers(headers, str(page), "/docs/guide/guides/scientist/")
    policy = headers["Content-Security-Policy"]
    assert policy
    assert policy.count("'sha256-") == len(set(re.findall(r"<script>(.*?)</script>", page.read_text(), re.DOTALL)))
    assert "unsafe" not in policy
    other = Headers([])
    guide.add_headers(other, str(page), "/static/page.html")
    assert not other.items()
