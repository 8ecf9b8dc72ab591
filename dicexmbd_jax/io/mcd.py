"""Reads Fluidigm's .mcd files; the only importer of readimc."""

import contextlib
import dataclasses
import math
import pathlib
import warnings
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import readimc
from readimc.data import Acquisition

from dicexmbd_jax import memory, storage
from dicexmbd_jax.io import pixels, txt
from dicexmbd_jax.io.selection import ChannelSelection
from dicexmbd_jax.types import LoadedImage

# What the parser warns of is an error here, or a warning of ours.
warnings.filterwarnings("ignore", module=r"readimc\b")

Select = Callable[[Sequence[str], int], ChannelSelection]

_NUM_AXES = 3  # X, Y and Z are stored in front of the channels.


def list_acquisitions(
  path: pathlib.Path, shown: pathlib.Path
) -> tuple[list[tuple[int, str, int]], list[str]]:
  """Lists id, description and bytes of an .mcd file's acquisitions.

  Args:
    path: the file to open.
    shown: the file's name in messages.

  Returns:
    The acquisitions in the file's order, and a line for each that belongs to no
    slide: the parser leaves it out.

  Raises:
    ValueError: the file is unreadable or holds no acquisition.
  """
  with _explain(shown, "a complete .mcd file"), readimc.MCDFile(path) as file:
    found = [
      (acquisition.id, acquisition.description or "", _measure(acquisition))
      for slide in file.slides
      for acquisition in slide.acquisitions
    ]
    schema = xml.etree.ElementTree.fromstring(file.schema_xml)
  if not found:
    raise ValueError(f"{shown}: found no acquisition, expected at least one")
  known = {str(number) for number, _, _ in found}
  declared = schema.findall("{*}Acquisition")
  numbers = [(one.findtext("{*}ID") or "")[:20] for one in declared]
  lost = [
    f"{shown}: found acquisition {number!r} of no slide, expected one's"
    for number in numbers
    if number.strip() not in known
  ]
  return found, lost


@dataclasses.dataclass(frozen=True)
class Frame:
  """What an .mcd file declares of an acquisition, apart from its pixels.

  Attributes:
    shape: height and width.
    pixel_size_um: edge of a pixel.
    warnings: one line each, without the file's name.
    origin: its place, for images.csv.
  """

  shape: tuple[int, int]
  pixel_size_um: float
  warnings: tuple[str, ...]
  origin: Mapping[str, str | int | float | bool | None]


def read_frame(path: pathlib.Path, number: int, shown: pathlib.Path) -> Frame:
  """Reads what an .mcd file declares of one acquisition.

  Args:
    path: the file to open.
    number: the acquisition's id.
    shown: the file's name in messages.

  Raises:
    ValueError: no such acquisition, or a broken description.
  """
  with _explain(shown, _want(number)), readimc.MCDFile(path) as file:
    return _describe_frame(_find_acquisition(file, number))


def read_mcd(
  path: pathlib.Path, number: int, select: Select, shown: pathlib.Path
) -> LoadedImage:
  """Reads the selected channels of one acquisition of an .mcd file.

  Pixels that were never ablated are zero, with a warning. An acquisition
  without any data is an error. The file is read in strips: in memory are the
  selected channels alone, and these in a file where they are large.

  Args:
    path: the file to open.
    number: the acquisition's id.
    select: from channel names and their number to the channels to read; a
      channel's name is its label, then its metal.
    shown: the file's name in messages.

  Raises:
    ValueError: no such acquisition, broken data, data that belong to another
      acquisition too, or channels that `select` does not take.
  """
  with _explain(shown, _want(number)), readimc.MCDFile(path) as file:
    acquisition = _find_acquisition(file, number)
    names = _join_names(acquisition)
    frame = _describe_frame(acquisition)
    block = _open_block(path, acquisition)
    others = _find_overlaps(file, acquisition)
  if others:
    raise ValueError(
      f"{shown}: found data of acquisition {number} that are acquisition "
      f"{others[0]}'s too, expected data of its own"
    )
  selection = select(names, len(names))
  _check_memory(block, frame.shape, len(selection.channels), shown)
  places = pixels.find_places(block.x, block.y, shown, frame.shape)
  loaded = selection.load(
    places.fill(block.read(selection.channels), len(selection.channels)),
    frame.pixel_size_um,
    (*frame.warnings, *_warn_of_gaps(places, number)),
  )
  return dataclasses.replace(
    loaded, origin=dict(frame.origin), is_complete=places.gap is None
  )


@contextlib.contextmanager
def _explain(shown: pathlib.Path, wanted: str) -> Iterator[None]:
  """Turns whatever the parser raises into one line."""
  try:
    yield
  except (MemoryError, memory.TooLargeError):
    raise
  except Exception as error:
    # Broken files make the parser fail in any way: OSError, KeyError,
    # IndexError, ParseError, AttributeError, ...
    text = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(
      f"{shown}: found unreadable data ({text}), expected {wanted}"
    ) from error


def _want(number: int) -> str:
  return f"a complete acquisition {number}"


def _find_acquisition(file: readimc.MCDFile, number: int) -> Acquisition:
  for slide in file.slides:
    for acquisition in slide.acquisitions:
      if acquisition.id == number:
        return acquisition
  raise KeyError(f"no acquisition {number}")


def _join_names(acquisition: Acquisition) -> list[str]:
  return list(
    map(txt.join_name, acquisition.channel_labels, acquisition.channel_names)
  )


def _describe_frame(acquisition: Acquisition) -> Frame:
  metadata = acquisition.metadata
  lines, pixel_size_um = _check_pixel_size(acquisition)
  return Frame(
    (int(metadata["MaxY"]), int(metadata["MaxX"])),
    pixel_size_um,
    tuple(lines),
    _describe_acquisition(acquisition),
  )


def _get_span(acquisition: Acquisition) -> tuple[int, int]:
  """Returns where in the file an acquisition's pixels begin and end."""
  metadata = acquisition.metadata
  return int(metadata["DataStartOffset"]), int(metadata["DataEndOffset"])


def _measure(acquisition: Acquisition) -> int:
  """Returns the bytes of an acquisition's pixels; 0 where they are not told."""
  try:
    start, end = _get_span(acquisition)
  except (KeyError, ValueError):
    return 0  # Reading it will say what is wrong.
  return max(end - start, 0)


def _find_overlaps(
  file: readimc.MCDFile, acquisition: Acquisition
) -> list[int]:
  """Finds the acquisitions of all slides that share data with this one.

  One whose data would end behind the file's end has none that it could share.
  """
  start, end = _get_span(acquisition)
  size = file.path.stat().st_size
  spans = {
    other.id: _get_span(other)
    for slide in file.slides
    for other in slide.acquisitions
    if other is not acquisition
  }
  return [
    number
    for number, (first, last) in spans.items()
    if max(start, first) < min(end, last) and last <= size
  ]


@dataclasses.dataclass(frozen=True)
class _StoredPixels:
  """An acquisition's pixels; those that were never written are left out.

  Attributes:
    values: as they lie in the file, (pixel, X Y Z and channels).
    is_written: of each; None: all are.
    x: of those that were written.
    y: likewise.
  """

  values: np.memmap
  is_written: np.ndarray | None
  x: np.ndarray
  y: np.ndarray

  def read(self, channels: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the written pixels of some channels, (channel, pixel)."""
    for part, values in _read_strips(self.values):
      if self.is_written is not None:
        values = values[self.is_written[part]]
      yield values.T[[_NUM_AXES + k for k in channels]]


def _open_block(path: pathlib.Path, acquisition: Acquisition) -> _StoredPixels:
  """Opens an acquisition's pixels and finds those that were never written.

  These are zero all over, but for the first at the origin, which may be so.
  """
  start, end = _get_span(acquisition)
  num_values = _NUM_AXES + acquisition.num_channels
  count, rest = divmod(end - start, num_values * np.dtype(np.float32).itemsize)
  if acquisition.metadata["ValueBytes"] != "4" or rest:
    raise ValueError(f"{end - start} bytes of {num_values} values a pixel")
  area = math.prod(_describe_frame(acquisition).shape)
  if min(count, area) < 1:
    raise ValueError(f"{count} of {area} pixels")
  block = np.memmap(path, np.float32, "r", start, (count, num_values))
  x, y = (storage.allocate((count,), np.float32) for _ in range(2))
  is_written = storage.allocate((count,), bool)
  num_written, has_origin = 0, False
  for part, values in _read_strips(block):
    at_origin = np.flatnonzero((values[:, 0] == 0) & (values[:, 1] == 0))
    repeated = at_origin[not has_origin :]
    has_origin = has_origin or at_origin.size > 0
    is_written[part] = True
    is_written[part][repeated] = values[repeated].any(axis=1)
    written = values[is_written[part], :2]
    here = slice(num_written, num_written + len(written))
    x[here], y[here] = written.T
    num_written = here.stop
  if num_written == 1 < count:
    raise ValueError(f"0 of {area} pixels")
  is_whole = num_written == count
  return _StoredPixels(
    block, None if is_whole else is_written, x[:num_written], y[:num_written]
  )


def _read_strips(
  values: np.memmap,
) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields some pixels at a time; of the file, no others stay in memory."""
  for part in storage.cut_strips(values.shape, values.itemsize):
    yield part, np.array(values[part])
    storage.hand_back(values)


def _check_memory(
  block: _StoredPixels,
  shape: tuple[int, int],
  num_channels: int,
  shown: pathlib.Path,
) -> None:
  """Refuses what takes too much memory.

  A large image lies in a file, and may be larger than memory if what is stored
  suffices for it.
  """
  num_pixels = math.prod(shape) * num_channels
  if storage.is_large_stack(num_pixels) and storage.can_outgrow_memory(
    num_pixels, 4 * num_pixels, block.values.nbytes
  ):
    return
  memory.check_size(
    shown,
    f"{shape[1]} x {shape[0]} pixels of {num_channels} channels",
    4 * num_pixels,
  )


def _warn_of_gaps(places: pixels.Places, number: int) -> list[str]:
  if places.gap is None:
    return []
  area = math.prod(places.shape)
  return [
    f"acquisition {number} has {area - places.num_missing} of {area} pixels"
  ]


def _check_pixel_size(acquisition: Acquisition) -> tuple[list[str], float]:
  x, y = acquisition.pixel_size_x_um or 1.0, acquisition.pixel_size_y_um or 1.0
  if x <= 0 or y <= 0:
    return [f"pixel size of {x} x {y} um, taken as 1 um"], 1.0
  if abs(x - y) > 0.01 * max(x, y):
    return [f"pixels are not square ({x} x {y} um), taken as 1 um"], 1.0
  return [], x


def _describe_acquisition(
  acquisition: Acquisition,
) -> dict[str, str | int | float | bool | None]:
  """Names an acquisition's place as steinbock's images.csv does."""
  points = acquisition.roi_points_um
  start = points[0] if points else (None, None)
  end = points[2] if points else (None, None)
  return {
    "acquisition_id": acquisition.id,
    "acquisition_description": acquisition.description,
    "acquisition_start_x_um": start[0],
    "acquisition_start_y_um": start[1],
    "acquisition_end_x_um": end[0],
    "acquisition_end_y_um": end[1],
    "acquisition_width_um": acquisition.width_um,
    "acquisition_height_um": acquisition.height_um,
  }
