"""`segment`: from probability maps to masks alone, without the network."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dicexmbd_jax import __version__
from dicexmbd_jax.io import probabilities as maps_reader
from dicexmbd_jax.io import write
from dicexmbd_jax.masks import class_order, segment
from dicexmbd_jax.masks.settings import fit_to_scale, resolve_settings
from dicexmbd_jax.runs import file_maker, shards, state
from dicexmbd_jax.runs.failures import refuse_call
from dicexmbd_jax.types import Grid, ImageSource


@dataclasses.dataclass(frozen=True)
class Request(file_maker.FileMaker):
  """The call, checked, and what is done to every file.

  Attributes:
    config: `config.segment`.
    writes_confidence: whether confidence/NAME.csv is written.
    classes: what the maps of a file are, in its order.
  """

  config: Mapping[str, Any]
  writes_confidence: bool
  classes: tuple[str, ...]
  SUFFIXES: ClassVar[Mapping[str, str]] = {
    "nuclei": ".tiff",
    "masks": ".tiff",
    "confidence": ".csv",
  }

  def __post_init__(self):
    """Raises a ValueError where predict's tables would be of other masks."""
    file_maker.check_output(self.output, "segmented")

  def list_images(self) -> file_maker.Listed:
    """Lists the files of maps."""
    return maps_reader.list_maps(self.inputs)

  def make_files(self, image: ImageSource) -> tuple[str, Sequence[str]]:
    """Segments one file and writes its masks.

    Returns:
      How many cells it has, and a doubt where the maps' order looks wrong.

    Raises:
      ValueError: the file cannot be read or holds no probabilities.
      OSError: a file cannot be written; names it.
    """
    key, stem = self.make_key(image), image.stem
    probabilities = maps_reader.read_probabilities(image, self.classes)
    maps_reader.check_scale(probabilities)
    section, size_um, grid = self.find_grid(image, probabilities.shape[:2])
    shape = grid.shape_px if grid else None
    result = segment.segment_image(
      probabilities, section, shape, size_um or 1.0
    )
    if grid:
      size_um = grid.pixel_size_um
    state.forget(self.output, stem)
    write.write_labels(self.locate("nuclei", stem), result.nuclei, size_um)
    write.write_labels(self.locate("masks", stem), result.cells, size_um)
    kinds = ["nuclei", "masks"]
    if self.writes_confidence:
      # Only here: it loads pandas, which masks alone do not need.
      from dicexmbd_jax.masks.confidence import measure_confidence

      table = measure_confidence(probabilities, result.cells)
      write.write_table(self.locate("confidence", stem), table)
      kinds.append("confidence")
    else:  # What an earlier run left is of its own cells.
      self.locate("confidence", stem).unlink(missing_ok=True)
    paths = {kind: self.locate(kind, stem) for kind in kinds}
    state.save(self.output, stem, key, paths)
    doubts = class_order.find_doubt(probabilities, self.classes)
    return f"{len(result.is_border)} cells", doubts

  def find_grid(
    self, image: ImageSource, shape: tuple[int, int]
  ) -> tuple[Mapping[str, Any], float | None, Grid | None]:
    """Returns how to segment a file of maps, and on which grid.

    Returns:
      The settings, with the map_scale that `predict` would take; the edge of
      map_scale pixels of a map; the masks' grid. The last two are None where
      nothing tells them.
    """
    found = maps_reader.read_image_grid(image, shape)
    if found:
      map_um, grid, own_scale = found
      section = fit_to_scale(self.config, own_scale)
      return section, map_um * resolve_settings(section).map_scale, grid
    map_scale = resolve_settings(self.config).map_scale
    size_um = maps_reader.read_pixel_size(image)
    return self.config, size_um and size_um * map_scale, None


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: probabilities, output, num_workers, overwrite, confidence, classes,
      shard, merge, shares, allow_failures, config.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  try:
    request = read_request(flags)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  if flags.merge:
    shares = [pathlib.Path(path) for path in flags.shares or ()]
    return file_maker.merge_shares(request, shares)
  return file_maker.run(request)


def read_request(flags) -> Request:
  """Checks the settings.

  Raises:
    ValueError: a setting is wrong, or the output folder is predict's.
  """
  shard = shards.parse_shard(flags.shard) if flags.shard is not None else None
  if flags.merge and shard:
    raise ValueError("--merge: found --shard beside it, expected one of both")
  settings = resolve_settings(flags.config.segment)
  classes = maps_reader.parse_classes(flags.classes)
  # None is the maps' own, which the settings do not tell from 1.
  scale = flags.config.segment.get("map_scale")
  version = __version__, segment.REVISION
  made_with = repr((settings, scale, bool(flags.confidence), classes, version))
  return Request(
    inputs=flags.probabilities,
    output=pathlib.Path(flags.output),
    num_workers=flags.num_workers,
    overwrite=flags.overwrite,
    hash=hashlib.sha256(made_with.encode()).hexdigest(),
    config=flags.config.segment.to_dict(),
    writes_confidence=bool(flags.confidence),
    classes=classes,
    shard=shard,
    allow_failures=flags.allow_failures,
  )
