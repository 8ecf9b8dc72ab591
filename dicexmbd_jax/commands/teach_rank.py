"""`teach rank`: which images to annotate next, where, and when to stop."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from dicexmbd_jax.io import pairing, write
from dicexmbd_jax.io.pairing import Sources
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.report import overlay
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.teach import annotations, inputs, rank
from dicexmbd_jax.teach.rank import Region, Uncertainty
from dicexmbd_jax.types import Image

Path = pathlib.Path

PREVIEW_FACTOR = 4  # Single pixels are painted: they must be seen.
GAP_PX = 8  # Between the two halves of a preview.


@dataclasses.dataclass(frozen=True)
class Job:
  """A round, checked and ready.

  Attributes:
    maps: uncertainty maps, by stem.
    images: the images, by stem.
    drawn: annotations of earlier rounds, by stem.
    eyes: how images are looked at.
    num_crops: squares per image.
    crop_px: their edge.
    output: the output folder; every round has a folder of its own in it.
  """

  maps: Sources
  images: Sources
  drawn: Sources
  eyes: inputs.Eyes
  num_crops: int
  crop_px: int
  output: Path


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: uncertainty_maps, images, panel, annotations, output, num_images,
      num_crops, crop_px, config.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  failures = FailureLog()
  try:
    job = prepare_job(flags, failures)
    failures.write(job.output)  # Tells at once whether one can write there.
    earlier = annotations.read_history(job.output / "history.csv")
    means = measure_files(job, failures)
    history = rank.add_round(earlier, means)
    chosen = rank.rank_images(means)[: flags.num_images]
    folder = job.output / f"round_{len(history):02d}"
    write_crops(job, chosen, folder, failures)
    write_ranking(folder, history)
    annotations.write_history(job.output / "history.csv", history)
    failures.write(job.output)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  describe_round(history, chosen)
  return 1 if failures else 0


def prepare_job(flags, failures: FailureLog) -> Job:
  """Checks the call and lists the files; logs what cannot be used.

  Raises:
    ValueError: the call is wrong, or nothing is there.
  """
  for name in ("num_images", "num_crops", "crop_px"):
    if getattr(flags, name) < 1:
      raise ValueError(
        f"--{name}: found {getattr(flags, name)}, expected 1 or more"
      )
  maps, lost = pairing.list_sources(flags.uncertainty_maps)
  for row in lost:
    failures.add(row[0], row[1], ValueError(row[2]))
  sources, _ = inputs.list_inputs(flags.images)
  drawn = {}
  if flags.annotations and any(Path(flags.annotations).glob("*")):
    drawn = pairing.list_sources(flags.annotations)[0]
  return Job(
    maps=maps,
    images={source.stem: source for source in sources},
    drawn=drawn,
    eyes=inputs.Eyes(
      panel=read_panel(flags.panel) if flags.panel else None,
      channels="merged",
      scale=1,
      image=flags.config.image.to_dict(),
    ),
    num_crops=flags.num_crops,
    crop_px=flags.crop_px,
    output=Path(flags.output),
  )


def measure_files(job: Job, failures: FailureLog) -> dict[str, float]:
  """Returns the mean uncertainty of every image.

  Raises:
    ValueError: no map can be read.
  """
  means = {}
  for stem, source in job.maps.items():
    try:
      unsure = annotations.read_uncertainty(source.path)
    except ValueError as error:  # One bad map must not stop the others.
      failures.add(stem, source.path, error)
      continue
    # As many digits as the table keeps: a round read back is the same.
    means[stem] = round(float(unsure.mean(dtype=float)), 6)
  if not means:
    raise ValueError("found no uncertainty map that can be read, expected some")
  return means


def write_crops(
  job: Job, chosen: Sequence[str], folder: Path, failures: FailureLog
) -> None:
  """Writes templates, previews and regions.csv of the images to annotate.

  Raises:
    OSError: a file cannot be written.
  """
  import pandas as pd

  rows = []
  for stem in chosen:
    try:
      regions = write_template(job, stem, folder)
    except ValueError as error:  # One bad image must not stop the others.
      failures.add(stem, job.maps[stem].path, error)
      continue
    rows += [{"image": stem, **dataclasses.asdict(one)} for one in regions]
  names = [field.name for field in dataclasses.fields(Region)]
  table = pd.DataFrame(rows, columns=["image", *names])
  write.write_table(folder / "regions.csv", table)


def write_template(job: Job, stem: str, folder: Path) -> list[Region]:
  """Writes one image's template and previews; returns where to paint.

  Raises:
    ValueError: the image is missing, cannot be read or does not fit its map.
    OSError: a file cannot be written.
  """
  if stem not in job.images:
    raise ValueError(f"{job.maps[stem].path}: found no image {stem} to it")
  viewed = inputs.view_image(job.images[stem], job.eyes)
  shape = viewed.planes.shape[:2]
  unsure = annotations.read_uncertainty(job.maps[stem].path)
  unsure = rank.shrink_map(unsure, shape)
  strokes = np.zeros(shape, np.uint8)
  if stem in job.drawn:
    path = job.drawn[stem].path
    strokes = annotations.read_annotation(path)
    if strokes.shape != shape:
      raise ValueError(
        f"{path}: found an annotation of {strokes.shape}, expected {shape}"
      )
  regions = rank.find_regions(unsure, job.num_crops, job.crop_px)
  for region in regions:
    picture = draw_preview(viewed.planes, unsure, region)
    name = f"{stem}_y{region.y_px}_x{region.x_px}.png"
    write.write_png(folder / "crops" / name, picture)
  path = folder / "templates" / f"{stem}.tiff"
  write.write_strokes(path, strokes, viewed.pixel_size_um)
  return regions


def draw_preview(
  image: Image, uncertainty: Uncertainty, region: Region
) -> overlay.Rgb:
  """Draws a region, enlarged: the tissue, and beside it the uncertainty.

  The tissue is stretched over the whole image, as a person would see it;
  uncertainty is grey, white for 1.
  """
  part = region.slices
  nuclear, membrane = (
    overlay.stretch_channel(image[..., k])[part] for k in (0, 1)
  )
  grey = np.rint(255 * uncertainty[part]).astype(np.uint8)
  tissue, unsure = (
    rgb.repeat(PREVIEW_FACTOR, axis=0).repeat(PREVIEW_FACTOR, axis=1)
    for rgb in (
      overlay.blend_channels(nuclear, membrane),
      np.repeat(grey[..., None], 3, axis=2),
    )
  )
  gap = np.full((tissue.shape[0], GAP_PX, 3), 255, np.uint8)
  return np.concatenate([tissue, gap, unsure], axis=1)


def write_ranking(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
  """Writes ranking.csv: rank, image, uncertainty, change since last round.

  Raises:
    OSError: the file cannot be written.
  """
  import pandas as pd

  means = history[-1]
  before = history[-2] if len(history) > 1 else {}
  rows = [
    (place, image, means[image], means[image] - before.get(image, np.nan))
    for place, image in enumerate(rank.rank_images(means), 1)
  ]
  columns = ["rank", "image", "uncertainty", "change"]
  table = pd.DataFrame(rows, columns=columns).round(6)
  write.write_table(folder / "ranking.csv", table)


def describe_round(
  history: Sequence[Mapping[str, float]], chosen: Sequence[str]
) -> None:
  """Says what to do next."""
  means = history[-1]
  mean = float(np.mean(list(means.values())))
  logging.info(
    "round %d: %d images, mean uncertainty %.3f, fell in %d",
    len(history),
    len(means),
    mean,
    len(rank.list_falls(history, len(history) - 1)),
  )
  if rank.should_stop(history):
    logging.info(
      "stop: no image's uncertainty fell for %d rounds",
      rank.count_quiet_rounds(history),
    )
    return
  parts = [f"{stem} ({means[stem]:.3f})" for stem in chosen]
  logging.info("annotate next: %s", ", ".join(parts))
