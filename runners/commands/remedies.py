"""What to do about a complaint of Autosubmit: a table of its sentences. Pure functions."""

from __future__ import annotations

import re

_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"uses \(\s*\) which is not the running|has no yml data"),
        "The experiment tells no version. A configuration of Autosubmit 3 (.conf files) has to be converted first, "
        "with `autosubmit upgrade EXPID` on the machine; of any other, send `update_version: true`.",
    ),
    (
        re.compile(r"which is not the running Autosubmit version"),
        "Send `update_version: true` in command_params of set-job-status or create-job-list: the experiment then uses "
        "the running version.",
    ),
    (
        re.compile(r"while generating a new experiment in the db: *\Z"),  # up to 4.1.12
        "Autosubmit does not say more. If `copy` was sent: does that experiment exist?",
    ),
    (
        re.compile(r"disk is full|No space left on device|Disk quota exceeded"),
        "The disk, or the account's quota, is full where the experiments or Autosubmit's database are.",
    ),
    (
        re.compile(r"readonly database|Read-only file system|\[Errno 13\]|unable to open database"),
        "The account may not read or write a file that Autosubmit needs, or its folder: of the experiment, or of "
        "Autosubmit's database.",
    ),
    (
        re.compile(r"exceeded the timeout limit|database is locked"),
        "Another process holds Autosubmit's database, or it is damaged or cannot be written. Try again later; if it "
        "stays so, ask the installation's admins.",
    ),
    (
        re.compile(r"file is not a database|disk image is malformed|no such table: "),
        "A database of Autosubmit is damaged or empty. Ask the installation's admins; `autosubmit install` makes a new "
        "one where there is none.",
    ),
    (
        re.compile(r"File contains no section headers|autosubmitrc.{0,40}line: \d"),
        "Correct the .autosubmitrc of the account; `autosubmit configure` makes a new one.",
    ),
    (
        re.compile(r"couldn't load the workflow graph|Please run autosubmit create first"),
        "The experiment has no job list, or one that Autosubmit cannot read. If it never had one, make it with "
        "create-job-list. Else look first whether its file in pkl/ is damaged or the disk full: a new one begins anew.",
    ),
    (
        re.compile(r"No configuration file ?\(autosubmitrc\)"),
        "Run `autosubmit configure` in the account, or let its login shell set AUTOSUBMIT_CONFIGURATION.",
    ),
    (
        re.compile(r"database not found|database .{0,200}does not exist"),
        "Run `autosubmit install` in the account, or correct the path of the database in its .autosubmitrc.",
    ),
    (
        re.compile(
            r"'(NoneType|list|str|int|bool|float|dict)' (object (is not|has no|does not)|is not iterable|has no len)|"
            r"unhashable type: |indices must be integers|unsupported operand type|not enough values to unpack"
        ),
        "A section of the configuration is probably empty, incomplete or of another form than Autosubmit expects, such "
        "as JOBS, or a wrapper without JOBS_IN_WRAPPER.",
    ),
    (
        re.compile(r"^Unexpected error: '[^' ]{1,100}'\.?$", re.MULTILINE),
        "Autosubmit looks this name up and does not find it: is it a platform, a section or a setting that the "
        "configuration lacks?",
    ),
    (
        re.compile(r"invalid literal for int\(\) with base 10: ''"),
        "A setting of the configuration that has to be a number is missing, such as CHUNKSIZE or NUMCHUNKS. Is the "
        "file with EXPERIMENT there?",
    ),
    (
        re.compile(r"invalid literal for int\(\)|could not convert string to float"),
        "A setting of the configuration that has to be a number is none.",
    ),
    (
        re.compile(r"time data .{0,200} does not match format|unconverted data remains"),
        "A date of the configuration is none, such as one of DATELIST. Write it as in 20000101.",
    ),
    (
        re.compile(r"'utf-8' codec can't decode"),
        "A file of the configuration is not in UTF-8: save it in UTF-8.",
    ),
)


def remedy(text: str) -> str:
    """Return a sentence about what to do about a complaint; empty if no remedy is known."""
    return next((words for pattern, words in _REMEDIES if pattern.search(text)), "")
