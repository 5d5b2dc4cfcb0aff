"""The page of a run: what it shows, and how it is stopped, cancelled and checked."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from profiles.models import EndpointToggle, RunnerProfile
from runners.models import AuditRecord
from runners.services import own_process
from tests.support.environments import StubAccount
from tests.support.rows import unsaved_run


def test_a_run_of_a_restricted_profile_is_shown_but_cannot_be_stopped(browser: Client) -> None:
    profile = RunnerProfile.objects.create(name="GUARDED", runner_type="LOCAL", module_loader_type="NO_MODULE")
    profile.stop_groups.add(Group.objects.create(name="operators"))
    row = unsaved_run(profile_name="GUARDED")
    row.save()
    assert "Stop this run" not in browser.get(f"/runs/{row.pk}").content.decode()
    answer = browser.post(f"/runs/{row.pk}/stop", headers={"HX-Request": "true"})
    assert "You may not stop" in answer.content.decode()
    row.refresh_from_db()
    assert row.is_active
    assert AuditRecord.objects.get().outcome == "profile_forbidden"


def test_an_ended_run_never_stops_the_newer_one_of_its_experiment(browser: Client) -> None:
    old, new = unsaved_run(status="COMPLETED", exit_code=0), unsaved_run()
    old.save()
    new.save()
    answer = browser.post(f"/runs/{old.pk}/stop", headers={"HX-Request": "true"}).content.decode()
    assert f"run {new.pk} of a001 is active now" in answer
    new.refresh_from_db()
    assert new.is_active
    assert new.stop_requested_at is None


def test_a_check_of_the_machine_needs_a_post_request(browser: Client) -> None:
    row = unsaved_run(status="COMPLETED", exit_code=0)
    row.save()
    assert browser.get(f"/runs/{row.pk}/refresh").status_code == 405
    assert browser.post(f"/runs/{row.pk}/refresh").status_code == 204


def test_the_page_explains_why_a_run_cannot_be_stopped(browser: Client) -> None:
    row = unsaved_run()
    row.save()
    assert "Stop this run" in browser.get(f"/runs/{row.pk}").content.decode()
    EndpointToggle.objects.create(name="RUNNER_RUN", enabled=False)
    for path in (f"/runs/{row.pk}", f"/runs/{row.pk}/stop"):
        page = browser.get(path).content.decode()
        assert "Stop this run" not in page
        assert "an admin has disabled starting and stopping" in page


def test_only_a_kill_is_offered_while_a_stop_is_running(browser: Client) -> None:
    row = unsaved_run(
        stop_requested_at=timezone.now(),
        stop_steps=[{"action": "autosubmit stop", "outcome": "", "seconds": None, "ended": False}],
        stop_owner=own_process.owner(),
        stop_until=timezone.now() + timedelta(minutes=1),
    )
    row.save()
    page = browser.get(f"/runs/{row.pk}").content.decode()
    assert "Stopping…" in page
    assert "Kill it now" in page
    assert "Stop it again" not in page
    row.stop_steps[0] |= {"seconds": 20.0, "outcome": "exit code 0", "ended": False}
    row.stop_owner, row.stopped_by = "", "ada"
    row.save()
    assert "the stop by ada did not end it" in browser.get(f"/runs/{row.pk}").content.decode()
    assert "Stop it again" in browser.get(f"/runs/{row.pk}").content.decode()
    assert "checked" in browser.get(f"/runs/{row.pk}/stop?force=1").content.decode()
    assert "checked" not in browser.get(f"/runs/{row.pk}/stop").content.decode()


def test_a_stop_whose_process_ended_is_shown_as_interrupted(browser: Client) -> None:
    """Its process is gone, or its time limit is over."""
    mine = own_process.owner()
    for owner, until in ((mine, -1), (f"{mine.rsplit(' ', 3)[0]} 999999999 1 aa", 60)):
        row = unsaved_run(
            expid=f"a00{until % 7}",
            identity={"pid": 2},
            stop_requested_at=timezone.now(),
            stopped_by="ada",
            stop_steps=[{"action": "autosubmit stop", "outcome": "", "seconds": None, "ended": False}],
            stop_owner=owner,
            stop_until=timezone.now() + timedelta(seconds=until),
        )
        row.save()
        page = browser.get(f"/runs/{row.pk}").content.decode()
        assert "the stop by ada was interrupted" in page
        assert "the service ended during this step" in page
        assert "Stopping…" not in page
        assert "Stop it again" in page
        assert AuditRecord.objects.filter(run_id=row.pk, outcome="interrupted", actor="ada").count() == 1


def test_a_stop_that_was_interrupted_between_two_steps_is_shown_as_interrupted(browser: Client) -> None:
    done = {"action": "autosubmit stop", "outcome": "exit code 0", "seconds": 2.0, "ended": False}
    for steps in ([], [done]):
        row = unsaved_run(
            expid=f"a00{len(steps)}",
            identity={"pid": 2},
            stop_requested_at=timezone.now(),
            stop_steps=steps,
            stop_owner=own_process.owner(),
            stop_until=timezone.now() - timedelta(seconds=1),
        )
        row.save()
        page = browser.get(f"/runs/{row.pk}").content.decode()
        assert "the service ended between two steps" in page
        assert "was interrupted" in page


def test_remaining_jobs_of_an_ended_run_can_be_cancelled_on_its_page(browser: Client, account: StubAccount) -> None:
    account.experiment("a001")
    row = unsaved_run(status="TERMINATED", reason="stopped", config=account.config().as_dict(), finished=timezone.now())
    row.save()
    assert "Cancel its jobs" in browser.get(f"/runs/{row.pk}").content.decode()
    assert "Cancel the jobs of a001?" in browser.get(f"/runs/{row.pk}/stop").content.decode()
    account.control("stop", JOBS="a001_SIM", PLATFORM="elsewhere")
    done = browser.post(f"/runs/{row.pk}/stop", {"cancel_jobs": "on"}, headers={"HX-Request": "true"}).content.decode()
    assert "Experiment a001 is not running, but its jobs may go on." in done
    assert "a001_SIM may still run" in done
    assert "set-job-status with final_status READY" in done
    assert "Jobs: 1 cancellation requested, may still run" in browser.get(f"/runs/{row.pk}").content.decode()
    unsaved_run(status="TERMINATED", reason="stopped").save()  # a newer run of the same experiment
    assert "Cancel its jobs" not in browser.get(f"/runs/{row.pk}").content.decode()


def test_a_run_that_never_started_has_no_exit_code_and_no_process(browser: Client) -> None:
    row = unsaved_run(status="TERMINATED", reason="never_started", detail="The launch failed: no such module.")
    row.save()
    page = browser.get(f"/runs/{row.pk}").content.decode()
    assert "none yet" not in page and "Exit code" not in page
    assert "none: it was never started" in page
    assert page.count("The launch failed: no such module.") == 2  # as the reason, and for the notification
    assert "data-log-reason" not in page


def test_the_reason_of_an_admin_is_not_called_the_end_of_the_log(browser: Client) -> None:
    row = unsaved_run(status="TERMINATED", reason="abandoned", detail="The node burnt down.")
    row.save()
    page = browser.get(f"/runs/{row.pk}").content.decode()
    assert "An admin declared that it has ended: The node burnt down." in page
    assert "Explanation of the end" not in page and "data-log-reason" not in page


def test_a_failed_run_shows_one_sentence_and_the_rest_on_request(browser: Client) -> None:
    detail = "1 of 2 jobs failed: a001_BAD (2 attempts).\nThe last lines of a001_BAD:\n  no such file"
    row = unsaved_run(status="TERMINATED", reason="failed", exit_code=1, detail=detail, jobs={"failed": 1})
    row.save()
    page = browser.get(f"/runs/{row.pk}").content.decode()
    assert '<p class="reason">1 of 2 jobs failed: a001_BAD (2 attempts).</p>' in page
    assert '<details class="last-words"><summary' in page  # closed: the log below has the same
    assert page.count("no such file") == 1
    assert f'href="/runs/{row.pk}/log/raw?at=reason" data-log-reason' in page
    end = browser.get(f"/runs/{row.pk}/end").json()
    assert (end["active"], end["tone"], end["title"]) == (
        False,
        "failed",
        f"FAILED: a001, run {row.pk} · Autosubmit Runners",
    )
    assert end["words"].startswith("1 of 2 jobs failed")


def test_the_stop_of_a_run_of_another_person_names_owner_and_age(browser: Client) -> None:
    row = unsaved_run(started_by="someone.else@climate.example.org", user="ada_l", host="login1")
    row.save()
    for path in (f"/runs/{row.pk}", f"/runs/{row.pk}/stop"):
        page = browser.get(path).content.decode()
        assert "This is not your run. <strong>someone.else@climate.example.org</strong> started it" in page
        assert "as ada_l on login1" in page
    type(row).objects.update(started_by="ada")
    page = browser.get(f"/runs/{row.pk}/stop").content.decode()
    assert "This is not your run" not in page and "You started it" in page
