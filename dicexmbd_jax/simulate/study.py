"""A folder of simulated images: raw stacks, their panel, the truth."""

import csv
import dataclasses
import io
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import tifffile

from dicexmbd_jax.simulate import markers
from dicexmbd_jax.simulate.image import SimulatedImage, simulate_image
from dicexmbd_jax.types import Labels

# First words of the seeds, so that panel and images never share a stream.
_PANEL_STREAM, _IMAGE_STREAM = 0, 1


@dataclasses.dataclass(frozen=True)
class WrittenImage:
  """One image of a study, for the log.

  Attributes:
    path: of the raw stack.
    num_cells: in its truth.
    style: kind of tissue.
  """

  path: pathlib.Path
  num_cells: int
  style: str


def draw_panel(seed: int) -> tuple[markers.Channel, ...]:
  """Returns the channels of the study of this seed."""
  return markers.draw_channels(np.random.default_rng([seed, _PANEL_STREAM]))


def draw_image(seed: int, index: int, shape: tuple[int, int]) -> SimulatedImage:
  """Returns image `index` (from 0) of the study of this seed.

  It depends on nothing else: not on how many images there are.
  """
  rng = np.random.default_rng([seed, _IMAGE_STREAM, index])
  return simulate_image(rng, shape, draw_panel(seed))


def simulate_study(
  output: str | os.PathLike[str], num_images: int, seed: int, size_px: int
) -> Iterator[WrittenImage]:
  """Writes a study image by image; files that exist are replaced.

  Writes `panel.csv` (channel, name, keep, nuclear, membrane_cytoplasm; one row
  per channel of the stacks, junk channels with keep 0 included),
  `img/ROI001.tiff` ... (OME-TIFF, CYX, uint16 counts, with channel names and
  the pixel size), `truth/masks/` and `truth/nuclei/` (YX, 0 = background,
  shared ids; uint16, or uint32 beyond 65,535 cells).

  Args:
    output: folder, made if missing.
    num_images: at least 1.
    seed: at least 0; the same seed gives the same pixels.
    size_px: edge of the images, at least 1; one pixel is 1 um.

  Yields:
    A record of each image, once its files are written.

  Raises:
    ValueError: an argument is out of range.
    OSError: the folder cannot be written.
  """
  limits = (
    ("num_images", num_images, 1), ("seed", seed, 0), ("size_px", size_px, 1)
  )  # fmt: skip
  for name, value, low in limits:
    if value < low:
      raise ValueError(f"{name}: found {value}, expected at least {low}")
  folder = pathlib.Path(output)
  write_panel(folder / "panel.csv", draw_panel(seed))
  for index in range(num_images):
    yield _write_image(folder, f"ROI{index + 1:03d}", seed, index, size_px)


def _write_image(
  folder: pathlib.Path, stem: str, seed: int, index: int, size_px: int
) -> WrittenImage:
  image = draw_image(seed, index, (size_px, size_px))
  path = folder / "img" / f"{stem}.tiff"
  _write_labels(folder / "truth" / "masks" / f"{stem}.tiff", image.cells)
  _write_labels(folder / "truth" / "nuclei" / f"{stem}.tiff", image.nuclei)
  # Last, so that an image that is there has its truth.
  write_stack(path, image)
  return WrittenImage(path, int(image.cells.max(initial=0)), image.style)


def write_panel(
  path: pathlib.Path, channels: tuple[markers.Channel, ...]
) -> None:
  """Writes a panel in steinbock's order of columns."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  columns = ("channel", "name", "keep", "nuclear", "membrane_cytoplasm")
  writer.writerow(columns)
  for c in channels:
    flags = (int(c.is_kept), int(c.is_nuclear), int(c.is_membrane))
    writer.writerow((c.metal, c.marker.name, *flags))
  _write_bytes(path, text.getvalue().encode())


def write_stack(path: pathlib.Path, image: SimulatedImage) -> None:
  """Writes the counts as OME-TIFF, CYX."""
  pairs = zip(image.channels, image.names, strict=True)
  names = [m if m == n else f"{m}_{n}" for m, n in pairs]
  buffer = io.BytesIO()
  tifffile.imwrite(
    buffer,
    np.moveaxis(image.stack, -1, 0),
    ome=True,
    compression="zlib",
    metadata={
      "axes": "CYX",
      "Channel": {"Name": names},
      "PhysicalSizeX": 1.0,
      "PhysicalSizeY": 1.0,
    },
  )
  _write_bytes(path, buffer.getvalue())


def _write_labels(path: pathlib.Path, labels: Labels) -> None:
  is_wide = labels.max(initial=0) > np.iinfo(np.uint16).max
  buffer = io.BytesIO()
  data = labels.astype(np.uint32 if is_wide else np.uint16)
  tifffile.imwrite(buffer, data, compression="zlib")
  _write_bytes(path, buffer.getvalue())


def _write_bytes(path: pathlib.Path, data: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(data)
    os.replace(name, path)
  except BaseException:
    os.unlink(name)
    raise
