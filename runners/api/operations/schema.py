"""The OpenAPI descriptions of operations."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from runners.api.openapi.describe import log, reading
from runners.api.operations.serializers import OperationSerializer

get_operation_log = log("get_operation_log", "The log of an operation", ("operation_not_found",), "operations")
get_operation = reading(
    "get_operation",
    "One operation by its number",
    "An operation is a command that was sent with `Prefer: respond-async` or with an `Idempotency-Key`. Its machine "
    "is probed, unless it was just probed. While the operation is in progress, `Retry-After` has the time until the "
    "next request.",
    answer=OperationSerializer,
    codes=("operation_not_found",),
    tag="operations",
    headers=[
        OpenApiParameter(
            "Retry-After",
            OpenApiTypes.INT,
            OpenApiParameter.HEADER,
            response=[200],
            description="While it is in progress: seconds after which to ask again.",
        )
    ],
)
