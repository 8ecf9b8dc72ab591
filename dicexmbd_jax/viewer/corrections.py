"""How cells are merged, split and deleted, and what was changed in the end.

An edit tells the pixels and their new labels; nothing is changed in place, so
that napari's own history can undo it.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import ndimage

from dicexmbd_jax.io import labels as labels_reader
from dicexmbd_jax.io import tables, write
from dicexmbd_jax.types import Labels

COLUMNS = ["id", "action", "from_ids", "user", "time"]
_WHAT = COLUMNS[:3]
_FOLDER = "corrected"
# Of the row that says of a whole image that all cells are right now; id 0.
CHECKED = "checked"
_STEPS_PER_PX = 4  # Of a drawn line; fine enough to miss no pixel.
_EIGHT = np.ones((3, 3), bool)  # Pixels that touch at a corner are one piece.
# From this share on of either one, a cell comes from another.
_MIN_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Edit:
  """Pixels to change.

  Attributes:
    message: what was done, or why nothing was.
    indices: rows and columns, as NumPy's indices.
    values: a label for each.
  """

  message: str
  indices: tuple[np.ndarray, ...] = dataclasses.field(
    default_factory=lambda: (np.empty(0, int), np.empty(0, int))
  )
  values: np.ndarray = dataclasses.field(
    default_factory=lambda: np.empty(0, int)
  )


def draw_line(path: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the pixels under a drawn line, in its order, without repeats.

  Args:
    path: (n, 2) rows and columns of the line's points, in pixels; pixel
      centres are whole numbers.
    shape: of the image; what lies outside is left out.
  """
  path = np.asarray(path, float)
  pieces = [path[:1]]
  for start, end in zip(path[:-1], path[1:], strict=True):
    num = int(np.ceil(np.abs(end - start).max() * _STEPS_PER_PX))
    pieces.append(np.linspace(start, end, num + 1)[1:])
  pixels = np.rint(np.concatenate(pieces)).astype(int)
  pixels = pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)]
  _, first = np.unique(pixels, axis=0, return_index=True)
  return pixels[np.sort(first)]


def list_crossed(labels: Labels, path: np.ndarray) -> list[int]:
  """Returns the cells under a drawn line, in its order."""
  rows, columns = draw_line(path, labels.shape).T
  found = dict.fromkeys(labels[rows, columns].tolist())
  return [cell for cell in found if cell]


def merge_cells(labels: Labels, path: np.ndarray) -> Edit:
  """Makes one of all cells under a drawn line: it has the first one's id.

  Background under the line between them joins them, so that the cell is of one
  piece.
  """
  cells = list_crossed(labels, path)
  if len(cells) < 2:
    return Edit("Nothing is merged: draw a line over two cells or more.")
  rows, columns = draw_line(path, labels.shape).T
  inside = np.flatnonzero(labels[rows, columns])
  between = slice(inside[0], inside[-1] + 1)
  chosen = np.isin(labels, cells)
  bridge = np.zeros_like(chosen)
  bridge[rows[between], columns[between]] = True
  if ndimage.label(chosen, _EIGHT)[1] > 1:
    bridge = ndimage.binary_dilation(bridge, _EIGHT)
    chosen |= bridge & (labels == 0)
  indices = np.nonzero(chosen & (labels != cells[0]))
  values = np.full(len(indices[0]), cells[0], labels.dtype)
  others = ", ".join(map(str, cells[1:]))
  return Edit(f"Cell {cells[0]} has taken up {others}.", indices, values)


def split_cell(labels: Labels, path: np.ndarray, new_id: int) -> Edit:
  """Cuts the cell that most of a drawn line lies in, along the line.

  The line goes on straight beyond its ends. The largest part keeps the id, and
  each other part gets one of its own.

  Args:
    labels: the cells.
    path: the line; its first and last point count.
    new_id: of the first new part; others follow it.
  """
  rows, columns = draw_line(path, labels.shape).T
  under = labels[rows, columns]
  counts = collections.Counter(under[under > 0].tolist())
  start, end = np.asarray(path[0], float), np.asarray(path[-1], float)
  if not counts or np.allclose(start, end):
    return Edit("Nothing is split: draw a line across a cell.")
  cell = counts.most_common(1)[0][0]
  y, x = np.nonzero(labels == cell)
  along = end - start
  is_left = along[1] * (y - start[0]) - along[0] * (x - start[1]) > 0
  parts = _number_parts(y, x, is_left)
  sizes = np.bincount(parts)[1:]
  if len(sizes) < 2:
    return Edit(f"Nothing is split: the line lies at the edge of cell {cell}.")
  ids = np.full(len(sizes) + 1, cell)
  rest = [k + 1 for k in range(len(sizes)) if k != sizes.argmax()]
  ids[rest] = np.arange(new_id, new_id + len(rest))
  values = ids[parts].astype(labels.dtype)
  is_new = values != cell
  told = ", ".join(str(ids[k]) for k in rest)
  indices = y[is_new], x[is_new]
  return Edit(f"Cell {cell} is split: {told} is new.", indices, values[is_new])


def delete_cells(labels: Labels, path: np.ndarray) -> Edit:
  """Makes background of the cells under a click or a drawn line."""
  cells = list_crossed(labels, path)
  if not cells:
    return Edit("Nothing is deleted: click on a cell.")
  indices = np.nonzero(np.isin(labels, cells))
  values = np.zeros(len(indices[0]), labels.dtype)
  return Edit(f"Deleted: {', '.join(map(str, cells))}.", indices, values)


def find_new_id(*masks: Labels) -> int:
  """Returns the first id above all that are taken."""
  return max(int(mask.max(initial=0)) for mask in masks) + 1


def find_changes(original: Labels, corrected: Labels) -> pd.DataFrame:
  """Tells what became of which cell, from the pixels alone.

  A cell comes from another if they share half of either one. From two or more:
  merged; one of several that come from the same: split; from one alone, or none
  but with the id of one: redrawn; from none: added. A cell from which none
  comes is deleted.

  Args:
    original: the cells before, any ids.
    corrected: the cells now, the same shape.

  Returns:
    A row per changed cell, by id: `id`, `action`, `from_ids` ("12;15").

  Raises:
    ValueError: two shapes.
  """
  if original.shape != corrected.shape:
    raise ValueError(
      f"found corrected cells of shape {corrected.shape}, expected that of the "
      f"masks, {original.shape}"
    )
  before, now, shared = _count_pixels(original, corrected)
  parents: dict[int, list[int]] = {cell: [] for cell in now}
  for (old, new), count in sorted(shared.items()):
    if old and new and count >= _MIN_SHARE * min(before[old], now[new]):
      parents[new].append(old)
  children = collections.Counter(
    old for found in parents.values() for old in found
  )
  rows = []
  for cell, found in parents.items():
    if shared[cell, cell] == before[cell] == now[cell]:
      continue
    if not found and before[cell] and not children[cell]:
      found, children[cell] = [cell], 1
    rows.append((cell, _name_action(found, children), found))
  rows += [(old, "deleted", [old]) for old in before if not children[old]]
  table = [
    (cell, action, ";".join(map(str, found)))
    for cell, action, found in sorted(rows)
  ]
  return pd.DataFrame(table, columns=_WHAT)


def write_corrections(
  folder: pathlib.Path,
  stem: str,
  original: Labels,
  corrected: Labels,
  author: Mapping[str, str],
  pixel_size_um: float | None = None,
  is_checked: bool = False,
) -> pd.DataFrame:
  """Writes corrected cells and their record beside the masks of an image.

  The masks are written as well where the folder has none of the image. Rows of
  an earlier save whose cells are as they were keep their user and time.

  Args:
    folder: of the masks.
    stem: the image's name.
    original: the cells before any correction.
    corrected: the cells now.
    author: `user` and `time` of the new rows.
    pixel_size_um: edge of the image's pixels.
    is_checked: somebody has looked at all cells, and they are right now.

  Returns:
    The record: the columns COLUMNS, a row per changed cell, after a row of id
    0 where all of the image is checked.

  Raises:
    ValueError: the folder's masks are others than `original`; two shapes; or an
      earlier save is damaged.
    OSError: a file cannot be written.
  """
  changes = find_changes(original, corrected)
  if is_checked:
    checked = pd.DataFrame([(0, CHECKED, "")], columns=_WHAT)
    changes = pd.concat([checked, changes], ignore_index=True)
  changes = changes.assign(**author)
  masks, path = folder / f"masks/{stem}.tiff", folder / _FOLDER / f"{stem}.tiff"
  if masks.exists():
    _check_masks(masks, original)
  if path.exists() and path.with_suffix(".csv").exists():
    changes = _keep_authors(changes, corrected, path)
  if not masks.exists():
    write.write_labels(masks, original, pixel_size_um)
  write.write_labels(path, corrected, pixel_size_um)
  write.write_table(path.with_suffix(".csv"), changes)
  return changes


def is_shown(folder: pathlib.Path, stem: str, saved: Labels | None) -> bool:
  """Whether somebody sees what was corrected before, if anything was.

  Args:
    folder: of the masks, with corrected/.
    stem: the image's name.
    saved: the cells that were shown, before any change since.
  """
  path = folder / _FOLDER / f"{stem}.tiff"
  if not path.exists():
    return True
  try:
    found = labels_reader.read_labels(path)
    return saved is not None and np.array_equal(found, saved)
  except (ValueError, OSError):
    return False


def is_recorded(
  path: pathlib.Path, original: Labels, corrected: Labels
) -> bool:
  """Whether corrected cells differ from masks where their record says alone.

  Masks that were made anew since differ elsewhere. Without a record that can be
  read nobody knows, and they count as the same.

  Args:
    path: the record.
    original: the masks.
    corrected: the cells of the record.
  """
  try:
    record = tables.read_table(path, COLUMNS[1:], ["id"])
    told = " ".join(record["from_ids"].fillna("").astype(str))
    changed = {*record["id"].astype(int), *map(int, re.findall(r"\d+", told))}
  except (ValueError, OSError, KeyError):
    return True
  if original.shape != corrected.shape:
    return False
  ids = list(changed - {0})  # 0: of a whole image that is checked.
  is_told = np.isin(original, ids) | np.isin(corrected, ids)
  return bool((is_told | (original == corrected)).all())


def read_checked(folder: pathlib.Path, stem: str) -> bool:
  """Whether somebody has said of an image that all its cells are right.

  Args:
    folder: of the masks, with corrected/.
    stem: the image's name.
  """
  path = folder / _FOLDER / f"{stem}.csv"
  try:
    return CHECKED in set(tables.read_table(path, COLUMNS[1:])["action"])
  except (ValueError, OSError, KeyError):
    return False  # None, or a damaged one: nobody has said so.


def _number_parts(y: np.ndarray, x: np.ndarray, side: np.ndarray) -> np.ndarray:
  """Numbers the pieces of the pixels on either side, from 1 on."""
  plane = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1), np.int8)
  plane[y - y.min(), x - x.min()] = 1 + side
  first, num = ndimage.label(plane == 1, _EIGHT)
  second, _ = ndimage.label(plane == 2, _EIGHT)
  whole = np.where(second > 0, second + num, first)
  return whole[y - y.min(), x - x.min()]


def _count_pixels(original: Labels, corrected: Labels):
  """Returns pixels by cell before, by cell now, and by pairs of both."""
  pairs = np.stack([original.ravel(), corrected.ravel()])
  found, counts = np.unique(
    pairs[:, pairs.any(axis=0)], axis=1, return_counts=True
  )
  before: collections.Counter[int] = collections.Counter()
  now: collections.Counter[int] = collections.Counter()
  shared: collections.Counter[tuple[int, int]] = collections.Counter()
  for old, new, count in zip(*found.tolist(), counts.tolist(), strict=True):
    shared[old, new] = count
    before.update({old: count} if old else {})
    now.update({new: count} if new else {})
  return before, now, shared


def _name_action(found: list[int], children: Mapping[int, int]) -> str:
  if len(found) > 1:
    return "merged"
  if not found:
    return "added"
  return "split" if children[found[0]] > 1 else "redrawn"


def _check_masks(path: pathlib.Path, original: Labels) -> None:
  if not np.array_equal(labels_reader.read_labels(path), original):
    raise ValueError(
      f"{path}: found other cells than those that were corrected, expected the "
      "same; choose another folder"
    )


def _keep_authors(
  changes: pd.DataFrame, corrected: Labels, path: pathlib.Path
) -> pd.DataFrame:
  """Gives rows user and time of an earlier save with the same cell."""
  saved = labels_reader.read_labels(path)
  if saved.shape != corrected.shape:
    return changes
  record = path.with_suffix(".csv")
  earlier = tables.read_table(record, COLUMNS[1:])
  if not {*COLUMNS} <= {*earlier.columns}:
    raise ValueError(
      f"{record}: found the columns {', '.join(earlier.columns)}, expected "
      f"{', '.join(COLUMNS)}"
    )
  earlier = earlier.fillna("").set_index(_WHAT)
  is_other = saved != corrected
  touched = {*saved[is_other].tolist(), *corrected[is_other].tolist()}
  rows = []
  for row in changes.to_dict("records"):
    what = tuple(row[name] for name in _WHAT)
    if what in earlier.index and row["id"] not in touched:
      row |= earlier.loc[[what]].iloc[0].to_dict()
    rows.append(row)
  return pd.DataFrame(rows, columns=COLUMNS)
