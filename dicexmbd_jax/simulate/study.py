"""A folder of simulated images: raw stacks, their panel, the truth."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from dicexmbd_jax.io import write
from dicexmbd_jax.simulate import study_panel
from dicexmbd_jax.simulate.image import SimulatedImage, simulate_image

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


def draw_panel(seed: int) -> tuple[study_panel.Channel, ...]:
  """Returns the channels of the study of this seed."""
  return study_panel.draw_channels(np.random.default_rng([seed, _PANEL_STREAM]))


def draw_image(seed: int, index: int, shape: tuple[int, int]) -> SimulatedImage:
  """Returns image `index` (from 0) of the study of this seed.

  It depends on nothing else: not on how many images there are.
  """
  rng = np.random.default_rng([seed, _IMAGE_STREAM, index])
  return simulate_image(rng, shape, draw_panel(seed))


def simulate_study(
  output: str | os.PathLike[str], num_images: int, seed: int, size_px: int
) -> Iterator[WrittenImage]:
  """Writes a study image by image; files of an earlier one are replaced.

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
    ValueError: an argument is out of range, or another study is there.
    OSError: the folder cannot be written.
  """
  limits = (
    ("num_images", num_images, 1), ("seed", seed, 0), ("size_px", size_px, 1)
  )  # fmt: skip
  for name, value, low in limits:
    if value < low:
      raise ValueError(f"{name}: found {value}, expected at least {low}")
  folder = pathlib.Path(output)
  panel = format_panel(draw_panel(seed))
  _check_output(folder, panel)
  (folder / "truth").mkdir(parents=True, exist_ok=True)
  write.write_text(folder / "panel.csv", panel)
  for index in range(num_images):
    yield _write_image(folder, f"ROI{index + 1:03d}", seed, index, size_px)


def _check_output(folder: pathlib.Path, panel: str) -> None:
  """Raises a ValueError where files of another study would be replaced."""
  path = folder / "panel.csv"
  if not (folder / "truth").exists():
    for found in (path, folder / "img"):
      if found.exists():
        raise ValueError(
          f"output: found {found} and no truth/, so not a simulated study, "
          "expected a new folder"
        )
  elif path.exists() and path.read_bytes() != panel.encode():
    raise ValueError(
      f"output: found {path} of another seed, expected a new folder"
    )


def _write_image(
  folder: pathlib.Path, stem: str, seed: int, index: int, size_px: int
) -> WrittenImage:
  image = draw_image(seed, index, (size_px, size_px))
  path = folder / "img" / f"{stem}.tiff"
  truth = folder / "truth"
  write.write_labels(truth / "masks" / path.name, image.cells, 1.0)
  write.write_labels(truth / "nuclei" / path.name, image.nuclei, 1.0)
  names = [
    _join_name(metal, marker)
    for metal, marker in zip(image.channels, image.names, strict=True)
  ]
  # Last, so that an image that is there has its truth.
  write.write_stack(path, image.stack, names)
  return WrittenImage(path, int(image.cells.max(initial=0)), image.style)


def format_panel(channels: tuple[study_panel.Channel, ...]) -> str:
  """Returns a panel's CSV text, one row per channel of the stacks."""
  rows = ["channel,name,keep,nuclear,membrane_cytoplasm"]
  for c in channels:
    flags = (int(c.is_kept), int(c.is_nuclear), int(c.is_membrane))
    rows.append(",".join((c.metal, c.marker.name, *map(str, flags))))
  return "\n".join(rows) + "\n"


def _join_name(metal: str, marker: str) -> str:
  """Returns a channel's name in the files, as in 191Ir_DNA1 or 80ArAr."""
  return metal if metal == marker else f"{metal}_{marker}"
