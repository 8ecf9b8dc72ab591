"""Reads Fluidigm's .mcd and .txt files; the only importer of readimc."""

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import readimc
from readimc.data import Acquisition

from dicexmbd_jax.io.selection import ChannelSelection, RawImage

# What the parser warns of is an error here, or a warning of ours.
warnings.filterwarnings("ignore", module=r"readimc\b")

Select = Callable[[Sequence[str], int], ChannelSelection]


def list_acquisitions(
  path: pathlib.Path, shown: pathlib.Path
) -> list[tuple[int, str]]:
  """Lists id and description of an .mcd file's acquisitions, in its order.

  Args:
    path: the file to open.
    shown: the file's name in messages.

  Raises:
    ValueError: the file is unreadable or holds no acquisition.
  """
  with _explain(shown, "a complete .mcd file"), readimc.MCDFile(path) as file:
    found = [
      (acquisition.id, acquisition.description or "")
      for slide in file.slides
      for acquisition in slide.acquisitions
    ]
  if not found:
    raise ValueError(f"{shown}: found no acquisition, expected at least one")
  return found


def read_mcd(
  path: pathlib.Path, number: int, select: Select, shown: pathlib.Path
) -> RawImage:
  """Reads the selected channels of one acquisition of an .mcd file.

  Pixels that were never ablated are zero, with a warning. An acquisition
  without any data is an error.

  Args:
    path: the file to open.
    number: the acquisition's id.
    select: from channel names and their number to the channels to read; a
      channel's name is its label, then its metal.
    shown: the file's name in messages.

  Raises:
    ValueError: no such acquisition, broken data, or channels that `select`
      does not take.
  """
  wanted = f"a complete acquisition {number}"
  with _explain(shown, wanted), readimc.MCDFile(path) as file:
    acquisition = _find_acquisition(file, number)
    names = _join_names(acquisition)
    count = _count_pixels(acquisition)
    area = int(acquisition.width_px or 0) * int(acquisition.height_px or 0)
    if min(count, area) < 1:
      raise ValueError(f"{count} of {area} pixels")
  selection = select(names, len(names))  # Its errors are clear already.
  with _explain(shown, wanted), readimc.MCDFile(path) as file:
    acquisition = _find_acquisition(file, number)
    planes = file.read_acquisition(
      acquisition, channels=list(selection.channels)
    )
    origin = _describe_acquisition(acquisition)
  lines, pixel_size_um = _check_pixel_size(acquisition)
  if count != area:
    lines.append(f"acquisition {number} has {count} of {area} pixels")
  stack = np.moveaxis(planes, 0, -1)
  return RawImage(stack, selection, pixel_size_um, tuple(lines), origin)


def read_txt(
  path: pathlib.Path, select: Select, shown: pathlib.Path
) -> RawImage:
  """Reads the selected channels of a .txt file; its pixels are 1 um.

  Raises:
    ValueError: broken or missing data, or channels that `select` does not
      take.
  """
  wanted = "a complete Fluidigm .txt file"
  with _explain(shown, wanted), readimc.TXTFile(path) as file:
    names = _join_names(file)
  selection = select(names, len(names))
  with _explain(shown, wanted), readimc.TXTFile(path) as file:
    planes = file.read_acquisition()[list(selection.channels)]
  return RawImage(np.moveaxis(planes, 0, -1), selection, 1.0)


@contextlib.contextmanager
def _explain(shown: pathlib.Path, wanted: str) -> Iterator[None]:
  """Turns whatever the parser raises into one line."""
  try:
    yield
  except MemoryError:
    raise
  except Exception as error:
    # Broken files make the parser fail in any way: OSError, KeyError,
    # IndexError, ParseError, AttributeError, ...
    text = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(
      f"{shown}: found unreadable data ({text}), expected {wanted}"
    ) from error


def _find_acquisition(file: readimc.MCDFile, number: int) -> Acquisition:
  for slide in file.slides:
    for acquisition in slide.acquisitions:
      if acquisition.id == number:
        return acquisition
  raise KeyError(f"no acquisition {number}")


def _join_names(file: Acquisition | readimc.TXTFile) -> list[str]:
  """Writes a channel's label and metal as one name, as in DNA1_Ir191."""
  return [
    f"{label}_{metal}" if label and label != metal else metal
    for label, metal in zip(
      file.channel_labels, file.channel_names, strict=True
    )
  ]


def _count_pixels(acquisition: Acquisition) -> int:
  metadata = acquisition.metadata
  size = int(metadata["DataEndOffset"]) - int(metadata["DataStartOffset"])
  # X, Y and Z are stored beside the channels.
  pixel = (acquisition.num_channels + 3) * int(metadata["ValueBytes"])
  return size // pixel


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
