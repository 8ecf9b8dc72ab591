"""One image's way: file, counts, two channels, maps, masks, tables.

    record = read_record(source, panel)
    record = merge_record(record, config.image)
    record = magnify_record(record, config, network)
    for record in predict_records([record], network): ...
    record = segment_record(record, config)
    record = measure_record(record)

`predict` and the Python API call these same functions. Only the network sees
many images at a time; it is an argument, so that nothing here loads JAX.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dicexmbd_jax import magnification, sections, storage
from dicexmbd_jax.image import channels, preparation
from dicexmbd_jax.io import images, write
from dicexmbd_jax.masks import confidence, measure, segment
from dicexmbd_jax.masks.settings import fit_to_pixels
from dicexmbd_jax.types import (
  Image,
  ImageRecord,
  ImageSource,
  Levels,
  LoadedImage,
  Network,
  Panel,
  Probabilities,
)

NETWORK = "network"  # The method; the others are segment.METHODS.


def read_record(
  source: ImageSource,
  panel: Panel | None,
  pixel_size_um: float | None = None,
  key: Mapping[str, str] | None = None,
) -> ImageRecord:
  """Reads one image.

  Args:
    source: where it lies.
    panel: which channels are what; None for two-channel files.
    pixel_size_um: edge of its pixels; None: as the file says, else 1.
    key: hashes of all that its results depend on.

  Raises:
    ValueError: the file or what is in it cannot be used; one line.
  """
  started = time.perf_counter()
  loaded = images.read_image(source, panel)
  return ImageRecord(
    source=source,
    loaded=loaded,
    pixel_size_um=pixel_size_um or loaded.pixel_size_um or 1.0,
    key=key or {},
    warnings=loaded.warnings,
    seconds={"read": time.perf_counter() - started},
  )


def merge_channels(
  loaded: LoadedImage, config: ConfigDict
) -> tuple[Image, tuple[str, ...]]:
  """Makes the two channels of one image, and says what looks wrong with it.

  Args:
    loaded: counts and names.
    config: the config's section `image`.

  Returns:
    The image, float32 (y, x, 2) in 0..255, and warnings, one line each.

  Raises:
    ValueError: counts that are not finite and positive, or no nuclear marker;
      it does not name the file.
  """
  image, warnings = preparation.merge_loaded(loaded, config)
  groups = loaded.nuclear, loaded.membrane
  doubts = channels.find_exchanged_groups(loaded.names, *groups)
  doubts += channels.find_weak_groups(
    loaded.stack, *groups, config.clip_percentile
  )
  return image, (*warnings, *doubts)


def merge_record(record: ImageRecord, config: ConfigDict) -> ImageRecord:
  """Adds the two channels, on the counts' grid.

  Args:
    record: with counts.
    config: the config's section `image`.

  Raises:
    ValueError: counts that are not finite and positive, or no nuclear marker;
      it does not name the file.
  """
  started = time.perf_counter()
  loaded = record.loaded
  image, warnings = merge_channels(loaded, config)
  size = record.pixel_size_um
  if loaded.pixel_size_um and abs(size / loaded.pixel_size_um - 1) > 0.01:
    warnings += (
      f"the file has pixels of {loaded.pixel_size_um:g} um; {size:g} um are "
      "taken, as --pixel_size_um says",
    )
  return dataclasses.replace(
    record,
    image=image,
    warnings=(*record.warnings, *warnings),
    seconds=_add_time(record, "merge", started),
  )


def magnify_record(
  record: ImageRecord, config: ConfigDict, first_pass: Network | None = None
) -> ImageRecord:
  """Adds what the network sees: the channels at its pixel size, magnified.

  Args:
    record: with the two channels.
    config: the whole configuration; its predict.magnification is a factor, or
      "auto" for the one that suits the image.
    first_pass: the network, for small images; None for a baseline, which sees
      the image as it is.
  """
  started = time.perf_counter()
  factor = 1.0
  if first_pass is not None:
    factor = config.predict.magnification
    if factor == sections.AUTO:
      record = set_magnification(record, config, 1.0)
      factor = magnification.choose_magnification(
        record.maps, config, first_pass
      )
  return set_magnification(record, config, factor, started)


def set_magnification(
  record: ImageRecord,
  config: ConfigDict,
  factor: float,
  started: float | None = None,
) -> ImageRecord:
  """Adds what the network sees where it is known how large that is to be.

  Args:
    record: with the two channels; if it has what the network sees at another
      magnification, that is replaced.
    config: the whole configuration.
    factor: the magnification.
    started: when choosing it began, on time.perf_counter's clock; None: now.
  """
  if started is None:
    started = time.perf_counter()
  maps = record.maps
  if not maps.size or factor != record.magnification:
    maps = to_network_grid(record, config, factor)
  return dataclasses.replace(
    record,
    magnification=float(factor),
    maps=maps,
    seconds=_add_time(record, "magnify", started),
  )


def to_network_grid(
  record: ImageRecord, config: ConfigDict, factor: float = 1.0
) -> Image:
  """Returns the channels at the network's pixel size, magnified."""
  size_um = record.pixel_size_um * factor
  return preparation.to_network_grid(record.image, size_um, config.image)


def predict_records(
  records: Iterable[ImageRecord], network: Network
) -> Iterator[ImageRecord]:
  """Yields the images with their probabilities, on the network's grid.

  The images are taken one by one, only as far ahead as the network's batches
  reach.
  """
  shown = ((record, record.maps) for record in records)
  for record, probabilities, seconds in run_timed(network, shown):
    yield dataclasses.replace(
      record,
      maps=round_probabilities(probabilities, record.image),
      has_probabilities=True,
      seconds={**record.seconds, "network": seconds},
    )


def run_timed(
  network: Network, images: Iterator[tuple[Any, Image]]
) -> Iterator[tuple[Any, Probabilities, float]]:
  """Yields the network's answers, each with the seconds that it took.

  What it waited for images is not the network's time.
  """
  waited_s = 0.0

  def pull() -> Iterator[tuple[Any, Image]]:
    nonlocal waited_s
    while True:
      started = time.perf_counter()
      item = next(images, None)
      waited_s += time.perf_counter() - started
      if item is None:
        return
      yield item

  answers = network(pull())
  while True:
    started = time.perf_counter()
    waited_s = 0.0
    answer = next(answers, None)
    if answer is None:
      return
    yield *answer, max(time.perf_counter() - started - waited_s, 0.0)


def round_probabilities(
  probabilities: Probabilities, image: Image
) -> Probabilities:
  """Rounds to the 65,536 levels of the file.

  So that `segment` on the file gives the very same masks. An image without any
  nuclear signal is background: thresholds would divide what noise is left in
  an answer to nothing.
  """
  levels = blank_levels(
    write.round_shares(probabilities, "probabilities"), image
  )
  rounded = storage.allocate(levels.shape, np.float32)
  return np.divide(levels, np.float32(65535), out=rounded)


def blank_levels(levels: Levels, image: Image) -> Levels:
  """Returns the levels, or those of an image without any nuclear signal.

  Args:
    levels: of io.write.round_shares.
    image: the two channels.
  """
  if image[..., 0].any():
    return levels
  nothing = storage.allocate(levels.shape, np.uint16)
  nothing[..., 2] = 65535
  return nothing


def segment_record(
  record: ImageRecord, config: ConfigDict, method: str = NETWORK
) -> ImageRecord:
  """Adds nuclei and cells, and how doubtful they are.

  Args:
    record: with maps.
    config: the whole configuration.
    method: "network" where the maps are probabilities, else a baseline.
  """
  started = time.perf_counter()
  shape = record.image.shape[:2]
  doubt = None
  if method == NETWORK:
    masks = segment.segment_seen(
      record.maps, config, shape, record.magnification
    )
    doubt = confidence.measure_doubt(record.maps, masks.cells)
  else:
    section = fit_to_pixels(config.segment, config.image.pixel_size_um)
    masks = segment.segment_baseline(record.maps, method, section, shape)
  return dataclasses.replace(
    record,
    nuclei=masks.nuclei,
    cells=masks.cells,
    is_border=masks.is_border,
    doubt=doubt,
    warnings=(*record.warnings, *confidence.advise(doubt)),
    seconds=_add_time(record, "segment", started),
  )


def measure_record(record: ImageRecord) -> ImageRecord:
  """Adds the tables of the cells; see masks.measure for their columns."""
  loaded, cells = record.loaded, record.cells
  regions = measure.measure_regions(cells).assign(is_border=record.is_border)
  tables = {
    "intensities": measure.measure_intensities(
      loaded.stack, cells, loaded.names
    ),
    "regionprops": regions,
    "neighbors": measure.measure_neighbors(cells),
  }
  return dataclasses.replace(record, tables=tables)


def _add_time(
  record: ImageRecord, stage: str, started: float
) -> dict[str, float]:
  """Returns the record's seconds and those since `started`, at least 0."""
  elapsed = max(time.perf_counter() - started, 0.0)
  return {**record.seconds, stage: elapsed}
