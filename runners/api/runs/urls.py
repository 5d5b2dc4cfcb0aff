"""The paths of the resources, under /v4/runners/."""

from __future__ import annotations

from django.urls import path

from runners.api.runs import views

urlpatterns = [
    path("runs", views.RunsView.as_view(), name="api-runs"),
    path("runs/<int:id>", views.RunView.as_view(), name="api-run"),
    path("runs/<int:id>/abandon", views.RunAbandon.as_view({"post": "abandon"}), name="api-run-abandon"),
    path("runs/<int:id>/log", views.RunLogView.as_view(), name="api-run-log"),
    path("operations/<int:id>", views.OperationView.as_view(), name="api-operation"),
    path("operations/<int:id>/log", views.OperationLogView.as_view(), name="api-operation-log"),
    path("profiles/<str:name>/requirements", views.ProfileRequirementsView.as_view(), name="api-profile-requirements"),
    path("profiles/<str:name>/check", views.ProfileCheck.as_view({"post": "check"}), name="api-profile-check"),
]
