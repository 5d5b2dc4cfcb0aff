"""The paths of the resources, under /v4/runners/."""

from __future__ import annotations

from django.urls import path

from runners.api import resources

urlpatterns = [
    path("runs", resources.RunsView.as_view(), name="api-runs"),
    path("runs/<int:id>", resources.RunView.as_view(), name="api-run"),
    path("runs/<int:id>/abandon", resources.RunAbandon.as_view({"post": "abandon"}), name="api-run-abandon"),
    path("runs/<int:id>/log", resources.RunLogView.as_view(), name="api-run-log"),
    path("operations/<int:id>", resources.OperationView.as_view(), name="api-operation"),
    path("operations/<int:id>/log", resources.OperationLogView.as_view(), name="api-operation-log"),
    path(
        "profiles/<str:name>/requirements", resources.ProfileRequirementsView.as_view(), name="api-profile-requirements"
    ),
    path("profiles/<str:name>/check", resources.ProfileCheck.as_view({"post": "check"}), name="api-profile-check"),
]
