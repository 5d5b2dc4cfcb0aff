"""Permissions: the scopes of credentials. runners/services/access.py has the groups of profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from runners.api.authentication import is_open, required_scope
from runners.models import ApiToken, TokenScope

if TYPE_CHECKING:  # a circular import otherwise: DRF's views read the settings, which name this module
    from rest_framework.views import APIView


class ScopeAllowed(BasePermission):
    """Allow requests whose credentials have the required scope.

    A session or a JWT covers reading and running. Managing needs an API token with that scope, or a staff session.
    """

    message = "The credentials do not cover this request."

    def has_permission(self, request: Request, view: APIView) -> bool:
        if is_open(request):
            return True
        if not request.user.is_authenticated:
            return False
        scope = required_scope(request)
        if isinstance(request.auth, ApiToken):
            has = request.auth.scope
            self.message = f"This token may only {has}: the request needs the scope '{scope}'. Ask for another token."
            return request.auth.allows(scope)
        if scope == TokenScope.MANAGE and not request.user.is_staff:
            self.message = (
                "This needs a staff account that is signed in to the admin, or a token with the scope 'manage'."
            )
            return False
        return True
