"""How drf-spectacular describes our authentication and our fields."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "runners.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of this service (`asr_...`), or a JWT or the fixed token of the Autosubmit API.",
        }


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "runners.api.authentication.AdminSessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "Signed in to the admin."}


class TextScheme(OpenApiSerializerFieldExtension):
    """Describe StrictTextField with its pattern, so that generated clients and forms can validate before they send."""

    target_class = "runners.web.fields.StrictTextField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        field = self.target
        schema: dict[str, Any] = {"type": "string", "pattern": "^[^\\u0000]*$"}
        if field.max_length is not None:
            schema["maxLength"] = field.max_length
        if not field.allow_blank:
            schema["minLength"] = 1
        if field.pattern:
            text = field.pattern.pattern
            schema["pattern"] = f"^({text})?$" if field.allow_blank else f"^{text}$"
        return schema
