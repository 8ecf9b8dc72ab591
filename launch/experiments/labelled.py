"""Every image with reference masks, trained on or not, ready for the network.

Most are of sources that the shipped weights have never seen. Where people drew
nuclei alone, nuclei are judged; where no pixel size is given, it is the one
that makes the median reference nucleus 7.5 um across.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import validation

from dicexmbd_jax import types
from dicexmbd_jax.image import preparation
from dicexmbd_jax.io import images, labels
from dicexmbd_jax.types import Image, Labels

NUCLEUS_UM = 7.5
# dsb2018_fluo: as many of the images of the commonest shape, and of another.
NUM_COMMON, NUM_OTHER = 24, 8
COMMON_SHAPE = (256, 256)
BREAST_MEMBRANE = (
  "Membrane",
  "NaK ATPase",
  "ECadherin",
  "CD45",
  "BetaCatenin",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """One image with its reference.

  Attributes:
    source: the data set.
    name: of the image.
    image: the two channels, on the image's own grid.
    pixel_size_um: of this grid.
    reference: nuclei or cells, on this grid.
    has_nuclei: whether the reference shows nuclei alone.
  """

  source: str
  name: str
  image: Image
  pixel_size_um: float
  reference: Labels
  has_nuclei: bool


def list_labelled(
  data: pathlib.Path, studies: pathlib.Path, config: Any
) -> Iterator[Labelled]:
  """Yields the images, read one by one.

  Args:
    data: the real data.
    studies: where scores.sh simulates study_1 to study_4.
    config: the config's section `image`.
  """
  yield read_named(data / "mibi_breast", "HH3", BREAST_MEMBRANE, 0.391, config)
  yield read_named(
    data / "vectra_phenoptr", "DAPI", ("Cy3", "Cy5", "FITC"), 0.497, config
  )
  intestine = data / "intestine_nuclei" / "validation"
  for path in sorted((intestine / "img").glob("*.tiff")):
    yield read_nuclear("intestine_nuclei", path, config)
  for path in choose_dsb(data / "dsb2018_fluo"):
    yield read_nuclear("dsb2018_fluo", path, config)
  crops = sorted((data / "imc_testdata" / "masks_ilastik").glob("*.tiff"))
  judged = validation.list_crops(data, [path.stem for path in crops])
  judged += validation.list_spleen(data, (24, 28, 30))
  for item in judged + validation.list_simulated(studies):
    image, _ = validation.load_image(item, config.to_json())
    reference = labels.read_labels(item.masks)
    name = f"{item.panel.parent.name}/{item.path.stem}"
    yield Labelled(item.source, name, image, 1.0, reference, has_nuclei=False)


def read_named(
  folder: pathlib.Path,
  nuclear: str,
  membrane: Sequence[str],
  pixel_size_um: float,
  config: Any,
) -> Labelled:
  """Reads the one image of a folder, by its channels' names.

  Nuclei are the reference unless there are masks of cells.
  """
  (path,) = (folder / "img").iterdir()
  loaded = images.read_every_channel(types.ImageSource(path.stem, path))
  loaded = dataclasses.replace(
    loaded,
    nuclear=(loaded.names.index(nuclear),),
    membrane=tuple(loaded.names.index(name) for name in membrane),
  )
  image, _ = preparation.merge_loaded(loaded, config)
  has_nuclei = not (folder / "masks").exists()
  (masks,) = (folder / ("nuclei" if has_nuclei else "masks")).iterdir()
  reference = labels.read_labels(masks)
  source = folder.name
  return Labelled(
    source, path.stem, image, pixel_size_um, reference, has_nuclei
  )


def read_nuclear(source: str, path: pathlib.Path, config: Any) -> Labelled:
  """Reads an image of one nuclear channel, whose pixel size is not known."""
  loaded = images.read_every_channel(types.ImageSource(path.stem, path))
  loaded = dataclasses.replace(loaded, nuclear=(0,), membrane=())
  image, _ = preparation.merge_loaded(loaded, config)
  reference = labels.read_labels(path.parents[1] / "masks" / path.name)
  areas_px = np.bincount(reference.ravel())[1:]
  median_px = np.median(np.sqrt(areas_px[areas_px > 0] * 4 / np.pi))
  size_um = NUCLEUS_UM / median_px
  return Labelled(source, path.stem, image, size_um, reference, has_nuclei=True)


def choose_dsb(folder: pathlib.Path) -> list[pathlib.Path]:
  """Draws images of every shape; the same ones each time."""
  by_shape: dict[tuple[int, ...], list[pathlib.Path]] = {}
  for path in sorted((folder / "img").glob("*.tiff")):
    shape = labels.read_labels(folder / "masks" / path.name).shape
    by_shape.setdefault(shape, []).append(path)
  rng = np.random.default_rng(0)
  drawn = []
  for shape, paths in by_shape.items():
    count = NUM_COMMON if shape == COMMON_SHAPE else NUM_OTHER
    order = rng.permutation(len(paths))
    drawn.append([paths[i] for i in itertools.islice(order, count)])
  return list(itertools.chain.from_iterable(drawn))
