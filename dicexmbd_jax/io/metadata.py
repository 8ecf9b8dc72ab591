"""Channel names and pixel size from the metadata of a TIFF."""

import json
import xml.etree.ElementTree
from collections.abc import Sequence
from typing import Any

import tifffile

from dicexmbd_jax.sections import MAX_PIXEL_UM, MIN_PIXEL_UM

Element = xml.etree.ElementTree.Element
_UNITS_UM = {
  **dict.fromkeys(("pm", "picometer"), 1e-6),
  **dict.fromkeys(("\u00c5", "\u212b", "angstrom"), 1e-4),
  **dict.fromkeys(("nm", "nanometer"), 1e-3),
  **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\\u00b5m"), 1.0),
  **dict.fromkeys(("micron", "microns", "micrometer"), 1.0),
  **dict.fromkeys(("mm", "millimeter"), 1e3),
  **dict.fromkeys(("cm", "centimeter"), 1e4),
  **dict.fromkeys(("m", "meter"), 1e6),
  **dict.fromkeys(("inch", "in"), 25400.0),
}
_NO_UNITS = ("pixel", "reference frame")  # OME's, of no length.
# TIFF's inch and centimetre; tifffile writes millimetre and micrometre, too.
_RESOLUTION_UNITS_UM = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}
_PAGE_NAME = 285  # TIFF tag.


def check_pixel_size(name: str, size_um: float) -> None:
  """Raises a ValueError for a size that no image of tissue has.

  Args:
    name: of the value, for the message.
    size_um: edge of a pixel.
  """
  if not MIN_PIXEL_UM <= size_um <= MAX_PIXEL_UM:
    raise ValueError(
      f"{name}: found {size_um}, expected {MIN_PIXEL_UM} to {MAX_PIXEL_UM} um"
    )


def read_channel_names(
  file: tifffile.TiffFile,
  first: tifffile.TiffPage,
  pages: Sequence[tifffile.TiffPage | tifffile.TiffFrame | None],
  num_channels: int,
  pixels: Element | None,
) -> list[str]:
  """Reads the names of a TIFF's channels.

  They are looked for in OME-XML (Name, and Fluor where there is one), ImageJ's
  slice labels, tifffile's JSON (Channel.Name) and the pages' PageName tags.

  Args:
    file: the file whose metadata count.
    first: the image's first page in it.
    pages: of the image.
    num_channels: of the image.
    pixels: OME's description of the image, or None.

  Returns:
    `num_channels` names, or none at all: a list of another length than the
    channels names nothing for sure.
  """
  for names in (
    _read_ome_names(pixels),
    _read_imagej_names(file),
    _read_json_names(first),
    _read_page_names(pages),
  ):
    if len(names) == num_channels and any(names):
      return names
  return []


def read_pixel_size(
  file: tifffile.TiffFile, first: tifffile.TiffPage, pixels: Element | None
) -> tuple[list[str], float | None]:
  """Reads the edge of a pixel in um from OME, ImageJ or TIFF metadata.

  Args:
    file: the file whose metadata count.
    first: the image's first page in it.
    pixels: OME's description of the image, or None.

  Returns:
    Warnings, and the size; None where there is none, where it lies outside
    0.05 to 20 um, or where pixels are not square to 1 %. The last two warn,
    except for TIFF's own resolution tags, which mostly speak of printing.
  """
  if fault := _find_odd_size(pixels):
    return [f"pixel size of {fault} in OME-XML is ignored"], None
  sure = _read_ome_size(pixels) or _read_imagej_size(file, first)
  x, y = sure or _read_tag_size(first)
  if x is None or y is None:
    return [], None
  if not all(MIN_PIXEL_UM <= size <= MAX_PIXEL_UM for size in (x, y)):
    line = f"pixel size of {x:g} x {y:g} um in the metadata is ignored"
    return [line] if sure else [], None
  if abs(x - y) > 0.01 * max(x, y):
    return [f"pixels are not square ({x:g} x {y:g} um); size ignored"], None
  return [], (x + y) / 2


def read_notes(first: tifffile.TiffPage) -> dict[str, Any]:
  """Returns what tifffile noted with an image in JSON; {} in others' files.

  Raises:
    ValueError: broken JSON.
  """
  for text in (first.description, first.description1):
    if text.startswith("{") and '"shape":' in text and '"mibi.' not in text:
      return json.loads(text)
  return {}


def warn_of_labels(file: tifffile.TiffFile) -> list[str]:
  """Warns where ImageJ's labels of slices are there, but broken."""
  if not file.is_imagej:
    return []
  tag = file.pages.first.tags.get("IJMetadata")
  if tag is None or isinstance(tag.value, dict):
    return []
  return ["labels of ImageJ's slices are broken; channels go by their places"]


def find_ome_pixels(
  file: tifffile.TiffFile, first: tifffile.TiffPage
) -> Element | None:
  """Finds OME's description of an image; None if there is none.

  Args:
    file: any TIFF.
    first: the image's first page. Where no description says that it begins
      there, the first image of its size is taken, else the first of all.
  """
  if not (file.is_ome and file.ome_metadata):
    return None
  try:
    root = xml.etree.ElementTree.fromstring(file.ome_metadata)
  except xml.etree.ElementTree.ParseError:
    return None
  found = root.findall(".//{*}Image/{*}Pixels")
  size = str(first.imagelength), str(first.imagewidth)
  alike = [one for one in found if (one.get("SizeY"), one.get("SizeX")) == size]
  own = [one for one in alike if str(first.index) in _list_starts(one)]
  return next(iter((*own, *alike, *found)), None)


def find_unit_um(unit: str) -> float | None:
  """Returns a unit of length in um, however it is spelt; None: none that is."""
  if unit in _UNITS_UM:
    return _UNITS_UM[unit]
  return _UNITS_UM.get(unit.lower().replace("metre", "meter"))


def _list_starts(pixels: Element) -> list[str]:
  """Returns the pages that parts of an image begin at."""
  return [one.get("IFD", "0") for one in pixels.findall("{*}TiffData")]


def _read_ome_names(pixels: Element | None) -> list[str]:
  if pixels is None:
    return []
  names = []
  for channel in pixels.findall("{*}Channel"):
    name, fluor = channel.get("Name", ""), channel.get("Fluor", "")
    # Some IMC converters write the metal as the fluorophore.
    is_new = fluor and fluor not in name
    names.append(f"{name}_{fluor}".strip("_") if is_new else name)
  return names


def _read_imagej_names(file: tifffile.TiffFile) -> list[str]:
  labels = (file.imagej_metadata or {}).get("Labels", [])
  labels = [labels] if isinstance(labels, str) else labels
  return [str(label or "").split("\n")[0].strip() for label in labels]


def _read_json_names(first: tifffile.TiffPage) -> list[str]:
  channel = read_notes(first).get("Channel")
  names = channel.get("Name", []) if isinstance(channel, dict) else []
  return [str(name) for name in names] if isinstance(names, list) else []


def _read_page_names(
  pages: Sequence[tifffile.TiffPage | tifffile.TiffFrame | None],
) -> list[str]:
  names = []
  for page in pages:
    tags = getattr(page.aspage(), "tags", None) if page is not None else None
    name = tags.valueof(_PAGE_NAME, default="") if tags is not None else ""
    if isinstance(name, bytes):  # Of no encoding that tifffile tries.
      name = name.decode("latin-1")
    if not isinstance(name, str) or not name:
      return []
    names.append(name)
  return names


def _find_odd_size(pixels: Element | None) -> str | None:
  """Returns OME's size in words where it is there, but no number of a unit."""
  if pixels is None:
    return None
  for axis in "XY":
    size = pixels.get(f"PhysicalSize{axis}")
    unit = pixels.get(f"PhysicalSize{axis}Unit", "um")
    is_known = find_unit_um(unit) is not None or unit in _NO_UNITS
    if size is not None and (_parse_number(size) is None or not is_known):
      return f"{size[:20]!r} {unit[:20]!r}"
  return None


def _read_ome_size(pixels: Element | None) -> tuple[float, float] | None:
  if pixels is None:
    return None
  sizes = []
  for axis in "XY":
    size = _parse_number(pixels.get(f"PhysicalSize{axis}"))
    unit = pixels.get(f"PhysicalSize{axis}Unit", "um")
    unit_um = find_unit_um(unit)
    if size is not None and unit_um is not None:
      sizes.append(size * unit_um)
  # Some writers give the width alone.
  return (sizes[0], sizes[-1]) if sizes else None


def _read_imagej_size(
  file: tifffile.TiffFile, first: tifffile.TiffPage
) -> tuple[float, float] | None:
  unit_um = find_unit_um(str((file.imagej_metadata or {}).get("unit", "")))
  per_x, per_y = (_read_resolution(first, axis) for axis in "XY")
  if unit_um is None or not per_x or not per_y:
    return None
  return unit_um / per_x, unit_um / per_y


def _read_tag_size(
  first: tifffile.TiffPage,
) -> tuple[float | None, float | None]:
  unit = first.tags.valueof("ResolutionUnit", default=2)
  size_um = _RESOLUTION_UNITS_UM.get(int(unit))
  per_x, per_y = (_read_resolution(first, axis) for axis in "XY")
  if size_um is None or not per_x or not per_y:
    return None, None
  return size_um / per_x, size_um / per_y


def _read_resolution(first: tifffile.TiffPage, axis: str) -> float | None:
  """Reads pixels per unit along an axis; None where it says nothing."""
  value = first.tags.valueof(f"{axis}Resolution")
  if not (isinstance(value, tuple) and len(value) == 2):
    return None
  numerator, denominator = value
  return numerator / denominator if numerator > 0 and denominator > 0 else None


def _parse_number(text: str | None) -> float | None:
  try:
    return float(text) if text is not None else None
  except ValueError:
    return None
