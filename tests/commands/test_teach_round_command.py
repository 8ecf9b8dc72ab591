import json
import types

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image as pillow

from configs.default import get_config
from dicexmbd_jax.__main__ import parse_flags
from dicexmbd_jax.commands import segment, teach_round
from dicexmbd_jax.io import write
from dicexmbd_jax.teach import drawings
from dicexmbd_jax.teach.teacher_folder import read_teacher

SHAPE = (40, 52)


def make_flags(folder, **overrides):
  flags = {
    "images": str(folder / "img"),
    "panel": None,
    "strokes": None,
    "output": str(folder / "out"),
    "seed": 0,
    "num_images": 2,
    "num_crops": 1,
    "crop_px": 16,
    "num_workers": 0,
    "config": get_config(),
  }
  return types.SimpleNamespace(**(flags | overrides))


@pytest.fixture
def folder(tmp_path):
  """Three images: nuclei left, membranes in the middle, nothing right."""
  for k, stem in enumerate("abc"):
    rng = np.random.default_rng(k)
    thirds = np.floor(np.linspace(0, 2.999, SHAPE[1]))
    levels = np.stack([30 * (thirds == 0) + 2, 30 * (thirds == 1) + 2], -1)
    stack = rng.poisson(np.broadcast_to(levels, (*SHAPE, 2)))
    path = tmp_path / "img" / f"{stem}.ome.tiff"
    names = ["nuclear", "membrane"]
    write.write_stack(path, stack.astype(np.float32), names)
  return tmp_path


def paint(path, row=5):
  strokes = tifffile.imread(path)
  for k in range(3):
    strokes[row, k * 17 + 5 : k * 17 + 12] = k + 1
  write.write_strokes(path, strokes)


def test_the_same_call_again_is_the_loop(folder, caplog):
  caplog.set_level("INFO")
  out = folder / "out"
  # Before the first stroke: what to paint on.
  assert teach_round.run(make_flags(folder)) == 0
  start = out / "round_00"
  assert sorted(one.name for one in (start / "templates").iterdir()) == [
    "a.tiff",
    "c.tiff",
    "classes.csv",
  ]
  with tifffile.TiffFile(start / "images" / "a.ome.tiff") as file:
    assert "membrane" in file.ome_metadata
  assert pillow.open(start / "pictures" / "a.png").size == SHAPE[::-1]
  assert "no strokes yet: paint" in caplog.text
  assert not (out / "teacher" / "teacher.json").exists()
  # The first round.
  paint(start / "templates" / "a.tiff")
  assert teach_round.run(make_flags(folder)) == 0
  assert read_teacher(out / "teacher").record["pixels"]
  for kind in ("probabilities", "uncertainty", "nuclei", "masks"):
    assert [one.stem for one in sorted((out / kind).iterdir())] == list("abc")
  maps = tifffile.imread(out / "probabilities" / "b.tiff")
  assert (maps[:, 3:12].argmax(axis=2) == 0).mean() > 0.9
  assert (out / "overlays" / "b.png").exists()
  first = out / "round_01"
  table = pd.read_csv(out / "curve.csv")
  assert table["round"].tolist() == [1]
  assert not table["stop"][0]
  assert pillow.open(out / "curve.png").size == (600, 360)
  templates = sorted(one.stem for one in (first / "templates").glob("*.tiff"))
  assert "a" in templates  # Painted, and so kept for the next round.
  drawn = tifffile.imread(first / "templates" / "a.tiff")
  np.testing.assert_array_equal(
    drawn, tifffile.imread(start / "templates" / "a.tiff")
  )
  # Nothing was painted: the same round again, and nothing is done anew.
  before = (out / "masks" / "b.tiff").stat().st_mtime_ns
  assert teach_round.run(make_flags(folder)) == 0
  assert (out / "masks" / "b.tiff").stat().st_mtime_ns == before
  assert len(pd.read_csv(out / "curve.csv")) == 1
  # The second round; what is painted in its templates stays.
  chosen = next(one for one in templates if one != "a")
  paint(first / "templates" / f"{chosen}.tiff", 20)
  assert teach_round.run(make_flags(folder)) == 0
  assert len(pd.read_csv(out / "curve.csv")) == 2
  assert (out / "round_02" / "templates" / f"{chosen}.tiff").exists()
  counts = read_teacher(out / "teacher").record["pixels"]
  assert list(counts.values()) == [[7, 7, 7]] * 2


def test_no_round_is_written_over_results_of_predict(folder, caplog):
  out = folder / "out"
  out.mkdir()
  (out / "run.json").write_text("{}")
  assert teach_round.run(make_flags(folder)) == 2
  assert caplog.messages == [
    f"--output: found results of predict in {out} (run.json), expected another "
    f"folder, such as {out}/taught"
  ]
  assert [path.name for path in out.iterdir()] == ["run.json"]


def test_round_100_is_later_than_round_99(folder):
  out = folder / "out"
  for number in (10, 11, 99, 100):
    path = out / f"round_{number:02d}" / "templates" / "a.tiff"
    write.write_strokes(path, np.zeros(SHAPE, np.uint8))
    paint(path, 5 if number < 100 else 20)
    write.write_text(path.parent / drawings.LEGEND_FILE, drawings.LEGEND_TEXT)
  rows = [f"{k},a,{0.9 - k / 1000}" for k in range(1, 101)]
  write.write_text(
    out / "history.csv", "\n".join(["round,image,uncertainty", *rows, ""])
  )
  assert teach_round.run(make_flags(folder)) == 0
  [shown] = read_teacher(out / "teacher").record["pixels"]
  assert "/round_100/" in shown
  drawn = tifffile.imread(out / "round_101" / "templates" / "a.tiff")
  assert drawn[20].any()
  assert not drawn[5].any()


def test_masks_are_those_of_segment(folder):
  write_strokes(folder)
  out, again = folder / "out", folder / "again"
  words = [f"--images={folder}/img", f"--strokes={folder}/strokes"]
  words += [f"--output={out}", "--num_workers=0"]
  assert teach_round.run(parse_flags("teach round", words)) == 0
  words = [f"--probabilities={out}/probabilities", f"--output={again}"]
  words += ["--num_workers=0"]
  assert segment.run(parse_flags("segment", words)) == 0
  for kind in ("masks", "nuclei"):
    first, second = (
      (folder / name / kind / "b.tiff").read_bytes()
      for name in ("out", "again")
    )
    assert first == second


def write_strokes(folder):
  """In colours, as GIMP saves them."""
  strokes = np.zeros(SHAPE, np.uint8)
  for k in range(3):
    strokes[5, k * 17 + 5 : k * 17 + 12] = k + 1
  colours = np.vstack([np.zeros(3), 255 * np.eye(3)]).astype(np.uint8)
  write.write_png(folder / "strokes" / "a.png", colours[strokes])


def test_one_bad_drawing_does_not_stop_the_round(folder):
  write_strokes(folder)
  (folder / "strokes" / "b.xcf").write_bytes(b"gimp xcf")
  flags = make_flags(folder, strokes=str(folder / "strokes"))
  assert teach_round.run(flags) == 1
  table = pd.read_csv(folder / "out" / "teacher" / "failures.csv")
  assert "in GIMP: File > Export As" in table["error"][0]
  assert (folder / "out" / "masks" / "c.tiff").exists()


def test_templates_that_somebody_paints_are_kept(folder):
  write_strokes(folder)
  flags = make_flags(folder, strokes=str(folder / "strokes"))
  assert teach_round.run(flags) == 0
  path = folder / "out" / "round_01" / "templates" / "a.tiff"
  paint(path, 30)
  mine = path.read_bytes()
  assert teach_round.run(flags) == 0
  assert path.read_bytes() == mine


def damage_image(path):
  path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), damage_image])
def test_strokes_outlive_a_round_without_their_image(folder, lose):
  out, image = folder / "out", folder / "img/a.ome.tiff"
  assert teach_round.run(make_flags(folder)) == 0
  for stem, row in (("a", 5), ("c", 15)):
    paint(out / f"round_00/templates/{stem}.tiff", row)
  mine = tifffile.imread(out / "round_00/templates/a.tiff")
  data = image.read_bytes()
  lose(image)
  assert teach_round.run(make_flags(folder)) == 1
  found = tifffile.imread(out / "round_01/templates/a.tiff")
  np.testing.assert_array_equal(found, mine)
  image.write_bytes(data)
  assert teach_round.run(make_flags(folder)) == 0
  counts = read_teacher(out / "teacher").record["pixels"]
  assert list(counts.values()) == [[7, 7, 7]] * 2
  found = tifffile.imread(out / "round_02/templates/a.tiff")
  np.testing.assert_array_equal(found, mine)


def stop_in(monkeypatch, function):
  """Lets a call end as if killed, where it has called a function once."""
  real = getattr(teach_round, function)
  calls = []

  def call(*arguments):
    if calls:
      raise KeyboardInterrupt
    calls.append(arguments)
    return real(*arguments)

  monkeypatch.setattr(teach_round, function, call)


def test_a_call_that_was_stopped_loses_no_strokes(folder, monkeypatch):
  out = folder / "out"
  flags = make_flags(folder, num_images=3)
  assert teach_round.run(flags) == 0
  for row, stem in enumerate("abc"):
    paint(out / f"round_00/templates/{stem}.tiff", 5 + 10 * row)
  legend = drawings.LEGEND_TEXT + "mine,#123456,1\n"
  (out / "round_00/templates/classes.csv").write_text(legend)
  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    stop_in(patched, "keep_strokes")
    teach_round.run(make_flags(folder, num_images=1))
  templates = out / "round_01/templates"
  assert len(list(templates.iterdir())) == 2
  assert teach_round.run(flags) == 0
  assert len(read_teacher(out / "teacher").record["pixels"]) == 3
  for stem in "abc":
    np.testing.assert_array_equal(
      tifffile.imread(templates / f"{stem}.tiff"),
      tifffile.imread(out / f"round_00/templates/{stem}.tiff"),
    )
  assert (templates / "classes.csv").read_text() == legend


def test_a_stopped_call_with_strokes_is_told(folder, monkeypatch, caplog):
  write_strokes(folder)
  flags = make_flags(folder, strokes=str(folder / "strokes"))
  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(teach_round, "write_places", interrupt)
    teach_round.run(flags)
  assert teach_round.run(make_flags(folder)) == 2
  assert "templates: found no classes.csv" in caplog.text
  assert teach_round.run(flags) == 0
  assert teach_round.run(make_flags(folder)) == 0


def interrupt(*arguments):
  raise KeyboardInterrupt


def test_strokes_that_do_not_fit_stay_and_are_told_each_time(folder):
  out = folder / "out"
  write_strokes(folder)
  flags = make_flags(folder, strokes=str(folder / "strokes"), num_images=3)
  assert teach_round.run(flags) == 0
  path = out / "round_01/templates/b.tiff"
  mine = np.zeros((9, 9), np.uint8)
  mine[2] = 2
  write.write_strokes(path, mine)
  for number in (2, 3):
    paint(out / f"round_{number - 1:02d}/templates/c.tiff", 10 * number)
    assert teach_round.run(make_flags(folder, num_images=3)) == 1
    table = pd.read_csv(out / "teacher/failures.csv")
    assert table["image"].tolist() == ["b"]
    found = tifffile.imread(out / f"round_{number:02d}/templates/b.tiff")
    np.testing.assert_array_equal(found, mine)


def test_drawings_of_any_program_outlive_a_round_and_empty_ones_go(folder):
  zarr = pytest.importorskip("zarr")
  out = folder / "out"
  assert teach_round.run(make_flags(folder)) == 0
  templates = out / "round_00/templates"
  paint(templates / "a.tiff")
  write.write_strokes(templates / "empty.tiff", np.zeros(SHAPE, np.uint8))
  line = {"type": "LineString", "coordinates": [[2, 3], [9, 3]]}
  kind = {"classification": {"name": "nucleus"}}
  text = json.dumps([{"geometry": line, "properties": kind}])
  (templates / "gone.geojson").write_text(text)
  path = templates / "away.zarr"
  array = zarr.open(path, mode="w", shape=SHAPE, dtype="u1")
  array[5, 5:12] = 1
  assert teach_round.run(make_flags(folder)) == 1
  kept = out / "round_01/templates"
  assert (kept / "gone.geojson").read_text() == text
  assert int(zarr.open(kept / "away.zarr", mode="r")[...].sum()) == 7
  assert not (kept / "empty.tiff").exists()
  # The same round again: what lies there is not doubled under a shorter name.
  (kept / "away.zarr").rename(kept / "away.ome.zarr")
  assert teach_round.run(make_flags(folder)) == 1
  assert not (out / "round_02").exists()
  assert not (kept / "away.zarr").exists()


def test_drawings_that_are_refused_are_told_each_round(folder):
  out = folder / "out"
  assert teach_round.run(make_flags(folder)) == 0
  templates = out / "round_00/templates"
  write_strokes(folder)
  # As GIMP exports it, beside the template of this name.
  mine = (folder / "strokes/a.png").read_bytes()
  (templates / "a.png").write_bytes(mine)
  (templates / "b.xcf").write_bytes(b"gimp xcf")
  paint(templates / "c.tiff")
  kept = out / "round_01/templates"
  for _ in range(2):
    assert teach_round.run(make_flags(folder, num_images=3)) == 1
    assert (kept / "a.png").read_bytes() == mine
    text = (out / "teacher/failures.csv").read_text()
    assert "another image named a" in text
    assert "b.xcf: found" in text
  (kept / "a.tiff").unlink()
  (kept / "b.xcf").unlink()
  assert teach_round.run(make_flags(folder)) == 0
  counts = read_teacher(out / "teacher").record["pixels"]
  assert list(counts.values()) == [[7, 7, 7]] * 2


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"num_images": 0}, "--num_images: found 0, expected 1 or more"),
    ({"strokes": "a.ilp"}, "--strokes: found a.ilp, expected drawings"),
    ({"images": "nowhere"}, "nowhere: found no such file"),
    ({"strokes": "nowhere"}, "nowhere: found no such file"),
  ],
)
def test_wrong_calls(folder, overrides, message, caplog):
  assert teach_round.run(make_flags(folder, **overrides)) == 2
  assert message in caplog.text


def test_the_legend_goes_along(folder):
  write_strokes(folder)
  legend = drawings.LEGEND_TEXT + "mine,#123456,1\n"
  (folder / "strokes" / "classes.csv").write_text(legend)
  flags = make_flags(folder, strokes=str(folder / "strokes"))
  assert teach_round.run(flags) == 0
  path = folder / "out" / "round_01" / "templates" / "classes.csv"
  assert path.read_text() == legend


def test_images_that_are_not_there_leave_no_folder(folder, caplog):
  flags = make_flags(folder, images=str(folder / "nowhere"))
  assert teach_round.run(flags) == 2
  assert "nowhere: found" in caplog.text
  assert not (folder / "out").exists()


def test_images_are_listed_once_a_round(folder, monkeypatch):
  calls = []
  listing = teach_round.inputs.list_inputs

  def count(pattern):
    calls.append(pattern)
    return listing(pattern)

  for module in (teach_round.inputs, teach_round.fit):
    monkeypatch.setattr(module, "list_inputs", count)
  assert teach_round.run(make_flags(folder)) == 0
  assert len(calls) == 1
  paint(folder / "out/round_00/templates/a.tiff")
  assert teach_round.run(make_flags(folder)) == 0
  assert len(calls) == 2
