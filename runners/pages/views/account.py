"""The account page: a person's tokens, password, accounts on machines, mail, and the lines that let the service in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.password_validation import password_validators_help_texts
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import RedirectView

from profiles.accounts import accounts_of
from profiles.models import UserSettings
from profiles.numbers import number
from profiles.validators import MAX_USER, validate_preferred_username
from runners.exceptions import InvalidRequest, RunnerServiceError
from runners.models import ApiToken, AuditRecord, Mail, TokenScope
from runners.pages.base import PageView
from runners.services import login_lines, mail, own_tokens
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after
from runners_project import clock

SHOWN_MAILS = 20
SENT_FORM = "account_token_form"  # key of the session: the last token form that was sent


class TokenForm(forms.Form):
    name = forms.CharField(
        label="Name",
        max_length=own_tokens.NAME_LIMIT,
        help_text="What uses it, such as the machine or the script.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    scope = forms.ChoiceField(label="Scope", help_text="What a program that has the token may do.")
    days = forms.IntegerField(label="Valid for (days)", min_value=1)

    def __init__(self, user: Any, data: Any = None) -> None:
        super().__init__(data, label_suffix="", initial={"scope": TokenScope.RUN})
        scope, days = self.fields["scope"], self.fields["days"]
        assert isinstance(scope, forms.ChoiceField)
        assert isinstance(days, forms.IntegerField)
        scope.choices = own_tokens.scopes_for(user)
        days.initial = own_tokens.default_days()
        days.help_text = f"At most {own_tokens.longest_days()}. Revoke it when it is not needed any more."
        days.widget.attrs["max"] = own_tokens.longest_days()


class PreferredForm(forms.Form):
    preferred = forms.CharField(
        label="Preferred account",
        max_length=MAX_USER,
        required=False,
        validators=[validate_preferred_username],
        help_text="Suggested in forms where a profile leaves the account open. Empty: none.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )


class PasswordForm(PasswordChangeForm):
    """Django's form, without its `autofocus`, which would scroll the page to its end, and with help as plain text."""

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, label_suffix="", **kwargs)
        self.fields["old_password"].widget.attrs.pop("autofocus", None)
        self.fields["new_password1"].help_text = " ".join(password_validators_help_texts())
        self.fields["new_password2"].label = "New password once more"
        self.fields["new_password2"].help_text = ""


class AccountPage(PageView):
    """POST has an `action`: `make-token`, `revoke-token`, `preferred`, `mail` or `test-mail`. Nothing is cached."""

    template_name = "pages/account.html"
    title = "Account"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user: Any = self.request.user
        row = UserSettings.objects.filter(user=user).first()
        context = {
            "tokens": [token_row(each) for each in own_tokens.tokens_of(user)],
            "token_form": TokenForm(user),
            "token_nonce": uuid4().hex,
            "password_form": PasswordForm(user) if user.has_usable_password() else None,
            "preferred_form": PreferredForm(initial={"preferred": row.preferred_username if row else ""}),
            "mapped": accounts_of(user.get_username()),
            "places": login_lines.places_of(user),
            "lines": login_lines.lines_for(user),
            **mail_context(user),
        }
        return super().get_context_data(**{**context, **kwargs})

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        actions: dict[str, Callable[[HttpRequest], HttpResponse]] = {
            "make-token": self._make_token,
            "revoke-token": self._revoke_token,
            "preferred": self._preferred,
            "mail": self._mail,
            "test-mail": self._test_mail,
        }
        action = actions.get(request.POST.get("action", ""))
        if action is None:
            return self.page(status=400)
        try:
            return action(request)
        except RunnerServiceError as error:
            shown = error_context(error, request.user)
            return with_retry_after(self.page(status=shown["status"], error=shown), shown)

    def page(self, *, status: int = 200, **context: Any) -> HttpResponse:
        return self.render_to_response(self.get_context_data(**context), status=status)

    def _make_token(self, request: HttpRequest) -> HttpResponse:
        """Make a token and show it, in this response only. A message or a redirect would have to store it."""
        nonce = request.POST.get("nonce", "")[:32]
        if nonce and request.session.get(SENT_FORM) == nonce:
            messages.warning(request, "This form was sent before. Its token was shown once and is not shown again.")
            return redirect(f"{reverse('pages:account')}#tokens")
        form = TokenForm(request.user, request.POST)
        with audit_command(request, "create-token", user=request.user, holds_changes=True) as audit:
            if not form.is_valid():
                return self._invalid(audit, token_form=form)
            try:
                token, text = own_tokens.make(user=request.user, audit=audit, **form.cleaned_data)
            except InvalidRequest as error:
                return self._wrong(form, error, audit, token_form=form)
        request.session[SENT_FORM] = nonce
        return self.page(new_token=token, new_text=text)

    def _revoke_token(self, request: HttpRequest) -> HttpResponse:
        with audit_command(request, "revoke-token", user=request.user, holds_changes=True) as audit:
            row = own_tokens.revoke(user=request.user, token_key=request.POST.get("token", ""), audit=audit)
        messages.success(request, f"The token {row.token_key}… is revoked.")
        return redirect(f"{reverse('pages:account')}#tokens")

    def _preferred(self, request: HttpRequest) -> HttpResponse:
        form = PreferredForm(request.POST)
        with audit_command(request, "set-preferred-username", user=request.user, holds_changes=True) as audit:
            if not form.is_valid():
                return self._invalid(audit, preferred_form=form)
            user: Any = request.user
            values = {"preferred_username": form.cleaned_data["preferred"]}
            UserSettings.objects.update_or_create(user=user, defaults=values)
        messages.success(request, "Saved.")
        return redirect(f"{reverse('pages:account')}#accounts")

    def _mail(self, request: HttpRequest) -> HttpResponse:
        runs = [found for text in request.POST.getlist("run")[:1000] if (found := number(text))]
        mail.subscribe(
            request.user,
            mine="mine" in request.POST,
            profiles=request.POST.getlist("profile")[:1000],
            runs=runs,
        )
        messages.success(request, "Saved.")
        return redirect(f"{reverse('pages:account')}#mail")

    def _test_mail(self, request: HttpRequest) -> HttpResponse:
        user: Any = request.user
        mail.send_test(user)
        messages.success(request, f"A test message to {user.email} was queued.")
        return redirect(f"{reverse('pages:account')}#mail")

    def _invalid(self, audit: AuditRecord, **context: Any) -> HttpResponse:
        audit.outcome = InvalidRequest.code
        return self.page(status=400, **context)

    def _wrong(self, form: forms.Form, error: InvalidRequest, audit: AuditRecord, **context: Any) -> HttpResponse:
        """Show an error at its fields; an error without fields is raised again."""
        if not error.errors:
            raise error
        audit.detail = error.detail
        for field, words in error.errors.items():
            form.add_error(field, words)
        return self._invalid(audit, **context)


@method_decorator(sensitive_post_parameters(), name="dispatch")
class PasswordPage(AccountPage):
    """Change the password. The path has a rate limit (`throttle_login`), because it checks the old password."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user: Any = request.user
        try:
            with audit_command(request, "change-password", user=user, holds_changes=True) as audit:
                if not user.has_usable_password():
                    raise InvalidRequest("Your account has no password here. Change it where you sign in.")
                form = PasswordForm(user, request.POST)
                if not form.is_valid():
                    return self._invalid(audit, password_form=form)
                changed = form.save()
        except RunnerServiceError as error:
            shown = error_context(error, user)
            return with_retry_after(self.page(status=shown["status"], error=shown), shown)
        update_session_auth_hash(request, changed)
        messages.success(request, "The password is changed. Other sessions are signed out; tokens stay valid.")
        return redirect(f"{reverse('pages:account')}#password")


class Notifications(RedirectView):
    """The former address of the choices of mail. Messages that were sent before lead here."""

    permanent = True

    def get_redirect_url(self, *args: Any, **kwargs: Any) -> str:
        return f"{reverse('pages:account')}#mail"


def token_row(token: ApiToken) -> dict[str, Any]:
    is_over = token.expiry is not None and token.expiry <= clock.now()
    return {"token": token, "scope": token.scope, "is_over": is_over}


def mail_context(user: Any) -> dict[str, Any]:
    found = list(mail.subscriptions_of(user))
    chosen = {each.profile_id for each in found if each.profile_id}
    return {
        "mail_is_on": mail.is_on(),
        "is_mine": any(not each.profile_id and not each.run_id for each in found),
        "mail_profiles": [{"name": each.name, "is_chosen": each.pk in chosen} for each in mail.profiles_for(user)],
        "mail_runs": [each.run for each in found if each.run],
        "mails": Mail.objects.filter(user=user)[:SHOWN_MAILS],
    }
