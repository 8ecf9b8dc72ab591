"""The strokes, the teacher and the rounds of a study; needs no Qt."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import images, pairing, write
from dicexmbd_jax.io.drawings import list_drawings
from dicexmbd_jax.masks import segment
from dicexmbd_jax.teach import (
  annotations,
  drawings,
  features,
  fit,
  forest,
  rank,
  teacher_folder,
)
from dicexmbd_jax.teach.fit import FitRequest, ImageRows
from dicexmbd_jax.teach.inputs import Viewed, view_image
from dicexmbd_jax.teach.live import LiveTeacher
from dicexmbd_jax.teach.strokes import Annotated
from dicexmbd_jax.teach.teacher import Teacher, View, classify_planes
from dicexmbd_jax.types import ImageSource, Labels, Panel, PanelRow
from dicexmbd_jax.viewer.layers import guess_roles
from dicexmbd_jax.viewer.study import Study

Path = pathlib.Path
HISTORY_FILE, CURVE_FILE = "history.csv", "curve.csv"


class Session:
  """One study, while it is taught.

  Attributes:
    study: the study.
    engine: the teacher that follows the strokes; one thread at a time.
    strokes: by stem, uint8 (y, x), of every image that was opened.
    history: the rounds: image -> mean uncertainty.
    planes: what the teacher sees of the image that is open, of `scale` times
      its rows and columns.
    pixel_um: edge of the image's pixels.
    scale: 1, or 2 for small cells.
  """

  def __init__(self, study: Study):
    config = config_lib.read_model_config(config_lib.SHIPPED_MODEL)
    self._config: ConfigDict = config
    self._view = View("merged", image=config.image.to_dict())
    self._panels: dict[str, Panel | None] = {}
    self.study = study
    self.engine = LiveTeacher()
    self.strokes: dict[str, np.ndarray] = {}
    self._own_files: set[Path] = set()  # Strokes read or written; teachers.
    # By stem, as they lie in a file: exported, or loaded.
    self._filed: dict[str, np.ndarray] = {}
    self.history: list[rank.Means] = []
    self.planes = np.empty((0, 0, 2), np.float32)
    self.pixel_um = 1.0

  @property
  def scale(self) -> int:
    """Working pixels per pixel of the image."""
    return self._view.scale

  def open_image(self, stem: str) -> tuple[int, int]:
    """Reads an image; returns its rows and columns.

    Raises:
      ValueError: it cannot be read, or its channels are not known.
    """
    viewed = self._view_image(stem)
    self.planes = viewed.planes
    self.pixel_um = (viewed.pixel_size_um or 1 / self.scale) * self.scale
    rows, columns = self._get_shape(viewed.planes)
    self.strokes.setdefault(stem, np.zeros((rows, columns), np.uint8))
    return rows, columns

  def learn(self, stem: str, planes: np.ndarray, strokes: np.ndarray) -> None:
    """Takes an image's strokes, on its own grid, in place of earlier ones.

    Planes that were seen at another scale teach nothing.

    Raises:
      ValueError: a label that is no class.
    """
    _check_classes(stem, strokes)
    if self.is_seen(planes, strokes):
      self.engine.learn(stem, planes, self.enlarge(strokes))

  def is_seen(self, planes: np.ndarray, strokes: np.ndarray) -> bool:
    """Tells whether planes are of today's scale, whose teacher is asked."""
    rows, columns = strokes.shape
    return planes.shape[:2] == (rows * self.scale, columns * self.scale)

  def enlarge(self, strokes: np.ndarray) -> np.ndarray:
    """Returns strokes on the grid that the teacher works on."""
    return strokes.repeat(self.scale, axis=0).repeat(self.scale, axis=1)

  def change_scale(self, scale: int) -> None:
    """Works at another scale from now on; the strokes so far are kept.

    Raises:
      ValueError: an image with strokes cannot be read any more.
    """
    before = self._view, self.engine, self.history
    self._view = dataclasses.replace(self._view, scale=scale)
    self.engine = LiveTeacher()
    self.history = []  # Of another teacher.
    try:
      # A copy: another image may be opened meanwhile.
      for stem, drawn in list(self.strokes.items()):
        if drawn.any():
          self.learn(stem, self._view_image(stem).planes, drawn)
    except BaseException:
      self._view, self.engine, self.history = before
      raise

  def measure_images(
    self, tell: Callable[[str], None]
  ) -> tuple[dict[str, float], list[str]]:
    """Returns every image's mean uncertainty.

    Args:
      tell: is called with how far it is; what it raises ends the call.

    Returns:
      The means, and why others could not be measured, one line each.

    Raises:
      ValueError: no teacher could be fit, or no image be read.
    """
    means, lines = {}, []
    stems = [stem for stem, one in self.study.images.items() if one]
    for number, stem in enumerate(stems, 1):
      told = f"{stem}: {number} of {len(stems)}"
      tell(told)
      try:
        planes = self._view_image(stem).planes
      except ValueError as error:  # One bad image must not stop the others.
        lines.append(f"{stem} is left out: {error}")
        continue

      def tell_share(share: float, told: str = told) -> None:
        tell(f"{told}, {share:.0%}")

      unsure = self.engine.measure(stem, planes, tell_share)
      means[stem] = round(float(unsure.mean(dtype=float)), 6)
    if not means:
      raise ValueError([*lines, "found no image, expected some"][0])
    return means, lines

  def add_round(self, means: dict[str, float]) -> list[rank.Means]:
    """Adds a round to the history, and returns it."""
    self.history = rank.add_round(self.history, means)
    return self.history

  def fit_teacher(self, folder: str | Path = "") -> Teacher:
    """Fits the whole teacher: that of `teach fit` on the same strokes.

    Args:
      folder: for the teacher's record.

    Raises:
      ValueError: strokes of fewer than two classes, a label that is no class,
        or images that cannot be read.
    """
    request = self._make_request(folder)
    selection = features.list_features()
    rows: dict[str, ImageRows] = {}
    for stem, source in self.study.images.items():
      drawn = self.strokes.get(stem)
      if source is None or drawn is None or not drawn.any():
        continue
      _check_classes(stem, drawn)
      one = dataclasses.replace(request, panel=self._find_panel(stem))
      item = Annotated(source, stem, drawn.astype(np.int32))
      found = fit.gather_image(one, selection, item)
      size_um = self._find_working_um(found.pixel_size_um)
      rows[stem] = dataclasses.replace(found, pixel_size_um=size_um)
    return fit.fit_teacher(request, selection, rows)

  def find_cells(self, stem: str, tell: Callable[[str], None]) -> Labels:
    """Returns the cells of an image by the whole teacher, on its own grid.

    Args:
      stem: the image.
      tell: is called with what is done next; what it raises ends the call.

    Raises:
      ValueError: as fit_teacher.
    """
    teacher = self.fit_teacher()
    tell(f"{stem}: probabilities ...")
    viewed = self._view_image(stem)
    maps = classify_planes(viewed.planes, teacher.selection, teacher.forest)
    tell(f"{stem}: cells ...")
    size_um = viewed.pixel_size_um or 1 / self.scale
    section = self._config.segment.to_dict()
    shape = None if self.scale == 1 else self._get_shape(viewed.planes)
    return segment.segment_image(maps, section, shape, size_um).cells

  def save_teacher(self, folder: str | Path) -> None:
    """Writes the whole teacher.

    Raises:
      ValueError: as fit_teacher; or a teacher would be replaced that this
        session did not write, whose strokes may lie nowhere else.
      OSError: a file cannot be written.
    """
    own = Path(folder).resolve()
    names = (teacher_folder.SETTINGS_FILE, teacher_folder.FOREST_FILE)
    for path in (Path(folder) / name for name in names):
      if path.exists() and own not in self._own_files:
        raise ValueError(
          f"{path}: found a file already there, maybe of another teacher, "
          "expected another folder"
        )
    teacher_folder.write_teacher(folder, self.fit_teacher(folder))
    self._own_files.add(own)

  def export_strokes(self, folder: str | Path) -> None:
    """Writes NAME.tiff of every image with strokes; history and curve beside.

    Raises:
      ValueError: a file would be replaced that this session neither wrote nor
        loaded, maybe an image; or lie beside another one of its stem.
      OSError: a file cannot be written.
    """
    folder = Path(folder)
    drawn = {
      folder / f"{stem}.tiff": strokes
      for stem, strokes in list(self.strokes.items())
      if strokes.any()
    }
    for path in drawn:
      if path.exists() and path.resolve() not in self._own_files:
        raise ValueError(
          f"{path}: found a file already there, expected another folder; to go "
          "on with strokes of an earlier session, load them first"
        )
    _check_stems(folder, drawn)
    for path, strokes in drawn.items():
      write.write_strokes(path, strokes)
      self._own_files.add(path.resolve())
      self._filed[path.stem] = strokes.copy()
    write.write_text(folder / drawings.LEGEND_FILE, drawings.LEGEND_TEXT)
    if self.history:
      annotations.write_history(folder / HISTORY_FILE, self.history)
      curve = rank.trace_rounds(self.history)
      annotations.write_curve(folder / CURVE_FILE, curve)

  def load_strokes(self, folder: str | Path) -> list[str]:
    """Takes strokes and history from a folder; returns what could not be.

    Strokes that were painted and lie in no file stay; the drawing of that image
    is left, and told.

    Raises:
      ValueError: nothing is there.
    """
    found, failures = list_drawings(folder)
    lines = [line for _, line in failures]
    legend = drawings.read_legend(folder)
    by_stem = {source.stem: source for source in found}
    by_stem = pairing.strip_tag(by_stem, self.study.images)
    for stem, source in by_stem.items():
      try:
        planes = self._view_image(stem).planes
        shape = self._get_shape(planes)
        drawn = drawings.read_strokes(source.path, shape, legend)
        if drawn.shape != shape:
          raise ValueError(
            f"{source.path}: found an annotation of {drawn.shape}, expected "
            f"the image's {shape}"
          )
        if drawn.any():  # An empty template takes nothing away.
          self._check_filed(stem, source.path, drawn)
      except ValueError as error:  # One bad drawing must not stop the others.
        lines.append(str(error))
        continue
      self._own_files.add(source.path.resolve())
      if not drawn.any():
        continue
      self._filed[stem] = drawn.astype(np.uint8)
      # In place: what is painted meanwhile goes into the same array.
      self.strokes.setdefault(stem, np.zeros(shape, np.uint8))[:] = drawn
      self.learn(stem, planes, drawn)
    self.history = list(
      annotations.read_history(Path(folder) / HISTORY_FILE) or self.history
    )
    return lines

  def _check_filed(self, stem: str, path: Path, drawn: Labels) -> None:
    """Raises a ValueError where a drawing would replace strokes of no file."""
    painted = self.strokes.get(stem)
    if painted is None or not painted.any():
      return
    filed = self._filed.get(stem)
    if not np.array_equal(painted, drawn) and (
      filed is None or not np.array_equal(painted, filed)
    ):
      raise ValueError(
        f"{path}: found strokes on {stem} that were not exported, expected "
        "none; export them into another folder, or erase them, then load"
      )

  def _get_shape(self, planes: np.ndarray) -> tuple[int, int]:
    """Returns an image's own rows and columns."""
    rows, columns = planes.shape[:2]
    return rows // self.scale, columns // self.scale

  def _view_image(self, stem: str) -> Viewed:
    source = self._find_source(stem)
    viewed = view_image(source, self._view, self._find_panel(stem))
    size_um = self._find_working_um(viewed.pixel_size_um)
    return dataclasses.replace(viewed, pixel_size_um=size_um)

  def _find_working_um(self, own_um: float | None) -> float | None:
    """Returns the working grid's pixel size: the study's before the file's."""
    told_um = self.study.pixel_size_um
    return own_um if told_um is None else told_um / self.scale

  def _find_source(self, stem: str) -> ImageSource:
    source = self.study.images.get(stem)
    if source is None:
      raise ValueError(f"{stem}: found no image of this name, expected one")
    return source

  def _find_panel(self, stem: str) -> Panel | None:
    """Returns the study's panel, or one that the channels' names tell."""
    if self.study.panel is not None:
      return self.study.panel
    if stem not in self._panels:
      source = self._find_source(stem)
      loaded = guess_roles(images.read_every_channel(source))
      rows = [
        PanelRow(None, name, True, k in loaded.nuclear, k in loaded.membrane)
        for k, name in enumerate(loaded.names)
      ]
      panel = Panel(source.path, tuple(rows)) if loaded.nuclear else None
      self._panels[stem] = panel
    return self._panels[stem]

  def _make_request(self, folder: str | Path) -> FitRequest:
    panel = self.study.panel
    return FitRequest(
      annotations="painted in napari",
      images=str(self.study.path),
      panel_file=str(panel.path) if panel else None,
      panel=panel,
      view=self._view,
      seed=0,
      output=Path(folder),
      keeps_forest=False,
      num_workers=None,
    )


def _check_stems(folder: Path, drawn: Iterable[Path]) -> None:
  """Raises a ValueError where other files of a folder have the same stem.

  Of two such drawings none is read.
  """
  try:
    found, _ = list_drawings(folder)
  except ValueError:
    return  # Nothing is there yet.
  written = {path.stem: path for path in drawn}
  for source in found:
    path = written.get(source.stem)
    if path is not None and source.path.name != path.name:
      raise ValueError(
        f"{path}: found {source.path.name} beside it, expected one file per "
        "name; export into another folder"
      )


def _check_classes(stem: str, strokes: Labels) -> None:
  """Raises a ValueError that tells where a label is no class."""
  wrong = np.argwhere(strokes > len(forest.CLASSES))
  if len(wrong):
    y, x = wrong[0]
    raise ValueError(
      f"{stem}: found the label {strokes[y, x]} at y {y}, x {x}, expected 1 to "
      f"{len(forest.CLASSES)}: {', '.join(forest.CLASSES)}"
    )
