"""`teach rank`: which images to annotate next, where, and when to stop."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from dicexmbd_jax.io import pairing, write
from dicexmbd_jax.io.drawings import list_drawings
from dicexmbd_jax.io.pairing import Sources
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.report import strip
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.teach import annotations, drawings, inputs, rank
from dicexmbd_jax.teach.rank import Region
from dicexmbd_jax.teach.teacher import View
from dicexmbd_jax.types import Panel

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Request:
  """One call of `teach rank`.

  Attributes:
    maps: uncertainty maps, by stem.
    images: the images, by stem.
    drawn: annotations of earlier rounds, by stem.
    view: how images are looked at.
    panel: which channels are what, or None.
    num_images: how many to annotate next.
    num_crops: squares per image.
    crop_px: their edge.
    output: the output folder; every round has a folder of its own in it.
  """

  maps: Sources
  images: Sources
  drawn: Sources
  view: View
  panel: Panel | None
  num_images: int
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
    request = read_request(flags, failures)
    failures.write(request.output)  # Tells at once whether one can write there.
    write.sweep_temporary(request.output)
    lines, _, _ = rank_maps(request, failures)
    failures.write(request.output)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  for line in lines:
    logging.info("%s", line)
  return 1 if failures else 0


def rank_maps(
  request: Request, failures: FailureLog
) -> tuple[list[str], list[str], Path]:
  """Writes the round's folder, the history and its curve.

  Returns:
    What there is to tell, the images to annotate next, the round's folder.

  Raises:
    ValueError: no map can be read.
    OSError: a file cannot be written.
  """
  earlier = annotations.read_history(request.output / "history.csv")
  means = measure_files(request, failures)
  history = rank.add_round(earlier, means)
  chosen = rank.rank_images(means)[: request.num_images]
  folder = request.output / f"round_{len(history):02d}"
  write_crops(request, chosen, folder, failures)
  annotations.write_ranking(folder / "ranking.csv", history)
  annotations.write_history(request.output / "history.csv", history)
  write_curve(request.output, history)
  return rank.describe_round(history, chosen), chosen, folder


def write_curve(output: Path, history: Sequence[rank.Means]) -> None:
  """Writes curve.csv and curve.png: mean uncertainty by round, and the end.

  Raises:
    OSError: a file cannot be written.
  """
  from dicexmbd_jax.report import teach_figures

  rows = rank.trace_rounds(history)
  annotations.write_curve(output / "curve.csv", rows)
  told = rank.describe_round(history, ())[-1] if rows[-1].stop else ""
  picture = teach_figures.draw_curve(history, told)
  write.write_png(output / "curve.png", picture)


def read_request(flags, failures: FailureLog) -> Request:
  """Checks the call and lists the files; logs what cannot be used.

  Raises:
    ValueError: the call is wrong, or nothing is there.
  """
  for name in ("num_images", "num_crops", "crop_px"):
    check_number(name, getattr(flags, name))
  maps, lost = pairing.list_sources(flags.uncertainty_maps)
  for row in lost:
    failures.add(row[0], row[1], ValueError(row[2]))
  sources, unlisted = inputs.list_inputs(flags.images)
  for path, line in unlisted:
    failures.add("", path, ValueError(line))
  images = {source.stem: source for source in sources}
  drawn = {}
  if flags.annotations and any(Path(flags.annotations).glob("*")):
    found, unread = list_drawings(flags.annotations)
    for path, line in unread:
      failures.add(path.stem, path, ValueError(line))
    drawn = pairing.strip_tag({one.stem: one for one in found}, images)
  return Request(
    maps=maps,
    images=images,
    drawn=drawn,
    view=View("merged", image=flags.config.image.to_dict()),
    panel=read_panel(flags.panel) if flags.panel else None,
    num_images=flags.num_images,
    num_crops=flags.num_crops,
    crop_px=flags.crop_px,
    output=Path(flags.output),
  )


def check_number(name: str, value: int) -> None:
  """Raises a ValueError where a flag's number is below 1."""
  if value < 1:
    raise ValueError(f"--{name}: found {value}, expected 1 or more")


def measure_files(request: Request, failures: FailureLog) -> dict[str, float]:
  """Returns the mean uncertainty of every image.

  Raises:
    ValueError: no map can be read.
  """
  means = {}
  for stem, source in request.maps.items():
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
  request: Request,
  chosen: Sequence[str],
  folder: Path,
  failures: FailureLog,
) -> None:
  """Writes templates, previews and regions.csv of the images to annotate.

  Raises:
    OSError: a file cannot be written.
  """
  found: list[tuple[str, Region]] = []
  for stem in chosen:
    try:
      regions = write_template(request, stem, folder)
    except ValueError as error:  # One bad image must not stop the others.
      failures.add(stem, request.maps[stem].path, error)
      continue
    found += [(stem, region) for region in regions]
  annotations.write_regions(folder / "regions.csv", found)


def write_template(request: Request, stem: str, folder: Path) -> list[Region]:
  """Writes one image's template and previews; returns where to paint.

  Raises:
    ValueError: the image is missing, cannot be read or does not fit its map.
    OSError: a file cannot be written.
  """
  if stem not in request.images:
    raise ValueError(f"{request.maps[stem].path}: found no image {stem} to it")
  viewed = inputs.view_image(request.images[stem], request.view, request.panel)
  shape = viewed.planes.shape[:2]
  unsure = annotations.read_uncertainty(request.maps[stem].path)
  unsure = rank.shrink_map(unsure, shape)
  save_template(request, stem, folder, shape, viewed.pixel_size_um)
  regions = rank.find_regions(unsure, request.num_crops, request.crop_px)
  for region in regions:
    picture = strip.draw_preview(viewed.planes, unsure, region.slices)
    name = f"{stem}_y{region.y_px}_x{region.x_px}.png"
    write.write_png(folder / "crops" / name, picture)
  return regions


def save_template(
  request: Request,
  stem: str,
  folder: Path,
  shape: tuple[int, int],
  size_um: float | None,
) -> None:
  """Writes one image's template with what is drawn so far.

  A template in which somebody has painted since is kept.

  Args:
    request: the call.
    stem: the image's.
    folder: the round's.
    shape: the image's.
    size_um: its pixels' edge, where known.

  Raises:
    ValueError: the drawing cannot be read or is of another size.
    OSError: the file cannot be written.
  """
  strokes = np.zeros(shape, np.uint8)
  if stem in request.drawn:
    path = request.drawn[stem].path
    strokes = drawings.read_strokes(path, shape).astype(np.uint8)
    if strokes.shape != shape:
      raise ValueError(
        f"{path}: found an annotation of {strokes.shape}, expected {shape}"
      )
  path = folder / "templates" / f"{stem}.tiff"
  if path.exists() and drawings.read_strokes(path, shape).any():
    logging.info("%s: kept, since it is painted", path)
    return
  write.write_strokes(path, strokes, size_um)
