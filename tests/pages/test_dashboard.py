"""Many open dashboards: what they share, what they never share, and how little is sent."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.models import RunnerRun
from runners.pages import rows, run_lists
from runners.services import probing
from runners.services.machines import scripts
from tests.support.environments import StubAccount
from tests.support.faults import sessions
from tests.support.servers import SSHServer

pytestmark = pytest.mark.django_db
LOCAL = {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}


@pytest.fixture(autouse=True)
def _no_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the rows as they are, unless the test has a machine that could be asked."""
    if "sshd" not in request.fixturenames:
        monkeypatch.setattr(probing, "refresh", lambda runs, **_: None)


def make(count: int, **fields: Any) -> list[RunnerRun]:
    values = {
        "config": LOCAL,
        "runner": "LOCAL",
        "module_loader": "NO_MODULE",
        "confirmed_at": timezone.now(),
        **fields,
    }
    first = RunnerRun.objects.count()
    return [RunnerRun.objects.create(**{"expid": f"b{first + number:03}", **values}) for number in range(count)]


def person(name: str, *groups: Group) -> Client:
    user = User.objects.create_user(name)
    user.groups.set(groups)
    client = Client()
    client.force_login(user)
    return client


def lists(client: Client, etag: str = "", **headers: str) -> HttpResponse:
    return client.get("/runs/list", headers={**({"If-None-Match": etag} if etag else {}), **headers})


def without_ages(answer: HttpResponse) -> bytes:
    return re.sub(rb">[0-9a-z ]+ ago<", b"><", answer.content)


def later() -> None:
    """Let the second pass in which lists are shared."""
    run_lists.forget()


def rendered() -> int:
    return rows._html.cache_info().misses


def test_a_row_is_rendered_once_for_all_and_again_only_when_it_changes() -> None:
    make(20, created=timezone.now() - timedelta(hours=2))
    make(5, status="COMPLETED", exit_code=0, finished=timezone.now())
    ada, bob = person("ada"), person("bob")
    before = rendered()
    first = lists(ada)
    assert rendered() - before == 25
    later()
    assert without_ages(lists(bob)) == without_ages(first)
    assert ada.get("/").status_code == 200
    assert rendered() - before == 25

    RunnerRun.objects.active().update(confirmed_at=timezone.now())  # as each refresh does
    later()
    again = lists(bob, first["ETag"])
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert rendered() - before == 25

    run = RunnerRun.objects.active()[7]
    RunnerRun.objects.filter(pk=run.pk).update(reachable=False, unreachable_detail="it is <asleep>")
    later()
    changed = lists(bob, first["ETag"])
    assert changed.status_code == 200
    assert changed["ETag"] != first["ETag"]
    assert rendered() - before == 26
    assert b">cannot tell<" in changed.content
    assert b"UNREACHABLE" in changed.content
    assert b"it is &lt;asleep&gt;" in changed.content


def test_a_confirmation_is_called_recent_only_while_it_is_recent() -> None:
    ada = person("ada")
    make(1, confirmed_at=timezone.now() - timedelta(seconds=1))
    assert b"confirmed within the last 15 s" in lists(ada).content
    RunnerRun.objects.update(confirmed_at=timezone.now() - timedelta(minutes=5))
    later()
    answer = lists(ada).content.decode()
    assert "within the last" not in answer
    assert re.search(r">5 min(?: 1 s)? ago<", answer)
    RunnerRun.objects.update(confirmed_at=None)
    later()
    assert b"not confirmed yet" in lists(ada).content


@pytest.mark.parametrize("path", ["/", "/runs/list", "/experiments/b000", "/history"])
def test_ages_are_shown_in_words_and_cannot_be_forged(path: str) -> None:
    ada = person("ada")
    now = timezone.now()
    fields = {"created": now - timedelta(hours=3), "finished": now - timedelta(minutes=7)}
    make(1, status="COMPLETED", exit_code=0, host="<!--age 0-->", **fields)
    answer = ada.get(path).content.decode()
    assert re.search(r">7 min(?: 1 s)? ago<", answer)
    assert "<!--age" not in answer
    assert "&lt;!--age 0--&gt;" in answer


def test_shared_lists_contain_only_runs_that_the_user_may_view() -> None:
    team = Group.objects.create(name="team")
    secret = RunnerProfile.objects.create(name="SECRET", runner_type="LOCAL", module_loader_type="NO_MODULE")
    secret.view_groups.add(team)
    member, colleague, stranger = person("member", team), person("colleague", team), person("stranger")
    make(1, profile_name="SECRET", expid="hush", started_by="member")
    make(1, profile_name="SECRET", expid="mine", started_by="stranger")
    make(1, expid="open")

    def seen(client: Client, etag: str = "") -> tuple[set[str], str]:
        answer = lists(client, etag)
        assert answer.status_code == 200
        return set(re.findall(r'class="strong"[^>]*>(\w+)<', answer.content.decode())), answer["ETag"]

    for _ in range(2):  # the first responses are rendered, the second ones are shared
        of_member, etag = seen(member)
        assert of_member == {"hush", "mine", "open"}
        assert seen(colleague) == (of_member, etag)
        assert seen(stranger, etag)[0] == {"mine", "open"}
    assert lists(stranger, etag).status_code == 200
    User.objects.get(username="colleague").groups.clear()
    assert seen(colleague, etag)[0] == {"open"}  # immediately, while the other users still share a list


def test_shared_content_contains_nothing_about_the_viewer() -> None:
    make(3)
    ada = person("ada")
    boss = Client()
    boss.force_login(User.objects.create_superuser("boss"))
    answers = [lists(each).content for each in (ada, boss, ada)]
    assert len(set(answers)) == 1
    assert b"csrf" not in answers[0].lower()
    assert b"boss" not in answers[0]
    assert lists(Client(), **{"HX-Request": "true"}).headers["HX-Redirect"].startswith("/login")
    assert lists(Client()).status_code == 302


def titles(answer: HttpResponse) -> list[str]:
    """Return the experiments of each section of the lists, such as `Active: a001 a002`."""
    found = []
    for section in answer.content.decode().split("<section ")[1:]:
        heading = re.search(r"<h2[^>]*>([A-Za-z ]+)", section)
        rows_ = re.findall(r'class="strong"[^>]*>(\w+)<', section)
        found.append(f"{heading[1].strip() if heading else ''}: {' '.join(rows_)}")
    return found


def test_what_needs_attention_comes_first_and_the_own_runs_before_the_others() -> None:
    now = timezone.now()
    ended = {"status": "TERMINATED", "finished": now - timedelta(hours=1)}
    make(1, expid="fine", started_by="ada")
    make(1, expid="mute", started_by="bob", silent_since=now - timedelta(hours=4))
    make(1, expid="full", started_by="bob", log_too_large=True)
    make(1, expid="bad1", started_by="ada", reason="failed", **ended)
    make(1, expid="bad2", started_by="bob", reason="killed", **ended)
    make(1, expid="gone", started_by="bob", reason="lost", superseded=True, **ended)
    make(1, expid="redo", started_by="ada", reason="failed", **ended)
    make(1, expid="redo", started_by="ada", status="COMPLETED", finished=now)
    make(1, expid="halt", started_by="ada", reason="stopped", **ended)
    make(1, expid="oldx", started_by="ada", reason="failed", status="TERMINATED", finished=now - timedelta(days=15))
    ada, bob = person("ada"), person("bob")
    rest = ["Active: fine", "Recently ended: redo halt redo gone"]
    assert titles(lists(ada)) == ["Needs attention: bad1 full mute bad2", *rest]
    assert titles(lists(bob)) == ["Needs attention: full mute bad2 bad1", *rest]
    assert lists(ada)["ETag"] != lists(bob)["ETag"]
    assert titles(ada.get("/runs/list?mine=1")) == [
        "Needs attention: bad1",
        "Active: fine",
        "Recently ended: redo halt redo",
    ]
    assert titles(ada.get("/?mine=1"))[0] == "Needs attention: bad1"
    assert titles(ada.get("/"))[0] == "Needs attention: bad1"  # remembered
    assert titles(ada.get("/?mine=0"))[0] == "Needs attention: bad1 full mute bad2"


def test_a_machine_that_does_not_answer_has_one_banner() -> None:
    ssh = {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "NO_MODULE", "MODULES": []}
    down = {**ssh, "SSH": {"HOST": "down.example.org", "PORT": 22, "USER": "me"}}
    since = timezone.now() - timedelta(hours=2)
    trouble = {"reachable": False, "unreachable_detail": "no answer within <10> s", "confirmed_at": since}
    make(7, config=down, runner="SSH", host="login1", **trouble)
    make(1, config={**down, "SSH": {**down["SSH"], "HOST": "other.example.org"}}, runner="SSH", host="o", **trouble)
    make(1, config="spoilt", runner="SSH", host="", **trouble)
    make(2)
    answer = lists(person("ada")).content.decode()
    assert answer.count('class="alert machine"') == 3
    assert answer.count("no answer within &lt;10&gt; s") == 3
    assert "<bdi>down.example.org</bdi> does not answer</strong> since" in answer
    assert "Its 7 active runs keep their last known states" in answer
    assert 'href="/machines/down.example.org"' in answer
    assert "?mine=0&amp;mark=unreachable&amp;machine=login1" in answer
    assert answer.count("UNREACHABLE") == 9
    ids = re.findall(r' id="([^"]+)"', answer)
    assert len(ids) == len(set(ids))


def test_a_poll_that_finds_nothing_new_asks_no_database(django_assert_num_queries: Any) -> None:
    make(30)
    ada, bob = person("ada"), person("bob")
    etag = lists(ada)["ETag"]
    assert lists(bob, etag).status_code == 304
    with django_assert_num_queries(0):
        for client in (ada, bob):
            again = lists(client, etag)
            assert (again.status_code, again.content, again["ETag"]) == (304, b"", etag)
    stranger = Client()
    stranger.cookies["sessionid"] = "x" * 32
    assert lists(stranger, etag).status_code == 302
    assert lists(ada, 'W/"other"').status_code == 200
    assert ada.get("/runs/list?mine=1", headers={"If-None-Match": etag}).status_code == 200
    User.objects.get(username="bob").groups.add(Group.objects.create(name="team"))  # his session is checked again
    bob.logout()
    assert lists(bob, etag).status_code == 302
    later()
    RunnerRun.objects.update(silent_since=timezone.now())
    assert lists(ada, etag).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"reachable": False},
        {"silent_since": timezone.now()},
        {"log_too_large": True},
        {"progress": {"total": 5, "done": 4, "failed": 0, "running": 1, "failed_jobs": []}},
        {"stop_requested_at": timezone.now(), "stop_steps": [{"action": "stop", "seconds": 1, "interrupted": True}]},
        {"confirmed_at": timezone.now() - timedelta(hours=1)},
        {"status": "TERMINATED", "reason": "failed", "finished": timezone.now()},
        {"host": "elsewhere"},
        {"started_by": "grace"},
        {"identity": {"host": "h"}, "pid": 5},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("mine", [False, True])
def test_each_change_of_an_active_run_is_seen_though_unchanged_lists_are_kept(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], mine: bool
) -> None:
    made: list[int] = []
    make_one = run_lists._make
    monkeypatch.setattr(run_lists, "_make", lambda view, user: made.append(1) or make_one(view, user))
    monkeypatch.setattr(run_lists, "SHARED_SECONDS", 0.0)
    (run, *_) = make(3, started_by="ada", pid=None)
    ada, path = person("ada"), "/runs/list" + ("?mine=1" if mine else "")
    first = ada.get(path)
    for _ in range(3):
        assert ada.get(path, headers={"If-None-Match": first["ETag"]}).status_code == 304
    assert made == [1]
    RunnerRun.objects.filter(pk=run.pk).update(**change)
    assert ada.get(path, headers={"If-None-Match": first["ETag"]}).status_code == 200
    assert made == [1, 1]


def test_starts_are_seen_though_unchanged_lists_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lists, "SHARED_SECONDS", 0.0)
    make(2)
    ada = person("ada")
    etag = lists(ada)["ETag"]
    assert lists(ada, etag).status_code == 304
    make(1)
    etag, before = lists(ada, etag)["ETag"], etag
    assert etag != before
    make(1, status="TERMINATED", reason="never_started", finished=timezone.now())
    assert lists(ada, etag).status_code == 200


def test_a_change_on_the_machine_is_in_the_next_poll(account: StubAccount, sshd: SSHServer) -> None:
    """The poll itself asks the machine, so that one poll is enough."""
    config = sshd.config()
    (account.home / scripts.BASE).mkdir(mode=0o700, exist_ok=True)  # as other commands of the account have made it
    (run,) = make(1, config=config.as_dict(), runner="SSH", user=sshd.user, confirmed_at=None)
    RunnerRun.objects.filter(pk=run.pk).update(created=timezone.now() - timedelta(hours=1))  # it never started there
    assert "NEVER STARTED" in lists(person("ada")).content.decode()


def test_the_poll_that_asks_the_machines_is_shared(account: StubAccount, sshd: SSHServer) -> None:
    config = sshd.config()
    make(3, config=config.as_dict(), runner="SSH", user=sshd.user)
    people = [person(f"person{number}") for number in range(5)]
    before = 0
    for round_ in range(2):
        later()
        for number, client in enumerate(people):
            RunnerRun.objects.update(confirmed_at=None, reachable=True)
            assert client.post("/runs/refresh").status_code == 204
            if round_ == number == 0:
                before = sessions(sshd)
    assert sessions(sshd) == before + 1


# --- compression ------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


def test_long_answers_are_compressed_for_those_who_accept_it(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    make(30)
    ada = person("ada")
    for path in ("/", "/runs/list", "/history", "/start", "/v4/runners/runs", "/docs/errors", "/openapi.json"):
        plain, small = ada.get(path), ada.get(path, headers={"Accept-Encoding": "br, gzip"})
        assert small.status_code == 200
        assert "Content-Encoding" not in plain
        assert small["Content-Encoding"] == "gzip"
        assert int(small["Content-Length"]) == len(small.content) < len(plain.content) / 2
        assert "Accept-Encoding" in plain["Vary"]
        assert "Accept-Encoding" in small["Vary"]
        text = gzip.decompress(small.content)
        assert len(text) == len(plain.content) or path in ("/history", "/v4/runners/runs")  # they contain the time
        later()
    for refused in ("gzip;q=0", "identity", "x-gzipped", ""):
        assert "Content-Encoding" not in ada.get("/", headers={"Accept-Encoding": refused})


def test_a_compressed_page_has_a_masked_token_and_random_padding() -> None:
    ada = person("ada")
    answers = [ada.get("/start", headers={"Accept-Encoding": "gzip"}) for _ in range(12)]
    tokens = [TOKEN.findall(gzip.decompress(answer.content).decode()) for answer in answers]
    assert all(tokens)
    assert len({token for found in tokens for token in found}) >= len(answers)
    names = {answer.content[10 : answer.content.index(b"\0", 10)] for answer in answers}
    assert all(answer.content[3] == 8 for answer in answers)  # its head has a file name: Django's random bytes
    assert len({len(name) for name in names}) > 3


def test_the_admin_is_not_compressed_and_neither_are_short_answers(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    boss = Client(headers={"Accept-Encoding": "gzip"})
    boss.force_login(User.objects.create_superuser("boss"))
    for path in ("/admin/", "/admin/runners/apitoken/", "/admin/login/", "/v4/runners/configuration/endpoints"):
        assert "Content-Encoding" not in boss.get(path, follow=True), path
