"""Who may send which request: tokens, credentials of the Autosubmit API, sessions, protection levels, scopes, rates."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from profiles.models import RunnerProfile
from runners.models import ApiToken, AuditRecord
from runners_project.env import envsecret
from tests.support.api import Api, check

pytestmark = pytest.mark.django_db

SECRET = "the Autosubmit API signs with it, of the test"
SCRIPTS = "the Autosubmit API's token for scripts"
COMMAND = "run-experiment"  # with an empty body: 400 shows that the credentials were accepted
STATUS = "get-runner-run-status"
RUN_BODY: dict[str, Any] = {}
STATUS_BODY = {"expid": "a001"}


@pytest.fixture(autouse=True)
def protection(settings: Any) -> None:
    settings.PROTECTION_LEVEL = "ALL"
    settings.AS_API_JWT_SECRET = SECRET
    settings.AS_API_SECRET_TOKEN = SCRIPTS
    cache.clear()


@pytest.fixture
def ana() -> User:
    return User.objects.create_user("ana", password="of ana")


def token_of(user: User, scope: str = "run", days: int = 1) -> str:
    _, text = ApiToken.issue(user=user, expiry=timedelta(days=days), scope=scope)
    return text


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def jwt_of(claims: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256") -> str:
    expiry = datetime.now(UTC) + timedelta(minutes=5)
    return jwt.encode({"exp": expiry, **claims}, secret, algorithm=algorithm)


@pytest.mark.parametrize("command", [COMMAND, STATUS])
def test_without_credentials_it_answers_401_and_says_how(client: Client, command: str) -> None:
    response = client.post(f"/v4/runners/command/{command}", b"{}", "application/json")
    body = check(response, 401)
    assert body["code"] == "not_authenticated"
    assert "Authorization: Bearer" in body["detail"]
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_a_preflight_needs_no_credentials(client: Client) -> None:
    """OPTIONS has a meaning only if CORS is configured. Without CORS, it must at least leave no audit record."""
    client.options("/v4/runners/command/run-experiment", headers={"Origin": "https://gui.example.org"})
    assert not AuditRecord.objects.exists()


def test_a_token_that_an_earlier_version_stored_is_still_valid(client: Client, ana: User) -> None:
    """The hash is one that django-rest-knox made, which earlier versions used."""
    digest = (
        "71edc80bb7a931571f7c504d94f2f6246f9e2196b4f161dd923d957f008911b3"
        "57e7d4cd9250e6c9d5a6b0181c187434a3453612960d0ec0b0e20c7745f82981"
    )
    ApiToken.objects.create(digest=digest, token_key="asr_0123456789a", user=ana)
    Api(client, bearer("asr_" + "0123456789abcdef" * 4)).post(COMMAND, RUN_BODY, expect=400)
    Api(client, bearer("asr_" + "0123456789abcdef" * 3 + "0123456789abcdee")).post(COMMAND, RUN_BODY, expect=401)


def test_a_token_is_accepted_and_its_last_use_is_stored(client: Client, ana: User) -> None:
    text = token_of(ana)
    Api(client, bearer(text)).post(COMMAND, RUN_BODY, expect=400)
    token = ApiToken.objects.get()
    assert token.last_used is not None
    record = AuditRecord.objects.get()
    assert (record.actor, record.token, record.endpoint) == ("ana", token.token_key, COMMAND)
    assert record.outcome == "invalid_request"
    assert text not in str(record.__dict__)


def test_only_the_hash_of_a_token_is_stored(ana: User) -> None:
    text = token_of(ana)
    assert text.startswith("asr_")
    stored = str(ApiToken.objects.values().get())
    assert text not in stored
    assert text[15:] not in stored


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "0", lambda t: t[:20], lambda t: "asr_", str.upper])
def test_a_changed_token_is_refused(client: Client, ana: User, change: Any) -> None:
    body = Api(client, bearer(change(token_of(ana)))).post(COMMAND, RUN_BODY, expect=401)
    assert body["code"] == "invalid_credentials"


def test_an_expired_token_is_refused_and_says_so(client: Client, ana: User) -> None:
    text = token_of(ana)
    ApiToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    assert "expired" in Api(client, bearer(text)).post(COMMAND, RUN_BODY, expect=401)["detail"]


def test_a_revoked_token_is_refused(client: Client, ana: User) -> None:
    text = token_of(ana)
    ApiToken.objects.all().delete()
    Api(client, bearer(text)).post(COMMAND, RUN_BODY, expect=401)


@pytest.mark.parametrize("credential", ["token", "jwt"])
def test_an_inactive_person_is_refused(client: Client, ana: User, credential: str) -> None:
    text = token_of(ana) if credential == "token" else jwt_of({"user_id": "ana"})
    User.objects.filter(pk=ana.pk).update(is_active=False)  # bypasses the signals, which would also delete the token
    assert "deactivated" in Api(client, bearer(text)).post(COMMAND, RUN_BODY, expect=401)["detail"]


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer a b", "Bearer \xff\xfe", "Bearer " + "a" * 10_000, "Bearer a.b.c", "Token x"],
)
def test_a_malformed_header_is_401(client: Client, header: str) -> None:
    Api(client, {"Authorization": header}).post(COMMAND, RUN_BODY, expect=401)


@pytest.mark.parametrize("header", ["Basic YW5hOm9mIGFuYQ==", "Digest x", "asr_x"])
def test_another_scheme_counts_as_no_credentials(client: Client, ana: User, header: str) -> None:
    body = Api(client, {"Authorization": header}).post(COMMAND, RUN_BODY, expect=401)
    assert body["code"] == "not_authenticated"


@pytest.mark.parametrize(
    ("scope", "command", "expect"),
    [
        ("read", STATUS, 404),
        ("read", COMMAND, 403),
        ("run", COMMAND, 400),
        ("run", STATUS, 404),
        ("manage", COMMAND, 400),
    ],
)
def test_a_token_may_do_what_its_scope_says(client: Client, ana: User, scope: str, command: str, expect: int) -> None:
    body = Api(client, bearer(token_of(ana, scope))).post(
        command, STATUS_BODY if command == STATUS else RUN_BODY, expect=expect
    )
    if expect == 403:
        assert body["code"] == "permission_denied"
        assert "scope 'run'" in body["detail"]
        assert AuditRecord.objects.get().outcome == "permission_denied"


@pytest.mark.parametrize(("scope", "expect"), [("read", 403), ("run", 403), ("manage", 404)])
def test_abandoning_a_run_needs_the_scope_manage(client: Client, ana: User, scope: str, expect: int) -> None:
    api = Api(client, bearer(token_of(ana, scope)))
    api.post("/v4/runners/runs/4711/abandon", {"reason": "It was scrapped."}, expect=expect)


def test_a_login_of_the_autosubmit_api_cannot_manage(client: Client) -> None:
    User.objects.create_superuser("root")
    body = {"reason": "It was scrapped."}
    refused = Api(client, bearer(jwt_of({"user_id": "root"}))).post("/v4/runners/runs/4711/abandon", body, expect=403)
    assert "a staff account" in refused["detail"]


# --- JWTs of the Autosubmit API ---------------------------------------------------------------------------------------


def test_a_jwt_creates_its_user_once_without_a_password(client: Client) -> None:
    api = Api(client, bearer(jwt_of({"user_id": "eva", "sub": "eva", "iat": datetime.now(UTC)})))
    api.post(COMMAND, RUN_BODY, expect=400)
    api.post(COMMAND, RUN_BODY, expect=400)
    user = User.objects.get(username="eva")
    assert not user.has_usable_password()
    assert not user.is_staff
    told = list(AuditRecord.objects.order_by("id").values_list("endpoint", "actor"))
    assert told == [("change-configuration", "eva"), ("run-experiment", "eva"), ("run-experiment", "eva")]


def expired() -> str:
    return jwt_of({"user_id": "eva", "exp": datetime.now(UTC) - timedelta(minutes=1)})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(expired, id="expired"),
        pytest.param(lambda: jwt_of({"user_id": "eva"}, secret="another secret of enough length......"), id="secret"),
        pytest.param(lambda: jwt_of({"user_id": "eva"}, algorithm="HS512"), id="HS512"),
        pytest.param(lambda: jwt_of({"user_id": "eva"}, secret="", algorithm="none"), id="none"),
        pytest.param(lambda: jwt_of({}), id="nobody"),
        pytest.param(lambda: jwt_of({"user_id": ""}), id="empty"),
        pytest.param(lambda: jwt_of({"user_id": 5}), id="number"),
        pytest.param(lambda: jwt_of({"user_id": ["eva"]}), id="list"),
        pytest.param(lambda: jwt_of({"user_id": "eva\0"}), id="NUL"),
        pytest.param(lambda: jwt_of({"user_id": "eva\ud800"}), id="surrogate"),
        pytest.param(lambda: jwt_of({"user_id": "e" * 500}), id="long"),
        pytest.param(lambda: jwt_of({"user_id": "eva; drop"}), id="blanks"),
        pytest.param(lambda: jwt.encode({"user_id": "eva"}, SECRET), id="no expiry"),
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_bad_jwt_is_rejected_and_creates_no_user(client: Client, text: Any) -> None:
    body = Api(client, bearer(text())).post(COMMAND, RUN_BODY, expect=401)
    assert body["code"] == "invalid_credentials"
    assert not User.objects.exists()


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_without_the_shared_secret_no_jwt_is_accepted(client: Client, settings: Any) -> None:
    settings.AS_API_JWT_SECRET = ""
    Api(client, bearer(jwt_of({"user_id": "eva"}))).post(COMMAND, RUN_BODY, expect=401)
    empty = jwt_of({"user_id": "eva"}, secret="\0")  # for HMAC the same as no key
    Api(client, bearer(empty)).post(COMMAND, RUN_BODY, expect=401)


def test_a_public_default_secret_prevents_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "in every package that is published")
    known = hashlib.sha256(b"in every package that is published").hexdigest()
    with pytest.raises(ImproperlyConfigured, match="SOME_SECRET is the default of a package.*Create another one with"):
        envsecret("SOME_SECRET", published=known, what="the default of a package")
    monkeypatch.setenv("SOME_SECRET", "of our own, with enough characters")
    own = envsecret("SOME_SECRET", published=known, what="the default of a package")
    assert own == "of our own, with enough characters"


# --- The Autosubmit API's fixed token for scripts ---------------------------------------------------------------------


def test_the_token_for_scripts_may_run_as_it_is(client: Client, settings: Any) -> None:
    settings.AS_API_SECRET_TOKEN = text = "fixed-0123456789"
    api = Api(client, bearer(text))
    api.post(STATUS, STATUS_BODY, expect=404)
    api.post(COMMAND, RUN_BODY, expect=400)
    assert AuditRecord.objects.get(endpoint="run-experiment").actor == "User"
    user = User.objects.get()
    assert (user.username, user.has_usable_password(), user.is_staff) == ("User", False, False)


@pytest.mark.parametrize("text", ["fixed-012345678", "fixed-01234567899", "fixed-0123456788", "FIXED-0123456789"])
def test_a_token_for_scripts_that_is_one_character_off_is_refused(client: Client, settings: Any, text: str) -> None:
    settings.AS_API_SECRET_TOKEN = "fixed-0123456789"
    assert Api(client, bearer(text)).post(COMMAND, RUN_BODY, expect=401)["code"] == "invalid_credentials"
    assert not User.objects.exists()


def test_the_token_for_scripts_does_not_sign_in_as_another_user(client: Client) -> None:
    Api(client, bearer(jwt_of({"user_id": "eva"}, secret=SCRIPTS))).post(COMMAND, RUN_BODY, expect=401)
    Api(client, bearer(SECRET)).post(COMMAND, RUN_BODY, expect=401)
    assert not User.objects.exists()


def test_without_a_token_for_scripts_none_is_accepted(client: Client, settings: Any) -> None:
    settings.AS_API_SECRET_TOKEN = settings.AS_API_JWT_SECRET = ""
    for header in ("Bearer ", "Bearer", 'Bearer ""', "Bearer None"):
        Api(client, {"Authorization": header}).post(COMMAND, RUN_BODY, expect=401)


@pytest.mark.parametrize("name", ["root", "User"])
def test_a_login_of_the_autosubmit_api_is_never_an_admin(client: Client, settings: Any, name: str) -> None:
    """A superuser passes the groups of every profile with our own token, but not with another service's credential."""
    settings.AS_API_SECRET_TOKEN = "fixed-0123456789"
    root = User.objects.create_superuser(name)
    group = Group.objects.create(name="climate")
    profile = RunnerProfile.objects.create(name="THEIRS", runner_type="LOCAL", module_loader_type="NO_MODULE")
    profile.run_groups.add(group)
    vouched = jwt_of({"user_id": name}) if name == "root" else settings.AS_API_SECRET_TOKEN
    body = {"expid": "a001", "profile_name": "THEIRS", "dry_run": True}
    assert Api(client, bearer(vouched)).post(COMMAND, body, expect=403)["code"] == "profile_forbidden"
    Api(client, bearer(token_of(root))).post(COMMAND, body)
    root.groups.add(group)
    Api(client, bearer(vouched)).post(COMMAND, body)  # groups apply by user name
    root.refresh_from_db()
    assert root.is_superuser and root.is_staff


# --- Sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_with_the_csrf_token_is_accepted(ana: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ana)
    secret = "a" * 32
    browser.cookies["csrftoken"] = secret
    Api(browser, {"X-CSRFToken": secret}).post(COMMAND, RUN_BODY, expect=400)
    assert AuditRecord.objects.get().actor == "ana"


def test_a_session_without_the_csrf_token_counts_as_none(ana: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ana)
    assert Api(browser).post(COMMAND, RUN_BODY, expect=401)["code"] == "not_authenticated"


# --- Protection levels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "status", "command"), [("ALL", 401, 401), ("WRITEONLY", 404, 401), ("NONE", 404, 400)]
)
@pytest.mark.parametrize("headers", [{}, bearer("asr_" + "0" * 64), bearer("old.jwt.here")], ids=["no", "old", "jwt"])
def test_the_protection_level_decides_which_requests_are_open(
    client: Client, settings: Any, level: str, status: int, command: int, headers: dict[str, str]
) -> None:
    """On an open endpoint, bad credentials count as none, because today's GUI keeps sending an old token."""
    settings.PROTECTION_LEVEL = level
    api = Api(client, headers)
    api.post(STATUS, STATUS_BODY, expect=status)
    api.post(COMMAND, RUN_BODY, expect=command)
    reading = 401 if status == 401 else (200, 404)
    for path in (
        "configuration/profiles",
        "configuration/endpoints",
        "configuration/ssh-public-keys",
        "commands",
        "runs",
        "runs/1",
    ):
        api.get(f"/v4/runners/{path}", expect=reading)
    for path in ("runs/1/log", "operations/1", "operations/1/log", "profiles/P/requirements"):
        api.get(f"/v4/runners/{path}", expect=reading)
    api.post("/v4/runners/profiles/P/check", {}, expect=401 if command == 401 else 404)


def test_an_open_command_still_records_the_user(client: Client, settings: Any, ana: User) -> None:
    settings.PROTECTION_LEVEL = "NONE"
    Api(client, bearer(token_of(ana))).post(COMMAND, RUN_BODY, expect=400)
    assert AuditRecord.objects.get().actor == "ana"


# --- Rates ------------------------------------------------------------------------------------------------------------


def test_too_many_commands_are_429_with_the_time_to_wait(client: Client, settings: Any, ana: User) -> None:
    settings.THROTTLE_COMMANDS = "3/min"
    api = Api(client, bearer(token_of(ana)))
    for _ in range(3):
        api.post(COMMAND, RUN_BODY, expect=400)
    response = client.post("/v4/runners/command/run-experiment", b"{}", "application/json", headers=api.headers)
    body = check(response, 429)
    assert body["code"] == "throttled"
    assert 1 <= int(response["Retry-After"]) <= 60
    assert f"{response['Retry-After']} s" in body["detail"]
    api.post(STATUS, STATUS_BODY, expect=404)  # polling still works
    Api(client, bearer(token_of(User.objects.create_user("eva")))).post(COMMAND, RUN_BODY, expect=400)


@pytest.mark.parametrize(
    "path",
    [
        "/v4/runners/runs",
        "/v4/runners/runs/1/log",
        "/v4/runners/operations/1",
        "/v4/runners/profiles/NONE/requirements",
        "/v4/runners/configuration/profiles",
        "/v4/runners/configuration/endpoints",
        "/v4/runners/configuration/ssh-public-keys",
        "/v4/user-settings/preferred-username",
    ],
)
def test_read_requests_can_be_throttled_too(client: Client, settings: Any, ana: User, path: str) -> None:
    api = Api(client, bearer(token_of(ana)))
    for _ in range(3):
        api.post(STATUS, STATUS_BODY, expect=404)  # as it is by default
    settings.THROTTLE_READS = "2/min"
    api.post(STATUS, STATUS_BODY, expect=404)
    api.get(path, expect=(200, 404))
    assert api.get(path, expect=429)["code"] == "throttled"
    api.post(STATUS, STATUS_BODY, expect=429)
    api.post(COMMAND, RUN_BODY, expect=400)


def test_signed_in_users_are_throttled_by_user_and_not_by_address(settings: Any, ana: User) -> None:
    settings.THROTTLE_READS = "1/min"
    runs = "/v4/runners/runs"
    at_home, at_work, of_eva = Client(), Client(), Client()
    at_home.force_login(ana)
    at_work.force_login(ana)
    of_eva.force_login(User.objects.create_user("eva"))
    assert at_home.get(runs, REMOTE_ADDR="192.0.2.1").status_code == 200
    assert of_eva.get(runs, REMOTE_ADDR="192.0.2.1").status_code == 200
    assert at_work.get(runs, REMOTE_ADDR="192.0.2.2").status_code == 429


def test_wrong_tokens_of_others_do_not_throttle_valid_ones(client: Client, settings: Any, ana: User) -> None:
    """Behind a proxy all clients have one address, and a GUI that is left open keeps sending an expired token."""
    settings.THROTTLE_FAILED_LOGINS = "1/min"
    for _ in range(3):
        Api(client, bearer("asr_" + "0" * 64)).post(COMMAND, RUN_BODY, expect=401)
    Api(client, bearer(token_of(ana))).post(COMMAND, RUN_BODY, expect=400)


def test_the_address_in_a_header_is_believed_only_behind_proxies(client: Client, settings: Any) -> None:
    address = "192.0.2.3"  # other tests have used up the rate of 127.0.0.1
    headers = {"X-Forwarded-For": "6.6.6.6"}
    path = "/v4/runners/command/run-experiment"
    client.post(path, b"{}", "application/json", headers=headers, REMOTE_ADDR=address)
    assert AuditRecord.objects.get().address == address


# --- create_token -----------------------------------------------------------------------------------------------------


def create_token(*args: str) -> str:
    out = io.StringIO()
    call_command("create_token", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def test_create_token_prints_a_token_that_works(client: Client, ana: User) -> None:
    text = create_token("ana", "--scope", "read", "--days", "7", "--name", "laptop")
    Api(client, bearer(text)).post(STATUS, STATUS_BODY, expect=404)
    token = ApiToken.objects.get()
    assert (token.scope, token.name) == ("read", "laptop")
    assert token.expiry is not None
    assert timedelta(days=6) < token.expiry - timezone.now() <= timedelta(days=7)


def test_create_token_without_end(client: Client, ana: User) -> None:
    Api(client, bearer(create_token("ana", "--days", "0"))).post(COMMAND, RUN_BODY, expect=400)
    assert ApiToken.objects.get().expiry is None


def test_create_token_creates_a_user_only_on_request(ana: User) -> None:
    with pytest.raises(CommandError, match="--create-user"):
        create_token("eva")
    create_token("eva", "--create-user")
    assert not User.objects.get(username="eva").has_usable_password()


def test_create_token_refuses_an_inactive_user(ana: User) -> None:
    User.objects.update(is_active=False)
    with pytest.raises(CommandError, match="deactivated"):
        create_token("ana")
