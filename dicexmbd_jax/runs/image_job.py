"""What a process of `predict` does with an image, before and after the network.

The counts never leave the process that read them: it sends what the network
looks at, gets the network's answer, and measures.
"""

import dataclasses
import pathlib
import threading
import time
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from dicexmbd_jax import chain, magnification, sections
from dicexmbd_jax.io import source as source_lib
from dicexmbd_jax.runs import kernels, results, state
from dicexmbd_jax.runs.failures import describe_source
from dicexmbd_jax.types import (
  Image,
  ImageRecord,
  ImageSource,
  Levels,
  Panel,
  Probabilities,
)


@dataclasses.dataclass(frozen=True)
class RunPlan:
  """What all images of a run have in common.

  Attributes:
    config: the whole configuration.
    panel: None for two-channel stacks.
    pixel_size_um: of all images, or None: as each image's metadata says.
    method: chain.NETWORK, or a baseline of segment.METHODS.
    output: the output folder.
    hashes: of what else decides the results, a part of each image's key.
    overwrite: whether finished images are done again.
    is_share: whether the run is a share of one.
  """

  config: ConfigDict
  panel: Panel | None
  pixel_size_um: float | None
  method: str
  output: pathlib.Path
  hashes: Mapping[str, str]
  overwrite: bool
  is_share: bool = False


@dataclasses.dataclass(frozen=True)
class PreparedImage:
  """What comes of the first step.

  Attributes:
    warnings: one line each.
    is_finished: whether an earlier run did this image; nothing is to be done.
    views: what the first pass is to look at, where the magnification is open.
    shape: rows and columns of what they are parts of.
    image: what the network is to see, where it is known.
    factor: its magnification, likewise.
  """

  warnings: tuple[str, ...] = ()
  is_finished: bool = False
  views: Sequence[Image] = ()
  shape: tuple[int, int] = (0, 0)
  image: Image | None = None
  factor: float = 1.0


class ImageJob:
  """One process' images, kept from step to step."""

  def __init__(self, plan: RunPlan):
    self._plan = plan
    self._held: dict[str, ImageRecord] = {}
    # While XLA compiles the network.
    self._loader = threading.Thread(
      target=kernels.load_quietly, args=(plan.config.segment,), daemon=True
    )

  def prepare(self, source: ImageSource, digest: str | None) -> PreparedImage:
    """Reads an image and merges its channels, unless it is finished.

    Args:
      source: the image.
      digest: hash of the image, if it is known.

    Raises:
      ValueError: the image cannot be used; one line, which names the file.
    """
    plan = self._plan
    if self._is_finished(source, digest):
      return PreparedImage(is_finished=True)
    if plan.method == chain.NETWORK and self._loader.ident is None:
      self._loader.start()
    record = self._read(source)
    views: Sequence[Image] = ()
    factor = plan.config.predict.magnification
    if plan.method == chain.NETWORK and factor == sections.AUTO:
      record = chain.set_magnification(record, plan.config, 1.0)
      views = magnification.list_views(record.maps)
    elif plan.method == chain.NETWORK:
      record = chain.set_magnification(record, plan.config, factor)
    self._held[source.stem] = record
    if views:
      shape = record.maps.shape[:2]
      return PreparedImage(record.warnings, views=views, shape=shape)
    factor = record.magnification
    return PreparedImage(record.warnings, image=record.maps, factor=factor)

  def magnify(
    self,
    source: ImageSource,
    views: Sequence[Image],
    maps: Sequence[Probabilities],
    seconds: float,
  ) -> tuple[float, Image]:
    """Chooses the magnification by the first pass' answers.

    Args:
      source: the image.
      views: what the first pass looked at.
      maps: its answers.
      seconds: that it took.

    Returns:
      The factor, and what the network is to see.
    """
    record = self._take(source)
    config = self._plan.config
    # All that it took so far counts.
    started = time.perf_counter() - seconds - record.seconds.get("magnify", 0)
    factor = magnification.judge_views(views, maps, config)
    record = chain.set_magnification(record, config, factor, started)
    self._held[source.stem] = record
    return factor, record.maps

  def finish(
    self,
    source: ImageSource,
    digest: str | None,
    factor: float,
    levels: Levels | None,
    seconds: float,
  ) -> results.ImageResult:
    """Segments and measures an image, and writes its files.

    Args:
      source: the image.
      digest: hash of the image, if it is known.
      factor: its magnification.
      levels: the network's answer; None for a baseline.
      seconds: that the network took.

    Raises:
      OSError: a file cannot be written; names it.
    """
    plan = self._plan
    record = self._take(source)
    image_hash = digest or source_lib.hash_source(source)
    record = dataclasses.replace(
      record, key={**plan.hashes, "image": image_hash}
    )
    if levels is not None:
      record = dataclasses.replace(
        record,
        maps=chain.blank_levels(levels, record.image),
        has_probabilities=True,
        magnification=factor,
        seconds={**record.seconds, "network": seconds},
      )
    return results.finish_image(
      record, plan.config, plan.method, plan.output, plan.is_share
    )

  def drop(self, source: ImageSource) -> None:
    """Forgets an image that will not come back."""
    self._held.pop(source.stem, None)

  def _is_finished(self, source: ImageSource, digest: str | None) -> bool:
    """Whether the image's files are as this run would write them.

    The input is hashed only where there is a state to compare with.
    """
    plan = self._plan
    if plan.overwrite or not state.locate(plan.output, source.stem).exists():
      return False
    image_hash = digest or source_lib.hash_source(source)
    key = {**plan.hashes, "image": image_hash}
    return results.find_fault(plan.output, source.stem, key) is None

  def _take(self, source: ImageSource) -> ImageRecord:
    """Returns an image; read anew where its process died since."""
    return self._held.pop(source.stem, None) or self._read(source)

  def _read(self, source: ImageSource) -> ImageRecord:
    """Returns an image with its channels; for a baseline, on its grid, too."""
    plan = self._plan
    record = chain.read_record(source, plan.panel, plan.pixel_size_um)
    try:
      record = chain.merge_record(record, plan.config.image)
    except ValueError as error:
      raise ValueError(f"{describe_source(source)}: {error}") from error
    if plan.method != chain.NETWORK:
      record = chain.magnify_record(record, plan.config)
    return record
