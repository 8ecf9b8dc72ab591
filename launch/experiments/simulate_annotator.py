"""Strokes as a person draws them, from known masks: in place of a person.

python launch/experiments/simulate_annotator.py --reference=MASKS
      --output=STROKES --budget_px=2400 [--nuclei=MASKS]
[--uncertainty_maps=MAPS] [--regions=regions.csv] [--seed=0]
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Mapping, Sequence

import annotator
import numpy as np
from absl import app, logging
from absl import flags as flags_lib

from dicexmbd_jax.commands.evaluate import find_masks, read_mask
from dicexmbd_jax.io import pairing, write
from dicexmbd_jax.io.pairing import Sources
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.teach import annotations, drawings, rank

Path = pathlib.Path
Regions = Mapping[str, Sequence[tuple[slice, slice]]]


@dataclasses.dataclass(frozen=True)
class Round:
  """A round of annotation, checked and ready.

  Attributes:
    cells: masks of whole cells, by stem.
    nuclei: masks of nuclei, by stem; without them cores are told from cells.
    maps: uncertainty maps, by stem; without them every place is alike.
    regions: where to draw, by stem; None: everywhere.
    shares_px: pixels to draw, by stem.
    seed: decides everything random.
    output: the folder of annotations, which are added to.
  """

  cells: Sources
  nuclei: Sources | None
  maps: Sources | None
  regions: Regions | None
  shares_px: Mapping[str, int]
  seed: int
  output: Path


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: reference, nuclei, uncertainty_maps, regions, output, budget_px,
      seed.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  failures = FailureLog()
  try:
    job, lost = prepare_job(flags)
    for row in lost:
      failures.add(row[0], row[1], ValueError(row[2]))
    num_drawn = draw_files(job, failures)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  num_images = len(job.shares_px)
  logging.info("%d px on %d images: %s", num_drawn, num_images, job.output)
  if num_drawn < flags.budget_px and not failures:
    logging.warning("found no room for %d px", flags.budget_px - num_drawn)
  return 1 if failures else 0


def prepare_job(flags) -> tuple[Round, list[pairing.Failure]]:
  """Checks the call and pairs the files by stem.

  Returns:
    The job, and what cannot be used.

  Raises:
    ValueError: the call is wrong, or nothing is there.
  """
  check_flags(flags)
  cells, lost = pairing.list_masks(find_masks(flags.reference))
  regions = annotations.read_regions(flags.regions) if flags.regions else None
  if regions is not None:
    for stem in sorted(set(regions) - set(cells)):
      line = f"{flags.reference}: found no mask {stem}, expected one"
      lost.append((stem, flags.reference, line))
    cells = {stem: mask for stem, mask in cells.items() if stem in regions}
  job = Round(
    cells=cells,
    nuclei=list_folder(flags.nuclei),
    maps=list_folder(flags.uncertainty_maps),
    regions=regions,
    shares_px=annotator.share_budget(flags.budget_px, list(cells)),
    seed=flags.seed,
    output=Path(flags.output),
  )
  return job, lost


def check_flags(flags) -> None:
  """Raises a ValueError if a number is out of range."""
  for name in ("budget_px", "seed"):
    value = getattr(flags, name)
    if value < 0:
      raise ValueError(f"--{name}: found {value}, expected 0 or more")


def list_folder(pattern: str | None) -> Sources | None:
  """Returns the files of a folder by stem; None where none was named."""
  return pairing.list_sources(pattern)[0] if pattern else None


def draw_files(job: Round, failures: FailureLog) -> int:
  """Annotates every image; returns the number of pixels added."""
  total = 0
  for stem, share_px in job.shares_px.items():
    try:
      num_drawn = draw_file(job, stem, share_px)
    except ValueError as error:  # One bad image must not stop the others.
      failures.add(stem, job.cells[stem].path, error)
      continue
    logging.info("%s: %d px added", stem, num_drawn)
    total += num_drawn
  return total


def draw_file(job: Round, stem: str, share_px: int) -> int:
  """Adds strokes to one image's annotation; returns how many pixels.

  Raises:
    ValueError: a file is missing, cannot be read or does not fit the others.
    OSError: the annotation cannot be written.
  """
  cells = read_mask(job.cells[stem])
  nuclei = None
  if job.nuclei is not None:
    nuclei = read_mask(find_source(job.nuclei, stem, "a mask of nuclei"))
  classes = annotator.classify_pixels(cells, nuclei)
  path = job.output / f"{stem}.tiff"
  drawn = np.zeros(cells.shape, np.uint8)
  if path.exists():
    drawn = drawings.read_strokes(path, cells.shape)
    drawn = drawn.astype(np.uint8)
  guide = make_guide(job, stem, cells.shape)
  # Depends on the image and on what is there: rounds and images differ, and
  # the same call on the same files draws the same.
  generator = np.random.default_rng(
    (job.seed, zlib.crc32(stem.encode()), int(np.count_nonzero(drawn)))
  )
  strokes = annotator.draw_strokes(classes, drawn, guide, share_px, generator)
  if strokes.any():  # An annotation without a stroke is none.
    write.write_strokes(path, strokes)
  return int(np.count_nonzero(strokes) - np.count_nonzero(drawn))


def make_guide(job: Round, stem: str, shape: tuple[int, int]) -> np.ndarray:
  """Returns how much each pixel invites a stroke.

  Raises:
    ValueError: the uncertainty map is missing or does not fit.
  """
  guide = np.ones(shape, np.float32)
  if job.maps is not None:
    source = find_source(job.maps, stem, "an uncertainty map")
    unsure = annotations.read_uncertainty(source.path)
    guide = annotator.make_guide(rank.shrink_map(unsure, shape))
  if job.regions is not None:
    inside = np.zeros(shape, bool)
    for part in job.regions[stem]:
      inside[part] = True
    guide = np.where(inside, guide, 0).astype(np.float32)
  return guide


def find_source(sources: Sources, stem: str, what: str):
  """Returns the file of one stem.

  Raises:
    ValueError: there is none.
  """
  if stem not in sources:
    raise ValueError(f"found no file {stem}, expected {what}")
  return sources[stem]


def main(_) -> int:
  """Entry point of the script."""
  return run(flags_lib.FLAGS)


if __name__ == "__main__":
  text = flags_lib.DEFINE_string
  text("reference", None, "Masks of the cells.", required=True)
  text("output", None, "Folder of the strokes.", required=True)
  text("nuclei", None, "Masks of the cells' nuclei.")
  text("uncertainty_maps", None, "Maps of `teach predict`.")
  text("regions", None, "regions.csv of `teach rank`: draw there only.")
  flags_lib.DEFINE_integer("budget_px", None, "To draw.", required=True)
  flags_lib.DEFINE_integer("seed", 0, "Decides everything random.")
  app.run(main)
