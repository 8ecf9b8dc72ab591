"""Reads one image of any supported format: the channels a panel asks for."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dicexmbd_jax.io import tiff
from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.io.planes import read_planes
from dicexmbd_jax.io.selection import ChannelSelection, resolve_panel
from dicexmbd_jax.io.source import (
  find_siblings,
  is_store,
  open_source,
  spell_name,
  split_member,
)
from dicexmbd_jax.types import ImageSource, LoadedImage, Panel

if TYPE_CHECKING:
  from dicexmbd_jax.io import mcd

# From a file's name in messages to what selects its channels.
_Choose = Callable[[pathlib.Path], tiff.Select]


def read_image(source: ImageSource, panel: Panel | None) -> LoadedImage:
  """Reads the channels of one image that the panel asks for.

  Values are as they are in the file: whether they are finite and positive is
  for the caller to check. An acquisition of an .mcd that is broken or
  incomplete is read from its .txt copy where that is complete, with a warning.

  Args:
    source: the image, as listed.
    panel: which channels are read, and what they are; None for files that
      already are the two channels.

  Raises:
    ValueError: missing, broken or truncated file, or channels that do not fit
      the panel. One line: file, found, expected.
  """

  def choose(shown: pathlib.Path) -> tiff.Select:
    return lambda names, num_channels: resolve_panel(
      panel, names, num_channels, shown
    )

  return _load_image(source, choose)


def read_every_channel(source: ImageSource) -> LoadedImage:
  """Reads all channels of one image, in the file's order, without a panel.

  Raises:
    ValueError: missing, broken or truncated file. One line.
  """
  return _load_image(source, lambda shown: _select_every)


def describe_image(
  source: ImageSource, image: LoadedImage
) -> dict[str, str | int | float | bool | None]:
  """Writes an image's row of images.csv, in steinbock's columns.

  The image is named as in steinbock, STEM.tiff; num_channels are the channels
  read. The acquisition's columns are there for .mcd files only.
  """
  height, width, num_channels = image.stack.shape
  return {
    "image": f"{source.stem}.tiff",
    "width_px": width,
    "height_px": height,
    "num_channels": num_channels,
    **image.origin,
  }


def _load_image(source: ImageSource, choose: _Choose) -> LoadedImage:
  image, used = _read_best(source, choose)
  origin = _describe_origin(source, used) | image.origin
  return dataclasses.replace(image, origin=origin)


def _read_best(
  source: ImageSource, choose: _Choose
) -> tuple[LoadedImage, pathlib.Path | None]:
  """Reads an image, or its first good copy where it is broken or incomplete.

  Returns:
    The image, and the copy that was taken.

  Raises:
    ValueError: it is broken, and no copy is good.
  """
  if source.planes:
    folder = source.planes[0][1].parent
    return read_planes(source.planes, choose(folder), folder), None
  try:
    image = _read_file(source.path, source.member, source.acquisition, choose)
  except ValueError:
    if copy := _read_copy(source, choose, "broken"):
      return copy
    raise
  if image.is_complete:
    return image, None
  return _read_copy(source, choose, "incomplete") or (image, None)


def _read_copy(
  source: ImageSource, choose: _Choose, state: str
) -> tuple[LoadedImage, pathlib.Path] | None:
  """Reads the first .txt copy that is good and of the acquisition's size.

  Place and pixel size are the acquisition's own.
  """
  frame = _read_frame(source) if source.fallbacks else None
  for path in source.fallbacks:
    try:
      image = _read_file(*split_member(path), None, choose)
    except ValueError:
      continue
    lines = [f"data in {source.path.name} are {state}; read {path.name}"]
    if frame is None:
      return _add_warnings(image, lines), path
    if image.stack.shape[:2] == frame.shape:
      image = dataclasses.replace(
        image, pixel_size_um=frame.pixel_size_um, origin=dict(frame.origin)
      )
      return _add_warnings(image, [*frame.warnings, *lines]), path
  return None


def _add_warnings(image: LoadedImage, lines: Iterable[str]) -> LoadedImage:
  return dataclasses.replace(image, warnings=(*image.warnings, *lines))


def _read_frame(source: ImageSource) -> "mcd.Frame | None":
  """Reads what the .mcd declares of an acquisition; None if unreadable."""
  from dicexmbd_jax.io import mcd

  if source.acquisition is None:
    return None
  try:
    with open_source(source.path, source.member) as path:
      return mcd.read_frame(path, source.acquisition, source.path)
  except ValueError:
    return None


def _read_file(
  path: pathlib.Path,
  member: str | None,
  acquisition: int | None,
  choose: _Choose,
) -> LoadedImage:
  shown = path / member if member else path
  select = choose(shown)
  if member is None and is_store(path):
    from dicexmbd_jax.io import ome_zarr

    return ome_zarr.read_image(path, select)
  with open_source(path, member) as opened:
    suffix = shown.suffix.lower()
    if suffix not in (".mcd", ".txt"):
      siblings = find_siblings(path, member)
      return tiff.read_tiff(opened, select, shown, siblings)
    # Only here, so that a run on TIFFs loads neither pandas nor readimc.
    if suffix == ".txt":
      from dicexmbd_jax.io import txt

      return txt.read_txt(opened, select, shown)
    from dicexmbd_jax.io import mcd

    if acquisition is None:
      raise ValueError(f"{shown}: found no acquisition id, expected one")
    return mcd.read_mcd(opened, acquisition, select, shown)


def _select_every(names: Sequence[str], num_channels: int) -> ChannelSelection:
  spelled = [name or "" for name in names] + [""] * (num_channels - len(names))
  named = [name or f"channel {k + 1}" for k, name in enumerate(spelled)]
  return ChannelSelection(
    tuple(range(num_channels)), make_unique(named), (), ()
  )


def _describe_origin(
  source: ImageSource, used: pathlib.Path | None
) -> dict[str, str | int | float | bool | None]:
  name = pathlib.PurePosixPath(source.member or source.path.name).name
  if source.planes:
    name = source.planes[0][1].parent.name
  name = spell_name(name)
  origin: dict[str, str | int | float | bool | None] = {"source_file": name}
  if source.acquisition is not None:
    copy = source.fallbacks[0] if source.fallbacks else None
    copy = copy if used is None else used
    origin["recovery_file"] = spell_name(copy.name) if copy else None
    origin["recovered"] = used is not None
    origin["acquisition_id"] = source.acquisition
  return origin
