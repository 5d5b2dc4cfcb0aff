"""The views of operations."""

from __future__ import annotations

from functools import partial

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from runners.api.base import ReadOnlyAPIView, query_of, viewer
from runners.api.logs import LogQuery, log_answer
from runners.api.long_commands import RETRY_AFTER
from runners.api.operations import schema
from runners.api.operations.serializers import OperationSerializer
from runners.services import logs, operations


class OperationView(ReadOnlyAPIView):
    @schema.get_operation
    def get(self, request: Request, id: int) -> Response:
        user = viewer(request)
        operation = operations.get(pk=id, viewer=user)
        headers = {"Retry-After": str(RETRY_AFTER)} if operation.is_active else {}
        return Response(OperationSerializer(operation, context={"viewer": user}).data, headers=headers)


class OperationLogView(ReadOnlyAPIView):
    @schema.get_operation_log
    def get(self, request: Request, id: int) -> HttpResponseBase:
        _, query = query_of(request, LogQuery)
        return log_answer(request, query, partial(logs.read, operations.get(pk=id, viewer=viewer(request))))
