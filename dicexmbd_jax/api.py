"""Segmentation from Python; the package's __init__ offers what is in here.

Each function gives what the command line gives on the same pixels.
"""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dicexmbd_jax import config as config_lib
from dicexmbd_jax.types import (
  ImageRecord,
  ImageSource,
  Labels,
  LoadedImage,
  Probabilities,
  Stack,
)

if TYPE_CHECKING:
  import pandas as pd
  from ml_collections import ConfigDict

  from dicexmbd_jax.finetuning.study import Result

Channel = str | int  # By name or by number, from 0 on.
Settings = Mapping[str, Any]  # {"segment.max_growth_um": 2.0}
_AXES = frozenset("CYX")
_IN_MEMORY = ImageSource("stack", pathlib.Path("stack"))  # No file.


@dataclasses.dataclass(frozen=True)
class Cells:
  """The cells of one image.

  Attributes:
    masks: int32 (y, x) on the image's grid; 0 = background, ids 1..n.
    nuclei: int32 (y, x); a nucleus has its cell's id.
    probabilities: float32 (y, x, 3), nucleus, membrane/cytoplasm, background,
      on the network's grid.
    magnification: how many times larger than it is the network saw the tissue.
    map_scale: of these maps, as the setting `segment.map_scale` has it.
    table: one row per cell, in order of the ids: `Object`, area (px), centroids
      (px), axes (px), eccentricity, `is_border`, and the mean of each channel
      in its own unit. Without channels: shapes alone.
    warnings: what looks wrong with the image, one line each.
    map_pixel_size_um: edge of the maps' pixels, in um of the tissue.
  """

  masks: Labels
  nuclei: Labels
  probabilities: Probabilities
  table: "pd.DataFrame"
  warnings: tuple[str, ...] = ()
  magnification: float = 1.0
  map_scale: int = 1
  map_pixel_size_um: float = 1.0


class Segmenter:
  """A network that is read and compiled once, for many images."""

  def __init__(
    self,
    model: str | os.PathLike | None = None,
    settings: Settings | None = None,
  ):
    """Reads the network.

    Args:
      model: a model folder, or a training run's, whose best/ it then is;
        None: the shipped model.
      settings: what the command line calls --config.NAME=VALUE, by NAME, as
        {"segment.max_growth_um": 2.0, "predict.views": 4}.

    Raises:
      ValueError: no such model, or no such setting.
    """
    # In here, so that masks and scores start without JAX.
    from dicexmbd_jax.model import weights

    folder = config_lib.find_model(model or config_lib.SHIPPED_MODEL)
    self._config = _resolve_settings(folder, settings)
    trained = config_lib.read_model_config(folder)
    config_lib.check_model_section(self._config, trained)
    self._model, _ = weights.read_model(folder, self._config.model.dtype)

  def segment(
    self,
    stack: np.ndarray,
    nuclear: Sequence[Channel],
    membrane: Sequence[Channel] = (),
    names: Sequence[str] | None = None,
    axes: str = "CYX",
    pixel_size_um: float = 1.0,
    progress: Callable[[float], None] | None = None,
  ) -> Cells:
    """Finds the cells of one image; see `segment`.

    Args:
      stack: as of `segment`, and so are the others.
      nuclear: nuclear channels.
      membrane: membrane/cytoplasm channels.
      names: the channels' names.
      axes: order of the stack's axes.
      pixel_size_um: edge of a pixel.
      progress: is called with the share of the image, 0 to 1, that the network
        has seen; what it raises ends the call.
    """
    from dicexmbd_jax import chain, magnification, predict
    from dicexmbd_jax.io import metadata
    from dicexmbd_jax.masks.settings import find_map_scale

    metadata.check_pixel_size("pixel_size_um", pixel_size_um)
    loaded = _load_stack(stack, nuclear, membrane, names, axes)
    config = self._config
    num_px = 0  # Of the network's grid, which magnify_record tells.
    seen_px = 0

    def tell_px(count: int) -> None:
      nonlocal seen_px
      seen_px += count
      if progress is not None:
        progress(seen_px / num_px)

    first_pass, network = predict.load_passes(
      self._model, config.predict, magnification.WINDOW_PX, tell_px
    )
    record = ImageRecord(_IN_MEMORY, loaded, pixel_size_um)
    record = chain.merge_record(record, config.image)
    record = chain.magnify_record(record, config, first_pass)
    num_px = record.maps[..., 0].size
    [record] = chain.predict_records([record], network)
    record = chain.segment_record(record, config)
    table = _measure_cells(record.cells, record.is_border, loaded)
    size_um = config.image.pixel_size_um
    return Cells(
      record.cells,
      record.nuclei,
      record.maps,
      table,
      record.warnings,
      record.magnification,
      find_map_scale(size_um),
      size_um / record.magnification,
    )


def segment(
  stack: np.ndarray,
  nuclear: Sequence[Channel],
  membrane: Sequence[Channel] = (),
  names: Sequence[str] | None = None,
  axes: str = "CYX",
  pixel_size_um: float = 1.0,
  model: str | os.PathLike | None = None,
  settings: Settings | None = None,
) -> Cells:
  """Finds the cells of one image.

  For many images make a `Segmenter` once: this function reads the network
  anew each time.

  Args:
    stack: counts or intensities, any real dtype, 0 or more and finite.
    nuclear: the nuclear channels, by name or number from 0 on; at least one.
    membrane: the membrane/cytoplasm channels; without any, where cells end is
      guessed from the nuclei.
    names: the channels' names, in the stack's order; None: numbers only.
    axes: order of the stack's axes: C (channels), Y (rows), X (columns).
    pixel_size_um: edge of a pixel.
    model: as of `Segmenter`.
    settings: as of `Segmenter`.

  Raises:
    TypeError: the stack is no array of real numbers.
    ValueError: axes, channels or values that cannot be meant; one line with
      the argument, what was found and what was wanted.
  """
  segmenter = Segmenter(model, settings)
  return segmenter.segment(stack, nuclear, membrane, names, axes, pixel_size_um)


def segment_probabilities(
  probabilities: np.ndarray,
  pixel_size_um: float = 1.0,
  settings: Settings | None = None,
  shape: tuple[int, int] | None = None,
) -> Cells:
  """Turns probability maps into cells, without a network.

  Args:
    probabilities: (y, x, 2 or 3): nucleus, membrane/cytoplasm, background;
      0..1, or uint8 or uint16, whose highest value stands for 1.
    pixel_size_um: edge of the maps' pixels.
    settings: as of `Segmenter`, from the shipped model's on; {"segment.preset":
      "dice_xmbd"} gives the published masks.
    shape: rows and columns of the masks, on the same field; None: the maps'.
      The maps of `Cells` need it, their map_pixel_size_um, and
      {"segment.map_scale": map_scale} where that is above 1.

  Raises:
    ValueError: no probabilities, a size or shape that cannot be meant, or no
      such setting.
  """
  from dicexmbd_jax.io import metadata
  from dicexmbd_jax.io.probabilities import check_scale
  from dicexmbd_jax.masks import class_order
  from dicexmbd_jax.masks import segment as segment_lib
  from dicexmbd_jax.masks.settings import resolve_settings

  maps = _take_array("probabilities", probabilities)
  segment_lib.check_probabilities(maps)
  check_scale(maps)
  metadata.check_pixel_size("pixel_size_um", pixel_size_um)
  if shape is not None:
    shape = _check_shape(shape, maps.shape[:2])
  config = _resolve_settings(config_lib.SHIPPED_MODEL, settings)
  map_scale = resolve_settings(config.segment).map_scale
  map_um = pixel_size_um * map_scale
  masks = segment_lib.segment_image(maps, config.segment, shape, map_um)
  table = _measure_cells(masks.cells, masks.is_border, None)
  doubts = class_order.find_doubt(maps)
  return Cells(
    masks.cells,
    masks.nuclei,
    maps,
    table,
    doubts,
    map_scale=map_scale,
    map_pixel_size_um=pixel_size_um,
  )


def evaluate(
  predicted: np.ndarray,
  reference: np.ndarray,
  tolerance_px: float = 1.0,
  known: np.ndarray | None = None,
) -> dict[str, float]:
  """Scores one image's mask against its reference.

  Args:
    predicted: labels (y, x), any integer dtype, 0 = background.
    reference: the same, same shape.
    tolerance_px: how far apart outlines may lie in the boundary scores.
    known: (y, x), true where the reference tells what is there; None:
      everywhere. Objects of which more than half lies beyond count in neither.

  Returns:
    Score by name, as "f1_iou_0.50"; `scores/evaluate.py` lists them all.

  Raises:
    ValueError: no labels, labels that number no cells (a binary mask), two
      shapes, a tolerance that is no length, or NaN in `known`.
  """
  from dicexmbd_jax.scores.evaluate import evaluate_image
  from dicexmbd_jax.scores.instances import check_instances
  from dicexmbd_jax.scores.known import keep_known
  from dicexmbd_jax.scores.match import check_labels

  found = _take_array("predicted", predicted)
  wanted = _take_array("reference", reference)
  # Whole: what is known of them may be a single cell, or none.
  for name, mask in (("predicted", found), ("reference", wanted)):
    check_labels(name, mask)
    check_instances(mask, name)
  if known is not None and found.shape == wanted.shape:
    is_known = _take_known("known", known)
    if is_known.shape != found.shape:
      raise ValueError(
        f"known: found shape {is_known.shape}, expected {found.shape}"
      )
    found, wanted = (keep_known(mask, is_known) for mask in (found, wanted))
  return evaluate_image(found, wanted, tolerance_px).scores


def finetune(
  images: Mapping[str, np.ndarray],
  masks: Mapping[str, np.ndarray],
  output: str | os.PathLike,
  nuclear: Sequence[Channel],
  membrane: Sequence[Channel] = (),
  names: Sequence[str] | None = None,
  axes: str = "CYX",
  pixel_size_um: float = 1.0,
  labels: str = "cells",
  known: Mapping[str, np.ndarray] | None = None,
  minutes: float = 60.0,
  model: str | os.PathLike | None = None,
  seed: int = 0,
) -> "Result":
  """Makes a model for a study from a few labelled images.

  Args:
    images: stacks by name, each as of `segment`; names may tell the slide.
    masks: labels (y, x) by the same names, 0 = background.
    output: the model folder to be, with report.html and finetune.json.
    nuclear: as of `segment`, for all images.
    membrane: likewise.
    names: of the channels.
    axes: of the stacks.
    pixel_size_um: edge of a pixel.
    labels: what the masks show: "cells", or "nuclei" alone.
    known: by name (y, x), true where the masks tell what is there; images that
      are missing in it are known everywhere.
    minutes: of all the work; the same call goes on, for longer if asked to.
    model: to start from; None: the shipped model.
    seed: decides everything random.

  Returns:
    `folder`, the model's, which is `output` only if it `is_better`; `verdict`
    in one line; `scores` before and after; `advice`.

  Raises:
    ValueError: images and masks that do not fit, or too little of them.
    FloatingPointError: the training broke down.
  """
  from dicexmbd_jax.commands.finetune import check_output, count_labels, tune
  from dicexmbd_jax.finetuning import reading, samples, study
  from dicexmbd_jax.io import metadata

  started_s = time.monotonic()
  folder = config_lib.find_model(model or config_lib.SHIPPED_MODEL)
  config = config_lib.read_model_config(folder)
  check_output(pathlib.Path(output), folder)
  metadata.check_pixel_size("pixel_size_um", pixel_size_um)
  if not minutes > 0:
    raise ValueError(f"minutes: found {minutes:g}, expected more")
  if seed < 0:
    raise ValueError(f"seed: found {seed}, expected 0 or more")
  if labels not in ("cells", "nuclei"):
    raise ValueError(f"labels: found {labels!r}, expected cells or nuclei")
  if not images or set(images) != set(masks):
    odd = sorted(set(images) ^ set(masks))
    raise ValueError(
      f"masks: found {', '.join(odd) or 'nothing'} without its image or mask, "
      "expected a mask for each image"
    )
  if odd := sorted({*(known or {})} - {*images}):
    raise ValueError(f"known: found {', '.join(odd)}, expected images' names")
  found = []
  for name, stack in images.items():
    loaded = _load_stack(stack, nuclear, membrane, names, axes)
    source = ImageSource(name, pathlib.Path(name))
    sample = reading.start_sample(
      ImageRecord(source, loaded, pixel_size_um), config.image
    )
    parts: dict[str, Any] = {labels: _read_labels(masks[name], name)}
    if known and name in known:
      parts["is_covered"] = _take_known(f"known: {name}", known[name])
    sample = dataclasses.replace(sample, **parts)
    sample = samples.check_sample(sample)
    if sample.is_covered.any():
      found.append(sample)
  if not found:
    raise ValueError("known: found nothing known of any image, expected some")
  count_labels(found, "masks")
  plan = study.TunePlan(pathlib.Path(output), folder, minutes, started_s, seed)
  return tune(found, plan, config)


def read_image(
  path: str | os.PathLike,
  panel: str | os.PathLike | None = None,
  name: str | None = None,
) -> LoadedImage:
  """Reads one image of any format that `predict` reads.

  Args:
    path: the file, or the folder of an image with one file per channel.
    panel: the panel file; None for files of two channels.
    name: which image, where the file holds several, as an .mcd does.

  Returns:
    `stack`, float32 (y, x, channel); `names`; `nuclear` and `membrane`, numbers
    of channels; `pixel_size_um`, None where the file does not say it.

  Raises:
    ValueError: the file or the panel cannot be read, or holds several images.
  """
  from dicexmbd_jax.io import images, listing
  from dicexmbd_jax.io.panel import read_panel

  rows = None if panel is None else read_panel(os.fspath(panel))
  listed, lost = listing.list_stacks(os.fspath(path), rows)
  if lost:
    raise ValueError(lost[0][1])
  stems = [image.stem for image in listed]
  chosen = [image for image in listed if name in (None, image.stem)]
  if len(chosen) != 1:
    raise ValueError(
      f"name: found {name!r}, expected one of {path}'s images: "
      f"{', '.join(stems)}"
    )
  return images.read_image(chosen[0], rows)


def _take_array(argument: str, values: np.ndarray) -> np.ndarray:
  """Returns an array; one with masked values, which would count, is refused.

  Raises:
    ValueError: there are some.
  """
  if np.ma.is_masked(values):
    number = int(np.ma.getmaskarray(values).sum())
    raise ValueError(
      f"{argument}: found {number} masked values, expected none: fill them"
    )
  return np.asarray(values)


def _take_known(argument: str, values: np.ndarray) -> np.ndarray:
  """Returns what is known, bool, as `_take_array`.

  Raises:
    ValueError: values are masked, NaN or no numbers.
  """
  array = _take_array(argument, values)
  if array.dtype.kind not in "buif":
    raise ValueError(f"{argument}: found {array.dtype}, expected true or false")
  if np.isnan(array).any():  # Which is true as bool.
    raise ValueError(f"{argument}: found NaN, expected true or false")
  return array.astype(bool)


def _check_shape(
  shape: Sequence[int], maps_px: tuple[int, ...]
) -> tuple[int, int]:
  """Returns the masks' shape, if it is of the same field as the maps.

  Raises:
    ValueError: it is not, by more than rounding to whole pixels may do.
  """
  sizes = tuple(shape)
  is_whole = all(isinstance(size, int | np.integer) for size in sizes)
  if len(sizes) != 2 or not is_whole or min(sizes) < 1:
    raise ValueError(f"shape: found {shape}, expected rows and columns")
  rows, columns = int(sizes[0]), int(sizes[1])
  # Maps of n pixels may stand for anything between n - 1 and n + 1.
  low = max((maps_px[0] - 1) / rows, (maps_px[1] - 1) / columns)
  high = min((maps_px[0] + 1) / rows, (maps_px[1] + 1) / columns)
  if low >= high:
    raise ValueError(
      f"shape: found ({rows}, {columns}) for maps of {maps_px}, expected rows "
      "and columns of the same field"
    )
  return rows, columns


def _read_labels(mask: np.ndarray, name: str) -> Labels:
  """Returns a mask of instances as int32.

  Raises:
    ValueError: no whole numbers from 0 on, or classes in place of instances.
  """
  from dicexmbd_jax.io.labels import make_labels
  from dicexmbd_jax.scores.instances import check_instances

  place = f"masks: {name}"
  labels = make_labels(_take_array(place, mask), place)
  check_instances(labels, place)
  return labels


def _resolve_settings(
  folder: pathlib.Path, settings: Settings | None
) -> "ConfigDict":
  base = config_lib.read_model_config(folder)
  return config_lib.resolve_config(base, None, settings or {})


def _load_stack(
  stack: np.ndarray,
  nuclear: Sequence[Channel],
  membrane: Sequence[Channel],
  names: Sequence[str] | None,
  axes: str,
) -> LoadedImage:
  """Checks a stack and its channels, and puts it into the package's order."""
  from dicexmbd_jax.masks.measure import REGION_COLUMNS

  pixels = _order_axes(stack, axes, names)
  num_channels = pixels.shape[2]
  if names is None:
    known = tuple(f"channel {k}" for k in range(num_channels))
  else:
    known = tuple(str(name) for name in names)
  doubled = [name for name, n in collections.Counter(known).items() if n > 1]
  if doubled:
    raise ValueError(f"names: found {doubled[0]!r} twice, expected it once")
  if taken := {"Object", "is_border", *REGION_COLUMNS} & {*known}:
    raise ValueError(
      f"names: found {min(taken)!r}, another column of the table, expected "
      "another name"
    )
  groups = [
    _find_channels(argument, channels, known)
    for argument, channels in (("nuclear", nuclear), ("membrane", membrane))
  ]
  if not groups[0]:
    raise ValueError("nuclear: found no channel, expected at least one")
  return LoadedImage(
    stack=pixels,
    names=known,
    nuclear=groups[0],
    membrane=groups[1],
    pixel_size_um=None,
  )


def _order_axes(
  stack: np.ndarray, axes: str, names: Sequence[str] | None
) -> Stack:
  """Returns the stack as float32 (y, x, channel).

  Raises:
    TypeError: not an array of real numbers.
    ValueError: axes or shape cannot be meant.
  """
  pixels = _take_array("stack", stack)
  if pixels.dtype.kind not in "uif":
    raise TypeError(
      f"stack: found values of type {pixels.dtype}, expected real numbers"
    )
  word = str(axes).upper()
  if sorted(word) != sorted(_AXES):
    raise ValueError(
      f"axes: found {axes!r}, expected C, Y and X in the stack's order, as "
      "'CYX'"
    )
  if pixels.ndim != 3 or 0 in pixels.shape:
    raise ValueError(
      f"stack: found shape {pixels.shape}, expected three axes, {word}"
    )
  num_channels = pixels.shape[word.index("C")]
  if names is not None and len(names) != num_channels:
    raise ValueError(
      f"names: found {len(names)} for a stack of shape {pixels.shape} with "
      f"axes {word}, expected {num_channels}"
    )
  if names is None and num_channels > min(
    size for size, axis in zip(pixels.shape, word, strict=True) if axis != "C"
  ):
    raise ValueError(
      f"axes: found {num_channels} channels in a stack of shape "
      f"{pixels.shape} with axes {word}, expected fewer than rows and columns; "
      "give names where this is meant"
    )
  order = [word.index(axis) for axis in "YXC"]
  return np.ascontiguousarray(pixels.transpose(order), dtype=np.float32)


def _find_channels(
  argument: str, channels: Sequence[Channel], names: tuple[str, ...]
) -> tuple[int, ...]:
  """Returns the numbers of channels that are given by name or number."""
  if isinstance(channels, str | int | np.integer):
    channels = [channels]
  numbers = []
  for channel in channels:
    if isinstance(channel, str):
      if channel not in names:
        raise ValueError(
          f"{argument}: found {channel!r}, expected one of {', '.join(names)}"
        )
      numbers.append(names.index(channel))
      continue
    is_whole = isinstance(channel, int | np.integer)
    if not is_whole or isinstance(channel, bool):
      raise ValueError(
        f"{argument}: found {channel!r}, expected a name or a whole number"
      )
    if not 0 <= channel < len(names):
      raise ValueError(
        f"{argument}: found channel {channel}, expected 0 to {len(names) - 1}"
      )
    numbers.append(int(channel))
  if len(set(numbers)) != len(numbers):
    raise ValueError(f"{argument}: found a channel twice, expected each once")
  return tuple(numbers)


def _measure_cells(
  cells: Labels, is_border: np.ndarray, loaded: LoadedImage | None
) -> "pd.DataFrame":
  from dicexmbd_jax.masks import measure

  table = measure.measure_regions(cells).assign(is_border=is_border)
  if loaded is None:
    return table
  counts = measure.measure_intensities(loaded.stack, cells, loaded.names)
  return table.merge(counts, on="Object")
