"""Two-channel images around nuclei that people drew in fluorescence images.

The nuclei and the dark gaps between them are real; the membrane channel, the
haze and the ions are drawn. Cells end where their membrane does: simulated and
many real tissues tile the plane, and a network that has seen nothing else takes
gaps for cytoplasm.
"""

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from dicexmbd_jax.edges import mark_edges
from dicexmbd_jax.types import Image, Labels

Field = Float32[np.ndarray, "y x"]

MEMBRANE_SHARE = 0.65  # Of the images; the others show nuclei alone.


def stain_nuclei(
  rng: np.random.Generator, nuclear: Field, nuclei: Labels
) -> tuple[Image, Labels]:
  """Draws an image with a membrane channel, and its cells.

  Args:
    rng: source of randomness.
    nuclear: grey levels of a nuclear stain, any range, 1 um per pixel.
    nuclei: of the same shape, 0 = none.

  Returns:
    Ion counts (y, x, 2), nuclear and membrane, and cells with the ids of their
    nuclei. In an image whose membrane channel is empty, a cell is its nucleus
    and up to one pixel around.

  Raises:
    ValueError: shapes that differ.
  """
  if nuclear.shape != nuclei.shape:
    raise ValueError(
      f"nuclei: found {nuclei.shape} px, expected {nuclear.shape} as the image "
      "has"
    )
  distance, nearest = measure_outside(nuclei)
  is_stained = rng.uniform() < MEMBRANE_SHARE
  growth = draw_growth(rng, int(nuclei.max(initial=0)), is_stained)
  cells = np.where(distance <= growth[nearest], nearest, 0).astype(np.int32)
  membrane = np.zeros(nuclei.shape, np.float32)
  if is_stained:
    membrane = stain_rims(rng, cells, distance, growth)
  channels = [stretch(nuclear.astype(np.float32)), membrane]
  image = np.stack([add_haze(rng, one) for one in channels], axis=-1)
  return draw_ions(rng, image), cells


def measure_outside(nuclei: Labels) -> tuple[Field, Labels]:
  """Returns each pixel's distance in px to its nearest nucleus, and which.

  Without nuclei every distance is infinite.
  """
  if not nuclei.any():
    return np.full(nuclei.shape, np.inf, np.float32), np.zeros_like(nuclei)
  distance, (y, x) = ndimage.distance_transform_edt(
    nuclei == 0, return_indices=True
  )
  return distance.astype(np.float32), nuclei[y, x]


def draw_growth(
  rng: np.random.Generator, number: int, is_stained: bool
) -> Field:
  """Returns how far each cell reaches beyond its nucleus, px; 0 for id 0.

  Where membranes are stained, 40 to 100 % of an image's cells have 1 to 3 px,
  about as wide as their neighbours'; the others have none.
  """
  growth = np.zeros(number + 1, np.float32)
  if not is_stained:
    growth[1:] = rng.integers(0, 2)
    return growth
  width = rng.uniform(1, 3) + rng.normal(0, 0.4, number)
  is_positive = rng.uniform(size=number) < rng.uniform(0.4, 1)
  growth[1:] = np.clip(width, 1, 3) * is_positive
  return growth


def stain_rims(
  rng: np.random.Generator, cells: Labels, distance: Field, growth: Field
) -> Field:
  """Returns the membrane's expected signal, 0 to about 1.

  Cells that reach beyond their nucleus have a rim of their own level
  (lognormal), brightest at its middle; some of it leaks over the nucleus, as
  membranes above and below it do, and every image has some glow.
  """
  level = rng.lognormal(0, 0.5, growth.shape) * (growth > 0)
  level[0] = 0
  leak = rng.uniform(0, 0.4)
  # Nuclei that touch have their membranes between them, too.
  is_rim = (cells > 0) & ((distance > 0) | mark_edges(cells))
  share = np.where(is_rim, 1, leak * (cells > 0))
  signal = (share * level[cells]).astype(np.float32)
  signal = ndimage.gaussian_filter(signal, rng.uniform(0.4, 0.9))
  return stretch(signal) * rng.uniform(0.6, 1) + rng.uniform(0, 0.08)


def stretch(values: Field) -> Field:
  """Brings the 1st to the 99.5th percentile to 0..1; 0 where they agree."""
  low, high = np.percentile(values, (1, 99.5))
  if high <= low:
    return np.zeros_like(values)
  return np.clip((values - low) / (high - low), 0, 1)


def add_haze(rng: np.random.Generator, signal: Field) -> Field:
  """Adds light from above and below the section: a wide blur of itself.

  (s + h G(s)) / (1 + h), with h up to 1.2 and a Gaussian G of 2 to 7 px.
  """
  strength, sigma = rng.uniform(0, 1.2), rng.uniform(2, 7)
  blurred = ndimage.gaussian_filter(signal, sigma)
  return (signal + strength * blurred) / (1 + strength)


def draw_ions(rng: np.random.Generator, image: Image) -> Image:
  """Draws counts; full signal is 2 to 100 ions, each channel its own."""
  lowest, highest = np.log((2, 100))
  ions = np.exp(rng.uniform(lowest, highest, image.shape[-1]))
  return rng.poisson(image * ions).astype(np.float32)
