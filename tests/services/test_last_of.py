"""The lookup behind get-runner-run-status, which reads rows with its own SQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from runners.models import RunnerRun, RunStatus

pytestmark = pytest.mark.django_db

CONFIG = {"runner_type": "LOCAL", "module_loader_type": "NO_MODULE", "modules": ["é"], "ssh": None}


def make(expid: str, **values: object) -> RunnerRun:
    return RunnerRun.objects.create(
        expid=expid,
        config=CONFIG,
        runner="LOCAL",
        module_loader="NO_MODULE",
        **{"status": RunStatus.TERMINATED, **values},
    )


def test_the_last_run_is_read_as_django_reads_it() -> None:
    now = timezone.now()
    make("a001", created=now + timedelta(days=1))
    made = make(
        "a001",
        status=RunStatus.ACTIVE,
        identity={"host": "h", "pid": 7},
        pid=7,
        created=now,
        confirmed_at=now,
        reachable=False,
    )
    make("a002")
    found, is_alone = RunnerRun.objects.last_of("a001")
    assert found == made
    assert found
    assert is_alone
    by_django = RunnerRun.objects.get(pk=made.pk)
    for field in RunnerRun._meta.concrete_fields:
        ours, theirs = getattr(found, field.attname), getattr(by_django, field.attname)
        assert (ours, type(ours)) == (theirs, type(theirs)), field


def test_a_run_that_was_read_can_be_saved() -> None:
    make("a001")
    found, _ = RunnerRun.objects.last_of("a001")
    assert found
    found.detail = "changed"
    found.save(update_fields=["detail"])
    assert RunnerRun.objects.count() == 1
    assert RunnerRun.objects.get().detail == "changed"


def test_an_experiment_that_was_never_run_has_no_last_run() -> None:
    make("a001")
    assert RunnerRun.objects.last_of("a00") == (None, True)


def test_an_expid_of_several_installations_is_reported_as_ambiguous() -> None:
    first = make("a001")
    made = make("a001", installation="other")
    assert RunnerRun.objects.last_of("a001") == (made, False)
    first.delete()
    assert RunnerRun.objects.last_of("a001") == (made, True)
