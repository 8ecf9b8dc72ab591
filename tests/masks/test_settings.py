import pytest

from configs.default import get_config
from dicexmbd_jax.masks.settings import (
  PRESETS,
  Settings,
  find_map_scale,
  fit_to_pixels,
  resolve_settings,
)


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


@pytest.mark.parametrize(
  ("size_um", "map_scale"), [(2.0, 1), (1.0, 1), (0.7, 1), (0.54, 2), (0.25, 4)]
)
def test_map_scale_is_that_of_the_networks_pixels(size_um, map_scale):
  assert find_map_scale(size_um) == map_scale
  section = get_config().segment
  fitted = resolve_settings({**fit_to_pixels(section, size_um), "scale": 4})
  assert fitted.map_scale == map_scale
  section.map_scale = 1
  assert fit_to_pixels(section, size_um)["map_scale"] == 1


def test_construction_checks_and_makes_floats():
  assert isinstance(Settings(distance_px=5).distance_px, float)
  with pytest.raises(ValueError, match="config.segment.scale: found 0"):
    Settings(scale=0)


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("preset", "tight", "preset: found 'tight', expected 'dice_xmbd', "),
    (
      "preset",
      1,
      "preset: found 1, expected 'dice_xmbd', 'steinbock' or 'touch",
    ),
    ("scale", 0, "scale: found 0, expected a whole number of 1 or more"),
    ("scale", 1.5, "scale: found 1.5, expected a whole number"),
    ("scale", True, "scale: found True, expected a whole number"),
    ("block_px", "big", "block_px: found 'big', expected a whole number"),
    ("distance_px", "far", "distance_px: found 'far', expected a number of 0"),
    ("distance_px", float("nan"), "distance_px: found nan, expected a number"),
    ("distance_px", float("inf"), "distance_px: found inf, expected a number"),
    ("declump_smoothing_px", -1, "declump_smoothing_px: found -1, expected a"),
    (
      "min_nucleus_threshold",
      2,
      "min_nucleus_threshold: found 2, expected a number from 0 to 1",
    ),
    ("keeps_border", 1, "keeps_border: found 1, expected true or false"),
    (
      "regularisation",
      0.0,
      "regularisation: found 0.0, expected a number of 0.",
    ),
    (
      "threshold",
      "otsu",
      "threshold: found 'otsu', expected 'cellprofiler3' or",
    ),
    ("map_scale", 2, "scale: found 3, expected a multiple of map_scale 2"),
    ("colour", 1, "colour: found no such value, expected one of"),
  ],
)
def test_wrong_settings_are_named(name, value, message):
  config = {"preset": "touching", "scale": 3, name: value}
  with pytest.raises(ValueError, match=f"config.segment.{message}"):
    resolve_settings(config)
