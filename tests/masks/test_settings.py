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


def test_whole_numbers_will_do_for_lengths():
  assert resolve_settings({"distance_px": 5}).distance_px == 5


def test_every_setting_is_in_the_config():
  config = get_config().segment
  names = {name for name in config if name != "preset"}
  assert names == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("preset", "tight", "preset is 'tight', expected one of .*'touching'"),
    ("scale", 0, "scale is 0, expected at least 1"),
    ("scale", 1.5, "scale is 1.5, expected a whole number"),
    ("scale", True, "scale is True, expected a whole number"),
    ("block_px", "big", "block_px is 'big', expected a whole number"),
    ("distance_px", "far", "distance_px is 'far', expected a number"),
    ("distance_px", float("nan"), "distance_px is nan, expected at least 0"),
    ("distance_px", float("inf"), "distance_px is inf, expected at least 0"),
    ("declump_smoothing_px", -1, "declump_smoothing_px is -1, expected at"),
    ("keeps_border", 1, "keeps_border is 1, expected true or false"),
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
