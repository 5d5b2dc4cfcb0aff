"""The URLs of the service. Those of the API under /v4 are in runners/api/urls.py."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from drf_spectacular.views import SpectacularSwaggerSplitView

from runners.api.openapi import views as openapi
from runners.web.login_throttling import throttle_login
from runners_project import client_file, error_pages

urlpatterns = [
    path("v4/", include("runners.api.urls")),
    path("", include("runners.pages.urls")),
    path("login", throttle_login(LoginView.as_view(redirect_authenticated_user=True)), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("admin/login/", throttle_login(admin.site.login)),
    path("admin/password_change/", throttle_login(admin.site.admin_view(admin.site.password_change))),
    path("admin/", admin.site.urls),
    path("docs/errors", openapi.errors, name="errors"),
    path("docs/asr", client_file.download, name="client-file"),
    path("openapi.json", openapi.openapi_json, name="openapi"),
    path("openapi.yaml", openapi.openapi_yaml),
    path(
        "docs",
        SpectacularSwaggerSplitView.as_view(url_name="openapi", authentication_classes=[], permission_classes=[]),
        name="docs",
    ),
]

handler400 = error_pages.bad_request
handler404 = error_pages.page_not_found
handler500 = error_pages.server_error
