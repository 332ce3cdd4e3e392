"""`metatl settings`, and the page that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from metatl.cli.metatl.main import main
from metatl.models import SYSTEMS
from metatl.models.preset_config import settings_of

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=list(SYSTEMS))
def test_every_setting_is_described(system):
    config = system.config_class().preset("tuned")
    settings = settings_of(type(config))
    assert len(settings) == len(type(config).model_fields)
    assert {setting.name: setting.default for setting in settings} == dict(config)
    assert all(setting.description.endswith(".") for setting in settings)


def test_the_command_gives_the_value_of_each_preset():
    result = CliRunner().invoke(main, ["settings"])
    assert result.exit_code == 0
    assert "inner_lr = 5.0 (tuned), 5.0 (official), 0.01 (paper)\n" in result.stdout


def test_an_unknown_system_is_one_line():
    result = CliRunner().invoke(main, ["settings", "--model", "bogus"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "model: found 'bogus', expected one of metatl, " in result.stderr


def test_the_page_is_up_to_date():
    result = CliRunner().invoke(main, ["settings", "--markdown"])
    assert PAGE.read_text(encoding="utf-8") == result.stdout
