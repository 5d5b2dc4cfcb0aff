"""The pages of an experiment's configuration files: the list, and the editor with the former versions of a file.

The query names the profile, its open parameters and the file, so that a page can be linked and reloaded.
"""

from __future__ import annotations

import re
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode

from profiles.config import RunnerConfig
from profiles.models import EndpointToggle
from profiles.toggles import EDIT_CONFIGURATION
from runners.exceptions import EndpointDisabled, FileNotFound, InvalidRequest, RunnerServiceError
from runners.models import AuditRecord
from runners.pages.base import PageView, is_partial
from runners.pages.forms import PARAM, CommandForm
from runners.services import access, configuration_files
from runners.services.configuration_files import DIGEST_PATTERN, PATH_LIMIT, PATH_PATTERN, VERSION_PATTERN, Change, File
from runners.web.audit import audit_command
from runners.web.problems import error_context, with_retry_after
from runners.web.requests import ProfiledSerializer

WRITE, RESTORE = "write-configuration", "restore-configuration"
PARAMS_LIMIT = 2000  # characters of the query that is repeated in links


class _Reading:
    """What CommandForm has to know to offer profiles and their open parameters, without a command."""

    parameters: tuple[Any, ...] = ()
    action = access.Action.RUN
    needs_expid = False


class ConfigurationBase(PageView):
    """A page about the files of the experiment in the path, reached with the profile in the query."""

    expid = ""

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self.expid = kwargs["expid"]
        self.path = request.GET.get("path", "")
        self.version = request.GET.get("version", "")

    def chosen(self) -> tuple[CommandForm, RunnerConfig | None]:
        """Return the form of the profile, and its configuration; None if the profile is not complete yet."""
        command: Any = _Reading()
        data = self.request.GET if "profile_name" in self.request.GET else None
        form = CommandForm(command, ProfiledSerializer, self.request, data=data)
        config: RunnerConfig | None = form.validated.get("config") if data is not None and form.is_valid() else None
        return form, config

    def link(self, name: str, **more: str) -> str:
        """Return the path of another page of this experiment, with the same profile."""
        given = {
            key: str(value) for key, value in self.request.GET.items() if key == "profile_name" or key.startswith(PARAM)
        }
        query = urlencode({**given, **more})[:PARAMS_LIMIT]
        return f"{reverse(f'pages:{name}', args=[self.expid])}?{query}"

    def problem(self, error: RunnerServiceError, **context: Any) -> HttpResponse:
        shown = error_context(error, self.request.user)
        page = self.render_to_response(self.get_context_data(error=shown, **context), status=shown["status"])
        return with_retry_after(page, shown)


class ConfigurationPage(ConfigurationBase):
    """The list of the files, after a profile was chosen. htmx gets only the list, for the page of the experiment."""

    template_name = "pages/configuration.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.title = f"Configuration of {self.expid}"
        form, config = self.chosen()
        context = {"expid": self.expid, "form": form}
        if config is None and is_partial(request):
            return render(request, "pages/_configuration_files.html", {"choose": self.link("configuration")})
        if config is None:
            return self.render_to_response(self.get_context_data(**context), status=422 if form.errors else 200)
        try:
            listing = configuration_files.list_files(config=config, expid=self.expid)
        except RunnerServiceError as error:
            if is_partial(request):  # htmx shows a part with the status 200 only
                shown = {"error": error_context(error, request.user)}
                return render(request, "pages/_configuration_files.html", shown)
            return self.problem(error, **context)
        rows = [{"facts": each, "link": self.link("configuration-file", path=each.path)} for each in listing.files]
        context |= {"rows": rows, "others": listing.others, "is_listed": True}
        if is_partial(request):
            return render(request, "pages/_configuration_files.html", context)
        return self.render_to_response(self.get_context_data(**context))


class ConfigurationFilePage(ConfigurationBase):
    """A file, or a former version of it. POST has an `action`: `preview`, `save` or `restore`."""

    template_name = "pages/configuration_file.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        _, config = self.chosen()
        if config is None:
            return redirect(self.link("configuration"))
        try:
            file = self._read(config)
        except RunnerServiceError as error:
            return self.problem(error, **self._frame())
        shown: dict[str, Any] = {"content": file.content, "digest": file.digest, "is_crlf": "\r\n" in file.content}
        return self._page(config, file=file, **shown)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        form, config = self.chosen()
        action = request.POST.get("action", "")
        name = RESTORE if action == "restore" else WRITE
        profile = request.GET.get("profile_name", "")
        content = self._content()
        digest = request.POST.get("digest", "")
        shown: dict[str, Any] = {"content": content, "digest": digest, "is_crlf": "is_crlf" in request.POST}
        try:
            with audit_command(request, name, user=request.user, expid=self.expid, profile_name=profile) as audit:
                if not self._enabled():
                    raise EndpointDisabled(f"The {name} endpoint is currently disabled.")
                if config is None:
                    code, detail = form.refusal
                    raise InvalidRequest(detail or code)
                change = self._change(config, audit, action, content, digest)
        except RunnerServiceError as error:
            line = error.facts.get("line") if isinstance(error, InvalidRequest) else None
            if action == "restore" or config is None:
                return self.problem(error, **self._frame())
            context = error_context(error, request.user)
            page = self._page(config, status=context["status"], error=context, line=line, **shown)
            return with_retry_after(page, context)
        if action == "preview":
            return self._page(config, change=change, **shown)
        text = f"conf/{self.path} was written." if change.is_changed else f"conf/{self.path} already has this content."
        messages.success(request, text)
        return redirect(self.link("configuration-file", path=self.path))

    def _change(self, config: RunnerConfig, audit: AuditRecord, action: str, content: str, digest: str) -> Change:
        self._require_path()
        if not re.fullmatch(DIGEST_PATTERN, digest):
            raise InvalidRequest("The form does not say which content it replaces. Open the file again.")
        given: dict[str, Any] = {
            "config": config,
            "expid": self.expid,
            "path": self.path,
            "expected": digest,
            "audit": audit,
        }
        if action == "restore":
            version = self.request.POST.get("version", "")
            if not re.fullmatch(VERSION_PATTERN, version):
                raise FileNotFound("There is no such version.")
            return configuration_files.restore(**given, version=version)
        how = configuration_files.preview if action == "preview" else configuration_files.write_file
        return how(**given, content=content)

    def _content(self) -> str:
        """Return the text of the form. Browsers send CR LF for every line end, whatever the file had."""
        text = self.request.POST.get("content", "").replace("\r\n", "\n")
        return text.replace("\n", "\r\n") if "is_crlf" in self.request.POST else text

    def _require_path(self) -> None:
        if len(self.path) > PATH_LIMIT or not re.fullmatch(PATH_PATTERN, self.path):
            raise FileNotFound("There is no configuration file of this name.")

    def _read(self, config: RunnerConfig) -> File:
        self._require_path()
        if self.version and not re.fullmatch(VERSION_PATTERN, self.version):
            raise FileNotFound("There is no such version.")
        return configuration_files.read_file(config=config, expid=self.expid, path=self.path, version=self.version)

    def _enabled(self) -> bool:
        return EndpointToggle.is_enabled(EDIT_CONFIGURATION.name)

    def _frame(self) -> dict[str, Any]:
        self.title = f"{self.path[:PATH_LIMIT]} of {self.expid}"
        return {"expid": self.expid, "path": self.path, "back": self.link("configuration"), "enabled": self._enabled()}

    def _page(self, config: RunnerConfig, *, status: int = 200, **context: Any) -> HttpResponse:
        """Return the page with the editor and the versions. Versions that cannot be read now are left out."""
        try:
            found = configuration_files.versions(config=config, expid=self.expid, path=self.path)
        except RunnerServiceError:
            found = []
        rows = [
            {"facts": each, "link": self.link("configuration-file", path=self.path, version=each.version)}
            for each in found
        ]
        present = self.link("configuration-file", path=self.path)
        frame = self._frame()
        if self.version:
            context["present_digest"] = self._present_digest(config)
        context = self.get_context_data(**frame, versions=rows, version=self.version, present=present, **context)
        return self.render_to_response(context, status=status)

    def _present_digest(self, config: RunnerConfig) -> str:
        """Return the digest of the content that a restore replaces; empty if the file cannot be read now."""
        try:
            return configuration_files.read_file(config=config, expid=self.expid, path=self.path).digest
        except RunnerServiceError:
            return ""
