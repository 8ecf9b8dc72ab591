import types

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as pillow

from configs.default import get_config
from dicexmbd_jax.commands import teach_rank
from dicexmbd_jax.io import write
from dicexmbd_jax.report import strip
from dicexmbd_jax.teach import annotations

SHAPE = (30, 40)


def write_maps(folder, **levels):
  """Maps that are flat but for a square that is highly uncertain."""
  for stem, level in levels.items():
    unsure = np.full(SHAPE, level, np.float32)
    unsure[12:20, 16:24] = 1
    write.write_uncertainty(folder / "maps" / f"{stem}.tiff", unsure)


@pytest.fixture
def folder(tmp_path):
  """Three images that are the two channels themselves, and their maps."""
  generator = np.random.default_rng(0)
  for stem in "abc":
    stack = generator.poisson(8, (*SHAPE, 2)).astype(np.float32)
    path = tmp_path / "img" / f"{stem}.ome.tiff"
    write.write_stack(path, stack, ["nuclear", "membrane"])
  write_maps(tmp_path, a=0.2, b=0.6, c=0.4)
  return tmp_path


def make_flags(folder, **overrides):
  flags = {
    "uncertainty_maps": str(folder / "maps"),
    "images": str(folder / "img"),
    "panel": None,
    "annotations": None,
    "output": str(folder / "rank"),
    "num_images": 2,
    "num_crops": 2,
    "crop_px": 8,
    "config": get_config(),
  }
  return types.SimpleNamespace(**(flags | overrides))


def test_the_most_uncertain_images_come_next(folder):
  assert teach_rank.run(make_flags(folder)) == 0
  output = folder / "rank" / "round_01"
  ranking = pd.read_csv(output / "ranking.csv")
  assert list(ranking["image"]) == ["b", "c", "a"]
  assert ranking["change"].isna().all()
  templates = sorted(path.name for path in (output / "templates").iterdir())
  assert templates == ["b.tiff", "c.tiff"]
  regions = pd.read_csv(output / "regions.csv")
  assert list(regions["image"]) == ["b", "b", "c", "c"]
  first = regions.iloc[0]
  assert (first["y_px"], first["x_px"]) == (12, 16)
  assert first["uncertainty"] == 1


def test_templates_are_empty_annotations_of_the_images_size(folder):
  teach_rank.run(make_flags(folder))
  path = folder / "rank" / "round_01" / "templates" / "b.tiff"
  template = tifffile.imread(path)
  assert template.dtype == np.uint8
  assert template.shape == SHAPE
  assert not template.any()


@pytest.mark.parametrize("name", ["b.tiff", "b_labels.tiff"])
def test_templates_keep_what_was_drawn(folder, name):
  strokes = np.zeros(SHAPE, np.uint8)
  strokes[4, 5:9] = 2
  write.write_strokes(folder / "strokes" / name, strokes)
  flags = make_flags(folder, annotations=str(folder / "strokes"))
  assert teach_rank.run(flags) == 0
  path = folder / "rank" / "round_01" / "templates" / "b.tiff"
  np.testing.assert_array_equal(tifffile.imread(path), strokes)


def test_previews_show_tissue_and_uncertainty(folder):
  teach_rank.run(make_flags(folder))
  path = folder / "rank" / "round_01" / "crops" / "b_y12_x16.png"
  picture = np.asarray(pillow.open(path).convert("RGB"))
  assert picture.shape == (32, 2 * 32 + strip.PREVIEW_GAP_PX, 3)
  assert (picture[:, -32:] == 255).all()
  assert picture[:, :32].std() > 0


def test_maps_at_twice_the_scale_give_the_images_pixels(folder):
  unsure = np.full((60, 80), 0.7, np.float32)
  unsure[24:40, 32:48] = 1
  write.write_uncertainty(folder / "maps" / "b.tiff", unsure)
  assert teach_rank.run(make_flags(folder)) == 0
  regions = pd.read_csv(folder / "rank" / "round_01" / "regions.csv")
  assert tuple(regions.iloc[0][["y_px", "x_px"]]) == (12, 16)


def test_rounds_make_a_history_and_an_end(folder, caplog):
  caplog.set_level("INFO")
  for level in (0.5, 0.3, 0.31, 0.32, 0.33):
    write_maps(folder, a=0.2, b=level, c=0.2)
    caplog.clear()
    assert teach_rank.run(make_flags(folder)) == 0
    assert teach_rank.run(make_flags(folder)) == 0  # The same round again.
    assert ("stop: no image" in caplog.text) == (level == 0.33)
  history = annotations.read_history(folder / "rank" / "history.csv")
  assert len(history) == 5
  assert sorted(path.name for path in (folder / "rank").glob("round_*")) == [
    f"round_{n:02d}" for n in range(1, 6)
  ]
  changes = pd.read_csv(folder / "rank" / "round_02" / "ranking.csv")
  assert changes.set_index("image")["change"]["b"] < -0.1


def test_one_bad_map_does_not_stop_the_others(folder):
  (folder / "maps" / "b.tiff").write_bytes(b"no TIFF")
  (folder / "img" / "a.ome.tiff").unlink()
  assert teach_rank.run(make_flags(folder)) == 1
  failures = pd.read_csv(folder / "rank" / "failures.csv")
  assert sorted(failures["image"]) == ["a", "b"]
  regions = pd.read_csv(folder / "rank" / "round_01" / "regions.csv")
  assert set(regions["image"]) == {"c"}


def test_images_of_one_name_are_told(folder):
  (folder / "img" / "b.tiff").write_bytes(
    (folder / "img" / "b.ome.tiff").read_bytes()
  )
  assert teach_rank.run(make_flags(folder, num_images=1)) == 1
  failures = pd.read_csv(folder / "rank" / "failures.csv")
  told = failures["error"].str.contains("found another image named b").sum()
  assert told == 2


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"crop_px": 0}, "--crop_px: found 0"),
    ({"num_images": 0}, "--num_images: found 0"),
    ({"uncertainty_maps": "nowhere"}, "found no such file or folder"),
    ({"images": "nowhere"}, "found no such file or folder"),
    ({"panel": "nowhere.csv"}, "nowhere.csv: found"),
  ],
)
def test_wrong_calls_are_refused(folder, overrides, message, caplog):
  assert teach_rank.run(make_flags(folder, **overrides)) == 2
  assert message in caplog.text
