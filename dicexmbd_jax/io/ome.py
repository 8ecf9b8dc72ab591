"""Finds the planes of an OME-TIFF whose description names other files.

Such files are one image together. A name alone is no proof: a file that was
renamed, copied or cut out of a set still carries the names of before. So a
file is another's part only where the descriptions of both say so.
"""

import dataclasses
import functools
import math
import os
import pathlib
import xml.etree.ElementTree
from collections.abc import Callable, Mapping, Sequence

import tifffile

from dicexmbd_jax.io.ifds import open_tiff

# From another file's name to where it lies; None where there is no such file.
Find = Callable[[str], pathlib.Path | None]
Element = xml.etree.ElementTree.Element
_MAX_PREFACE = 2000  # Characters in front of OME's element: a comment.


class PartError(ValueError):
  """Files that do not make up one image; the line begins with "found"."""


@dataclasses.dataclass(frozen=True)
class Plane:
  """Where one plane lies: the file's name and path, and the page in it."""

  name: str
  path: pathlib.Path
  page: int


@dataclasses.dataclass(frozen=True)
class Planes:
  """The planes of the one image that some files make up.

  Attributes:
    pixels: the image's Pixels element.
    planes: in the order of the description's dimensions.
    warnings: one line each.
  """

  pixels: Element
  planes: tuple[Plane, ...]
  warnings: tuple[str, ...] = ()

  def list_names(self) -> list[str]:
    """Names the files, in the order of their first planes."""
    return list(dict.fromkeys(plane.name for plane in self.planes))


def find_planes(
  path: pathlib.Path, name: str, find_other: Find | None = None
) -> Planes | None:
  """Finds the planes of an OME-TIFF that names other files.

  The image is the one that has planes in this file. Where the description
  speaks of other files only, it was written for another one: the own pages are
  taken, if their number fits, with a warning.

  Args:
    path: the file to open.
    name: its own name, which is not the path's for a zip member's copy.
    find_other: finds the files beside it; None where these are in its folder.

  Returns:
    None for a file that names no other one, or is no OME-TIFF.

  Raises:
    PartError: a file is missing or another image's, or this file holds planes
      of several images.
  """
  own = _read_header(path)
  find = functools.partial(_find_beside, path, name, find_other)
  images = own.images
  if own.companion is not None:
    images = _read_companion(own.companion, find)
  elif all(own.names_itself(b) for one in images for b in one.blocks):
    return None
  mine = [i for i in images if any(own.holds(b, name) for b in i.blocks)]
  chosen = mine or images
  if len(chosen) != 1:
    raise PartError(
      f"found a description of {len(chosen)} images, expected one for this file"
    )
  if mine:
    return _join(chosen[0], path, name, own, find)
  return _take_own(chosen[0], path, name, own)


@dataclasses.dataclass(frozen=True)
class _Block:
  """A TiffData element: planes that follow one another in one file."""

  first: int  # Plane.
  page: int
  count: int | None  # None: all pages of the file.
  has_file: bool  # Whether it says in which file; else it is the own one.
  name: str
  uuid: str


@dataclasses.dataclass(frozen=True)
class _Image:
  pixels: Element
  num_planes: int
  blocks: tuple[_Block, ...]


@dataclasses.dataclass(frozen=True)
class _Header:
  """What a file says of itself and of the image that it is part of."""

  uuid: str
  companion: str | None  # The file that has the description instead.
  images: tuple[_Image, ...]
  num_pages: int

  def names_itself(self, block: _Block) -> bool:
    return not block.has_file or (bool(self.uuid) and block.uuid == self.uuid)

  def holds(self, block: _Block, name: str) -> bool:
    """Whether this file, of this name, is the one that a block means."""
    return self.names_itself(block) or block.name == name

  def is_meant(self, block: _Block) -> bool:
    """Whether the file found under a block's name is the one meant."""
    if self.uuid and block.uuid:
      return self.uuid == block.uuid
    return any(
      other.has_file and (other.name, other.uuid) == (block.name, block.uuid)
      for image in self.images
      for other in image.blocks
    )


def _read_header(path: pathlib.Path) -> _Header:
  status = path.stat()
  return _parse_header(path, status.st_size, status.st_mtime_ns)


# Size and time are arguments so that a file that changed is read again.
@functools.lru_cache(maxsize=512)
def _parse_header(path: pathlib.Path, size: int, time: int) -> _Header:
  with open_tiff(path) as file:
    if not file.ome_metadata:
      # tifffile takes a description for OME's by its end, which may be damaged.
      description = file.pages.first.description.strip()
      if "<OME" in description[:_MAX_PREFACE]:
        _parse_xml(description)
      return _Header("", None, (), 0)
    root = _parse_xml(file.ome_metadata)
    binary = root.find("{*}BinaryOnly")
    return _Header(
      root.get("UUID", "").strip(),
      None if binary is None else binary.get("MetadataFile", ""),
      _list_images(root),
      len(file.pages),
    )


def _parse_xml(text: str | bytes) -> Element:
  try:
    return xml.etree.ElementTree.fromstring(text)
  except xml.etree.ElementTree.ParseError as error:
    raise PartError(
      f"found broken OME-XML ({error}), expected a whole description"
    ) from error


def _find_beside(
  path: pathlib.Path, own: str, find_other: Find | None, name: str
) -> pathlib.Path | None:
  """Finds a file by its name; a name with a folder in it is never followed."""
  if name == own:
    return path
  if not name or name != os.path.basename(name):
    return None
  if find_other is not None:
    return find_other(name)
  beside = path.parent / name
  return beside if beside.is_file() else None


def _read_companion(name: str, find: Find) -> tuple[_Image, ...]:
  """Reads the description that a file without its own points at."""
  path = find(name)
  if path is None:
    raise PartError(
      f"found no file {name!r} beside it, expected the description of its "
      "planes there"
    )
  if path.suffix.lower() in (".tif", ".tiff", ".btf"):
    images = _read_header(path).images
  else:
    images = _list_images(_parse_xml(path.read_bytes()))
  return images


def _list_images(root: Element) -> tuple[_Image, ...]:
  images = []
  for pixels in root.findall("{*}Image/{*}Pixels"):
    sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "CZT"}
    _check_places(pixels, sizes)
    channel = pixels.find("{*}Channel")
    samples = 1 if channel is None else int(channel.get("SamplesPerPixel", 1))
    sizes["C"] //= max(samples, 1)
    order = pixels.get("DimensionOrder", "XYCZT")[2:]
    steps = {
      axis: math.prod(sizes[a] for a in order[:k])
      for k, axis in enumerate(order)
    }
    blocks = [_parse_block(one, steps) for one in pixels.findall("{*}TiffData")]
    images.append(_Image(pixels, math.prod(sizes.values()), tuple(blocks)))
  return tuple(images)


def _check_places(pixels: Element, sizes: Mapping[str, int]) -> None:
  """Refuses more channels than there are, and planes outside of the image."""
  num_channels = len(pixels.findall("{*}Channel"))
  if num_channels > sizes["C"]:
    raise PartError(
      f"found {num_channels} channels in OME-XML, expected SizeC, {sizes['C']}"
    )
  for data in pixels.findall("{*}TiffData"):
    for axis, size in sizes.items():
      first = int(data.get(f"First{axis}", 0))
      if not 0 <= first < size:
        raise PartError(
          f"found First{axis} {first} in OME-XML, expected 0 to {size - 1}"
        )
    if int(data.get("IFD", 0)) < 0:
      raise PartError("found an IFD below 0 in OME-XML, expected 0 or more")


def _parse_block(data: Element, steps: Mapping[str, int]) -> _Block:
  count = data.get("PlaneCount", data.get("NumPlanes"))
  if count is None and data.get("IFD") is not None:
    count = "1"
  uuid = data.find("{*}UUID")
  return _Block(
    first=sum(int(data.get(f"First{axis}", 0)) * steps[axis] for axis in steps),
    page=int(data.get("IFD", 0)),
    count=None if count is None else int(count),
    has_file=uuid is not None,
    name="" if uuid is None else uuid.get("FileName", ""),
    uuid="" if uuid is None else (uuid.text or "").strip(),
  )


def _join(
  image: _Image, path: pathlib.Path, name: str, own: _Header, find: Find
) -> Planes:
  """Puts an image together from all of its files."""
  places: dict[int, Plane] = {}
  for block in image.blocks:
    if own.holds(block, name):
      _check_copy(block, name, find)
      _fill(places, block, name, path, own.num_pages)
    else:
      other = _find_part(block, name, own, find)
      _fill(places, block, block.name, other, _read_header(other).num_pages)
  return _finish(image, places)


def _check_copy(block: _Block, name: str, find: Find) -> None:
  """Refuses a copy of a part beside the part itself: two images otherwise."""
  if not block.has_file or block.name == name:
    return
  first = find(block.name)
  if first is not None and _read_header(first).is_meant(block):
    raise PartError(
      f"found a copy of {block.name}, which lies beside it and is part of an "
      "image of several files; expected each part once"
    )


def _find_part(
  block: _Block, name: str, own: _Header, find: Find
) -> pathlib.Path:
  """Finds the file of a block, which must know itself as the image's part."""
  path = find(block.name)
  if path is None:
    raise PartError(
      f"found no file {block.name!r} beside it, expected that part of the "
      "image there"
    )
  other = _read_header(path)
  if not (other.is_meant(block) and _knows(other, own, name)):
    raise PartError(
      f"found another image's file under the name {block.name!r}, expected "
      "that part of this image"
    )
  return path


def _knows(other: _Header, own: _Header, name: str) -> bool:
  """Whether another file's description has a place for this one."""
  if other.companion is not None:
    return other.companion in (name, own.companion)
  return any(
    own.holds(block, name)
    for image in other.images
    for block in image.blocks
    if block.has_file
  )


def _take_own(
  image: _Image, path: pathlib.Path, name: str, own: _Header
) -> Planes:
  """Takes a file's own pages where its description is of other files only."""
  others = sorted({block.name for block in image.blocks})
  shown = ", ".join(others[:3]) or "no file"
  places: dict[int, Plane] = {}
  if len(others) == 1:
    for block in image.blocks:
      _fill(places, block, name, path, own.num_pages)
  elif own.num_pages == image.num_planes:
    places = {k: Plane(name, path, k) for k in range(own.num_pages)}
  else:
    raise PartError(
      f"found a description of {image.num_planes} planes in {shown}, expected "
      f"one of this file's {own.num_pages}"
    )
  line = f"description of {shown} taken for that of {name}'s own pages"
  return dataclasses.replace(_finish(image, places), warnings=(line,))


def _fill(
  places: dict[int, Plane],
  block: _Block,
  name: str,
  path: pathlib.Path,
  num_pages: int,
) -> None:
  count = num_pages - block.page if block.count is None else block.count
  if not 0 <= block.page < block.page + count <= num_pages:
    raise PartError(
      f"found {num_pages} pages in {name}, expected at least "
      f"{block.page + max(count, 1)} by the description"
    )
  for k in range(count):
    places[block.first + k] = Plane(name, path, block.page + k)


def _finish(image: _Image, places: Mapping[int, Plane]) -> Planes:
  if len(places) != image.num_planes or max(places) != image.num_planes - 1:
    raise PartError(
      f"found places of {len(places)} planes in the description, expected "
      f"{image.num_planes}"
    )
  planes = tuple(places[k] for k in range(image.num_planes))
  return Planes(image.pixels, planes)


def read_pages(planes: Sequence[Plane]) -> list[tifffile.TiffPage]:
  """Reads the pages' tables; the pages' files are closed."""
  pages: dict[Plane, tifffile.TiffPage] = {}
  for path in dict.fromkeys(plane.path for plane in planes):
    with open_tiff(path) as file:
      for plane in planes:
        if plane.path == path:
          pages[plane] = file.pages.get(plane.page).aspage()
  return [pages[plane] for plane in planes]
