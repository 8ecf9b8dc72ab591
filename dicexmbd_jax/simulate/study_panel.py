"""Which channels a simulated study has."""

import dataclasses

import numpy as np

from dicexmbd_jax.simulate.antibodies import DNA, GROUPS, Marker

MIN_CHANNELS = 30
MAX_ANTIBODIES = 34  # There are only so many metals.
# (channel, mean counts per pixel); gas, oxide and background channels.
JUNK = (
  ("80ArAr", 4100.0), ("131Xe", 110.0), ("134Xe", 58.0), ("190BCKG", 0.4),
  ("127I", 26.0), ("138Ba", 0.7), ("202Hg", 0.5), ("208Pb", 0.2),
  ("209Bi", 0.03),
)  # fmt: skip
# Lanthanides that carry the antibodies.
METALS = tuple(
  f"{mass}{symbol}"
  for symbol, masses in {
    "Pr": (141,), "Nd": (142, 143, 144, 145, 146, 148, 150),
    "Sm": (147, 149, 152, 154), "Eu": (151, 153),
    "Gd": (155, 156, 158, 160), "Tb": (159,), "Dy": (161, 162, 163, 164),
    "Ho": (165,), "Er": (166, 167, 168, 170), "Tm": (169,),
    "Yb": (171, 172, 173, 174, 176), "Lu": (175,),
  }.items()
  for mass in masses
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Channel:
  """One plane of the stack.

  Attributes:
    metal: mass and element, as in "191Ir".
    marker: what it shows.
    is_kept: 1 in the panel's column keep.
    is_nuclear: 1 in the panel's column nuclear.
    is_membrane: 1 in the panel's column membrane_cytoplasm.
  """

  metal: str
  marker: Marker
  is_kept: bool
  is_nuclear: bool
  is_membrane: bool

  @property
  def mass(self) -> int:
    """Mass number of the metal."""
    return int("".join(c for c in self.metal if c.isdigit()))


def draw_channels(rng: np.random.Generator) -> tuple[Channel, ...]:
  """Draws a study's panel: 30 to 45 channels in order of mass.

  Both DNA channels and CD45 are always there; the numbers of markers of each
  group, their metals, their brightness and their use for segmentation differ
  between studies.
  """
  chosen = [_choose_markers(rng, *group) for group in GROUPS]
  is_used = [_choose_membranes(rng, group) for group in chosen]
  pairs = [
    pair
    for group, used in zip(chosen, is_used, strict=True)
    for pair in zip(group, used, strict=True)
  ]
  extra = max(len(pairs) - MAX_ANTIBODIES, 0)
  dropped = rng.choice(np.arange(1, len(pairs)), extra, replace=False)
  pairs = [pair for i, pair in enumerate(pairs) if i not in dropped]
  metals = rng.choice(METALS, len(pairs), replace=False)
  has_histones = rng.uniform() < 0.7  # Some studies use the DNA alone.
  channels = [
    Channel(
      str(metal),
      _vary_counts(rng, marker),
      is_kept=True,
      is_nuclear=marker.role == "nuclear" and has_histones,
      is_membrane=bool(used),
    )
    for metal, (marker, used) in zip(metals, pairs, strict=True)
  ]
  channels += _make_fixed_channels(
    rng, num_at_least=MIN_CHANNELS - len(channels)
  )
  return tuple(sorted(channels, key=lambda c: (c.mass, c.metal)))


def _choose_markers(
  rng: np.random.Generator, group: tuple[Marker, ...], low: int
) -> list[Marker]:
  """Draws at least `low` markers of a group, in its order, its first kept."""
  num = int(rng.integers(low, len(group) + 1))
  others = rng.choice(np.arange(1, len(group)), max(num - 1, 0), replace=False)
  first = group[:1] if num else ()
  return [*first, *(group[i] for i in sorted(others))]


def _choose_membranes(
  rng: np.random.Generator, group: list[Marker]
) -> list[bool]:
  """Draws which markers serve as membrane channels: one or more if any can."""
  usable = [i for i, m in enumerate(group) if m.role == "membrane"]
  if not usable:
    return [False] * len(group)
  share = rng.uniform(0, 1)
  used = {i for i in usable if rng.uniform() < share} | {usable[0]}
  return [i in used for i in range(len(group))]


def _vary_counts(rng: np.random.Generator, marker: Marker) -> Marker:
  factor = float(np.clip(rng.lognormal(0, 0.5), 0.25, 3))
  return dataclasses.replace(marker, counts=marker.counts * factor)


def _make_fixed_channels(
  rng: np.random.Generator, num_at_least: int
) -> list[Channel]:
  """The DNA intercalator's channels and the junk that is acquired as well."""
  factor = float(np.clip(rng.lognormal(0, 0.5), 0.3, 3))
  dna = [
    Channel(
      metal,
      dataclasses.replace(marker, counts=marker.counts * factor),
      is_kept=True,
      is_nuclear=True,
      is_membrane=False,
    )
    for metal, marker in zip(("191Ir", "193Ir"), DNA, strict=True)
  ]
  low = min(max(num_at_least - 2, 4), len(JUNK))
  num = int(rng.integers(low, len(JUNK) + 1))
  return dna + [
    Channel(name, Marker(name, "junk", counts, {}), False, False, False)
    for name, counts in JUNK[:num]
  ]
