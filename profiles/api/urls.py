"""Two lists: one for /v4/runners/configuration/, and `user_settings_urlpatterns` for /v4/user-settings/."""

from __future__ import annotations

from django.urls import path

from profiles.api import views

urlpatterns = [
    path("profiles", views.ProfilesView.as_view(), name="configuration-profiles"),
    path("endpoints", views.EndpointsView.as_view(), name="configuration-endpoints"),
    path("ssh-public-keys", views.SSHPublicKeysView.as_view(), name="configuration-ssh-public-keys"),
]

user_settings_urlpatterns = [
    path("preferred-username", views.PreferredUsernameView.as_view(), name="preferred-username"),
]
