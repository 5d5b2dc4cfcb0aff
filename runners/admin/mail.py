"""The outbox of mail: what people were told, what waits, and what was given up. Messages can be sent again."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from runners.admin.base import ChoiceFilter, ReadOnlyAdmin, badge, block, clipped, short
from runners.models import Mail
from runners.services import mail
from runners.templatetags.formatting import local_time

TONES = {Mail.SENT: "completed", Mail.WAITING: "active", Mail.GIVEN_UP: "failed"}


class StateFilter(ChoiceFilter):
    title = "state"
    parameter_name = "state"
    meanings = {
        "sent": (Mail.SENT, Q(sent_at__isnull=False)),
        "waiting": (Mail.WAITING, Q(sent_at=None, next_attempt__isnull=False)),
        "given-up": (Mail.GIVEN_UP, Q(sent_at=None, next_attempt=None)),
    }


@admin.register(Mail)
class MailAdmin(ReadOnlyAdmin):
    list_display = ("id", "written", "person", "only_subject", "shown_state", "attempts", "error")
    list_filter = (StateFilter,)
    list_select_related = ("user",)
    search_fields = ("user__username__exact", "run__expid__exact")
    search_help_text = "Person, experiment"
    sortable_by = ("id",)
    actions = ("send_again",)
    fieldsets = (
        (None, {"fields": ("user", "event", "run", "shown_state")}),
        ("Attempts", {"fields": ("attempts", "last_error", "when", "sent", "next_time")}),
        ("Message", {"fields": ("subject", "text")}),
    )
    readonly_fields = ("shown_state", "when", "sent", "next_time", "text")

    def has_send_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runners.change_mail")

    @admin.action(description="Send the selected mail again", permissions=["send_again"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Mail]) -> None:
        for row in queryset:
            mail.send_again(row)
        self.message_user(request, f"{len(queryset)} mail(s) will be sent again at once.", messages.SUCCESS)

    @admin.display(description="user")
    def person(self, row: Mail) -> SafeString:
        return clipped(row.user)

    @admin.display(description="subject")
    def only_subject(self, row: Mail) -> SafeString:
        return clipped(row.subject)

    @admin.display(description="last error")
    def error(self, row: Mail) -> SafeString:
        return clipped(row.last_error)

    @admin.display(description="state")
    def shown_state(self, row: Mail) -> SafeString:
        return badge(row.state, TONES[row.state])

    @admin.display(description="written")
    def written(self, row: Mail) -> SafeString | str:
        return short(row.created)

    @admin.display(description="written")
    def when(self, row: Mail) -> SafeString | str:
        return local_time(row.created)

    @admin.display(description="sent")
    def sent(self, row: Mail) -> SafeString | str:
        return local_time(row.sent_at) or "not yet"

    @admin.display(description="next attempt")
    def next_time(self, row: Mail) -> SafeString | str:
        return local_time(row.next_attempt) or "none"

    @admin.display(description="text")
    def text(self, row: Mail) -> SafeString:
        return block(row.body)
