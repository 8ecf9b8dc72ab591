"""The images that choices are made on, those that are reported, their scores.

Shared by the other Python scripts of this folder. None of these images is in a
record of the split "train", and none is in both lists.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dicexmbd_jax import magnification, predict, types
from dicexmbd_jax.image import preparation
from dicexmbd_jax.io import images, labels, panel
from dicexmbd_jax.masks import segment
from dicexmbd_jax.model import weights
from dicexmbd_jax.model.unet import UNet
from dicexmbd_jax.scores import match

IOU = 0.5
STUDY_SIZES_UM = (
  1.0,
  0.7,
  1.3,
  1.0,
)  # As launch/experiments/base.sh builds them.
TEST_CROPS = tuple(f"20210305_NE_mockData5_00{i}" for i in (1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Judged:
  """One image with reference masks.

  Attributes:
    source: what it counts to in a mean: "spleen", "simulated", ...
    path: the image.
    panel: its panel file.
    masks: its reference masks.
    pixel_size_um: of its pixels.
  """

  source: str
  path: pathlib.Path
  panel: pathlib.Path
  masks: pathlib.Path
  pixel_size_um: float = 1.0


def list_validation(data: pathlib.Path, studies: pathlib.Path) -> list[Judged]:
  """Returns the validation images of configs/base.py and ablations.py.

  Args:
    data: the real data.
    studies: the folder of study_0, study_1, ...
  """
  judged = list_spleen(data, (24,)) + list_crops(data)
  for i, size_um in enumerate(STUDY_SIZES_UM):
    study = studies / f"study_{i}"
    judged.append(
      Judged(
        "simulated",
        study / "img" / "ROI006.tiff",
        study / "panel.csv",
        study / "truth" / "masks" / "ROI006.tiff",
        size_um,
      )
    )
  return judged


def list_spleen(data: pathlib.Path, rois: Sequence[int]) -> list[Judged]:
  """Returns ROIs of the spleen."""
  spleen = data / "spleen_imc"
  return [
    Judged(
      "spleen",
      spleen / "img" / f"ROI{roi:03d}.ome.tiff",
      spleen / "panel.csv",
      spleen / "masks" / f"ROI{roi:03d}.tiff",
    )
    for roi in rois
  ]


def list_crops(
  data: pathlib.Path, stems: Sequence[str] = TEST_CROPS
) -> list[Judged]:
  """Returns crops of imc_testdata, by default those for choices."""
  crops = data / "imc_testdata"
  return [
    Judged(
      "imc_testdata",
      crops / "img" / f"{stem}.tiff",
      crops / "panel.csv",
      crops / "masks_ilastik" / f"{stem}.tiff",
    )
    for stem in stems
  ]


def read_stack(item: Judged) -> types.LoadedImage:
  """Returns the image's markers, counts."""
  return images.read_image(
    types.ImageSource(path=item.path, stem=item.path.stem),
    panel.read_panel(item.panel),
  )


@functools.cache
def load_image(
  item: Judged, image_config: str
) -> tuple[types.Image, types.Image]:
  """Returns the two channels on the image's grid and on the network's.

  Args:
    item: the image.
    image_config: the config's section `image`, JSON.
  """
  config = ConfigDict(json.loads(image_config))
  merged, _ = preparation.merge_loaded(read_stack(item), config)
  return merged, preparation.to_network_grid(merged, item.pixel_size_um, config)


def predict_maps(
  folder: pathlib.Path, judged: list[Judged], views: int | None = None
) -> dict[Judged, types.Probabilities]:
  """Returns the probabilities of each image, by the model in `folder`.

  Args:
    folder: a model folder.
    judged: the images.
    views: in place of the model's own `predict.views`.
  """
  model, config = weights.read_model(folder)
  if views is not None:
    config.predict.views = views
  image_config = config.image.to_json()
  pairs = ((item, load_image(item, image_config)[1]) for item in judged)
  return dict(load_network(model, config)(pairs))


def load_network(model: UNet, config: Any) -> types.Network:
  """Returns the network as `predict` runs it on whole images."""
  _, network = predict.load_passes(
    model, config.predict, magnification.WINDOW_PX
  )
  return network


def find_cells(
  item: Judged, probabilities: types.Probabilities, config: Any
) -> tuple[types.Labels, types.Labels]:
  """Returns the cells found and the reference, on the reference's grid.

  Args:
    item: the image.
    probabilities: of it, on the network's grid.
    config: the whole configuration.
  """
  reference = labels.read_labels(item.masks)
  found = segment.segment_seen(probabilities, config, reference.shape)
  return found.cells, reference


def score_sources(
  maps: Mapping[Judged, types.Probabilities], config: Any
) -> dict[str, float]:
  """Returns F1 at IoU 0.5 by source, over all cells of its images."""
  counts: dict[str, np.ndarray] = {}
  for item, probabilities in maps.items():
    matching = match.match_cells(*find_cells(item, probabilities, config), IOU)
    add = np.array([matching.tp, matching.fp, matching.fn])
    counts[item.source] = counts.get(item.source, 0) + add
  return {
    source: float(2 * tp / max(2 * tp + fp + fn, 1))
    for source, (tp, fp, fn) in counts.items()
  }


def list_reported(data: pathlib.Path, studies: pathlib.Path) -> list[Judged]:
  """Returns images that nothing was trained or chosen on.

  Args:
    data: the real data.
    studies: where launch/experiments/scores.sh simulates study_1 to study_4.
  """
  return list_spleen(data, (28, 30)) + list_simulated(studies)


def list_simulated(studies: pathlib.Path) -> list[Judged]:
  """Returns the images that scores.sh simulates in this folder."""
  judged = []
  for seed in (1, 2, 3, 4):
    study = studies / f"study_{seed}"
    judged += [
      Judged(
        "simulated",
        path,
        study / "panel.csv",
        study / "truth" / "masks" / path.name,
      )
      for path in sorted((study / "img").glob("*.tiff"))
    ]
  return judged
