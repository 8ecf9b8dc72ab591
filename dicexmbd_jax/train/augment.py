"""Random changes of training patches, on the device, inside jit.

Image and target move together; intensities change on the image alone. Every
strength of zero gives the identity of its step. All steps take one example
(h, w, c) and its key; `augment_batch` maps them over the batch.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from dicexmbd_jax.sections import SWITCH, Section, number

Strength = Annotated[float, number(0)]
Share = Annotated[float, number(0, 1)]

_ALL_KNOWN = 0.999


@dataclasses.dataclass(frozen=True)
class Strengths(Section):
  """How much each step may change; the paper's steps first.

  Attributes:
    contrast: each channel's contrast is scaled by U[1 - c, 1 + c].
    intensity: the image's intensity is scaled by U[1 - i, 1 + i].
    rotation_deg: angle drawn from U[-r, r] degrees.
    interpolated: probability that an example is turned by any such angle and
      zoomed; else the angle is cut to quarter turns and the zoom left out,
      since interpolation smooths the ions' counting noise, and a network that
      sees smoothed images only does worse on real ones.
    flip: whether rows and columns are mirrored, each with probability 1/2.
    noise: standard deviation of the Gaussian noise is drawn from U[0, n],
      grey levels of 0..255.
    log_scale: zoom is exp(U[-s, s]), as other tissues and pixel sizes have.
    blur_px: sigma of the Gaussian blur is drawn from U[0, b], pixels.
    gamma: each channel's grey curve has the exponent exp(U[-g, g]).
    channel_dropout: probability that the membrane channel is lost: nothing is
      left of it but the noise that all channels get.
    nuclear_dropout: probability that the nuclear channel is lost, of those
      examples that have kept their membrane channel.
    poisson: counts are drawn anew: each pixel from a Poisson distribution
      around its value, so scaled that at full signal (255) the standard
      deviation is a share U[0, p] of it: p = 0.1 is 100 counts or more.
    shift: the crop lies anywhere in the patch, up to this share of the way
      from its centre to where the (unturned) crop meets the patch's edge.
    background: each channel gets a smooth background of up to U[0, b] times
      the full signal, as from autofluorescence or uneven staining.
    dim: half of the channels are multiplied by a smooth field, nowhere under
      exp(-d), as where dust or few bright cells take the range, or staining is
      uneven.
    empty: probability that an example becomes a field without cells: noise of
      single ions, and a target that is background alone.
  """

  NAME = "train.augment"

  contrast: Strength = 0.0
  intensity: Strength = 0.0
  rotation_deg: Strength = 0.0
  interpolated: Share = 1.0
  flip: Annotated[bool, SWITCH] = False
  noise: Strength = 0.0
  log_scale: Strength = 0.0
  blur_px: Strength = 0.0
  gamma: Strength = 0.0
  channel_dropout: Share = 0.0
  nuclear_dropout: Share = 0.0
  poisson: Strength = 0.0
  shift: Share = 0.0
  background: Strength = 0.0
  dim: Strength = 0.0
  empty: Share = 0.0


Patches = tuple[
  Float[Array, "b h w c"],  # image
  Float[Array, "b h w k"],  # target
  Float[Array, "b h w 1"],  # valid
  Float[Array, "b h w k"],  # known
]


def augment_batch(
  key: Key[Array, ""],
  patches: Patches,
  strengths: Strengths,
  crop_px: int,
) -> Patches:
  """Returns (image, target, valid, known) of crop_px x crop_px, each changed.

  Args:
    key: one key for the batch; example i uses the i-th split of it.
    patches: image, values 0..255, larger than the crop by what the rotation
      needs; target, which moves with it; valid, 1 where there are pixels;
      known, 1 where the target is. Where a pixel comes to lie between known
      and unknown ones, it is unknown.
    strengths: how much each step may change.
    crop_px: edge of the result, cut around the centre where nothing shifts.
  """
  sizes = np.cumsum([part.shape[-1] for part in patches])[:-1].tolist()

  def augment_one(key, *patch):
    key_move, key_change = jax.random.split(key)
    # One gather for all channels: gathers are what costs here.
    fields = jnp.concatenate(patch, -1)
    fields = move(key_move, fields, strengths, crop_px)
    image, target, valid, known = jnp.split(fields, sizes, -1)
    # Rounding may leave a little less than 1 of what is known all around.
    known = (known > _ALL_KNOWN).astype(known.dtype)
    if strengths.empty:
      image, target, known = empty_some(
        key_change, image, target, known, strengths.empty
      )
    image = change_intensities(key_change, image, strengths)
    return image, target, valid, known

  keys = jax.random.split(key, patches[0].shape[0])
  return jax.vmap(augment_one)(keys, *patches)


def move(key, fields: Float[Array, "h w c"], strengths, crop_px: int):
  """Rotates, zooms, mirrors and crops all channels by one bilinear gather.

  What comes from outside the patch is zero, in `valid` too.
  """
  height, width, _ = fields.shape
  key_angle, key_zoom, key_flip, key_free, key_shift = jax.random.split(key, 5)
  is_free = jax.random.bernoulli(key_free, strengths.interpolated)
  degrees = strengths.rotation_deg * jax.random.uniform(
    key_angle, (), minval=-1
  )
  log_zoom = strengths.log_scale * jax.random.uniform(key_zoom, (), minval=-1)
  quarters = 90 * jnp.round(degrees / 90)
  angle = jnp.deg2rad(jnp.where(is_free, degrees, quarters))
  zoom = jnp.exp(jnp.where(is_free, log_zoom, 0))
  flips = jnp.ones(2)
  if strengths.flip:
    flips = 1.0 - 2.0 * jax.random.bernoulli(key_flip, 0.5, (2,))
  steps = (jnp.arange(crop_px) - (crop_px - 1) / 2) / zoom
  y, x = steps[:, None] * flips[0], steps[None, :] * flips[1]
  slack = jnp.array([height - crop_px, width - crop_px]) / 2
  # Whole pixels: quarter turns then need no interpolation.
  shift = jnp.trunc(
    strengths.shift * slack * jax.random.uniform(key_shift, (2,), minval=-1)
  )
  # The crop's pixels lie on the patch's, where their edges differ by an odd
  # number too.
  middle = [edge - 1 - (edge - crop_px) % 2 for edge in (height, width)]
  rows = middle[0] / 2 + shift[0] + y * jnp.cos(angle) - x * jnp.sin(angle)
  columns = middle[1] / 2 + shift[1] + y * jnp.sin(angle) + x * jnp.cos(angle)
  return sample_bilinear(fields, rows, columns)


def sample_bilinear(fields, rows, columns):
  """Returns `fields` at real-valued positions; zero outside."""
  height, width, _ = fields.shape
  top, left = jnp.floor(rows), jnp.floor(columns)
  total = 0.0
  for dy in (0, 1):
    for dx in (0, 1):
      y, x = top + dy, left + dx
      weight = (1 - jnp.abs(rows - y)) * (1 - jnp.abs(columns - x))
      inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
      y = jnp.clip(y, 0, height - 1).astype(jnp.int32)
      x = jnp.clip(x, 0, width - 1).astype(jnp.int32)
      total = total + jnp.where(inside, weight, 0)[..., None] * fields[y, x]
  return total


def empty_some(
  key,
  image: Float[Array, "h w c"],
  target: Float[Array, "h w k"],
  known: Float[Array, "h w k"],
  share: float,
):
  """Puts noise in the place of some examples; see Strengths.empty.

  All of their target is known.

  The noise looks as preprocessing leaves it, which stretches each marker to its
  own range: single ions of up to six markers, of 0.003 to 3 counts a pixel.
  """
  keys = jax.random.split(jax.random.fold_in(key, 1), 4)
  num = image.shape[-1]
  counts = jnp.exp(
    jax.random.uniform(
      keys[0], (num,), minval=jnp.log(3e-3), maxval=jnp.log(3.0)
    )
  )
  markers = jax.random.randint(keys[1], (num,), 1, 7)
  # About the 99.7th percentile of a marker's counts, where they are cut.
  highest = jnp.maximum(jnp.round(counts + 2.75 * jnp.sqrt(counts)), 1)
  ions = draw_few_ions(keys[2], markers * counts, image.shape)
  noise = jnp.minimum(255 * ions / (markers * highest), 255)
  noise = noise * (image.max((0, 1)) > 0)  # A missing channel stays missing.
  background = jax.nn.one_hot(target.shape[-1] - 1, target.shape[-1])
  is_empty = jax.random.bernoulli(keys[3], share)
  return (
    jnp.where(is_empty, noise, image),
    jnp.where(is_empty, background, target),
    jnp.where(is_empty, 1, known),
  )


def draw_few_ions(key, rates: Float[Array, " c"], shape: tuple[int, ...]):
  """Draws from Poisson distributions of rates up to 20, one for each channel.

  By their inverse, which is five times as fast as jax.random.poisson.
  """
  steps = jax.scipy.stats.poisson.cdf(jnp.arange(64)[:, None], rates)
  chances = jax.random.uniform(key, shape)
  find = jax.vmap(jnp.searchsorted, in_axes=(1, -1), out_axes=-1)
  return find(steps, chances).astype(jnp.float32)


def change_intensities(key, image: Float[Array, "h w c"], strengths):
  """Changes grey curve, contrast, brightness, sharpness; adds noise.

  The result is clipped to 0..255, the range of the network's input.
  """
  num = image.shape[-1]
  keys = jax.random.split(key, 9)
  # Asked first: gamma and noise lift the zeros of a missing channel.
  is_lit = image.max((0, 1)) > 0

  def draw(i, shape=()):
    return jax.random.uniform(keys[i], shape, minval=-1)

  if strengths.gamma:
    exponent = jnp.exp(strengths.gamma * draw(0, (num,)))
    image = 255 * (jnp.maximum(image, 1e-6) / 255) ** exponent
  if strengths.blur_px:
    image = blur(image, strengths.blur_px * jax.random.uniform(keys[1]))
  if strengths.poisson:
    image = draw_counts(keys[7], image, strengths.poisson)
  if strengths.background:
    image = add_background(key, image, is_lit, strengths.background)
  mean = image.mean((0, 1))
  image = mean + (image - mean) * (1 + strengths.contrast * draw(2, (num,)))
  image = image * (1 + strengths.intensity * draw(3, (num,)))
  if strengths.channel_dropout:
    lost = jax.random.bernoulli(keys[4], strengths.channel_dropout)
    image = image.at[..., 1:].multiply(1.0 - lost)
    is_lit = is_lit.at[1:].set(is_lit[1:] & ~lost)
  if strengths.nuclear_dropout:
    lost = jax.random.bernoulli(keys[8], strengths.nuclear_dropout)
    lost &= is_lit[1:].any()
    image = image.at[..., :1].multiply(1.0 - lost)
  sigma = strengths.noise * jax.random.uniform(keys[5])
  image = image + sigma * jax.random.normal(keys[6], image.shape)
  if strengths.dim:
    image = dim(key, image, strengths.dim)
  return jnp.clip(image, 0, 255)


def add_background(
  key, image: Float[Array, "h w c"], is_lit: Bool[Array, " c"], highest: float
):
  """Adds a smooth field to each lit channel; see Strengths.background.

  The sum is scaled back to 0..255, as preprocessing would. A channel that is
  not lit, a missing one, stays as it is.
  """
  key_level, key_field = jax.random.split(jax.random.fold_in(key, 2))
  level = highest * jax.random.uniform(key_level, image.shape[-1:])
  level = level * is_lit
  field = draw_smooth(key_field, image.shape)
  return (image + 255 * level * field) / (1 + level)


def dim(key, image: Float[Array, "h w c"], strongest: float):
  """Multiplies half of the channels by a smooth field; see Strengths.dim.

  Signal and noise alike: what is dimmed by the stretch of the range, not by
  fewer ions. Some channels are dimmed evenly, others not.
  """
  keys = jax.random.split(jax.random.fold_in(key, 3), 3)
  exponent = jax.random.uniform(keys[0], image.shape[-1:], minval=-1)
  exponent = strongest * jnp.maximum(exponent, 0)  # Half stay as they are.
  unevenness = jax.random.uniform(keys[1], image.shape[-1:])
  field = draw_smooth(keys[2], image.shape)
  return image * jnp.exp(-exponent * (1 - unevenness * field))


def draw_smooth(key, shape: tuple[int, ...]) -> Float[Array, "h w c"]:
  """Returns values of 0..1 that change over a quarter of the image."""
  corners = jax.random.uniform(key, (4, 4, shape[-1]))
  return jax.image.resize(corners, shape, "linear")


def draw_counts(key, image: Float[Array, "h w c"], highest: float):
  """Draws each pixel's ions anew; see Strengths.poisson."""
  key_scale, key_ions = jax.random.split(key)
  # At least one in a thousand: without noise there would be no end of ions.
  share = jnp.maximum(highest * jax.random.uniform(key_scale), 1e-3)
  ions_per_level = 1 / (255 * share**2)
  rate = jnp.maximum(image, 0) * ions_per_level
  return jax.random.poisson(key_ions, rate).astype(image.dtype) / ions_per_level


def blur(image: Float[Array, "h w c"], sigma_px, radius_px: int = 3):
  """Gaussian filter with a 7-pixel window and repeated border pixels."""
  offsets = jnp.arange(-radius_px, radius_px + 1)
  window = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma_px, 1e-3)) ** 2)
  window = window / window.sum()
  pad = (radius_px, radius_px)
  padded = jnp.pad(image, (pad, (0, 0), (0, 0)), mode="edge")
  height, width, _ = image.shape
  starts = range(2 * radius_px + 1)
  image = jnp.stack([window[i] * padded[i : i + height] for i in starts]).sum(0)
  padded = jnp.pad(image, ((0, 0), pad, (0, 0)), mode="edge")
  return jnp.stack([window[i] * padded[:, i : i + width] for i in starts]).sum(
    0
  )
