"""Bases of the systems' settings: how values are checked and presets are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from metatl.models import find_system

if TYPE_CHECKING:
    from typing_extensions import Self


class Setting(NamedTuple):
    """A setting of a system.

    Attributes
    ----------
    name : str
        As `--set NAME=VALUE` and the configs take it.
    default : object
        The value of `tuned`.
    description : str
        What it does.
    """

    name: str
    default: Any
    description: str


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


class PresetConfig(CheckedConfig):
    """Base of the settings of every system beside MetaTL; immutable, unknown fields are errors.

    `tuned` is the defaults, `paper` changes some of them.
    """

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


def settings_of(config_class: type[BaseModel]) -> list[Setting]:
    """List the settings of a system, as `metatl train --settings` and docs/settings.md show them.

    Parameters
    ----------
    config_class : type of pydantic.BaseModel
        The system's config class.

    Returns
    -------
    list of Setting
        Those of the system first, then those of its bases. A class that only changes a default keeps the
        description of its base.
    """
    descriptions: dict[str, str] = {}
    for base in config_class.__mro__:
        if issubclass(base, BaseModel):
            for name in base.__annotations__:
                if name in base.model_fields and not descriptions.get(name):
                    descriptions[name] = base.model_fields[name].description or ""
    return [
        Setting(name, config_class.model_fields[name].default, description)
        for name, description in descriptions.items()
    ]
