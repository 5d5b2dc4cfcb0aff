"""The settings of the client: an option, else the environment, else the configuration file, else a default.

The configuration file is an INI file with one section, `[asr]`:

[asr]
url = https://runners.example.org
profile = CLUSTER
"""

from __future__ import annotations

import configparser
import math
import os
import urllib.parse
from typing import NamedTuple

from runners.cli.errors import Exit, Problem

FOLDER = "autosubmit-runners"
PREFIX = "AUTOSUBMIT_RUNNERS_"
SECTION = "asr"
LARGEST_FILE = 65_536  # bytes


class Setting(NamedTuple):
    """One setting. `least`: the smallest number; None: the value is a text."""

    name: str
    default: str
    text: str
    least: float | None = None


SETTINGS = (
    Setting("url", "", "address of the service, such as https://runners.example.org"),
    Setting("profile", "", "profile of commands that need one"),
    Setting("request_timeout", "600", "seconds to wait for one response", 0.001),
    Setting("patience", "60", "seconds for which requests are retried while the service does not answer", 0),
    Setting("interval", "2", "seconds between two polls", 0.05),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def variable(name: str) -> str:
    """Return the name of a setting's environment variable."""
    return PREFIX + name.upper()


def folder() -> str:
    """Return the directory of the configuration file and of the tokens, by the XDG base directory specification."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # the specification: ignore a relative path
        base = os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, FOLDER)


def path() -> str:
    """Return the path of the configuration file."""
    return os.environ.get(variable("config")) or os.path.join(folder(), "config.ini")


def of_file() -> dict[str, str]:
    """Return the settings of the configuration file; none if it does not exist. Raises Problem."""
    name = path()
    try:
        with open(name, encoding="utf-8") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(Exit.USAGE, f"{name}: {getattr(error, 'strerror', None) or 'not a text in UTF-8'}.") from None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        if len(content) > LARGEST_FILE:
            raise configparser.Error(f"it is longer than {LARGEST_FILE} bytes")
        parser.read_string(content, name)
    except configparser.Error as error:
        words = " ".join(str(error).split())
        raise Problem(Exit.USAGE, f"{name} is not a valid configuration file: {words}.") from None
    for section in parser.sections():
        if section != SECTION:
            raise Problem(Exit.USAGE, f"{name}: unknown section [{section}]. Only [{SECTION}] is known.")
    found = dict(parser[SECTION]) if SECTION in parser else dict(parser.defaults())
    for key in found:
        if key == "token":
            raise Problem(Exit.USAGE, f"{name}: a token does not belong into this file. Store it with `asr login`.")
        if key not in BY_NAME:
            raise Problem(Exit.USAGE, f"{name}: unknown setting '{key}'. Known: {', '.join(BY_NAME)}.")
    return found


class Settings:
    """The settings below the options: the environment, the configuration file and the defaults."""

    def __init__(self, last_url: str = "") -> None:
        """`last_url`: the service of the last login, used if nothing else names one. Raises Problem."""
        self._file = of_file()
        self._last_url = last_url

    def get(self, name: str, option: str | None = None) -> str:
        """Return the value of a setting. `option`: the value of its option, None if it was not given."""
        if option is not None:
            return option
        value = os.environ.get(variable(name)) or self._file.get(name) or ""
        return value or (self._last_url if name == "url" else "") or BY_NAME[name].default

    def source(self, name: str, option: str | None = None) -> str:
        """Return where the value of a setting comes from, in words."""
        if option is not None:
            return f"--{name.replace('_', '-')}"
        if os.environ.get(variable(name)):
            return variable(name)
        if self._file.get(name):
            return path()
        return "the last login" if name == "url" and self._last_url else "the default"

    def number(self, name: str, option: str | None = None) -> float:
        """Return a number. Raises Problem, which names the source of a value that is no number."""
        value = self.get(name, option)
        least = BY_NAME[name].least or 0
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= 1e9:
            raise Problem(
                Exit.USAGE,
                f"{name} is '{value}' (from {self.source(name, option)}): use a number of at least {least:g}.",
            )
        return number


def checked_url(url: str, source: str) -> str:
    """Return the address of a service without a slash at its end. Raises Problem."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and url.isprintable()
        is_valid = is_valid and " " not in url and not parts.query and not parts.fragment
        _ = parts.port
    except ValueError:
        is_valid = False
    if not is_valid:
        raise Problem(
            Exit.USAGE,
            f"'{url}' (from {source}) is not the address of a service. Use one such as https://runners.example.org.",
        )
    if "@" in parts.netloc:
        raise Problem(Exit.USAGE, f"The address (from {source}) must not contain a user or password. Use `asr login`.")
    return url.rstrip("/")


MISSING_URL = (
    f"The address of the service is missing. Use `asr login --url https://runners.example.org` once, or set --url, "
    f"{variable('url')} or `url` in the configuration file."
)
