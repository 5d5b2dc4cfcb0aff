"""The paths of the pages."""

from __future__ import annotations

from django.urls import path, register_converter

from runners.commands.parameters import EXPID_PATTERN
from runners.commands.registry import one_shot_commands
from runners.pages.views import (
    account,
    commands,
    configuration,
    dashboard,
    device,
    experiment,
    foreign,
    history,
    job_scripts,
    jobs,
    machines,
    notifications,
    restart,
    run,
    run_again,
    run_log,
    runs,
    shortcuts,
    suggestions,
)
from runners.web.login_throttling import throttle_login


class ExpidConverter:
    regex = EXPID_PATTERN

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(ExpidConverter, "expid")

app_name = "pages"
urlpatterns = [
    path("", dashboard.Home.as_view(), name="home"),
    path("runs", runs.RunsPage.as_view(), name="run-list"),
    path("runs/list", dashboard.RunsFragment.as_view(), name="runs"),
    path("runs/refresh", dashboard.Refresh.as_view(), name="refresh"),
    path("runs/<int:pk>", run.RunDetailPage.as_view(), name="run"),
    path("runs/<int:pk>/state", run.StateFragment.as_view(), name="run-state"),
    path("runs/<int:pk>/end", run.RunEnd.as_view(), name="run-end"),
    path("runs/<int:pk>/details", run.DetailsFragment.as_view(), name="run-details"),
    path("runs/<int:pk>/refresh", run.RefreshRun.as_view(), name="run-refresh"),
    path("runs/<int:pk>/log", run_log.LogChunkView.as_view(), name="run-log"),
    path("runs/<int:pk>/log/search", run_log.LogSearchView.as_view(), name="run-log-search"),
    path("runs/<int:pk>/log/lines", run_log.LogLinesView.as_view(), name="run-log-lines"),
    path("runs/<int:pk>/log/raw", run_log.RawLog.as_view(), name="run-raw"),
    path("runs/<int:pk>/log/download", run_log.Download.as_view(), name="run-download"),
    path("runs/<int:pk>/jobs", jobs.RunJobs.as_view(), name="run-jobs"),
    path("runs/<int:pk>/jobs/none", jobs.NoJobLog.as_view(), name="no-job-log"),
    path("runs/<int:pk>/jobs/<str:name>/log", jobs.JobLog.as_view(), name="job-log"),
    path("runs/<int:pk>/again", run_again.RunAgainPage.as_view(), name="run-again"),
    path("runs/<int:pk>/stop", run.StopPage.as_view(), name="stop"),
    path("runs/<int:pk>/cancel-restart", restart.CancelRestart.as_view(), name="cancel-restart"),
    path("experiments", dashboard.FindExperiment.as_view(), name="find-experiment"),
    path("suggest/<str:name>/experiments", suggestions.KnownExperiments.as_view(), name="suggest-experiments"),
    path("suggest/<str:name>/conflicts", suggestions.Conflicts.as_view(), name="suggest-conflicts"),
    path("suggest/<str:name>/jobs", suggestions.SelectedJobs.as_view(), name="suggest-jobs"),
    path("start", commands.StartRun.as_view(form_class=restart.StartForm), name="start"),
    *(
        path(
            f"experiments/{command.page.path or command.name}",
            commands.OneShotCommandPage.as_view(command=command),
            name=command.name,
        )
        for command in one_shot_commands().values()
    ),
    # An expid may be `create`, or the path of another command. Then the paths above match first, and the experiment
    # only lacks this overview page.
    path("experiments/<expid:expid>/scripts", job_scripts.JobScriptsPage.as_view(), name="job-scripts"),
    path("experiments/<expid:expid>/scripts/<str:name>", job_scripts.JobScriptPage.as_view(), name="job-script"),
    path("experiments/<expid:expid>", experiment.ExperimentPage.as_view(), name="experiment"),
    path("experiments/<expid:expid>/about", experiment.Description.as_view(), name="description"),
    path("experiments/<expid:expid>/stop-foreign", foreign.StopForeignRun.as_view(), name="stop-foreign"),
    path("experiments/<expid:expid>/config", configuration.ConfigurationPage.as_view(), name="configuration"),
    path(
        "experiments/<expid:expid>/config/file",
        configuration.ConfigurationFilePage.as_view(),
        name="configuration-file",
    ),
    path("machines", machines.Machines.as_view(), name="machines"),
    path("machines/<path:name>", machines.MachinePage.as_view(), name="machine"),
    path("account", account.AccountPage.as_view(), name="account"),
    path("account/password", throttle_login(account.PasswordPage.as_view()), name="password"),
    path("notifications", account.Notifications.as_view(), name="notifications"),
    path("notifications/unsubscribe/<str:token>", notifications.Unsubscribe.as_view(), name="unsubscribe"),
    path("runs/<int:pk>/mail", notifications.FollowRun.as_view(), name="run-mail"),
    path("device", device.DevicePage.as_view(), name="device"),
    path("shortcuts", shortcuts.Shortcuts.as_view(), name="shortcuts"),
    path("history", history.History.as_view(), name="history"),
]
