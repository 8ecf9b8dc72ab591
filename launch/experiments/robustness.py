"""Scores a model on images that something is wrong with.

usage: python launch/experiments/robustness.py MODEL DATA SCORES

F1 at IoU 0.5 on the images that are reported (SCORES: where scores.sh
simulated its studies; the first two images of each), each changed in one way.
Prints a Markdown table, and how many cells are found in 500 x 500 px of noise
in two nuclear and four membrane markers.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import validation
from scipy import ndimage

from dicexmbd_jax.image import channels, preparation, resample
from dicexmbd_jax.masks import segment
from dicexmbd_jax.model import weights
from dicexmbd_jax.scores import match
from dicexmbd_jax.types import LoadedImage

Change = Callable[[LoadedImage, np.random.Generator], LoadedImage]

NOISE_COUNTS = (0.02, 0.2, 2.0)  # A pixel, on average.
NOISE_SHAPE = (500, 500)


def keep(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Changes nothing."""
  return image


def dim(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Keeps each ion with a chance of one in five."""
  counts = rng.binomial(np.rint(image.stack).astype(int), 0.2)
  return dataclasses.replace(image, stack=counts.astype(np.float32))


def heat(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Gives one pixel in a thousand of each marker 1,000 counts more."""
  hot = 1000 * (rng.uniform(size=image.stack.shape) < 1e-3)
  return dataclasses.replace(image, stack=image.stack + hot.astype(np.float32))


def add_background(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Adds ions where nothing is stained, up to 40 % of each marker's signal."""
  field = ndimage.gaussian_filter(rng.normal(size=image.stack.shape[:2]), 25)
  field = (field - field.min()) / np.ptp(field)
  signal = np.percentile(image.stack, 99.7, axis=(0, 1))
  ions = rng.poisson(0.4 * field[..., None] * signal)
  return dataclasses.replace(image, stack=image.stack + ions.astype(np.float32))


def add_dust(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Covers 3 % with discs of 5 to 15 px radius, three times as bright."""
  height, width, _ = image.stack.shape
  rows, columns = np.mgrid[:height, :width]
  covered = np.zeros((height, width), bool)
  for _ in range(round(height * width / 100**2)):
    y, x = rng.uniform((0, 0), (height, width))
    covered |= np.hypot(rows - y, columns - x) < rng.uniform(5, 15)
  signal = np.percentile(image.stack, 99.7, axis=(0, 1))
  ions = rng.poisson(3 * signal, image.stack.shape)
  stack = np.where(covered[..., None], ions, image.stack)
  return dataclasses.replace(image, stack=stack.astype(np.float32))


def blur(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Blurs by a standard deviation of 1.5 px, as out of focus."""
  stack = ndimage.gaussian_filter(image.stack, (1.5, 1.5, 0))
  return dataclasses.replace(image, stack=stack)


def drop_membrane(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Leaves the nuclear markers alone."""
  return dataclasses.replace(image, membrane=())


def keep_one_nuclear(
  image: LoadedImage, rng: np.random.Generator
) -> LoadedImage:
  """Leaves one nuclear marker, by chance."""
  chosen = int(rng.choice(image.nuclear))
  return dataclasses.replace(image, nuclear=(chosen,))


def keep_one_membrane(
  image: LoadedImage, rng: np.random.Generator
) -> LoadedImage:
  """Leaves one membrane/cytoplasm marker, by chance."""
  chosen = int(rng.choice(image.membrane))
  return dataclasses.replace(image, membrane=(chosen,))


def swap(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
  """Takes the nuclear markers for membrane and the other way round."""
  return dataclasses.replace(
    image, nuclear=image.membrane, membrane=image.nuclear
  )


def make_pixels(size_um: float) -> Change:
  """Returns the change to pixels of this size; the area stays."""

  def change(image: LoadedImage, rng: np.random.Generator) -> LoadedImage:
    shape = resample.resampled_shape(image.stack.shape[:2], 1.0, size_um)
    stack = resample.resample_image(image.stack, shape)
    return dataclasses.replace(image, stack=stack, pixel_size_um=size_um)

  return change


CHANGES: dict[str, Change] = {
  "as they are": keep,
  "pixels of 0.4 um": make_pixels(0.4),
  "pixels of 0.7 um": make_pixels(0.7),
  "pixels of 1.5 um": make_pixels(1.5),
  "a fifth of the counts": dim,
  "hot pixels, one in 1,000": heat,
  "uneven background, up to 40 %": add_background,
  "dust in all markers, on 3 %": add_dust,
  "blurred by 1.5 px": blur,
  "one nuclear marker": keep_one_nuclear,
  "one membrane marker": keep_one_membrane,
  "no membrane marker": drop_membrane,
  "the two groups swapped": swap,
}


def score(model, config, judged, change: Change) -> dict[str, float]:
  """Returns the mean F1 by source; the masks are on the images' own grid."""
  rng = np.random.default_rng(0)

  def prepare():
    for item in judged:
      image = change(validation.read_stack(item), rng)
      merged, _ = preparation.merge_loaded(image, config.image)
      size_um = image.pixel_size_um or 1.0
      yield item, preparation.to_network_grid(merged, size_um, config.image)

  found: dict[str, list[float]] = {}
  for item, probabilities in validation.load_network(model, config)(prepare()):
    pair = validation.find_cells(item, probabilities, config)
    f1 = match.score_f1(*pair, validation.IOU)
    found.setdefault(item.source, []).append(f1)
  return {source: float(np.mean(values)) for source, values in found.items()}


def count_noise(model, config) -> dict[float, int]:
  """Returns the cells found in fields without any, by counts a pixel."""
  rng = np.random.default_rng(0)

  def prepare():
    for counts in NOISE_COUNTS:
      stack = rng.poisson(counts, (*NOISE_SHAPE, 6)).astype(np.float32)
      groups = (0, 1), (2, 3, 4, 5)
      image, _ = channels.merge_channels(stack, *groups, config.image)
      yield counts, preparation.to_network_grid(image, 1.0, config.image)

  return {
    counts: int(segment.segment_seen(found, config, NOISE_SHAPE).cells.max())
    for counts, found in validation.load_network(model, config)(prepare())
  }


def main(folder, data, scores) -> None:
  """Prints a row for each change, and the cells of empty fields."""
  model, config = weights.read_model(folder)
  judged = [
    item
    for item in validation.list_reported(data, scores)
    if item.source == "spleen" or item.path.stem in ("ROI001", "ROI002")
  ]
  print("| the images are | spleen 28, 30 | simulated (8) |\n|---|---|---|")
  for name, change in CHANGES.items():
    by_source = score(model, config, judged, change)
    print(
      f"| {name} | {by_source['spleen']:.3f} | {by_source['simulated']:.3f} |",
      flush=True,
    )
  for counts, cells in count_noise(model, config).items():
    print(f"cells in a field without any, {counts} counts a pixel: {cells}")


if __name__ == "__main__":
  main(*(pathlib.Path(word) for word in sys.argv[1:]))
