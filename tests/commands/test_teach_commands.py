import pathlib
import types

import h5py
import ilastik as oracle
import numpy as np
import pandas as pd
import pytest
import tifffile

from configs.default import get_config
from dicexmbd_jax.commands import segment as segment_command
from dicexmbd_jax.commands import teach_fit, teach_predict
from dicexmbd_jax.io import probabilities, tiff, write
from dicexmbd_jax.masks import segment
from dicexmbd_jax.teach import fit, forest
from dicexmbd_jax.teach.strokes import match_name
from dicexmbd_jax.teach.teacher_folder import read_teacher
from dicexmbd_jax.types import Grid, ImageSource

SHAPE = (40, 52)


def fit_flags(folder, **overrides):
  flags = {
    "images": str(folder / "img"),
    "panel": None,
    "annotations": str(folder / "labels"),
    "output": str(folder / "teacher"),
    "channels": None,
    "scale": 1,
    "seed": 0,
    "keep_forest": False,
    "num_workers": 0,
    "config": get_config(),
  }
  return types.SimpleNamespace(**(flags | overrides))


def predict_flags(folder, **overrides):
  flags = {
    "teacher": str(folder / "teacher"),
    "images": str(folder / "img"),
    "panel": None,
    "output": str(folder / "out"),
    "uncertainty": "margin",
    "num_workers": 0,
    "overwrite": False,
  }
  return types.SimpleNamespace(**(flags | overrides))


def make_stack(seed, num_channels=2, shape=SHAPE):
  """Counts that are bright on the left in the first channel, and so on."""
  rng = np.random.default_rng(seed)
  x = np.linspace(0, num_channels + 1, shape[1])
  levels = [30 * (np.floor(x) == k) + 2 for k in range(num_channels)]
  stack = np.stack([np.broadcast_to(one, shape) for one in levels], axis=-1)
  return rng.poisson(stack).astype(np.float32)


def make_strokes(shape=SHAPE):
  strokes = np.zeros(shape, np.uint8)
  third = shape[1] // 3
  for k in range(3):
    strokes[5 + 4 * k, k * third + 5 : k * third + 12] = k + 1
  return strokes


def write_tiff(path, data):
  path.parent.mkdir(exist_ok=True)
  tifffile.imwrite(path, data, photometric="minisblack")


@pytest.fixture
def study(tmp_path):
  """Three two-channel images; two have strokes."""
  for k in range(3):
    stack = make_stack(k).transpose(2, 0, 1)
    write_tiff(tmp_path / "img" / f"roi{k}.tiff", stack)
  write_tiff(tmp_path / "labels" / "roi0_labels.tiff", make_strokes())
  strokes = make_strokes().astype(np.int64)
  write_tiff(tmp_path / "labels" / "roi1_labels.tiff", strokes)
  return tmp_path


def read_maps(folder, kind="probabilities"):
  files = sorted((folder / kind).glob("*.tiff"))
  return {path.stem: tifffile.imread(path) for path in files}


def read_errors(folder):
  return pd.read_csv(folder / "failures.csv")["error"].tolist()


@pytest.mark.parametrize(("num_workers", "num_threads"), [(0, 1), (2, 2)])
def test_the_forest_grows_on_as_many_cores(
  study, monkeypatch, num_workers, num_threads
):
  found = []

  def watch(*args, num_threads, fit=forest.fit_forest):
    found.append(num_threads)
    return fit(*args, num_threads=num_threads)

  monkeypatch.setattr(forest, "fit_forest", watch)
  assert teach_fit.run(fit_flags(study, num_workers=num_workers)) == 0
  assert found == [num_threads]


def test_strokes_become_maps(study):
  assert teach_fit.run(fit_flags(study)) == 0
  teacher = read_teacher(study / "teacher")
  assert teacher.view.channels == "merged"
  assert list(teacher.record["pixels"].values()) == [[7, 7, 7]] * 2
  assert teach_predict.run(predict_flags(study)) == 0
  maps = read_maps(study / "out")
  assert list(maps) == ["roi0", "roi1", "roi2"]
  for one in maps.values():
    assert one.dtype == np.uint16
    assert one.shape == (*SHAPE, 3)
    assert abs(one.sum(axis=2, dtype=int) - 65535).max() <= 2
    thirds = np.array_split(one.argmax(axis=2)[:, 4:-4], 3, axis=1)
    for k, third in enumerate(thirds):
      assert (third[:, 4:-4] == k).mean() > 0.9
  unsure = read_maps(study / "out", "uncertainty")["roi2"]
  assert unsure.dtype == np.uint16
  best = np.sort(maps["roi2"].astype(int), axis=2)
  margin = 65535 - (best[..., 2] - best[..., 1])
  assert abs(unsure - margin).max() <= 2


def test_workers_runs_and_reruns_agree(study):
  teach_fit.run(fit_flags(study))
  teach_predict.run(predict_flags(study))
  teach_fit.run(fit_flags(study, output=str(study / "again"), num_workers=2))
  for name in ("teacher.json", "forest.npz"):
    first, second = (
      (study / kind / name).read_bytes() for kind in ("teacher", "again")
    )
    assert first == second
  flags = predict_flags(study, output=str(study / "two"), num_workers=2)
  assert teach_predict.run(flags) == 0
  first, second = read_maps(study / "out"), read_maps(study / "two")
  for stem in first:
    np.testing.assert_array_equal(first[stem], second[stem])
  path = study / "two" / "probabilities" / "roi1.tiff"
  before = path.stat().st_mtime_ns
  assert teach_predict.run(flags) == 0
  assert path.stat().st_mtime_ns == before
  flags.uncertainty = "entropy"
  assert teach_predict.run(flags) == 0
  assert path.stat().st_mtime_ns > before


def test_another_seed_is_another_forest(study):
  for seed in (0, 1):
    teach_fit.run(fit_flags(study, seed=seed, output=str(study / f"t{seed}")))
  first, second = (read_teacher(study / f"t{seed}").forest for seed in (0, 1))
  assert not np.array_equal(first.thresholds, second.thresholds)


def test_a_killed_run_of_another_teacher_is_no_finished_one(study, monkeypatch):
  for seed in (0, 1):
    teach_fit.run(fit_flags(study, seed=seed, output=str(study / f"t{seed}")))
  first = predict_flags(study, teacher=str(study / "t0"))
  assert teach_predict.run(first) == 0
  wanted = read_maps(study / "out")

  def die(*_):
    raise KeyboardInterrupt

  second = predict_flags(study, teacher=str(study / "t1"))
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(write, "write_uncertainty", die)
    teach_predict.run(second)
  assert not np.array_equal(read_maps(study / "out")["roi0"], wanted["roi0"])
  assert teach_predict.run(first) == 0
  np.testing.assert_equal(read_maps(study / "out"), wanted)


def test_an_image_that_fails_keeps_nothing_of_an_earlier_run(study):
  teach_fit.run(fit_flags(study))
  assert teach_predict.run(predict_flags(study)) == 0
  (study / "img" / "roi1.tiff").write_bytes(b"II*\0nonsense")
  assert teach_predict.run(predict_flags(study)) == 1
  for kind in ("probabilities", "uncertainty"):
    assert list(read_maps(study / "out", kind)) == ["roi0", "roi2"]
  assert not (study / "out" / "state" / "roi1.json").exists()


@pytest.mark.parametrize("channels", ["merged", "all"])
def test_maps_at_twice_the_size(study, channels):
  """Strokes of the image's size or of twice that give the same teacher."""
  for kind in ("labels", "large"):
    for k in range(2):
      strokes = make_strokes()
      if kind == "large":
        strokes = strokes.repeat(2, axis=0).repeat(2, axis=1)
      write_tiff(study / kind / f"roi{k}_labels.tiff", strokes)
    flags = fit_flags(
      study,
      annotations=str(study / kind),
      output=str(study / f"t_{kind}"),
      scale=2,
      channels=channels,
    )
    assert teach_fit.run(flags) == 0
  first, second = (
    (study / f"t_{kind}" / "forest.npz").read_bytes()
    for kind in ("labels", "large")
  )
  assert first == second
  flags = predict_flags(study, teacher=str(study / "t_large"))
  assert teach_predict.run(flags) == 0
  assert read_maps(study / "out")["roi2"].shape == (80, 104, 3)


def test_maps_at_twice_the_size_give_masks_on_the_images_pixels(study):
  assert teach_fit.run(fit_flags(study, scale=2)) == 0
  assert teach_predict.run(predict_flags(study)) == 0
  path = study / "out/probabilities/roi2.tiff"
  source = ImageSource("roi2", path)
  found = probabilities.read_image_grid(source, (80, 104))
  assert found == (0.5, Grid(SHAPE, 1.0), 2)
  assert tiff.read_pixel_size(path) == pytest.approx(0.5)
  # As where map_scale is told.
  maps = probabilities.read_probabilities(source)
  flags = types.SimpleNamespace(
    probabilities=str(study / "out/probabilities"),
    output=str(study / "cells"),
    num_workers=0,
    overwrite=False,
    confidence=False,
    classes=None,
    shard=None,
    merge=False,
    shares=None,
    allow_failures=False,
    config=get_config(),
  )
  assert segment_command.run(flags) == 0
  section = {**flags.config.segment.to_dict(), "map_scale": 2}
  expected = segment.segment_image(maps, section).cells
  assert expected.any() and expected.shape == SHAPE
  np.testing.assert_array_equal(
    read_maps(study / "cells", "masks")["roi2"], expected
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda s: s + 9 * (s == 1), "found the label 10, expected 0 none, 1"),
    (lambda s: s[:-1], "an annotation of (39, 52), expected the image's"),
    (lambda s: 0 * s, "found no annotated pixel"),
    (lambda s: s + 0.5, "expected whole labels"),
  ],
)
def test_wrong_annotations_are_failures(study, change, message):
  path = study / "labels" / "roi1_labels.tiff"
  write_tiff(path, change(make_strokes()))
  assert teach_fit.run(fit_flags(study)) == 1
  (line,) = read_errors(study / "teacher")
  assert line.startswith(str(path))
  assert message in line
  assert len(read_teacher(study / "teacher").record["pixels"]) == 1


def test_annotations_without_images_are_failures(study):
  write_tiff(study / "labels" / "roi7_labels.tiff", make_strokes())
  assert teach_fit.run(fit_flags(study)) == 1
  (line,) = read_errors(study / "teacher")
  assert "found no image roi7" in line


def fail(flags, caplog):
  """Runs a call that is wrong; returns the one line that says so."""
  caplog.clear()
  command = teach_predict if hasattr(flags, "teacher") else teach_fit
  assert command.run(flags) == 2
  return caplog.records[-1].getMessage()


@pytest.mark.parametrize(
  ("missing", "line"),
  [
    (1, "no stroke of nucleus, expected strokes of nucleus, "),
    (1, "so that no cell will be found"),
    (2, "so that cells will end with their nuclei"),
    (3, "so that cells will fill the image"),
  ],
)
def test_strokes_without_a_class_tell_what_becomes_of_it(caplog, missing, line):
  counts = [5, 5, 5]
  fit.warn_of_missing_classes("labels", counts)
  assert not caplog.messages
  counts[missing - 1] = 0
  fit.warn_of_missing_classes("labels", counts)
  [found] = caplog.messages
  assert found.startswith("labels: found no stroke of ")
  assert line in found


def test_one_class_is_not_enough(study, caplog):
  for k in range(2):
    strokes = np.minimum(make_strokes(), 1)
    write_tiff(study / "labels" / f"roi{k}_labels.tiff", strokes)
  line = fail(fit_flags(study), caplog)
  assert "pixels of nucleus only, expected two classes" in line
  assert str(study / "labels") in line
  assert not (study / "teacher" / "teacher.json").exists()


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"scale": 3}, "--scale: found 3, expected 1 or 2"),
    ({"channels": "some"}, "--channels: found some, expected one of merged"),
    ({"images": None}, "expected also --images"),
    ({"seed": -1}, "--seed: found -1"),
    ({"annotations": "nowhere"}, "nowhere"),
    ({"annotations": "no.ilp"}, "no.ilp: found no such file"),
  ],
)
def test_wrong_calls_of_fit(study, caplog, overrides, message):
  assert message in fail(fit_flags(study, **overrides), caplog)


def test_wrong_calls_of_predict(study, caplog):
  line = fail(predict_flags(study), caplog)
  assert "teacher.json: found No such file" in line
  teach_fit.run(fit_flags(study))
  line = fail(predict_flags(study, uncertainty="odd"), caplog)
  assert "--uncertainty: found odd, expected one of margin, entropy" in line


def test_maps_of_predict_are_not_written_over(study, caplog):
  assert teach_fit.run(fit_flags(study)) == 0
  out = study / "out"
  out.mkdir()
  (out / "run.json").write_text("{}")
  assert teach_predict.run(predict_flags(study)) == 2
  assert f"such as {out}/taught" in caplog.messages[-1]
  assert [path.name for path in out.iterdir()] == ["run.json"]


def test_images_of_other_channels_are_failures(study):
  teach_fit.run(fit_flags(study, channels="all"))
  three = make_stack(4, 3).transpose(2, 0, 1)
  write_tiff(study / "img" / "roi1.tiff", three)
  assert teach_predict.run(predict_flags(study)) == 1
  (line,) = read_errors(study / "out")
  assert "found 3 channels, expected the teacher's 2" in line
  assert list(read_maps(study / "out")) == ["roi0", "roi2"]


def test_a_panel_chooses_and_names_the_channels(study):
  stack = make_stack(0, 4).transpose(2, 0, 1)
  for k in range(3):
    write_tiff(study / "img" / f"roi{k}.tiff", stack)
  panel = study / "panel.csv"
  panel.write_text(
    "channel,name,keep,nuclear,membrane_cytoplasm\n"
    "Ir191,DNA,1,1,0\nPr141,CD3,1,0,1\nNd142,CD4,0,0,0\nEu153,Ki67,1,0,0\n"
  )
  flags = fit_flags(study, channels="all", panel=str(panel))
  assert teach_fit.run(flags) == 0
  assert read_teacher(study / "teacher").view.names == ("DNA", "CD3", "Ki67")
  assert teach_predict.run(predict_flags(study, panel=str(panel))) == 0


# Ilastik's projects.


def write_study(folder, axes="zyxc", named=True, **options):
  """A project of three lanes, one without strokes, and its images."""
  (folder / "h5").mkdir()
  lanes = []
  for k in range(3):
    oracle.write_image(folder / "h5" / f"roi{k}.h5", make_stack(k, 3), axes)
    strokes = make_strokes() if k < 2 else np.zeros(SHAPE, np.uint8)
    lanes.append((f"/elsewhere/h5/roi{k}.h5/img", strokes, 3))
  if not named:
    options["names"] = ("Label 1", "Label 2", "Label 3")
  oracle.write_project(folder / "a.ilp", lanes, axes=axes, **options)


def ilp_flags(folder, **overrides):
  paths = {"annotations": str(folder / "a.ilp"), "images": str(folder / "h5")}
  return fit_flags(folder, **(paths | overrides))


@pytest.mark.parametrize("axes", ["zyxc", "cyx", "yxc", "tzyxc", "xyc"])
@pytest.mark.parametrize("tags_on_blocks", [False, True])
def test_projects_of_any_axes(tmp_path, axes, tags_on_blocks):
  write_study(tmp_path, axes, tags_on_blocks=tags_on_blocks)
  assert teach_fit.run(ilp_flags(tmp_path)) == 0
  teacher = read_teacher(tmp_path / "teacher")
  assert list(teacher.record["pixels"].values()) == [[7, 7, 7]] * 2
  assert teacher.view.channels == "all"
  assert teacher.view.num_channels == 3
  assert {one.scale_px for one in teacher.selection} == {1.0, 1.6}
  flags = predict_flags(tmp_path, images=str(tmp_path / "h5"))
  assert teach_predict.run(flags) == 0
  for one in read_maps(tmp_path / "out").values():
    thirds = np.array_split(one.argmax(axis=2), 3, axis=1)
    for k, third in enumerate(thirds):
      assert (third[:, 5:-5] == k).mean() > 0.8


def test_projects_and_label_files_give_one_forest(tmp_path):
  write_study(tmp_path, scales=(0.7, 1.0, 1.6, 3.5, 5.0, 10.0))
  with h5py.File(tmp_path / "a.ilp", "a") as file:
    file["FeatureSelections/SelectionMatrix"][0, 0] = True
  assert teach_fit.run(ilp_flags(tmp_path)) == 0
  for k in range(2):
    write_tiff(tmp_path / "labels" / f"roi{k}.tiff", make_strokes())
  flags = fit_flags(
    tmp_path,
    images=str(tmp_path / "h5"),
    channels="all",
    output=str(tmp_path / "other"),
  )
  assert teach_fit.run(flags) == 0
  first, second = (
    (tmp_path / kind / "forest.npz").read_bytes()
    for kind in ("teacher", "other")
  )
  assert first == second


def test_old_projects_that_do_not_say_the_size(tmp_path):
  write_study(tmp_path)
  assert teach_fit.run(ilp_flags(tmp_path)) == 0
  before = (tmp_path / "teacher" / "forest.npz").read_bytes()
  with h5py.File(tmp_path / "a.ilp", "a") as file:
    for lane in file["Input Data/infos"].values():
      del lane["Raw Data/shape"], lane["Raw Data/axistags"]
    del file["PixelClassification/LabelNames"]
    for lane in file["Input Data/infos"].values():
      lane["Raw Data/axisorder"] = np.bytes_("zyxc")
  assert teach_fit.run(ilp_flags(tmp_path)) == 0
  assert (tmp_path / "teacher" / "forest.npz").read_bytes() == before


def test_pictures(study):
  """PNG images of colours, and PNG labels."""
  for k in range(3):
    pixels = np.clip(make_stack(k, 3), 0, 255).astype(np.uint8)
    write.write_png(study / "png" / f"roi{k}.png", pixels)
  write.write_png(study / "marks" / "roi0.png", make_strokes())
  images = str(study / "png")
  flags = fit_flags(study, images=images, annotations=str(study / "marks"))
  flags.channels = "all"
  assert teach_fit.run(flags) == 0
  assert teach_predict.run(predict_flags(study, images=images)) == 0
  assert read_maps(study / "out")["roi1"].shape == (*SHAPE, 3)


def test_images_left_out_beside_hdf5_are_told(study, caplog):
  """As Ilastik's maps of an image lie, which were the only input."""
  for name in ("roi0", "roi1_Probabilities"):
    with h5py.File(study / "img" / f"{name}.h5", "w") as file:
      file["exported_data"] = make_stack(0)
  found, failures = teach_fit.fit.list_inputs(str(study / "img"))
  assert [one.stem for one in found] == ["roi0", "roi1_Probabilities"]
  assert not failures
  [line] = caplog.messages
  assert "found 2 images beside HDF5 (roi1.tiff)" in line  # roi0 is the same.
  caplog.clear()
  assert len(teach_fit.fit.list_inputs(str(study / "img/*.tiff"))[0]) == 3
  assert len(teach_fit.fit.list_inputs(str(study / "img/*.h5"))[0]) == 2
  assert not caplog.messages


def test_images_where_the_project_says(tmp_path, monkeypatch):
  write_study(tmp_path)
  for k in range(3):  # Beside the project.
    (tmp_path / "h5" / f"roi{k}.h5").rename(tmp_path / f"roi{k}.h5")
  assert teach_fit.run(ilp_flags(tmp_path, images=None)) == 0
  (tmp_path / "roi1.h5").unlink()
  assert teach_fit.run(ilp_flags(tmp_path, images=None)) == 1
  (line,) = read_errors(tmp_path / "teacher")
  assert (
    "found no file /elsewhere/h5/roi1.h5, expected the image of lane 1"
    in (line)
  )
  assert "--images" in line


def test_images_inside_the_project(tmp_path):
  write_study(tmp_path)
  with h5py.File(tmp_path / "a.ilp", "a") as file:
    for k in range(2):
      raw = file[f"Input Data/infos/lane{k:04d}/Raw Data"]
      raw["location"] = np.bytes_("ProjectInternal")
      raw["datasetId"] = np.bytes_(f"id{k}")
      file[f"Input Data/local_data/id{k}"] = make_stack(k, 3)[None]
  assert teach_fit.run(ilp_flags(tmp_path, images=None)) == 0


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (("background", "nuclei", "membrane"), [3, 1, 2]),
    (("Label 1", "Label 2", "Label 3"), [1, 2, 3]),
    (("nucleus", "nuclear rim", "background"), [1, 2, 3]),  # Not told apart.
  ],
)
def test_label_names_and_their_order(tmp_path, names, expected, caplog):
  caplog.set_level("INFO")
  write_study(tmp_path, names=names)
  with h5py.File(tmp_path / "a.ilp", "a") as file:  # 7, 7, 7 would not tell.
    block = file["PixelClassification/LabelSets/labels000/block0000"]
    values = block[()]
    (places,) = np.nonzero(values.ravel() == 1)
    values.ravel()[places[:3]] = 0
    block[...] = values
  assert teach_fit.run(ilp_flags(tmp_path)) == 0
  pixels = read_teacher(tmp_path / "teacher").record["pixels"]
  counts = next(iter(pixels.values()))
  assert counts[expected[0] - 1] == 4
  said = "\n".join(record.getMessage() for record in caplog.records)
  assert f"{names[0]} = " in said


def change_group(change):
  def run(path):
    with h5py.File(path, "a") as file:
      change(file)

  return run


def replace(file, name, value):
  del file[name]
  file[name] = value


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      change_group(
        lambda f: replace(f, "workflowName", np.bytes_("Object Class."))
      ),
      "found the workflow 'Object Class.', expected 'Pixel Classification'",
    ),
    (
      change_group(lambda f: f.pop("workflowName")),
      "found the workflow 'of no name'",
    ),
    (
      change_group(lambda f: f["PixelClassification"].pop("LabelSets")),
      "found no strokes",
    ),
    (
      change_group(
        lambda f: replace(
          f, "PixelClassification/LabelNames", np.array(list("abcd"), "S")
        )
      ),
      "found 4 labels (a, b, c, d), expected up to 3",
    ),
    (
      change_group(
        lambda f: replace(
          f, "FeatureSelections/SelectionMatrix", np.zeros((6, 7), bool)
        )
      ),
      "found no selected features",
    ),
    (
      change_group(
        lambda f: replace(
          f, "FeatureSelections/SelectionMatrix", np.ones((6, 7), bool)
        )
      ),
      "found LaplacianOfGaussian at 0.3 px",
    ),
    (lambda path: path.write_bytes(b"nothing"), "found unreadable HDF5"),
  ],
)
def test_projects_that_cannot_be_used(tmp_path, change, message, caplog):
  write_study(tmp_path)
  change(tmp_path / "a.ilp")
  line = fail(ilp_flags(tmp_path), caplog)
  assert message in line
  assert line.startswith(str(tmp_path / "a.ilp"))


def test_a_projects_own_forest(tmp_path, caplog):
  write_study(tmp_path)
  flags = ilp_flags(tmp_path, images=None, keep_forest=True)
  assert "found no forest" in fail(flags, caplog)
  oracle.write_forest(tmp_path / "a.ilp", 3 * 8 * 2)
  assert teach_fit.run(flags) == 0
  assert read_teacher(tmp_path / "teacher").view.num_channels == 3
  flags = predict_flags(tmp_path, images=str(tmp_path / "h5"))
  assert teach_predict.run(flags) == 0
  maps = read_maps(tmp_path / "out")["roi2"]
  assert (maps[..., 0].astype(bool)[:, :10]).mean() > 0.9
  assert (maps[..., 2].astype(bool)[:, 15:]).mean() > 0.9


def test_a_forest_that_is_broken(tmp_path, caplog):
  write_study(tmp_path)
  oracle.write_forest(tmp_path / "a.ilp", 48)
  with h5py.File(tmp_path / "a.ilp", "a") as file:
    del file["PixelClassification/ClassifierForests/Forest0/_ext_param/labels"]
  line = fail(ilp_flags(tmp_path, keep_forest=True), caplog)
  assert "a.ilp: found unreadable HDF5" in line


def test_a_forest_of_other_features(tmp_path, caplog):
  write_study(tmp_path)
  oracle.write_forest(tmp_path / "a.ilp", 47)
  line = fail(ilp_flags(tmp_path, keep_forest=True), caplog)
  assert "47 columns, expected a multiple of its features' 16" in line
  line = fail(fit_flags(tmp_path, keep_forest=True), caplog)
  assert "--keep_forest: found" in line


def test_strokes_on_images_of_another_size(tmp_path):
  write_study(tmp_path)
  oracle.write_image(
    tmp_path / "h5" / "roi1.h5", make_stack(1, 3, (30, 30)), "cyx"
  )
  assert teach_fit.run(ilp_flags(tmp_path)) == 1
  (line,) = read_errors(tmp_path / "teacher")
  assert "a.ilp, lane 1 (roi1): found an annotation of (40, 52)" in line


def test_lanes_do_not_share_an_image(tmp_path):
  # Lanes of two folders have one name; roi2 is not there, and begins alike.
  (tmp_path / "h5").mkdir()
  for stem in ("roi1", "tonsil"):
    oracle.write_image(tmp_path / "h5" / f"{stem}.h5", make_stack(0, 3))
  lanes = [
    (f"{path}.h5/img", make_strokes(), 3)
    for path in ("x/roi1", "x/roi2", "x/tonsil", "y/tonsil")
  ]
  oracle.write_project(tmp_path / "a.ilp", lanes)
  assert teach_fit.run(ilp_flags(tmp_path)) == 1
  counts = read_teacher(tmp_path / "teacher").record["pixels"]
  assert list(counts) == [f"{tmp_path}/a.ilp, lane 0 (roi1)"]
  lines = read_errors(tmp_path / "teacher")
  assert sum("lane 1 (roi2): found no image" in line for line in lines) == 1
  assert sum("tonsil.h5 for this lane and for" in line for line in lines) == 2


@pytest.mark.parametrize(
  ("name", "stems", "expected"),
  [
    ("a_1", ["a_10", "a_1"], "a_1"),
    ("a_1_crop", ["a_10_s2", "a_1_s2"], "a_1_s2"),
    ("a_1_crop", ["a_10_s2", "a_12_s2"], None),
    ("b", ["a_1"], None),
    ("a", [], None),
  ],
)
def test_names_that_begin_alike(name, stems, expected):
  sources = [ImageSource(stem, pathlib.Path(stem)) for stem in stems]
  found = match_name(name, sources)
  assert (found and found.stem) == expected


def write_sized(path, data, size_um):
  """Writes a TIFF that tells its pixel size."""
  tifffile.imwrite(
    path,
    data,
    photometric="minisblack",
    resolution=(1e4 / size_um, 1e4 / size_um),
    resolutionunit="CENTIMETER",
  )


@pytest.mark.parametrize("scale", [1, 2])
def test_another_pixel_size_is_told(study, caplog, scale):
  for k, size_um in enumerate((1.0, 1.1, 0.5)):
    stack = make_stack(k).transpose(2, 0, 1)
    write_sized(study / "img" / f"roi{k}.tiff", stack, size_um)
  assert teach_fit.run(fit_flags(study, scale=scale)) == 0
  assert "expected one size" not in caplog.text
  assert read_teacher(study / "teacher").view.pixel_size_um == pytest.approx(
    1.05 / scale
  )
  assert teach_predict.run(predict_flags(study)) == 0
  told = [line for line in caplog.text.splitlines() if "teacher's" in line]
  assert len(told) == 1 and "roi2" in told[0]
  assert "found pixels of 0.5 um, expected the teacher's 1.05 um" in told[0]
  labels = study / "labels"
  write_tiff(labels / "roi2_labels.tiff", make_strokes())
  assert teach_fit.run(fit_flags(study, scale=scale)) == 0
  told = [line for line in caplog.text.splitlines() if "one size" in line]
  assert len(told) == 1 and "found pixels of 0.5 um" in told[0]
