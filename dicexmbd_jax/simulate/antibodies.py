"""The library of markers: which cell type shows what, where, how strongly."""

import dataclasses

from dicexmbd_jax.simulate.cells import CELL_TYPES

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
