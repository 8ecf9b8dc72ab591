"""`benchmark`: this system, the paper's baselines and other tools' masks.

It is the paper's figure 2 on one's own data: every method gets the same two
channels of the same images and is judged against the same reference.
"""

import contextlib
import functools
import pathlib
from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.commands import evaluate
from dicexmbd_jax.image import preparation
from dicexmbd_jax.io import images as image_reader
from dicexmbd_jax.io import pairing, panel, write
from dicexmbd_jax.masks import segment
from dicexmbd_jax.runs import failures, pool
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.types import ImageSource, Panel

Path = pathlib.Path

OURS = "dicexmbd_jax"
# Name in the results -> method of segment.segment_baseline.
BASELINES = {
  "CP-distance": "distance",
  "CP-watershed": "watershed",
  "CP-propagation": "propagation",
}


def run(flags) -> int:
  """Runs all methods and evaluates them; returns the exit code.

  Each method's files go to OUTPUT/methods/NAME, this system's with all that
  `predict` writes; the comparison goes to OUTPUT, as `evaluate` writes it.
  References without an image are left out.

  Args:
    flags: images, panel, reference, output, masks (list of "name=DIR"),
      checkpoint, pixel_size_um, num_workers, overwrite, tolerance_px, seed,
      config, baseline_config (without what was fitted to the network).

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  log = failures.FailureLog()
  try:
    others = parse_others(flags.masks or [])
    evaluate.check_flags(flags)
    sources = list_judged(flags, log)
    rows = panel.read_panel(flags.panel) if flags.panel else None
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, ""))
    return 2
  folder = Path(flags.output) / "methods"
  if run_model(flags, folder / OURS) == 2:
    return 2
  run_baselines(list(sources.values()), rows, folder, flags, log)
  names = (OURS, *BASELINES)
  methods = {name: str(folder / name / "masks") for name in names}
  return evaluate.evaluate_methods(
    {**methods, **others}, flags, log, set(sources)
  )


def parse_others(words: Sequence[str]) -> dict[str, str]:
  """Splits "name=DIR" of masks made elsewhere.

  Raises:
    ValueError: no name, or one that this command gives to a method of its own.
  """
  for word in words:
    name = word.partition("=")[0]
    if "=" not in word or name in (OURS, *BASELINES):
      raise ValueError(
        f"--masks: found {word!r}, expected name=DIR with a name other than "
        f"{', '.join((OURS, *BASELINES))}"
      )
  return evaluate.parse_methods(words, "masks")


def list_judged(flags, log: failures.FailureLog) -> pairing.Sources:
  """Lists the images that have a reference; logs those that have none.

  What cannot be listed is logged later, by `evaluate`.

  Raises:
    ValueError: there are no images or no references, or none fits.
  """
  images, _ = pairing.list_sources(flags.images)
  references, _ = pairing.list_sources(evaluate.find_masks(flags.reference))
  for stem, source in images.items():
    if stem not in references:
      line = f"{source.path}: found no reference {stem}, expected one"
      log.add(stem, source.path, ValueError(line))
  judged = {stem: images[stem] for stem in references if stem in images}
  if not judged:
    raise ValueError(
      f"{flags.reference}: found no reference for any of the {len(images)} "
      f"images of {flags.images}, expected files of the same names"
    )
  return judged


def run_model(flags, output: Path) -> int:
  """Runs `predict` into a folder of its own; returns its exit code."""
  # Only here: the evaluation of finished masks needs no JAX.
  from dicexmbd_jax.commands import predict

  try:
    request = predict.Request(
      images=flags.images,
      output=output,
      config=flags.config,
      panel_path=Path(flags.panel) if flags.panel else None,
      model_path=Path(flags.checkpoint or config_lib.SHIPPED_MODEL),
      pixel_size_um=flags.pixel_size_um,
      num_workers=flags.num_workers,
      overwrite=flags.overwrite,
    )
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, ""))
    return 2
  return predict.run_request(request)


def run_baselines(
  sources: Sequence[ImageSource],
  rows: Panel | None,
  folder: Path,
  flags,
  log: failures.FailureLog,
) -> None:
  """Writes the masks of every baseline; an image that fails is logged."""
  function = functools.partial(
    segment_source,
    rows=rows,
    folder=folder,
    config=flags.baseline_config,
    pixel_size_um=flags.pixel_size_um,
  )
  num_workers = pool.count_workers(flags.num_workers, len(sources))
  with Progress(len(sources)) as progress:
    for source, result in pool.map_images(function, sources, num_workers):
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
  loaded = image_reader.read_image(source, rows)
  image, _ = preparation.merge_loaded(loaded, config.image)
  size_um = pixel_size_um or loaded.pixel_size_um or 1.0
  shape = image.shape[:2]
  image = preparation.to_network_grid(image, size_um, config.image)
  counts = {}
  for name, method in BASELINES.items():
    masks = segment.segment_baseline(image, method, config.segment, shape)
    path = locate_masks(folder, name, source.stem)
    write.write_labels(path, masks.cells, size_um)
    counts[name] = len(masks.is_border)
  return counts
