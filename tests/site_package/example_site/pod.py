"""POD: a made-up cluster of containers. This machine stands in for each of its pods."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from django.core.exceptions import ValidationError

from profiles.parameter import Parameter, parse_integer
from profiles.target import Target
from runners.services.machines.exchange import Exchange
from runners.services.machines.local import LocalRunner
from runners.services.machines.runner import Runner


@dataclass(frozen=True, slots=True)
class PodTarget(Target):
    """A pod: `{"POD": {"NAME": ..., "ZONE": ...}}`."""

    section: ClassVar[str] = "POD"
    name: str
    zone: int

    @property
    def user(self) -> str:
        return "pod"

    @property
    def host(self) -> str:
        return f"{self.name}.zone{self.zone}"


def validate_name(value: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", value):
        raise ValidationError(f"{value!r:.60} is not the name of a pod.")


class PodRunner(Runner):
    """Commands in a pod."""

    name = "POD"
    label = "POD: a pod of the site's cluster"
    target_class = PodTarget
    parameters = (
        Parameter(
            "POD.NAME", "Pod", validate=validate_name, missing="The profile leaves open which pod", max_length=63
        ),
        Parameter(
            "POD.ZONE",
            "Zone of the pod",
            "integer",
            parse=parse_integer("zone", 1, 9),
            missing="The profile leaves open which zone",
            help="the zone of the cluster",
            minimum=1,
            maximum=9,
        ),
    )

    def exchange(self, exchange: Exchange) -> None:
        # A real runner would start the exchange's reader with `kubectl exec`.
        LocalRunner.exchange(self, exchange)
