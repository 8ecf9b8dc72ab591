"""`export`: from a training run to a model folder, ONNX or BioImage.IO."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import yaml
from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import config as config_lib
from dicexmbd_jax import sections
from dicexmbd_jax.image import normalise, tiling
from dicexmbd_jax.io import write
from dicexmbd_jax.model import unet, weights
from dicexmbd_jax.runs import pool

Path = pathlib.Path

FORMATS = ("folder", "onnx", "bioimageio")
DESCRIPTION, ARCHIVE = "rdf.yaml", "bioimageio.zip"
TEST_PX = 256  # Edge of the simulated image that goes with a model.
_COVER_FACTOR = 2


@dataclasses.dataclass(frozen=True)
class Request:
  """What to export, and where to.

  Attributes:
    source: a model folder.
    output: the new folder.
    format: what is written there; one of FORMATS.
  """

  source: Path
  output: Path
  format: str = FORMATS[0]

  def __post_init__(self):
    """Raises a ValueError: no such format, or the weights written over."""
    if self.format not in FORMATS:
      raise ValueError(
        f"--format: found {self.format!r}, expected {', '.join(FORMATS)}"
      )
    # Nor into the run itself.
    if self.source.resolve().is_relative_to(self.output.resolve()):
      raise ValueError(
        f"{self.output}: found the weights, expected another folder"
      )


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: checkpoint, output, format.
  """
  source = Path(flags.checkpoint or config_lib.SHIPPED_MODEL)
  try:
    request = Request(source, Path(flags.output), flags.format or FORMATS[0])
  except ValueError as error:
    logging.error("%s", error)
    return 2
  try:
    return run_request(request)
  except (ValueError, OSError) as error:
    logging.error("%s", pool.describe_error(error, str(source)))
    return 2


def run_request(request: Request) -> int:
  """Writes the folder.

  Raises:
    ValueError: no weights, broken files beside them, or files of another
      model or of others in the output folder.
    OSError: a file cannot be written.
    ModuleNotFoundError: ONNX is asked for and not installed.
  """
  source, output = request.source, request.output
  model, config = weights.read_model(source)
  numbers = weights.read_numbers(source)
  card = output / "README.md"
  if request.format == "folder":
    if not (output / "params.npz").exists():
      check_files(output, [card.name])
    weights.check_place(output, model, config)
    write.sweep_temporary(output)
    weights.write_model(output, model, config, numbers=numbers)
    write.write_text(card, describe_model(output, model, config, numbers))
  else:
    title = describe_origin(source)
    if not card.exists() or not card.read_bytes().startswith(title.encode()):
      check_files(output, list_files(request.format))
    write.sweep_temporary(output)
    write_graph(output, model, config, title)
  if request.format == "bioimageio":
    write_description(output, model, config, source)
  logging.info("%s: %s", request.format, output)
  return 0


def check_files(folder: Path, names: Iterable[str]):
  """Raises a ValueError where a file of others would be written over."""
  for name in names:
    if (folder / name).exists():
      raise ValueError(
        f"{folder / name}: found a file that no export of this model wrote, "
        "expected another --output"
      )


def list_files(form: str) -> tuple[str, ...]:
  """Returns the names of the files of an export for other programs."""
  from dicexmbd_jax.model import bioimageio

  if form == "onnx":
    return bioimageio.CARD, bioimageio.GRAPH
  tests = bioimageio.TEST_INPUT, bioimageio.TEST_OUTPUT
  return *bioimageio.FILES, *tests, DESCRIPTION, ARCHIVE


def describe_model(
  folder: Path, model: unet.UNet, config: ConfigDict, numbers: dict[str, float]
) -> str:
  """Returns the model card, Markdown: what is known, and nothing else."""
  size = (folder / "params.npz").stat().st_size / 1e6
  lines = [
    f"# {folder.resolve().name}",
    "",
    f"U-Net of width {config.model.width}, depth {config.model.depth}, "
    f"{config.model.in_channels} inputs: {unet.count_parameters(model):,} "
    f"parameters, float16, {size:.1f} MB.",
    "",
    f"- SHA-256 of `params.npz`: `{config_lib.hash_model(folder)}`",
    f"- Preprocessing: `{config.image.preset}`, "
    f"{config.image.pixel_size_um} um per pixel",
    f"- Segmenter: preset `{config.segment.preset}`",
    *describe_training(config, numbers.get("step")),
    *(
      f"- {name}: {value:.6g}"
      for name, value in numbers.items()
      if name != "step"
    ),
    "",
    f"Use: `python -m dicexmbd_jax predict --checkpoint={folder} ...`",
    "",
  ]
  return "\n".join(lines)


def write_graph(folder: Path, model: unet.UNet, config: ConfigDict, title: str):
  """Writes the network as model.onnx, and README.md on how to use it.

  Args:
    folder: made if missing.
    model: the network.
    config: its whole configuration.
    title: first lines of README.md, Markdown.

  Raises:
    OSError: a file cannot be written.
    ModuleNotFoundError: ONNX is not installed.
  """
  from dicexmbd_jax import predict
  from dicexmbd_jax.model import bioimageio, onnx_graph

  views = predict.VIEWS[config.predict.views]
  graph = onnx_graph.build_graph(
    weights.list_arrays(model), config.model, views
  )
  halo_px = tiling.receptive_halo(config.model.depth)
  use = bioimageio.describe_use(
    describe_seen_image(config), len(views), halo_px, config.model.depth,
    config.predict.magnification == sections.AUTO,
  )  # fmt: skip
  # First what tells whose files these are: the same call may write them anew.
  write.write_text(folder / bioimageio.CARD, f"{title}\n{use}")
  write.write_bytes(folder / bioimageio.GRAPH, graph.SerializeToString())


def write_description(
  folder: Path, model: unet.UNet, config: ConfigDict, source: Path
):
  """Makes of a folder with model.onnx one that BioImage.IO's programs take.

  Adds test tensors, a cover, rdf.yaml, and bioimageio.zip with all files.

  Args:
    folder: with model.onnx and README.md.
    model: the network.
    config: its whole configuration.
    source: the model folder.

  Raises:
    OSError: a file cannot be written.
  """
  from dicexmbd_jax.model import bioimageio

  stack = draw_stack()
  image = normalise_channels(stack, config.image.clip_percentile)
  probabilities = predict_image(model, config, image)
  arrays = {
    bioimageio.TEST_INPUT: stack,
    bioimageio.TEST_OUTPUT: probabilities,
  }
  for name, array in arrays.items():
    write.write_npy(folder / name, array.transpose(2, 0, 1)[None])
  cover = draw_cover(image, probabilities)
  write.write_png(folder / bioimageio.COVER, cover)
  stride_px = 2**config.model.depth
  halo_px = tiling.receptive_halo(config.model.depth)
  path = folder / bioimageio.CARD
  more = bioimageio.describe_preprocessing(
    halo_px, stride_px, config.image.preset
  )
  write.write_text(path, path.read_text() + more)
  description = bioimageio.make_description(
    folder,
    name_model(source),
    describe_seen_image(config),
    halo_px,
    stride_px,
    describe_makers(source),
  )
  text = yaml.safe_dump(description, sort_keys=False)
  write.write_text(folder / DESCRIPTION, text)
  names = (*arrays, *bioimageio.FILES, DESCRIPTION)
  write_zip(folder / ARCHIVE, [folder / name for name in names])


def describe_seen_image(config: ConfigDict) -> ConfigDict:
  """Returns the section `image` with the pixel size that the network sees.

  Where its model has a magnification of its own, that is finer than the size
  which `predict` magnifies from.
  """
  image = config.image.copy_and_resolve_references()
  if config.predict.magnification != sections.AUTO:
    image.pixel_size_um /= config.predict.magnification
  return image


def draw_stack() -> np.ndarray:
  """Returns simulated counts of nuclei and membranes, float32 (y, x, 2)."""
  from dicexmbd_jax.simulate import study

  image = study.draw_image(0, 0, (TEST_PX, TEST_PX))
  groups = image.nuclear, image.membrane
  return np.stack(
    [image.stack[..., group].mean(-1, dtype=np.float32) for group in groups], -1
  )


def normalise_channels(stack: np.ndarray, percentile: float) -> np.ndarray:
  """Returns what rdf.yaml's steps make of counts, float32 (y, x, 2)."""
  channels = [
    normalise.scale_min_max(normalise.clip_percentile(channel, percentile))
    for channel in np.moveaxis(stack, -1, 0)
  ]
  return np.stack(channels, -1)


def predict_image(
  model: unet.UNet, config: ConfigDict, image: np.ndarray
) -> np.ndarray:
  """Returns the probabilities of one image, float32 (y, x, 3)."""
  from dicexmbd_jax import predict

  answers = predict.predict_images([(None, image)], model, config.predict)
  return next(answers)[1]


def draw_cover(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
  """Returns the image and its probabilities side by side, uint8 (y, x, 3)."""
  from dicexmbd_jax.report import overlay

  channels = [overlay.stretch_channel(image[..., i]) for i in (0, 1)]
  maps = [np.rint(255 * probabilities[..., i]).astype(np.uint8) for i in (0, 1)]
  halves = [
    overlay.blend_channels(
      *(overlay.enlarge_channel(one, _COVER_FACTOR) for one in pair)
    )
    for pair in (channels, maps)
  ]
  return np.concatenate(halves, 1)


def name_model(source: Path) -> str:
  """Returns a name that says whose weights these are."""
  if is_shipped(source):
    return "dicexmbd base"
  folder = source.resolve()
  folder = folder.parent if folder.name in ("best", "last") else folder
  return f"dicexmbd {folder.name}"


def is_shipped(source: Path) -> bool:
  """Returns whether a model folder has the shipped weights."""
  hashes = [
    config_lib.hash_model(one) for one in (source, config_lib.SHIPPED_MODEL)
  ]
  return hashes[0] == hashes[1]


def describe_makers(source: Path) -> Mapping[str, Any]:
  """Returns authors and licence; of other weights than ours nobody knows."""
  if not is_shipped(source):
    return {"authors": [{"name": "unknown"}]}
  return {"authors": [{"name": "The dicexmbd_jax authors"}], "license": "MIT"}


def describe_origin(source: Path) -> str:
  """Returns the first lines of README.md: which weights these are."""
  digest = config_lib.hash_model(source)
  return (
    f"# {name_model(source)}\n\n"
    "The paper's U-Net as an ONNX graph, with all that `predict` does around "
    f"it.\nSHA-256 of the weights: `{digest}`.\n"
  )


def write_zip(path: Path, files: list[Path]):
  """Writes files into an archive without folders; the same bytes each time."""
  with (
    write.replace_file(path) as temporary,
    zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
  ):
    for file in files:
      archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())


def describe_training(config: ConfigDict, step: float | None) -> list[str]:
  """Returns the lines on data and steps that the configuration knows of.

  Args:
    config: of the run.
    step: that the weights are of, where that is known.
  """
  train = config.get("train")
  if train is None or "data" not in train:
    return []
  data = ", ".join(
    f"`{name}` (weight {part.weight})" for name, part in train.data.items()
  )
  return [
    f"- Trained on the records {data}",
    f"- {f'Step {step:g} of ' if step else ''}{train.num_steps} steps, each of "
    f"{train.batch_size} patches of {train.crop_px} px, seed {config.seed}",
  ]
