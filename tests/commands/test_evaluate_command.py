"""`evaluate` as its users call it: files, several methods, wrong input."""

import json
import re
import types

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile

from dicexmbd_jax.commands import evaluate
from dicexmbd_jax.io import write

pytestmark = pytest.mark.usefixtures("quick_figures")
KEYS = (
  "f1_iou_0.50",
  "cell_precision",
  "cell_recall",
  "cell_f1",
  "oversplit",
  "merge",
  "pixel_f1",
  "pixel_jaccard",
  "count_pearson",
  "iou_mean",
)
TABLES = ("per_image.csv", "per_cell.csv", "per_marker.csv", "failures.csv")
NAMES = ("DNA1", "CD45", "CD3")
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
1,DNA1,1,1,0
2,CD45,1,0,1
3,CD3,1,0,0
"""


def make_mask(shape=(64, 48), seed=0):
  """Cells of 6 x 6 px on a grid of 8, one in five left out."""
  y, x = np.mgrid[: shape[0], : shape[1]]
  labels = 1 + y // 8 * 100 + x // 8
  labels[(y % 8 > 5) | (x % 8 > 5)] = 0
  ids = np.unique(labels)[1:]
  gone = np.random.default_rng(seed).choice(ids, len(ids) // 5, replace=False)
  labels[np.isin(labels, gone)] = 0
  return labels


def write_mask(path, labels, dtype=np.uint16):
  path.parent.mkdir(parents=True, exist_ok=True)
  tifffile.imwrite(path, labels.astype(dtype))


@pytest.fixture
def study(tmp_path):
  """Four references, masks moved by a pixel, the same masks, and images."""
  for i in range(4):
    labels = make_mask(seed=i)
    write_mask(tmp_path / f"reference/ROI{i}.tiff", labels)
    moved = np.roll(labels, 1, axis=i % 2) * 70
    write_mask(tmp_path / f"moved/ROI{i}.ome.tiff", moved, np.uint32)
    write_mask(tmp_path / f"same/ROI{i}_cp_masks.tif", labels, np.int64)
    counts = np.random.default_rng(i).poisson(5, (*labels.shape, 3))
    stack = (counts * (1 + (labels % 7))[..., None]).astype(np.float32)
    write.write_stack(tmp_path / f"images/ROI{i}.ome.tiff", stack, NAMES)
  (tmp_path / "panel.csv").write_text(PANEL)
  return tmp_path


def call(study, *predicted, **changes):
  values = {
    "predicted": predicted or [str(study / "moved")],
    "reference": str(study / "reference"),
    "output": str(study / "out"),
    "images": None,
    "panel": None,
    "tolerance_px": 1.0,
    "label_components": False,
    "seed": 0,
  }
  return evaluate.run(types.SimpleNamespace(**{**values, **changes}))


def read_summary(study):
  text = (study / "out/summary.json").read_text()
  assert "NaN" not in text
  return json.loads(text)


@pytest.mark.figures
def test_one_folder_gives_every_file(study):
  assert call(study) == 0
  out = study / "out"
  summary = read_summary(study)
  assert set(KEYS) <= set(summary["methods"]["predicted"])
  images = pd.read_csv(out / "per_image.csv")
  assert images["image"].tolist() == ["ROI0", "ROI1", "ROI2", "ROI3"]
  for key in KEYS:
    if key != "count_pearson":
      mean = summary["methods"]["predicted"][key]
      assert mean == pytest.approx(images[key].mean())
      low, high = summary["intervals"]["predicted"][key]
      assert low <= mean + 1e-9
      assert mean <= high + 1e-9
  # 6 x 6 px moved by one: 30 shared of 42.
  assert images["iou_mean"].tolist() == pytest.approx([30 / 42] * 4)
  assert images["f1_iou_0.70"].tolist() == [1.0] * 4
  assert images["f1_iou_0.75"].tolist() == [0.0] * 4
  cells = pd.read_csv(out / "per_cell.csv")
  mine = cells[cells["mask"] == "predicted"]
  assert (mine["id"] == 70 * mine["matched_id"]).all()
  assert set(cells["kind"]) == {"matched"}
  assert pd.read_csv(out / "failures.csv").empty
  figures = {path.stem for path in (out / "figures").glob("*.pdf")}
  assert figures == {path.stem for path in (out / "figures").glob("*.png")}
  assert {"scores", "counts", "heat_map", "ious", "example"} <= figures


@pytest.mark.figures
def test_page_needs_nothing_but_itself(study):
  call(study)
  page = (study / "out/report.html").read_text()
  assert page.count("data:image/png;base64,") == 6
  assert not re.search(r"(src|href)=\"(?!data:)", page)
  assert not re.search("https?:", page)
  assert f"{30 / 42:.3f}" in page


@pytest.mark.figures
def test_methods_are_compared_on_the_same_images(study):
  code = call(study, f"moved={study}/moved", f"same={study}/same")
  assert code == 0
  summary = read_summary(study)
  assert summary["methods"]["same"]["f1_iou_0.95"] == 1.0
  assert summary["methods"]["same"]["aji"] == 1.0
  difference = summary["differences"]["moved - same"]["iou_mean"]
  assert difference["mean"] == pytest.approx(30 / 42 - 1)
  assert difference["num_images"] == 4
  assert (study / "out/figures/differences.pdf").is_file()


@pytest.mark.figures
def test_profiles_are_correlated_where_images_are_given(study):
  code = call(
    study,
    f"moved={study}/moved",
    f"same={study}/same",
    images=str(study / "images"),
    panel=str(study / "panel.csv"),
  )
  assert code == 0
  markers = pd.read_csv(study / "out/per_marker.csv")
  assert len(markers) == 2 * 4 * len(NAMES)
  same = markers[markers["method"] == "same"]
  assert set(same["marker"]) == set(NAMES)
  np.testing.assert_allclose(same["pearson"], 1.0)
  moved = markers[markers["method"] == "moved"]
  assert (moved["pearson"] > 0.9).all()
  assert (moved["pearson"] < 1.0).all()
  methods = read_summary(study)["methods"]
  assert methods["same"]["profile_pearson"] == pytest.approx(1.0)
  assert {"profiles.png", "markers.png"} <= {
    path.name for path in (study / "out/figures").iterdir()
  }
  cells = pd.read_csv(study / "out/per_cell.csv")
  assert cells["profile_pearson"].notna().all()
  # Without images, figures of them are of another evaluation.
  assert call(study) == 0
  names = {path.stem for path in (study / "out/figures").iterdir()}
  assert "scores" in names
  assert not {"profiles", "markers"} & names


@pytest.mark.figures
def test_results_repeat_to_the_byte(study):
  call(study)
  names = ("summary.json", "per_image.csv", "per_cell.csv", "report.html")
  first = {name: (study / "out" / name).read_bytes() for name in names}
  call(study)
  assert first == {name: (study / "out" / name).read_bytes() for name in names}


@pytest.mark.parametrize(
  "mark", ["run.json", "state", "shards", "finetune.json"]
)
def test_results_of_predict_are_not_written_over(study, caplog, mark):
  path = study / "out" / mark
  path.parent.mkdir()
  path.write_text("{}") if mark.endswith(".json") else path.mkdir()
  assert call(study, "masks") == 2
  assert f"({mark}), expected another folder" in caplog.text
  assert list((study / "out").iterdir()) == [path]


def test_an_output_folder_of_predict_stands_for_its_masks(study):
  (study / "run").mkdir()
  (study / "run/run.json").write_text("{}")
  (study / "moved").rename(study / "run/masks")
  assert call(study, str(study / "run")) == 0


def break_reference(study):
  (study / "reference/ROI1.tiff").write_bytes(b"no TIFF")
  return "ROI1", "reference/ROI1.tiff"


def break_mask(study):
  data = (study / "moved/ROI1.ome.tiff").read_bytes()
  (study / "moved/ROI1.ome.tiff").write_bytes(data[: len(data) // 2])
  return "ROI1", "moved/ROI1.ome.tiff"


def cut_mask(study):
  path = study / "moved/ROI1.ome.tiff"
  write_mask(path, make_mask((64, 40)))
  return "ROI1", r"64 x 40 pixels .y, x., expected 64 x 48"


def drop_mask(study):
  (study / "moved/ROI1.ome.tiff").unlink()
  return "ROI1", "found no mask ROI1"


def drop_reference(study):
  (study / "reference/ROI1.tiff").unlink()
  return "ROI1", "found no reference ROI1"


def make_fractions(study):
  tifffile.imwrite(study / "moved/ROI1.ome.tiff", make_mask() / 2.5)
  return "ROI1", "expected whole"


@pytest.mark.parametrize(
  "spoil",
  [
    break_reference,
    break_mask,
    cut_mask,
    drop_mask,
    drop_reference,
    make_fractions,
  ],
)
def test_one_wrong_file_costs_one_image(study, spoil):
  stem, message = spoil(study)
  assert call(study) == 1
  failures = pd.read_csv(study / "out/failures.csv")
  assert failures["image"].tolist() == [stem]
  assert re.search(message, failures["error"][0])
  assert "\n" not in failures["error"][0]
  images = pd.read_csv(study / "out/per_image.csv")
  assert images["image"].tolist() == ["ROI0", "ROI2", "ROI3"]
  assert (study / "out/report.html").is_file()


def test_a_wrong_image_costs_its_profiles_only(study):
  (study / "images/ROI2.ome.tiff").unlink()
  stack = np.ones((64, 40, 3), np.float32)
  write.write_stack(study / "images/ROI3.ome.tiff", stack, NAMES)
  images, panel = str(study / "images"), str(study / "panel.csv")
  assert call(study, images=images, panel=panel) == 1
  table = pd.read_csv(study / "out/per_image.csv").set_index("image")
  assert table["f1_iou_0.50"].notna().all()
  has_profile = table["profile_pearson"].notna()
  assert has_profile.tolist() == [True, True, False, False]


def test_empty_masks_have_their_values(study):
  empty = np.zeros((64, 48))
  write_mask(study / "moved/ROI0.ome.tiff", empty)
  write_mask(study / "moved/ROI1.ome.tiff", empty)
  write_mask(study / "reference/ROI1.tiff", empty)
  write_mask(study / "reference/ROI2.tiff", empty)
  assert call(study) == 0
  images = pd.read_csv(study / "out/per_image.csv")
  assert images["f1_iou_0.50"].tolist() == [0.0, 1.0, 0.0, 1.0]
  assert images["cell_f1"].tolist() == [0.0, 1.0, 0.0, 1.0]
  assert images["iou_mean"].isna().tolist() == [True, True, True, False]


def test_nothing_but_empty_masks_still_gives_a_page(study):
  for folder in ("moved", "reference"):
    for path in (study / folder).iterdir():
      write_mask(path, np.zeros((5, 4)))
  assert call(study) == 0
  methods = read_summary(study)["methods"]
  assert methods["predicted"]["f1_iou_0.50"] == 1.0
  assert methods["predicted"]["count_pearson"] is None
  assert (study / "out/report.html").is_file()


def test_no_pair_at_all_still_says_why(study):
  for path in (study / "moved").iterdir():
    path.rename(path.with_name("x" + path.name))
  assert call(study) == 1
  assert len(pd.read_csv(study / "out/failures.csv")) == 8
  for name in TABLES[:3]:
    assert pd.read_csv(study / "out" / name).empty
  assert "found no mask ROI0" in (study / "out/report.html").read_text()


@pytest.mark.parametrize(
  "changes",
  [
    {"reference": "nowhere"},
    {"predicted": ["nowhere"]},
    {"predicted": ["a=nowhere"]},
    {"predicted": ["one", "two"]},
    {"predicted": ["a=moved", "a=same"]},
    {"predicted": ["../a=moved"]},
    {"predicted": ["a="]},
    {"panel": "panel.csv"},
    {"tolerance_px": -1.0},
    {"tolerance_px": float("nan")},
    {"images": "images", "panel": "nowhere.csv"},
    {"output": "panel.csv/out"},
  ],
)
def test_a_wrong_call_gets_code_two(study, monkeypatch, changes, caplog):
  monkeypatch.chdir(study)
  assert call(study, **changes) == 2
  assert not (study / "out").exists()


def test_a_path_with_an_equals_sign_is_a_path(study, monkeypatch):
  monkeypatch.chdir(study)
  (study / "moved").rename(study / "run=1")
  assert call(study, "run=1") == 0
  assert list(read_summary(study)["methods"]) == ["predicted"]


@pytest.mark.real
def test_real_masks_of_two_tools(real_data, tmp_path):
  data = real_data / "imc_testdata"
  code = call(
    tmp_path,
    str(data / "masks_deepcell"),
    reference=str(data / "masks_ilastik"),
    images=str(data / "img"),
    panel=str(data / "panel.csv"),
  )
  assert code == 0
  images = pd.read_csv(tmp_path / "out/per_image.csv")
  assert len(images) == 15
  assert 0.1 < images["f1_iou_0.50"].mean() < 0.6
  markers = pd.read_csv(tmp_path / "out/per_marker.csv")
  assert markers["pearson"].max() <= 1.0


def write_pngs(folder, labels_of, colour=False):
  folder.mkdir()
  for i in range(4):
    labels = labels_of(i)
    if colour:
      table = np.random.default_rng(0).permutation(2**24 - 2)[: 2**12] + 1
      codes = np.where(labels > 0, table[labels], 0)
      pixels = np.stack([codes >> 16, codes >> 8, codes], axis=-1) & 255
      picture = PIL.Image.fromarray(pixels.astype(np.uint8))
    else:
      picture = PIL.Image.fromarray(labels.astype(np.uint16))
    picture.save(folder / f"ROI{i}_cp_masks.png")


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("pattern", ["", "/*.png", "/ROI?_cp_masks.png"])
def test_png_masks(study, colour, pattern):
  folder = study / "png"
  write_pngs(folder, lambda i: make_mask(seed=i), colour)
  (folder / "sub").mkdir()
  write_mask(folder / "sub/ROI0.tiff", make_mask(seed=3))
  assert call(study, f"{folder}{pattern}") == 0
  table = pd.read_csv(study / "out/per_image.csv")
  assert table["f1_iou_0.50"].tolist() == [1, 1, 1, 1]
  assert call(study, f"{study}/same", reference=f"{folder}{pattern}") == 0


def test_two_files_are_a_pair_whatever_their_names(study):
  labels = make_mask(seed=0)
  PIL.Image.fromarray(labels.astype(np.uint16)).save(study / "drawn.png")
  assert (
    call(
      study, f"{study}/same/ROI0_cp_masks.tif", reference=f"{study}/drawn.png"
    )
    == 0
  )
  table = pd.read_csv(study / "out/per_image.csv")
  assert table["image"].tolist() == ["drawn"]
  assert table["f1_iou_0.50"].tolist() == [1]


def test_png_beside_tiff_are_left_out_and_told(study, caplog):
  caplog.set_level("INFO")
  PIL.Image.new("RGB", (9, 9)).save(study / "same/ROI0_overlay.png")
  assert call(study, f"{study}/same") == 0
  assert "1 .png left out beside images" in caplog.text


@pytest.mark.parametrize("value", [1, 255])
def test_binary_masks_are_refused_and_their_pieces_taken(study, value):
  write_pngs(study / "binary", lambda i: (make_mask(seed=i) > 0) * value)
  assert call(study, f"{study}/binary") == 1
  table = pd.read_csv(study / "out/failures.csv")
  assert len(table) == 4
  assert re.fullmatch(
    r".*/binary/ROI0_cp_masks\.png: found one id in \d+ pieces, expected one "
    "id for each cell: not an instance mask; --label_components takes each "
    "piece for a cell",
    table["error"][0],
  )
  assert call(study, f"{study}/binary", label_components=True) == 0
  table = pd.read_csv(study / "out/per_image.csv")
  assert table["f1_iou_0.50"].tolist() == [1, 1, 1, 1]
  assert (
    call(
      study,
      f"{study}/same",
      reference=f"{study}/binary",
      label_components=True,
    )
    == 0
  )
  assert pd.read_csv(study / "out/per_image.csv")["cell_f1"].tolist() == [1] * 4


def test_temporary_files_of_killed_runs_are_removed(study):
  (study / "out/figures").mkdir(parents=True)
  (study / "out/.summary.json.0123abcd.tmp").write_text("cut")
  (study / "out/figures/.a.png.0123abcd.tmp").write_text("cut")
  assert call(study, f"{study}/same") == 0
  assert not list((study / "out").rglob("*.tmp"))


def test_a_marker_that_is_no_number_is_told(study):
  path = study / "images/ROI1.ome.tiff"
  stack = np.moveaxis(tifffile.imread(path), 0, -1).astype(np.float32)
  stack[3, 4, 2] = np.nan
  write.write_stack(path, stack, NAMES)
  more = {"images": str(study / "images"), "panel": str(study / "panel.csv")}
  assert call(study, **more) == 1
  failures = pd.read_csv(study / "out/failures.csv")
  assert len(failures) == 1
  assert "found NaN or infinite CD3" in str(failures.iloc[0].to_dict())


def test_images_may_be_a_file_for_each_channel(study):
  for i in range(4):
    stack = tifffile.imread(study / f"images/ROI{i}.ome.tiff")
    for name, plane in zip(NAMES, stack, strict=True):
      path = study / f"planes/ROI{i}/{name}.tiff"
      path.parent.mkdir(parents=True, exist_ok=True)
      tifffile.imwrite(path, plane)
  tables = []
  for folder in ("images", "planes"):
    more = {"images": str(study / folder), "panel": str(study / "panel.csv")}
    assert call(study, **more) == 0
    tables.append((study / "out/per_marker.csv").read_bytes())
  assert tables[0] == tables[1]


@pytest.mark.parametrize("tolerance_px", [-1.0, np.inf, np.nan])
def test_a_tolerance_that_is_no_distance(study, tolerance_px):
  with pytest.raises(ValueError, match="--tolerance_px: found"):
    evaluate.Request({}, "a", study, tolerance_px=tolerance_px)
