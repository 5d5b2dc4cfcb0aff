"""The paths under /v4. They have no trailing slash: `ApiPathMiddleware` removes one that a client sends."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from rest_framework.routers import SimpleRouter

from profiles.api.urls import user_settings_urlpatterns
from runners.api.commands.views import CommandsView, ExperimentCommands, RunStatusView
from runners.api.configuration_files import views as files
from runners.api.job_scripts.views import JobScriptsView, JobScriptView
from runners.api.jobs import views as jobs
from runners.api.login import views as login
from runners.api.machines import views as machines
from runners.api.notifications import views as notifications
from runners.api.operations import views as operations
from runners.api.profiles import views as profiles
from runners.api.run_again.views import RunAgainView
from runners.api.runs import views as runs

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("command", ExperimentCommands, basename="command")

urlpatterns: list[URLPattern | URLResolver] = [
    # First, because it gets a thousand times as many requests as all the others together.
    path("runners/command/get-runner-run-status", RunStatusView.as_view(), name="command-get-runner-run-status"),
    path("runners/", include(router.urls)),
    path("runners/configuration/", include("profiles.api.urls")),
    path("runners/commands", CommandsView.as_view(), name="api-commands"),
    path("runners/runs", runs.RunsView.as_view(), name="api-runs"),
    path("runners/runs/<int:id>", runs.RunView.as_view(), name="api-run"),
    path("runners/runs/<int:id>/abandon", runs.RunAbandon.as_view({"post": "abandon"}), name="api-run-abandon"),
    path(
        "runners/runs/<int:id>/cancel-restart", runs.RunCancelRestart.as_view({"post": "cancel"}), name="api-run-cancel"
    ),
    path("runners/runs/<int:id>/log", runs.RunLogView.as_view(), name="api-run-log"),
    path("runners/runs/<int:id>/log/search", runs.RunLogSearchView.as_view(), name="api-run-log-search"),
    path("runners/experiments/<str:expid>/config", files.ConfigurationFilesView.as_view(), name="api-config"),
    path(
        "runners/experiments/<str:expid>/config/file",
        files.ConfigurationFile.as_view({"get": "read", "put": "write"}),
        name="api-config-file",
    ),
    path(
        "runners/experiments/<str:expid>/config/file/versions",
        files.ConfigurationVersionsView.as_view(),
        name="api-config-versions",
    ),
    path(
        "runners/experiments/<str:expid>/config/file/restore",
        files.RestoreConfigurationFile.as_view({"post": "restore"}),
        name="api-config-restore",
    ),
    path("runners/runs/<int:id>/jobs", jobs.RunJobsView.as_view(), name="api-run-jobs"),
    path("runners/runs/<int:id>/jobs/<str:name>/log", jobs.JobLogView.as_view(), name="api-job-log"),
    path("runners/experiments/<str:expid>/jobs", jobs.ExperimentJobsView.as_view(), name="api-experiment-jobs"),
    path("runners/runs/<int:id>/run-again", RunAgainView.as_view({"post": "run_again"}), name="api-run-again"),
    path("runners/experiments/<str:expid>/scripts", JobScriptsView.as_view(), name="api-job-scripts"),
    path("runners/experiments/<str:expid>/scripts/<str:name>", JobScriptView.as_view(), name="api-job-script"),
    path("runners/operations/<int:id>", operations.OperationView.as_view(), name="api-operation"),
    path("runners/operations/<int:id>/log", operations.OperationLogView.as_view(), name="api-operation-log"),
    path("runners/machines", machines.MachinesView.as_view(), name="api-machines"),
    path(
        "runners/machines/<str:name>",
        machines.ForgetMachine.as_view({"delete": "forget"}),
        name="api-forget-machine",
    ),
    path(
        "runners/machines/<str:name>/maintenance",
        machines.AnnounceMaintenance.as_view({"post": "announce"}),
        name="api-announce-maintenance",
    ),
    path(
        "runners/machines/<str:name>/maintenance/<int:id>",
        machines.EndMaintenance.as_view({"delete": "end"}),
        name="api-end-maintenance",
    ),
    path(
        "runners/profiles/<str:name>/requirements",
        profiles.ProfileRequirementsView.as_view(),
        name="api-profile-requirements",
    ),
    path(
        "runners/profiles/<str:name>/check",
        profiles.ProfileCheck.as_view({"post": "check"}),
        name="api-profile-check",
    ),
    path("user-settings/notifications", notifications.NotificationsView.as_view(), name="notifications"),
    path("user-settings/notifications/test", notifications.TestMailView.as_view(), name="notifications-test"),
    path("runners/login/start", login.StartLoginView.as_view(), name="login-start"),
    path("runners/login/poll", login.PollLoginView.as_view(), name="login-poll"),
    path("runners/login/whoami", login.WhoAmIView.as_view(), name="login-whoami"),
    path("runners/login/revoke", login.LogoutView.as_view(), name="login-revoke"),
    path("user-settings/", include(user_settings_urlpatterns)),
]
