"""`config`: the configuration files of experiments. Contents go to standard output as they are, the rest as text."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import urllib.parse
from typing import Any, Dict

from runners.cli.commands import profile, table, text
from runners.cli.errors import Exit, Problem
from runners.cli.service import Service
from runners.cli.terminal import Printer, put, put_json, say

ACTIONS = ("list", "get", "edit", "diff", "put", "history", "restore")
File = Dict[str, Any]


def add_actions(parser: argparse.ArgumentParser, parents: list[argparse.ArgumentParser]) -> None:
    """Add the actions of `config`. `parents`: the parsers of the options that each action takes."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))

    def add(
        name: str, function: Any, words: str, *, path: bool = True, aliases: tuple[str, ...] = (), example: str = ""
    ) -> argparse.ArgumentParser:
        made = actions.add_parser(
            name,
            aliases=aliases,
            help=words,
            description=words,
            parents=parents,
            epilog=f"examples:\n  asr config {name} --profile CLUSTER {example}",
        )
        made.set_defaults(function=function, parser=made)
        made.add_argument("expid", metavar="EXPID", help="the experiment")
        if path:
            made.add_argument("path", metavar="PATH", help="a file below conf, as `config list` shows it")
        return made

    add("list", list_files, "List the configuration files of an experiment.", path=False, example="a001")
    it = add("get", get_file, "Print a file as it is. Its ETag goes to standard error.", example="a001 jobs_a001.yml")
    it.add_argument("--version", metavar="VERSION", help="a former version, as `config history` lists it")
    add(
        *("edit", edit_file, "Edit a file with $VISUAL or $EDITOR, and replace it if it was not changed meanwhile."),
        example="a001 jobs_a001.yml",
    )
    it = add(
        *("diff", diff_file, "Compare a file with a local one, or a former version with it. Exit code 1: they differ."),
        example="a001 jobs_a001.yml new.yml",
    )
    it.add_argument("file", metavar="FILE", nargs="?", help="the local file; - for standard input")
    it.add_argument("--version", metavar="VERSION", help="compare this former version with the file (without FILE)")
    it = add("put", put_file, "Replace a file by a local one.", example="a001 jobs_a001.yml new.yml --dry-run")
    it.add_argument("file", metavar="FILE", help="the local file; - for standard input")
    it.add_argument("--etag", help="replace only this content; without it, the content that the file has now")
    it.add_argument("--dry-run", action="store_true", help="check the content, print the difference, write nothing")
    add(
        *("history", list_versions, "List the former versions of a file, newest first."),
        aliases=("versions",),
        example="a001 jobs_a001.yml",
    )
    it = add(
        *("restore", restore_file, "Make a former version the content of a file again."),
        example="a001 jobs_a001.yml 20260120T093000.123456Z-0123456789abcdef",
    )
    it.add_argument("version", metavar="VERSION", help="as `config history` lists it")
    it.add_argument("--etag", help="replace only this content; without it, the content that the file has now")
    it.add_argument("--dry-run", action="store_true", help="print the difference, write nothing")


def address(args: argparse.Namespace, tail: str, **query: str) -> str:
    """Return the address of a file, or of the list, with the profile in the query."""
    asked = profile(args)
    given = {"profile_name": asked["profile_name"], **query}
    if asked["profile_params"]:
        given["profile_params"] = json.dumps(asked["profile_params"])
    expid = urllib.parse.quote(args.expid, safe="")
    return f"experiments/{expid}/config{tail}?{urllib.parse.urlencode(given)}"


def read(service: Service, args: argparse.Namespace, **query: str) -> File:
    return service.get(address(args, "/file", path=args.path, **query))


def list_files(service: Service, args: argparse.Namespace) -> Exit:
    found = service.get(address(args, ""))
    if args.json:
        put_json(found)
    else:
        rows = [(each["path"], str(each["size"]), each["mode"], text(each["modified"])) for each in found["files"]]
        table([("path", "size", "mode", "modified"), *rows])
    return Exit.OK


def get_file(service: Service, args: argparse.Namespace) -> Exit:
    file = read(service, args, **({"version": args.version} if args.version else {}))
    if args.json:
        put_json(file)
    else:
        say(f"ETag: {file['etag']}")
        printer = Printer()
        printer.write(file["content"].encode())
        printer.close()
    return Exit.OK


def list_versions(service: Service, args: argparse.Namespace) -> Exit:
    found = service.get(address(args, "/file/versions", path=args.path))
    if args.json:
        put_json(found)
    else:
        rows = [(each["version"], each["replaced"], str(each["size"])) for each in found["versions"]]
        table([("version", "replaced", "size"), *rows])
    return Exit.OK


def diff_file(service: Service, args: argparse.Namespace) -> Exit:
    if (args.file is None) == (args.version is None):
        raise Problem(Exit.USAGE, "Give either FILE or --version.")
    now = read(service, args)["content"]
    old, new = (now, local(args.file)) if args.file else (read(service, args, version=args.version)["content"], now)
    name = f"conf/{args.path}"
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, lineterm=""))
    if args.json:
        put_json({"path": args.path, "is_different": old != new, "difference": "\n".join(lines)})
    else:
        for line in lines:
            put(line)
        if old != new and not lines:
            say("The files differ only in their line ends.")
    return Exit.OK if old == new else Exit.FAILED


def put_file(service: Service, args: argparse.Namespace) -> Exit:
    content = local(args.file)
    return replace(service, args, content, args.etag or read(service, args)["etag"])


def edit_file(service: Service, args: argparse.Namespace) -> Exit:
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    if not editor:
        raise Problem(Exit.USAGE, "Set VISUAL or EDITOR to the program that edits the file.")
    file = read(service, args)
    with tempfile.NamedTemporaryFile(  # mode 0600, because the file may hold secrets
        "wb", prefix=f"{args.expid}-", suffix=f"-{os.path.basename(args.path)}", delete=False
    ) as copy:
        copy.write(file["content"].encode())
    try:
        code = subprocess.run([*editor, copy.name], check=False).returncode  # noqa: S603  (the person's own editor)
    except OSError as error:
        os.unlink(copy.name)
        raise Problem(Exit.USAGE, f"{editor[0]}: {error.strerror}") from None
    content = local(copy.name)
    if code or content == file["content"]:
        os.unlink(copy.name)
        say(f"The editor has failed (exit code {code})." if code else "Nothing was changed.")
        return Exit.FAILED if code else Exit.OK
    try:
        done = replace(service, args, content, file["etag"])
    except Exception:  # whatever has failed: the text must not be lost
        say(f"Your text is in {copy.name}. Correct it, and send it with `config put --etag '{file['etag']}'`.")
        raise
    os.unlink(copy.name)
    return done


def replace(service: Service, args: argparse.Namespace, content: str, etag: str) -> Exit:
    body: dict[str, Any] = {"content": content}
    if getattr(args, "dry_run", False):
        body["dry_run"] = True
    return changed(service, args, "PUT", "/file", body, etag)


def restore_file(service: Service, args: argparse.Namespace) -> Exit:
    etag = args.etag or read(service, args)["etag"]
    body = {"version": args.version, **({"dry_run": True} if args.dry_run else {})}
    return changed(service, args, "POST", "/file/restore", body, etag)


def changed(
    service: Service,
    args: argparse.Namespace,
    method: str,
    tail: str,
    body: dict[str, Any],
    etag: str,
) -> Exit:
    """Send a change, and print its difference. A repeated request replaces nothing twice, because of If-Match."""
    answer = service.send(method, address(args, tail, path=args.path), body, {"If-Match": etag})
    say(answer["message"])
    if args.json:
        put_json(answer)
    else:
        put(answer["difference"])
    return Exit.OK


def local(name: str) -> str:
    """Return the text of a local file, with its line ends. Raises Problem."""
    try:
        if name == "-":
            return sys.stdin.buffer.read().decode()
        with open(name, "rb") as file:
            return file.read().decode()
    except OSError as error:
        raise Problem(Exit.USAGE, f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Problem(Exit.USAGE, f"{name} is no text in UTF-8.") from None
