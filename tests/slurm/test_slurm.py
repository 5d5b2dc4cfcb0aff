"""The main job on a real Slurm: the service's answers are compared with squeue, sacct and Autosubmit's job list."""

from __future__ import annotations

import pytest

from tests.slurm.site import COMMAND, Site
from tests.support.processes import kill_all, wait_for
from tests.support.workflow import Workflow, live_through

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

QUICK = {"SCRIPT": "true", "RUNNING": "once"}
LONG = {"SCRIPT": "sleep 600", "RUNNING": "chunk"}


def test_a_workflow_runs_to_its_end(site: Site) -> None:
    second = {**QUICK, "DEPENDENCIES": "ONE"}
    expid = site.create({"ONE": QUICK, "TWO": second})
    site.run(expid)
    ended = site.ended(expid)
    assert (ended["status"], ended["exit_code"], ended["reason"]) == ("COMPLETED", 0, "")
    assert site.job_list(expid) == {"ONE": "COMPLETED", "TWO": "COMPLETED"}
    assert site.history(expid) == {"ONE": ["COMPLETED"], "TWO": ["COMPLETED"]}


def test_a_failing_job_is_submitted_again_as_often_as_its_retrials_say(site: Site) -> None:
    expid = site.create({"BAD": {**QUICK, "SCRIPT": "exit 3", "RETRIALS": 1}, "GOOD": QUICK})
    site.run(expid)
    ended = site.ended(expid)
    assert (ended["status"], ended["exit_code"], ended["reason"]) == ("TERMINATED", 1, "failed")
    assert f"{expid}_BAD" in ended["explanation"]
    assert site.job_list(expid) == {"BAD": "FAILED", "GOOD": "COMPLETED"}
    assert site.history(expid) == {"BAD": ["FAILED", "FAILED"], "GOOD": ["COMPLETED"]}


def test_a_stop_without_cancel_leaves_the_slurm_jobs_alone(site: Site) -> None:
    expid = site.create({"SIM": LONG}, chunks=2)
    site.run(expid)
    before = site.running(expid, 2)
    stopped = site.stop(expid)
    assert (stopped["status"], stopped["reason"]) == ("TERMINATED", "stopped")
    assert site.account.run_pids(expid) == []
    assert site.jobs(expid) == before
    assert set(site.job_list(expid).values()) == {"RUNNING"}


def test_a_stop_with_cancel_empties_the_queue(site: Site) -> None:
    expid = site.create({"SIM": LONG}, chunks=2)
    site.run(expid)
    site.running(expid, 2)
    stopped = site.stop(expid, cancel_jobs=True)
    assert (stopped["status"], stopped["reason"]) == ("TERMINATED", "stopped")
    site.no_jobs(expid)
    assert site.history(expid) == dict.fromkeys(site.job_list(expid), ["CANCELLED"])
    cancel = stopped["cancel"]
    assert cancel["outcome"] == "cancelled"
    assert cancel["jobs"] == {f"{expid}_{name}": "cancelled" for name in site.job_list(expid)}


def test_the_jobs_of_a_run_that_was_stopped_can_still_be_cancelled(site: Site) -> None:
    expid = site.create({"SIM": LONG}, chunks=2)
    site.run(expid)
    site.running(expid, 2)
    site.stop(expid)
    assert len(site.jobs(expid)) == 2
    assert site.stop(expid, cancel_jobs=True)["cancel"]["outcome"] == "cancelled"
    site.no_jobs(expid)


def test_jobs_that_an_unreachable_platform_kept_are_reported(site: Site) -> None:
    expid = site.create({"SIM": LONG}, chunks=2)
    site.run(expid)
    before = site.running(expid, 2)
    site.stop(expid)
    name = f"{expid}_20000101_fc0_1_SIM"
    site.account.platform.stop()
    try:
        wanted = {"final_status": "COMPLETED", "job_names_list": [name]}
        answer = site.app.post(
            f"{COMMAND}set-job-status", {"expid": expid, "profile_name": "CLUSTER", "command_params": wanted}
        )
        stopped = site.stop(expid, cancel_jobs=True)
    finally:
        site.account.platform.start()
    assert set(site.job_list(expid).values()) == {"RUNNING"}
    assert name in str(answer.body)  # with any status, it names the job that was not changed
    assert stopped["cancel"]["outcome"] in ("not_cancelled", "unknown")
    assert stopped["warnings"]
    assert site.jobs(expid) == before
    assert site.stop(expid, cancel_jobs=True)["cancel"]["outcome"] == "cancelled"
    site.no_jobs(expid)


def test_a_stop_during_a_submission_warns_of_jobs_that_may_go_on(site: Site) -> None:
    slow = site.account.platform_bin / "sbatch"
    expid = site.create({"SIM": LONG}, chunks=40)
    slow.write_text('#!/bin/sh\nsleep 1\nexec /usr/bin/sbatch "$@"\n')
    slow.chmod(0o755)
    try:
        site.run(expid)
        wait_for(lambda: site.jobs(expid), 120, what="the first Slurm job")
        stopped = site.stop(expid, cancel_jobs=True)
    finally:
        slow.unlink()
    # Autosubmit records the jobs of one submission together, after the last job: here it knows none of them.
    assert site.jobs(expid)
    again = site.stop(expid, cancel_jobs=True)
    assert site.jobs(expid)
    for answer in (stopped, again):
        assert answer["cancel"]["outcome"] == "unknown"
        assert any("may still run" in warning for warning in answer["warnings"])


def test_a_killed_run_is_reported_and_the_next_run_takes_over_its_jobs(site: Site) -> None:
    release = site.account.home / "release"
    wait = {"SCRIPT": f"until [ -e {release} ]; do sleep 0.5; done", "RUNNING": "chunk"}
    expid = site.create({"SIM": wait}, chunks=2)
    site.run(expid)
    before = site.running(expid, 2)
    kill_all(site.account.run_pids(expid))
    ended = site.ended(expid)
    assert (ended["status"], ended["reason"]) == ("TERMINATED", "killed")
    assert site.jobs(expid) == before
    site.run(expid)
    wait_for(lambda: site.status(expid)["status"] == "ACTIVE", 5)
    release.touch()
    ended = site.ended(expid)
    assert (ended["status"], ended["exit_code"]) == ("COMPLETED", 0)
    # One Slurm job per chunk: the second run submitted none again.
    assert site.history(expid) == {name: ["COMPLETED"] for name in site.job_list(expid)}


def test_a_workflow_of_three_hundred_jobs(site: Site) -> None:
    expid = site.create({"SIM": LONG}, chunks=300)
    names = sorted(site.job_list(expid))
    assert len(names) == 300
    for status in ("SUSPENDED", "READY"):
        wanted = {"final_status": status, "job_names_list": [f"{expid}_{name}" for name in names]}
        site.with_profile("set-job-status", expid=expid, command_params=wanted)
        assert set(site.job_list(expid).values()) == {status}
    site.run(expid)
    wait_for(lambda: len(site.jobs(expid)) == 300, 120, what="300 Slurm jobs", interval=0.5)
    site.list_has(expid, "READY", 0)
    stopped = site.stop(expid, cancel_jobs=True)
    assert (stopped["status"], stopped["reason"]) == ("TERMINATED", "stopped")
    site.no_jobs(expid)
    assert (stopped["cancel"]["outcome"], stopped["cancel"]["counts"]["cancelled"]) == ("cancelled", 300)


@pytest.mark.timeout(900)
def test_three_hundred_jobs_are_watched_stopped_recovered_reconfigured_repaired_and_completed(site: Site) -> None:
    """20 chunks of 3 members, each a SIM and 4 splits of DN. One SIM fails."""
    expid = site.create({"ONE": QUICK})
    flow = Workflow(
        site.app,
        profile="CLUSTER",
        expid=expid,
        file=f"zz_tests_{expid}.yml",
        gate=site.account.home / f"gate-{expid}",
        statuses=site.account.job_statuses,
        members=3,
        chunks=20,
        splits=4,
        seconds=300,
    )
    assert flow.total == 300
    live_through(flow)
    site.no_jobs(expid)
    states = site.history(expid)
    assert states["20000101_fc2_2_SIM"] == ["CANCELLED", "FAILED", "COMPLETED"]
    assert states["20000101_fc0_1_1_DN"] == ["COMPLETED"]
