"""Settings of the service, and how they reach its worker processes."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_VARIABLE = "METATL_SERVE"
"""The environment variable that holds the settings as JSON: a spawned worker gets nothing else."""


class ServiceSettings(BaseModel):
    """Settings of the service; immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(description="Directory of the run.")
    items: str | None = Field(
        default=None, description="Table of the items: id, title, picture, any columns."
    )
    item_table: Literal["float32", "bf16", "int8"] | None = Field(
        default=None, description="Number format of the item vectors."
    )
    approximate: bool = Field(default=False, description="Approximate lists, in large catalogues.")
    threads: Annotated[int, Field(ge=1)] | None = Field(default=1, description="Threads of each worker.")
    max_body_bytes: int = Field(default=2**20, ge=1, description="Largest body of a request, in bytes.")
    max_histories: int = Field(default=1000, ge=1, description="Most histories in a request.")
    max_items: int = Field(default=1000, ge=1, description="Most items in a history, a list or an answer.")
    rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Requests a second of one client; None for no limit."
    )
    timeout: float = Field(default=10.0, gt=0, description="Seconds until a request is given up.")
    reload_seconds: float = Field(
        default=1.0, gt=0, description="Seconds between looks at the run's directory."
    )

    def export(self) -> None:
        """Put the settings where :meth:`from_environment` of a worker finds them."""
        os.environ[_VARIABLE] = self.model_dump_json()

    @classmethod
    def from_environment(cls) -> ServiceSettings:
        """Read the settings that the parent process exported."""
        return cls.model_validate_json(os.environ[_VARIABLE])
