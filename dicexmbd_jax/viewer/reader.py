"""Opens what is dropped on napari: an image, or a folder of a study."""

import pathlib
from collections.abc import Callable, Sequence

from dicexmbd_jax.viewer import layers as layers_lib
from dicexmbd_jax.viewer import study as study_lib


def get_reader(
  path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[layers_lib.LayerData]] | None:
  """Returns napari's reader for a path; None where it is for others.

  Nobody else reads an .mcd: its reader says what is wrong with the file.

  Args:
    path: a file or a folder, or several.
  """
  paths = [path] if isinstance(path, str) else list(path)
  try:
    for one in paths:
      study_lib.find_study(one)
  except (ValueError, OSError):
    return read_paths if all(map(_is_mcd, paths)) else None
  return read_paths


def read_paths(path: str | Sequence[str]) -> list[layers_lib.LayerData]:
  """Returns the layers of the first image of each path.

  Where a path has several images, the list of them is shown in the window, too.

  Raises:
    ValueError: the image cannot be read; one line.
  """
  paths = [path] if isinstance(path, str) else list(path)
  found = []
  for one in paths:
    study = study_lib.find_study(one)
    stem = next(iter(study.images))
    shown, lines = layers_lib.list_layers(study, stem)
    found += shown
    tell([*study.warnings, *lines])
    if len(study.images) > 1:
      _show_list(study, stem)
  return found


def _is_mcd(path: str) -> bool:
  return path.lower().endswith(".mcd") and pathlib.Path(path).is_file()


def tell(lines: Sequence[str]) -> None:
  """Shows lines in napari's corner for messages."""
  from napari.utils.notifications import show_warning

  for line in lines:
    show_warning(line)


def _show_list(study: study_lib.Study, stem: str) -> None:
  """Opens the list of a study's images, once napari has added the layers."""
  import napari
  from qtpy.QtCore import QTimer

  viewer = napari.current_viewer()
  if viewer is None or not hasattr(viewer, "window"):
    return

  def open_list() -> None:
    _, widget = viewer.window.add_plugin_dock_widget("dicexmbd-jax", "Images")
    widget.list_study(study, stem)

  QTimer.singleShot(0, open_list)
