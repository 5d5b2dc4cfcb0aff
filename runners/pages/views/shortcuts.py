"""The page that lists the keyboard shortcuts, and switches them off."""

from __future__ import annotations

from typing import Any

from django.urls import NoReverseMatch, reverse

from runners.pages.base import PageView
from runners.templatetags.navigation import GO_TO


class Shortcuts(PageView):
    template_name = "pages/shortcuts.html"
    title = "Keyboard shortcuts"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, go_to=[each for name, each in GO_TO.items() if _exists(name)])


def _exists(name: str) -> bool:
    try:
        reverse(name)
    except NoReverseMatch:
        return False
    return True
