"""Reads the selected channels of TIFF stacks of any make."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tifffile

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io import metadata, ome
from dicexmbd_jax.io.ifds import open_tiff
from dicexmbd_jax.io.selection import ChannelSelection
from dicexmbd_jax.io.series import choose_series, describe
from dicexmbd_jax.types import LoadedImage

Select = Callable[[Sequence[str], int], ChannelSelection]
_Page = tifffile.TiffPage | tifffile.TiffFrame


def read_tiff(
  path: pathlib.Path,
  select: Select,
  shown: pathlib.Path,
  find_other: ome.Find | None = None,
) -> LoadedImage:
  """Reads the selected channels of a TIFF; only their pages where it can.

  The channel axis is the one axis besides y and x that is longer than one: C,
  pages without a meaning, samples (YXS), or slices where an ImageJ or plain
  file has no channels; of an OME-TIFF, slices or times only for a panel of as
  many rows. Several two-dimensional series of one shape are its channels, too;
  optical images and thumbnails beside them are passed over. Any compression,
  byte order and real dtype will do. An OME-TIFF of several files is read from
  all of them.

  Args:
    path: the file to open.
    select: from channel names and their number to the channels to read.
    shown: the file's name in messages.
    find_other: finds its image's other files; None where these lie beside it.

  Returns:
    The channels as float32 (y, x, m), with the pixel size of OME, ImageJ or
    TIFF metadata where it is plausible, else None.

  Raises:
    ValueError: not a TIFF, truncated or broken data, more axes than channel,
      y and x, or channels that `select` does not take.
  """
  with _open_tiff(path, shown, find_other) as layout:
    with _explain(shown):
      names = metadata.read_channel_names(
        layout.file,
        layout.first,
        layout.pages,
        layout.num_channels,
        layout.pixels,
      )
      lines, pixel_size_um = metadata.read_pixel_size(
        layout.file, layout.first, layout.pixels
      )
      lines += metadata.warn_of_labels(layout.file)
    selection = select(names, layout.num_channels)
    if layout.odd_axes and not selection.has_panel:
      raise ValueError(_describe_axes(layout, shown))
    shape = len(selection.channels), *layout.size
    is_large = storage.is_large_stack(math.prod(shape))
    is_cut = _check_memory(layout, selection.channels, shown, is_large)
    with _explain(shown), np.errstate(over="ignore"):  # Infinite is told later.
      if is_cut:
        planes = storage.allocate(shape, np.float32, storage.STACK_BYTES)
        _read_by_strips(layout, selection.channels, planes)
        stack = np.moveaxis(planes, 0, -1)
      else:
        stack = _lay_together(
          _list_planes(layout, selection.channels),
          len(selection.channels),
          shown,
        )
  if layout.odd_axes:
    lines.append(
      f"axes {layout.odd_axes}: slices or times are taken for the panel's "
      "channels, in order"
    )
  return selection.load(stack, pixel_size_um, (*layout.warnings, *lines))


def _check_dtype(dtype: np.dtype, shown: pathlib.Path) -> None:
  if dtype.kind not in "buif":
    raise _ClearError(f"{shown}: found {dtype} pixels, expected real numbers")


def _describe_axes(layout: "_Layout", shown: pathlib.Path) -> str:
  return (
    f"{shown}: found axes {layout.odd_axes}, expected channels, y and x, or a "
    "panel of as many rows"
  )


def read_pixels(path: str | pathlib.Path) -> np.ndarray:
  """Reads a whole TIFF as (y, x, m) in its own dtype, whatever its axes.

  Large pixels are read in strips and lie in a file, where the file can be cut.

  Raises:
    ValueError: missing file, not a TIFF, truncated or broken data, or more
      axes than channel, y and x.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"{path}: found no such file, expected a TIFF")
  with _open_tiff(path, path) as layout, _explain(path):
    channels = range(layout.num_channels)
    if layout.odd_axes:
      raise _ClearError(_describe_axes(layout, path))
    if layout.warnings:
      raise _ClearError(f"{path}: found several images, {layout.warnings[0]}")
    shape = (*layout.size, layout.num_channels)
    is_large = math.prod(shape) * layout.dtype.itemsize >= storage.LARGE_BYTES
    if not _check_memory(layout, channels, path, is_large):
      return _read_planes(layout, channels)
    pixels = storage.allocate(shape, layout.dtype)
    _read_by_strips(layout, channels, np.moveaxis(pixels, -1, 0))
    return pixels


def read_pixel_size(path: str | pathlib.Path) -> float | None:
  """Reads the edge of a TIFF's pixels in um; None where nothing tells it.

  Raises:
    ValueError: missing file, not a TIFF, or broken metadata.
  """
  path = pathlib.Path(path)
  with _open_tiff(path, path) as layout, _explain(path):
    found = metadata.read_pixel_size(layout.file, layout.first, layout.pixels)
    return found[1]


def count_channels(path: pathlib.Path, shown: pathlib.Path) -> int:
  """Returns how many channels a TIFF has.

  Raises:
    ValueError: not a TIFF, or broken metadata.
  """
  with _open_tiff(path, shown) as layout:
    return layout.num_channels


def list_parts(
  path: pathlib.Path, shown: pathlib.Path, find_other: ome.Find | None = None
) -> list[str]:
  """Names the files of an OME-TIFF image, in the order of their planes.

  Returns:
    None of them where the image lies in this file alone, or where reading it
    will say what is wrong.
  """
  try:
    with _explain(shown):
      planes = ome.find_planes(path, shown.name, find_other)
  except ValueError:
    return []
  names = planes.list_names() if planes is not None else []
  return names if len(names) > 1 else []


def read_notes(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads what `write` noted in a TIFF's description; {} in others' files.

  Raises:
    ValueError: missing file, not a TIFF, or broken metadata.
  """
  path = pathlib.Path(path)
  with _open_tiff(path, path) as layout, _explain(path):
    return metadata.read_notes(layout.first)


@dataclasses.dataclass(frozen=True)
class _Layout:
  """An open TIFF: its series, their axes, and where among these channels are.

  Without an axis of channels every series is one; without series every page
  is, whatever file it lies in.
  """

  file: tifffile.TiffFile
  pixels: ome.Element | None
  pages: Sequence[_Page | None]
  series: Sequence[tifffile.TiffPageSeries] = ()
  axes: str = ""
  axis: int | None = None
  odd_axes: str = ""  # Said of slices or times in the place of channels.
  warnings: tuple[str, ...] = ()

  @property
  def num_channels(self) -> int:
    if not self.series:
      return len(self.pages)
    if self.axis is None:
      return len(self.series)
    return self.series[0].shape[self.axis]

  @property
  def first(self) -> tifffile.TiffPage:
    """The image's first page in the file, which tells of it."""
    return self.series[0].keyframe if self.series else self.file.pages.first

  @property
  def size(self) -> tuple[int, int]:
    """Rows and columns."""
    key = self._some_page.keyframe
    assert key is not None
    return key.imagelength, key.imagewidth

  @property
  def dtype(self) -> np.dtype:
    """Of the pixels, in native byte order."""
    return np.dtype(self._some_page.dtype or np.uint8).newbyteorder("=")

  @property
  def _some_page(self) -> _Page:
    return next(page for page in self.pages if page is not None)

  @property
  def has_pages(self) -> bool:
    """Whether each channel of an axis is a page."""
    one = self.series[0]
    return len(one) == self.num_channels and one.keyframe.axes == "YX"

  @property
  def can_be_cut(self) -> bool:
    """Whether the file can be read in strips.

    So it can where each channel is a page of one sample, whatever file it is
    in, and where all are the samples of the only page.
    """
    if self.has_samples:
      return True
    if self.series and self.axis is None and len(self.pages) > 1:
      return False
    if self.series and self.axis is not None and not self.has_pages:
      return False
    return all(one is not None and one.ndim == 2 for one in self.pages)

  @property
  def has_samples(self) -> bool:
    """Whether the channels are the samples of each pixel of the only page."""
    return (
      len(self.pages) == 1
      and len(self.series) == 1
      and self.axis is not None
      and self.pages[0] is not None
      and self.pages[0].axes == "YXS"
    )


@contextlib.contextmanager
def _open_tiff(
  path: pathlib.Path,
  shown: pathlib.Path,
  find_other: ome.Find | None = None,
) -> Iterator[_Layout]:
  with contextlib.ExitStack() as until_read:
    with _explain(shown):  # Refuses what was opened with complaints, too.
      planes = ome.find_planes(path, shown.name, find_other)
      file = until_read.enter_context(open_tiff(path))
    with _explain(shown):
      layout = (
        _lay_out(file, shown)
        if planes is None
        else _gather(file, planes, shown)
      )
      _check_extent(layout, shown)
    yield layout


def _lay_out(file: tifffile.TiffFile, shown: pathlib.Path) -> _Layout:
  """Lays out a file by its own pages alone."""
  series, warnings = _choose_series(file, shown)
  axes, shape = _name_axes(file, series[0]), series[0].shape
  axis = _find_channel_axis(axes, shape, shown)
  return _Layout(
    file=file,
    pixels=metadata.find_ome_pixels(file, series[0].keyframe),
    pages=[page for one in series for page in one.pages],
    series=series,
    axes=axes,
    axis=axis,
    odd_axes=_find_odd_axes(file, axes, shape, axis),
    warnings=warnings,
  )


def _find_odd_axes(
  file: tifffile.TiffFile, axes: str, shape: Sequence[int], axis: int | None
) -> str:
  """Describes axes that OME names slices or times where channels are sought."""
  is_odd = file.is_ome and axis is not None and axes[axis] in "ZT"
  return f"{axes} of {tuple(shape)}" if is_odd else ""


def _gather(
  file: tifffile.TiffFile, planes: ome.Planes, shown: pathlib.Path
) -> _Layout:
  """Lays out an image whose description names other files: plane by plane."""
  sizes = {axis: int(planes.pixels.get(f"Size{axis}", 1)) for axis in "TZCYX"}
  shape = tuple(sizes.values())
  axis = _find_channel_axis("TZCYX", shape, shown)
  pages = ome.read_pages(planes.planes)
  for page, plane in zip(pages, planes.planes, strict=True):
    if page.shape != shape[-2:] or page.dtype != pages[0].dtype:
      raise _ClearError(
        f"{shown}: found {page.dtype} {page.shape} in page {plane.page} of "
        f"{plane.name}, expected {pages[0].dtype} {shape[-2:]}"
      )
  return _Layout(
    file,
    planes.pixels,
    pages,
    odd_axes=_find_odd_axes(file, "TZCYX", shape, axis),
    warnings=planes.warnings,
  )


class _Complaints(logging.Handler):
  """Collects what tifffile only logs; missing data is one such thing."""

  def __init__(self) -> None:
    super().__init__(logging.ERROR)
    self.thread = threading.get_ident()
    self.lines: list[str] = []

  def emit(self, record: logging.LogRecord) -> None:
    if record.thread == self.thread:
      self.lines.append(record.getMessage())


@contextlib.contextmanager
def _explain(shown: pathlib.Path) -> Iterator[None]:
  """Turns tifffile's exceptions and logged errors into one line."""
  complaints = _Complaints()
  logger = tifffile.logger()
  logger.propagate = False  # Its lines go into ours, not beside them.
  logger.addHandler(complaints)
  try:
    yield
    if complaints.lines:
      raise OSError(complaints.lines[0])
  except (_ClearError, memory.TooLargeError, MemoryError):
    raise
  except ome.PartError as error:
    raise ValueError(f"{shown}: {error}") from error
  except Exception as error:
    # Broken files make it fail in any way: TiffFileError, struct.error,
    # ValueError, zlib.error, IndexError, ...
    text = re.sub(r"<[^>]*> *", "", " ".join(str(error).split()))
    text = text[:200] or type(error).__name__
    raise ValueError(
      f"{shown}: found a truncated or unreadable TIFF ({text}), "
      "expected a complete one"
    ) from error
  finally:
    logger.removeHandler(complaints)


class _ClearError(ValueError):
  """An error of this module, whose line is clear already."""


def _choose_series(
  file: tifffile.TiffFile, shown: pathlib.Path
) -> tuple[list[tifffile.TiffPageSeries], tuple[str, ...]]:
  found = list(file.series)
  if not found:
    raise OSError("no image in it")
  chosen = choose_series(found, file.is_ome)
  if chosen is None:
    raise _ClearError(
      f"{shown}: found {len(found)} images ({describe(found)}), expected one "
      "CYX stack"
    )
  return chosen


def _name_axes(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> str:
  """Names the axes; tifffile mistakes stacks that are one pixel wide."""
  is_named = "axes" in metadata.read_notes(series.keyframe)
  is_column = len(series.shape) == 3 and series.shape[2] == 1
  return "CYX" if file.is_shaped and is_column and not is_named else series.axes


def _find_channel_axis(
  axes: str, shape: Sequence[int], shown: pathlib.Path
) -> int | None:
  """Finds the axis of the channels; None where there is one channel only."""
  long = [i for i, name in enumerate(axes) if name not in "YX" and shape[i] > 1]
  if len(long) < 2 and {"Y", "X"} <= set(axes):
    return long[0] if long else None
  raise _ClearError(
    f"{shown}: found axes {axes} of {shape}, expected channels, y and x"
  )


def _check_extent(layout: _Layout, shown: pathlib.Path) -> None:
  """Refuses files that are shorter than their own tables say."""
  ends: dict[str, int] = {}
  sizes: dict[str, int] = {}
  num_missing = 0

  def count(handle: tifffile.FileHandle, end: int) -> None:
    sizes[handle.path] = handle.size
    ends[handle.path] = max(ends.get(handle.path, 0), end)

  contiguous: set[int] = set()
  for one in layout.series:
    if one.dataoffset is not None:
      contiguous.add(one.nbytes)
      count(layout.file.filehandle, one.dataoffset + one.nbytes)
  for page in layout.pages:
    if page is None:
      num_missing += 1
      continue
    _check_stored(page, contiguous, shown)
    for offset, length in zip(
      page.dataoffsets, page.databytecounts, strict=True
    ):
      num_missing += not (offset and length)
      count(page.parent.filehandle, offset + length)
  for path, end in ends.items():
    if end > sizes[path]:
      raise _ClearError(
        f"{shown}: found a truncated TIFF of {sizes[path]} bytes, expected at "
        f"least {end}"
      )
  if num_missing:
    raise _ClearError(
      f"{shown}: found {num_missing} planes or strips without data, expected "
      "a complete TIFF"
    )


def _check_stored(
  page: _Page, contiguous: Collection[int], shown: pathlib.Path
) -> None:
  """Refuses a page that stores more or less than its own size.

  A wrong width would shear the image, and missing tiles would be black. The
  planes of a contiguous series may be counted with the first, by their bytes,
  and a last strip may be filled up.
  """
  key = page.keyframe
  assert key is not None
  num_segments = math.prod(key.chunked)
  if len(page.dataoffsets) != num_segments:
    raise _ClearError(
      f"{shown}: found {len(page.dataoffsets)} strips or tiles of a page, "
      f"expected {num_segments}"
    )
  if key.compression != 1 or key.is_tiled:
    return
  is_contig = key.planarconfig == 1
  samples = key.samplesperpixel
  row_bits = key.imagewidth * (samples if is_contig else 1) * key.bitspersample
  row_bytes = -(-row_bits // 8) * (1 if is_contig else samples)
  num_bytes = row_bytes * key.imagelength * key.imagedepth
  filled = -(-key.imagelength // max(key.rowsperstrip, 1)) * key.rowsperstrip
  stored = sum(page.databytecounts)
  if stored in (num_bytes, row_bytes * filled, *contiguous):
    return
  raise _ClearError(
    f"{shown}: found {stored} bytes of pixels, expected {num_bytes} for "
    f"{key.imagewidth} x {key.imagelength} pixels"
  )


def _check_memory(
  layout: _Layout,
  channels: Sequence[int],
  shown: pathlib.Path,
  may_cut: bool = False,
) -> bool:
  """Refuses what takes too much memory: as it is stored, and as float32.

  A large image can be read strip by strip, into a file, see can_be_cut. It may
  then be larger than memory, if what is stored suffices for it.

  Returns:
    Whether it is to be read so.
  """
  page = next(page for page in layout.pages if page is not None)
  assert page.keyframe is not None
  height, width = page.keyframe.imagelength, page.keyframe.imagewidth
  itemsize = np.dtype(page.dtype or np.uint8).itemsize
  if page.keyframe.is_tiled:  # A tile may be larger than the image.
    tile = page.keyframe.tile
    assert tile is not None
    memory.check_size(
      shown,
      f"tiles of {tile[-1]} x {tile[-2]} pixels",
      math.prod(tile) * page.keyframe.samplesperpixel * itemsize,
    )
  num_decoded = len(channels)
  if layout.axis is not None and not layout.has_pages:
    num_decoded = layout.num_channels  # All at once.
  num_pixels = height * width * len(channels)
  if may_cut and layout.can_be_cut:
    _check_dtype(np.dtype(page.dtype), shown)
    if not page.is_memmappable:
      rows = min(page.keyframe.rowsperstrip, height)
      row_bytes = width * itemsize * page.keyframe.samplesperpixel
      memory.check_size(shown, f"strips of {rows} rows", rows * row_bytes)
    pages = (
      layout.pages
      if layout.has_samples
      else map(layout.pages.__getitem__, channels)
    )
    stored = sum(map(_count_stored, pages))
    if storage.can_outgrow_memory(num_pixels, num_pixels * itemsize, stored):
      return True
  memory.check_size(
    shown,
    f"{len(channels)} of {layout.num_channels} channels of {width} x {height} "
    "pixels",
    height * width * itemsize * num_decoded + 4 * num_pixels,
  )
  return False


def _count_stored(page: _Page | None) -> int:
  return 0 if page is None else sum(page.databytecounts)


def _read_by_strips(
  layout: _Layout, channels: Sequence[int], planes: np.ndarray
) -> None:
  """Reads channels into (m, y, x), of a file that can be cut."""
  if layout.has_samples:
    for top, left, pixels in _list_segments(layout.pages[0]):
      _place(planes, top, left, np.moveaxis(pixels, -1, 0)[list(channels)])
    return
  for plane, channel in zip(planes, channels, strict=True):
    for top, left, pixels in _list_segments(layout.pages[channel]):
      _place(plane[None], top, left, pixels[None, ..., 0])


def _place(planes: np.ndarray, top: int, left: int, pixels: np.ndarray) -> None:
  """Puts a part in its place; what stands over the edge is left out."""
  place = planes[:, top:, left:][:, : pixels.shape[1], : pixels.shape[2]]
  place[...] = pixels[:, : place.shape[1], : place.shape[2]]


def _list_segments(
  page: _Page | None,
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Yields first row, first column and (y, x, sample) of a page's parts."""
  assert page is not None
  handle = page.parent.filehandle
  was_closed = handle.closed
  handle.open()
  try:
    if page.is_memmappable:
      plane = page.asarray(out="memmap")
      pixels = plane.reshape(*plane.shape[:2], -1)
      for part in storage.cut_strips(pixels.shape, 8):
        yield part.start, 0, pixels[part]
        storage.hand_back(plane)
      return
    for segment, (_, _, top, left, _), _ in page.segments():
      assert segment is not None  # Else it was refused.
      yield top, left, segment[0]
  finally:
    if was_closed:
      handle.close()


def _read_planes(layout: _Layout, channels: Sequence[int]) -> np.ndarray:
  """Reads (y, x, m), touching no other channel where these are pages."""
  return np.moveaxis(np.stack([*_list_planes(layout, channels)]), 0, -1)


def _list_planes(
  layout: _Layout, channels: Sequence[int]
) -> Iterator[np.ndarray]:
  """Yields channels, (y, x) each."""
  if not layout.series:
    for i in channels:
      yield _read_page(layout.pages[i])
  elif layout.axis is None:
    for i in channels:
      data = _order_axes(layout.series[i].asarray(), layout.axes)
      yield from np.moveaxis(data, -1, 0)
  elif layout.has_pages:
    for i in channels:
      yield layout.file.asarray(key=i, series=layout.series[0])
  else:
    one = layout.series[0]
    is_plain = one.dataoffset is not None
    data = one.asarray(out="memmap") if is_plain else one.asarray()
    data = _order_axes(np.take(data, channels, layout.axis), layout.axes)
    yield from np.moveaxis(data, -1, 0)


def _lay_together(
  planes: Iterable[np.ndarray], num_planes: int, shown: pathlib.Path
) -> np.ndarray:
  """Returns (y, x, m) as float32; a channel's pixels lie side by side.

  So does all that follows look at them, and so most files have them.
  """
  channels = np.empty(0, np.float32)
  for at, plane in enumerate(planes):
    _check_dtype(plane.dtype, shown)
    if at == 0:
      channels = np.empty((num_planes, *plane.shape), np.float32)
    channels[at] = plane
  return np.moveaxis(channels, 0, -1)


def _read_page(page: _Page | None) -> np.ndarray:
  """Reads a page of a file that is not open."""
  assert page is not None
  with page.parent.filehandle as handle:
    handle.open()
    return page.asarray()


def _order_axes(data: np.ndarray, axes: str) -> np.ndarray:
  """Brings any axes to (y, x, m); the others are of length one."""
  kept = (axes.index("Y"), axes.index("X"))
  order = (*kept, *(i for i in range(data.ndim) if i not in kept))
  data = data.transpose(order)
  return data.reshape(*data.shape[:2], -1)
