"""The audit log: admins can search and read it, but not edit or delete it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from runners.admin.base import ChoiceFilter, DateFilter, ReadOnlyAdmin, badge, block, clipped, short
from runners.commands.registry import audit_names
from runners.models import AuditRecord
from runners.templatetags.formatting import local_time

QUIET = (AuditRecord.OK, "dry_run")


class OutcomeFilter(ChoiceFilter):
    title = "outcome"
    parameter_name = "result"
    meanings = {
        "done": ("done", Q(outcome=AuditRecord.OK)),
        "dry": ("dry run", Q(outcome="dry_run")),
        "under-way": ("under way", Q(outcome=AuditRecord.UNDER_WAY)),
        "interrupted": ("interrupted", Q(outcome=AuditRecord.INTERRUPTED)),
        "not": ("rejected or failed", ~Q(outcome__in=(*QUIET, AuditRecord.UNDER_WAY))),
    }


COMMANDS = (  # the names that callers pass to `audited`: Autosubmit's commands, and what the service does itself
    *audit_names(),
    *("check-profile", "approve-host-key", "forget-host-key", "create-ssh-key", "create-ssh-ca"),
    *("revoke-ssh-certificates", "abandon-run", "run-again", "cancel-restart", "clean-runs"),
    "device-login",
    *("approve-host-authority", "forget-host-authority", "test-webhook"),
    *("ask-machine", "forget-machine", "forget-node", "announce-maintenance", "end-maintenance"),
    *("rotate-webhook-secret", "find-runs", "copy-database", "refused-requests"),
    *("change-password", "create-token", "revoke-token", "set-preferred-username"),
    *("change-configuration", "write-configuration", "restore-configuration"),
)


class CommandFilter(ChoiceFilter):
    title = "command"
    parameter_name = "command"
    meanings = {name: (name, Q(endpoint=name)) for name in COMMANDS}


@admin.register(AuditRecord)
class AuditRecordAdmin(ReadOnlyAdmin):
    list_display = ("began", "listed_who", "endpoint", "expid", "shown_outcome", "words")
    list_filter = (OutcomeFilter, CommandFilter, ("created", DateFilter))
    search_fields = (
        *("expid__exact", "actor__exact", "outcome__exact", "token__exact", "address__exact"),
        *("profile_name__icontains", "detail__icontains"),
    )
    search_help_text = (
        "Experiment, person, outcome, token, address; or, in the newest records, parts of a profile or of the text"
    )
    sortable_by = ("began",)
    fieldsets = (
        (None, {"fields": ("when", "who", "token", "address")}),
        ("Asked", {"fields": ("endpoint", "expid", "profile_name", "run", "command_line")}),
        ("Outcome", {"fields": ("shown_outcome", "detail", "took")}),
    )
    readonly_fields = ("when", "who", "run", "command_line", "shown_outcome", "took", "shown_changes")

    def get_fieldsets(self, request: HttpRequest, obj: AuditRecord | None = None) -> Any:
        changed = [("Changed", {"fields": ("shown_changes",)})] if obj and obj.changes else []
        return [*super().get_fieldsets(request, obj), *changed]

    @admin.display(description="before and after")
    def shown_changes(self, record: AuditRecord) -> SafeString:
        rows = [
            (f"{change['action']} {change['kind']} {change['object']}", name, before, after)
            for change in record.changes or []
            for name, before, after in _values(change)
        ]
        head = "<tr><th>What</th><th>Field</th><th>Before</th><th>After</th></tr>"
        lines = format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", rows)
        return format_html(f"<table><thead>{head}</thead><tbody>{{}}</tbody></table>", lines)

    @admin.display(description="when", ordering="id")
    def began(self, record: AuditRecord) -> SafeString | str:
        return short(record.created)

    @admin.display(description="when")
    def when(self, record: AuditRecord) -> SafeString | str:
        return local_time(record.created)

    @admin.display(description="who")
    def listed_who(self, record: AuditRecord) -> SafeString:
        return clipped(self.who(record))

    @admin.display(description="who")
    def who(self, record: AuditRecord) -> str:
        return record.actor or "nobody signed in"

    @admin.display(description="outcome")
    def shown_outcome(self, record: AuditRecord) -> SafeString:
        if record.outcome in QUIET:
            return badge("done" if record.outcome == AuditRecord.OK else "dry run", "completed")
        if record.outcome == AuditRecord.UNDER_WAY:
            return badge("under way", "active")
        return badge(record.outcome, "failed")

    @admin.display(description="in words")
    def words(self, record: AuditRecord) -> SafeString:
        return clipped(record.detail)

    @admin.display(description="took")
    def took(self, record: AuditRecord) -> str:
        if record.outcome in (AuditRecord.UNDER_WAY, AuditRecord.INTERRUPTED):
            return "not known"
        return f"{record.duration_ms / 1000:.1f} s"

    @admin.display(description="run")
    def run(self, record: AuditRecord) -> SafeString | str:
        if record.run_id is None:
            return "-"
        return format_html(
            '<a href="{}">{}</a>', reverse("admin:runners_runnerrun_change", args=[record.run_id]), record.run_id
        )

    @admin.display(description="executed")
    def command_line(self, record: AuditRecord) -> SafeString:
        return block(shlex.join(record.argv))


def _values(change: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, before, after) of one change, as text."""
    for name in {**change["before"], **change["after"]}:
        yield name, _words(change["before"].get(name)), _words(change["after"].get(name))


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
