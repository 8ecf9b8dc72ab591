"""Training records of labelled images, and of simulated tissue beside them."""

import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from ml_collections import ConfigDict

from dicexmbd_jax import chain
from dicexmbd_jax.finetuning import samples as samples_lib
from dicexmbd_jax.finetuning.samples import Sample
from dicexmbd_jax.image import preparation
from dicexmbd_jax.simulate import simulate_image
from dicexmbd_jax.train import dataset, patches, records
from dicexmbd_jax.types import Image, ImageRecord, ImageSource, LoadedImage

Path = pathlib.Path
Example = dict[str, Any]
# Patches are larger than crops, so that these may be turned and shifted.
CROPS_PER_PATCH = 1.7
MAX_PATCHES = 600  # Beyond these patches do not overlap.
SIMULATED_PX = 256  # As the first pass sees: one shape less is compiled.
MIN_SIMULATED, MAX_SIMULATED = 3, 24
NUM_JUDGING = 8  # One alone would tell more of itself than of the model.
_BACKGROUND = (0.0, 0.0, 1.0)  # The target of padding.


def show_image(sample: Sample, factor: float, config: ConfigDict) -> Image:
  """Returns an image as the network sees it.

  Args:
    sample: the image.
    factor: its magnification.
    config: the whole configuration.
  """
  size_um = sample.record.pixel_size_um * factor
  return preparation.to_network_grid(sample.record.image, size_um, config.image)


def write_own(
  folder: Path,
  samples: Sequence[Sample],
  trains: Mapping[str, Bool[np.ndarray, "y x"]],
  factor: float,
  config: ConfigDict,
) -> int:
  """Writes the records of the images that train; returns their number.

  Args:
    folder: of the dataset.
    samples: all images.
    trains: by image, where it may be trained on.
    factor: magnification of all images.
    config: the whole configuration; train.crop_px decides the patches' size.

  Raises:
    ValueError: nothing of what is known is left to train on.
    OSError: the folder cannot be written.
  """
  patch_px = find_patch_px(config)
  used = [sample for sample in samples if sample.name in trains]
  total_px = sum(sample.is_covered.size for sample in used)
  stride_px = patch_px // 2
  if total_px * factor**2 / stride_px**2 > MAX_PATCHES:
    stride_px = patch_px
  examples = [
    example
    for sample in used
    for example in cut_sample(
      sample, trains[sample.name], show_image(sample, factor, config),
      (patch_px, stride_px),
    )
  ]  # fmt: skip
  if not examples:
    raise ValueError(
      "found no labelled pixel in the images that train, expected some"
    )
  dataset.write_dataset(folder, {"train": examples}, patch_px, "Labelled.")
  return len(examples)


def find_patch_px(config: ConfigDict) -> int:
  """Returns the edge of patches for crops of config.train.crop_px."""
  return round(CROPS_PER_PATCH * config.train.crop_px)


def cut_sample(
  sample: Sample,
  is_used: Bool[np.ndarray, "y x"],
  image: Image,
  sizes_px: tuple[int, int],
) -> Iterator[Example]:
  """Yields the encoded patches of an image in which anything is known.

  Args:
    sample: the image and its labels.
    is_used: where it may be trained on.
    image: as the network sees it.
    sizes_px: edge of the patches, and from patch to patch.
  """
  patch_px, stride_px = sizes_px
  shape = image.shape[:2]
  target, known = samples_lib.make_sample_target(sample, shape, is_used)
  valid = np.ones((*shape, 1), np.uint8)
  for y, x in patches.plan_grid(shape, patch_px, stride_px):
    place = (y, x)
    part = known[y : y + patch_px, x : x + patch_px]
    if not part.any():
      continue
    yield records.encode_record(
      {
        "image": patches.cut_patch(image, place, patch_px),
        "target": patches.cut_patch(target, place, patch_px, _BACKGROUND),
        "valid": patches.cut_patch(valid, place, patch_px),
        "known": patches.cut_patch(known, place, patch_px, 1),
        "record_id": f"{sample.name}:{y}:{x}",
        "group": sample.name,
        "origin": place,
        "scale": sample.record.pixel_size_um,
      }
    )


def write_rehearsal(
  folder: Path,
  config: ConfigDict,
  kind: str,
  budget: tuple[float, int],
) -> None:
  """Writes records of simulated tissue.

  Training on it beside the labelled images keeps what the network could do.

  Args:
    folder: of the dataset.
    config: the whole configuration.
    kind: what is labelled, so that simulated labels mean the same.
    budget: seconds after which no further image is begun, and the seed.

  Raises:
    OSError: the folder cannot be written.
  """
  seconds, seed = budget
  deadline_s = time.monotonic() + seconds
  patch_px, size_px = find_patch_px(config), find_simulated_px(config)
  examples: list[Example] = []
  for index in range(MAX_SIMULATED):
    if index >= MIN_SIMULATED and time.monotonic() > deadline_s:
      break
    sample = simulate_sample((seed, index), size_px, kind, config)
    everywhere = np.ones(sample.is_covered.shape, bool)
    image = show_image(sample, 1.0, config)
    examples += cut_sample(
      sample, everywhere, image, (patch_px, max(patch_px // 2, 1))
    )
  dataset.write_dataset(folder, {"train": examples}, patch_px, "Simulated.")


def simulate_judging(config: ConfigDict, kind: str, seed: int) -> list[Sample]:
  """Returns simulated images that write_rehearsal never makes, to judge by.

  Args:
    config: the whole configuration.
    kind: what is labelled.
    seed: of the fine-tuning.
  """
  numbers = range(MAX_SIMULATED, MAX_SIMULATED + NUM_JUDGING)
  size_px = find_simulated_px(config)
  return [
    simulate_sample((seed, number), size_px, kind, config) for number in numbers
  ]


def find_simulated_px(config: ConfigDict) -> int:
  """Returns the edge of simulated images; small networks need no large ones."""
  return min(SIMULATED_PX, 2 * find_patch_px(config))


def simulate_sample(
  words: tuple[int, int], size_px: int, kind: str, config: ConfigDict
) -> Sample:
  """Returns one simulated image with its true labels.

  Args:
    words: the seed and the image's number; they alone decide what it shows.
    size_px: edge of the image.
    kind: what is labelled; nuclei come with those alone.
    config: the whole configuration.
  """
  simulated = simulate_image(np.random.default_rng(words), (size_px, size_px))
  name = f"simulated_{words[1]}"
  loaded = LoadedImage(
    stack=simulated.stack.astype(np.float32),
    names=simulated.names,
    nuclear=simulated.nuclear,
    membrane=simulated.membrane,
    pixel_size_um=1.0,
  )
  record = ImageRecord(ImageSource(name, Path(name)), loaded, 1.0)
  record = chain.merge_record(record, config.image)
  has_nuclei = kind == "nuclei"
  return Sample(
    record=record,
    cells=simulated.cells,
    nuclei=simulated.nuclei if has_nuclei else None,
    is_covered=np.ones(simulated.cells.shape, bool),
  )
