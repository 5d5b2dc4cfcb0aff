"""Machines: which of them answer, and their maintenance."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from runners.api.base import CommandViewSet
from runners.api.machines import schema
from runners.api.machines.serializers import AnnounceRequest
from runners.exceptions import NotPermitted
from runners.models import TokenScope
from runners.services import machine_list, maintenance


def fields_of(machine: machine_list.SeenMachine) -> dict[str, Any]:
    row = machine.row
    error = {
        "code": row.last_error_code,
        "title": machine.error_words,
        "at": row.last_error_at,
    }
    return {
        "name": machine.name,
        "state": machine.state,
        "since": machine.since,
        "last_answer": row.last_answer,
        "last_error": error if row.last_error_at else None,
        "profiles": machine.profiles,
        "active_runs": len(machine.runs),
        "maintenance": [maintenance.fields_of(each) for each in machine.maintenance],
    }


class MachinesView(APIView):
    @schema.list_machines
    def get(self, request: Request) -> Response:
        return Response({"machines": [fields_of(each) for each in machine_list.machines_for(request.user)]})


class MachineViewSet(CommandViewSet):
    """Commands of admins: besides the scope, they need a permission of Django."""

    required_scope = TokenScope.MANAGE
    holds_changes = True
    permission = ""

    def machine(self, request: Request, name: str) -> str:
        """Return the machine that is meant, if the person may see it. Raises NotPermitted, MachineNotFound."""
        self.audit.detail = name[:100]
        user: Any = request.user
        if not user.has_perm(self.permission):
            raise NotPermitted(f"This needs the permission {self.permission}. Ask an admin.")
        return machine_list.machine_for(user, machine_list.known_name(name)).name


class AnnounceMaintenance(MachineViewSet):
    serializer_class = AnnounceRequest
    command = "announce-maintenance"
    permission = "runners.add_maintenance"

    @schema.announce_maintenance
    def announce(self, request: Request, name: str) -> Response:
        data = self.validated(request)
        row = maintenance.announce(machine=self.machine(request, name), **data, audit=self.audit)
        return Response(maintenance.fields_of(row))


class EndMaintenance(MachineViewSet):
    audited = ("DELETE",)
    command = "end-maintenance"
    permission = "runners.delete_maintenance"

    @schema.end_maintenance
    def end(self, request: Request, name: str, id: int) -> Response:
        row = maintenance.end(pk=id, machine=self.machine(request, name), audit=self.audit)
        return Response({"message": f"The maintenance of {row.machine} is over."})


class ForgetMachine(MachineViewSet):
    audited = ("DELETE",)
    command = "forget-machine"
    permission = "runners.delete_machine"

    @schema.forget_machine
    def forget(self, request: Request, name: str) -> Response:
        machine = self.machine(request, name)
        machine_list.forget(name=machine, user=request.user, audit=self.audit)
        return Response({"message": f"{machine} is forgotten."})
