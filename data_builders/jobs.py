"""What a build is asked for, and what follows from it before any pixel."""

import csv
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

from ml_collections import ConfigDict

from configs import default
from data_builders import splits, teacher_files, teacher_pairs
from dicexmbd_jax import __version__
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.image import resample
from dicexmbd_jax.io import listing, panel, source
from dicexmbd_jax.io.pairing import Failure
from dicexmbd_jax.runs import pool
from dicexmbd_jax.sections import NESTED, TEXT, Section, choice, number, whole
from dicexmbd_jax.train import records
from dicexmbd_jax.types import ImageSource, Panel

# The published layout: images of two channels, and their maps.
_PUBLISHED = ("combined2_image", "probability")


@dataclasses.dataclass(frozen=True)
class RecordsSection(Section):
  """How records are cut and dealt; configs/default.py says what each value is.

  What the splits get is checked by `splits.make_rule`.
  """

  NAME = "records"

  patch_px: Annotated[int, whole(1, 1 << 14)]
  cut: Annotated[str, choice("grid", "random")]
  stride_px: Annotated[int | None, whole(1)]
  group_pattern: Annotated[str | None, TEXT]
  num_random: Annotated[int, whole(1, 1 << 20)]
  num_panels: Annotated[int, whole(1, 1 << 10)]
  seed: Annotated[int, whole(0)]
  rim_fraction: Annotated[float, number(above=0, high=1)]
  group_column: Annotated[str, TEXT]
  salt: Annotated[str, TEXT]
  shares: Annotated[Any, NESTED]
  counts: Annotated[Any, NESTED]
  lists: Annotated[Any, NESTED]
  shard_mib: Annotated[int, whole(1, 1 << 14)]

  def __post_init__(self):
    """Raises a ValueError, one line, for a value that cannot be meant."""
    super().__post_init__()
    if (self.stride_px or 0) > self.patch_px:
      raise ValueError(
        f"config.records.stride_px: found {self.stride_px}, expected at most "
        f"patch_px {self.patch_px}"
      )


@dataclasses.dataclass(frozen=True)
class Request:
  """A build as it is called for.

  Attributes:
    images: file, folder or glob; or a folder in the published layout.
    config: the whole configuration.
    teacher: folder or glob; None in the published layout.
    panel: its file, None for images that are the two channels.
    nuclei: folder or glob of masks of nuclei, where cells are the teacher.
    teacher_kind: "maps" or "masks", where a folder holds both; or "nuclei".
    groups: a CSV with the columns `image` and config.records.group_column.
    pixel_size_um: of all images; None: as each one's metadata says, else 1.
    num_workers: processes; None: one per core.
  """

  images: str
  config: ConfigDict
  teacher: str | None = None
  panel: str | None = None
  nuclei: str | None = None
  teacher_kind: str | None = None
  groups: str | None = None
  pixel_size_um: float | None = None
  num_workers: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
  """All that decides an image's records besides its files; goes to workers.

  Attributes:
    panel: which channels are what; None for two-channel images.
    kind: "maps", "masks" or "nuclei", as the teacher's files are.
    image: the config's section `image`, plain.
    records: the fields of the config's section `records` that decide pixels.
    pixel_size_um: of all images, or None.
    config_sha256: of all of these.
  """

  panel: Panel | None
  kind: str
  image: Mapping[str, Any]
  records: Mapping[str, Any]
  pixel_size_um: float | None
  config_sha256: str


@dataclasses.dataclass(frozen=True)
class Item:
  """One image with its teacher, and where its patches go."""

  pair: teacher_pairs.Pair
  group: str
  split: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """A build, checked: what to do with which images.

  Attributes:
    job: what all images share.
    items: in natural order of names.
    failures: (name, file, line) of what cannot be used.
    teacher: where it was found, and of what kind.
  """

  job: Job
  items: tuple[Item, ...]
  failures: tuple[Failure, ...]
  teacher: teacher_files.TeacherFiles


def make_config(file: str | None, overrides: Mapping[str, Any]) -> ConfigDict:
  """Returns the default configuration, changed by a file and single values.

  Raises:
    ValueError: as config.resolve_config.
  """
  return config_lib.resolve_config(default.get_config(), file, overrides)


def plan_build(request: Request) -> Plan:
  """Lists and pairs the files, tells groups and splits; reads no image.

  Raises:
    ValueError: a wrong call, or nothing to build from.
  """
  check_config(request)
  images, teacher = find_inputs(request)
  rows = panel.read_panel(request.panel) if request.panel else None
  found, broken = listing.list_stacks(images, rows)
  pairs, failures = teacher_pairs.pair_teacher(found, teacher)
  failures = [
    *((listing.get_stem(path), str(path), line) for path, line in broken),
    *failures,
  ]
  rule = splits.make_rule(request.config.records, read_groups(request))
  groups = {}
  for pair in pairs:
    try:
      groups[pair.stem] = splits.find_group(pair.stem, rule)
    except ValueError as error:
      failures.append((pair.stem, str(pair.image.path), str(error)))
  split = splits.split_images(groups, rule)
  items = tuple(
    Item(pair, groups[pair.stem], split[pair.stem])
    for pair in pairs
    if pair.stem in groups
  )
  return Plan(make_job(request, teacher.kind), items, tuple(failures), teacher)


def find_inputs(request: Request) -> tuple[str, teacher_files.TeacherFiles]:
  """Returns where the images are, and the teacher; knows the published layout.

  Raises:
    ValueError: no teacher, or several.
  """
  folder = pathlib.Path(request.images)
  images, teacher = request.images, request.teacher
  if (folder / _PUBLISHED[0]).is_dir():
    images = str(folder / _PUBLISHED[0])
    if teacher is None and (folder / _PUBLISHED[1]).is_dir():
      teacher = str(folder / _PUBLISHED[1])
  if teacher is None:
    raise ValueError(
      "--teacher: found none, expected a folder (or "
      f"{'/ and '.join(_PUBLISHED)}/ in {request.images})"
    )
  return images, teacher_files.find_teacher(
    teacher, request.nuclei, request.teacher_kind
  )


def make_job(request: Request, kind: str) -> Job:
  """Gathers what decides pixels, and hashes it.

  Raises:
    ValueError: the panel cannot be read.
  """
  config = request.config.records
  names = ("patch_px", "cut", "stride_px", "num_random", "num_panels", "seed")
  cut = {name: config[name] for name in (*names, "rim_fraction")}
  cut["stride_px"] = config.stride_px or config.patch_px
  image = request.config.image.to_dict()
  panel_sha256 = ""
  if request.panel:
    file = ImageSource("panel", pathlib.Path(request.panel))
    panel_sha256 = source.hash_source(file)
  decisive = {
    "image": image,
    "records": cut,
    "kind": kind,
    "panel": panel_sha256,
    "pixel_size_um": request.pixel_size_um,
    "version": __version__,
    "schema": records.SCHEMA_VERSION,
  }
  return Job(
    panel=panel.read_panel(request.panel) if request.panel else None,
    kind=kind,
    image=image,
    records=cut,
    pixel_size_um=request.pixel_size_um,
    config_sha256=hash_values(decisive),
  )


def check_config(request: Request) -> None:
  """Raises a ValueError for values that no image can be built with."""
  RecordsSection.read(request.config.records)
  pool.count_workers(request.num_workers, 0)
  size_um = 1.0 if request.pixel_size_um is None else request.pixel_size_um
  resample.resampled_shape((1, 1), size_um, request.config.image.pixel_size_um)


def read_groups(request: Request) -> dict[str, str] | None:
  """Reads the table of groups; None if there is none.

  Raises:
    ValueError: a missing column, or an image in two groups.
  """
  if request.groups is None:
    return None
  column = request.config.records.group_column
  table: dict[str, str] = {}
  try:
    with open(request.groups, newline="", encoding="utf-8-sig") as file:
      rows = list(csv.DictReader(file))
  except (OSError, UnicodeError, csv.Error) as error:
    raise ValueError(
      f"{request.groups}: found {error}, expected a CSV table"
    ) from error
  for row in rows:
    name, group = row.get("image"), row.get(column)
    if not name or not group:
      raise ValueError(
        f"{request.groups}: found columns {', '.join(map(str, row))} and the "
        f"row {list(row.values())}, expected image and {column}, both filled"
      )
    stem = listing.get_stem(name)
    if table.setdefault(stem, group) != group:
      raise ValueError(
        f"{request.groups}: found {stem} in {table[stem]} and {group}, "
        "expected one group"
      )
  return table


def hash_build(plan: Plan) -> str:
  """Returns what tells one build from another: files, groups and settings.

  Files count by name, size and time of change: cheap for thousands.
  """
  files: list[tuple[str, Any, Any]] = []
  for item in plan.items:
    for file in (item.pair.image, item.pair.teacher, item.pair.nuclei):
      if file is not None and file.path.exists():
        status = file.path.stat()
        files.append((str(file.path), status.st_size, status.st_mtime_ns))
    files.append((item.pair.stem, item.group, item.split))
  return hash_values([plan.job.config_sha256, files])


def hash_values(values: Any) -> str:
  """Returns a SHA-256 of plain values, hexadecimal."""
  text = json.dumps(values, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
