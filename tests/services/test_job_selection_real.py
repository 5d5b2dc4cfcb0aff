"""What the form of set-job-status counts, compared with what the real `autosubmit setstatus` selects."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runners.commands.set_job_status import SET_JOB_STATUS, split_sections
from runners.models import AuditRecord
from runners.services import execute, job_selection, jobs
from runners.services.machines.registry import get_runner
from tests.support.environments import AutosubmitAccount

pytestmark = [pytest.mark.real, pytest.mark.django_db, pytest.mark.timeout(900)]

# The texts of the form. Every kind of filter, alone and together with another one.
FILTERS: list[dict[str, Any]] = [
    {"filter_status": "UNKNOWN"},
    {"filter_status": "WAITING COMPLETED", "filter_type": "DN"},
    {"filter_type": "SIM"},
    {"filter_type": "SIM, INI, DN [2]"},
    {"filter_chunks": "[ 20000101 [ fc0 [1] fc1 [2 3] ] 20010101 [ fc1 [1] ] ]"},
    {"filter_chunks": "[ Any [ fc1 [ 2 ] ] ]", "filter_type": "ANY"},
    {"filter_type_chunk": "[ 20000101 [ fc0 [1-3] ] ],Any"},
    {"filter_type_chunk": "[ 20010101 [ Any [2] ] ],DN", "filter_status": "WAITING"},
    {"job_names_list": "{expid}_INI {expid}_20000101_fc0_1_SIM {expid}_20000101_fc0_2_SIM", "filter_status": "UNKNOWN"},
]


@pytest.fixture
def expid(autosubmit: AutosubmitAccount) -> str:
    """An experiment of two dates, two members and three chunks. Two of its SIM are UNKNOWN, INI is completed."""
    expid = autosubmit.short_experiment(job_list=False)
    content = {
        "EXPERIMENT": {
            "DATELIST": "20000101 20010101",
            "MEMBERS": "fc0 fc1",
            "NUMCHUNKS": 3,
            "CHUNKSIZEUNIT": "month",
            "CHUNKSIZE": 1,
        },
        "JOBS": {
            "INI": {"SCRIPT": "true", "RUNNING": "once"},
            "SIM": {"SCRIPT": "true", "RUNNING": "chunk"},
            "DN": {"SCRIPT": "true", "RUNNING": "chunk", "SPLITS": 2, "DEPENDENCIES": {"SIM": {}}},
        },
    }
    (autosubmit.root / expid / "conf" / f"jobs_{expid}.yml").write_text(yaml.safe_dump(content))
    autosubmit.autosubmit("create", "-np", expid)
    changed = f"{expid}_20000101_fc0_1_SIM {expid}_20010101_fc1_2_SIM"
    autosubmit.autosubmit("setstatus", expid, "-s", "-np", f"--list={changed}", "-t", "UNKNOWN")
    autosubmit.autosubmit("setstatus", expid, "-s", "-np", f"--list={expid}_INI", "-t", "COMPLETED")
    return expid


def test_the_form_counts_what_setstatus_selects(autosubmit: AutosubmitAccount, expid: str) -> None:
    config = autosubmit.config("VENV")
    counted, selected = {}, {}
    for filters in FILTERS:
        given = {name: text.format(expid=expid) for name, text in filters.items()}
        selection = job_selection.selection_of(given)
        assert selection is not None
        found = jobs.select(get_runner(config), expid, selection, limit=5)
        counted[str(filters)] = found.selected.total
        params: dict[str, Any] = {each.name: None for each in SET_JOB_STATUS.parameters} | given
        params |= {"final_status": "SUSPENDED", "job_names_list": given.get("job_names_list", "").split()}
        params["filter_status"] = tuple(given.get("filter_status", "").split())
        params["filter_type"] = tuple(split_sections(given.get("filter_type", "")))
        outcome = execute.preview(SET_JOB_STATUS, expid=expid, config=config, params=params, audit=AuditRecord())
        assert outcome.changes is not None
        selected[str(filters)] = outcome.changes.changed
    assert counted == selected
    assert selected["{'filter_type': 'SIM'}"] == 0  # 4.1.17.1 ignores jobs without splits here
