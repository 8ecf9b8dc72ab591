"""What napari shows of one image: data, settings and kind of each layer.

Nothing here needs napari: a layer is the tuple that napari's readers return.
"""

import dataclasses
import gc
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dicexmbd_jax import chain, markers
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.io import images, labels, probabilities, tables
from dicexmbd_jax.masks import measure
from dicexmbd_jax.types import ImageSource, LoadedImage, Panel
from dicexmbd_jax.viewer import corrections
from dicexmbd_jax.viewer.study import Study

LayerData = tuple[np.ndarray, dict[str, Any], str]

KEY = "dicexmbd_jax"  # Of a layer's metadata, whose value is its origin.
STROKES_KEY = "dicexmbd_jax_strokes"  # Where labels are strokes, no cells.
COMPOSITE = {"nuclear": "blue", "membrane": "green"}
_MAP_COLOURS = ("blue", "green", "gray")
_CONTRAST_PERCENTILE = 99.5
_SAMPLE_PX = 512  # Of each axis, for contrasts: percentiles of all are slow.


@dataclasses.dataclass(frozen=True)
class LayerOrigin:
  """What a layer shows.

  Attributes:
    path: what was opened.
    stem: the image's name.
    kind: "channel" (of the composite), "marker", "cells", "nuclei",
      "probability" or "uncertainty".
    results: the folder of the image's masks; None without one.
    original: of cells, the labels before any correction.
    saved: of cells, the labels as they lie on disk, or as they were found.
    role: of a marker, "nuclear", "membrane" or "", as a panel or its name has
      it.
  """

  path: pathlib.Path
  stem: str
  kind: str
  results: pathlib.Path | None = None
  original: np.ndarray | None = dataclasses.field(default=None, compare=False)
  saved: np.ndarray | None = dataclasses.field(default=None, compare=False)
  role: str = ""


def find_window(napari_viewer: Any) -> Any:
  """Returns napari's viewer itself: each widget gets a proxy of its own."""
  return getattr(napari_viewer, "__wrapped__", napari_viewer)


def get_origin(layer: Any) -> LayerOrigin | None:
  """Returns what a napari layer shows; None for layers of others."""
  return layer.metadata.get(KEY)


def remove_layers(shown: Any, layers: Iterable[Any]) -> None:
  """Removes some of napari's layers.

  napari looks for garbage among all objects after each layer, which takes most
  of the time; here those that were there before are left out.

  Args:
    shown: napari's layers.
    layers: those to remove.
  """
  gc.freeze()
  try:
    for layer in layers:
      shown.remove(layer)
  finally:
    gc.unfreeze()


def list_markers(shown: Iterable[Any], stem: str | None = None) -> list[Any]:
  """Returns those of napari's layers that are markers of an image.

  Args:
    shown: napari's layers.
    stem: the image's name; None: of the first marker's image.
  """
  found: list[Any] = []
  image = None  # Two files in two folders may have one name.
  for layer in shown:
    origin = get_origin(layer)
    if origin is not None and origin.kind == "marker":
      if image is None and stem in (None, origin.stem):
        image = (origin.path, origin.stem)
      found += [layer] if (origin.path, origin.stem) == image else []
  return found


def list_roles(shown: Iterable[Any], stem: str | None = None) -> dict[str, str]:
  """Returns the roles of an image's markers by name; see list_markers."""
  return {one.name: one.metadata[KEY].role for one in list_markers(shown, stem)}


def is_unsaved(layer: Any) -> bool:
  """Whether a layer has cells that were changed since they were saved."""
  origin = get_origin(layer)
  if origin is None or origin.saved is None:
    return False
  return not np.array_equal(layer.data, origin.saved)


def count_um(layer: Any) -> float:
  """Returns how many um a layer's unit has; 1 where that is no length."""
  unit = layer.units[-1]
  is_length = str(unit.dimensionality) == "[length]"
  return float((1 * unit).to("um").magnitude) if is_length else 1.0


def list_layers(study: Study, stem: str) -> tuple[list[LayerData], list[str]]:
  """Reads one image of a study and what was made of it.

  Args:
    study: as `find_study` gives it.
    stem: the image's name.

  Returns:
    The layers, in napari's order (the first lies below), and what could not be
    shown, one line each.

  Raises:
    ValueError: nothing of the image can be read; one line.
  """
  lines: list[str] = []
  pixel_um = study.pixel_size_um or 1.0
  found: list[LayerData] = []
  source, loaded = study.images[stem], None
  if source is not None:
    loaded = _read_loaded(source, study.panel, lines)
    if loaded is not None:
      pixel_um = study.pixel_size_um or loaded.pixel_size_um or 1.0
      loaded = dataclasses.replace(loaded, pixel_size_um=pixel_um)
      origin = LayerOrigin(study.path, stem, "", results=study.results)
      found += show_image(loaded, origin, lines)
  if study.results is not None:
    found += _show_maps(study, stem, pixel_um, lines)
    found += _show_masks(study, stem, loaded, pixel_um, lines)
  if not found:
    raise ValueError(lines[0] if lines else f"{stem}: found nothing to show")
  return found, lines


def guess_roles(loaded: LoadedImage) -> LoadedImage:
  """Returns the image with nuclear and membrane channels told by their names.

  Roles that a panel or the file told stay.
  """
  if loaded.nuclear:
    return loaded
  numbered = list(enumerate(loaded.names))
  nuclear = [k for k, name in numbered if markers.is_nuclear_stain(name)]
  membrane = [k for k, name in numbered if markers.is_membrane_stain(name)]
  rest = tuple(k for k in membrane if k not in nuclear)
  return dataclasses.replace(loaded, nuclear=tuple(nuclear), membrane=rest)


def show_image(
  loaded: LoadedImage, origin: LayerOrigin, lines: list[str]
) -> list[LayerData]:
  """Returns the composite's two channels, and a hidden layer per marker.

  Args:
    loaded: with roles.
    origin: of the image; its kind is replaced.
    lines: what could not be shown is added.
  """
  size = loaded.pixel_size_um or 1.0
  found: list[LayerData] = []
  # One plane after the other in memory, as napari draws them.
  planes = np.ascontiguousarray(np.moveaxis(loaded.stack, -1, 0))
  roles = dict.fromkeys(loaded.membrane, "membrane")
  roles |= dict.fromkeys(loaded.nuclear, "nuclear")
  for k, (name, plane) in enumerate(zip(loaded.names, planes, strict=True)):
    own = dataclasses.replace(origin, role=roles.get(k, ""))
    settings = describe_layer(own, "marker", name, size)
    settings |= {"visible": False, "colormap": "gray", "blending": "additive"}
    settings["contrast_limits"] = (0.0, find_contrast(plane))
    found.append((plane, settings, "image"))
  return [*_show_composite(loaded, origin, lines), *found]


def find_contrast(plane: np.ndarray) -> float:
  """Returns the value that is shown brightest; above 0, whatever the plane."""
  steps = [max(1, size // _SAMPLE_PX) for size in plane.shape]
  sample = plane[:: steps[0], :: steps[1]]
  sample = sample[np.isfinite(sample)]
  if not sample.size:
    return 1.0
  high = float(np.percentile(sample, _CONTRAST_PERCENTILE))
  return high if high > 0 else max(float(sample.max()), 1.0)


def read_features(results: pathlib.Path, tag: str, stem: str) -> pd.DataFrame:
  """Returns a row per cell, with its id in `index` as napari wants it.

  Args:
    results: the folder of the tables.
    tag: what follows their names, as _deepcell in steinbock's.
    stem: the image's name.

  Returns:
    The regions' and the intensities' columns, of tables that can be read.
  """
  whole = pd.DataFrame({"Object": pd.Series(dtype=int)})
  for kind in ("regionprops", "intensities"):
    path = results / f"{kind}{tag}" / f"{stem}.csv"
    if path.is_file():
      whole = whole.merge(tables.read_table(path), on="Object", how="outer")
  return name_features(whole)


def name_features(table: pd.DataFrame) -> pd.DataFrame:
  """Returns a table of cells as napari's features: `index` has the ids."""
  return table.rename(columns={"Object": "index"})


def measure_cells(
  cells: np.ndarray, shown: Iterable[Any], stem: str
) -> pd.DataFrame:
  """Returns the rows of an image's cells, of the markers that are shown.

  Args:
    cells: labels (y, x).
    shown: napari's layers.
    stem: the image's name.
  """
  planes = {
    layer.name: np.asarray(layer.data)
    for layer in list_markers(shown, stem)
    if layer.data.shape == cells.shape
  }
  if not planes:
    return name_features(measure.measure_regions(cells))
  stack = np.stack(list(planes.values()), axis=-1)
  return _measure_stack(cells, stack, tuple(planes))


def _measure_stack(
  cells: np.ndarray, stack: np.ndarray, names: Sequence[str]
) -> pd.DataFrame:
  table = measure.measure_regions(cells)
  counts = measure.measure_intensities(stack, cells, tuple(names))
  return name_features(table.merge(counts, on="Object"))


def _read_loaded(
  source: ImageSource, panel: Panel | None, lines: list[str]
) -> LoadedImage | None:
  """Reads what the panel asks for; every channel where it does not fit."""
  if panel is not None:
    try:
      return guess_roles(images.read_image(source, panel))
    except (ValueError, OSError) as error:
      lines.append(str(error))
  try:
    return guess_roles(images.read_every_channel(source))
  except (ValueError, OSError) as error:
    lines.append(str(error))
    return None


def _show_composite(
  loaded: LoadedImage, origin: LayerOrigin, lines: list[str]
) -> Iterator[LayerData]:
  config = config_lib.read_model_config(config_lib.SHIPPED_MODEL).image
  try:
    image, _ = chain.merge_channels(loaded, config)
  except ValueError as error:
    lines.append(f"{origin.stem}: {error}")
    return
  for k, (name, colour) in enumerate(COMPOSITE.items()):
    settings = describe_layer(
      origin, "channel", name, loaded.pixel_size_um or 1.0
    )
    settings |= {"colormap": colour, "blending": "additive"}
    settings["contrast_limits"] = (0.0, 255.0)
    yield np.ascontiguousarray(image[..., k]), settings, "image"


def describe_layer(
  origin: LayerOrigin, kind: str, name: str, pixel_um: float
) -> dict[str, Any]:
  """Returns the settings that all layers have.

  Args:
    origin: of the image; its kind is replaced.
    kind: what the layer shows.
    name: of the layer.
    pixel_um: edge of its pixels.
  """
  return {
    "name": name,
    "scale": (pixel_um, pixel_um),
    "units": ("um", "um"),
    "metadata": {KEY: dataclasses.replace(origin, kind=kind)},
  }


def _show_masks(
  study: Study,
  stem: str,
  loaded: LoadedImage | None,
  pixel_um: float,
  lines: list[str],
) -> Iterator[LayerData]:
  """Yields nuclei, hidden, and cells; corrected ones in place of their own."""
  results = study.results
  assert results is not None
  origin = LayerOrigin(study.path, stem, "", results=results)
  for folder in [results / "nuclei", *sorted(results.glob("masks*"))]:
    mask = _read_quietly(labels.read_labels, folder, stem, lines)
    if mask is None:
      continue
    is_nuclei = folder.name == "nuclei"
    tag = "" if is_nuclei else folder.name.removeprefix("masks")
    kind = "nuclei" if is_nuclei else "cells"
    corrected = None
    if folder.name == "masks":
      place = results / "corrected"
      corrected = _read_quietly(labels.read_labels, place, stem, lines)
    shown = mask if corrected is None else corrected
    if corrected is not None:
      record = results / f"corrected/{stem}.csv"
      if not corrections.is_recorded(record, mask, corrected):
        lines.append(
          f"{record}: found corrections of other cells than those in {folder}; "
          "they are shown, and what is changed now goes into another folder"
        )
        mask = corrected
    if not is_nuclei:
      origin = dataclasses.replace(origin, original=mask, saved=shown)
    settings = describe_layer(origin, kind, f"{kind}{tag}", pixel_um)
    settings |= {"visible": not is_nuclei, "opacity": 0.5}
    if corrected is None:
      features = _read_features(results, tag, stem, lines)
    else:
      features = _measure_corrected(shown, loaded)
    if len(features):
      settings["features"] = features
    # A copy: napari's brush paints into what it is given.
    yield shown.copy(), settings, "labels"


def _measure_corrected(
  cells: np.ndarray, loaded: LoadedImage | None
) -> pd.DataFrame:
  """Returns the rows of corrected cells, which no table has."""
  if loaded is None or loaded.stack.shape[:2] != cells.shape:
    return name_features(measure.measure_regions(cells))
  return _measure_stack(cells, loaded.stack, loaded.names)


def _read_features(
  results: pathlib.Path, tag: str, stem: str, lines: list[str]
) -> pd.DataFrame:
  try:
    return read_features(results, tag, stem)
  except (ValueError, OSError, KeyError) as error:
    lines.append(str(error))
    return pd.DataFrame()


def _show_maps(
  study: Study, stem: str, pixel_um: float, lines: list[str]
) -> Iterator[LayerData]:
  """Yields probabilities and uncertainty, hidden, on the tissue's place."""
  results = study.results
  assert results is not None
  for kind in ("probabilities", "uncertainty"):
    path = _find_file(results / kind, stem)
    if path is None:
      continue
    source = ImageSource(stem, path)
    try:
      pixels = _READERS[kind](source)
      size = probabilities.read_pixel_size(source) or pixel_um
    except (ValueError, OSError) as error:
      lines.append(str(error))
      continue
    origin = LayerOrigin(study.path, stem, "", results=results)
    yield from show_maps(pixels, kind, origin, size, pixel_um)


def show_maps(
  pixels: np.ndarray,
  kind: str,
  origin: LayerOrigin,
  map_um: float,
  pixel_um: float,
) -> Iterator[LayerData]:
  """Yields the maps of an image, as additive layers that are hidden.

  Args:
    pixels: (y, x, 2 or 3) of "probabilities", (y, x, 1) of "uncertainty";
      0..1, or whole numbers whose dtype's highest stands for 1.
    kind: either word.
    origin: of the image; its kind is replaced.
    map_um: edge of a map's pixel.
    pixel_um: edge of the image's pixel.
  """
  is_whole = pixels.dtype.kind == "u"
  top = float(np.iinfo(pixels.dtype).max) if is_whole else 1.0
  names = [f"probability of {name}" for name in probabilities.CLASSES]
  colours: Sequence[str] = _MAP_COLOURS
  if kind == "uncertainty":
    names, colours = ["uncertainty"], ("magenta",)
  one = "uncertainty" if kind == "uncertainty" else "probability"
  for k in range(pixels.shape[2]):
    settings = describe_layer(origin, one, names[k], map_um)
    # The corners of both grids coincide, and napari places pixels' centres.
    settings["translate"] = ((map_um - pixel_um) / 2,) * 2
    settings |= {"colormap": colours[k], "blending": "additive"}
    settings |= {"visible": False, "contrast_limits": (0.0, top)}
    yield np.ascontiguousarray(pixels[..., k]), settings, "image"


def _find_file(folder: pathlib.Path, stem: str) -> pathlib.Path | None:
  for suffix in (".tiff", ".tif", ".ome.tiff", ".ome.tif"):
    if (folder / f"{stem}{suffix}").is_file():
      return folder / f"{stem}{suffix}"
  return None


def _read_quietly(read, folder: pathlib.Path, stem: str, lines: list[str]):
  """Reads a file of an image; None, and a line, where that cannot be."""
  path = _find_file(folder, stem)
  try:
    return None if path is None else read(path)
  except (ValueError, OSError) as error:
    lines.append(str(error))
    return None


def _read_uncertainty(source: ImageSource) -> np.ndarray:
  from dicexmbd_jax.io import tiff

  pixels = tiff.read_pixels(source.path)
  return pixels[..., None] if pixels.ndim == 2 else pixels


_READERS: Mapping[str, Any] = {
  "probabilities": probabilities.read_probabilities,
  "uncertainty": _read_uncertainty,
}
