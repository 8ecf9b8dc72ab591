"""The picture of a segmentation: tissue in two colours, outlines of the cells.

Nuclear signal is blue, membrane/cytoplasm green. Cells get a light outline,
nuclei one in magenta: blue, green, near-white and magenta stay apart in
brightness or hue for the common forms of colour blindness.
"""

import numpy as np
from jaxtyping import Bool, Float32, Real, Shaped, UInt8
from PIL import Image as pillow

from dicexmbd_jax import storage
from dicexmbd_jax.types import Image, Labels

Rgb = UInt8[np.ndarray, "y x 3"]
Palette = UInt8[np.ndarray, "n 3"]

# Full signal of each channel, before both are laid over one another.
NUCLEAR_RGB = (64, 112, 255)
MEMBRANE_RGB = (24, 210, 96)
CELL_RGB = (255, 246, 214)
NUCLEUS_RGB = (255, 92, 214)
# Steps of each channel from black to full signal. With the two outlines they
# are fewer than 256 colours, which a PNG stores in a byte per pixel.
NUM_NUCLEAR_LEVELS = 16
NUM_MEMBRANE_LEVELS = 15
# An enlarged picture stays below this edge, so that its PNG stays below 10 MB.
MAX_ENLARGED_PX = 2300
# At factor 1 an outline covers a good part of a cell: let the cell through.
PLAIN_CELL_OPACITY = 0.5
PLAIN_NUCLEUS_OPACITY = 0.4
MAX_JUDGED = 2**17  # Pixels that tell how bright an image is.
_MAX_PALETTE = 256


def choose_factor(shape: tuple[int, ...]) -> int:
  """Returns by how much a picture of (y, x) pixels is enlarged: 4, 2 or 1.

  Cells of 8 pixels are hidden under outlines of one; enlarged by 4 they are
  not. Images above 1150 pixels stay as they are: their files would get large.
  """
  room = MAX_ENLARGED_PX // max(1, *shape[:2])
  return 4 if room >= 4 else 2 if room >= 2 else 1


def draw_overlay(image: Image, cells: Labels, nuclei: Labels) -> pillow.Image:
  """Draws cell and nucleus outlines over the two-channel image.

  The three inputs lie on one grid, whichever that is: the caller resamples.
  Small images are enlarged by `choose_factor`, the signal smoothly, the masks
  with rounded corners (`enlarge_labels`); outlines are one pixel wide in the
  enlarged picture. An outline lies on the upper or left side of the border
  between two pixels; the image's own edge is not a border.

  Args:
    image: float (y, x, 2), nuclear and membrane/cytoplasm, any range. Each
      channel is stretched by itself; NaN and infinite values count as 0.
    cells: ids (y, x), 0 = background.
    nuclei: ids (y, x), 0 = background.

  Returns:
    A picture of (y * factor, x * factor) pixels: with a palette, a third of the
    bytes, unless it has too many colours. A constant channel is black; an empty
    image gives an empty picture.

  Raises:
    ValueError: image is not (y, x, 2), or a mask has another grid.
  """
  _check_grid(image, cells, nuclei)
  factor = choose_factor(image.shape)
  if factor == 1 and image.nbytes >= storage.LARGE_BYTES:
    return _draw_in_strips(image, cells, nuclei)
  nuclear, membrane = (stretch_channel(image[..., i]) for i in (0, 1))
  if factor > 1:
    return _draw_enlarged(nuclear, membrane, cells, nuclei, factor)
  codes: Shaped[np.ndarray, "y x"] = code_channels(nuclear, membrane)
  palette = make_palette()
  for labels, colour, opacity in (
    (nuclei, NUCLEUS_RGB, PLAIN_NUCLEUS_OPACITY),
    (cells, CELL_RGB, PLAIN_CELL_OPACITY),
  ):
    codes = codes + find_outlines(labels) * np.uint16(len(palette))
    palette = np.append(palette, _mix(palette, colour, opacity), axis=0)
  return make_picture(codes, palette)


def _draw_enlarged(
  nuclear: UInt8[np.ndarray, "y x"],
  membrane: UInt8[np.ndarray, "y x"],
  cells: Labels,
  nuclei: Labels,
  factor: int,
) -> pillow.Image:
  """Draws an image at factor 2 or 4."""
  # Only here: what draws no overlays need not load numba.
  from dicexmbd_jax.report import enlarge

  height, width = nuclear.shape
  codes = np.empty((height * factor, width * factor), np.uint8)
  if codes.size:
    enlarge.fill_codes(nuclear, membrane, codes)
  palette = make_palette()
  for labels, colour in ((nuclei, NUCLEUS_RGB), (cells, CELL_RGB)):
    half = np.ascontiguousarray(labels)
    if factor == 4:
      half = enlarge.double_labels(half)
    enlarge.draw_outlines(half, codes, np.uint8(len(palette)))
    palette = np.append(palette, np.array([colour], np.uint8), axis=0)
  return make_picture(codes, palette)


def _draw_in_strips(
  image: Image, cells: Labels, nuclei: Labels
) -> pillow.Image:
  """Draws an image at factor 1, without a palette, strip by strip."""
  ranges = [find_range(image[..., i]) for i in (0, 1)]
  picture = pillow.new("RGB", image.shape[1::-1])
  for part in storage.cut_strips(image.shape, 40):
    nuclear, membrane = (
      stretch_values(image[part, :, i], *ranges[i]) for i in (0, 1)
    )
    rgb = blend_channels(nuclear, membrane)
    for labels, colour, opacity in (
      (nuclei, NUCLEUS_RGB, PLAIN_NUCLEUS_OPACITY),
      (cells, CELL_RGB, PLAIN_CELL_OPACITY),
    ):
      # With the row below, whose ids count.
      outlines = find_outlines(labels[part.start : part.stop + 1])
      paint_outline(rgb, outlines[: len(rgb)], colour, opacity)
    picture.paste(pillow.fromarray(rgb), (0, part.start))
  return picture


def make_picture(
  codes: Shaped[np.ndarray, "y x"], palette: Palette
) -> pillow.Image:
  """Returns a picture of colours' places in a palette.

  Args:
    codes: uint8, or uint16 for a longer palette.
    palette: the colours. More than 256 of them in the picture make it one
      without a palette.
  """
  if len(palette) > _MAX_PALETTE:
    is_used = np.bincount(codes.ravel(), minlength=len(palette)) > 0
    if np.count_nonzero(is_used) > _MAX_PALETTE:
      return pillow.fromarray(palette[codes])
    codes = (np.cumsum(is_used) - 1).astype(np.uint8)[codes]
    palette = palette[is_used]
  picture = pillow.fromarray(codes)
  picture.putpalette(palette.tobytes())
  return picture


def _check_grid(image: Image, cells: Labels, nuclei: Labels) -> None:
  """Raises a ValueError unless all three lie on one grid."""
  if image.ndim != 3 or image.shape[2] != 2:
    raise ValueError(f"image: shape {image.shape}, expected (y, x, 2)")
  for name, labels in (("cells", cells), ("nuclei", nuclei)):
    if labels.shape != image.shape[:2]:
      raise ValueError(
        f"{name}: shape {labels.shape}, expected the image's {image.shape[:2]}"
      )


def stretch_channel(
  channel: Real[np.ndarray, "y x"],
) -> UInt8[np.ndarray, "y x"]:
  """Maps one channel to 0..255 for the eye, not for measuring.

  Black is the channel's 2nd percentile; full signal is the 99.5th percentile of
  the pixels above black, so that an image with a wide empty margin is as bright
  as one without. A gamma of 0.75 lifts dim cells. Where nearly all pixels are
  at the maximum, black is the minimum.

  Returns:
    uint8 (y, x); zeros where all pixels are equal or the channel is empty.
  """
  return stretch_values(channel, *find_range(channel))


def find_range(channel: Real[np.ndarray, "y x"]) -> tuple[float, float]:
  """Returns a channel's values for black and for full signal; twice 0: none.

  Of a channel of more than MAX_JUDGED pixels, every n-th row and column tell.
  """
  step = int(np.ceil(np.sqrt(channel.size / MAX_JUDGED)))
  values = _clear_odd(channel[::step, ::step] if step > 1 else channel)
  if values.size == 0 or values.max() == values.min():
    return 0.0, 0.0
  black = np.percentile(values, 2)
  if black == values.max():
    black = values.min()
  return black, np.percentile(values[values > black], 99.5)


def stretch_values(
  channel: Real[np.ndarray, "y x"], black: float, white: float
) -> UInt8[np.ndarray, "y x"]:
  """Maps values from black to white to 0..255; see stretch_channel."""
  if black == white:
    return np.zeros(channel.shape, np.uint8)
  scaled = np.clip((_clear_odd(channel) - black) / (white - black), 0, 1)
  return np.rint(255 * scaled**0.75).astype(np.uint8)


def _clear_odd(channel: Real[np.ndarray, "y x"]) -> Float32[np.ndarray, "y x"]:
  """Returns a channel in which NaN and infinite values are 0."""
  values = channel.astype(np.float32)
  return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def enlarge_channel(
  channel: UInt8[np.ndarray, "y x"], factor: int
) -> UInt8[np.ndarray, "y*{factor} x*{factor}"]:
  """Enlarges by an integer factor, bilinear; by 1 changes nothing."""
  height, width = channel.shape
  if channel.size == 0:
    return np.zeros((height * factor, width * factor), np.uint8)
  picture = pillow.fromarray(channel).resize(
    (width * factor, height * factor), pillow.Resampling.BILINEAR
  )
  return np.asarray(picture)


def blend_channels(
  nuclear: UInt8[np.ndarray, "y x"], membrane: UInt8[np.ndarray, "y x"]
) -> Rgb:
  """Lays two coloured channels over one another as light on a screen.

  Both at full signal give the sum less the product of their colours, which
  never saturates: structure stays visible where a cell has both. Signal is
  rounded to the levels above; black stays black, full stays full.
  """
  return np.take(make_palette(), code_channels(nuclear, membrane), axis=0)


def code_channels(
  nuclear: UInt8[np.ndarray, "y x"], membrane: UInt8[np.ndarray, "y x"]
) -> UInt8[np.ndarray, "y x"]:
  """Returns each pixel's place in `make_palette`."""
  signal = np.arange(256) / 255
  row, column = (
    np.rint(signal * (count - 1)).astype(np.uint8)
    for count in (NUM_NUCLEAR_LEVELS, NUM_MEMBRANE_LEVELS)
  )
  if nuclear.size == 0:
    return np.zeros(nuclear.shape, np.uint8)
  # Pillow looks bytes up in a third of NumPy's time.
  rows, columns = (
    np.asarray(pillow.fromarray(channel).point(table.tolist()))
    for channel, table in (
      (nuclear, row * np.uint8(NUM_MEMBRANE_LEVELS)),
      (membrane, column),
    )
  )
  return rows + columns


def make_palette() -> Palette:
  """Returns the colours of all pairs of levels, the membrane's the faster."""
  nuclear, membrane = (
    np.linspace(0, 1, count)[:, None] * np.array(colour) / 255
    for count, colour in (
      (NUM_NUCLEAR_LEVELS, NUCLEAR_RGB),
      (NUM_MEMBRANE_LEVELS, MEMBRANE_RGB),
    )
  )
  light = 1 - (1 - nuclear[:, None]) * (1 - membrane[None])
  return np.rint(255 * light).astype(np.uint8).reshape(-1, 3)


def enlarge_labels(
  labels: Shaped[np.ndarray, "y x"], factor: int
) -> Shaped[np.ndarray, "y*{factor} x*{factor}"]:
  """Enlarges masks by 1, 2 or 4, cutting the corners of their staircases.

  At each doubling a pixel becomes four; the one in a corner between two equal
  neighbours, one above or below and one beside, takes their id, unless the
  pixel lies on a line of that id (the rule known as EPX or Scale2x). Objects
  neither appear, vanish nor touch anew; straight borders stay where they are.
  """
  while factor > 1:
    labels = _double_labels(labels)
    factor //= 2
  return labels


def _double_labels(labels: Shaped[np.ndarray, "y x"]) -> np.ndarray:
  """One doubling of `enlarge_labels`."""
  double = labels.repeat(2, axis=0).repeat(2, axis=1)
  if labels.size == 0:
    return double
  padded = np.pad(labels, 1, mode="edge")
  above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
  left, right = padded[1:-1, :-2], padded[1:-1, 2:]
  is_corner = (above != below) & (left != right)
  for row, upright in enumerate((above, below)):
    for column, beside in enumerate((left, right)):
      is_cut = is_corner & (upright == beside)
      np.copyto(double[row::2, column::2], upright, where=is_cut)
  return double


def find_outlines(labels: Shaped[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
  """Returns where the id differs from the one below or to the right.

  Objects that touch share one line.
  """
  outlines = np.zeros(labels.shape, bool)
  outlines[:-1] |= labels[:-1] != labels[1:]
  outlines[:, :-1] |= labels[:, :-1] != labels[:, 1:]
  return outlines


def paint_outline(
  rgb: Rgb,
  outlines: Bool[np.ndarray, "y x"],
  colour: tuple[int, int, int],
  opacity: float,
) -> None:
  """Mixes a colour into the picture, in place, where outlines are."""
  rgb[outlines] = _mix(rgb[outlines], colour, opacity)


def _mix(
  below: Palette, colour: tuple[int, int, int], opacity: float
) -> Palette:
  mixed = below.astype(np.float32) * (1 - opacity)
  mixed += np.array(colour, np.float32) * opacity
  return np.rint(mixed).astype(np.uint8)
