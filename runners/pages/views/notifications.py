"""Mail about one run, and the link in each message that ends it. The choices are on the account page."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from runners.pages.base import PageView
from runners.pages.views.run import visible_run
from runners.services import mail


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
