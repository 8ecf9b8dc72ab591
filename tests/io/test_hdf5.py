import h5py
import ilastik as oracle
import numpy as np
import pytest

from dicexmbd_jax.io import hdf5

STACK = np.arange(5 * 7 * 3, dtype=np.float32).reshape(5, 7, 3)


@pytest.mark.parametrize("axes", ["cyx", "yxc", "xyc", "zyxc", "tzyxc", "czyx"])
def test_axes_as_tagged(tmp_path, axes):
  oracle.write_image(tmp_path / "a.h5", STACK, axes)
  found = hdf5.read_hdf5(tmp_path / "a.h5")
  np.testing.assert_array_equal(found, STACK)
  assert found.dtype == np.float32


@pytest.mark.parametrize(
  ("shape", "axes"),
  [
    ((5, 7), "yx"),
    ((5, 7, 3), "yxc"),
    ((3, 5, 7), "cyx"),
    ((5, 70, 60), "cyx"),
    ((1, 5, 7, 3), "zyxc"),
  ],
)
def test_axes_without_tags(shape, axes):
  assert hdf5.guess_axes(shape) == axes


def test_axes_of_another_number_are_not_believed(tmp_path):
  oracle.write_image(tmp_path / "a.h5", STACK, "cyx")
  found = hdf5.read_hdf5(tmp_path / "a.h5", axes="zyxc")
  np.testing.assert_array_equal(found, STACK)


def test_a_dataset_by_name(tmp_path):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["one/img"] = STACK
    file["two"] = STACK + 1
  found = hdf5.read_hdf5(tmp_path / "a.h5", "one/img")
  np.testing.assert_array_equal(found, STACK)
  with pytest.raises(ValueError, match="found 2 datasets \\(/one/img, /two\\)"):
    hdf5.read_hdf5(tmp_path / "a.h5")
  with pytest.raises(ValueError, match="found no dataset three"):
    hdf5.read_hdf5(tmp_path / "a.h5", "three")


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (np.zeros((2, 5, 7, 3)), "found axes zyxc of \\(2, 5, 7, 3\\)"),
    (np.full((5, 7), np.nan), "not finite"),
    (np.array([[b"a"] * 5] * 5), "expected real numbers"),
  ],
)
def test_wrong_pixels(tmp_path, data, message):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file["img"] = data
  with pytest.raises(ValueError, match=message) as caught:
    hdf5.read_hdf5(tmp_path / "a.h5")
  assert str(tmp_path / "a.h5") in str(caught.value)


def test_broken_files(tmp_path):
  with pytest.raises(ValueError, match="found no such file"):
    hdf5.read_hdf5(tmp_path / "a.h5")
  (tmp_path / "a.h5").write_bytes(b"nothing")
  with pytest.raises(ValueError, match="found unreadable HDF5"):
    hdf5.read_hdf5(tmp_path / "a.h5")


def make_declared(file, way):
  """A dataset "img" whose declared values the file does not hold."""
  if way == "never written":
    file.create_dataset("img", (40_000, 50_000, 3), "f4")
  elif way == "one chunk of many":
    one = file.create_dataset("img", (10**6, 10**6), "f4", chunks=(100, 100))
    one[:100, :100] = 1
  elif way == "elsewhere":
    where = [("other.raw", 0, 400)]
    file.create_dataset("img", (10, 10), "f4", external=where)
  elif way == "virtual":
    layout = h5py.VirtualLayout((10**5, 10**5), "f4")
    file.create_virtual_dataset("img", layout)
  else:
    file["img"] = h5py.Empty("f4")


@pytest.mark.parametrize(
  ("way", "message"),
  [
    ("never written", "found 0 bytes of /img, not all that was declared"),
    ("one chunk of many", "found 40000 bytes of /img, not all"),
    ("elsewhere", "found no values of /img in the file"),
    ("virtual", "found no values of /img in the file"),
    ("nothing", "found no values of /img in the file"),
  ],
)
def test_values_that_are_not_in_the_file(tmp_path, way, message):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    make_declared(file, way)
  with pytest.raises(ValueError, match=message) as caught:
    hdf5.read_hdf5(tmp_path / "a.h5", "img")
  assert str(caught.value).startswith(f"{tmp_path / 'a.h5'}: found ")


@pytest.mark.parametrize("packing", ["gzip", "lzf", "shuffle", None])
def test_packed_values_are_read(tmp_path, packing):
  options = {"shuffle": True} if packing == "shuffle" else {}
  options |= {"compression": packing} if packing in ("gzip", "lzf") else {}
  constant = np.ones((3000, 1000), np.float32)
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file.create_dataset("img", data=constant, chunks=(1000, 1000), **options)
  found = hdf5.read_hdf5(tmp_path / "a.h5")
  np.testing.assert_array_equal(found[..., 0], constant)


def test_a_chunk_that_lies_elsewhere_is_missed(tmp_path):
  path = tmp_path / "a.h5"
  options = {"chunks": (5, 7, 1), "compression": "gzip"}
  with h5py.File(path, "w") as file:
    file.create_dataset("img", data=STACK, **options)
  data = bytearray(path.read_bytes())
  # A key of the chunks' tree: size, filters left out, offsets along the axes.
  offsets = b"".join(k.to_bytes(8, "little") for k in (0, 0, 1, 0))
  place = data.index(offsets, data.index(b"TREE\1"))
  data[place : place + 8] = (50).to_bytes(8, "little")
  path.write_bytes(data)
  with pytest.raises(ValueError, match="not all that was declared"):
    hdf5.read_hdf5(path)


def test_a_heap_that_hdf5_would_walk_for_ever(tmp_path):
  path = tmp_path / "a.h5"
  oracle.write_image(path, STACK)  # Its axistags lie in a heap.
  data = bytearray(path.read_bytes())
  heap = data.index(b"GCOL\1\0\0\0")
  first = heap + 16
  size = int.from_bytes(data[first + 8 : first + 16], "little")
  free = first + 16 + -(-size // 8) * 8
  assert data[free : free + 2] == b"\0\0"
  data[free + 8 : free + 16] = bytes(8)
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f"a broken heap at byte {free}"):
    hdf5.read_hdf5(path)


def test_a_list_of_free_blocks_that_leads_back(tmp_path):
  path = tmp_path / "a.h5"
  oracle.write_image(path, STACK)
  data = bytearray(path.read_bytes())
  heap = data.index(b"HEAP\0")
  first, blocks = (
    int.from_bytes(data[heap + k : heap + k + 8], "little") for k in (16, 24)
  )
  data[blocks + first : blocks + first + 8] = first.to_bytes(8, "little")
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f"a broken heap at byte {heap}"):
    hdf5.read_hdf5(path)


def test_remains_of_heaps_that_nothing_refers_to(tmp_path):
  path = tmp_path / "a.h5"
  oracle.write_image(path, STACK)
  whole = hdf5.read_hdf5(path)
  long = (1 << 40).to_bytes(8, "little")
  with path.open("ab") as file:
    file.write(b"HEAP\0\0\0\0" + long + b"GCOL\1\0\0\0" + long)
  np.testing.assert_array_equal(hdf5.read_hdf5(path), whole)


@pytest.mark.parametrize("mark", [b"GCOL\1\0\0\0", b"HEAP\0\0\0\0"])
def test_a_heap_longer_than_the_file(tmp_path, mark):
  path = tmp_path / "a.h5"
  oracle.write_image(path, STACK)
  data = bytearray(path.read_bytes())
  heap = data.index(mark)
  data[heap + 8 : heap + 16] = (1 << 40).to_bytes(8, "little")
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f"a broken heap at byte {heap}"):
    hdf5.read_hdf5(path)


def test_tags_that_are_no_axes():
  for tags in ("[" * 100_000, b"\xff", "{}", '{"axes": 3}', "9" * 5000):
    assert hdf5.parse_axes(tags) is None
