import pytest

from configs.default import get_config
from dicexmbd_jax.masks.settings import PRESETS, Settings, resolve_settings


def test_the_default_config_is_the_default_preset():
  assert resolve_settings(get_config().segment) == Settings()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_pass_their_own_check(name):
  assert resolve_settings({"preset": name}) == PRESETS[name]


def test_values_override_the_preset():
  config = get_config().segment
  config.preset = "dice_xmbd"
  config.scale = 1
  config.keeps_border = True
  settings = resolve_settings(config)
  assert (settings.scale, settings.keeps_border) == (1, True)
  assert settings.parts_cells


def test_every_setting_is_in_the_config():
  config = get_config().segment
  names = {name for name in config if name != "preset"}
  assert names == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("preset", "tight", "preset is 'tight', expected one of .*'touching'"),
    ("scale", 0, "scale is 0, expected at least 1"),
    ("scale", float("nan"), "scale is nan"),
    ("regularisation", 0.0, "regularisation is 0.0, expected at least 0.001"),
    ("threshold", "otsu", "threshold is 'otsu', expected 'cellprofiler3'"),
    ("map_scale", 2, "scale is 3, expected a multiple of map_scale 2"),
    ("colour", 1, "colour is unknown, expected one of"),
  ],
)
def test_wrong_settings_are_named(name, value, message):
  config = {"preset": "touching", "scale": 3, name: value}
  with pytest.raises(ValueError, match=f"config.segment.{message}"):
    resolve_settings(config)
