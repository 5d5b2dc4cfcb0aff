"""deploy/nginx/ready-nodes, with stand-ins for nginx and curl. tests/operations executes it with the real ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.servers import ROOT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory in place of /etc/nginx, /run and the programs. nginx fails while there is a file `broken`."""
    text = (ROOT / "deploy/nginx/ready-nodes").read_text()
    text = text.replace("/etc/nginx/", f"{tmp_path}/").replace("/run/nginx.pid", f"{tmp_path}/nginx.pid")
    for name, program in {
        "ready-nodes": text.replace("sleep 2", "exit"),
        "curl": "#!/bin/sh\nexit 0\n",
        "nginx": f'#!/bin/sh\n[ ! -e {tmp_path}/broken ] || exit 1\necho "$*" >>{tmp_path}/calls\n',
    }.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "nginx.pid").write_text("1\n")
    (tmp_path / "autosubmit-runners-nodes").write_text("node1:8000\n")
    return tmp_path


def look(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [place / "ready-nodes", "once"],
        env={"PATH": f"{place}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_nginx_is_told_after_a_reload_that_failed(place: Path) -> None:
    (place / "broken").touch()
    assert look(place).returncode != 0
    (place / "broken").unlink()
    assert look(place).returncode == 0
    assert "-s reload" in (place / "calls").read_text()
    assert sorted(each.name for each in place.glob("*upstream*")) == ["autosubmit-runners-upstream.conf"]


def test_an_empty_list_of_nodes_leaves_the_upstream_as_it_is(place: Path) -> None:
    assert look(place).returncode == 0
    before = (place / "autosubmit-runners-upstream.conf").read_text()
    (place / "autosubmit-runners-nodes").write_text("# none\n")
    refused = look(place)
    assert (refused.returncode, "names no node" in refused.stderr) == (1, True)
    assert (place / "autosubmit-runners-upstream.conf").read_text() == before
