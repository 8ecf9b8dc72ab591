"""Reads and writes what the rounds of annotation pass on to one another."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from dicexmbd_jax.io import tables, tiff, write
from dicexmbd_jax.teach.rank import Means, Region, Round, rank_images

_REGION = ("y_px", "x_px", "height_px", "width_px")
_MAX_PX = 1 << 31


def read_uncertainty(path: str | pathlib.Path) -> Float32[np.ndarray, "y x"]:
  """Reads an uncertainty map of `teach predict`, or of Ilastik.

  Returns:
    Float32 (y, x) in 0..1; whole numbers count as shares of their type's
    highest value.

  Raises:
    ValueError: it cannot be read, or is no single plane of 0..1.
  """
  pixels = tiff.read_pixels(path)
  if pixels.dtype.kind == "u":
    pixels = pixels / np.float32(np.iinfo(pixels.dtype).max)
  is_map = pixels.ndim == 3 and pixels.shape[2] == 1
  # Written so that NaN is refused as well.
  if not is_map or not (pixels.min(initial=0) >= 0 and pixels.max() <= 1):
    raise ValueError(
      f"{path}: found pixels of shape {pixels.shape}, expected one plane of "
      "values from 0 to 1"
    )
  return np.ascontiguousarray(pixels[..., 0], dtype=np.float32)


def read_history(path: str | pathlib.Path) -> list[dict[str, float]]:
  """Reads history.csv: every round's mean uncertainty by image.

  Returns:
    The rounds in order; none where there is no such file.

  Raises:
    ValueError: it is no such table.
  """
  if not pathlib.Path(path).exists():
    return []
  table = _read_table(path, ("round", "uncertainty"))
  rounds = []
  for _, rows in table.groupby("round", sort=True):
    means = zip(rows["image"], rows["uncertainty"], strict=True)
    rounds.append({image: float(mean) for image, mean in means})
  return rounds


def write_history(path: str | pathlib.Path, history: Sequence[Means]) -> None:
  """Writes history.csv: round (from 1), image, uncertainty.

  Raises:
    OSError: the file cannot be written.
  """
  rows = [
    (number, image, mean)
    for number, means in enumerate(history, 1)
    for image, mean in means.items()
  ]
  _write_rows(path, rows, ("round", "image", "uncertainty"))


def write_ranking(path: str | pathlib.Path, history: Sequence[Means]) -> None:
  """Writes ranking.csv: rank, image, uncertainty, change since last round.

  Raises:
    OSError: the file cannot be written.
  """
  means = history[-1]
  before = history[-2] if len(history) > 1 else {}
  rows = [
    (place, image, means[image], means[image] - before.get(image, np.nan))
    for place, image in enumerate(rank_images(means), 1)
  ]
  _write_rows(path, rows, ("rank", "image", "uncertainty", "change"), 6)


def write_curve(path: str | pathlib.Path, rows: Sequence[Round]) -> None:
  """Writes curve.csv: mean uncertainty by round, and whether it is the end.

  Raises:
    OSError: the file cannot be written.
  """
  names = [field.name for field in dataclasses.fields(Round)]
  _write_rows(path, [dataclasses.astuple(row) for row in rows], names)


def write_regions(
  path: str | pathlib.Path, regions: Sequence[tuple[str, Region]]
) -> None:
  """Writes regions.csv: which rectangles of which images to annotate next.

  Raises:
    OSError: the file cannot be written.
  """
  rows = [(image, *dataclasses.astuple(region)) for image, region in regions]
  names = [field.name for field in dataclasses.fields(Region)]
  _write_rows(path, rows, ("image", *names))


def read_regions(
  path: str | pathlib.Path,
) -> dict[str, list[tuple[slice, slice]]]:
  """Reads regions.csv: which rectangles of which images to annotate next.

  Raises:
    ValueError: it is no such table.
  """
  table = _read_table(path, _REGION)
  found: dict[str, list[tuple[slice, slice]]] = {}
  for row in table.to_dict("records"):
    y, x, height, width = (row[name] for name in _REGION)
    if not all(0 <= one <= _MAX_PX for one in (y, x, height, width)):
      raise ValueError(
        f"{path}: found the region {row}, expected 0 to {_MAX_PX} px"
      )
    y, x, height, width = (int(v) for v in (y, x, height, width))
    part = (slice(y, y + height), slice(x, x + width))
    found.setdefault(row["image"], []).append(part)
  return found


def _read_table(path: str | pathlib.Path, numbers: Sequence[str]):
  """Reads a CSV; images are texts even where all of them are numbers."""
  table = tables.read_table(path, texts=("image",), numbers=numbers)
  wanted = ("image", *numbers)
  missing = [name for name in wanted if name not in table.columns]
  if missing:
    raise ValueError(
      f"{path}: found no column {', '.join(missing)}, expected "
      f"{', '.join(wanted)}"
    )
  if table["image"].isna().any():
    raise ValueError(f"{path}: found a row without image, expected a name")
  return table


def _write_rows(
  path: str | pathlib.Path,
  rows: Sequence[tuple],
  columns: Sequence[str],
  decimals: int | None = None,
) -> None:
  import pandas as pd

  table = pd.DataFrame(rows, columns=list(columns))
  if decimals is not None:
    table = table.round(decimals)
  write.write_table(path, table)
