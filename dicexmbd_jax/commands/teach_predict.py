"""`teach predict`: from images to probability and uncertainty maps."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

from dicexmbd_jax import __version__
from dicexmbd_jax.io import write
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.runs import file_maker, state
from dicexmbd_jax.runs.failures import refuse_call
from dicexmbd_jax.teach.inputs import (
  check_view,
  list_inputs,
  view_image,
)
from dicexmbd_jax.teach.teacher import Teacher, classify_planes
from dicexmbd_jax.teach.teacher_folder import (
  FOREST_FILE,
  SETTINGS_FILE,
  read_teacher,
)
from dicexmbd_jax.teach.uncertainty import KINDS, measure_uncertainty
from dicexmbd_jax.types import Grid, ImageSource, Panel

Path = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Request(file_maker.FileMaker):
  """The call, checked, and what is done to every image.

  Attributes:
    teacher: the teacher.
    panel: which channels are what, or None.
    uncertainty: "margin" or "entropy".
  """

  teacher: Teacher
  panel: Panel | None
  uncertainty: str
  SUFFIXES: ClassVar[Mapping[str, str]] = {
    "probabilities": ".tiff",
    "uncertainty": ".tiff",
  }

  def __post_init__(self):
    """Raises a ValueError where predict's maps would be written over."""
    file_maker.check_output(self.output, "taught")

  def list_images(self) -> file_maker.Listed:
    """Lists the images; see teach.inputs.list_inputs."""
    return list_inputs(self.inputs)

  def make_files(self, image: ImageSource) -> tuple[str, Sequence[str]]:
    """Classifies one image, writes its maps; returns its mean uncertainty.

    Raises:
      ValueError: the image cannot be read, or its channels are not the
        teacher's.
      OSError: a file cannot be written; names it.
    """
    key, stem = self.make_key(image), image.stem
    viewed = view_image(image, self.teacher.view, self.panel)
    warnings = check_view(viewed, self.teacher)
    probabilities = classify_planes(
      viewed.planes, self.teacher.selection, self.teacher.forest
    )
    unsure = measure_uncertainty(probabilities, self.uncertainty)
    size_um, grid = viewed.pixel_size_um, None
    map_um, scale = size_um, self.teacher.view.scale
    if scale > 1:  # Else `segment` would take the maps' pixels for the image's.
      rows, columns = probabilities.shape[:2]
      map_um = size_um or 1 / scale
      grid = Grid((rows // scale, columns // scale), map_um * scale)
    state.forget(self.output, stem)
    write.write_probabilities(
      self.locate("probabilities", stem), probabilities, map_um, grid, scale
    )
    write.write_uncertainty(self.locate("uncertainty", stem), unsure, size_um)
    paths = {kind: self.locate(kind, stem) for kind in self.SUFFIXES}
    state.save(self.output, stem, key, paths)
    return f"mean uncertainty {unsure.mean(dtype=float):.3f}", warnings


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: teacher, images, panel, output, uncertainty, num_workers, overwrite.

  Returns:
    0: done; 1: some images failed; 2: wrong call.
  """
  try:
    request = read_request(flags)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)
  return file_maker.run(request)


def read_request(flags) -> Request:
  """Checks the call and reads the teacher.

  Raises:
    ValueError: the call is wrong, or the teacher cannot be read.
  """
  if flags.uncertainty not in KINDS:
    raise ValueError(
      f"--uncertainty: found {flags.uncertainty}, expected one of "
      f"{', '.join(KINDS)}"
    )
  teacher = read_teacher(flags.teacher)
  panel = read_panel(flags.panel) if flags.panel else None
  digest = hashlib.sha256()
  for name in (SETTINGS_FILE, FOREST_FILE):
    digest.update((Path(flags.teacher) / name).read_bytes())
  digest.update(repr((panel, flags.uncertainty, __version__)).encode())
  return Request(
    inputs=flags.images,
    output=Path(flags.output),
    num_workers=flags.num_workers,
    overwrite=flags.overwrite,
    hash=digest.hexdigest(),
    teacher=teacher,
    panel=panel,
    uncertainty=flags.uncertainty,
  )
