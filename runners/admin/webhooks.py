"""Webhooks and their deliveries. Every message can be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from profiles.models import RunnerProfile
from runners.admin.base import ChoiceFilter, CountedDeletion, ReadOnlyAdmin, as_json, badge, clipped, short
from runners.exceptions import RunnerServiceError
from runners.models import Webhook, WebhookDelivery, WebhookEvent
from runners.services import outbox
from runners.services.audit import begin
from runners.services.bounded_queries import count_groups
from runners.templatetags.formatting import local_time
from runners.web.audit import audit_command
from runners.webhooks import trial

if TYPE_CHECKING:
    WebhookModelForm = forms.ModelForm[Webhook]
else:
    WebhookModelForm = forms.ModelForm

MOST_UNDONE = 10_000  # messages that the list of webhooks counts
TONES = {
    WebhookDelivery.DELIVERED: "completed",
    WebhookDelivery.WAITING: "active",
    WebhookDelivery.GIVEN_UP: "failed",
}


SECRET_INPUT = {"size": 60, "autocomplete": "off", "spellcheck": "false"}


class WebhookForm(WebhookModelForm):
    events = forms.MultipleChoiceField(
        choices=WebhookEvent.choices,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None selected: every event.",
    )
    profile_names = forms.MultipleChoiceField(
        label="Only runs of these profiles",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None selected: runs of every profile.",
    )

    class Meta:
        model = Webhook
        fields = ("name", "enabled", "url", "format", "events", "profile_names", "secret", "previous_secret")
        widgets = {
            "url": forms.URLInput(attrs={"size": 80}),
            "secret": forms.TextInput(attrs=SECRET_INPUT),
            "previous_secret": forms.TextInput(attrs=SECRET_INPUT),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Keep deleted profiles as choices: otherwise saving could empty the list, and empty means every profile.
        names = {*RunnerProfile.objects.values_list("name", flat=True), *(self.instance.profile_names or [])}
        field = self.fields["profile_names"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = [(name, name) for name in sorted(names)]

    def clean(self) -> dict[str, Any]:
        """Keep a secret that is replaced as the previous one, so that the receiver can change it later.

        An older one that is still there is not dropped without a word: it may be the one that the receiver uses.
        """
        cleaned = super().clean() or {}
        old = self.initial.get("secret", "") if self.instance.pk else ""
        if old and cleaned.get("secret", old) != old and "previous_secret" not in self.changed_data:
            if self.initial.get("previous_secret"):
                self.add_error(
                    "secret",
                    "The webhook still has an old secret. Empty it first, when its receiver verifies with the new one.",
                )
            else:
                cleaned["previous_secret"] = old
        return cleaned


@admin.register(Webhook)
class WebhookAdmin(CountedDeletion):
    form = WebhookForm
    list_display = ("name", "enabled", "url", "subscription", "waiting", "given_up", "messages_link")
    list_filter = ("enabled",)
    search_fields = ("name", "url")
    fieldsets = (
        (
            None,
            {
                "fields": ("name", "enabled", "url", "format"),
                "description": "Receives a signed POST at the end of each run.",
            },
        ),
        ("Events", {"fields": ("events", "profile_names")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Webhook | None = None) -> Any:
        """Show the secrets only to users who may write: they sign what the receiver accepts."""
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        signing = [("Signing", {"fields": ("secret", "previous_secret")})] if may_write else []
        return [*super().get_fieldsets(request, obj), *signing]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Count the undone messages of all webhooks with one query, which reads the newest MOST_UNDONE at most."""
        changelist = super().get_changelist_instance(request)
        is_waiting = ExpressionWrapper(Q(next_attempt__isnull=False), BooleanField())
        undone = WebhookDelivery.objects.filter(delivered_at=None).order_by("-pk").annotate(is_waiting=is_waiting)
        counts = count_groups(undone.values_list("webhook_id", "is_waiting")[:MOST_UNDONE])
        is_cut = sum(counts.values()) >= MOST_UNDONE
        for hook in changelist.result_list:
            hook.undone = {waits: counts.get((hook.pk, waits), 0) for waits in (True, False)}
            hook.more = "+" if is_cut else ""
        return changelist

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.send_test))
        return [path("<int:pk>/test/", view, name="runners_webhook_test"), *super().get_urls()]

    def send_test(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Send a test message to the receiver and show its answer. The stored values of the webhook are used."""
        hook = get_object_or_404(Webhook, pk=pk)
        if not self.has_change_permission(request, hook):
            raise PermissionDenied
        try:
            with audit_command(request, "test-webhook", user=request.user) as record:
                begin(record)
                outcome = trial.send_test(hook, request.user.get_username())
                record.detail = f"{hook.name}: {outcome.words}"
        except RunnerServiceError as error:
            outcome = trial.Outcome(False, error.detail)
        said = f" It said: {outcome.answer}" if outcome.answer else ""
        level = messages.SUCCESS if outcome.is_accepted else messages.ERROR
        self.message_user(request, f"{outcome.words}{said}", level)
        return redirect("admin:runners_webhook_change", pk)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = {"may_test": self.has_change_permission(request), **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)

    @admin.display(description="events")
    def subscription(self, hook: Webhook) -> str:
        return f"{', '.join(hook.events) or 'every event'} of {', '.join(hook.profile_names) or 'every profile'}"

    @admin.display(description="waiting")
    def waiting(self, hook: Any) -> str:
        return f"{hook.undone[True]}{hook.more}"

    @admin.display(description="given up")
    def given_up(self, hook: Any) -> SafeString | str:
        number = f"{hook.undone[False]}{hook.more}"
        return badge(number, "failed") if hook.undone[False] else number

    @admin.display(description="sent")
    def messages_link(self, hook: Webhook) -> SafeString:
        url = f"{reverse('admin:runners_webhookdelivery_changelist')}?webhook__id__exact={hook.pk}"
        return format_html('<a href="{}">messages<span class="visually-hidden"> of {}</span></a>', url, hook.name)


class StateFilter(ChoiceFilter):
    title = "state"
    parameter_name = "state"
    meanings = {
        "delivered": (WebhookDelivery.DELIVERED, Q(delivered_at__isnull=False)),
        "waiting": (WebhookDelivery.WAITING, Q(delivered_at=None, next_attempt__isnull=False)),
        "given-up": (WebhookDelivery.GIVEN_UP, Q(delivered_at=None, next_attempt=None)),
    }


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("id", "written", "to", "only_event", "of_run", "shown_state", "attempts", "last_status")
    list_filter = (StateFilter, "event", "webhook")
    list_select_related = ("webhook", "run")
    search_fields = ("message_id__exact", "run__expid__exact")
    search_help_text = "Message id, experiment"
    sortable_by = ("id",)
    actions = ("redeliver",)
    fieldsets = (
        (None, {"fields": ("webhook", "event", "run", "message_id", "shown_state")}),
        ("Attempts", {"fields": ("attempts", "last_status", "last_error", "when", "delivered", "next_time")}),
        ("Message", {"fields": ("shown_payload",)}),
    )
    readonly_fields = ("shown_state", "when", "delivered", "next_time", "shown_payload", "message_id")

    def has_redeliver_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("runners.change_webhookdelivery")

    @admin.action(description="Send the selected messages again", permissions=["redeliver"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        for delivery in queryset:
            outbox.redeliver(delivery)
        self.message_user(request, f"{len(queryset)} message(s) will be sent again at once.", messages.SUCCESS)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.redeliver_one))
        name = "runners_webhookdelivery_redeliver"
        return [path("<int:pk>/redeliver/", view, name=name), *super().get_urls()]

    def redeliver_one(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_redeliver_permission(request):
            raise PermissionDenied
        outbox.redeliver(get_object_or_404(WebhookDelivery, pk=pk))
        self.message_user(request, "The message will be sent again at once.", messages.SUCCESS)
        return redirect("admin:runners_webhookdelivery_change", pk)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = {"may_redeliver": self.has_redeliver_permission(request), **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)

    @admin.display(description="state")
    def shown_state(self, delivery: WebhookDelivery) -> SafeString:
        return badge(delivery.state, TONES[delivery.state])

    @admin.display(description="written")
    def written(self, delivery: WebhookDelivery) -> SafeString | str:
        return short(delivery.created)

    @admin.display(description="webhook", ordering="webhook")
    def to(self, delivery: WebhookDelivery) -> SafeString:
        return clipped(delivery.webhook)

    @admin.display(description="event", ordering="event")
    def only_event(self, delivery: WebhookDelivery) -> str:
        return delivery.event

    @admin.display(description="run")
    def of_run(self, delivery: WebhookDelivery) -> str:
        return f"{delivery.run.expid} ({delivery.run.pk})" if delivery.run else "-"

    @admin.display(description="written")
    def when(self, delivery: WebhookDelivery) -> SafeString | str:
        return local_time(delivery.created)

    @admin.display(description="delivered")
    def delivered(self, delivery: WebhookDelivery) -> SafeString | str:
        return local_time(delivery.delivered_at) or "not yet"

    @admin.display(description="next attempt")
    def next_time(self, delivery: WebhookDelivery) -> SafeString | str:
        return local_time(delivery.next_attempt) or "none"

    @admin.display(description="payload")
    def shown_payload(self, delivery: WebhookDelivery) -> SafeString:
        return as_json(delivery.payload)
