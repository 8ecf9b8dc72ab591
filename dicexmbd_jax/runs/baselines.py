"""The paper's baselines on images, from the same two channels.

Apart from the command, so that worker processes start without JAX.
"""

import contextlib
import functools
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from dicexmbd_jax import chain
from dicexmbd_jax.io import write
from dicexmbd_jax.runs import failures, pool
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.types import ImageSource, Panel

Path = pathlib.Path

# Name in the results -> method of chain.segment_record.
BASELINES = {
  "CP-distance": "distance",
  "CP-watershed": "watershed",
  "CP-propagation": "propagation",
}


def run_baselines(
  sources: Sequence[ImageSource],
  rows: Panel | None,
  folder: Path,
  config: ConfigDict,
  pixel_size_um: float | None,
  num_workers: int | None,
  log: failures.FailureLog,
) -> None:
  """Writes the masks of every baseline; an image that fails is logged.

  Args:
    sources: the images.
    rows: their panel.
    folder: masks go to folder/NAME/masks/STEM.tiff.
    config: the whole configuration, without what was fitted to the network.
    pixel_size_um: of the images; None: as their metadata says.
    num_workers: processes, or None: one per core.
    log: gets the failures.
  """
  function = functools.partial(
    segment_source,
    rows=rows,
    folder=folder,
    config=config,
    pixel_size_um=pixel_size_um,
  )
  count = pool.count_workers(num_workers, len(sources))
  with Progress(len(sources)) as progress:
    for source, result in pool.map_images(function, sources, count):
      if isinstance(result, Exception):
        log.add(source.stem, source.path, result)
        discard_masks(folder, source.stem)
      else:
        counts = ", ".join(f"{name} {n}" for name, n in result.items())
        progress.tell(f"{source.stem}: {counts} cells")


def discard_masks(folder: Path, stem: str) -> None:
  """Removes an image's masks of an earlier run by all baselines."""
  for name in BASELINES:
    with contextlib.suppress(OSError):
      locate_masks(folder, name, stem).unlink(missing_ok=True)


def locate_masks(folder: Path, name: str, stem: str) -> Path:
  """Returns the file of an image's masks by one baseline."""
  return folder / name / "masks" / f"{stem}.tiff"


def segment_source(
  source: ImageSource,
  rows: Panel | None,
  folder: Path,
  config: ConfigDict,
  pixel_size_um: float | None,
) -> dict[str, int]:
  """Writes one image's masks by all baselines; returns the cell counts.

  Args:
    source: the image.
    rows: its panel.
    folder: masks go to folder/NAME/masks/STEM.tiff, on the image's grid.
    config: the whole configuration.
    pixel_size_um: of the image; None: as its metadata says.

  Raises:
    ValueError: the file or what is in it cannot be used; one line.
    OSError: a file cannot be written.
  """
  record = chain.read_record(source, rows, pixel_size_um)
  record = chain.merge_record(record, config.image)
  record = chain.magnify_record(record, config)
  counts = {}
  for name, method in BASELINES.items():
    found = chain.segment_record(record, config, method)
    path = locate_masks(folder, name, source.stem)
    write.write_labels(path, found.cells, found.pixel_size_um)
    counts[name] = len(found.is_border)
  return counts
