"""How a system's presets are given: `tuned` is its defaults, `paper` changes some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from metatl.models import find_system
from metatl.models.checked_config import CheckedConfig

if TYPE_CHECKING:
    from typing_extensions import Self


class PresetConfig(CheckedConfig):
    """Base of the settings of every system beside MetaTL; immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: ClassVar[str]
    """Name of the system in `metatl.models.SYSTEMS`."""
    paper: ClassVar[dict[str, Any]] = {}
    """What ``paper`` changes."""

    @classmethod
    def preset(cls, name: str) -> Self:
        """Give the settings of a preset.

        Raises
        ------
        ConfigError
            If there is no such preset; the message lists those that exist.
        """
        find_system(cls.system, name)
        return cls(**(cls.paper_settings() if name == "paper" else {}))

    @classmethod
    def paper_settings(cls) -> dict[str, Any]:
        """Fields of ``paper`` that differ from the defaults."""
        return cls.paper
