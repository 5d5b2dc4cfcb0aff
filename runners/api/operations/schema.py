"""The OpenAPI descriptions of operations."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from runners.api.openapi.describe import log, reading
from runners.api.operations.serializers import OperationSerializer

get_operation_log = log("get_operation_log", "The log of an operation", "operation_not_found", "operations")
get_operation = reading(
    "get_operation",
    "One operation by its number",
    "An operation is a command that was sent with `Prefer: respond-async`, or that was sent with an `Idempotency-Key`. "
    "Its machine is asked, unless it has just been asked. While it goes on, `Retry-After` says when to ask again.",
    answer=OperationSerializer,
    codes=("operation_not_found",),
    tag="operations",
    headers=[
        OpenApiParameter(
            "Retry-After",
            OpenApiTypes.INT,
            OpenApiParameter.HEADER,
            response=[200],
            description="While it goes on: seconds after which to ask again.",
        )
    ],
)
