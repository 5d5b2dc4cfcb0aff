"""`login`, `logout`, `whoami` and `settings`: who the client is, and where its values come from."""

from __future__ import annotations

import argparse
import getpass
import platform
import sys
import time
import urllib.parse
from typing import Any

from runners.cli import credentials, settings
from runners.cli.commands import table
from runners.cli.errors import Exit, Problem
from runners.cli.service import Service
from runners.cli.terminal import put, put_json, say

LONGEST_LOGIN = 1800  # seconds that a login waits for its person, whatever the service says
LARGEST_TOKEN = 8192  # characters


def login(service: Service, args: argparse.Namespace) -> Exit:
    """Get a token, with a browser or from standard input, and store it."""
    if is_unprotected(service.url):
        say("warning: the address begins with http://, so everybody on the way can read the token. Use https://.")
    if args.with_token:
        token, username, expires = typed_token(service)
    else:
        token, username, expires = approved_token(service, args)
    credentials.store(service.url, {"token": token, "username": username, "expires": expires})
    facts = {"url": service.url, "username": username, "expires": expires, "stored_in": credentials.path()}
    if args.json:
        put_json(facts)
    else:
        say(f"Logged in to {service.url} as {username}, {until(expires)}.")
        say(f"The token is stored in {credentials.path()}, for you only.")
    return Exit.OK


def is_unprotected(url: str) -> bool:
    """Return True if a token would leave this machine without encryption."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "http" and not (host in ("localhost", "::1") or host.startswith("127."))


def typed_token(service: Service) -> Any:
    """Return the token of standard input, the person and the end of the token, as the service knows them."""
    if sys.stdin.isatty():
        text = getpass.getpass(f"Token of {service.url} (it is not shown): ")
    else:
        text = sys.stdin.readline(LARGEST_TOKEN + 2)
    service.token = checked_token(text.strip(), "standard input")
    if not service.token:
        raise Problem(Exit.USAGE, "Standard input has no token. Use: asr login --with-token < FILE")
    me = who(service)
    return service.token, me["username"], me["token"] and me["token"]["expires"]


def checked_token(text: str, source: str) -> str:
    """Return a token that can be sent in a header. Raises Problem, which does not show it."""
    if not (text.isascii() and text.isprintable()) or " " in text or len(text) > LARGEST_TOKEN:
        raise Problem(Exit.USAGE, f"The token from {source} has characters that no token has.")
    return text


def approved_token(service: Service, args: argparse.Namespace) -> Any:
    """Let a person approve the login on a page. Return the token, the person and the end of the token."""
    service.token = ""
    try:
        started = service.post(
            "login/start", {"host": (args.name or platform.node() or "?")[:100], "scope": args.scope}
        )
    except Problem as problem:
        if problem.code == Exit.NOT_THERE:
            raise Problem(
                Exit.NOT_THERE, f"{service.url} has no login with a browser. Use: asr login --with-token"
            ) from None
        raise
    seconds = min(float(started["expires_in"]), LONGEST_LOGIN)
    interval = max(1.0, float(started["interval"]))
    deadline = time.monotonic() + seconds
    say(f"Open this address in a browser, on any machine, and sign in:\n\n  {started['verification_uri_complete']}\n")
    say(
        f"Check that the page shows the code {started['user_code']}, and approve. "
        f"It is valid for {seconds / 60:.0f} minutes."
    )
    while time.monotonic() < deadline:
        time.sleep(interval)
        polled = service.post("login/poll", {"device_code": started["device_code"]})
        if polled["status"] == "approved":
            return checked_token(polled["token"], "the service"), polled["username"], polled["facts"]["expires"]
        if polled["status"] == "denied":
            raise Problem(Exit.REFUSED, "The login was denied on the page.")
        if polled["status"] != "pending":
            break
    raise Problem(Exit.TIMED_OUT, "Nobody has approved the login in time. Run `asr login` again.")


def logout(service: Service, args: argparse.Namespace) -> Exit:
    """Revoke the stored token, and remove it from the file; with --local remove it only."""
    entry = credentials.load()["tokens"].get(service.url)
    if entry is None:
        raise Problem(Exit.NOT_THERE, f"No token of {service.url} is stored.")
    is_revoked = False
    if not args.local:
        service.token = entry["token"]
        try:
            service.post("login/revoke", {})
            is_revoked = True
        except Problem as problem:
            if problem.code not in (Exit.REFUSED, Exit.NOT_THERE):
                raise Problem(
                    problem.code, f"{problem} The token was kept. `asr logout --local` only removes it."
                ) from None
            say(f"The service does not accept the token any more: {problem}")
    credentials.remove(service.url)
    if args.json:
        put_json({"url": service.url, "revoked": is_revoked})
    else:
        say(f"Logged out of {service.url}." + (" The token was revoked." if is_revoked else ""))
    return Exit.OK


def who(service: Service) -> dict[str, Any]:
    return service.get("login/whoami")


def whoami(service: Service, args: argparse.Namespace) -> Exit:
    """Print the person whose token the client uses."""
    me = who(service)
    if args.json:
        put_json({"url": service.url, **me})
        return Exit.OK
    put(me["username"])
    token = me["token"]
    words = f"token {token['key']}…, {token['name'] or 'without a name'}, {token['scope']}, {until(token['expires'])}"
    say(f"{service.url}: {words if token else 'not with a token of this service'}")
    return Exit.OK


def until(expires: Any) -> str:
    return f"until {str(expires)[:16].replace('T', ' ')} UTC" if expires else "without end"


def show_settings(service: Service, args: argparse.Namespace) -> Exit:
    """Print each setting, its value, and where it comes from."""
    given: settings.Settings = args.settings
    found = [
        {
            "name": each.name,
            "value": given.get(each.name, getattr(args, each.name, None)),
            "source": given.source(each.name, getattr(args, each.name, None)),
            "variable": settings.variable(each.name),
            "text": each.text,
        }
        for each in settings.SETTINGS
    ]
    if args.json:
        put_json({"file": settings.path(), "tokens": credentials.path(), "settings": found})
        return Exit.OK
    rows = [[each["name"], each["value"] or "-", each["source"]] for each in found]
    table([["setting", "value", "from"], *rows])
    say(f"File: {settings.path()}. Tokens: {credentials.path()}.")
    return Exit.OK
