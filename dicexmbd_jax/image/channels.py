"""From the markers' counts to the two channels that the network sees.

The same function serves training and prediction. Statistics are taken over
the whole image, never over a tile of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dicexmbd_jax import markers, storage
from dicexmbd_jax.image import normalise
from dicexmbd_jax.image.normalise import Channel
from dicexmbd_jax.types import Image, Stack

Warnings = tuple[str, ...]

# Counts per pixel. Stained nuclei reach 20 and more in all the real images at
# hand, and single ions of background 5: below, noise looks like signal.
WEAK_COUNTS = 5.0
_NUM_SHOWN = 5  # Markers in a warning.


def check_stack(stack: Stack, names: Sequence[str] = ()) -> None:
  """Raises if a stack holds anything but finite counts of zero or more.

  Args:
    stack: counts, float32 (y, x, m).
    names: the m markers' names for the message; their indices if left out.

  Raises:
    ValueError: no pixels, or NaN, infinite or negative values; names the
      first such marker and says how many of its pixels are bad.
  """
  if stack.size == 0:
    raise ValueError(
      f"found a stack of shape {stack.shape}, "
      "expected at least one pixel and one channel"
    )
  # NaN fails both comparisons; no temporary array where all is well.
  if stack.min() >= 0 and stack.max() < np.inf:
    return
  for index in range(stack.shape[-1]):
    _check_channel(stack[..., index], _name_marker(index, names))


def clip_negative(
  stack: Stack, names: Sequence[str] = ()
) -> tuple[Stack, Warnings]:
  """Makes values below zero zeros, as compensation leaves them.

  Args:
    stack: float32 (y, x, m); NaN and infinite values stay.
    names: the m markers' names for the warning; their indices if left out.

  Returns:
    The stack, the same one where there is nothing to do, and a warning that
    names the markers.
  """
  if stack.min(initial=0) >= 0:  # Not so where there is NaN.
    return stack, ()
  parts = list(storage.cut_strips(stack.shape, 12))
  has_negative = np.zeros(stack.shape[-1], bool)
  for counts in map(stack.__getitem__, parts):
    has_negative |= ((counts < 0) & (counts > -np.inf)).any((0, 1))
  found = np.flatnonzero(has_negative)
  if not found.size:
    return stack, ()
  planes = storage.allocate(
    (stack.shape[-1], *stack.shape[:2]), np.float32, storage.STACK_BYTES
  )
  clipped = np.moveaxis(planes, 0, -1)
  for part in parts:
    counts = stack[part]
    is_negative = (counts < 0) & (counts > -np.inf)
    clipped[part] = np.where(is_negative, np.float32(0), counts)
  shown = ", ".join(_name_marker(index, names) for index in found[:_NUM_SHOWN])
  more = f" and {len(found) - _NUM_SHOWN} more" * (len(found) > _NUM_SHOWN)
  line = (
    f"values below zero count as zeros in the two channels ({shown}{more}); "
    "the tables have them as they are"
  )
  return clipped, (line,)


def merge_channels(
  stack: Stack,
  nuclear: Sequence[int],
  membrane: Sequence[int],
  config: Any,
  names: Sequence[str] = (),
) -> tuple[Image, Warnings]:
  """Makes the two-channel image of one stack.

  Args:
    stack: counts, float32 (y, x, m), as check_stack lets pass.
    nuclear: indices of the nuclear markers.
    membrane: indices of the membrane/cytoplasm markers; a marker may be in
      both groups. None: that channel is zeros, and a warning says so.
    config: the config's section `image`: preset, hot_pixel_counts,
      clip_percentile.
    names: the m markers' names for the warnings; their indices if left out.

  Returns:
    The image, float32 (y, x, 2) in 0..255, and warnings, one line each. A
    marker that is empty or constant, also one that becomes so by clipping,
    counts as zeros in its group and is named in a warning.

  Raises:
    ValueError: no nuclear marker.
  """
  merge_group = MERGES[config.preset]
  if not nuclear:
    raise ValueError("nuclear: found no marker, expected at least one")
  image = storage.allocate((*stack.shape[:2], 2), np.float32)
  warnings = []
  groups = ("nuclear", nuclear), ("membrane", membrane)
  for place, (group, indices) in enumerate(groups):
    if not indices:
      warnings.append(
        f"no {group} marker: where cells end is guessed from the nuclei"
      )
      continue
    image[..., place], dim = merge_group(stack, indices, config)
    warnings += [
      f"{group} marker {_name_marker(index, names)} is empty or constant "
      "and counts as zeros"
      for index in dim
    ]
  return image, tuple(warnings)


def find_weak_groups(
  stack: Stack,
  nuclear: Sequence[int],
  membrane: Sequence[int],
  clip_percentile: float,
) -> Warnings:
  """Names the groups whose markers all stay below WEAK_COUNTS.

  Such a group is stretched to 0..255 like any other, so that its noise looks
  like signal. Empty groups are not named: merge_channels does that; nor are
  fractions of 0..1, which are no counts.

  Args:
    stack: counts, float32 (y, x, m).
    nuclear: indices of the nuclear markers.
    membrane: indices of the membrane/cytoplasm markers.
    clip_percentile: a marker is as strong as this percentile of its counts.

  Returns:
    One line per weak group.
  """
  lines = []
  for group, indices in (("nuclear", nuclear), ("membrane", membrane)):
    strongest = 0.0
    for index in indices:
      channel = stack[..., index]
      found = float(normalise.find_percentile(channel, clip_percentile))
      strongest = max(strongest, found)
      if strongest >= WEAK_COUNTS:
        break
    if not 0 < strongest < WEAK_COUNTS:
      continue
    is_counts = strongest > 1 or all(
      np.array_equal(part[..., index], np.rint(part[..., index]))
      for index in indices
      for part in map(stack.__getitem__, storage.cut_strips(stack.shape, 8))
    )
    if is_counts:
      lines.append(
        f"{group} signal is weak: no marker above {strongest:.1f} counts "
        f"({clip_percentile:g}th percentile); what is found may be noise"
      )
  return tuple(lines)


def find_exchanged_groups(
  names: Sequence[str], nuclear: Sequence[int], membrane: Sequence[int]
) -> Warnings:
  """Says where the panel seems to have taken one group for the other.

  Told by the markers' names, since a network that is shown rings for nuclei
  finds cells in them as well.

  Args:
    names: the markers' names.
    nuclear: indices of the nuclear markers.
    membrane: indices of the membrane/cytoplasm markers.

  Returns:
    One line where DNA or a histone is in the membrane/cytoplasm group alone and
    the nuclear group has nothing of that kind; else none.
  """
  stains = {i for i, name in enumerate(names) if markers.is_nuclear_stain(name)}
  strays = [names[i] for i in membrane if i in stains]
  if not strays or stains.intersection(nuclear):
    return ()
  return (
    f"the membrane/cytoplasm group has {', '.join(strays)}, and nothing of the "
    f"kind is in the nuclear one ({', '.join(names[i] for i in nuclear)}): "
    "are the groups exchanged?",
  )


def _merge_as_paper(
  stack: Stack, indices: Sequence[int], config: Any
) -> tuple[Channel, list[int]]:
  """Normalises each marker, then averages; also says which are zeros."""
  total = storage.allocate(stack.shape[:2], np.float32)
  dim = []
  for index in indices:
    channel = _normalise(
      np.ascontiguousarray(stack[..., index]),
      normalise.remove_hot_pixels_mean,
      config,
    )
    if not channel.any():
      dim.append(index)
    total += channel
  total /= np.float32(len(indices))
  return total, dim


def _merge_as_reference(
  stack: Stack, indices: Sequence[int], config: Any
) -> tuple[Channel, list[int]]:
  """Sums raw counts, then normalises the sum and cuts it to whole numbers."""
  total = storage.allocate(stack.shape[:2], np.float32)
  dim = []
  for index in indices:
    counts = stack[..., index]
    if counts.min() == counts.max():
      dim.append(index)
    total += counts
  channel = _normalise(total, normalise.remove_hot_pixels_max, config)
  # A sum without contrast says more than its single markers.
  dim = dim if channel.any() else list(indices)
  return np.floor(channel, out=channel), dim


MERGES = {"paper": _merge_as_paper, "reference": _merge_as_reference}


def _normalise(
  channel: Channel, remove_hot_pixels: Callable, config: Any
) -> Channel:
  channel = remove_hot_pixels(channel, config.hot_pixel_counts)
  channel = normalise.clip_percentile(channel, config.clip_percentile)
  return normalise.scale_min_max(channel)


def _check_channel(channel: Channel, name: str) -> None:
  counts = dict.fromkeys(("NaN", "infinite", "negative"), 0)
  for part in map(channel.__getitem__, storage.cut_strips(channel.shape, 8)):
    counts["NaN"] += int(np.count_nonzero(np.isnan(part)))
    counts["infinite"] += int(np.count_nonzero(np.isinf(part)))
    counts["negative"] += int(np.count_nonzero(part < 0))
  found = [f"{count} {kind}" for kind, count in counts.items() if count]
  is_clear = found and len(found) == 1 and counts["negative"]
  advice = ", or --config.image.negative=clip" if is_clear else ""
  if found:
    raise ValueError(
      f"marker {name}: found {' and '.join(found)} of {channel.size} pixels, "
      f"expected finite counts >= 0{advice}"
    )


def _name_marker(index: int, names: Sequence[str]) -> str:
  return names[index] if len(names) else str(index)
