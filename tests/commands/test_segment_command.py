import contextlib
import os
import subprocess
import sys
import types

import cellprofiler
import h5py
import ilastik
import numpy as np
import pandas as pd
import pytest
import tifffile
from finished_runs import read_files

from configs.default import get_config
from dicexmbd_jax.commands import segment
from dicexmbd_jax.io import tiff
from dicexmbd_jax.io import write as write_lib
from dicexmbd_jax.masks import segment as segment_lib
from dicexmbd_jax.masks.settings import find_map_scale
from dicexmbd_jax.types import Grid


def make_flags(folder, **overrides):
  flags = {
    "probabilities": str(folder / "maps"),
    "output": str(folder / "out"),
    "num_workers": 0,
    "overwrite": False,
    "confidence": False,
    "classes": None,
    "shard": None,
    "merge": False,
    "shares": None,
    "allow_failures": False,
    "config": get_config(),
  }
  return types.SimpleNamespace(**(flags | overrides))


@pytest.fixture
def maps(tmp_path):
  """Three files: shares of 65535, shares of 255, floats of two maps."""
  (tmp_path / "maps").mkdir()
  pixels = [cellprofiler.make_maps((40, 50 + k), k) for k in range(3)]
  pixels[0] = np.rint(pixels[0] * 65535).astype(np.uint16)
  pixels[1] = np.rint(pixels[1] * 255).astype(np.uint8)
  pixels[2] = pixels[2][..., :2]
  for k, values in enumerate(pixels[:2]):
    path = tmp_path / "maps" / f"roi{k}.tiff"
    tifffile.imwrite(path, values, photometric="rgb")
  planes = pixels[2].transpose(2, 0, 1)
  tifffile.imwrite(tmp_path / "maps" / "roi2.ome.tiff", planes)
  return pixels


@pytest.mark.parametrize("preset", ["touching", "dice_xmbd"])
def test_strips_do_not_change_a_byte(maps, tmp_path, preset, cut_finely):
  planes = maps[1].transpose(2, 0, 1)
  with h5py.File(tmp_path / "maps" / "roi3.h5", "w") as file:
    file.create_dataset("maps", data=planes, chunks=(1, 16, 16))
  for output in ("out", "cut"):
    config = get_config()
    config.segment.preset = preset
    flags = {"confidence": True, "output": str(tmp_path / output)}
    with cut_finely() if output == "cut" else contextlib.nullcontext():
      code = segment.run(make_flags(tmp_path, config=config, **flags))
    assert code == 0
  files = read_files(tmp_path / "out")
  assert len(files) == 4 * 3 and files == read_files(tmp_path / "cut")


def write(path, planes):
  tifffile.imwrite(path, planes, photometric="minisblack")


def read_masks(folder):
  return {
    path.relative_to(folder).as_posix(): tifffile.imread(path)
    for path in sorted(folder.glob("*/*.tiff"))
  }


def test_masks_are_those_of_the_function(tmp_path, maps):
  assert segment.run(make_flags(tmp_path)) == 0
  masks = read_masks(tmp_path / "out")
  assert len(masks) == 6
  for k, pixels in enumerate(maps):
    expected = segment_lib.segment_image(pixels, {})
    for folder, labels in (
      ("masks", expected.cells),
      ("nuclei", expected.nuclei),
    ):
      result = masks[f"{folder}/roi{k}.tiff"]
      assert result.dtype == np.uint16
      np.testing.assert_array_equal(result, labels)
  assert not (tmp_path / "out" / "confidence").exists()
  failures = (tmp_path / "out" / "failures.csv").read_text()
  assert failures == "image,file,error\n"


def test_settings_reach_the_masks(tmp_path, maps):
  flags = make_flags(tmp_path)
  flags.config.segment.preset = "dice_xmbd"
  flags.config.segment.scale = 1
  assert segment.run(flags) == 0
  result = tifffile.imread(tmp_path / "out" / "masks" / "roi0.tiff")
  config = {"preset": "dice_xmbd", "scale": 1}
  expected = segment_lib.segment_image(maps[0], config)
  np.testing.assert_array_equal(result, expected.cells)


def test_workers_change_nothing(tmp_path, maps):
  segment.run(make_flags(tmp_path, output=str(tmp_path / "alone")))
  flags = make_flags(tmp_path, num_workers=2)
  assert segment.run(flags) == 0
  alone = read_masks(tmp_path / "alone")
  for name, labels in read_masks(tmp_path / "out").items():
    np.testing.assert_array_equal(labels, alone[name])


def test_confidence(tmp_path, maps):
  assert segment.run(make_flags(tmp_path, confidence=True)) == 0
  for k in range(3):
    table = pd.read_csv(tmp_path / "out" / "confidence" / f"roi{k}.csv")
    labels = tifffile.imread(tmp_path / "out" / "masks" / f"roi{k}.tiff")
    assert table["Object"].tolist() == list(range(1, labels.max() + 1))
    assert table.iloc[:, 1:].stack().between(0, 1).all()
    assert table["foreground_probability"].mean() > 0.5


def test_confidence_of_other_cells_goes(tmp_path, maps):
  del maps
  assert segment.run(make_flags(tmp_path, confidence=True)) == 0
  flags = make_flags(tmp_path)
  flags.config.segment.preset = "dice_xmbd"
  assert segment.run(flags) == 0
  assert not list((tmp_path / "out" / "confidence").iterdir())
  assert len(read_masks(tmp_path / "out")) == 6


def test_bad_files_do_not_stop_the_others(tmp_path, maps):
  folder = tmp_path / "maps"
  (folder / "broken.tiff").write_bytes(b"II*\0nonsense")
  whole = (folder / "roi1.tiff").read_bytes()
  (folder / "cut.tiff").write_bytes(whole[: len(whole) // 2])
  write(folder / "nan.tiff", np.full((3, 6, 7), np.nan, np.float32))
  write(folder / "counts.tiff", np.ones((3, 6, 7), np.int32))
  write(folder / "stack.tiff", np.ones((6, 8, 9), np.uint16))
  write(folder / "twice.tiff", np.ones((3, 6, 7), np.uint16))
  write(folder / "twice.tif", np.ones((3, 6, 7), np.uint16))
  assert segment.run(make_flags(tmp_path)) == 1
  table = pd.read_csv(tmp_path / "out" / "failures.csv")
  bad = ["broken", "counts", "cut", "nan", "stack", "twice"]
  found = sorted(
    {os.path.basename(file).split(".")[0] for file in table["file"]}
  )
  assert found == bad
  for file, error in zip(table["file"], table["error"], strict=True):
    assert file in error
    assert "\n" not in error
    assert "expected" in error
  assert len(read_masks(tmp_path / "out")) == 6


def test_masks_of_another_program_are_not_replaced(tmp_path, maps, caplog):
  mask = tmp_path / "out" / "masks" / "roi0.tiff"
  mask.parent.mkdir(parents=True)
  mask.write_bytes(b"drawn by hand")
  assert segment.run(make_flags(tmp_path)) == 2
  assert "found masks of another program" in caplog.text
  assert mask.read_bytes() == b"drawn by hand"
  assert segment.run(make_flags(tmp_path, overwrite=True)) == 0
  assert len(read_masks(tmp_path / "out")) == 6


@pytest.mark.parametrize("overwrite", [False, True])
def test_masks_do_not_come_under_tables_of_predict(
  tmp_path, maps, caplog, overwrite
):
  del maps
  out = tmp_path / "out"
  out.mkdir()
  (out / "run.json").write_text("{}")
  assert segment.run(make_flags(tmp_path, overwrite=overwrite)) == 2
  assert caplog.messages == [
    f"--output: found results of predict in {out} (run.json), expected another "
    f"folder, such as {out}/segmented"
  ]
  assert [path.name for path in out.iterdir()] == ["run.json"]


def test_masks_come_beside_maps_of_a_teacher(tmp_path, maps):
  """As `teach predict` leaves its folder: maps, states and failures."""
  del maps
  out = tmp_path / "out"
  (out / "state").mkdir(parents=True)
  (tmp_path / "maps").rename(out / "probabilities")
  (out / "failures.csv").write_text("image,file,error\n")
  flags = make_flags(tmp_path, probabilities=str(out / "probabilities"))
  assert segment.run(flags) == 0
  assert len(read_masks(out)) == 6 + 3


def test_finished_images_are_left_alone(tmp_path, maps):
  flags = make_flags(tmp_path)
  segment.run(flags)
  mask = tmp_path / "out" / "masks" / "roi0.tiff"
  before = mask.stat().st_mtime_ns
  assert segment.run(flags) == 0
  assert mask.stat().st_mtime_ns == before
  # Another setting, other maps, a lost file or --overwrite: done again.
  flags.config.segment.scale = 1
  assert segment.run(flags) == 0
  second = mask.stat().st_mtime_ns
  assert second > before
  changed = maps[0].copy()
  changed[5:9, 5:9] = 65535
  tifffile.imwrite(tmp_path / "maps" / "roi0.tiff", changed, photometric="rgb")
  segment.run(flags)
  third = mask.stat().st_mtime_ns
  assert third > second
  mask.unlink()
  segment.run(flags)
  fourth = mask.stat().st_mtime_ns
  flags.overwrite = True
  segment.run(flags)
  assert mask.stat().st_mtime_ns > fourth


def test_masks_of_an_older_way_are_made_again(tmp_path, maps, monkeypatch):
  flags = make_flags(tmp_path)
  monkeypatch.setattr(segment_lib, "REVISION", segment_lib.REVISION - 1)
  assert segment.run(flags) == 0
  masks = sorted((tmp_path / "out" / "masks").iterdir())
  before = [mask.stat().st_mtime_ns for mask in masks]
  monkeypatch.undo()
  assert segment.run(flags) == 0
  for mask, then in zip(masks, before, strict=True):
    assert mask.stat().st_mtime_ns > then


def test_wrong_calls(tmp_path, maps):
  flags = make_flags(tmp_path, probabilities=str(tmp_path / "nowhere"))
  assert segment.run(flags) == 2
  flags = make_flags(tmp_path)
  flags.config.segment.preset = "tight"
  assert segment.run(flags) == 2
  assert segment.run(make_flags(tmp_path, num_workers=-1)) == 2
  (tmp_path / "file").write_text("")
  flags = make_flags(tmp_path, output=str(tmp_path / "file"))
  assert segment.run(flags) == 2


def test_more_than_65535_cells_are_uint32(tmp_path):
  (tmp_path / "maps").mkdir()
  nucleus = np.tile(np.array([[230, 0], [0, 0]], np.uint8), (260, 260))
  planes = np.stack([nucleus, 0 * nucleus])
  tifffile.imwrite(tmp_path / "maps" / "many.tiff", planes)
  flags = make_flags(tmp_path)
  flags.config.segment.update(
    {
      "scale": 1,
      "smoothing_px": 0.0,
      "min_diameter_px": 1.0,
      "declump_smoothing_px": 0.0,
      "min_nucleus_area_px": 0.0,
      "cell_threshold_sigma_px": 0.0,
      "max_diameter_px": 1.0,
    }
  )
  assert segment.run(flags) == 0
  for folder in ("masks", "nuclei"):
    labels = tifffile.imread(tmp_path / "out" / folder / "many.tiff")
    assert labels.dtype == np.uint32
    assert labels.max() == 260 * 260


def test_does_not_load_jax(tmp_path, maps):
  """Nor pandas, which is slow and needed for the confidence only."""
  code = (
    "import sys, types\n"
    "from configs.default import get_config\n"
    "from dicexmbd_jax.commands import segment\n"
    f"flags = types.SimpleNamespace(probabilities={str(tmp_path / 'maps')!r},"
    f" output={str(tmp_path / 'out')!r}, num_workers=0, overwrite=False,"
    " confidence=False, classes=None, shard=None, merge=False, shares=None,"
    " allow_failures=False, config=get_config())\n"
    "code = segment.run(flags)\n"
    "loaded = {'jax', 'flax', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    "sys.exit(f'loaded {loaded}' if loaded else code)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": os.getcwd()},
  )
  assert done.returncode == 0, done.stderr


def test_the_command_line(tmp_path, maps):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "dicexmbd_jax",
      "segment",
      f"--probabilities={tmp_path / 'maps' / 'roi*.tiff'}",
      f"--output={tmp_path / 'out'}",
      "--config.segment.preset=dice_xmbd",
      "--confidence",
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert "3 images done" in done.stderr
  assert len(list((tmp_path / "out" / "confidence").iterdir())) == 3


def test_a_file_that_fails_keeps_no_masks_of_an_earlier_run(tmp_path, maps):
  del maps
  assert segment.run(make_flags(tmp_path, confidence=True)) == 0
  (tmp_path / "maps/roi1.tiff").write_bytes(b"no maps")
  assert segment.run(make_flags(tmp_path)) == 1
  assert not list((tmp_path / "out").glob("*/roi1.*"))
  assert len(list((tmp_path / "out").glob("*/roi0.*"))) == 3


@pytest.mark.parametrize("num_maps", [2, 3])
def test_counts_are_no_probabilities(tmp_path, maps, num_maps):
  del maps
  counts = np.random.default_rng(0).poisson(20, (40, 50, num_maps))
  path = tmp_path / "maps/counts.tiff"
  write(path, counts.transpose(2, 0, 1).astype(np.uint16))
  assert segment.run(make_flags(tmp_path)) == 1
  failures = pd.read_csv(tmp_path / "out/failures.csv")
  assert failures["image"].tolist() == ["counts"]
  assert (
    "expected probabilities; these look like counts" in failures["error"][0]
  )
  assert str(path) in failures["error"][0]


@pytest.mark.parametrize("level", [100, 200])
def test_shares_of_another_number_are_refused(tmp_path, level):
  rng = np.random.default_rng(0)
  maps = level * rng.dirichlet((1, 1, 1), (40, 50))
  (tmp_path / "maps").mkdir()
  path = tmp_path / "maps/a.tiff"
  write(path, np.rint(maps).transpose(2, 0, 1).astype(np.uint8))
  assert segment.run(make_flags(tmp_path)) == 1
  [line] = pd.read_csv(tmp_path / "out/failures.csv")["error"]
  assert f"{path}: found three maps that sum to {level / 255:.2g}" in line
  assert f"is about {level} meant as 1?" in line


def test_maps_without_the_other_classes_have_any_sum(tmp_path):
  rng = np.random.default_rng(0)
  maps = 255 * rng.dirichlet((1, 1, 1, 1), (40, 50))[..., :3]
  (tmp_path / "maps").mkdir()
  planes = np.rint(maps).transpose(2, 0, 1).astype(np.uint8)
  write(tmp_path / "maps/a.tiff", planes)
  assert segment.run(make_flags(tmp_path)) == 0


def test_empty_maps_are_probabilities(tmp_path):
  (tmp_path / "maps").mkdir()
  write(tmp_path / "maps/a.tiff", np.zeros((2, 30, 30), np.uint8))
  assert segment.run(make_flags(tmp_path)) == 0


@pytest.mark.parametrize(
  ("preset", "size_um"), [("touching", 0.5), ("steinbock", 1.0)]
)
def test_masks_have_the_maps_pixel_size(tmp_path, preset, size_um):
  maps = cellprofiler.make_maps((60, 60), 0).astype(np.float32)
  write_lib.write_probabilities(tmp_path / "maps/a.tiff", maps, 0.5)
  flags = make_flags(tmp_path)
  flags.config.segment.preset = preset
  assert segment.run(flags) == 0
  for kind in ("masks", "nuclei"):
    path = tmp_path / "out" / kind / "a.tiff"
    assert tiff.read_pixel_size(path) == pytest.approx(size_um)


@pytest.mark.parametrize("magnification", [1.0, 1.3])
@pytest.mark.parametrize("map_um", [1.0, 0.5])
@pytest.mark.parametrize("image_um", [1.0, 0.5])
@pytest.mark.parametrize(
  "section",
  [
    {"preset": "touching"},
    {"preset": "dice_xmbd"},
    {"preset": "steinbock"},
    {"map_scale": 1},
    {"map_scale": 2},
    {"preset": "steinbock", "map_scale": 1},
  ],
)
def test_maps_that_tell_their_image_have_its_grid_whatever_the_settings(
  tmp_path, section, image_um, map_um, magnification
):
  """As `predict` cuts them: by masks.segment.segment_seen."""
  shape = (48, 63)
  factor = magnification * image_um / map_um
  maps = cellprofiler.make_maps([round(size * factor) for size in shape], 0)
  levels = np.rint(maps * 65535).astype(np.uint16)
  write_lib.write_probabilities(
    tmp_path / "maps/a.tiff",
    levels,
    map_um / magnification,
    Grid(shape, image_um),
    find_map_scale(map_um),
  )
  flags = make_flags(tmp_path)
  flags.config.segment.update(section)
  flags.config.image.pixel_size_um = map_um
  assert segment.run(flags) == 0
  expected = segment_lib.segment_seen(
    levels, flags.config, shape, magnification
  )
  assert expected.cells.any()
  for kind, labels in (
    ("masks", expected.cells),
    ("nuclei", expected.nuclei),
  ):
    path = tmp_path / "out" / kind / "a.tiff"
    np.testing.assert_array_equal(tifffile.imread(path), labels)
    assert tiff.read_pixel_size(path) == pytest.approx(image_um)


def test_masks_of_another_map_scale_are_made_again(tmp_path):
  maps = cellprofiler.make_maps((60, 80), 0).astype(np.float32)
  write_lib.write_probabilities(
    tmp_path / "maps/a.tiff", maps, 0.5, Grid((60, 80), 0.5), 2
  )
  found = []
  for scale in (None, 1, None):
    flags = make_flags(tmp_path)
    flags.config.segment.map_scale = scale
    assert segment.run(flags) == 0
    found.append(tifffile.imread(tmp_path / "out/masks/a.tiff"))
  assert (found[0] != found[1]).any()
  np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize(
  ("classes", "order"),
  [
    ("background,nucleus,membrane", (2, 0, 1)),
    (" Background, Nuclei,Membrane/Cytoplasm", (2, 0, 1)),
    ("membrane,background,nucleus", (1, 2, 0)),
    ("background,other,membrane,other,nucleus", (2, 0, 1, 2, 0)),
    ("membrane,nucleus", (1, 0)),
  ],
)
def test_classes_in_another_order_give_the_same_masks(
  tmp_path, maps, classes, order, dtype
):
  pixels = maps[0].astype(dtype) if dtype == np.uint16 else maps[0] / 65535
  turned = pixels[..., list(order)].astype(dtype)
  (tmp_path / "turned").mkdir()
  write(tmp_path / "turned" / "roi0.tiff", turned.transpose(2, 0, 1))
  flags = make_flags(
    tmp_path, probabilities=str(tmp_path / "turned"), classes=classes
  )
  assert segment.run(flags) == 0
  mask = tifffile.imread(tmp_path / "out/masks/roi0.tiff")
  expected = segment_lib.segment_image(pixels.astype(dtype), {})
  assert mask.max() > 3
  np.testing.assert_array_equal(mask, expected.cells)
  # Another order is another setting.
  if len(order) == 3:
    again = make_flags(tmp_path, probabilities=flags.probabilities)
    assert segment.run(again) == 0
    other = tifffile.imread(tmp_path / "out/masks/roi0.tiff")
    assert not np.array_equal(other, mask)


@pytest.mark.parametrize(
  "classes",
  [
    "nucleus",
    "nucleus,background",
    "nucleus,membrane,membrane",
    "nucleus,membrane,fog",
    "nucleus,,membrane",
  ],
)
def test_classes_that_are_none_are_refused(tmp_path, maps, classes, caplog):
  assert segment.run(make_flags(tmp_path, classes=classes)) == 2
  assert "--classes: found" in caplog.text
  assert "expected" in caplog.text


def test_another_number_of_maps_than_classes_is_told(tmp_path, maps):
  flags = make_flags(tmp_path, classes="nucleus,membrane,background,other")
  assert segment.run(flags) == 1
  table = pd.read_csv(tmp_path / "out/failures.csv")
  assert len(table) == 3
  assert (
    "expected 4 maps: nucleus, membrane, background, other"
    in (table["error"][0])
  )


def test_hdf5_maps_are_listed(tmp_path, maps):
  folder = tmp_path / "h5"
  folder.mkdir()
  for name, axes in (("roi0_Probabilities.h5", "yxc"), ("roi1.hdf5", "cyx")):
    ilastik.write_image(folder / name, maps[axes == "cyx"], axes)
  (folder / "sub").mkdir()
  write(folder / "sub" / "roi9.tiff", maps[1].transpose(2, 0, 1))
  (folder / "sub2").mkdir()
  flags = make_flags(tmp_path, probabilities=str(folder))
  assert segment.run(flags) == 0
  for k, name in enumerate(("roi0_Probabilities", "roi1")):
    mask = tifffile.imread(tmp_path / f"out/masks/{name}.tiff")
    expected = segment_lib.segment_image(maps[k], {})
    np.testing.assert_array_equal(mask, expected.cells)
  assert not (tmp_path / "out/masks/roi9.tiff").exists()
  # Beside TIFFs both are listed, and of one name neither.
  write(folder / "roi1.tiff", maps[1].transpose(2, 0, 1))
  write(folder / "roi2.tiff", maps[1].transpose(2, 0, 1))
  assert segment.run(flags) == 1
  table = pd.read_csv(tmp_path / "out/failures.csv")
  assert len(table) == 2
  assert all("another image named roi1" in line for line in table["error"])
  assert (tmp_path / "out/masks/roi2.tiff").exists()
  one = make_flags(tmp_path, probabilities=str(folder / "*.h5"))
  assert [s.stem for s in segment.read_request(one).list_images()[0]] == [
    "roi0_Probabilities"
  ]


def test_a_doubt_about_the_order_is_told(tmp_path, caplog):
  (tmp_path / "maps").mkdir()
  right = np.rint(cellprofiler.draw_rings() * 255).astype(np.uint8)
  write(tmp_path / "maps/right.tiff", right.transpose(2, 0, 1))
  write(tmp_path / "maps/wrong.tiff", right[..., [2, 0, 1]].transpose(2, 0, 1))
  assert segment.run(make_flags(tmp_path)) == 0
  warnings = [
    record.getMessage()
    for record in caplog.records
    if record.levelname == "WARNING"
  ]
  lines = {
    name: [line for line in warnings if f"{name}: " in line]
    for name in ("right", "wrong")
  }
  assert lines["right"] == []
  assert lines["wrong"] == [
    "wrong: nucleus looks like background, membrane looks like nucleus, "
    "background looks like membrane: are the maps "
    "background,nucleus,membrane?"
  ]
