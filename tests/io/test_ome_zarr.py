"""OME-Zarr as images: folders, zip files, URLs, other writers', bad ones."""

import json
import shutil

import numpy as np
import pytest
import zarr

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io import images, listing, ome_zarr_writer, source
from dicexmbd_jax.io.panel import read_panel
from tests import finished_runs

NAMES = ["CD45", "DNA1", "other"]


@pytest.fixture(scope="module")
def stack():
  rng = np.random.default_rng(0)
  return rng.poisson(3, (30, 40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, stack):
  """A folder with a panel, and a.ome.zarr and b.ome.zarr of both versions."""
  folder = tmp_path_factory.mktemp("stores")
  (folder / "panel.csv").write_text(finished_runs.PANEL)
  for name, version in (("a", "0.4"), ("b", "0.5")):
    ome_zarr_writer.write_ome_zarr(
      folder / f"{name}.ome.zarr", stack, NAMES, 0.5, {}, version
    )
  return folder


def read_first(pattern, panel):
  found, failures = listing.list_stacks(str(pattern), panel)
  assert not failures
  return images.read_image(found[0], panel)


def test_large_images_are_read_in_strips(
  stores, stack, cut_finely, monkeypatch
):
  panel = read_panel(stores / "panel.csv")
  with cut_finely():
    monkeypatch.setattr(storage, "STRIP_BYTES", 1)
    monkeypatch.setenv(memory.VARIABLE, "8e-6")  # A channel takes 4800 bytes.
    for name in "ab":
      loaded = read_first(stores / f"{name}.ome.zarr", panel)
      np.testing.assert_array_equal(loaded.stack, stack[..., [1, 0]])
      assert storage.is_mapped(loaded.stack)
  with pytest.raises(ValueError, match="2 channels of 40 x 30 pixels, .* GB"):
    read_first(stores / "a.ome.zarr", panel)


def test_a_blank_image_is_one(tmp_path, stack):
  path = tmp_path / "blank.ome.zarr"
  ome_zarr_writer.write_ome_zarr(path, stack * 0, NAMES, 0.5, {})
  loaded = images.read_every_channel(listing.list_images(path)[0][0])
  assert not loaded.stack.any()
  assert not loaded.warnings
  assert loaded.names == tuple(NAMES)


def test_a_folder_of_stores(stores, stack):
  panel = read_panel(stores / "panel.csv")
  found, failures = listing.list_stacks(stores, panel)
  assert [one.stem for one in found] == ["a", "b"]
  assert not failures
  for one in found:
    loaded = images.read_image(one, panel)
    np.testing.assert_array_equal(loaded.stack, stack[..., [1, 0]])
    assert loaded.names == ("DNA1", "CD45")
    assert loaded.pixel_size_um == 0.5
    assert not loaded.warnings
  hashes = {source.hash_source(one) for one in found}
  assert len(hashes) == 2


@pytest.mark.parametrize("inner", [None, "b.ome.zarr"])
def test_zip_with_the_store_at_its_top_or_in_a_folder(
  stores, stack, tmp_path, inner
):
  root = stores if inner else stores / "b.ome.zarr"
  path = shutil.make_archive(str(tmp_path / "b.ome.zarr"), "zip", root, inner)
  panel = read_panel(stores / "panel.csv")
  loaded = read_first(path, panel)
  np.testing.assert_array_equal(loaded.stack, stack[..., [1, 0]])
  found, _ = listing.list_stacks(path, panel)
  assert found[0].stem == "b"
  assert source.hash_source(found[0])


def test_urls(stores, stack):
  fsspec = pytest.importorskip("fsspec")
  system = fsspec.filesystem("memory")
  system.put(str(stores / "a.ome.zarr"), "/bucket/a.ome.zarr", recursive=True)
  panel = read_panel(stores / "panel.csv")
  for url in ("memory://bucket/a.ome.zarr", "memory://bucket"):
    loaded = read_first(url, panel)
    np.testing.assert_array_equal(loaded.stack, stack[..., [1, 0]])
  found, _ = listing.list_stacks("memory://bucket", panel)
  first = source.hash_source(found[0])
  system.pipe("/bucket/a.ome.zarr/more", b"text")
  assert source.hash_source(found[0]) != first
  with pytest.raises(ValueError, match="memory://none.*found"):
    listing.list_stacks("memory://none/", panel)


def test_stores_that_are_no_images_are_left_out(stores, tmp_path, caplog):
  shutil.copytree(stores / "a.ome.zarr", tmp_path / "a.ome.zarr")
  zarr.open_group(tmp_path / "table.zarr", mode="w")
  found, failures = listing.list_images(tmp_path)
  assert [one.stem for one in found] == ["a"]
  assert not failures
  assert "table.zarr" in caplog.text


def break_json(folder):
  (folder / ".zattrs").write_text("{")


def name_no_path(folder):
  path = folder / ".zattrs"
  values = json.loads(path.read_text())
  values["multiscales"][0]["datasets"][0]["path"] = "7"
  path.write_text(json.dumps(values))


def declare_much(folder):
  path = folder / "0/.zarray"
  values = json.loads(path.read_text())
  values["shape"] = [3, 10**7, 10**7]
  path.write_text(json.dumps(values))


def lose_pixels(folder):
  for name in "012":
    shutil.rmtree(folder / "0" / name)


def damage_pixels(folder):
  (folder / "0/1/0/0").write_bytes(b"nothing")


@pytest.mark.parametrize(
  "damage",
  [break_json, name_no_path, declare_much, lose_pixels, damage_pixels],
)
def test_bad_stores_are_one_line(stores, tmp_path, damage):
  path = tmp_path / "a.ome.zarr"
  shutil.copytree(stores / "a.ome.zarr", path)
  damage(path)
  panel = read_panel(stores / "panel.csv")
  found, _ = listing.list_stacks(tmp_path, panel)
  with pytest.raises(ValueError) as told:
    images.read_image(found[0], panel)
  line = str(told.value)
  assert line.startswith(f"{path}: found ")
  assert "\n" not in line


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_plate_is_told_and_its_fields_are_images(
  stores, stack, tmp_path, name
):
  path, version = tmp_path / "plate.zarr", {"a": 2, "b": 3}[name]
  plate = {"wells": [{"path": "B/2"}, {"path": "B/3"}]}
  inner = {"plate": plate} if version == 2 else {"ome": {"plate": plate}}
  zarr.create_group(path, zarr_format=version, attributes=inner)
  shutil.copytree(stores / f"{name}.ome.zarr", path / "B/2/0")
  panel = read_panel(stores / "panel.csv")
  [found], _ = listing.list_stacks(path, panel)
  with pytest.raises(ValueError) as told:
    images.read_image(found, panel)
  assert str(told.value) == (
    f"{path}: found a plate of 2 wells, expected an OME-Zarr image: copy its "
    "fields (B/2/0) to folders NAME.zarr of their own"
  )
  shutil.copytree(path / "B/2/0", tmp_path / "B2.zarr")
  loaded = read_first(tmp_path / "B2.zarr", panel)
  np.testing.assert_array_equal(loaded.stack, stack[..., [1, 0]])


def test_chunks_that_are_not_stored_are_told(stores, tmp_path):
  path = tmp_path / "a.ome.zarr"
  shutil.copytree(stores / "a.ome.zarr", path)
  shutil.rmtree(path / "0/1")
  loaded = read_first(path, read_panel(stores / "panel.csv"))
  assert not loaded.stack[..., 0].any()
  assert "1 of 3 chunks are not stored: all 0" in loaded.warnings


@pytest.mark.parametrize(
  ("unit", "scale", "size_um", "told"),
  [
    ("micrometer", 0.5, 0.5, None),
    ("Micrometre", 0.5, 0.5, None),
    ("nanometer", 500.0, 0.5, None),
    (None, 1.0, None, None),
    (None, 0.5, None, "pixel size of 0.5 x 0.5 without a unit is ignored"),
    ("ell", 1.0, None, "pixel size of 1 x 1 ell is ignored"),
  ],
)
def test_a_pixel_size_is_used_or_told(
  tmp_path, stack, unit, scale, size_um, told
):
  path = tmp_path / "a.ome.zarr"
  ome_zarr_writer.write_ome_zarr(path, stack, NAMES, 0.5, {}, "0.4")
  described = json.loads((path / ".zattrs").read_text())
  (scales,) = described["multiscales"]
  for axis in scales["axes"][1:]:
    axis.pop("unit")
    axis.update({"unit": unit} if unit else {})
  (transform,) = scales["datasets"][0]["coordinateTransformations"]
  transform["scale"] = [1.0, scale, scale]
  (path / ".zattrs").write_text(json.dumps(described))
  loaded = images.read_every_channel(listing.list_images(path)[0][0])
  assert loaded.pixel_size_um == (size_um and pytest.approx(size_um))
  assert loaded.warnings == ((told,) if told else ())
