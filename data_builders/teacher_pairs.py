"""Pairs images with what their teacher says of them, by file name."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from data_builders import teacher_files
from dicexmbd_jax.io import pairing
from dicexmbd_jax.io.listing import get_stem
from dicexmbd_jax.types import ImageSource

# What Ilastik and steinbock append to an image's name.
_TAIL = re.compile(
  r"(_a\d+_ac)?(_ac)?(_ilastik)?(_s\d)?"
  r"([_\- ](probabilities|probability|masks?|nuclei|cells?|labels?))?"
  r"([_\- ]?stage[_\- ]?\d+)?$",
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Pair:
  """One image and its teacher.

  Attributes:
    stem: the image's name.
    image: its file.
    teacher: the file of its maps or cells.
    nuclei: the file of its nuclei, where the teacher has such.
  """

  stem: str
  image: ImageSource
  teacher: ImageSource
  nuclei: ImageSource | None = None


def pair_teacher(
  images: Sequence[ImageSource], teacher: teacher_files.TeacherFiles
) -> tuple[list[Pair], list[pairing.Failure]]:
  """Finds each image's teacher files.

  Names fit where they are equal, or equal without a tail that Ilastik or
  steinbock appends (`_ilastik_s2_Probabilities`), or without a tag that all
  teacher files share.

  Args:
    images: of different stems.
    teacher: where its files are.

  Returns:
    The pairs in the images' order, and one failure for each image without a
    teacher, teacher without an image, and for all of several files that fit
    one image.

  Raises:
    ValueError: the teacher has no files at all.
  """
  stems = [image.stem for image in images]
  found, failures = _match_files(teacher.pattern, stems, "teacher")
  nuclei: dict[str, ImageSource] = {}
  if teacher.nuclei is not None:
    nuclei, lost = _match_files(teacher.nuclei, stems, "nuclei")
    failures += lost
  told = {failure[0] for failure in failures}
  pairs = []
  for image in images:
    needed = [(teacher.pattern, found)]
    if teacher.nuclei is not None:
      needed.append((teacher.nuclei, nuclei))
    missing = [where for where, files in needed if image.stem not in files]
    if not missing:
      one, other = found[image.stem], nuclei.get(image.stem)
      pairs.append(Pair(image.stem, image, one, other))
    elif image.stem not in told:
      line = f"{image.path}: found no teacher in {missing[0]}, expected one"
      failures.append((image.stem, str(image.path), line))
  return pairs, failures


def _match_files(
  pattern: str, stems: Sequence[str], role: str
) -> tuple[dict[str, ImageSource], list[pairing.Failure]]:
  """Returns the files by image, and those that fit none or not alone."""
  sources, broken = teacher_files.list_teacher(pattern)
  failures = [
    (_match_stem(get_stem(path), stems) or get_stem(path), str(path), line)
    for path, line in broken
  ]
  rest: dict[str, ImageSource] = {}
  matched: dict[str, list[ImageSource]] = collections.defaultdict(list)
  for source in sources:
    stem = _match_stem(source.stem, stems)
    if stem is None:
      rest[str(source.path)] = source
    else:
      matched[stem].append(source)
  if not matched:
    by_stem = {source.stem: source for source in rest.values()}
    renamed = pairing.strip_tag(by_stem, dict.fromkeys(stems))
    for stem, source in renamed.items():
      if stem in stems:
        matched[stem].append(source)
        rest.pop(str(source.path))
  for source in rest.values():
    line = f"{source.path}: found no image {source.stem}, expected one"
    failures.append((source.stem, str(source.path), line))
  for stem, files in matched.items():
    if len(files) > 1:
      failures += [(stem, str(f.path), _blame(f, files, role)) for f in files]
  alone = {stem: files[0] for stem, files in matched.items() if len(files) == 1}
  return alone, failures


def _match_stem(stem: str, stems: Iterable[str]) -> str | None:
  """Returns the image that a teacher's file belongs to, None if unclear."""
  if stem in stems:
    return stem
  # The shortest tail first: images may end like teachers do.
  starts = [m.start() for m in re.finditer(r"[_\- ]", stem)][::-1]
  for start in starts:
    short, tail = stem[:start], stem[start:]
    if short in stems and _TAIL.fullmatch(tail):
      return short
  return None


def _blame(source: ImageSource, files: Iterable[ImageSource], role: str) -> str:
  others = ", ".join(str(file.path) for file in files if file is not source)
  return (
    f"{source.path}: found another {role} of the same image in {others}, "
    "expected one"
  )
