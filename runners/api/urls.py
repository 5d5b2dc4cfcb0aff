"""The paths under /v4. They have no trailing slash: `ApiPathMiddleware` removes one that a client sends."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from rest_framework.routers import SimpleRouter

from profiles.api.urls import user_settings_urlpatterns
from runners.api.commands.views import ExperimentCommands, RunStatusView

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("command", ExperimentCommands, basename="command")

urlpatterns: list[URLPattern | URLResolver] = [
    # First, because it gets a thousand times as many requests as all the others together.
    path("runners/command/get-runner-run-status", RunStatusView.as_view(), name="command-get-runner-run-status"),
    path("runners/", include(router.urls)),
    path("runners/configuration/", include("profiles.api.urls")),
    path("runners/", include("runners.api.runs.urls")),
    path("user-settings/", include(user_settings_urlpatterns)),
]
