"""`teach round`: from strokes to maps, masks and where to paint next."""

import contextlib
import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from absl import logging

from dicexmbd_jax import __version__
from dicexmbd_jax.commands import teach_fit, teach_rank
from dicexmbd_jax.io import images, pairing, probabilities, write
from dicexmbd_jax.io.drawings import list_drawings
from dicexmbd_jax.io.listing import natural_key
from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.masks import segment
from dicexmbd_jax.masks.settings import resolve_settings
from dicexmbd_jax.runs import file_maker, lock, pool, state
from dicexmbd_jax.runs.failures import FailureLog, refuse_call
from dicexmbd_jax.teach import (
  annotations,
  drawings,
  features,
  fit,
  inputs,
  strokes,
  teacher_folder,
)
from dicexmbd_jax.teach.fit import FitRequest
from dicexmbd_jax.teach.strokes import Annotated
from dicexmbd_jax.teach.teacher import Teacher, View, classify_planes
from dicexmbd_jax.teach.uncertainty import measure_uncertainty
from dicexmbd_jax.types import ImageSource, Panel

Path = pathlib.Path

_START = "round_00"  # Before the first strokes.


@dataclasses.dataclass(frozen=True)
class Request:
  """One call of `teach round`.

  Attributes:
    fit: how the teacher is fit; its annotations are "" where none are there.
    segment: the config's section `segment`.
    num_images: how many to annotate next.
    num_crops: squares per image.
    crop_px: their edge.
    output: the output folder.
    listed: the images, and the files that are none.
  """

  fit: FitRequest
  segment: Mapping[str, Any]
  num_images: int
  num_crops: int
  crop_px: int
  output: Path
  listed: file_maker.Listed


@dataclasses.dataclass(frozen=True)
class RoundMaker(file_maker.FileMaker):
  """What is done to every image.

  Attributes:
    teacher: the teacher.
    panel: which channels are what, or None.
    segment: the config's section `segment`.
    listed: the images, and the files that are none.
  """

  teacher: Teacher
  panel: Panel | None
  segment: Mapping[str, Any]
  listed: file_maker.Listed
  SUFFIXES: ClassVar[Mapping[str, str]] = {
    "probabilities": ".tiff",
    "uncertainty": ".tiff",
    "nuclei": ".tiff",
    "masks": ".tiff",
    "overlays": ".png",
  }

  def list_images(self) -> file_maker.Listed:
    """Returns the images."""
    return self.listed

  def make_files(self, image: ImageSource) -> tuple[str, Sequence[str]]:
    """Makes one image's maps, masks and overlay.

    Returns:
      Its mean uncertainty and number of cells, and the warnings.

    Raises:
      ValueError: the image cannot be read.
      OSError: a file cannot be written; names it.
    """
    from dicexmbd_jax.report import overlay

    key, stem = self.make_key(image), image.stem
    viewed = inputs.view_image(image, self.teacher.view, self.panel)
    warnings = inputs.check_view(viewed, self.teacher)
    size_um = viewed.pixel_size_um
    maps = classify_planes(
      viewed.planes, self.teacher.selection, self.teacher.forest
    )
    unsure = measure_uncertainty(maps)
    paths = {kind: self.locate(kind, stem) for kind in self.SUFFIXES}
    state.forget(self.output, stem)
    write.write_probabilities(paths["probabilities"], maps, size_um)
    write.write_uncertainty(paths["uncertainty"], unsure, size_um)
    # As `segment` would read them.
    stored = ImageSource(stem, paths["probabilities"])
    found = segment.segment_image(
      probabilities.read_probabilities(stored), self.segment, None, size_um or 1
    )
    write.write_labels(paths["nuclei"], found.nuclei, size_um)
    write.write_labels(paths["masks"], found.cells, size_um)
    picture = overlay.draw_overlay(viewed.planes, found.cells, found.nuclei)
    write.write_png(paths["overlays"], picture)
    state.save(self.output, stem, key, paths)
    mean = unsure.mean(dtype=float)
    told = f"mean uncertainty {mean:.3f}, {len(found.is_border)} cells"
    return told, warnings


def run(flags) -> int:
  """Runs the command.

  Args:
    flags: images, panel, strokes, output, seed, num_images, num_crops,
      crop_px, num_workers, config.

  Returns:
    0: done; 1: some images failed; 2: wrong call, or no teacher can be fit.
  """
  try:
    request = read_request(flags)
    with lock.hold(request.output / ".lock"):
      write.sweep_temporary(request.output)
      return do_round(request)
  except (ValueError, OSError) as error:
    return refuse_call(error, flags.output)


def read_request(flags) -> Request:
  """Checks the call.

  Raises:
    ValueError: a flag's value is wrong, or no image is there.
  """
  for name in ("num_images", "num_crops", "crop_px"):
    teach_rank.check_number(name, getattr(flags, name))
  pool.count_workers(flags.num_workers, 0)
  output = Path(flags.output)
  file_maker.check_output(output, "taught")
  drawn = flags.strokes or find_templates(output)
  if strokes.is_project(drawn):
    raise ValueError(
      f"--strokes: found {drawn}, expected drawings: `teach fit` takes projects"
    )
  resolve_settings(flags.config.segment)
  return Request(
    fit=FitRequest(
      annotations=drawn,
      images=flags.images,
      panel_file=flags.panel or None,
      panel=read_panel(flags.panel) if flags.panel else None,
      view=View("merged", image=flags.config.image.to_dict()),
      seed=flags.seed,
      output=output / "teacher",
      keeps_forest=False,
      num_workers=flags.num_workers,
    ),
    segment=flags.config.segment.to_dict(),
    num_images=flags.num_images,
    num_crops=flags.num_crops,
    crop_px=flags.crop_px,
    output=output,
    # Before anything is written: a wrong path must leave no folder.
    listed=inputs.list_inputs(flags.images),
  )


def find_templates(output: Path) -> str:
  """Returns the templates of the last round; "" before the first.

  Raises:
    ValueError: a call that was stopped left a part of them, and the rest is
      where --strokes was.
  """
  found = list_templates(output)
  is_alone = len(found) == 1 and found[0].parent.name != _START
  if is_alone and is_incomplete(found[0]):
    raise ValueError(
      f"{found[0]}: found no {drawings.LEGEND_FILE}, which a call writes last, "
      "expected the --strokes of that call once more"
    )
  return str(found[-1]) if found else ""


def complete_templates(output: Path) -> None:
  """Adds to the last round what a stopped call did not take over into it.

  Raises:
    OSError: a file cannot be written.
  """
  *earlier, last = list_templates(output) or [output]
  if not earlier or not is_incomplete(last):
    return
  found, lost = list_drawings(earlier[-1])
  for one in found:
    keep_drawing(Annotated(one, str(one.path), one.path), last)
  for path, _ in lost:
    keep_refused(path, last)
  legend = earlier[-1] / drawings.LEGEND_FILE
  if legend.is_file():
    write.write_text(
      last / drawings.LEGEND_FILE,
      legend.read_text(encoding="utf-8", errors="replace"),
    )


def list_templates(output: Path) -> list[Path]:
  """Returns the templates' folders, round by round."""
  return sorted(
    output.glob("round_*/templates"),
    key=lambda one: natural_key(one.parent.name),  # round_100 after round_99.
  )


def is_incomplete(templates: Path) -> bool:
  """Whether the call that wrote a round's templates was stopped."""
  return not (templates / drawings.LEGEND_FILE).exists()  # It comes last.


def do_round(request: Request) -> int:
  """Does the round; returns the exit code.

  Raises:
    ValueError: no teacher can be fit.
    OSError: a file cannot be written.
  """
  failures = FailureLog()
  failures.write(request.fit.output)  # Tells at once whether one can write.
  if request.fit.annotations in map(str, list_templates(request.output)):
    complete_templates(request.output)
  items: list[Annotated] = []
  away: list[Annotated] = []
  refused: list[Path] = []
  no_drawings = {str(path) for path, _ in request.listed[1]}
  if request.fit.annotations:
    items, lost = strokes.pair_labels(
      request.fit.annotations, str(request.fit.images), request.listed
    )
    for stem, file, error in lost:
      failures.add(stem, file, ValueError(error))
      if stem:  # A drawing whose image is not there.
        source = ImageSource(stem, Path(file))
        away.append(Annotated(source, file, source.path))
      elif file not in no_drawings:
        refused.append(Path(file))
    items = [item for item in items if strokes.is_painted(item)]
    away = [item for item in away if strokes.is_painted(item)]
  if not items and not failures:
    return start(request)
  selection = features.list_features()
  rows = teach_fit.gather_images(request.fit, selection, items, failures)
  failures.write(request.fit.output)
  teacher = fit.fit_teacher(request.fit, selection, rows)
  teacher_folder.write_teacher(request.fit.output, teacher)
  code = predict_images(request, teacher)
  ranked = rank_images(request, items, away, teacher)
  templates = list_templates(request.output)[-1]
  for path in refused:
    keep_refused(path, templates)
  return max(code, ranked, 1 if failures else 0)


def start(request: Request) -> int:
  """Writes what the first strokes are painted on, round_00; the exit code.

  The images are spread evenly over the list.

  Raises:
    OSError: a file cannot be written.
  """
  found, unlisted = request.listed
  failures = FailureLog()
  for path, line in unlisted:
    failures.add("", path, ValueError(line))
  places = np.linspace(0, len(found) - 1, request.num_images)
  chosen = [found[k] for k in dict.fromkeys(np.rint(places).astype(int))]
  folder = request.output / _START
  write_places(request, chosen, (), folder, failures)
  failures.write(request.output)
  logging.info(
    "no strokes yet: paint 1 nucleus, 2 membrane/cytoplasm, 3 background in %s "
    "and call again",
    folder / "templates",
  )
  return 1 if failures else 0


def predict_images(request: Request, teacher: Teacher) -> int:
  """Makes all images' maps, masks and overlays; returns the exit code."""
  digest = hashlib.sha256(
    (request.fit.output / teacher_folder.FOREST_FILE).read_bytes()
  )
  digest.update(repr((request.fit.panel, request.segment)).encode())
  version = __version__, segment.REVISION
  digest.update(repr((teacher.view, version)).encode())
  maker = RoundMaker(
    inputs=str(request.fit.images),
    output=request.output,
    num_workers=request.fit.num_workers,
    overwrite=False,
    hash=digest.hexdigest(),
    teacher=teacher,
    panel=request.fit.panel,
    segment=request.segment,
    listed=request.listed,
  )
  return file_maker.run_alone(maker, *request.listed)


def rank_images(
  request: Request,
  items: Sequence[Annotated],
  away: Sequence[Annotated],
  teacher: Teacher,
) -> int:
  """Says what to paint next, writes the curve; returns the exit code.

  Args:
    request: the call.
    items: the drawings and their images.
    away: the drawings whose images are not there.
    teacher: the teacher.

  Raises:
    ValueError: no map can be read.
    OSError: a file cannot be written.
  """
  failures = FailureLog()
  by_stem = {source.stem: source for source in request.listed[0]}
  maps, _ = pairing.list_sources(str(request.output / "uncertainty"))
  maps = {stem: one for stem, one in maps.items() if stem in by_stem}
  ranking = teach_rank.Request(
    maps=maps,
    images=by_stem,
    drawn={
      item.source.stem: ImageSource(item.source.stem, item.strokes)
      for item in items
      if isinstance(item.strokes, Path)
    },
    view=request.fit.view,
    panel=request.fit.panel,
    num_images=request.num_images,
    num_crops=request.num_crops,
    crop_px=request.crop_px,
    output=request.output,
  )
  lines, chosen, folder = teach_rank.rank_maps(ranking, failures)
  # What was painted before goes along: the next round reads these alone.
  for item in items:
    if item.source.stem not in chosen:
      keep_strokes(ranking, item.source, folder)
  drawn = [*items, *away]
  for item in drawn:
    keep_drawing(item, folder / "templates")
  stems = {item.source.stem for item in drawn}
  places = [by_stem[stem] for stem in chosen]
  write_places(request, places, stems, folder, failures)
  failures.write(folder)
  for line in lines:
    logging.info("%s", line)
  logging.info("paint in: %s", folder / "templates")
  return 1 if failures else 0


def keep_strokes(
  ranking: teach_rank.Request, source: ImageSource, folder: Path
) -> None:
  """Writes the template of an image that is not among the next.

  Raises:
    OSError: the file cannot be written.
  """
  with contextlib.suppress(ValueError):  # Told when the teacher was fit.
    if source.stem in ranking.maps:
      unsure = annotations.read_uncertainty(ranking.maps[source.stem].path)
      teach_rank.save_template(ranking, source.stem, folder, unsure.shape, None)


def keep_drawing(item: Annotated, templates: Path) -> None:
  """Copies a drawing that no template came of.

  Its image is away, or image or drawing cannot be used: that may be mended.

  Raises:
    OSError: the file cannot be written.
  """
  stem, path = item.source.stem, item.strokes
  assert isinstance(path, Path)  # Projects are refused.
  target = templates / f"{stem}{path.suffix}"
  # In the same round again, it lies there already, maybe as NAME.ome.zarr.
  is_there = path.parent.resolve() == templates.resolve()
  if is_there or target.exists() or (templates / f"{stem}.tiff").exists():
    return
  copy_drawing(path, target)


def keep_refused(path: Path, templates: Path) -> None:
  """Copies a drawing that was refused, so that each round tells of it.

  Two files of one name, or a kind that is not read: the next round looks in
  its own templates alone, and would pass over what is painted.

  Raises:
    OSError: the file cannot be written.
  """
  target = templates / path.name
  # Neither an empty template beside a drawing, nor over what is painted since.
  if holds_strokes(path) and not holds_strokes(target):
    copy_drawing(path, target)


def holds_strokes(path: Path) -> bool:
  """Whether a file is there and painted on, or cannot be read."""
  item = Annotated(ImageSource(path.stem, path), str(path), path)
  return path.exists() and strokes.is_painted(item)


def copy_drawing(path: Path, target: Path) -> None:
  """Copies a file, or a folder of OME-Zarr, whole or not at all.

  Raises:
    OSError: the file cannot be written.
  """
  if path.is_dir():
    with write.replace_folder(target) as temporary:
      shutil.copytree(path, temporary, dirs_exist_ok=True)
    return
  with write.replace_file(target) as temporary:
    shutil.copyfile(path, temporary)


def write_places(
  request: Request,
  chosen: Sequence[ImageSource],
  drawn: Collection[str],
  folder: Path,
  failures: FailureLog,
) -> None:
  """Writes what images are painted on: every channel, picture, template.

  Args:
    request: the call.
    chosen: the images.
    drawn: stems of those whose drawings are there, and need no template.
    folder: the round's.
    failures: gets the images that fail.

  Raises:
    OSError: a file cannot be written.
  """
  from dicexmbd_jax.report import strip

  for source in chosen:
    try:
      viewed = inputs.view_image(source, request.fit.view, request.fit.panel)
      picture = strip.draw_tissue(viewed.planes)
      write.write_png(folder / "pictures" / f"{source.stem}.png", picture)
      template = folder / "templates" / f"{source.stem}.tiff"
      if source.stem not in drawn and not template.exists():
        empty = np.zeros(viewed.planes.shape[:2], np.uint8)
        write.write_strokes(template, empty, viewed.pixel_size_um)
      if source.path.suffix.lower() not in inputs.UNNAMED:
        write_channels(source, folder)
    except ValueError as error:  # One bad image must not stop the others.
      failures.add(source.stem, source.path, error)
  write.write_text(
    folder / "templates" / drawings.LEGEND_FILE, read_legend_text(request)
  )


def write_channels(source: ImageSource, folder: Path) -> None:
  """Writes an image's channels by name, for whichever viewer paints."""
  loaded = images.read_every_channel(source)
  path = folder / "images" / f"{source.stem}.ome.tiff"
  write.write_stack(path, loaded.stack, loaded.names, loaded.pixel_size_um or 1)


def read_legend_text(request: Request) -> str:
  """Returns the strokes' own classes.csv, or the usual one."""
  path = Path(request.fit.annotations) / drawings.LEGEND_FILE
  if request.fit.annotations and path.is_file():
    return path.read_text(encoding="utf-8", errors="replace")
  return drawings.LEGEND_TEXT
