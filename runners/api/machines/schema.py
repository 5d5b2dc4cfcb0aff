"""The OpenAPI descriptions of machines."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema

from runners.api.machines.serializers import (
    AnnounceRequest,
    MachineForgotten,
    MachinesAnswer,
    MaintenanceEnded,
    MaintenanceSerializer,
)
from runners.api.openapi.describe import COMMON, READING, problems, reading

TAG = "machines"
_NAME = OpenApiParameter(
    "name",
    OpenApiTypes.STR,
    OpenApiParameter.PATH,
    description="The name of the machine, as list_machines gives it. An alias of the SSH configuration works, too.",
)

list_machines = reading(
    "list_machines",
    "List the machines",
    "The machines of the profiles that you may use and of active runs that you see; staff see all. The states are "
    "those of the last contact: no machine is asked.",
    answer=MachinesAnswer,
    tag=TAG,
)

announce_maintenance = extend_schema(
    operation_id="announce_maintenance",
    summary="Announce a maintenance of a machine",
    description="From `starts` to `ends`, commands that start or change something on the machine get 503 "
    "`machine_in_maintenance` with the text. Active runs continue, and can be read and stopped. Needs the permission "
    "to add a maintenance, and a token with the scope `manage` or a session of staff.",
    tags=[TAG],
    parameters=[_NAME],
    request=AnnounceRequest,
    responses={200: MaintenanceSerializer, **problems(*COMMON, "machine_not_found")},
)

end_maintenance = extend_schema(
    operation_id="end_maintenance",
    summary="End a maintenance of a machine",
    description="Ends it now, or withdraws one that has not begun. Needs the permission to delete a maintenance, and a "
    "token with the scope `manage` or a session of staff.",
    tags=[TAG],
    parameters=[_NAME],
    request=None,
    responses={
        200: MaintenanceEnded,
        **problems(*READING, "permission_denied", "machine_not_found", "maintenance_not_found"),
    },
)

forget_machine = extend_schema(
    operation_id="forget_machine",
    summary="Forget a machine",
    description="Removes what the service knows of a machine that it does not use any more: its state and its "
    "announcements. Runs, the audit log and trusted host keys stay. 409 `machine_in_use` if a profile leads there, or "
    "if active runs are there. Needs the permission to delete a machine, and a token with the scope `manage` or a "
    "session of staff.",
    tags=[TAG],
    parameters=[_NAME],
    request=None,
    responses={
        200: MachineForgotten,
        **problems(*READING, "permission_denied", "machine_not_found", "machine_in_use"),
    },
)
