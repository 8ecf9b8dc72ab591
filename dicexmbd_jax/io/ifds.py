"""Opens a TIFF file once its chain of pages is known to end."""

import pathlib
import struct
from typing import BinaryIO

import tifffile

# From the version to the bytes and format of an offset, and of a count of tags.
_FORMATS = {42: (4, "I", 2, "H", 12), 43: (8, "Q", 8, "Q", 20)}
_MAX_TAGS = 4096  # As in tifffile, which takes more for damage.


def open_tiff(path: pathlib.Path) -> tifffile.TiffFile:
  """Opens a TIFF so that no other file is ever opened with it.

  Raises:
    ValueError: its chain of pages leads back to an earlier one.
    Exception: whatever tifffile raises.
  """
  with path.open("rb") as file:
    _check_chain(file)
  opened = tifffile.TiffFile(
    path, _multifile=False, is_mmstack=False, is_ndtiff=False
  )
  try:
    _spell_description(opened)
  except BaseException:
    opened.close()
    raise
  return opened


def _spell_description(file: tifffile.TiffFile) -> None:
  """Takes a description of an unknown encoding for Latin-1.

  One wrong byte would else cost the file all its names and axes.
  """
  page = file.pages.first
  tag = page.tags.get("ImageDescription")
  if tag is not None and isinstance(tag.value, bytes):
    tag.value = tag.value.rstrip(b"\0").decode("latin-1").strip()
    page.description = tag.value


def _check_chain(file: BinaryIO) -> None:
  """Follows the chain to its end, or to where tifffile finds it broken."""
  header = file.read(8)
  order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
  version = struct.unpack(f"{order}H", header[2:4])[0] if order else 0
  if len(header) < 8 or version not in _FORMATS:
    return
  width, format_, count_width, count_format, tag_width = _FORMATS[version]

  def read_number(place: int, length: int, kind: str) -> int:
    file.seek(place)
    data = file.read(length)
    return struct.unpack(order + kind, data)[0] if len(data) == length else 0

  place = 4 if version == 42 else 8
  seen: set[int] = set()
  while offset := read_number(place, width, format_):
    if offset in seen:
      raise ValueError(f"page {len(seen) + 1} leads back to an earlier page")
    seen.add(offset)
    num_tags = read_number(offset, count_width, count_format)
    if num_tags > _MAX_TAGS:
      return
    place = offset + count_width + num_tags * tag_width
