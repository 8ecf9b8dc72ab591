"""From one image and its teacher to its records: no state, no other image."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_builders import teacher_files
from data_builders.jobs import Item, Job
from dicexmbd_jax.image import preparation, resample
from dicexmbd_jax.io import images, probabilities, source
from dicexmbd_jax.masks import class_order, grid
from dicexmbd_jax.train import patches, records, targets
from dicexmbd_jax.types import Image, ImageSource, Labels, LoadedImage

Example = dict[str, Any]
Shape = tuple[int, int]
_BACKGROUND = (0.0, 0.0, 1.0)  # The target of padding.


@dataclasses.dataclass(frozen=True)
class Prepared:
  """One image on the network's grid, whole.

  Attributes:
    images: float32 (y, x, 2), 0..255: under its panel, and under those drawn
      from it, see draw_panels.
    target: float32 (y, x, 3), 0..1.
    known: uint8 (y, x, 3), 0 where the teacher does not tell a class.
    scale: um of a source pixel per um of a network pixel.
    map_scale: teacher pixels per image pixel: 1 or 2.
  """

  images: list[Image]
  target: targets.Target
  known: targets.Known
  scale: float
  map_scale: int


def prepare_item(item: Item, job: Job) -> Prepared:
  """Reads image and teacher and brings both to the network's grid.

  Raises:
    ValueError: a file that cannot be used; one line that names it.
  """
  pair = item.pair
  config = ConfigDict(dict(job.image))
  loaded = images.read_image(pair.image, job.panel)
  merged = [
    prepare_image(one, job, pair.image)
    for one in draw_panels(loaded, pair.stem, job)
  ]
  # A drawn marker may be empty here, and no cell is found without nuclei.
  merged = merged[:1] + [image for image in merged[1:] if image[..., 0].any()]
  source_shape, shape = loaded.stack.shape[:2], merged[0].shape[:2]
  map_scale = 1
  known = np.ones((*shape, 3), np.uint8)
  if job.kind == "maps":
    target, map_scale = read_map_target(pair, source_shape, shape)
  elif job.kind == "masks":
    target = read_mask_target(pair, source_shape, shape, job)
  else:
    nuclei = read_mask(pair.teacher, source_shape, shape)
    target, known = targets.make_partial_target(nuclei)
  size_um = choose_pixel_size_um(loaded, job)
  scale = size_um / float(config.pixel_size_um)
  return Prepared(merged, target, known, scale, map_scale)


def draw_panels(loaded: LoadedImage, stem: str, job: Job) -> list[LoadedImage]:
  """Returns the image under its own panel and under parts of it.

  Another study has other and often fewer markers: a network that has seen the
  same cells under many panels depends on none.

  Args:
    loaded: the image.
    stem: its name; with the seed it decides which markers are drawn.
    job: records.num_panels is how many are wanted.

  Returns:
    At most num_panels; fewer where the same markers are drawn again, as with
    groups of one marker.
  """
  wanted = job.records["num_panels"]
  digest = hashlib.sha256(f"{job.records['seed']}:{stem}".encode()).digest()
  rng = np.random.default_rng(list(digest))
  groups = [(tuple(loaded.nuclear), tuple(loaded.membrane))]
  for _ in range(wanted - 1):
    nuclear, membrane = (draw_markers(rng, group) for group in groups[0])
    groups.append((nuclear, membrane))
  return [
    dataclasses.replace(loaded, nuclear=nuclear, membrane=membrane)
    for nuclear, membrane in dict.fromkeys(groups)
  ]


def draw_markers(
  rng: np.random.Generator, group: tuple[int, ...]
) -> tuple[int, ...]:
  """Draws at least one of a group's markers, few more often than many."""
  if not group:
    return group
  number = max(math.ceil(len(group) * rng.uniform() ** 2), 1)
  return tuple(sorted(rng.choice(group, number, replace=False).tolist()))


def prepare_image(loaded: LoadedImage, job: Job, file: ImageSource) -> Image:
  """Returns what the predictor feeds to the network for this image.

  Raises:
    ValueError: counts that cannot be used; names the file.
  """
  config = ConfigDict(dict(job.image))
  try:
    merged, _ = preparation.merge_loaded(loaded, config)
    size_um = choose_pixel_size_um(loaded, job)
    return preparation.to_network_grid(merged, size_um, config)
  except ValueError as error:
    raise ValueError(f"{file.path}: {error}") from error


def choose_pixel_size_um(loaded: LoadedImage, job: Job) -> float:
  """Returns the pixel size, as the predictor chooses it."""
  return job.pixel_size_um or loaded.pixel_size_um or 1.0


def read_map_target(
  pair, source_shape: Shape, shape: Shape
) -> tuple[targets.Target, int]:
  """Reads probability maps and averages them over the network's pixels.

  A doubt about the order of their classes is told.
  """
  maps = probabilities.read_three_maps(pair.teacher)
  for doubt in class_order.find_doubt(maps):
    logging.warning("%s: %s", pair.teacher.path, doubt)
  map_scale = teacher_files.find_map_scale(
    maps.shape[:2], source_shape, pair.teacher.path
  )
  target = resample.resample_image(maps, shape)
  # Weighted means of numbers up to 1 may round to more.
  return np.clip(target, 0, 1), map_scale


def read_mask_target(
  pair, source_shape: Shape, shape: Shape, job: Job
) -> targets.Target:
  """Reads masks, and makes the target from them on the network's grid."""
  files = (file for file in (pair.teacher, pair.nuclei) if file is not None)
  masks = [read_mask(file, source_shape, shape) for file in files]
  return targets.make_target(masks[0], job.records["rim_fraction"], *masks[1:])


def read_mask(file: ImageSource, source_shape: Shape, shape: Shape) -> Labels:
  """Reads one mask, on the network's grid.

  Raises:
    ValueError: a mask that cannot be read or is not as large as its image.
  """
  mask = teacher_files.read_mask(file)
  teacher_files.check_mask_size(mask.shape, source_shape, file.path)
  return grid.sample_labels(mask, shape)


def cut_records(
  prepared: Prepared, item: Item, job: Job
) -> Iterator[tuple[str, Example]]:
  """Cuts a prepared image into encoded records.

  Yields:
    (key, example) of each patch, as TFDS takes them; the key is the record's
    id. The same files and job give the same records anywhere.
  """
  shape = prepared.images[0].shape[:2]
  patch_px = job.records["patch_px"]
  hashes = hash_inputs(item)
  valid = np.ones((*shape, 1), np.uint8)
  places = plan_origins(shape, item.pair.stem, job)
  for (i, image), (y, x) in itertools.product(
    enumerate(prepared.images), places
  ):
    drawn = f"+{i}" if i else ""  # As the image's own panel has none.
    name = f"{item.pair.stem}:{y}:{x}{drawn}"
    record = {
      "image": patches.cut_patch(image, (y, x), patch_px),
      "target": patches.cut_patch(
        prepared.target, (y, x), patch_px, _BACKGROUND
      ),
      "valid": patches.cut_patch(valid, (y, x), patch_px),
      "known": patches.cut_patch(prepared.known, (y, x), patch_px, 1),
      "record_id": name,
      "source": describe_file(item.pair.image),
      "group": item.group,
      "origin": (y, x),
      "scale": prepared.scale,
      "config_sha256": job.config_sha256,
      **hashes,
    }
    yield name, records.encode_record(record)


def plan_origins(shape: Shape, stem: str, job: Job) -> list[patches.Origin]:
  """Returns where the patches of an image lie, on the network's grid."""
  cut = job.records
  if cut["cut"] == "grid":
    return patches.plan_grid(shape, cut["patch_px"], cut["stride_px"])
  words = (cut["seed"], stem)
  return patches.draw_origins(shape, cut["patch_px"], cut["num_random"], words)


def hash_inputs(item: Item) -> dict[str, str]:
  """Hashes the image's file and the teacher's.

  Raises:
    ValueError: a file cannot be read.
  """
  return {
    "image_sha256": source.hash_source(item.pair.image),
    "target_sha256": _hash_files([item.pair.teacher, item.pair.nuclei]),
  }


def describe_file(file: ImageSource) -> str:
  """Returns a file's name, with zip member and acquisition; no folders."""
  parts = [file.path.name]
  if file.member is not None:
    parts.append(file.member)
  if file.acquisition is not None:
    parts.append(f"acquisition {file.acquisition}")
  return ", ".join(parts)


def _hash_files(files: Sequence[ImageSource | None]) -> str:
  return "+".join(source.hash_source(file) for file in files if file)
