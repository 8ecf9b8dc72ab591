"""Samples from folders of images and of what people say of them."""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import chain
from dicexmbd_jax.finetuning.samples import Sample, check_sample
from dicexmbd_jax.io import labels, listing, pairing, probabilities
from dicexmbd_jax.io.source import open_source
from dicexmbd_jax.masks import class_order
from dicexmbd_jax.runs.failures import FailureLog, describe_source
from dicexmbd_jax.scores import instances
from dicexmbd_jax.types import (
  ImageRecord,
  ImageSource,
  Labels,
  Panel,
  Probabilities,
)

Path = pathlib.Path
Part = str  # "cells", "nuclei", "membrane" or "maps".
# Subfolders of what `predict`, `teach predict` and the viewer write.
_SUBFOLDERS: Mapping[Part, Sequence[str]] = {
  "cells": ("corrected", "masks"),
  "nuclei": ("nuclei",),
  "membrane": (),
  "maps": ("probabilities",),
}
_COLUMNS = ("id", "action", "from_ids")
_CHECKED = "checked"  # The action of a row that tells of the whole image.
_MIN_MARKERS = 2
_LEAST_AGREEMENT = 0.2  # Correlation of two nuclear markers.
_BLOCK_PX = 4  # Markers are compared by means of such squares: single ions.


def read_samples(
  images: str,
  panel: Panel | None,
  folders: Mapping[Part, str],
  settings: tuple[ConfigDict, float | None, str],
  log: FailureLog,
) -> list[Sample]:
  """Reads all images that have labels; the others cost a line each.

  Args:
    images: folder, file or glob.
    panel: which channels are what; None for two-channel files.
    folders: where the labels are, by what they are.
    settings: the config's section `image`, the pixel size in um (None: as the
      files say) and what the labels cover, see samples.check_sample.
    log: what cannot be used is added.

  Raises:
    ValueError: a folder without images or labels, or no image with both.
  """
  listed, lost = listing.list_stacks(images, panel)
  for path, line in lost:
    log.add(listing.get_stem(path), path, ValueError(line))
  sources = {source.stem: source for source in listed}
  found = {
    part: _pair_labels(find_folder(folder, part), sources, log)
    for part, folder in folders.items()
  }
  samples = []
  for stem, source in sources.items():
    files = {part: paired.get(stem) for part, paired in found.items()}
    present = {part: file for part, file in files.items() if file is not None}
    if not present:
      continue  # An image that nobody has labelled is no failure.
    if missing := [part for part in files if part not in present]:
      line = f"{source.path}: found no {missing[0]} of it, expected some"
      log.add(stem, source.path, ValueError(line))
      continue
    try:
      samples.append(_read_sample(source, panel, present, settings))
    except Exception as error:  # One bad image must not stop the others.
      log.add(stem, describe_source(source), error)
  used = [sample for sample in samples if sample.is_covered.any()]
  for sample in samples:
    if not sample.is_covered.any():
      for line in sample.doubts:
        logging.warning("%s", line)
  if not used:
    raise ValueError(
      f"{next(iter(folders.values()))}: found labels for none of the "
      f"{len(sources)} images in {images} that can be used, expected some, "
      "named as their images"
    )
  return used


def find_folder(folder: str, part: Part) -> str:
  """Returns the subfolder that holds such labels, or the folder itself."""
  for name in _SUBFOLDERS[part]:
    if (Path(folder) / name).is_dir():
      return str(Path(folder) / name)
  return folder


def _pair_labels(
  pattern: str, images: Mapping[str, ImageSource], log: FailureLog
) -> pairing.Sources:
  """Returns the files by image; those without an image are failures."""
  listed, lost = (
    pairing.list_masks(pattern)
    if not any(Path(pattern).glob("*.h5"))
    else _list_maps(pattern)
  )
  for stem, file, line in lost:
    log.add(stem, file, ValueError(line))
  listed = pairing.strip_tag(listed, images)
  for stem, source in listed.items():
    if stem not in images:
      line = f"{source.path}: found no image {stem}, expected one"
      log.add(stem, source.path, ValueError(line))
  return {stem: file for stem, file in listed.items() if stem in images}


def _list_maps(pattern: str) -> tuple[pairing.Sources, list[pairing.Failure]]:
  sources, lost = probabilities.list_maps(pattern)
  failures = [(listing.get_stem(path), str(path), line) for path, line in lost]
  return {source.stem: source for source in sources}, failures


def _read_sample(
  source: ImageSource,
  panel: Panel | None,
  files: Mapping[Part, ImageSource],
  settings: tuple[ConfigDict, float | None, str],
) -> Sample:
  image_config, pixel_size_um, labelled = settings
  record = chain.read_record(source, panel, pixel_size_um)
  try:
    sample = start_sample(record, image_config)
  except ValueError as error:
    raise ValueError(f"{describe_source(source)}: {error}") from error
  if "maps" in files:
    shape = sample.record.image.shape[:2]
    maps = read_maps(files["maps"], shape)
    doubts = [
      f"{files['maps'].path}: {line}" for line in class_order.find_doubt(maps)
    ]
    return check_sample(
      dataclasses.replace(sample, maps=maps, doubts=(*sample.doubts, *doubts))
    )
  masks = {part: _read_mask(file, part) for part, file in files.items()}
  sample = dataclasses.replace(
    sample,
    cells=masks.get("cells"),
    nuclei=masks.get("nuclei"),
    membrane=None if "membrane" not in masks else masks["membrane"] > 0,
  )
  if "cells" in files:
    sample = add_corrections(sample, files["cells"].path)
  return check_sample(sample, labelled)


def start_sample(record: ImageRecord, config: ConfigDict) -> Sample:
  """Returns a sample without labels: two channels, and doubts of the panel.

  The counts go: of hundreds of images they would fill the memory.

  Raises:
    ValueError: counts or markers that cannot be used; names no file.
  """
  record = chain.merge_record(record, config)
  doubts = [f"{record.source.stem}: {line}" for line in record.warnings]
  doubts += compare_markers(record)
  empty = np.zeros((0, 0, 0), np.float32)
  loaded = dataclasses.replace(record.loaded, stack=empty)
  return Sample(
    dataclasses.replace(record, loaded=loaded), doubts=tuple(doubts)
  )


def compare_markers(record: ImageRecord) -> list[str]:
  """Says which nuclear marker shows other places than the others do."""
  loaded = record.loaded
  if len(loaded.nuclear) < _MIN_MARKERS:
    return []
  height, width = (
    size // _BLOCK_PX * _BLOCK_PX for size in loaded.stack.shape[:2]
  )
  if not height * width:
    return []
  planes = [loaded.stack[:height, :width, k] for k in loaded.nuclear]
  means = [
    plane.reshape(
      height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX
    ).mean((1, 3))
    for plane in planes
  ]
  if any(np.ptp(mean) == 0 for mean in means) or means[0].size < 2:
    return []
  ranks = [np.sqrt(mean).ravel() for mean in means]
  table = np.corrcoef(ranks)
  np.fill_diagonal(table, np.nan)
  best = np.nanmax(table, axis=1)
  return [
    f"{record.source.stem}: nuclear markers disagree: "
    f"{loaded.names[loaded.nuclear[i]]} correlates with no other by more than "
    f"{best[i]:.2f}; a marker that shows no nuclei should not be in the panel "
    "as nuclear"
    for i in np.flatnonzero(best < _LEAST_AGREEMENT)
  ]


def _read_mask(source: ImageSource, part: Part) -> np.ndarray:
  with open_source(source.path, source.member) as path:
    mask = labels.read_labels(path)
  if part != "membrane":
    instances.check_instances(mask, str(source.path))
  return mask


def read_maps(source: ImageSource, shape: tuple[int, int]) -> Probabilities:
  """Reads a teacher's maps of an image of `shape`.

  Raises:
    ValueError: no three maps of probabilities, or of another size than the
      image or twice that; it names the file.
  """
  maps = probabilities.read_three_maps(source)
  sizes = [tuple(size * scale for size in shape) for scale in (1, 2)]
  if maps.shape[:2] not in sizes:
    raise ValueError(
      f"{source.path}: found {maps.shape[0]} x {maps.shape[1]} px (y, x), "
      f"expected {shape[0]} x {shape[1]} as the image has, or twice that"
    )
  return maps


def add_corrections(sample: Sample, path: Path) -> Sample:
  """Limits a sample to its corrected cells, where a table tells them.

  The viewer writes `corrected/NAME.csv` beside `corrected/NAME.tiff`. A cell
  counts where it was corrected; of the masks before, `masks/NAME.tiff` next
  to that folder, it is also known where a cell was and none is now. Where the
  table says that the whole image is checked, all of it counts. Masks that were
  made anew since tell nothing of what was deleted.

  Args:
    sample: with its cells.
    path: their file.

  Raises:
    ValueError: a table that cannot be meant; it names the file.
  """
  table = path.with_suffix(".csv")
  if sample.cells is None or not table.is_file():
    return sample
  rows = _read_corrections(table)
  if any(action == _CHECKED for _, action, _ in rows):
    return sample
  ids = [number for number, action, _ in rows if action != "deleted"]
  is_covered = np.isin(sample.cells, ids) & (sample.cells > 0)
  doubts = sample.doubts
  before = path.parent.parent / "masks" / path.name
  gone = [number for _, _, numbers in rows for number in numbers]
  if gone and before.is_file():
    was = labels.read_labels(before)
    if _are_corrected(was, sample.cells, [*ids, *gone]):
      is_covered |= np.isin(was, gone) & (sample.cells == 0)
    else:
      doubts += (
        f"{before}: found other cells than those that were corrected, so that "
        "cells that were deleted are not trained on as background",
      )
  elif gone:
    doubts += (
      f"{sample.name}: found no {before}, so that cells that were deleted are "
      "not trained on as background",
    )
  if not rows:
    doubts += (f"{table}: found no corrected cell; the image is not used",)
  return dataclasses.replace(sample, is_covered=is_covered, doubts=doubts)


def _are_corrected(
  before: Labels, corrected: Labels, changed: Sequence[int]
) -> bool:
  """Whether masks differ from corrected ones in cells that were changed alone.

  Args:
    before: the masks beside the corrections.
    corrected: the cells now.
    changed: ids of cells, in either, of which a correction tells.
  """
  if before.shape != corrected.shape:
    return False
  is_told = np.isin(before, changed) | np.isin(corrected, changed)
  return bool((is_told | (before == corrected)).all())


def _read_corrections(
  path: Path,
) -> list[tuple[int, str, tuple[int, ...]]]:
  """Returns id, action and former ids of each corrected cell."""
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      rows = list(csv.DictReader(file))
    return [
      (
        int(row["id"]),
        row["action"],
        tuple(int(word) for word in re.findall(r"\d+", row["from_ids"] or "")),
      )
      for row in rows
    ]
  except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
    raise ValueError(
      f"{path}: found {type(error).__name__}: {error}, expected a table of "
      f"corrections with the columns {', '.join(_COLUMNS)}"
    ) from error
