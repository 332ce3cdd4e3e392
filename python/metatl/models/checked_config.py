"""What the settings of all systems have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationInfo, field_validator


class CheckedConfig(BaseModel):
    """Base of the settings of every system: true is no number."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flags(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic takes true for 1, and its strict mode refuses the text and the lists that settings come as.
        values = value if isinstance(value, (list, tuple)) else [value]
        is_flag = cls.model_fields[str(info.field_name)].annotation is bool
        if not is_flag and any(isinstance(one, bool) for one in values):
            raise ValueError("true and false are for flags, and this is none")
        return value
