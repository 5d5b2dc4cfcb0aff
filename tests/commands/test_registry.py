"""Every command of the registry is complete: a half-added command fails a test here."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from profiles.models import EndpointToggle
from profiles.toggles import commands_of, toggles
from runners.admin.audit import COMMANDS as AUDITED
from runners.commands.base import Action, Command, OneShotCommand
from runners.commands.parameters import Parameter
from runners.commands.registry import COMMANDS, long_commands, one_shot_commands
from runners.models import Operation
from runners.pages.urls import urlpatterns
from runners.pages.views.commands import CommandPage
from runners.services import operations
from runners.web.fields import field_of
from runners.web.requests import request_of
from tests.support.examples import DOCUMENT, OPERATIONS
from tests.support.servers import ROOT

ONE_SHOT = one_shot_commands()
EVERY = pytest.mark.parametrize("command", COMMANDS.values(), ids=str)
EVERY_ONE_SHOT = pytest.mark.parametrize("command", ONE_SHOT.values(), ids=str)
ON_OTHER_PAGES = {"stop-experiment"}  # commands whose form is a part of another page


def is_overridden(command: Command, method: str) -> bool:
    return getattr(type(command), method) is not getattr(OneShotCommand, method)


@EVERY
def test_a_command_has_its_texts_a_toggle_and_a_permission(command: Command) -> None:
    texts = [command.summary, command.description, command.request_text]
    texts += [command.page.title, command.page.intro, command.page.button]
    assert all(texts), texts
    assert command.name in commands_of(command.toggle.name)
    assert command.action in Action


@pytest.mark.django_db
@EVERY
def test_a_command_can_be_switched_and_is_in_the_filters_of_the_admin(command: Command) -> None:
    assert EndpointToggle.states()[command.toggle.name] is command.toggle.is_enabled
    assert command.name in AUDITED


@EVERY
def test_a_command_has_a_path_an_operation_a_page_and_a_place_in_the_docs(command: Command) -> None:
    assert reverse(f"command-{command.name}")
    assert OPERATIONS[command.name.replace("-", "_")] == ("POST", f"/v4/runners/command/{command.name}")
    assert command.name in ON_OTHER_PAGES or command in commands_with_a_page()
    assert command.name in (ROOT / "docs" / "api.md").read_text()


def commands_with_a_page() -> list[Command]:
    views = [pattern.callback for pattern in urlpatterns]
    return [
        view.view_initkwargs.get("command") or view.view_class.command
        for view in views
        if issubclass(view.view_class, CommandPage)
    ]


@EVERY
def test_each_parameter_has_its_texts_and_a_field(command: Command) -> None:
    for parameter in command.parameters:
        assert parameter.help and parameter.label, parameter.name
        assert field_of(parameter).help_text == parameter.help
    names = [parameter.name for parameter in command.parameters]
    assert len(set(names)) == len(names)


@EVERY_ONE_SHOT
def test_a_one_shot_command_reads_its_result(command: OneShotCommand) -> None:
    assert is_overridden(command, "is_success")
    assert not command.is_success(0, "")  # exit code 0 alone proves nothing
    assert not command.is_success(0, "[CRITICAL] no [eCode=7014]\n")
    assert command.message.format(expid="a001")
    assert command.page.done.format(expid="a001") or is_overridden(command, "page_message")
    if command.preview_name:
        assert is_overridden(command, "preview_argv") and command.preview_name in AUDITED
    if command.members:
        assert is_overridden(command, "answer") and command.answer_name
    if command.has_notes:
        assert is_overridden(command, "notes") and command.notes_unknown


@EVERY_ONE_SHOT
def test_a_dash_at_the_beginning_of_a_value_makes_no_option(command: OneShotCommand) -> None:
    params: dict[str, Any] = {each.name: sample(each) for each in command.parameters}
    argv = command.argv("a001" if command.needs_expid else "", params)
    options = {each.option for each in command.parameters if each.option}
    rest = argv[argv.index("--") :] if "--" in argv else []
    for word in argv:
        if "-x" in word and word not in rest:
            assert word.partition("=")[0] in options, word


def sample(parameter: Parameter) -> Any:
    """Return a value that begins with a dash, where the kind of the parameter takes text."""
    return {"flag": True, "text": "-x", "choice": "-x", "texts": ["-x"], "words": ("-x",)}[parameter.kind]


@EVERY_ONE_SHOT
def test_the_request_takes_the_parameters_in_their_order(command: OneShotCommand) -> None:
    fields = request_of(command)().fields
    nested = getattr(fields["command_params"], "fields", {})
    assert list(nested) == [each.name for each in command.parameters if not each.in_body]
    assert [name for name in fields if name in {each.name for each in command.parameters}] == [
        each.name for each in command.parameters if each.in_body
    ]
    assert ("expid" in fields) is command.needs_expid


def test_the_long_commands_are_the_kinds_of_operations() -> None:
    kinds = dict(Operation._meta.get_field("kind").flatchoices)
    assert set(kinds) == set(long_commands())
    assert DOCUMENT["components"]["schemas"]["OperationKind"]["enum"] == list(long_commands())


def test_toggles_that_share_a_name_are_equal() -> None:
    """Otherwise the state of a toggle without a row would depend on the order of the commands."""
    for command in COMMANDS.values():
        assert toggles()[command.toggle.name] == command.toggle


def test_an_operation_whose_command_was_removed_still_has_an_answer() -> None:
    operation = Operation(pk=1, kind="gone-command", expid="a001", result={"warnings": ["one"], "changes": None})
    assert operations.body_of(operation) == {"message": "gone-command has succeeded.", "warnings": ["one"]}
