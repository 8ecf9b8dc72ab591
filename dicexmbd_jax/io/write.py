"""Writes every output file: whole or not at all."""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import struct
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import tifffile

from dicexmbd_jax import storage
from dicexmbd_jax.io import deflate
from dicexmbd_jax.types import Grid, Labels, Probabilities, Stack

if TYPE_CHECKING:  # Slow to import, and not needed by every run.
  import anndata
  import pandas as pd
  import PIL.Image

_MAX_UINT16 = 65535
_MAX_PALETTE = 256
_MAX_HALF_BYTES = 16  # Colours.
_UM_PER_CM = 1e4
_STORE_MARKS = (".zgroup", "zarr.json")  # Of Zarr 2 and 3.
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


@contextlib.contextmanager
def replace_file(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary name beside `path`, renamed to it if all went well.

  The folder is made where it is missing. Whoever looks sees the old file or
  the new one, never a part; on any error the temporary file is removed.

  Args:
    path: the file to be.

  Raises:
    OSError: with the system's error number, and `path` as its file name: the
      folder cannot be written to, the disk is full, and so on.
  """
  path = pathlib.Path(path)
  # Not by the process number: two containers often have the same one.
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    os.replace(temporary, path)
  except OSError as error:
    raise _name_file(error, path) from error
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(
  path: pathlib.Path, overwrite: bool = False
) -> Iterator[pathlib.Path]:
  """Gives a new folder beside `path`, renamed to it if all went well.

  Args:
    path: the folder to be.
    overwrite: whether a Zarr store or an empty folder that is there is
      replaced. Any other folder may hold what nobody can make again.

  Raises:
    ValueError: one is there, and not to be replaced; one line.
    OSError: as `replace_file`.
  """
  if path.exists() and not overwrite:
    raise ValueError(
      f"{path}: found a result already there, expected a new name; "
      "--overwrite replaces it"
    )
  is_store = any((path / mark).is_file() for mark in _STORE_MARKS)
  if path.is_dir() and not is_store and any(path.iterdir()):
    raise ValueError(
      f"{path}: found a folder that is no Zarr store, expected a new name, or "
      "a store to replace"
    )
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
  try:
    temporary.mkdir(parents=True)
    yield temporary
    if path.is_dir():
      shutil.rmtree(path)
    os.replace(temporary, path)
  except OSError as error:
    raise _name_file(error, path) from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def write_labels(
  path: str | pathlib.Path, labels: Labels, pixel_size_um: float | None = None
) -> None:
  """Writes a mask as zlib-compressed TIFF (y, x).

  The dtype is uint16, or uint32 where an id is beyond 65,535.

  Args:
    path: the file to write.
    labels: 0 is background.
    pixel_size_um: goes into the resolution tags, if given.

  Raises:
    ValueError: an id below 0, or beyond 32 bits, or not two axes.
    OSError: the file cannot be written.
  """
  highest = int(labels.max(initial=0))
  if labels.ndim != 2 or int(labels.min(initial=0)) < 0 or highest >= 2**32:
    raise ValueError(
      f"{path}: found labels of shape {labels.shape} from "
      f"{labels.min(initial=0)} to {highest}, expected (y, x) from 0 to 2**32-1"
    )
  dtype = np.uint16 if highest <= _MAX_UINT16 else np.uint32
  data = storage.allocate(labels.shape, dtype)
  data[...] = labels
  _write_tiff(path, data, "YX", pixel_size_um)


def write_strokes(
  path: str | pathlib.Path,
  strokes: np.ndarray,
  pixel_size_um: float | None = None,
) -> None:
  """Writes an annotation as zlib-compressed uint8 TIFF (y, x).

  Args:
    path: the file to write.
    strokes: 0 none, 1 nucleus, 2 membrane/cytoplasm, 3 background.
    pixel_size_um: goes into the resolution tags, if given.

  Raises:
    ValueError: not uint8, or not two axes.
    OSError: the file cannot be written.
  """
  if strokes.dtype != np.uint8 or strokes.ndim != 2:
    raise ValueError(
      f"{path}: found {strokes.dtype} strokes of shape {strokes.shape}, "
      "expected uint8 (y, x)"
    )
  _write_tiff(path, strokes, "YX", pixel_size_um)


def write_probabilities(
  path: str | pathlib.Path,
  probabilities: Probabilities,
  pixel_size_um: float | None = None,
  image_grid: Grid | None = None,
  map_scale: int = 1,
) -> None:
  """Writes probabilities as zlib-compressed uint16 TIFF (y, x, 3).

  65535 stands for 1; values are rounded, and cut to 0..1 before.

  Args:
    path: the file to write.
    probabilities: nucleus, membrane/cytoplasm, background; or their levels,
      uint16, as they are in the file.
    pixel_size_um: goes into the resolution tags, if given.
    image_grid: of the image that they were made from, where it is another;
      goes into the description, for whoever makes masks of them.
    map_scale: as of masks.settings; goes there, too.

  Raises:
    ValueError: not (y, x, 3), or not finite.
    OSError: the file cannot be written.
  """
  if probabilities.ndim != 3 or probabilities.shape[2] != 3:
    raise ValueError(
      f"{path}: found probabilities of shape {probabilities.shape}, expected "
      "(y, x, 3)"
    )
  data = probabilities
  if data.dtype != np.uint16:
    with _name_value(path):
      data = round_shares(probabilities, "probabilities")
  notes: dict[str, Any] = {}
  if image_grid is not None:
    notes = {
      "map_pixel_size_um": pixel_size_um,
      "map_scale": map_scale,
      "image_shape_px": image_grid.shape_px,
      "image_pixel_size_um": image_grid.pixel_size_um,
    }
  _write_tiff(path, data, "YXS", pixel_size_um, photometric="rgb", notes=notes)


@contextlib.contextmanager
def _name_value(path: str | pathlib.Path) -> Iterator[None]:
  """Puts the file before the line of a ValueError."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def round_shares(shares: np.ndarray, what: str) -> np.ndarray:
  """Returns 0..1 as whole numbers of 1/65535, uint16, half the bytes.

  Values beyond are cut to 0..1.

  Args:
    shares: floats of any shape.
    what: they are, for the error.

  Raises:
    ValueError: some are not finite.
  """
  rounded = storage.allocate(shares.shape, np.uint16)
  for part in storage.cut_strips(shares.shape, 12):
    if not np.isfinite(shares[part]).all():
      raise ValueError(f"found {what} that are not finite, expected 0 to 1")
    scaled = np.clip(shares[part], 0, 1) * np.float32(_MAX_UINT16)
    rounded[part] = np.rint(scaled)
  return rounded


def write_uncertainty(
  path: str | pathlib.Path,
  uncertainty: np.ndarray,
  pixel_size_um: float | None = None,
) -> None:
  """Writes an uncertainty map as zlib-compressed uint16 TIFF (y, x).

  65535 stands for 1; values are rounded, and cut to 0..1 before.

  Args:
    path: the file to write.
    uncertainty: float (y, x).
    pixel_size_um: goes into the resolution tags, if given.

  Raises:
    ValueError: not (y, x), or not finite.
    OSError: the file cannot be written.
  """
  if uncertainty.ndim != 2:
    raise ValueError(
      f"{path}: found uncertainty of shape {uncertainty.shape}, expected (y, x)"
    )
  with _name_value(path):
    data = round_shares(uncertainty, "uncertainty")
  _write_tiff(path, data, "YX", pixel_size_um)


def write_stack(
  path: str | pathlib.Path,
  stack: Stack,
  names: Sequence[str],
  pixel_size_um: float = 1.0,
) -> None:
  """Writes a stack of counts as zlib-compressed OME-TIFF (channel, y, x).

  Whole counts up to 65,535 are stored as uint16, anything else as float32.

  Args:
    path: the file to write, ending in .ome.tiff.
    stack: counts (y, x, m).
    names: the m channels' names.
    pixel_size_um: edge of a pixel.

  Raises:
    ValueError: shape and names do not fit together.
    OSError: the file cannot be written.
  """
  if stack.ndim != 3 or stack.shape[2] != len(names):
    raise ValueError(
      f"{path}: found a stack of shape {stack.shape}, expected (y, x, "
      f"{len(names)}) for {len(names)} names"
    )
  planes = np.moveaxis(shrink_counts(stack), -1, 0)
  content = hashlib.sha256(np.ascontiguousarray(planes))
  metadata = {
    # From the pixels, not the clock: the same stack gives the same file.
    "UUID": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content.hexdigest())}",
    "axes": "CYX",
    "Channel": {"Name": list(names)},
    "PhysicalSizeX": pixel_size_um,
    "PhysicalSizeXUnit": "\u00b5m",
    "PhysicalSizeY": pixel_size_um,
    "PhysicalSizeYUnit": "\u00b5m",
  }
  with replace_file(path) as temporary, temporary.open("wb") as file:
    tifffile.imwrite(
      file,
      np.ascontiguousarray(planes),
      ome=True,
      photometric="minisblack",
      compression="zlib",
      metadata=metadata,
    )


def shrink_counts(stack: Stack) -> np.ndarray:
  """Returns whole counts up to 65,535 as uint16, anything else as float32."""
  is_whole = np.all((stack >= 0) & (stack <= _MAX_UINT16) & (stack % 1 == 0))
  return stack.astype(np.uint16 if is_whole else np.float32)


def write_table(path: str | pathlib.Path, table: "pd.DataFrame") -> None:
  """Writes a table as CSV, without its index.

  Raises:
    OSError: the file cannot be written.
  """
  # A lone column would spell a missing value as an empty line.
  if len(table.columns) > 1 and all(
    isinstance(one, np.dtype) and one.kind in "ifb" for one in table.dtypes
  ):
    write_text(path, _spell_numbers(table))
    return
  with replace_file(path) as temporary:
    table.to_csv(
      temporary,
      index=False,
      lineterminator="\n",
      encoding="utf-8",
      errors="backslashreplace",
    )


def _spell_numbers(table: "pd.DataFrame") -> str:
  """Returns a table of numbers as CSV, as pandas spells it.

  Columns of one type that lie side by side are spelled at once.
  """
  header = io.StringIO()
  csv.writer(header, lineterminator="\n").writerow(table.columns)
  kinds = enumerate(table.dtypes)
  blocks = [
    _spell_rows(table.iloc[:, [place for place, _ in run]].to_numpy())
    for _, run in itertools.groupby(kinds, key=lambda one: one[1])
  ]
  lines = map(",".join, zip(*blocks, strict=True))
  return header.getvalue() + "\n".join((*lines, ""))


def _spell_rows(block: np.ndarray) -> list[str]:
  """Returns rows of numbers of one type as text, parted by commas."""
  if block.dtype not in (np.int64, np.float64):
    texts = _spell(block)
    if texts.shape[1] == 1:
      return texts[:, 0].tolist()
    return list(map(",".join, texts.tolist()))
  block = np.ascontiguousarray(block)
  text = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY).decode()
  rows = text[2:-2].split("],[") if len(block) else []
  if block.dtype == np.float64:
    # JSON has no word for what is not finite, and orjson other exponents.
    size = np.abs(block)
    is_plain = ((size >= 1e-4) & (size < 1e16)) | (size == 0)
    places = np.flatnonzero(~is_plain.all(axis=1))
    for place, texts in zip(places, _spell(block[places]), strict=True):
      rows[place] = ",".join(texts)
  return rows


def _spell(numbers: np.ndarray) -> np.ndarray:
  """Returns numbers as text with as few digits as tell them; NaN is empty.

  Values repeat: each is spelled once.
  """
  import pandas as pd

  # By their bits, which tell zeros of both signs apart.
  bits = np.ascontiguousarray(numbers).view(f"i{numbers.dtype.itemsize}")
  index, known = pd.factorize(bits.ravel())
  known = known.view(numbers.dtype)
  # Only Python's own floats are double.
  is_plain = known.dtype.itemsize == 8 or known.dtype.kind == "b"
  texts = np.array(
    list(map(str, known.tolist() if is_plain else known)), object
  )
  texts[known != known] = ""
  return texts[index.reshape(bits.shape)]


def write_json(path: str | pathlib.Path, data: Mapping[str, Any]) -> None:
  """Writes JSON, indented, with NumPy's scalars and paths as plain values.

  Raises:
    OSError: the file cannot be written.
  """
  write_text(path, json.dumps(data, indent=2, default=_as_plain) + "\n")


def dump_json(data: Mapping[str, Any]) -> str:
  """Returns JSON of one line, values as `write_json` has them."""
  return json.dumps(data, default=_as_plain)


def sweep_temporary(
  folder: pathlib.Path,
  is_ours: Callable[[pathlib.Path], bool] = lambda path: True,
) -> None:
  """Removes what killed runs left of `replace_file` and `make_scratch`.

  Args:
    folder: an output folder; two levels of subfolders are looked at as well.
    is_ours: whether a file is for this run to write, where other runs write
      into the same folder at the same time.
  """
  for pattern in (".*.tmp", "*/.*.tmp", "*/*/.*.tmp"):
    for path in folder.glob(pattern):
      match = _TEMPORARY.fullmatch(path.name)
      if match and is_ours(path.with_name(match[1])):
        with contextlib.suppress(OSError):
          shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def make_scratch(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Lets this process's temporary files lie in `folder`, and removes them.

  For libraries that leave them in TMPDIR. What a killed run leaves is found by
  `sweep_temporary`.
  """
  scratch = folder / f".scratch.{uuid.uuid4().hex[:8]}.tmp"
  scratch.mkdir(parents=True)
  before, tempfile.tempdir = tempfile.tempdir, str(scratch)
  try:
    yield scratch
  finally:
    tempfile.tempdir = before
    shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | pathlib.Path, text: str) -> None:
  """Writes UTF-8 text; what no UTF-8 stands for (file names) as escapes.

  Raises:
    OSError: the file cannot be written.
  """
  write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: str | pathlib.Path, data: bytes) -> None:
  """Writes bytes as they are.

  Raises:
    OSError: the file cannot be written.
  """
  with replace_file(path) as temporary:
    temporary.write_bytes(data)


def write_npy(path: str | pathlib.Path, array: np.ndarray) -> None:
  """Writes an array in NumPy's format.

  Raises:
    OSError: the file cannot be written.
  """
  buffer = io.BytesIO()
  np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
  write_bytes(path, buffer.getvalue())


def write_png(
  path: str | pathlib.Path, pixels: "np.ndarray | PIL.Image.Image"
) -> None:
  """Writes a picture as PNG.

  Up to 256 different colours are stored as a palette, which loses nothing and
  takes a third of the time and of the place.

  Args:
    path: the file to write.
    pixels: uint8, (y, x) grey or (y, x, 3) colours; or a picture, as it is.

  Raises:
    ValueError: another dtype or shape.
    OSError: the file cannot be written.
  """
  if isinstance(pixels, np.ndarray):
    pixels = _make_picture(pixels, path)
  palette = pixels.getpalette("RGB") or []
  # Fewer colours Pillow stores in half a byte each.
  if len(palette) > 3 * _MAX_HALF_BYTES and 0 not in pixels.size:
    write_bytes(path, _pack_png(np.asarray(pixels), bytes(palette)))
    return
  with replace_file(path) as temporary:
    # Level 1: a tenth larger than the default, and four times faster.
    pixels.save(temporary, format="PNG", compress_level=1)


def _pack_png(pixels: np.ndarray, palette: bytes) -> bytes:
  """Returns a PNG with a palette, in a fifth of Pillow's time.

  Args:
    pixels: uint8 (y, x), places in the palette.
    palette: red, green, blue of each colour.

  Source: PNG's specification (ISO/IEC 15948), sections 5 and 11.
  """
  height, width = pixels.shape
  rows = np.zeros((height, width + 1), np.uint8)  # First, a row's filter: none.
  rows[:, 1:] = pixels
  chunks = (
    (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
    (b"PLTE", palette),
    (b"IDAT", deflate.pack(rows)),
    (b"IEND", b""),
  )
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data))
    + name
    + data
    + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
    for name, data in chunks
  )


def _make_picture(
  pixels: np.ndarray, path: str | pathlib.Path
) -> "PIL.Image.Image":
  """Returns pixels as a picture, with a palette where that loses nothing."""
  import PIL.Image

  is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
  if pixels.dtype != np.uint8 or not is_picture:
    raise ValueError(
      f"{path}: found {pixels.dtype} pixels of shape {pixels.shape}, expected "
      "uint8 (y, x) or (y, x, 3)"
    )
  if pixels.ndim == 2 or pixels.size == 0:
    return PIL.Image.fromarray(pixels)
  codes = pixels[..., 0].astype(np.int32)
  for channel in (1, 2):
    codes <<= 8
    codes |= pixels[..., channel]
  is_used = np.zeros(1 << 24, bool)
  is_used[codes] = True
  colours = np.flatnonzero(is_used)
  if len(colours) > _MAX_PALETTE:
    return PIL.Image.fromarray(pixels)
  places = np.zeros(1 << 24, np.uint8)
  places[colours] = np.arange(len(colours))
  picture = PIL.Image.fromarray(places[codes])
  palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)
  picture.putpalette(palette.astype(np.uint8).tobytes())
  return picture


@contextlib.contextmanager
def open_doubtful(path: pathlib.Path) -> Iterator["DoubtfulFile"]:
  """Opens a file for a library that ends the process when a write fails.

  As HDF5 does. It is told that all went well; what failed is raised at the end.

  Args:
    path: the file to write; a temporary one, since it may lack a part.

  Raises:
    OSError: a write failed.
  """
  with path.open("w+b", buffering=0) as raw:
    file = DoubtfulFile(raw)
    try:
      yield file
    finally:
      if file.error is not None:
        raise file.error


class DoubtfulFile:
  """A binary file that keeps to itself that a write failed."""

  def __init__(self, raw: io.FileIO):
    self._raw = raw
    self.error: OSError | None = None

  def write(self, data: bytes | memoryview) -> int:
    """Writes, unless a write failed before; returns the bytes' number."""
    rest = memoryview(data).cast("B")
    size = len(rest)
    try:
      while self.error is None and len(rest):
        rest = rest[self._raw.write(rest) :]
    except OSError as error:
      self.error = error
    return size

  def truncate(self, size: int | None = None) -> int:
    """Sets the size of the file, unless that fails."""
    try:
      return self._raw.truncate(size)
    except OSError as error:
      self.error = self.error or error
      return size or 0

  def __getattr__(self, name: str) -> Any:
    return getattr(self._raw, name)


def write_h5ad(path: str | pathlib.Path, data: "anndata.AnnData") -> None:
  """Writes an AnnData object as compressed HDF5.

  Raises:
    OSError: the file cannot be written.
  """
  import anndata
  import h5py

  with (
    replace_file(path) as temporary,
    open_doubtful(temporary) as stream,
    h5py.File(stream, "w") as file,
  ):
    anndata.io.write_elem(
      # Level 1: a 25th larger than the default, in two thirds of the time.
      file,
      "/",
      data,
      dataset_kwargs={"compression": "gzip", "compression_opts": 1},
    )


def _write_tiff(
  path: str | pathlib.Path,
  data: np.ndarray,
  axes: str,
  pixel_size_um: float | None,
  photometric: str = "minisblack",
  notes: Mapping[str, Any] | None = None,
) -> None:
  resolution: dict[str, Any] = {}
  if pixel_size_um:
    per_cm = _UM_PER_CM / pixel_size_um
    resolution = {
      "resolution": (per_cm, per_cm),
      "resolutionunit": "CENTIMETER",
    }
  with replace_file(path) as temporary, temporary.open("wb") as file:
    tifffile.imwrite(
      file,
      deflate.pack_strips(data),
      shape=data.shape,
      dtype=data.dtype,
      photometric=photometric,
      compression="zlib",
      rowsperstrip=deflate.count_rows(data),
      predictor=True,
      metadata={"axes": axes, **(notes or {})},
      **resolution,
    )


def _name_file(error: OSError, path: pathlib.Path) -> OSError:
  """Repeats a system error with the name of the file that was to be."""
  reason = error.strerror or str(error) or type(error).__name__
  reason = " ".join(reason.split())
  if error.errno is None:
    return OSError(f"{path}: found {reason}, expected a writable place")
  return OSError(error.errno, reason, str(path))


def _as_plain(value: Any) -> Any:
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  return str(value)
