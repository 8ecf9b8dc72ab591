"""Reads one image of any supported format: the channels a panel asks for."""

import pathlib
from collections.abc import Sequence

from dicexmbd_jax.io import tiff
from dicexmbd_jax.io.names import make_unique
from dicexmbd_jax.io.selection import (
  ChannelSelection,
  RawImage,
  resolve_panel,
)
from dicexmbd_jax.io.source import (
  find_siblings,
  open_source,
  split_member,
)
from dicexmbd_jax.types import ImageSource, LoadedImage, Panel


def read_image(source: ImageSource, panel: Panel | None) -> LoadedImage:
  """Reads the channels of one image that the panel asks for.

  Values are as they are in the file: whether they are finite and positive is
  for the caller to check. An acquisition of an .mcd that is broken is read
  from its .txt copy where there is one, with a warning.

  Args:
    source: the image, as listed.
    panel: which channels are read, and what they are; None for files that
      already are the two channels.

  Raises:
    ValueError: missing, broken or truncated file, or channels that do not fit
      the panel. One line: file, found, expected.
  """
  try:
    raw = _read_raw(source, panel)
    used = None
  except ValueError as error:
    raw, used = _read_fallback(source, panel, error)
  lines = [*raw.warnings, *raw.selection.warnings]
  if used is not None:
    lines.append(f"data in {source.path.name} are broken; read {used.name}")
  selection = raw.selection
  return LoadedImage(
    stack=raw.stack,
    names=selection.names,
    nuclear=selection.nuclear,
    membrane=selection.membrane,
    pixel_size_um=raw.pixel_size_um,
    warnings=tuple(lines),
    origin=_describe_origin(source, raw, used),
  )


def read_every_channel(source: ImageSource) -> LoadedImage:
  """Reads all channels of one image, in the file's order, without a panel.

  Raises:
    ValueError: missing, broken or truncated file. One line.
  """
  shown = source.path / source.member if source.member else source.path
  raw = _read_selected(
    source.path, source.member, source.acquisition, _select_every, shown
  )
  return LoadedImage(
    stack=raw.stack,
    names=raw.selection.names,
    nuclear=(),
    membrane=(),
    pixel_size_um=raw.pixel_size_um,
    warnings=raw.warnings,
    origin=_describe_origin(source, raw, None),
  )


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


def _read_raw(source: ImageSource, panel: Panel | None) -> RawImage:
  shown = source.path / source.member if source.member else source.path
  return _read_file(
    source.path, source.member, source.acquisition, panel, shown
  )


def _read_file(
  path: pathlib.Path,
  member: str | None,
  acquisition: int | None,
  panel: Panel | None,
  shown: pathlib.Path,
) -> RawImage:
  def select(names: Sequence[str], num_channels: int) -> ChannelSelection:
    return resolve_panel(panel, names, num_channels, shown)

  return _read_selected(path, member, acquisition, select, shown)


def _select_every(names: Sequence[str], num_channels: int) -> ChannelSelection:
  spelled = [name or "" for name in names] + [""] * (num_channels - len(names))
  named = [name or f"channel {k + 1}" for k, name in enumerate(spelled)]
  return ChannelSelection(
    tuple(range(num_channels)), make_unique(named), (), ()
  )


def _read_selected(
  path: pathlib.Path,
  member: str | None,
  acquisition: int | None,
  select: tiff.Select,
  shown: pathlib.Path,
) -> RawImage:
  with open_source(path, member) as opened:
    suffix = shown.suffix.lower()
    if suffix not in (".mcd", ".txt"):
      find_other = find_siblings(path, member)
      return tiff.read_tiff(opened, select, shown, find_other)
    # Only here, so that a run on TIFFs never loads readimc.
    from dicexmbd_jax.io import mcd

    if suffix == ".txt":
      return mcd.read_txt(opened, select, shown)
    if acquisition is None:
      raise ValueError(f"{shown}: found no acquisition id, expected one")
    return mcd.read_mcd(opened, acquisition, select, shown)


def _read_fallback(
  source: ImageSource, panel: Panel | None, error: ValueError
) -> tuple[RawImage, pathlib.Path]:
  """Reads the first .txt copy that can be read; else the first error stands."""
  for path in source.fallbacks:
    archive, member = split_member(path)
    try:
      return _read_file(archive, member, None, panel, path), path
    except ValueError:
      continue
  raise error


def _describe_origin(
  source: ImageSource, raw: RawImage, used: pathlib.Path | None
) -> dict[str, str | int | float | bool | None]:
  name = pathlib.PurePosixPath(source.member or source.path.name).name
  origin: dict[str, str | int | float | bool | None] = {"source_file": name}
  if source.acquisition is not None:
    copy = source.fallbacks[0].name if source.fallbacks else None
    origin["recovery_file"] = used.name if used is not None else copy
    origin["recovered"] = used is not None
    origin["acquisition_id"] = source.acquisition
  return origin | raw.origin
