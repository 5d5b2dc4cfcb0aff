"""The body of the error responses."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from runners.api.machines.serializers import MaintenanceSerializer
from runners.api.runs.serializers import ForeignRunSerializer, RunSerializer, StopStep
from runners.models import Operation
from runners.services import access, operations
from runners.web.problems import problem, problem_type_of


class RunChoice(serializers.Serializer[Any]):
    """One of several active runs that a stop may mean."""

    runner_id = serializers.IntegerField(help_text="The number of the run.")
    profile_name = serializers.CharField(allow_blank=True)
    installation = serializers.CharField()
    user = serializers.CharField(allow_blank=True, help_text="The account that runs it.")
    host = serializers.CharField(allow_blank=True, help_text="The host name of the machine it runs on.")
    started_by = serializers.CharField(allow_blank=True)
    created = serializers.DateTimeField()


class Problem(serializers.Serializer[Any]):
    """Every error, as RFC 9457 says, with `detail` and `error_message` as today's clients read them.

    More members may be present, such as `exit_code` and `output` (command_failed) or `run` (already_running).
    """

    type = serializers.CharField(help_text="A reference to the explanation of `code`.")
    title = serializers.CharField(help_text="The meaning of `code`.")
    status = serializers.IntegerField(help_text="The HTTP status.")
    detail = serializers.CharField(help_text="The problem and the remedy. Always text.")
    code = serializers.CharField(help_text="Stable, for programs.")
    error = serializers.BooleanField(help_text="Always true.")
    error_message = serializers.CharField(help_text="The same as detail.")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="The errors of each rejected member, by its path, such as command_params.final_status.",
    )
    exit_code = serializers.IntegerField(required=False, allow_null=True, help_text="Exit code of the failed command.")
    error_code = serializers.IntegerField(
        required=False, allow_null=True, help_text="Autosubmit's own error code, its [eCode=N]."
    )
    output = serializers.CharField(required=False, help_text="The last lines of output of the failed command.")
    host = serializers.CharField(required=False, help_text="The machine that the error is about.")
    key_type = serializers.CharField(required=False, help_text="The type of its host key (host_key_unknown, _changed).")
    fingerprint = serializers.CharField(
        required=False, help_text="Fingerprint of the host key that the machine presents."
    )
    trusted_fingerprint = serializers.CharField(required=False, help_text="Fingerprint of the trusted key.")
    choices = RunChoice(many=True, required=False, help_text="The possible runs (ambiguous), at most 50.")
    run = RunSerializer(required=False, help_text="The active run, or the last one.")
    run_id = serializers.IntegerField(
        required=False, help_text="The run that may have been started, or is still alive."
    )
    foreign = ForeignRunSerializer(required=False, help_text="The process that runs the experiment (foreign_run).")
    counts = serializers.DictField(
        child=serializers.IntegerField(), required=False, help_text="Number of jobs by status, and in total."
    )
    line = serializers.IntegerField(required=False, help_text="Where a file is malformed, beginning with 1.")
    column = serializers.IntegerField(required=False, help_text="The same within its line.")
    etag = serializers.CharField(required=False, help_text="The ETag of the file now (precondition_failed).")
    digest = serializers.CharField(
        required=False, help_text="The digest of the content that may have been written (outcome_unknown)."
    )
    machine = serializers.CharField(required=False, help_text="machine_busy: the account of the machine.")
    maintenance = MaintenanceSerializer(required=False, help_text="machine_in_maintenance: what was announced.")
    requests = serializers.IntegerField(required=False, help_text="machine_busy: number of requests that use it.")
    of_your_profile = serializers.IntegerField(required=False, help_text="Number of them with the same profile.")
    of_yours = serializers.IntegerField(required=False, help_text="Number of them from the caller.")
    profile_name = serializers.CharField(required=False, allow_blank=True, help_text="The profile of the request.")
    operation_id = serializers.IntegerField(required=False, help_text="The operation that is not finished yet.")
    steps = StopStep(many=True, required=False, help_text="The steps of the stop (errors of stop-experiment).")

    def get_attribute(self, instance: Operation) -> dict[str, Any] | None:
        """Return the member `error` of an operation."""
        error = operations.error_of(instance)
        problem_type = problem_type_of(error) if error else None
        if error is None or problem_type is None:
            return None
        user = self.context["viewer"]
        extra = {name: value for name, value in access.facts_for(user, error).items() if name != "retry_after"}
        return problem(problem_type, access.detail_for(user, error), errors=getattr(error, "errors", None), **extra)

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        """Return the body unchanged: `problem` has built it."""
        return instance
