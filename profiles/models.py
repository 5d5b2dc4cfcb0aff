"""What admins configure: runner profiles, endpoint toggles, published SSH keys; and each person's own settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models
from django.utils.functional import classproperty

from profiles import parameters, toggles, validators
from profiles.config import RunnerConfig
from profiles.exceptions import ForbiddenParameter
from profiles.installations import MAX_PATTERN, installation_of, possible_installations, validate_installation
from profiles.limits import (
    BOUND,
    Limits,
    add_limits,
    is_anybody,
    limit,
    lines,
    validate_accounts,
    validate_patterns,
    validate_roots,
    validate_user_patterns,
)
from profiles.parameter import Parameter, Values
from profiles.people import Person
from profiles.rules import RUNNERS, loader_choices, runner_choices
from runners_project.clock import AutoDateTimeField

OPEN = "Empty: open, requests give it in profile_params."


class RunnerProfile(models.Model):
    """A template of a runner configuration. An empty field is open: a request may give it in `profile_params`."""

    name = models.CharField(
        max_length=validators.MAX_NAME,
        unique=True,
        help_text="The profile_name in requests: letters, digits and _ . - .",
    )
    enabled = models.BooleanField(
        default=True, help_text="Off: the profile is hidden and cannot be used. Its runs continue and can be stopped."
    )
    description = models.TextField(blank=True, help_text="For people: purpose and contact.")
    runner_type = models.CharField(
        max_length=16, blank=True, choices=runner_choices, help_text=f"How commands reach the machine. {OPEN}"
    )
    module_loader_type = models.CharField(
        "module loader",
        max_length=16,
        blank=True,
        choices=loader_choices,
        help_text=f"The module loader that prepares the environment of Autosubmit. {OPEN}",
    )
    modules = models.TextField(
        blank=True,
        help_text=f"One per line. {OPEN}",  # the form adds what each loader takes
    )
    ssh_host = models.CharField(
        "SSH host",
        max_length=validators.MAX_HOST,
        blank=True,
        help_text=f"A host name, an IP address, or an alias of the service's ~/.ssh/config. {OPEN}",
    )
    ssh_port = models.PositiveIntegerField(
        "SSH port",
        null=True,
        blank=True,
        help_text="1 to 65535. Empty: open. Requests may give it; the default is the port in ~/.ssh/config, or 22.",
    )
    ssh_user = models.CharField(
        "SSH user",
        max_length=validators.MAX_USER,
        blank=True,
        help_text="The account on this machine. Empty: open. Requests may give it; the default is the user in "
        "~/.ssh/config. Without one, requests have to give it.",
    )
    other_parameters = models.JSONField(
        default=dict,
        db_default={},  # an older server on the same database does not set this column
        blank=True,
        editable=False,
        help_text="By path: the values of parameters that have no column, of runners that a site has added.",
    )
    installation = models.CharField(
        max_length=MAX_PATTERN,
        blank=True,
        default="",
        db_default="",  # an older server on the same database does not set this column
        help_text="A name for the Autosubmit database that the commands use. Profiles that use the same database need "
        "the same name. An experiment can have one active run in an installation, whichever profile starts it. {user} "
        "is replaced by the account that runs the commands and {host} by its machine: use {user}@{host} if every "
        "account has its own database. Empty: the installation 'default', shared by all.",
    )
    silent_after = models.PositiveIntegerField(
        "silent after (seconds)",
        default=0,
        db_default=0,  # an older server on the same database does not set this column
        blank=True,
        validators=[MaxValueValidator(validators.MAX_SILENT_AFTER)],
        help_text="A run that prints nothing for this many seconds is marked as silent, and webhooks tell it once. "
        "Runs keep the value of their start. 0: off.",
    )
    run_groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="+",
        verbose_name="groups that may run",
        help_text="Groups that may use the profile to run, create and describe experiments. Empty: everybody who may "
        "use the service.",
    )
    stop_groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="+",
        verbose_name="groups that may stop",
        help_text="Groups that may stop runs of the profile. Empty: the groups that may run.",
    )
    status_groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="+",
        verbose_name="groups that may set statuses",
        help_text="Groups that may use the profile to set the status of jobs. Empty: the groups that may run.",
    )
    view_groups = models.ManyToManyField(
        Group,
        blank=True,
        related_name="+",
        verbose_name="groups that may see",
        help_text="Groups that see runs of the profile and their logs. The person who started a run always sees it. "
        "Empty: everybody who may use the service.",
    )
    allowed_hosts = models.TextField(
        "allowed SSH hosts",
        blank=True,
        help_text="Allowed values of an open SSH.HOST: patterns, one per line, such as *.example.com. Empty: any.",
    )
    allowed_users = models.TextField(
        "allowed SSH users",
        blank=True,
        help_text="Allowed values of an open SSH.USER: patterns, one per line. {username} is the name of the person "
        "who asks, {accounts} the accounts that an admin has mapped to this person (Accounts of people); project_* "
        "applies to everybody. Empty: any account, so anybody can act as anybody.",
    )
    venv_roots = models.TextField(
        "directories of environments",
        blank=True,
        help_text="Allowed directories of an environment that is given by its path (VENV, and CONDA by path) if "
        "MODULES is open: absolute paths, one per line. Links are followed on the machine. Empty: any directory.",
    )

    class Meta:
        ordering = ["name"]
        verbose_name = "runner profile"

    def __str__(self) -> str:
        return self.name

    @classproperty
    def FIELDS(cls) -> dict[str, str]:
        """The name in forms and errors for each path of a parameter: mostly the model field that holds its value."""
        return {path: parameter.field_name for path, parameter in parameters.table().items()}

    @property
    def module_list(self) -> list[str]:
        """Return the modules in the order of loading."""
        lines = [line.strip() for line in self.modules.splitlines()]
        loader = parameters.loader_of({parameters.MODULE_LOADER_TYPE: self.module_loader_type})
        return list(loader.split(filter(None, lines)))

    def values(self) -> Values:
        """Return the fixed values by parameter path. Open parameters are absent."""
        values = {path: self._value(parameter) for path, parameter in parameters.table().items()}
        return {path: value for path, value in values.items() if value not in (None, "", ())}

    def _value(self, parameter: Parameter) -> Any:
        if parameter.path == parameters.MODULES:
            return tuple(self.module_list)
        value = getattr(self, parameter.column) if parameter.column else self.other_parameters.get(parameter.path)
        if parameter.type == "choice":
            return value if value in parameter.choices() else None
        return value if isinstance(value, int if parameter.type == "integer" else str) else None

    def set_values(self, values: Values) -> None:
        """Set the fixed values, in the form of `values`. Absent parameters become open."""
        rows = parameters.table()
        for path, parameter in rows.items():
            if path == parameters.MODULES:
                self.modules = "\n".join(values.get(path, ()))
            elif parameter.column:
                setattr(self, parameter.column, values.get(path, None if parameter.type == "integer" else ""))
        self.other_parameters = {path: value for path, value in values.items() if not rows[path].column}

    # Name in YAML: the model field that holds the groups of an action (ACCESS), or the patterns of a limit (LIMITS).
    ACCESS = {
        "RUN_GROUPS": "run_groups",
        "STOP_GROUPS": "stop_groups",
        "STATUS_GROUPS": "status_groups",
        "VIEW_GROUPS": "view_groups",
    }
    ACTIONS = ("run_groups", "stop_groups", "status_groups")
    LIMITS = {"HOSTS": "allowed_hosts", "USERS": "allowed_users", "VENV_ROOTS": "venv_roots"}

    @property
    def limits(self) -> Limits:
        """Return the limits of the open parameters."""
        return Limits(*(lines(text) for text in (self.allowed_hosts, self.allowed_users, self.venv_roots)))

    def access(self) -> dict[str, tuple[str, ...]]:
        """Return the sorted names of the groups of each action, by the names of ACCESS."""
        if not self.pk:
            return dict.fromkeys(self.ACCESS, ())
        return {name: tuple(sorted(g.name for g in getattr(self, field).all())) for name, field in self.ACCESS.items()}

    def permits(self, user: Any, field: str, own: set[int] | None = None) -> bool:
        """Return True if `user` (may be anonymous) is in a group of `field` (one of ACTIONS), or if it has no groups.

        If `stop_groups` or `status_groups` is empty, the fallback is `run_groups`. Superusers always pass. `own`: the
        primary keys of the user's groups, if the caller knows them.
        """
        if user.is_active and user.is_superuser:
            return True
        groups = {group.pk for group in getattr(self, field).all()}
        if not groups and field != "run_groups":
            groups = {group.pk for group in self.run_groups.all()}
        return not groups or bool(groups & (groups_of(user) if own is None else own))

    @classmethod
    def usable_by(cls, user: Any) -> list[RunnerProfile]:
        """Return the enabled profiles that `user` may use for at least one action, ordered by name."""
        rows = cls.objects.filter(enabled=True).prefetch_related(*cls.ACTIONS)
        own = groups_of(user)
        return [row for row in rows if any(row.permits(user, field, own) for field in cls.ACTIONS)]

    def clean(self) -> None:
        """Trim texts and check all rules, for admin, import and API. Raises ValidationError by model field."""
        for field in ("name", "ssh_host", "ssh_user", "installation"):
            setattr(self, field, getattr(self, field).strip())
        self.modules = "\n".join(self.module_list)
        for field in self.LIMITS.values():
            setattr(self, field, "\n".join(lines(getattr(self, field))))
        errors = {self.FIELDS[path]: texts for path, texts in parameters.validate(self.values()).items()}
        rules: list[tuple[str, Callable[[Any], None], object]] = [
            ("name", validators.validate_name, self.name),
            ("allowed_hosts", validate_patterns, self.limits.hosts),
            ("allowed_users", validate_user_patterns, self.limits.users),
            ("venv_roots", validate_roots, self.limits.venv_roots),
        ]
        if self.installation:
            rules.append(("installation", validate_installation, self.installation))
        for field, validate, value in rules:
            try:
                validate(value)
            except ValidationError as error:
                errors[field] = error.messages
        if errors:
            raise ValidationError(errors)

    @property
    def is_anybody(self) -> bool:
        """Return True if every user of the profile can act as any account of its machine."""
        return is_anybody(self.values(), self.limits)

    @property
    def warnings(self) -> list[str]:
        """Return warnings about the profile for admins. The admin, the import and the checks show them."""
        found = []
        if self.is_anybody:
            found.append(
                f"Anybody as anybody: {self.name} leaves SSH.USER open, so every person who may use it can act as "
                f"every account that accepts the key of the service. Bind it to the person who asks: manage.py "
                f"bind_profile {self.name}"
            )
        takes_local = any(RUNNERS[name].is_local for name in self._possible_runners())
        if takes_local and settings.RUNNERS_ALLOW_LOCAL:
            found.append(
                f"{self.name} leaves RUNNER_TYPE open, so every person who may use it can choose LOCAL and run "
                f"programs as the "
                "account of this service, which has its database and SSH key. Fix RUNNER_TYPE to SSH, or start the "
                "service with RUNNERS_ALLOW_LOCAL=0."
            )
        return found

    def _possible_runners(self) -> list[str]:
        """Return the runners that a request may choose: none if the profile fixes RUNNER_TYPE."""
        fixed = self.values()
        if parameters.RUNNER_TYPE in fixed:
            return []
        takers = [parameters.runners_with(parameters.table()[path]) for path in fixed]
        return [name for name in RUNNERS if all(name in names for names in takers)]

    def bind(self) -> None:
        """Bind an open SSH.USER to the person who makes the request. Does not save the row."""
        self.allowed_users = "\n".join(BOUND)

    def resolve(self, profile_params: object, person: Person | None = None) -> RunnerConfig:
        """Return the complete configuration for a request. Invalid `profile_params` of any kind raise InvalidProfile.

        `person`: see `profiles.people`; None means that nobody is signed in. Parameters fill open values and never
        overwrite fixed ones. Raises ForbiddenParameter for values that an admin does not allow.
        """
        fixed = self.values()
        config = parameters.resolve(self.name, fixed, profile_params)
        if RUNNERS[config.runner_type].is_local and not settings.RUNNERS_ALLOW_LOCAL:
            raise ForbiddenParameter({parameters.RUNNER_TYPE: ["This service does not allow LOCAL commands."]})
        config = limit(self.name, config, fixed, self.limits, person or Person())
        installation = installation_of(self.installation, config.target)
        return replace(config, installation=installation, silent_after=self.silent_after, profile_id=self.pk)

    def installations(self) -> re.Pattern[str]:
        """Return a pattern of the full names of all installations that the profile can give, for any request."""
        values = self.values()
        runner = RUNNERS.get(values.get(parameters.RUNNER_TYPE, ""))
        user, machine = runner.account(values) if runner else ("", "")
        return possible_installations(self.installation, user, machine)

    def as_wire(self) -> dict[str, Any]:
        """Return the form of GET configuration/profiles. RUNNER_TYPE SSH always has the member `SSH`, maybe empty."""
        wire: dict[str, Any] = {}
        runner = RUNNERS.get(self.runner_type)
        for parameter in runner.parameters if runner else ():
            wire.setdefault(parameter.section, {})
        for path, value in self.values().items():
            parameter = parameters.table()[path]
            if path == parameters.MODULES:
                value = value[0] if len(value) == 1 else list(value)
            for each in filter(None, (path, parameter.alias)):
                section, _, name = each.rpartition(".")
                (wire.setdefault(section, {}) if section else wire)[name] = value
        if self.installation:
            wire["INSTALLATION"] = self.installation
        if self.silent_after:
            wire["SILENT_AFTER"] = self.silent_after
        return wire

    def requirements(self) -> list[parameters.Requirement]:
        """Return the parameters that a request may or must give, with the values that an admin allows."""
        fixed = self.values()
        open_ones = parameters.requirements(fixed)
        add_limits(open_ones, fixed, self.limits)
        return open_ones


class DeletedProfile(models.Model):
    """The view groups of a deleted profile. Without such a row, everybody sees the runs of the deleted profile."""

    number = models.BigIntegerField(unique=True, help_text="The profile_id of its runs. Below 0: not known.")
    name = models.CharField(max_length=validators.MAX_NAME)
    view_groups = models.JSONField(
        default=list, help_text="The numbers of the groups. Empty: only the person who started a run."
    )

    class Meta:
        ordering = ["number"]

    def __str__(self) -> str:
        return f"{self.name} (deleted)"


def groups_of(user: Any) -> set[int]:
    """Return the primary keys of a user's groups; none for an anonymous or inactive user."""
    if not (user.is_authenticated and user.is_active):
        return set()
    return set(user.groups.values_list("pk", flat=True))


class EndpointToggle(models.Model):
    """The admin's switch of one command family. A family without a row is in the state that its Toggle starts in."""

    name = models.CharField(max_length=40, unique=True, choices=toggles.choices)
    enabled = models.BooleanField(default=True, help_text="Off: requests get 403, and today's GUI hides the controls.")

    class Meta:
        ordering = ["name"]
        verbose_name = "endpoint toggle"

    def __str__(self) -> str:
        return self.get_name_display()

    @classmethod
    def is_enabled(cls, name: str) -> bool:
        enabled = cls.objects.filter(name=name).values_list("enabled", flat=True).first()
        return toggles.toggles()[name].is_enabled if enabled is None else enabled

    @classmethod
    def states(cls) -> dict[str, bool]:
        """Return the state of all families by name, in the order of their definition."""
        rows = dict(cls.objects.values_list("name", "enabled"))
        return {name: rows.get(name, toggle.is_enabled) for name, toggle in toggles.toggles().items()}


class PublishedSSHKey(models.Model):
    """A public key that people add to their `authorized_keys`, so that the service may act as them."""

    line = models.CharField(
        "public key",
        max_length=validators.MAX_KEY,
        unique=True,
        validators=[validators.validate_public_key],
        help_text="The line of a .pub file, such as 'ssh-ed25519 AAAA... autosubmit-runners'. Everybody may see it.",
    )
    comment = models.CharField(
        max_length=200, blank=True, help_text="For admins only: the location of the private key."
    )

    class Meta:
        ordering = ["id"]
        verbose_name = "published SSH key"
        verbose_name_plural = "published SSH keys"
        permissions = (("manage_service_keys", "Can make, replace and retire the SSH keys of the service"),)

    def __str__(self) -> str:
        return self.line if len(self.line) <= 60 else f"{self.line[:30]}…{self.line[-25:]}"


class AccountMap(models.Model):
    """The accounts of one person on the machines, for profiles with `{accounts}` among their allowed users."""

    person = models.CharField(max_length=150, unique=True, help_text="The name that the person signs in with.")
    accounts = models.TextField(help_text="Accounts on the machines, one per line, such as abc012345.")

    class Meta:
        ordering = ["person"]
        verbose_name = "accounts of a person"
        verbose_name_plural = "accounts of people"

    def __str__(self) -> str:
        return f"{self.person}: {', '.join(lines(self.accounts))}"

    @classmethod
    def of(cls, person: str) -> AccountMap | None:
        """Return the row of a person, or None.

        Names that look the same belong to one person, because no two accounts have such names.
        """
        row = cls.objects.filter(person=person).first()
        if row:
            return row
        name = validators.canonical(person)
        return next((each for each in cls.objects.all() if validators.canonical(each.person) == name), None)

    def clean(self) -> None:
        self.person = self.person.strip()
        row = AccountMap.of(self.person)
        if row and row.pk != self.pk:
            raise ValidationError({"person": f"This name looks like {row.person}, who already has a row here."})
        self.accounts = "\n".join(lines(self.accounts))
        try:
            validate_accounts(lines(self.accounts))
        except ValidationError as error:
            raise ValidationError({"accounts": error.messages}) from None


class UserSettings(models.Model):
    """The settings that one person has made in the GUI."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="runner_settings")
    preferred_username = models.CharField(
        max_length=128,
        blank=True,
        validators=[validators.validate_preferred_username],
        help_text="Suggested by the GUI for an open SSH user.",
    )
    created = AutoDateTimeField(auto_now_add=True)
    modified = AutoDateTimeField(auto_now=True)

    class Meta:
        verbose_name = "user settings"
        verbose_name_plural = "user settings"

    def __str__(self) -> str:
        return f"settings of {self.user}"
