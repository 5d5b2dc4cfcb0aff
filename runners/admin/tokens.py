"""API tokens: create and show once, rename, revoke."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.cache import add_never_cache_headers
from django.utils.html import format_html
from django.utils.safestring import SafeString

from runners.admin.base import badge, short
from runners.models import ApiToken, TokenScope
from runners_project import clock

if TYPE_CHECKING:
    TokenForm = forms.ModelForm[ApiToken]
else:
    TokenForm = forms.ModelForm


class NewTokenForm(TokenForm):
    days = forms.IntegerField(
        label="Valid for (days)",
        min_value=0,
        max_value=3650,
        help_text="0: no expiry. If such a token leaks, it has to be revoked by hand.",
    )

    class Meta:
        model = ApiToken
        fields = ("user", "name", "scope")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["days"].initial = settings.TOKEN_DAYS


class ValidityFilter(admin.SimpleListFilter):
    title = "validity"
    parameter_name = "validity"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("valid", "valid"), ("expired", "expired"), ("endless", "without end")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = clock.now()
        match self.value():
            case "valid":
                return queryset.filter(Q(expiry=None) | Q(expiry__gt=now))
            case "expired":
                return queryset.filter(expiry__lte=now)
            case "endless":
                return queryset.filter(expiry=None)
        return queryset


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):
    """The tokens. Only their hash is stored, so only the page after the creation shows a token."""

    list_display = ("token_key", "user", "name", "only_scope", "validity", "used")
    list_filter = (ValidityFilter, "scope")
    search_fields = ("token_key__startswith", "user__username__exact", "name__icontains")
    search_help_text = "First characters of the token, person, part of the name"
    list_select_related = ("user",)

    def get_fieldsets(self, request: HttpRequest, obj: ApiToken | None = None) -> Any:
        if obj:
            return [(None, {"fields": ("token_key", "user", "name", "scope", "validity", "created", "used")})]
        description = (
            "A token is a password for programs: every program that has it acts as this person, within its scope."
        )
        return [(None, {"fields": ("user", "name", "scope", "days"), "description": description})]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return ("token_key", "user", "validity", "created", "used") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any | None = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **({} if obj else {"form": NewTokenForm}), **kwargs)
        if obj and "scope" in form.base_fields and not self.has_add_permission(request):
            # Widening the scope of a token needs the permission to add tokens.
            form.base_fields["scope"].choices = [each for each in TokenScope.choices if obj.allows(each[0])]
        return form

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        """Allow changes of one's own tokens, and of all for superusers: a token acts with the rights of its person."""
        is_theirs = obj is None or request.user.is_superuser or obj.user_id == request.user.pk
        return bool(is_theirs and super().has_change_permission(request, obj))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "user" and not request.user.is_superuser:
            # A token of somebody else would escalate privileges.
            kwargs["queryset"] = get_user_model().objects.filter(username=request.user.get_username())
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        days = form.cleaned_data["days"]
        made, text = ApiToken.issue(
            user=obj.user, expiry=timedelta(days=days) if days else None, name=obj.name, scope=obj.scope
        )
        obj.__dict__.update(made.__dict__)
        request.new_token = text  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        """Show the token, in this response only. A Django message would keep it in a cookie."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "This token is shown once",
            "token": obj,
            "text": request.new_token,  # type: ignore[attr-defined]
        }
        response = TemplateResponse(request, "admin/runners/apitoken/made.html", context)
        add_never_cache_headers(response)
        return response

    @admin.display(description="scope", ordering="scope")
    def only_scope(self, token: ApiToken) -> str:
        return token.scope

    @admin.display(description="validity", ordering="expiry")
    def validity(self, token: ApiToken) -> SafeString:
        if token.expiry is None:
            return badge("without end", "stopped")
        if token.expiry <= clock.now():
            return badge(format_html("expired {}", short(token.expiry)), "unsure")
        return badge(format_html("until {}", short(token.expiry)), "completed")

    @admin.display(description="last used", ordering="last_used")
    def used(self, token: ApiToken) -> SafeString | str:
        return short(token.last_used) if token.last_used else "never"

    def get_actions(self, request: HttpRequest) -> Any:
        """Rename Django's delete action, which asks for confirmation, to "revoke"."""
        actions = super().get_actions(request)
        if delete := actions.get("delete_selected"):
            actions["delete_selected"] = (*delete[:2], "Revoke the selected tokens")
        return actions
