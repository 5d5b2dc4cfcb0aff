"""The page on which people choose which runs they get mail about, and the link in each message that ends it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from runners.exceptions import RunnerServiceError
from runners.models import Mail
from runners.pages.base import PageView
from runners.pages.views.run import visible_run
from runners.services import mail
from runners.web.problems import error_context, with_retry_after

SHOWN = 20  # messages


class Notifications(PageView):
    """What a person gets mail about. POST has an `action`: `save` or `test`."""

    template_name = "pages/notifications.html"
    title = "Mail about runs"

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user: Any = request.user
        try:
            if request.POST.get("action") == "test":
                mail.send_test(user)
                messages.success(request, f"A test message to {user.email} was queued.")
            else:
                runs = [int(text) for text in request.POST.getlist("run") if text.isascii() and text.isdecimal()][:1000]
                runs = [number for number in runs if number < 2**63]
                mail.subscribe(
                    user, mine="mine" in request.POST, profiles=request.POST.getlist("profile")[:1000], runs=runs
                )
                messages.success(request, "Saved.")
        except RunnerServiceError as error:
            shown = error_context(error, user)
            page = self.render_to_response(self.get_context_data(error=shown), status=shown["status"])
            return with_retry_after(page, shown)
        return redirect("pages:notifications")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user: Any = self.request.user
        found = list(mail.subscriptions_of(user))
        chosen = {each.profile_id for each in found if each.profile_id}
        return super().get_context_data(
            **kwargs,
            is_on=mail.is_on(),
            is_mine=any(not each.profile_id and not each.run_id for each in found),
            profiles=[{"name": each.name, "is_chosen": each.pk in chosen} for each in mail.profiles_for(user)],
            runs=[each.run for each in found if each.run],
            mails=Mail.objects.filter(user=user)[:SHOWN],
        )


class FollowRun(PageView):
    """Switch the mail about one run on (`follow`) or off."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        run = visible_run(request, pk)
        is_wanted = "follow" in request.POST
        mail.follow_run(request.user, run, is_wanted=is_wanted)
        words = "You get mail about this run." if is_wanted else "You get no mail about this run."
        messages.success(request, words)
        return redirect("pages:run", pk=pk)


@method_decorator(csrf_exempt, name="dispatch")  # mail programs send the POST of RFC 8058 without a session
class Unsubscribe(View):
    """End the subscription of a message, without a sign-in: the link is signed. GET asks, POST does it."""

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        if mail.subscription_of(token) is None:
            raise Http404
        return render(request, "pages/unsubscribe.html", {"is_done": False})

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        subscription = mail.subscription_of(token)
        if subscription is not None:  # else it was sent twice
            subscription.delete()
        return render(request, "pages/unsubscribe.html", {"is_done": True})
