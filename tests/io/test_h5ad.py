import dataclasses
import resource
import signal
import weakref

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from dicexmbd_jax.io import growing, h5ad, images, listing, write
from dicexmbd_jax.io.labels import read_labels
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.masks import measure
from dicexmbd_jax.types import Panel, PanelRow

CELLS = np.array([[1, 1, 2], [0, 0, 2], [5, 5, 5]], np.int32)
PANEL = Panel(
  "panel.csv",
  (
    PanelRow("Ir191", "DNA", True, True, False),
    PanelRow(None, "CD45", True, False, True),
    PanelRow("Xe131", "Xe", False, False, False),
  ),
)


def measure_all(name, cells=CELLS, mask=None, **row):
  """Returns an image's row of images.csv, and its cells."""
  stack = np.arange(2.0 * cells.size, dtype=np.float32)
  stack = stack.reshape(*cells.shape, 2)
  row = {
    "image": f"{name}.tiff",
    "width_px": cells.shape[1],
    "num_cells": np.count_nonzero(np.unique(cells)),
    **row,
  }
  return row, h5ad.pack_cells(
    measure.measure_intensities(stack, cells, ["DNA", "CD45"]),
    measure.measure_regions(cells).assign(is_border=True),
    measure.measure_neighbors(cells, 0),
    mask,
  )


def write_and_read(tmp_path, images, panel=None):
  """Returns what anndata reads, which it would write in the same way."""
  path, theirs = tmp_path / "cells.h5ad", tmp_path / "theirs.h5ad"
  rows, cells = zip(*images, strict=True) if images else ((), ())
  h5ad.write_cells(path, rows, cells, panel)
  data = anndata.read_h5ad(path)
  write.write_h5ad(theirs, data)
  assert list_elements(path) == list_elements(theirs)
  return data


def list_elements(path):
  """Returns all that a file holds, by name: attributes, types and values."""
  found = {}

  def note(name, element):
    attributes = {
      key: value.tolist() if isinstance(value, np.ndarray) else value
      for key, value in element.attrs.items()
    }
    values = ()
    if isinstance(element, h5py.Dataset) and element.shape is not None:
      content = str(np.asarray(element[()]).tolist())  # NaN is not itself.
      values = (element.dtype, element.shape, content)
    found[name] = (attributes, values)

  def walk(name, group):
    note(name, group)
    for key, element in group.items():
      is_group = isinstance(element, h5py.Group)
      (walk if is_group else note)(f"{name}/{key}", element)

  with h5py.File(path) as file:  # visititems would pass over second names.
    walk("", file)
  return found


def test_cells_of_an_image_go_before_those_after_the_next_come(tmp_path):
  given = []

  def give():
    for name in "abcd":
      assert all(one() is None for one in given[:-1])
      cells = measure_all(name)[1]
      given.append(weakref.ref(cells))
      yield cells
      del cells

  rows = [measure_all(name)[0] for name in "abcd"]
  h5ad.write_cells(tmp_path / "cells.h5ad", rows, give())
  assert len(given) == 4


def test_many_pieces_are_as_one(tmp_path, monkeypatch):
  images = [measure_all(name) for name in "abcdefg"]
  whole = write_and_read(tmp_path, images)
  monkeypatch.setattr(growing, "_PIECE_BYTES", 40)
  with h5py.File(tmp_path / "cells.h5ad") as file:
    assert file["X"].chunks[0] > len(whole)
  parts = write_and_read(tmp_path, images)
  with h5py.File(tmp_path / "cells.h5ad") as file:
    assert file["X"].chunks[0] < len(whole) // 2
  pd.testing.assert_frame_equal(whole.obs, parts.obs)
  np.testing.assert_array_equal(whole.X, parts.X)
  for name, matrix in whole.obsp.items():
    assert (matrix != parts.obsp[name]).nnz == 0


def test_cells_that_do_not_fit_are_told(tmp_path):
  path = tmp_path / "cells.h5ad"
  row, cells = measure_all("a")
  with pytest.raises(
    ValueError, match=r"a\.tiff: found tables of 3 cells, exp"
  ):
    h5ad.write_cells(path, [{**row, "num_cells": 4}], [cells])
  fewer = {name: one[1:] for name, one in cells.regions.items()}
  less = dataclasses.replace(cells, regions=fewer)
  with pytest.raises(ValueError, match=r"found tables of [23] and [23] cells"):
    h5ad.write_cells(path, [row], [less])
  row_b, other = measure_all("b")
  other = dataclasses.replace(other, markers=("dna", "CD45"))
  with pytest.raises(
    ValueError, match=r"b\.tiff: found columns dna, CD45, exp"
  ):
    h5ad.write_cells(path, [row, row_b], [cells, other])
  assert list(tmp_path.iterdir()) == []


def test_two_images(tmp_path):
  tables = [measure_all("a", source_file="a.mcd"), measure_all("b")]
  data = write_and_read(tmp_path, tables, PANEL)
  assert list(data.obs_names) == [
    f"Object {number} in {image}.tiff" for image in "ab" for number in (1, 2, 5)
  ]
  assert list(data.obs["Object"]) == [1, 2, 5] * 2
  assert list(data.obs["Image"]) == ["a.tiff"] * 3 + ["b.tiff"] * 3
  assert "image" not in data.obs
  assert list(data.obs["image_width_px"]) == [3] * 6
  assert list(data.obs["is_border"]) == [True] * 6
  assert data.obs["image_source_file"].isna().sum() == 3
  assert data.X.dtype == np.float32
  np.testing.assert_array_equal(data.X[0], [1, 2])
  np.testing.assert_array_equal(data.obsm["spatial"][0], [0.5, 0])
  np.testing.assert_array_equal(data.obsm["pixels"][5], [1, 2])
  assert list(data.var_names) == ["DNA", "CD45"]
  assert list(data.var["channel"]) == ["Ir191", ""]
  assert list(data.var["nuclear"]) == [True, False]
  one = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
  expected = np.kron(np.eye(2), one)
  np.testing.assert_array_equal(data.obsp["adj"].toarray(), expected)
  linked = data.obsp["spatial_connectivities"].toarray()
  np.testing.assert_array_equal(linked, expected)
  distances = data.obsp["spatial_distances"].toarray()
  assert distances[0, 1] == pytest.approx(np.hypot(1.5, 0.5))
  assert "dist" not in data.obsp


def test_images_lie_further_apart_than_their_cells(tmp_path):
  tables = [measure_all(name, height_px=3) for name in "abcde"]
  tables.insert(2, measure_all("empty", np.zeros((3, 3), np.int32)))
  data = write_and_read(tmp_path, tables)
  places, pixels = data.obsm["spatial"], data.obsm["pixels"]
  apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
  images = np.asarray(data.obs["Image"])
  is_same = images[:, None] == images[None]
  assert apart[is_same].max() < apart[~is_same].min()
  for name in "abcde":
    is_in = images == f"{name}.tiff"
    moved = places[is_in] - pixels[is_in]
    np.testing.assert_array_equal(moved, moved[:1].repeat(3, 0))
  assert np.ptp(places[:, 0]) < 25  # 3 by 2 images, 9 px from each to the next.


def test_masks_lie_where_squidpy_looks(tmp_path):
  tables = [
    measure_all("a", mask=CELLS),
    measure_all("empty", np.zeros((3, 3), np.int32)),
  ]
  data = write_and_read(tmp_path, tables)
  assert list(data.uns["spatial"]) == ["a.tiff"]
  mask = data.uns["spatial"]["a.tiff"]["images"]["segmentation"]
  assert mask.dtype == np.uint16
  np.testing.assert_array_equal(mask, CELLS)


def test_distances_are_kept_where_there_are_any(tmp_path):
  images = [measure_all(name) for name in "abc"]
  images[1][1].distances[:] = 2.5
  distances = write_and_read(tmp_path, images).obsp["dist"].data
  expected = [np.nan] * 4 + [2.5] * 4 + [np.nan] * 4
  np.testing.assert_array_equal(distances, np.float32(expected))


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_no_cells_at_all(tmp_path, num_images):
  empty = np.zeros((3, 3), np.int32)
  tables = [measure_all(str(i), empty) for i in range(num_images)]
  data = write_and_read(tmp_path, tables, PANEL)
  assert data.n_obs == 0
  assert data.n_vars == (2 if num_images else 0)
  assert data.obsm["spatial"].shape == (0, 2)
  assert data.obsp["adj"].shape == (0, 0)


def test_images_without_cells_change_nothing(tmp_path):
  empty = measure_all("b", np.zeros((3, 3), np.int32))
  data = write_and_read(tmp_path, [measure_all("a"), empty, measure_all("c")])
  expected = write_and_read(tmp_path, [measure_all("a"), measure_all("c")])
  pd.testing.assert_frame_equal(data.obs, expected.obs)
  assert (data.obsp["adj"] != expected.obsp["adj"]).nnz == 0


def test_mixed_origins_can_be_written(tmp_path):
  tables = [
    measure_all("a", recovered=False, acquisition_id=3),
    measure_all("b", recovery_file=None),
  ]
  obs = write_and_read(tmp_path, tables).obs
  assert list(obs["image_recovered"].isna()) == [False] * 3 + [True] * 3
  assert obs["image_acquisition_id"].iloc[0] == 3


@pytest.mark.parametrize("num_bytes", [0, 300, 4096, 20_000, 100_000])
def test_a_full_disk_gives_one_line(tmp_path, num_bytes):
  """HDF5 would take the process down."""
  rng = np.random.default_rng(0)
  cells = np.arange(1, 40 * 60 + 1, dtype=np.int32).reshape(40, 60)
  images = []
  for name in "abcdefgh":
    row, image = measure_all(name, cells, mask=cells)
    counts = rng.random(image.counts.shape, np.float32)
    images.append((row, dataclasses.replace(image, counts=counts)))
  rows, packed = zip(*images, strict=True)
  path = tmp_path / "cells.h5ad"
  old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  old_action = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old_limit[1]))
  try:
    with pytest.raises(OSError) as caught:
      h5ad.write_cells(path, rows, packed)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_action)
  assert str(caught.value) == f"[Errno 27] File too large: '{path}'"
  assert list(tmp_path.iterdir()) == []
  h5ad.write_cells(path, rows, packed)
  assert path.stat().st_size > num_bytes


@pytest.mark.real
def test_observations_equal_steinbocks(real_data, tmp_path):
  folder = real_data / "imc_testdata"
  panel = read_panel(folder / "panel.csv")
  stacks, _ = listing.list_images(folder / "img")
  origins, _ = listing.list_images(folder / "raw")
  tables = []
  for stack, origin in zip(stacks, origins, strict=True):
    loaded = images.read_image(stack, panel)
    cells = read_labels(folder / "masks_deepcell" / f"{stack.stem}.tiff")
    tables.append(
      (
        {
          **images.describe_image(origin, images.read_image(origin, panel)),
          "num_cells": np.count_nonzero(np.unique(cells)),
        },
        h5ad.pack_cells(
          measure.measure_intensities(loaded.stack, cells, loaded.names),
          measure.measure_regions(cells),
          measure.measure_neighbors(cells),
        ),
      )
    )
  data = write_and_read(tmp_path, tables, panel)
  expected = anndata.read_h5ad(folder / "cells.h5ad")
  assert list(data.obs_names) == list(expected.obs_names)
  assert list(data.var_names) == list(expected.var_names)
  np.testing.assert_allclose(data.X, expected.X, rtol=1e-5)
  # Steinbock has each image's name twice.
  for name, column in expected.obs.drop(columns="image").items():
    if column.dtype.kind in "fiu":
      np.testing.assert_allclose(
        data.obs[name].astype(float), column.astype(float), rtol=1e-6
      )
    else:
      assert list(data.obs[name].astype(str)) == list(column.astype(str))
  for name in ("channel", "name", "keep"):
    assert list(data.var[name]) == list(expected.var[name])
