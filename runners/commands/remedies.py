"""What to do about a complaint of Autosubmit: a table of its sentences. Pure functions."""

from __future__ import annotations

import re

_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"uses \(\s*\) which is not the running|has no yml data"),
        "The experiment has no Autosubmit version. Convert a configuration of Autosubmit 3 (.conf files) with "
        "`autosubmit upgrade EXPID` on the machine. For any other configuration, send `update_version: true`.",
    ),
    (
        re.compile(r"which is not the running Autosubmit version"),
        "Send `update_version: true` in command_params of a command that has it, such as set-job-status or "
        "create-job-list: the experiment then uses the running version.",
    ),
    (
        re.compile(r"while generating a new experiment in the db: *\Z"),  # up to 4.1.12
        "Autosubmit does not print a reason. If `copy` was sent, check that this experiment exists.",
    ),
    (
        re.compile(r"disk is full|No space left on device|Disk quota exceeded"),
        "The disk or the quota of the account is full, where the experiments or Autosubmit's database are.",
    ),
    (
        re.compile(r"readonly database|Read-only file system|\[Errno 13\]|unable to open database"),
        "The account may not read or write a file that Autosubmit needs, or its folder. It is a file of the "
        "experiment or of Autosubmit's database.",
    ),
    (
        re.compile(r"exceeded the timeout limit|database is locked"),
        "Another process has locked Autosubmit's database, or the database is damaged or read-only. Try again later. "
        "If the error remains, ask the installation's admins.",
    ),
    (
        re.compile(r"file is not a database|disk image is malformed|no such table: "),
        "A database of Autosubmit is damaged or empty. Ask the installation's admins; `autosubmit install` creates a "
        "missing one.",
    ),
    (
        re.compile(r"File contains no section headers|autosubmitrc.{0,40}line: \d"),
        "Correct the .autosubmitrc of the account; `autosubmit configure` creates a new one.",
    ),
    (
        re.compile(r"can't be recovered due being [0-9]+ active jobs|Couldn't restore the job_list or packages"),
        "Jobs of the experiment are probably still submitted, queuing or running. Wait for their end, or send "
        "`force: true` in command_params of recover-experiment: they are then cancelled on their platforms. If the "
        "experiment has no job list, create it with create-job-list.",
    ),
    (
        re.compile(
            r"You can use --offline and -f to avoid cancelling jobs|Couldn't connect to platform .{1,100} during"
        ),
        "A platform cannot be reached. Send `offline: true` in command_params of recover-experiment to recover without "
        "it: nothing is cancelled there.",
    ),
    (
        re.compile(r"Experiment [a-z0-9]+ is not archived"),
        "If it was archived with `uncompressed`, unarchive it with `uncompressed`, too.",
    ),
    (
        re.compile(r"Ensure no processes are running in the experiment directory"),
        "A process of the account still uses the experiment, such as a run that was started by hand. Stop it first.",
    ),
    (
        re.compile(r"couldn't load the workflow graph|Please run autosubmit create first"),
        "The experiment has no job list, or one that Autosubmit cannot read. If it never had one, create it with "
        "create-job-list. Otherwise first check whether its file in pkl/ is damaged or the disk full: a new job list "
        "resets all jobs.",
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
        "A section of the configuration is probably empty, incomplete or in another form than Autosubmit expects, "
        "such as JOBS, or a wrapper without JOBS_IN_WRAPPER.",
    ),
    (
        re.compile(r"^Unexpected error: '[^' ]{1,100}'\.?$", re.MULTILINE),
        "Autosubmit does not find this name. Check whether the configuration lacks a platform, a section or a setting "
        "with this name.",
    ),
    (
        re.compile(r"invalid literal for int\(\) with base 10: ''"),
        "A setting of the configuration that has to be a number is missing, such as CHUNKSIZE or NUMCHUNKS. Check "
        "that the file with EXPERIMENT exists.",
    ),
    (
        re.compile(r"invalid literal for int\(\)|could not convert string to float"),
        "A setting of the configuration that has to be a number is not a number.",
    ),
    (
        re.compile(r"time data .{0,200} does not match format|unconverted data remains"),
        "A date of the configuration is not valid, such as one of DATELIST. Write it like 20000101.",
    ),
    (
        re.compile(r"'utf-8' codec can't decode"),
        "A file of the configuration is not valid UTF-8. Save it as UTF-8.",
    ),
)


def remedy(text: str) -> str:
    """Return a sentence about what to do about a complaint; empty if no remedy is known."""
    return next((words for pattern, words in _REMEDIES if pattern.search(text)), "")
