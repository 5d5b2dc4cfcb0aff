"""Operations, read-only. They end by themselves and cannot be stopped half way."""

from __future__ import annotations

import shlex

from django.contrib import admin
from django.db.models import Q
from django.utils.safestring import SafeString

from runners.admin.base import ChoiceFilter, DateFilter, ReadOnlyAdmin, as_json, badge, block, clipped, short
from runners.commands.registry import operation_kinds
from runners.models import Operation, OperationStatus
from runners.templatetags.formatting import duration, local_time
from runners_project import clock

TONES = {"pending": "active", "running": "active", "succeeded": "completed", "failed": "failed", "unknown": "unsure"}


class KindFilter(ChoiceFilter):
    title = "command"
    parameter_name = "kind"
    meanings = {name: (label, Q(kind=name)) for name, label in operation_kinds()}


class StatusFilter(ChoiceFilter):
    title = "status"
    parameter_name = "status"
    meanings = {
        status.value: (status.value, Q(status=status.value))
        for status in OperationStatus
        if status != OperationStatus.PENDING
    }


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = ("id", "kind", "expid", "shown_state", "profile", "person", "began", "lasted")
    list_filter = (StatusFilter, KindFilter, ("created", DateFilter))
    search_fields = ("expid__exact", "started_by__exact", "host__exact", "profile_name__icontains")
    search_help_text = (
        "Experiment, person or host; if none of them has the word: part of a profile's name, in the newest"
    )
    sortable_by = ("id",)
    fieldsets = (
        (None, {"fields": ("kind", "expid", "shown_state", "exit_code", "shown_result", "shown_error")}),
        ("Where", {"fields": ("profile_name", "host", "configuration", "command_line", "timeout")}),
        ("When", {"fields": ("since", "ended", "lasted", "confirmed", "started_by")}),
        ("On its machine", {"fields": ("key", "pid", "shown_identity", "reachable", "unreachable_detail")}),
    )
    readonly_fields = (
        *("shown_state", "shown_result", "shown_error", "configuration", "command_line", "since", "ended", "lasted"),
        *("confirmed", "shown_identity"),
    )

    @admin.display(description="state")
    def shown_state(self, operation: Operation) -> SafeString:
        return badge(operation.state, TONES[operation.state] if operation.reachable else "unsure")

    @admin.display(description="profile")
    def profile(self, operation: Operation) -> SafeString:
        return clipped(operation.profile_name)

    @admin.display(description="started by")
    def person(self, operation: Operation) -> SafeString:
        return clipped(operation.started_by)

    @admin.display(description="result")
    def shown_result(self, operation: Operation) -> SafeString:
        return as_json(operation.result)

    @admin.display(description="error")
    def shown_error(self, operation: Operation) -> SafeString:
        return as_json(operation.error)

    @admin.display(description="configuration")
    def configuration(self, operation: Operation) -> SafeString:
        return as_json(operation.config)

    @admin.display(description="executed")
    def command_line(self, operation: Operation) -> SafeString:
        return block(shlex.join(operation.argv))

    @admin.display(description="identity")
    def shown_identity(self, operation: Operation) -> SafeString:
        return as_json(operation.identity)

    @admin.display(description="started")
    def began(self, operation: Operation) -> SafeString | str:
        return short(operation.created)

    @admin.display(description="started")
    def since(self, operation: Operation) -> SafeString | str:
        return local_time(operation.created)

    @admin.display(description="ended")
    def ended(self, operation: Operation) -> SafeString | str:
        return local_time(operation.finished) or "-"

    @admin.display(description="confirmed")
    def confirmed(self, operation: Operation) -> SafeString | str:
        return local_time(operation.confirmed_at) or "never"

    @admin.display(description="lasted")
    def lasted(self, operation: Operation) -> str:
        return duration(((operation.finished or clock.now()) - operation.created).total_seconds())
