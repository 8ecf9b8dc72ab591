"""Array aliases and small frozen records that cross module borders.

Memory order is always rows, columns, channels (y, x, c). The aliases are shape
contracts: documentation at run time, checked by jaxtyping in the tests.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt16

if TYPE_CHECKING:  # Slow to import, and not needed by masks alone.
  import pandas as pd

Stack = Float32[np.ndarray, "y x m"]  # raw ion counts, one plane per marker
Image = Float32[np.ndarray, "y x 2"]  # nuclear, membrane/cytoplasm; 0..255
Probabilities = Float32[np.ndarray, "y x 3"]  # nucleus, membrane, background
Levels = UInt16[np.ndarray, "y x 3"]  # the same; 65535 stands for 1
Labels = Int32[np.ndarray, "y x"]  # 0 = background, objects 1..n
# From keys and images to keys and probabilities, in order.
Network = Callable[
  [Iterable[tuple[Any, Image]]], Iterator[tuple[Any, Probabilities]]
]


@dataclasses.dataclass(frozen=True)
class ImageSource:
  """One image to work on: where it lies, what it will be called.

  Attributes:
    stem: name of every output file, without suffix; unique in a run.
    path: the file, or the zip archive that holds it.
    member: name inside the zip archive, else None.
    acquisition: acquisition id inside an .mcd file, else None.
    fallbacks: .txt files to read instead where the .mcd's data are broken.
    parts: the other files of an OME-TIFF that spans several.
    planes: names and files of the channels, where each has a file of its own;
      `path` is the first of these.
    num_bytes: of the acquisition's pixels; None where the files tell it.
  """

  stem: str
  path: pathlib.Path
  member: str | None = None
  acquisition: int | None = None
  fallbacks: tuple[pathlib.Path, ...] = ()
  parts: tuple[pathlib.Path, ...] = ()
  planes: tuple[tuple[str, pathlib.Path], ...] = ()
  num_bytes: int | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Grid:
  """Where an image's pixels lie.

  Attributes:
    shape_px: rows and columns.
    pixel_size_um: edge of a pixel.
  """

  shape_px: tuple[int, int]
  pixel_size_um: float


@dataclasses.dataclass(frozen=True)
class PanelRow:
  """One marker of a panel file.

  Attributes:
    channel: the file's name of the channel (metal tag, or its mass), or None if
      not given.
    name: the marker's name; column name in the tables.
    is_kept: measured and, in steinbock's layout, present in the stack.
    is_nuclear: goes into the nuclear channel.
    is_membrane: goes into the membrane/cytoplasm channel.
    line: where it stands in the file, for messages; 1 is the header's.
  """

  channel: str | None
  name: str
  is_kept: bool
  is_nuclear: bool
  is_membrane: bool
  line: int | None = dataclasses.field(default=None, compare=False, repr=False)

  @property
  def is_asked(self) -> bool:
    """Whether the channel is read: kept, nuclear or membrane/cytoplasm."""
    return self.is_kept or self.is_nuclear or self.is_membrane


@dataclasses.dataclass(frozen=True)
class Panel:
  """All rows of a panel file, in its order, and the file for messages."""

  path: pathlib.Path
  rows: tuple[PanelRow, ...]


@dataclasses.dataclass(frozen=True)
class LoadedImage:
  """What is read from one image: only the channels that the panel asks for.

  Attributes:
    stack: counts, float32 (y, x, m).
    names: the m markers' names, unique; column names in the tables.
    nuclear: indices into the stack of the nuclear markers.
    membrane: indices into the stack of the membrane/cytoplasm markers.
    pixel_size_um: from the file's metadata, None where it has none.
    warnings: one line each, for the report.
    origin: where it comes from, under the names of images.csv's columns
      (source_file, acquisition_id, ...).
    is_complete: whether every pixel was in the file.
  """

  stack: Stack
  names: tuple[str, ...]
  nuclear: tuple[int, ...]
  membrane: tuple[int, ...]
  pixel_size_um: float | None
  warnings: tuple[str, ...] = ()
  origin: dict[str, str | int | float | bool | None] = dataclasses.field(
    default_factory=dict
  )
  is_complete: bool = True


def _fill_later() -> Any:
  """Returns a field that is an empty array until a step fills it."""
  return dataclasses.field(default_factory=lambda: np.empty(0))


@dataclasses.dataclass(frozen=True)
class ImageRecord:
  """One image from its file to its tables; each step of `chain` adds its part.

  Attributes:
    source: where it lies.
    loaded: what was read of it: counts, names, roles of the channels.
    pixel_size_um: edge of the counts' pixels.
    magnification: how many times larger than it is the network sees the tissue.
    key: hashes of all that its results depend on.
    warnings: one line each, for the report.
    seconds: by stage, in order.
    image: the two channels, on the counts' grid.
    maps: on the network's grid: the two channels, until the network's
      probabilities take their place, or the levels of these. Of a baseline
      they stay.
    has_probabilities: whether they did.
    nuclei: 0 = background, else the cell's id; on the counts' grid.
    cells: 0 = background, ids 1..n without gaps.
    is_border: of cells 1..n, whether one touches the image's edge.
    doubt: 0 (sure) to 1, of the cells as a whole; None without cells, and for
      a baseline.
    tables: intensities, regionprops and neighbors, by these names.
  """

  source: ImageSource
  loaded: LoadedImage
  pixel_size_um: float
  magnification: float = 1.0
  key: Mapping[str, str] = dataclasses.field(default_factory=dict)
  warnings: tuple[str, ...] = ()
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
  image: Image = _fill_later()
  maps: Image | Probabilities | Levels = _fill_later()
  has_probabilities: bool = False
  nuclei: Labels = _fill_later()
  cells: Labels = _fill_later()
  is_border: Bool[np.ndarray, " n"] = _fill_later()
  doubt: float | None = None
  tables: "Mapping[str, pd.DataFrame]" = dataclasses.field(default_factory=dict)
