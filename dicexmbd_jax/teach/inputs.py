"""What the `teach` commands share: images as a teacher sees them."""

import dataclasses
import pathlib

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax.image import preparation, resample
from dicexmbd_jax.io import hdf5, images, pictures
from dicexmbd_jax.io.pictures import list_images_or_png
from dicexmbd_jax.io.selection import resolve_panel
from dicexmbd_jax.teach.features import Planes
from dicexmbd_jax.teach.teacher import Teacher, View
from dicexmbd_jax.types import ImageSource, LoadedImage, Panel, Stack

Path = pathlib.Path

# The filters' scales are 1.4 to 2.3 times apart: less is hardly seen.
MAX_SIZE_RATIO = 1.2

UNNAMED = (*hdf5.SUFFIXES, ".ilp", *pictures.PNG)  # Of channels without names.


@dataclasses.dataclass(frozen=True)
class Viewed:
  """One image as a teacher sees it.

  Attributes:
    planes: the channels on the working grid.
    names: of the channels; empty where the file names none.
    pixel_size_um: of the working grid; None where the file does not say.
    warnings: one line each.
  """

  planes: Planes
  names: tuple[str, ...]
  pixel_size_um: float | None
  warnings: tuple[str, ...]


def list_inputs(
  pattern: str,
) -> tuple[list[ImageSource], list[tuple[Path, str]]]:
  """Lists HDF5 images where there are any, else what `predict` lists, or PNG.

  Images that are left out beside HDF5 of other names are told: Ilastik writes
  its maps beside the images that they are of.

  Raises:
    ValueError: nothing is there.
  """
  found = pictures.list_pictures(pattern, hdf5.SUFFIXES)
  if not found:
    return list_images_or_png(pattern)
  both, _ = pictures.list_with_images(pattern, hdf5.SUFFIXES)
  if left := [one for one in both if one not in found]:
    logging.warning(
      "%s: found %d images beside HDF5 (%s), which are left out, expected one "
      "kind; a glob, as FOLDER/*%s, takes these alone",
      pattern,
      len(left),
      left[0].path.name,
      left[0].path.suffix,
    )
  return found, []


def view_image(
  source: ImageSource,
  view: View,
  panel: Panel | None = None,
  inner: str | None = None,
  axes: str | None = None,
) -> Viewed:
  """Reads an image as a teacher sees it.

  Args:
    source: the image.
    view: how it is looked at.
    panel: which channels are what, or None.
    inner: the dataset in an HDF5 file, or None.
    axes: names of its axes, or None, as io.hdf5.read_hdf5 takes them.

  Raises:
    ValueError: the image cannot be read, or does not fit the panel. One line;
      of wrong counts it does not name the file.
  """
  suffix = source.path.suffix.lower()
  if suffix in (*hdf5.SUFFIXES, ".ilp"):
    stack = hdf5.read_hdf5(source.path, inner, axes)
    loaded = _choose_channels(source, stack, view, panel)
  elif suffix in pictures.PNG:
    pixels = pictures.read_png(source.path).astype(np.float32)
    stack = pixels.reshape(*pixels.shape[:2], -1)
    loaded = _choose_channels(source, stack, view, panel)
  elif view.channels == "all" and panel is None:
    loaded = images.read_every_channel(source)
  else:
    loaded = images.read_image(source, panel)
  warnings = loaded.warnings
  if view.channels == "merged":
    section = ConfigDict(dict(view.image))
    planes, found = preparation.merge_loaded(loaded, section)
    warnings += found
    names: tuple[str, ...] = ("nuclear", "membrane/cytoplasm")
  else:
    planes, names = loaded.stack, loaded.names
    if planes.size == 0 or not np.isfinite(planes).all():
      raise ValueError("found no pixels or pixels that are not finite")
  size_um = loaded.pixel_size_um
  if view.scale != 1:
    shape = (planes.shape[0] * view.scale, planes.shape[1] * view.scale)
    planes = resample.resample_image(planes, shape)
  size_um = size_um / view.scale if size_um else None
  return Viewed(planes, names, size_um, warnings)


def check_view(viewed: Viewed, teacher: Teacher) -> tuple[str, ...]:
  """Returns the image's warnings, and of a pixel size unlike the teacher's.

  Raises:
    ValueError: its channels are not the teacher's.
  """
  view = teacher.view
  num_channels = viewed.planes.shape[2]
  if num_channels != view.num_channels:
    raise ValueError(
      f"found {num_channels} channels, expected the teacher's "
      f"{view.num_channels}"
    )
  if viewed.names and view.names and viewed.names != view.names:
    raise ValueError(
      f"found channels {', '.join(viewed.names)}, expected the teacher's "
      f"{', '.join(view.names)}"
    )
  size_um, own_um = viewed.pixel_size_um, view.pixel_size_um
  if not size_um or not own_um or is_like(size_um, own_um):
    return viewed.warnings
  line = (
    f"found pixels of {size_um * view.scale:.3g} um, expected the teacher's "
    f"{own_um * view.scale:.3g} um: it knows textures by the pixel"
  )
  return (*viewed.warnings, line)


def is_like(size_um: float, other_um: float) -> bool:
  """Returns whether two pixel sizes show a texture alike."""
  return max(size_um, other_um) <= MAX_SIZE_RATIO * min(size_um, other_um)


def _choose_channels(
  source: ImageSource, stack: Stack, view: View, panel: Panel | None
) -> LoadedImage:
  """Chooses among the channels of a file that names none."""
  if view.channels == "all" and panel is None:
    return LoadedImage(stack, (), (), (), None)
  chosen = resolve_panel(panel, (), stack.shape[2], source.path)
  return LoadedImage(
    stack=np.ascontiguousarray(stack[..., list(chosen.channels)]),
    names=chosen.names,
    nuclear=chosen.nuclear,
    membrane=chosen.membrane,
    pixel_size_um=None,
  )
