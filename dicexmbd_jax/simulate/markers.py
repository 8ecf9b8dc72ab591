"""Which channels a study has, and which cell type shows which marker."""

import dataclasses

import numpy as np

from dicexmbd_jax.simulate.cells import CELL_TYPES, TYPE_INDEX

LEUKOCYTES = {
  "t_cell": 1.0, "b_cell": 0.9, "blast": 0.7, "plasma": 0.35,
  "macrophage": 0.6, "dendritic": 0.6, "granulocyte": 0.6,
}  # fmt: skip
STROMAL = {"fibroblast": 1.0, "endothelial": 1.0, "muscle": 0.8}
EVERYWHERE = {cell_type.name: 1.0 for cell_type in CELL_TYPES}


@dataclasses.dataclass(frozen=True)
class Marker:
  """One antibody or stain.

  Attributes:
    name: as in the panel.
    place: "membrane", "cytoplasm", "nucleus", "fibre" or "junk".
    counts: typical ion counts per pixel where a cell is positive.
    levels: by cell type, relative to `counts`.
    positive: share of the cells of these types that show it at all.
    role: "nuclear" or "membrane" if it can serve for segmentation.
  """

  name: str
  place: str
  counts: float
  levels: dict[str, float]
  positive: float = 1.0
  role: str = ""


def _membrane(name: str, counts: float, **levels: float) -> Marker:
  return Marker(name, "membrane", counts, levels, role="membrane")


DNA = (
  Marker("DNA1", "nucleus", 130, EVERYWHERE, role="nuclear"),
  Marker("DNA2", "nucleus", 230, EVERYWHERE, role="nuclear"),
)
HISTONES = (
  Marker("HistoneH3", "nucleus", 150, EVERYWHERE, role="nuclear"),
  Marker("H3K27me3", "nucleus", 25, EVERYWHERE, role="nuclear"),
)
# Every study has the first of each group; which others, its panel decides.
GENERAL = (
  Marker("CD45", "membrane", 25, LEUKOCYTES, role="membrane"),
  Marker(
    "NaKATPase",
    "membrane",
    10,
    {**EVERYWHERE, "epithelial": 2.0},
    role="membrane",
  ),
  Marker("HLA_ABC", "membrane", 12, EVERYWHERE, 0.9, "membrane"),
  Marker(
    "CD44",
    "membrane",
    10,
    {**LEUKOCYTES, "epithelial": 0.8, "fibroblast": 0.7},
    0.8,
    "membrane",
  ),
  Marker("B2M", "membrane", 8, EVERYWHERE, role="membrane"),
  Marker("RibosomalS6", "cytoplasm", 10, EVERYWHERE, 0.9, "membrane"),
)
LYMPHOID = (
  _membrane("CD3", 12, t_cell=1.0),
  _membrane("CD20", 14, b_cell=1.0, blast=0.8),
  _membrane("CD4", 6, t_cell=0.7, macrophage=0.4, dendritic=0.3),
  Marker("CD8a", "membrane", 10, {"t_cell": 1.0}, 0.35, "membrane"),
  _membrane("CD45RA", 10, b_cell=1.0, t_cell=0.5),
  Marker(
    "CD45RO",
    "membrane",
    10,
    {"t_cell": 1.0, "macrophage": 0.4},
    0.6,
    "membrane",
  ),
  _membrane("CD138", 9, plasma=1.0, epithelial=0.3),
  _membrane("CD79a", 7, b_cell=1.0, plasma=0.7),
  Marker("PD1", "membrane", 4, {"t_cell": 1.0}, 0.25, "membrane"),
  Marker("FoxP3", "nucleus", 5, {"t_cell": 1.0}, 0.1),
  Marker("GranzymeB", "cytoplasm", 8, {"t_cell": 1.0}, 0.15),
)
MYELOID = (
  Marker(
    "CD68",
    "cytoplasm",
    14,
    {"macrophage": 1.0, "dendritic": 0.3},
    role="membrane",
  ),
  _membrane("CD14", 8, macrophage=1.0, dendritic=0.3),
  _membrane("CD163", 10, macrophage=1.0),
  _membrane("CD11b", 7, macrophage=0.6, granulocyte=1.0),
  _membrane("CD11c", 8, dendritic=1.0, macrophage=0.6),
  _membrane(
    "HLA_DR",
    20,
    b_cell=0.8,
    macrophage=1.0,
    dendritic=1.2,
    blast=0.9,
    endothelial=0.3,
  ),
  _membrane("CD15", 15, granulocyte=1.0),
  Marker("MPO", "cytoplasm", 12, {"granulocyte": 1.0}),
)
EPITHELIAL = (
  Marker("panCK", "cytoplasm", 30, {"epithelial": 1.0}, 0.95, "membrane"),
  _membrane("E_cadherin", 18, epithelial=1.0),
  _membrane("EpCAM", 16, epithelial=1.0),
  Marker("CK8_18", "cytoplasm", 25, {"epithelial": 1.0}, 0.7, "membrane"),
  _membrane("beta_catenin", 9, epithelial=1.0, endothelial=0.3),
)
STROMA = (
  Marker(
    "Vimentin",
    "cytoplasm",
    25,
    {**STROMAL, **{k: 0.35 * v for k, v in LEUKOCYTES.items()}},
    role="membrane",
  ),
  Marker("SMA", "cytoplasm", 40, {"muscle": 1.0, "fibroblast": 0.15}),
  Marker("CollagenI", "fibre", 15, {}),
  Marker("Fibronectin", "fibre", 10, {}),
  _membrane("CD31", 12, endothelial=1.0),
  _membrane("PDGFRb", 6, fibroblast=1.0, muscle=0.5),
)
STATE = (
  Marker("Ki67", "nucleus", 15, {"epithelial": 1.0, "blast": 3.0,
                                 "t_cell": 0.3}, 0.2),
  Marker("p53", "nucleus", 8, {"epithelial": 1.0}, 0.4),
  Marker("cCaspase3", "cytoplasm", 8, EVERYWHERE, 0.02),
)  # fmt: skip
# Every group, and the least number of its markers in a study.
GROUPS = (
  (GENERAL, 2), (LYMPHOID, 5), (MYELOID, 3), (EPITHELIAL, 2), (STROMA, 4),
  (STATE, 1), (HISTONES, 0),
)  # fmt: skip
MAX_ANTIBODIES = 34
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
  channels += _make_fixed_channels(rng, num_at_least=30 - len(channels))
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


def draw_levels(
  rng: np.random.Generator, channels: tuple[Channel, ...], types: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws how strongly each cell shows each marker, and where in the cell.

  Args:
    rng: source of randomness.
    channels: the m channels.
    types: indices into `CELL_TYPES` of n cells.

  Returns:
    Counts per pixel at the membrane, in the cytoplasm and in the nucleus,
    three float32 arrays (n, m).
  """
  table = np.array([_tabulate_marker(c.marker) for c in channels]).T
  shape = (len(types), len(channels))
  places = np.array([c.marker.place for c in channels])
  positive = np.array([c.marker.positive for c in channels])
  dim = np.clip(rng.lognormal(-0.5, 0.6, len(channels)), 0.08, 2.5)
  dim = np.where(rng.uniform(size=len(channels)) < 0.08, 0.05, dim)
  dim = np.where(places == "nucleus", np.sqrt(dim), dim)
  level = (_vary_table(rng, table, places) * dim)[types]
  # Markers that mark a positive few do so by cell, not by type.
  level = level * (rng.uniform(size=shape) < positive)
  spread = rng.uniform(0.25, 0.8, len(channels))
  spread = np.where(places == "nucleus", 0.15, spread)
  level = level * np.exp(spread * rng.standard_normal(shape))
  # A cell that the section only grazes is dim in everything.
  grazed = rng.uniform(0.1, 0.4) * rng.standard_normal(shape[:1])
  level = level * np.exp(grazed)[:, None]
  # Nuclei differ in all their stains alike: ploidy, condensed chromatin.
  dense = rng.uniform(0.1, 0.35) * rng.standard_normal(shape[:1])
  dense += 0.6 * (rng.uniform(size=shape[:1]) < 0.02)
  level = level * np.where(places == "nucleus", np.exp(dense)[:, None], 1)
  sticky = rng.uniform(0, 0.04) * np.array([c.marker.counts for c in channels])
  sticky = np.where((places == "junk") | (places == "fibre"), 0, sticky)
  level = (level + sticky).astype(np.float32)
  mixing = rng.uniform(0.0, 0.35, len(channels)).astype(np.float32)
  in_membrane = np.where(
    places == "membrane", 1, mixing * (places == "cytoplasm")
  )
  in_cytoplasm = np.where(
    places == "cytoplasm",
    1,
    np.where(places == "nucleus", 0.3 * mixing, 0.4 * mixing),
  )
  in_nucleus = (places == "nucleus").astype(np.float32)
  return (
    level * in_membrane.astype(np.float32),
    level * in_cytoplasm.astype(np.float32),
    level * in_nucleus,
  )


def _vary_table(
  rng: np.random.Generator, table: np.ndarray, places: np.ndarray
) -> np.ndarray:
  """Changes the program of each cell type from image to image.

  Some types show hardly any of their membrane and cytoplasm markers.
  """
  factor = rng.lognormal(0, 0.5, table.shape)
  is_silent = rng.uniform(size=(len(table), 1)) < rng.choice([0.02, 0.2])
  factor = np.where(is_silent, 0.1, factor)
  return np.where(places == "nucleus", 1, factor) * table


def _tabulate_marker(marker: Marker) -> np.ndarray:
  """Counts of a marker by cell type."""
  row = np.zeros(len(CELL_TYPES))
  for name, level in marker.levels.items():
    row[TYPE_INDEX[name]] = level * marker.counts
  row[TYPE_INDEX["columnar"]] = row[TYPE_INDEX["epithelial"]]
  return row
