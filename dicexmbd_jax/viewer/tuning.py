"""How corrected cells become a model: the call of `finetune`; no Qt in here."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping

import pandas as pd

from dicexmbd_jax.io import listing, write
from dicexmbd_jax.types import Panel, PanelRow
from dicexmbd_jax.viewer.study import Study

Path = pathlib.Path
FOLDER = "finetuned"  # Beside the masks; finetuned_2, ... for later ones.
_PANEL = "ticked_panel.csv"  # No name of a panel that somebody may have.
# What `finetune` writes.
_PLAN, _RESULT = "work/plan.json", "finetune.json"


@dataclasses.dataclass(frozen=True)
class Tuned:
  """What came of a fine-tuning.

  Attributes:
    folder: of the model.
    is_better: than the one that it began with, beyond chance.
    verdict: in one line.
  """

  folder: Path
  is_better: bool
  verdict: str


def choose_output(folder: Path) -> Path:
  """Returns where the next model goes.

  A fine-tuning on the same corrections goes on in its own folder; newer
  corrections get another one.

  Args:
    folder: that of the masks, with corrected/.
  """
  saved = [one.stat().st_mtime for one in folder.glob("corrected/*.tiff")]
  for number in itertools.count(1):
    output = folder / (FOLDER if number == 1 else f"{FOLDER}_{number}")
    plan = output / _PLAN
    if not output.exists():
      return output
    if plan.exists() and plan.stat().st_mtime >= max(saved, default=0.0):
      return output
  raise AssertionError  # The numbers do not end.


def make_call(
  study: Study, roles: Mapping[str, str], folder: Path, output: Path
) -> list[str]:
  """Returns the words of `finetune` on the corrected cells of a study.

  A panel is written into the output folder where the study has none, or one
  that says something else.

  Args:
    study: whose images were corrected.
    roles: of the markers: "nuclear", "membrane" or "".
    folder: that of the masks, with corrected/.
    output: of the model to be.

  Raises:
    ValueError: no images, no corrections, or no nuclear marker; one line.
    OSError: the panel cannot be written.
  """
  if study.place is None:
    raise ValueError(f"{study.path}: found no images, expected those corrected")
  if not any(folder.glob("corrected/*.tiff")):
    raise ValueError(f"{folder}: found no corrected cells; save them first")
  panel = study.panel
  if panel is None or not _agrees(panel, roles):
    path = output / _PANEL
    _write_panel(path, roles, panel)
  else:
    path = panel.path
  size_um = study.pixel_size_um
  return [
    "finetune",
    f"--images={_choose_images(study, Path(study.place), folder)}",
    f"--panel={path}",
    f"--masks={folder / 'corrected'}",
    f"--output={output}",
    *([] if size_um is None else [f"--pixel_size_um={size_um}"]),
  ]


def read_result(output: Path) -> Tuned:
  """Returns what a fine-tuning has made.

  Raises:
    ValueError, OSError: nothing that can be read.
  """
  found = json.loads((output / _RESULT).read_text())
  return Tuned(Path(found["model"]), found["is_better"], found["verdict"])


def _choose_images(study: Study, place: Path, folder: Path) -> Path:
  """Returns where the corrected images are: of an image, maybe its folder.

  Images that were opened singly share the folder of their corrections. Theirs
  is taken where it has all corrected images that the place has, and more.
  """
  sources = [source for source in study.images.values() if source]
  if place.is_dir() and all(source.path != place for source in sources):
    return place
  corrected = folder.glob("corrected/*.tiff")
  saved = {listing.get_stem(path) for path in corrected}
  if saved <= set(study.images):
    return place
  listed, _ = listing.list_stacks(place.parent, study.panel)
  beside = saved & {source.stem for source in listed}
  return place.parent if beside > saved & set(study.images) else place


def _agrees(panel: Panel, roles: Mapping[str, str]) -> bool:
  """Whether a panel says of the markers that are shown what `roles` says."""
  said = {
    row.name: "nuclear" if row.is_nuclear else "membrane" * row.is_membrane
    for row in panel.rows
  }
  return all(said.get(name, role) == role for name, role in roles.items())


def _write_panel(
  path: Path, roles: Mapping[str, str], panel: Panel | None
) -> None:
  if "nuclear" not in roles.values():
    raise ValueError(
      "nuclear: found no channel, expected at least one: tick it in Segment"
    )
  if panel is None:
    rows = [PanelRow(None, name, True, False, False) for name in roles]
  else:
    rows = list(panel.rows)
  columns: dict[str, list] = {
    "channel": [row.channel or "" for row in rows],
    "name": [row.name for row in rows],
    "keep": [int(row.is_kept) for row in rows],
    "nuclear": [int(roles.get(row.name) == "nuclear") for row in rows],
    "membrane_cytoplasm": [
      int(roles.get(row.name) == "membrane") for row in rows
    ],
  }
  write.write_table(path, pd.DataFrame(columns))
