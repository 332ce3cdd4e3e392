"""Base classes of the systems' configs: validation of values, and presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from metatl.models import find_system

if TYPE_CHECKING:
    from typing_extensions import Self


_LONG, _WIDE, _DEEP = 10**9, 2**20, 1_000
LARGEST: dict[str, int] = {
    "max_steps": _LONG,
    "eval_every": _LONG,
    "warmup_steps": _LONG,
    "patience": _LONG,
    "neighbours": _LONG,
    "window": _LONG,
    "batch_size": 2**24,
    "dim": _WIDE,
    "hidden": _WIDE,
    "negatives": _WIDE,
    "shared_negatives": _WIDE,
    "shared_support_negatives": _WIDE,
    "max_length": _WIDE,
    "k": _WIDE,
    "dilations": _WIDE,
    "kernel_size": 10_000,
    "inner_steps": 10_000,
    "fold_in_steps": 10_000,
    "cross_fit_folds": 10_000,
    "layers": _DEEP,
    "blocks": _DEEP,
    "heads": _DEEP,
}
"""The largest value of every whole number in a config, far above any use: a run may come from a stranger, and
the time or the memory that it takes must have a bound. A tuple has at most 1,000 of them."""


class Setting(NamedTuple):
    """A setting of a system.

    Attributes
    ----------
    name : str
        Name of the config field, also used by `--set NAME=VALUE`.
    default : object
        Value in the preset `tuned`.
    description : str
        Description of the config field.
    """

    name: str
    default: Any
    description: str


class CheckedConfig(BaseModel):
    """Base of the configs of all systems.

    It rejects booleans for fields that are not booleans, and whole numbers above :data:`LARGEST`.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flags(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic converts true to 1. Its strict mode would also reject strings and lists, which the command
        # line and JSON files pass.
        values = value if isinstance(value, (list, tuple)) else [value]
        is_flag = cls.model_fields[str(info.field_name)].annotation is bool
        if not is_flag and any(isinstance(element, bool) for element in values):
            raise ValueError("true and false are for flags, and this field is not a flag")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_large(cls, value: Any, info: ValidationInfo) -> Any:
        most = LARGEST.get(str(info.field_name))
        if most is not None and value is not None:
            values = value if isinstance(value, tuple) else (value,)
            if max(values, default=0) > most:
                raise ValueError(f"expected at most {most}")
            if len(values) > _DEEP:
                raise ValueError(f"expected at most {_DEEP} numbers")
        return value


class PresetConfig(CheckedConfig):
    """Base of the configs of all systems except MetaTL; immutable, unknown fields are errors.

    The defaults are the preset `tuned`; the preset `paper` changes some of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: ClassVar[str]
    """Name of the system in `metatl.models.SYSTEMS`."""
    paper: ClassVar[dict[str, Any]] = {}
    """Fields of the preset ``paper`` that differ from the defaults."""

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return the config of a preset.

        Parameters
        ----------
        name : str
            Name of the preset.

        Raises
        ------
        ConfigError
            If the system has no such preset; the message lists the valid names.
        """
        find_system(cls.system, name)
        return cls(**(cls.paper_settings() if name == "paper" else {}))

    @classmethod
    def paper_settings(cls) -> dict[str, Any]:
        """Return the fields of ``paper`` that differ from the defaults."""
        return cls.paper


def settings_of(config_class: type[BaseModel]) -> list[Setting]:
    """List the settings of a system, for `metatl settings` and docs/settings.md.

    Parameters
    ----------
    config_class : type of pydantic.BaseModel
        The system's config class.

    Returns
    -------
    list of Setting
        The system's fields first, then those of its bases. A field that only overrides a default inherits
        the description.
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
