"""Places outside the experiment: folders, hub names, servers."""

from __future__ import annotations

import os
import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*([A-Za-z_]\w*)\s*(?:,\s*([^{}]*?)\s*)?\}")
"""`${oc.env:NAME}` or `${oc.env:NAME, used when NAME is not set}`."""


class Address(str):
    """A path, hub name or URL. It may refer to the environment, and keeps doing so when written.

    So neither the resolved experiment nor the tracker ever holds a password.
    """

    def resolved(self) -> str:
        """The address with the environment's values put in.

        Raises:
            ValueError: if a variable is not set and has no value to fall back on.
        """

        def look_up(match: re.Match[str]) -> str:
            name, fallback = match.groups()
            value = os.environ.get(name, fallback)
            if value is None:
                raise ValueError(
                    f"{str(self)!r} needs the environment variable {name}, which is not set. "
                    f"Set it, or give a fallback: ${{oc.env:{name},some/path}}."
                )
            return value

        return ENVIRONMENT.sub(look_up, self)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1)
        return core_schema.no_info_after_validator_function(
            cls, text, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )
