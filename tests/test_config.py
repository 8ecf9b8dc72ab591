"""Where a run's configuration comes from, and what is refused."""

import json

import pytest
from ml_collections import ConfigDict

from configs import default, robust
from dicexmbd_jax import config as config_lib


@pytest.fixture
def base():
  """The default configuration as a model folder gives it back."""
  config = default.get_config()
  return ConfigDict(json.loads(config.to_json()))


def test_arguments_are_split():
  rest, file, overrides = config_lib.split_arguments(
    [
      "--images=a",
      "--config=b.py",
      "--config.segment.scale=1",
      "--config.model.dtype",
      "bfloat16",
      "-overwrite",
    ]
  )
  assert rest == ["--images=a", "-overwrite"]
  assert file == "b.py"
  assert overrides == {"segment.scale": 1, "model.dtype": "bfloat16"}


def test_an_override_without_value_is_refused():
  with pytest.raises(ValueError, match=r"--config.seed: found no value"):
    config_lib.split_arguments(["--config.seed", "--images=a"])


def test_an_override_that_is_no_value_is_refused():
  with pytest.raises(ValueError, match=r"--config.seed: found '\[1'"):
    config_lib.split_arguments(["--config.seed=[1"])


def test_single_values_override_the_file_and_the_file_the_weights(
  base, tmp_path
):
  (tmp_path / "mine.py").write_text(
    "from configs import default\n"
    "def get_config():\n"
    "  config = default.get_config()\n"
    "  config.segment.scale = 4\n"
    "  config.predict.tile_px = 640\n"
    "  return config\n"
  )
  base.segment.scale = 3
  found = config_lib.resolve_config(
    base, tmp_path / "mine.py", {"predict.tile_px": 1024}
  )
  assert found.segment.scale == 4
  assert found.predict.tile_px == 1024
  assert base.segment.scale == 3


def test_a_named_preset_drops_the_values_fitted_to_the_weights(base):
  base.segment.cell_correction = 1.4
  kept = config_lib.resolve_config(base, None, {"segment.scale": 1})
  assert kept.segment.cell_correction == 1.4
  named = config_lib.resolve_config(
    base, None, {"segment.preset": "dice_xmbd", "segment.scale": 1}
  )
  assert named.segment.cell_correction is None
  assert named.segment.scale == 1


def test_a_section_changes_the_values_that_it_has(base):
  base.segment.cell_correction = 1.4
  found = config_lib.resolve_config(base, None, {"segment": {"scale": 1}})
  assert found.segment.cell_correction == 1.4
  assert found.segment.scale == 1
  named = config_lib.resolve_config(
    base, None, {"segment": {"preset": "dice_xmbd", "scale": 1}}
  )
  assert named.segment.cell_correction is None


def write_config(path, values):
  path.write_text(
    "from ml_collections import ConfigDict\n"
    f"def get_config():\n  return ConfigDict({values!r})\n"
  )
  return path


def test_a_preset_that_a_file_names_drops_the_fitted_values(base, tmp_path):
  base.segment.cell_correction = 1.4
  named = write_config(
    tmp_path / "a.py", {"segment": {"preset": "dice_xmbd", "scale": 2}}
  )
  found = config_lib.resolve_config(base, named, {})
  assert found.segment.preset == "dice_xmbd"
  assert found.segment.cell_correction is None
  assert found.segment.scale == 2
  other = write_config(tmp_path / "b.py", {"segment": {"scale": 2}})
  found = config_lib.resolve_config(base, other, {})
  assert found.segment.cell_correction == 1.4


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"segment": {"scales": 1}}, r"found config.segment.scales, expected one "
     r"of aligns_corners, .*scale"),
    ({"segmnt": {"scale": 1}}, r"found config.segmnt, expected one of image"),
    ({"image": {"hot_pixel_counts": False}}, "config.image.hot_pixel_counts: "
     "found False, expected a number of 0 or more"),
    ({"predict": {"tile_px": "wide"}}, "config.predict.tile_px: found 'wide', "
     "expected a whole number of 0 or more"),
  ],
)  # fmt: skip
def test_a_file_with_wrong_names_or_types_is_refused(
  base, tmp_path, values, message
):
  path = write_config(tmp_path / "mine.py", values)
  with pytest.raises(ValueError, match=message) as caught:
    config_lib.resolve_config(base, path, {})
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_file_may_have_all_that_the_default_has(base, tmp_path):
  old = ConfigDict({k: v for k, v in base.items() if k != "train"})
  path = tmp_path / "mine.py"
  path.write_text("from configs.default import get_config\n")
  config_lib.resolve_config(old, path, {})


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("segment.nothing", 1, "expected one of aligns_corners"),
    ("nothing.scale", 1, "expected one of image"),
    ("segment", 5, "config.segment: found 5, expected a section"),
    ("seed", "x", "config.seed: found 'x', expected a whole number of 0 or"),
    ("seed", -1, "config.seed: found -1, expected a whole number of 0 or more"),
    (
      "predict.tile_px",
      "wide",
      "config.predict.tile_px: found 'wide', expected "
      "a whole number of 0 or more",
    ),
    ("predict.tile_px", 512.0, "tile_px: found 512.0, expected a whole number"),
    (
      "predict.tile_px",
      200,
      "config.predict.tile_px: found 200, expected a multiple of 16",
    ),
    ("predict.tile_px", 192, "config.predict.tile_px: found 192, .* above 192"),
    (
      "predict.batch_size",
      -1,
      "batch_size: found -1, expected a whole number of 0",
    ),
    ("predict.views", 2, "config.predict.views: found 2, expected 1, 4 or 8"),
    ("image.hot_pixel_counts", False, "counts: found False, expected a number"),
    ("image.clip_percentile", True, "percentile: found True, expected a numb"),
    ("segment.min_nucleus_peak", True, "peak: found True, expected a number"),
    (
      "segment",
      {"min_nucleus_peak": 2},
      "peak: found 2, expected a number fro",
    ),
    ("segment", {"nothing": 2}, "config.segment.nothing: found no such value"),
    ("predict.views", True, "predict.views: found True, expected 1, 4 or 8"),
    ("image.preset", "papr", "image.preset: found 'papr', expected 'paper' or"),
    ("image.pixel_size_um", -1.0, "found -1.0, expected a number from 0.05 to"),
    ("image.clip_percentile", 0, "found 0.*, expected a number above 0, up to"),
    ("image.hot_pixel_counts", float("nan"), "found nan, expected a number of"),
    (
      "model.depth",
      99,
      "model.depth: found 99, expected a whole number from 0",
    ),
    ("segment.scale", "two", "segment.scale: found 'two', expected a whole"),
  ],
)
def test_wrong_overrides_are_refused(base, name, value, message):
  # The same line whether the base is the code's or a model folder's.
  for start in (base, default.get_config()):
    with pytest.raises(ValueError, match=message) as caught:
      config_lib.resolve_config(start, None, {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("section", "name", "value", "message"),
  [
    ("image", "preset", None, "config.image.preset: found None, expected 'pap"),
    (
      "model",
      "width",
      "16",
      "config.model.width: found '16', expected a whole",
    ),
    (
      "predict",
      "views",
      [],
      r"config.predict.views: found \[\], expected 1, 4",
    ),
    (
      "segment",
      "scale",
      {},
      "config.segment.scale: found .*, expected a whole",
    ),
    (
      "image",
      "colour",
      1,
      "config.image.colour: found no such value, expected",
    ),
  ],
)
def test_a_model_of_impossible_values_is_refused(
  base, tmp_path, section, name, value, message
):
  values = base.to_dict()
  values[section][name] = value
  (tmp_path / "config.json").write_text(json.dumps(values))
  with pytest.raises(ValueError, match=f"^{tmp_path}: {message}"):
    config_lib.read_model_config(tmp_path)


def test_a_model_that_lacks_values_or_a_section_is_refused(base, tmp_path):
  values = base.to_dict()
  del values["image"]["preset"]
  (tmp_path / "config.json").write_text(json.dumps(values))
  with pytest.raises(ValueError, match="image.preset: found nothing, expected"):
    config_lib.read_model_config(tmp_path)
  del values["image"]
  (tmp_path / "config.json").write_text(json.dumps(values))
  with pytest.raises(
    ValueError, match="config.image: found None, expected a s"
  ):
    config_lib.read_model_config(tmp_path)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "found no file"),
    ("x = 1", "expected a function get_config"),
    ("def get_config(:", "found SyntaxError"),
    ("import nothing_like_this", "found ModuleNotFoundError"),
    ("def get_config():\n  return {}.trian", "found AttributeError: .*trian"),
    ("def get_config():\n  pass", "returns NoneType, expected a ConfigDict"),
  ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
  path = tmp_path / "mine.py"
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=message):
    config_lib.read_config_file(path)


def test_another_network_than_the_trained_one_is_refused(base):
  asked = base.copy_and_resolve_references()
  asked.model.dtype = "bfloat16"
  config_lib.check_model_section(asked, base)
  asked.model.width = 64
  with pytest.raises(ValueError, match="found 64, expected 16"):
    config_lib.check_model_section(asked, base)


def test_the_hash_tells_values_apart_and_ignores_their_order(base):
  other = ConfigDict(dict(reversed(list(base.to_dict().items()))))
  assert config_lib.hash_config(base) == config_lib.hash_config(other)
  other.segment.scale = 7
  assert config_lib.hash_config(base) != config_lib.hash_config(other)


def test_the_shipped_weights_carry_the_configuration_of_their_recipe():
  shipped = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
  recipe = json.loads(robust.get_config().to_json())
  for section in ("image", "model", "predict", "segment"):
    assert shipped[section].to_dict() == recipe[section], section


def test_numbers_may_be_written_without_a_point():
  assert config_lib.read_value("config.train.learning_rate", "1e-3") == 1e-3
  assert config_lib.read_value("config.name", "e3") == "e3"


@pytest.mark.parametrize("text", ["(2.0, 1.0,1.0)", "[2.0, 1.0, 1.0]"])
def test_tuples_can_be_given(base, text):
  name = "train.loss.class_weights"
  for start in (base, default.get_config()):
    value = config_lib.read_value(name, text)
    config = config_lib.resolve_config(start, None, {name: value})
    assert tuple(config.train.loss.class_weights) == (2.0, 1.0, 1.0)


def test_models_from_before_there_were_views_use_one(tmp_path):
  config = default.get_config()
  del config.predict.views
  (tmp_path / "config.json").write_text(config.to_json_best_effort())
  assert config_lib.read_model_config(tmp_path).predict.views == 1


def test_a_run_means_its_best_model(tmp_path):
  find = config_lib.find_model
  assert find(tmp_path) == tmp_path
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(ValueError, match="run without best/, expected"):
    find(tmp_path)
  (tmp_path / "best").mkdir()
  with pytest.raises(ValueError, match="run without best/"):
    find(tmp_path)  # It is being written.
  (tmp_path / "best" / "config.json").touch()
  assert find(tmp_path) == tmp_path / "best"
  assert find(tmp_path / "best") == tmp_path / "best"
  assert find(tmp_path / "last") == tmp_path / "last"


def test_records_can_be_added_under_a_new_name(base):
  base.train = {"data": {"first": {"path": "a", "weight": 2.0}}}
  overrides = {"train.data.new.weight": 3.0, "train.data.new.path": "b"}
  found = config_lib.resolve_config(base, None, overrides).train.data
  assert found.first.path == "a"
  assert found.new.to_dict() == {"path": "b", "weight": 3.0}
  with pytest.raises(ValueError, match="train.data.nwe.weight: found no such"):
    config_lib.resolve_config(base, None, {"train.data.nwe.weight": 0.0})
