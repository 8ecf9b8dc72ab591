"""Reads what a teacher says of an image: probability maps or masks.

Nothing is guessed: a file that is not what the others are, that has another
scale or other axes than its image allows, is named in one line.
"""

import dataclasses
import pathlib

import numpy as np

from dicexmbd_jax.io import folders, hdf5, listing, pictures, tiff
from dicexmbd_jax.io.labels import read_labels
from dicexmbd_jax.io.source import open_source
from dicexmbd_jax.scores import instances
from dicexmbd_jax.types import ImageSource, Labels

KINDS = ("maps", "masks", "nuclei")
_MAP_SCALES = (1, 2)  # Map pixels per image pixel: Ilastik's `_s2` are 2.
_MORE_SUFFIXES = (*hdf5.SUFFIXES, *pictures.PNG)  # Not among images.
# Subfolders that hold a teacher, by what they hold: the published layout's,
# this project's and steinbock's, and the simulator's truth.
_FOLDERS = {
  "probability": "maps",
  "probabilities": "maps",
  "ilastik_probabilities": "maps",
  "masks": "masks",
}


@dataclasses.dataclass(frozen=True)
class TeacherFiles:
  """Where a teacher's files are, and what they are.

  Attributes:
    kind: "maps", probabilities; "masks", cells by id; or "nuclei", nuclei by
      id where nothing is known of the cells around them.
    pattern: folder or glob.
    nuclei: folder or glob of masks of nuclei beside those of cells, or None.
  """

  kind: str
  pattern: str
  nuclei: str | None = None


def find_teacher(
  pattern: str, nuclei: str | None = None, kind: str | None = None
) -> TeacherFiles:
  """Finds out what kind of teacher a folder holds.

  A folder with files of its own is what its first readable file is: three
  planes are maps, one plane is a mask. Else it is what its subfolders are
  called: probability/, probabilities/, ilastik_probabilities/ or masks/, with
  nuclei/ beside masks/.

  Args:
    pattern: folder or glob.
    nuclei: folder or glob of masks of nuclei.
    kind: "maps" or "masks", where a folder holds both; "nuclei", which no
      file tells by itself.

  Raises:
    ValueError: nothing is there, both kinds are, or neither.
  """
  if kind not in (None, *KINDS):
    raise ValueError(f"--teacher_kind: found {kind!r}, expected {KINDS}")
  folder = pathlib.Path(pattern)
  subfolders = [
    name
    for name, found in _FOLDERS.items()
    if (folder / name).is_dir() and kind in (None, found)
  ]
  # Pictures beside the results of a run (curve.png) are no teacher's.
  is_output = any((folder / mark).is_file() for mark in folders.OUTPUT_MARKS)
  has_own = _has_files(folder) and not is_output
  own = ["files of its own"] if has_own else []
  if len(subfolders + own) > 1:
    raise ValueError(
      f"{pattern}: found several teachers ({', '.join(subfolders + own)}), "
      "expected one: name its folder, or --teacher_kind=maps or masks"
    )
  if not subfolders:
    found_kind = kind or _tell_kind(pattern)
    teacher = TeacherFiles(found_kind, pattern, nuclei)
  else:
    name = subfolders[0]
    beside = folder / "nuclei"
    if name == "masks" and nuclei is None and beside.is_dir():
      nuclei = str(beside)
    teacher = TeacherFiles(_FOLDERS[name], str(folder / name), nuclei)
  if teacher.nuclei is not None and teacher.kind != "masks":
    raise ValueError(
      f"--nuclei: found {teacher.nuclei} beside a teacher of {teacher.kind} in "
      f"{teacher.pattern}, expected masks of cells there"
    )
  return teacher


def list_teacher(
  pattern: str,
) -> tuple[list[ImageSource], list[listing.Failure]]:
  """Lists a teacher's files: TIFF, archives of them, HDF5 and PNG.

  Raises:
    ValueError: nothing is there.
  """
  sources = pictures.list_pictures(pattern, _MORE_SUFFIXES)
  try:
    found, failures = listing.list_images(pattern)
  except ValueError:
    if not sources:
      raise
    found, failures = [], []
  return [*found, *sources], failures


def find_map_scale(
  maps: tuple[int, int], image: tuple[int, int], path: pathlib.Path
) -> int:
  """Returns how many map pixels there are per image pixel: 1 or 2.

  Args:
    maps: rows and columns of the maps.
    image: rows and columns of the image, on its own grid.
    path: of the maps, for the message.

  Raises:
    ValueError: neither fits; says whether it is the order of axes, the scale
      or the size.
  """
  for scale in _MAP_SCALES:
    if maps == (image[0] * scale, image[1] * scale):
      return scale
  raise ValueError(
    f"{path}: found {maps[0]} x {maps[1]} px (y, x), expected "
    f"{image[0]} x {image[1]} as the image has, or twice that"
    f"{_explain_size(maps, image)}"
  )


def check_mask_size(
  mask: tuple[int, int], image: tuple[int, int], path: pathlib.Path
) -> None:
  """Raises a ValueError where a mask has another size than its image."""
  if mask != image:
    raise ValueError(
      f"{path}: found {mask[0]} x {mask[1]} px (y, x), expected "
      f"{image[0]} x {image[1]} as the image has{_explain_size(mask, image)}"
    )


def read_mask(source: ImageSource) -> Labels:
  """Reads a teacher's mask of objects.

  Raises:
    ValueError: as labels.read_labels, or ids that number no objects; HDF5 is
      not read.
  """
  with open_source(source.path, source.member) as path:
    if path.suffix.lower() in hdf5.SUFFIXES:
      raise ValueError(f"{path}: found HDF5, expected a mask as TIFF")
    mask = read_labels(path)
  try:
    instances.check_instances(mask)
  except ValueError as error:
    raise ValueError(f"{source.path}: {error}") from error
  return mask


def _explain_size(found: tuple[int, int], image: tuple[int, int]) -> str:
  """Says what may be the matter, from the sizes alone."""
  turned = found[::-1]
  for scale in _MAP_SCALES:
    is_turned = turned == (image[0] * scale, image[1] * scale)
    if is_turned and turned != found:
      return ": wrong axis order, rows and columns are swapped"
  ratios = (found[0] / image[0], found[1] / image[1])
  # Scaled sizes are rounded to whole pixels, so ratios differ a little.
  if abs(ratios[0] - ratios[1]) * min(image) <= 1 and min(ratios) != 1:
    return f": wrong scale, {np.mean(ratios):.3g} times the image"
  return ": another size, not another scale"


def _tell_kind(pattern: str) -> str:
  """Returns "maps" or "masks", as the first readable file is."""
  sources, _ = list_teacher(pattern)
  line = ""
  for source in sources:
    try:
      num_planes = _count_planes(source)
    except ValueError as error:
      line = line or str(error)
      continue
    if num_planes in (1, 3):
      return {1: "masks", 3: "maps"}[num_planes]
    line = line or f"{source.path}: found {num_planes} planes"
  raise ValueError(
    f"{pattern}: found neither masks (one plane) nor probability maps (three): "
    f"{line or 'no readable file'}"
  )


def _count_planes(source: ImageSource) -> int:
  with open_source(source.path, source.member) as path:
    if path.suffix.lower() in hdf5.SUFFIXES:
      pixels = hdf5.read_pixels(path)
    elif path.suffix.lower() in pictures.PNG:
      pixels = np.atleast_3d(pictures.read_png(path))
    else:
      pixels = tiff.read_pixels(path)
  # Without names of axes, (y, x, 3) reads as y planes of x by 3.
  return min(pixels.shape[1:])


def _has_files(folder: pathlib.Path) -> bool:
  suffixes = (".tif", ".tiff", ".btf", ".zip", *_MORE_SUFFIXES)
  return not folder.is_dir() or any(
    path.suffix.lower() in suffixes and not path.name.startswith(".")
    for path in folder.iterdir()
  )
