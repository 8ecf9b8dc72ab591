"""Turns what people painted, in whichever program, into strokes.

A class is a number (labels 1, 2, 3), a name (Nucleus, membrane, bg ...) or a
colour: red nucleus, green membrane/cytoplasm, blue background, as probability
maps show them. `classes.csv` beside the drawings adds names and colours.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from skimage import draw

from dicexmbd_jax.io import drawings, pictures
from dicexmbd_jax.io.drawings import Shape
from dicexmbd_jax.teach import ilastik
from dicexmbd_jax.teach.forest import CLASSES
from dicexmbd_jax.types import Labels

Path = pathlib.Path
Colour = tuple[int, int, int]

LEGEND_FILE = "classes.csv"
LEGEND_TEXT = (
  "name,colour,class\n"
  "nucleus,#ff0000,1\n"
  "membrane,#00ff00,2\n"
  "background,#0000ff,3\n"
)
_COLOURS = {(255, 0, 0): 1, (0, 255, 0): 2, (0, 0, 255): 3}
_EMPTY = ((0, 0, 0), (255, 255, 255))  # New pictures are of either.
_NEAR = 40  # Of 255, in each of the three: colour management moves colours.
_OPAQUE = 128  # Below, a pixel of a soft brush's rim does not count.
_LABELS = "0 none, 1 nucleus, 2 membrane/cytoplasm, 3 background"
_GIMP = (
  "in GIMP, paint with the Pencil, not the Brush, on a layer of its own, and "
  "export that layer alone as PNG"
)
_NAPARI = "in napari, paint on a Labels layer of two axes, y and x"


@dataclasses.dataclass(frozen=True)
class Legend:
  """What names and colours stand for.

  Attributes:
    names: in lower case, to classes.
    colours: red, green, blue, to classes.
  """

  names: Mapping[str, int]
  colours: Mapping[Colour, int]


def read_legend(folder: str | Path) -> Legend:
  """Reads a folder's classes.csv, which adds to the usual names and colours.

  Raises:
    ValueError: it is no table of name, colour and class.
  """
  folder = Path(folder).expanduser()
  path = (folder if folder.is_dir() else folder.parent) / LEGEND_FILE
  names: dict[str, int] = {}
  colours: dict[Colour, int] = {}
  if path.is_file():
    from dicexmbd_jax.io import tables  # Only here: it loads pandas.

    table = tables.read_table(path, ("name", "colour"), ("class",))
    wanted = ("name", "colour", "class")
    if not set(wanted) <= set(table.columns):
      raise ValueError(
        f"{path}: found columns {', '.join(map(str, table.columns))}, expected "
        f"{', '.join(wanted)}"
      )
    for name, colour, number in table[list(wanted)].itertuples(index=False):
      if number not in (1, 2, 3):
        raise ValueError(f"{path}: found class {number}, expected 1, 2 or 3")
      if isinstance(name, str):
        names[name.strip().lower()] = int(number)
      if isinstance(colour, str):
        colours[_parse_colour(colour, path)] = int(number)
  return Legend(names, _COLOURS | colours)


def read_strokes(
  path: str | Path, shape: tuple[int, int], legend: Legend | None = None
) -> Labels:
  """Reads the strokes painted on an image.

  Args:
    path: a file of any kind that io.drawings reads.
    shape: of the image, which shapes are drawn on; pixels come as they are.
    legend: what names and colours stand for; None: as beside the file.

  Returns:
    int32 (y, x), 0 = none, else the class.

  Raises:
    ValueError: it cannot be read, or not be understood; one line that says how
      to save it.
  """
  path = Path(path)
  legend = legend or read_legend(path.parent)
  found = drawings.read_drawing(path)
  if isinstance(found, list):
    return _draw_shapes(path, found, shape, legend)
  if _is_colour(found):
    return _read_colours(path, found, legend)
  return _merge_planes(path, found)


def _merge_planes(path: Path, planes: np.ndarray) -> Labels:
  """Makes one plane of one per channel, as napari paints on a stack."""
  if planes.shape[2] > 1 and planes.shape[1] == 1:
    planes = planes.transpose(2, 0, 1)  # One plane, a single pixel long.
  values = np.unique(planes)
  if not np.all(np.isin(values, (0, 1, 2, 3))):
    is_whole = np.all(values == np.rint(values)) and np.isfinite(values).all()
    wrong = values[~np.isin(values, (0, 1, 2, 3))][-1]
    raise ValueError(
      f"{path}: found the {'label' if is_whole else 'value'} {wrong}, expected "
      f"{'' if is_whole else 'whole labels: '}{_LABELS}"
    )
  merged = planes.max(axis=2, initial=0).astype(np.int32)
  clash = (planes != 0) & (planes != merged[..., None])
  if num_px := int(clash.any(axis=2).sum()):
    raise ValueError(
      f"{path}: found two classes in {num_px} pixels of its {planes.shape[2]} "
      f"planes, expected one class a pixel: {_NAPARI}"
    )
  return merged


def _is_colour(pixels: np.ndarray) -> bool:
  """Whether planes are those of a colour, with or without transparency."""
  is_byte = pixels.dtype == np.uint8 and pixels.shape[2] in (2, 3, 4)
  return is_byte and int(pixels.max(initial=0)) > len(CLASSES)


def _read_colours(path: Path, pixels: np.ndarray, legend: Legend) -> Labels:
  if pixels.shape[2] == 2:  # Grey and how opaque: labels, as they are.
    grey = np.where(pixels[..., 1] < _OPAQUE, 0, pixels[..., 0])
    return _merge_planes(path, grey[..., None])
  is_there = np.ones(pixels.shape[:2], bool)
  if pixels.shape[2] == 4:
    is_there = pixels[..., 3] >= _OPAQUE
  strokes = np.zeros(pixels.shape[:2], np.int32)
  colours, places = np.unique(
    pixels[..., :3][is_there], axis=0, return_inverse=True
  )
  known = [_match_colour((r, g, b), legend) for r, g, b in colours.tolist()]
  if None not in known:
    strokes[is_there] = np.array([0, *known], np.int32)[places.ravel() + 1]
    return strokes
  numbers = pictures.read_numbers(path)
  if numbers is not None and numbers.max(initial=0) <= len(CLASSES):
    return numbers.astype(np.int32)
  is_odd = np.array([one is None for one in known])
  num_px = int(is_odd[places.ravel()].sum())
  first = "#" + bytes(colours[is_odd][0].tolist()).hex()
  raise ValueError(
    f"{path}: found {is_odd.sum()} other colours, as {first}, in {num_px} "
    "pixels, expected red nucleus, green membrane/cytoplasm, blue background, "
    f"or the colours of {LEGEND_FILE}: {_GIMP}"
  )


def _match_colour(colour: Colour, legend: Legend) -> int | None:
  """Returns the class of a colour, 0 of an empty one, None of others."""
  for known, number in (
    *legend.colours.items(),
    *((one, 0) for one in _EMPTY),
  ):
    if max(abs(a - b) for a, b in zip(colour, known, strict=True)) <= _NEAR:
      return number
  return None


def _draw_shapes(
  path: Path,
  shapes: Sequence[Shape],
  shape: tuple[int, int],
  legend: Legend,
) -> Labels:
  """Draws shapes in their order, the later over the earlier."""
  strokes = np.zeros(shape, np.int32)
  for one in shapes:
    number = _match_shape(path, one, legend)
    inside = np.zeros(shape, bool)
    for part in one.parts:
      rows, columns = _DRAWERS[one.kind](part, shape)
      inside[rows, columns] ^= one.kind == "area"
      inside[rows, columns] |= one.kind != "area"
    strokes[inside] = number
  if shapes and not strokes.any():
    raise ValueError(
      f"{path}: found shapes that lie outside of the image's {shape} pixels, "
      "expected some inside: save them from the image of this name"
    )
  return strokes


def _match_shape(path: Path, one: Shape, legend: Legend) -> int:
  for name in one.names:
    plain = name.strip().lower()
    if plain in legend.names:
      return legend.names[plain]
    if plain in ("1", "2", "3"):
      return int(plain)
    fits = [k for k, words in enumerate(ilastik.WORDS, 1) if words.search(name)]
    if len(fits) == 1:
      return fits[0]
  number = _match_colour(one.colour, legend) if one.colour else None
  if number:
    return number
  called = ", ".join(one.names)[:80] or "no name"
  raise ValueError(
    f"{path}: found a shape of no class ({called}), expected nucleus, membrane "
    "or background: in QuPath, set its class; in ImageJ, its name, its group "
    f"(1, 2, 3) or stroke colour; or name it in {LEGEND_FILE}"
  )


def _draw_area(
  part: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  # Pixels whose centres are inside.
  return draw.polygon(part[:, 0] - 0.5, part[:, 1] - 0.5, shape)


def _draw_line(
  part: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a line one pixel wide, whatever its width was."""
  pixels = np.floor(part).astype(int)
  ends = zip(pixels, pixels[1:] if len(pixels) > 1 else pixels, strict=False)
  pieces = [draw.line(*start, *end) for start, end in ends]
  rows, columns = (np.concatenate(one) for one in zip(*pieces, strict=True))
  return _clip(rows, columns, shape)


def _draw_points(
  part: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  rows, columns = np.floor(part).astype(int).T
  return _clip(rows, columns, shape)


def _clip(
  rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  is_in = (rows >= 0) & (rows < shape[0])
  is_in &= (columns >= 0) & (columns < shape[1])
  return rows[is_in], columns[is_in]


_DRAWERS = {"area": _draw_area, "line": _draw_line, "point": _draw_points}


def _parse_colour(text: str, path: Path) -> Colour:
  plain = text.strip().removeprefix("#")
  if not re.fullmatch("[0-9a-fA-F]{6}", plain):
    raise ValueError(f"{path}: found the colour {text!r}, expected #rrggbb")
  red, green, blue = bytes.fromhex(plain)
  return red, green, blue
