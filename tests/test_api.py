"""The public API: what it gives, and what it refuses."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import cellprofiler
import numpy as np
import pandas as pd
import pytest
import tifffile

import dicexmbd_jax as dx
from dicexmbd_jax import __main__ as program
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.simulate import study

ROOT = pathlib.Path(__file__).resolve().parents[1]
FAST = {"predict.views": 1, "predict.tile_px": 208}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """One simulated image, and what the command line makes of it."""
  folder = tmp_path_factory.mktemp("api")
  list(study.simulate_study(folder, num_images=1, seed=3, size_px=120))
  words = ["predict", f"--images={folder / 'img'}", "--num_workers=0"]
  words += [f"--panel={folder / 'panel.csv'}", f"--output={folder / 'out'}"]
  words += [f"--config.{name}={value}" for name, value in FAST.items()]
  assert program.main(words) == 0
  return folder


@pytest.fixture(scope="module")
def segmenter():
  return dx.Segmenter(settings=FAST)


@pytest.fixture(scope="module")
def image(folder):
  return dx.read_image(folder / "img" / "ROI001.tiff", folder / "panel.csv")


def call(segmenter, image, **changes):
  arguments = {
    "stack": image.stack,
    "nuclear": image.nuclear,
    "membrane": image.membrane,
    "names": image.names,
    "axes": "YXC",
  }
  return segmenter.segment(**(arguments | changes))


def test_cells_are_those_of_the_command_line(segmenter, image, folder):
  cells = call(segmenter, image)
  for kind, found in (("masks", cells.masks), ("nuclei", cells.nuclei)):
    expected = tifffile.imread(folder / "out" / kind / "ROI001.tiff")
    np.testing.assert_array_equal(found, expected)
  maps = tifffile.imread(folder / "out/probabilities/ROI001.tiff")
  np.testing.assert_array_equal(np.rint(cells.probabilities * 65535), maps)
  assert cells.masks.dtype == cells.nuclei.dtype == np.int32
  assert cells.masks.max() > 20
  for kind in ("intensities", "regionprops"):
    expected = pd.read_csv(folder / "out" / kind / "ROI001.csv")
    pd.testing.assert_frame_equal(cells.table[list(expected)], expected)


def test_channels_by_name_and_any_order_of_axes(segmenter, image):
  expected = call(segmenter, image).masks
  nuclear = [image.names[k] for k in image.nuclear]
  membrane = [image.names[k] for k in image.membrane]
  stack = image.stack.transpose(2, 1, 0).astype(">f8")[:, ::-1][:, ::-1]
  stack.flags.writeable = False
  found = call(
    segmenter,
    image,
    stack=stack,
    nuclear=nuclear,
    membrane=membrane,
    axes="cxy",
  )
  np.testing.assert_array_equal(found.masks, expected)


def test_the_function_is_the_class_used_once(segmenter, image):
  found = dx.segment(
    image.stack,
    image.nuclear,
    image.membrane,
    image.names,
    axes="YXC",
    settings=FAST,
  )
  expected = call(segmenter, image)
  np.testing.assert_array_equal(found.masks, expected.masks)


def test_maps_alone_give_the_same_masks(segmenter, image):
  cells = call(segmenter, image)
  assert cells.map_pixel_size_um == 1 / cells.magnification
  grid = {
    "pixel_size_um": cells.map_pixel_size_um,
    "shape": cells.masks.shape,
  }
  scale = {"segment.map_scale": cells.map_scale}
  again = dx.segment_probabilities(cells.probabilities, settings=scale, **grid)
  np.testing.assert_array_equal(again.masks, cells.masks)
  assert list(again.table["Object"]) == list(cells.table["Object"])
  parted = dx.segment_probabilities(
    cells.probabilities,
    settings={"segment.preset": "dice_xmbd", **scale},
    **grid,
  )
  assert (parted.masks != cells.masks).any()


@pytest.mark.parametrize("network_um", [2.0, 0.8, 0.5])
def test_maps_of_any_network_tell_their_pixels(image, network_um):
  own = FAST | {"image.pixel_size_um": network_um}
  own |= {"predict.magnification": 1.3, "segment.max_growth_um": 2.0}
  cells = call(dx.Segmenter(settings=own), image)
  if cells.map_scale > 1:
    own["segment.map_scale"] = cells.map_scale
  again = dx.segment_probabilities(
    cells.probabilities, cells.map_pixel_size_um, own, cells.masks.shape
  )
  np.testing.assert_array_equal(again.masks, cells.masks)
  assert again.map_scale == cells.map_scale
  assert again.map_pixel_size_um == cells.map_pixel_size_um


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"shape": (60, 40)}, r"shape: found \(60, 40\) for maps of \(40, 60\)"),
    ({"shape": (40, 60, 3)}, "shape: found .* expected rows and columns"),
    ({"shape": (0, 60)}, "shape: found .* expected rows and columns"),
    ({"shape": (40.0, 60.0)}, "shape: found .* expected rows and columns"),
    ({"pixel_size_um": np.inf}, "pixel_size_um: found inf"),
    ({"pixel_size_um": 650}, "pixel_size_um: found 650, expected 0.05 to"),
    ({"pixel_size_um": 0}, "pixel_size_um: found 0"),
    ({"pixel_size_um": np.nan}, "pixel_size_um: found nan"),
    ({"probabilities": np.eye(60, dtype=np.uint8)[:40, :, None].repeat(3, 2)},
     "these look like counts"),
    ({"probabilities": np.ma.masked_less(np.zeros((40, 60, 3)) + 0.3, 0.4)},
     "probabilities: found 7200 masked values, expected none"),
  ],
)  # fmt: skip
def test_maps_that_cannot_be_meant_are_refused(changes, words):
  arguments = {"probabilities": np.full((40, 60, 3), np.float32(0.3))}
  with pytest.raises(ValueError, match=words):
    dx.segment_probabilities(**(arguments | changes))


@pytest.mark.parametrize("shape", [(40, 60), (20, 30), (80, 120), (81, 119)])
def test_masks_have_any_shape_of_the_same_field(shape):
  maps = np.full((40, 60, 3), np.float32(0.3))
  found = dx.segment_probabilities(maps, shape=shape)
  assert found.masks.shape == shape


def test_masked_values_are_refused(segmenter, tmp_path):
  stack = np.ma.masked_equal(STACK, 2)  # None is masked.
  assert segmenter.segment(stack, [0], [1]).masks.shape == (20, 30)
  stack[0, 3:5] = np.ma.masked
  with pytest.raises(ValueError, match="stack: found 60 masked values"):
    segmenter.segment(stack, [0], [1])
  mask = np.ma.masked_equal(np.kron(np.eye(2, dtype=int), np.ones((4, 4))), 1)
  whole = np.kron([[1, 2], [3, 4]], np.ones((4, 4), int))
  with pytest.raises(ValueError, match="reference: found 32 masked values"):
    dx.evaluate(whole, mask)
  with pytest.raises(ValueError, match="known: found 32 masked values"):
    dx.evaluate(whole, whole, known=mask)
  images = {"a": np.ones((2, 8, 8))}
  with pytest.raises(ValueError, match="masks: a: found 32 masked values"):
    dx.finetune(images, {"a": mask}, tmp_path, [0], [1])


def test_masks_are_scored(segmenter, image, folder):
  truth = tifffile.imread(folder / "truth" / "masks" / "ROI001.tiff")
  cells = call(segmenter, image)
  assert dx.evaluate(truth, truth)["f1_iou_0.50"] == 1
  assert 0.5 < dx.evaluate(cells.masks, truth)["f1_iou_0.50"] < 1


STACK = np.ones((3, 20, 30), np.float32)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"axes": "CZYX"}, "axes: found 'CZYX'"),
    ({"axes": "CCY"}, "axes: found 'CCY'"),
    ({"axes": "YXC"}, r"axes: found 30 channels .* \(3, 20, 30\)"),
    (
      {"axes": "YXC", "names": ["a", "b", "c"]},
      "names: found 3 .* expected 30",
    ),
    ({"names": ["a", "b"]}, "names: found 2"),
    ({"names": ["a", "b", "a"]}, "names: found 'a' twice"),
    ({"nuclear": []}, "nuclear: found no channel"),
    ({"nuclear": [3]}, "nuclear: found channel 3, expected 0 to 2"),
    ({"nuclear": [-1]}, "nuclear: found channel -1"),
    ({"nuclear": [True]}, "nuclear: found True"),
    ({"nuclear": [0.0]}, "nuclear: found 0.0"),
    ({"nuclear": [0, 0]}, "nuclear: found a channel twice"),
    ({"membrane": ["CD45"]}, "membrane: found 'CD45', expected one of channel"),
    ({"stack": STACK[0]}, r"stack: found shape \(20, 30\)"),
    ({"stack": STACK[:, :0]}, r"stack: found shape \(3, 0, 30\)"),
    ({"stack": -STACK}, "negative"),
    ({"stack": STACK * np.nan}, "NaN"),
    ({"pixel_size_um": 0}, "pixel_size_um"),
  ],
)
def test_what_cannot_be_meant_is_refused(segmenter, changes, words):
  arguments = {"stack": STACK, "nuclear": [0], "membrane": [1]}
  with pytest.raises(ValueError, match=words):
    segmenter.segment(**(arguments | changes))


@pytest.mark.parametrize("dtype", [bool, complex, object, "U3"])
def test_stacks_of_other_than_real_numbers_are_refused(segmenter, dtype):
  with pytest.raises(TypeError, match="stack: found values of type"):
    segmenter.segment(STACK.astype(dtype), [0])


def test_settings_that_there_are_not_are_refused():
  with pytest.raises(ValueError, match="segment.max_grwth"):
    dx.Segmenter(settings={"segment.max_grwth": 1})


def test_importing_loads_neither_jax_nor_numpy():
  code = (
    "import sys, dicexmbd_jax as dx; dir(dx);"
    "print([n for n in ('jax', 'numpy') if n in sys.modules])"
  )
  found = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  assert found.stdout.strip() == "[]"


def read_text(output):
  """Returns an output's words without its numbers, and the numbers."""
  text = "".join(output.get("text") or output["data"]["text/plain"])
  words, number = re.sub(r"\s+", " ", text), r"\d+\.\d+|\d+"
  return re.sub(number, "#", words), [
    float(n) for n in re.findall(number, words)
  ]


def test_the_notebook_gives_what_it_shows():
  path = ROOT / "launch" / "notebook.py"
  spec = importlib.util.spec_from_file_location("notebook", path)
  runner = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(runner)
  notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
  shown = [c["outputs"] for c in notebook["cells"] if c["cell_type"] == "code"]
  found = runner.run_cells(notebook)
  assert [len(outputs) for outputs in found] == [len(one) for one in shown]
  for old, new in zip(sum(shown, []), sum(found, []), strict=True):
    (words, numbers), (new_words, new_numbers) = read_text(old), read_text(new)
    assert new_words == words
    # Another processor may round a few pixels to another side.
    np.testing.assert_allclose(new_numbers, numbers, rtol=0.05)
  pictures = [
    o for one in found for o in one if "image/png" in o.get("data", {})
  ]
  assert len(pictures) == 1


def test_maps_in_another_order_are_told():
  maps = cellprofiler.draw_rings()
  assert dx.segment_probabilities(maps).warnings == ()
  (line,) = dx.segment_probabilities(maps[..., [1, 0, 2]]).warnings
  assert line.endswith("are the maps membrane,nucleus,background?")


def test_what_is_not_known_counts_in_no_score():
  reference = np.zeros((8, 16), np.int32)
  reference[1:4, 1:4] = 1
  predicted = reference.copy()
  predicted[1:4, 10:13] = 2
  known = np.zeros(reference.shape, bool)
  known[:, :8] = True
  assert dx.evaluate(predicted, reference)["f1_iou_0.50"] < 1
  assert dx.evaluate(predicted, reference, known=known)["f1_iou_0.50"] == 1
  with pytest.raises(ValueError, match="known: found shape"):
    dx.evaluate(predicted, reference, known=known[1:])
  with pytest.raises(ValueError, match="predicted: found shape"):
    dx.evaluate(predicted, reference[1:], known=known)
  for wrong, line in (
    (np.where(known, 1, np.nan), "NaN"),
    (known.astype(str), "<U5"),
  ):
    with pytest.raises(ValueError, match=f"known: found {line}"):
      dx.evaluate(predicted, reference, known=wrong)


def test_masks_are_checked_before_what_is_known_of_them():
  cells = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((10, 10), np.int32))
  cells[np.arange(40) % 10 > 5] = 0
  cells[:, np.arange(40) % 10 > 5] = 0
  known = np.zeros(cells.shape, bool)
  known[:8, :8] = True
  binary = (cells > 0).astype(np.uint8)
  with pytest.raises(ValueError, match="predicted: found one id in 16 pieces"):
    dx.evaluate(binary, binary, known=known)
  torn = cells.copy()
  torn[6, 6] = 1  # A crumb of the only cell that is known.
  assert dx.evaluate(torn, torn, known=known)["num_reference"] == 1
  for wrong, line in ((cells.astype(float), "float64"), (cells - 1, "id -1")):
    with pytest.raises(ValueError, match=f"predicted: found {line}"):
      dx.evaluate(wrong, cells, known=known)
  for tolerance_px in (-1, np.nan, np.inf, "1", None):
    with pytest.raises(ValueError, match="tolerance_px: found"):
      dx.evaluate(cells, cells, tolerance_px=tolerance_px)


def test_finetune_wants_a_mask_for_each_image(tmp_path):
  stack = np.ones((2, 8, 8), np.float32)
  with pytest.raises(ValueError, match="masks: found b without its image"):
    dx.finetune(
      {"a": stack, "b": stack}, {"a": stack[0].astype(int)}, tmp_path, [0]
    )
  with pytest.raises(ValueError, match="labels: found 'rims'"):
    dx.finetune({}, {}, tmp_path, [0], labels="rims")


def test_finetune_refuses_what_the_command_refuses(tmp_path):
  stack = np.ones((2, 32, 32), np.float32)
  cells = np.kron(np.arange(4).reshape(2, 2), np.ones((16, 16), int))
  shipped = config_lib.SHIPPED_MODEL

  def finetune(mask=cells, output=tmp_path / "new", **more):
    return dx.finetune({"a": stack}, {"a": mask}, output, [0], **more)

  with pytest.raises(ValueError, match="the model to start from"):
    finetune(output=shipped)
  for name in ("img", "masks", "state", "run.json", "images.csv"):
    (tmp_path / f"of_{name}" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="found something else in"):
      finetune(output=tmp_path / f"of_{name}")
  with pytest.raises(ValueError, match="minutes: found -1"):
    finetune(minutes=-1)
  with pytest.raises(ValueError, match="seed: found -1"):
    finetune(seed=-1)
  with pytest.raises(ValueError, match="pixel_size_um: found 0"):
    finetune(pixel_size_um=0.0)
  with pytest.raises(ValueError, match="known: found b, expected images"):
    finetune(known={"b": cells > 0})
  with pytest.raises(ValueError, match="known: found nothing known"):
    finetune(known={"a": cells > 9})
  with pytest.raises(ValueError, match="found no cell in any of 1 images"):
    finetune(cells * 0)
  for mask, line in (
    (cells * 0.5, "a: found float64 pixels from 0.0 to 1.5, expected whole"),
    (-cells, "expected whole labels from 0"),
    (cells << 32, "expected whole labels from 0"),
    (np.eye(32, dtype=bool), "a: found one id in 32 pieces"),
  ):
    with pytest.raises(ValueError, match=line):
      finetune(mask)
  assert not (tmp_path / "new").exists()
  assert (shipped / "params.npz").exists()


@pytest.mark.parametrize("name", ["area", "is_border", "Object"])
def test_channels_that_are_called_as_columns_are_refused(name):
  stack = np.zeros((1, 8, 8), np.float32)
  with pytest.raises(ValueError, match=f"names: found '{name}', another colum"):
    dx.segment(stack, [0], names=[name])
