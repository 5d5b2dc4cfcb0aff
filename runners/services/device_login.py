"""Login of the command line with a browser, as in the device flow of RFC 8628.

The program gets a device code, which it keeps secret, and a short user code, which it shows. The person signs in on a
page, enters the user code, sees which machine asks, and approves or denies. The program polls with its device code and
gets a new token, once. The token is an ordinary ApiToken, and it is made at that poll: the database never holds its
text.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from runners import printable
from runners.exceptions import InvalidRequest, TooManyRequests
from runners.models import ApiToken, DeviceLogin, TokenScope
from runners.models.token import hash_token
from runners.services import acting
from runners.services.acting import Actor
from runners.services.sign_in import seconds_to_wait
from runners_project import clock

SCOPES = (TokenScope.READ, TokenScope.RUN)  # that a program may ask for; `manage` needs a token made by hand
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that no words appear; 20^8 codes (RFC 8628, section 6.1)
CODE_LENGTH = 8
SECONDS = 600  # how long a login waits for its person
INTERVAL = 5  # seconds between two polls
HOST_LIMIT = 100  # characters
MOST_PENDING = 1000  # logins that wait at the same time, in the whole service
MOST_DAYS = 365  # if TOKEN_DAYS is 0, which means no end for tokens made by hand
START_RATE = "10/min"  # logins that one address may start
ENTER_RATE = "10/min"  # user codes that one person may enter


@dataclass(frozen=True, slots=True)
class Started:
    """A new login. `device_code` is a secret of the program; `user_code` is shown to the person."""

    device_code: str
    user_code: str


@dataclass(frozen=True, slots=True)
class Polled:
    """The outcome of a login. `status` is pending, denied, expired or approved; only approved has `token`, `text`."""

    status: str
    token: ApiToken | None = None
    text: str = ""


def start(*, host: str, scope: str, address: str) -> Started:
    """Begin a login. Raises TooManyRequests if the address, or the whole service, has too many."""
    if wait := seconds_to_wait("device", address, START_RATE):
        raise TooManyRequests(f"Too many logins from this address. Try again in {wait} s.", retry_after=wait)
    now = clock.now()
    DeviceLogin.objects.filter(expires__lt=now - timedelta(seconds=SECONDS)).delete()
    if DeviceLogin.objects.filter(expires__gt=now, status=DeviceLogin.Status.PENDING).count() >= MOST_PENDING:
        raise TooManyRequests("Too many logins wait for a person. Try again in 60 s.", retry_after=60)
    device_code = secrets.token_hex(32)
    host = printable.line(host, HOST_LIMIT)
    for _ in range(5):
        user_code = "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))
        try:
            with transaction.atomic():
                DeviceLogin.objects.create(
                    digest=hash_token(device_code),
                    user_code=user_code,
                    host=host,
                    address=address[:64],
                    scope=scope,
                    expires=now + timedelta(seconds=SECONDS),
                )
        except IntegrityError:  # the code is in use
            continue
        return Started(device_code, f"{user_code[:4]}-{user_code[4:]}")
    raise TooManyRequests("No code is free. Try again in 5 s.", retry_after=5)


def waiting(user: Any, code: str) -> DeviceLogin:
    """Return the pending login with a user code. Raises InvalidRequest, and TooManyRequests if `user` guesses."""
    if wait := seconds_to_wait("device code", str(user.pk), ENTER_RATE):
        raise TooManyRequests(f"Too many codes. Try again in {wait} s.", retry_after=wait)
    letters = "".join(letter for letter in code[:40].upper() if letter in LETTERS)
    found = DeviceLogin.objects.filter(
        user_code=letters, status=DeviceLogin.Status.PENDING, expires__gt=clock.now()
    ).first()
    if found is None:
        raise InvalidRequest("No login waits with this code. It may have expired: start the login again.")
    return found


def decide(login: DeviceLogin, user: Any, *, is_approved: bool) -> None:
    """Approve or deny a login, as `user`. Raises InvalidRequest if it was decided or has expired meanwhile."""
    status = DeviceLogin.Status.APPROVED if is_approved else DeviceLogin.Status.DENIED
    pending = DeviceLogin.objects.filter(pk=login.pk, status=DeviceLogin.Status.PENDING, expires__gt=clock.now())
    if not pending.update(status=status, user=user):
        raise InvalidRequest("This login was decided or has expired. Start the login again.")


def poll(device_code: str, *, address: str) -> Polled:
    """Return the outcome of a login. An approved login gives its token once; an unknown one counts as expired.

    `address`: that of the program, for the record of the new token.
    """
    row = DeviceLogin.objects.select_related("user").filter(digest=hash_token(device_code)).first()
    if row is None or row.status == DeviceLogin.Status.DONE or row.expires < clock.now():
        return Polled("expired")
    if row.status != DeviceLogin.Status.APPROVED:
        return Polled(str(row.status))
    if row.user is None or not row.user.is_active:
        return Polled("denied")
    person = Actor(row.user.get_username(), address=address)
    with transaction.atomic(), acting.as_actor(person):
        # Of two concurrent polls only one finds the row approved.
        if not DeviceLogin.objects.filter(pk=row.pk, status=row.status).update(status=DeviceLogin.Status.DONE):
            return Polled("expired")
        token, text = ApiToken.issue(
            user=row.user,
            expiry=timedelta(days=token_days()),
            name=f"asr on {row.host}"[:100],
            scope=row.scope,
        )
    return Polled("approved", token, text)


def token_days() -> int:
    """Return for how many days a new token is valid. A token of the command line always expires."""
    return settings.TOKEN_DAYS or MOST_DAYS
