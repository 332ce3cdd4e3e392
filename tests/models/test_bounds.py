"""Every whole number of a config has an upper bound."""

from __future__ import annotations

import typing

import pytest
from pydantic import ValidationError

from metatl.models import SYSTEMS
from metatl.models.preset_config import LARGEST


def whole_numbers(config_class):
    """Names of the fields that hold whole numbers, and whether they hold several."""
    for name, field in config_class.model_fields.items():
        kinds = {field.annotation, *typing.get_args(field.annotation)}
        if int in kinds:
            yield name, typing.get_origin(field.annotation) is tuple


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=list(SYSTEMS))
def test_every_whole_number_has_a_bound(system):
    config_class = system.config_class()
    for name, is_tuple in whole_numbers(config_class):
        most = LARGEST[name]
        with pytest.raises(ValidationError, match=f"expected at most {most}"):
            config_class(**{name: (most + 1,) if is_tuple else most + 1})
        if is_tuple:
            with pytest.raises(ValidationError, match="expected at most 1000 numbers"):
                config_class(**{name: (1,) * 1001})
