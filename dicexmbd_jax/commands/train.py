"""`train`: from images with instance masks to a model folder."""

import csv
import io
import pathlib
from collections.abc import Iterable, Iterator

from absl import logging
from ml_collections import ConfigDict

from dicexmbd_jax import checkpoint, predict, segment, train
from dicexmbd_jax import config as config_lib
from dicexmbd_jax.image import preparation, targets
from dicexmbd_jax.io import images as image_reader
from dicexmbd_jax.io import labels, listing, panel, write
from dicexmbd_jax.masks import grid, match
from dicexmbd_jax.model.unet import UNet, build_model
from dicexmbd_jax.types import Image, Labels

Path = pathlib.Path
Pair = tuple[str, Image, Labels]  # Name, the two channels, the cells.


def run(flags) -> int:
  """Runs the command; returns the exit code.

  Args:
    flags: workdir, checkpoint (the weights to start from), config.
  """
  config, workdir = flags.config, Path(flags.workdir)
  if "sources" not in config.get("train", {}):
    logging.error(
      "--config: found no train.sources, expected images to train on"
    )
    return 2
  try:
    write.write_json(workdir / "config.json", config.to_dict())
    examples = list(make_examples(config))
    held_out = list(read_pairs(config, is_validation=True))
    model = start_model(flags.checkpoint, config)
  except (ValueError, OSError) as error:
    logging.error("%s", error)
    return 2
  logging.info("%d images to train on", len(examples))
  log: list[dict[str, float]] = []

  def report(step: int, loss: float, model: UNet):
    scores = score_cells(held_out, model, config)
    log.append({"step": step, "loss": loss, **scores})
    logging.info("step %d  %s", step, format_scores(scores))
    write.write_text(workdir / "log.csv", format_log(log))
    checkpoint.write_model(workdir, model, config)

  try:
    train.train(model, examples, config, report)
  except FloatingPointError as error:
    logging.error("%s; the last good weights are in %s", error, workdir)
    return 1
  logging.info("weights: %s", workdir)
  return 0


def start_model(folder: str | None, config: ConfigDict) -> UNet:
  """Returns the network to train: from a model folder, or random.

  Raises:
    ValueError: the folder holds another network than `config.model`.
  """
  if folder is None:
    return build_model(config.model, config.seed)
  model, trained = checkpoint.read_model(Path(folder), config.model.dtype)
  config_lib.check_model_section(config, trained)
  return model


def make_examples(config: ConfigDict) -> Iterator[train.Example]:
  """Yields the training images; a source's share is spread over its images.

  Raises:
    ValueError: a source cannot be read, or image and mask do not fit.
  """
  for name, source in config.train.sources.items():
    pairs = list(read_source(name, source, config, is_validation=False))
    for stem, image, cells in pairs:
      target = targets.make_target(cells, config.train.rim_fraction)
      yield train.Example(stem, image, target, source.share / len(pairs))


def read_pairs(config: ConfigDict, is_validation: bool) -> Iterator[Pair]:
  """Yields images and cells of all sources."""
  for name, source in config.train.sources.items():
    yield from read_source(name, source, config, is_validation)


def read_source(
  name: str, source: ConfigDict, config: ConfigDict, is_validation: bool
) -> Iterator[Pair]:
  """Yields one source's images, as prediction sees them, with their cells.

  Args:
    name: for messages.
    source: images, panel, masks: paths; validation: stems kept for choices;
      unseen: stems never read.
    config: the whole configuration.
    is_validation: which of the two sets.

  Raises:
    ValueError: a file cannot be read, or image and mask do not fit.
  """
  rows = panel.read_panel(source.panel)
  found, broken = listing.list_images(source.images)
  for path, message in broken:
    raise ValueError(f"{path}: {message}")
  for item in found:
    if item.stem in source.unseen:
      continue
    if (item.stem in source.validation) != is_validation:
      continue
    loaded = image_reader.read_image(item, rows)
    image, _ = preparation.merge_loaded(loaded, config.image)
    path = Path(source.masks) / f"{item.stem}.tiff"
    cells = labels.read_labels(path)
    if cells.shape != image.shape[:2]:
      raise ValueError(
        f"{path}: found {cells.shape} px, expected {image.shape[:2]} as the "
        f"image {item.path} has"
      )
    image = preparation.to_network_grid(
      image, loaded.pixel_size_um or 1.0, config.image
    )
    yield (
      f"{name}/{item.stem}",
      image,
      grid.sample_labels(cells, image.shape[:2]),
    )


def score_cells(
  pairs: Iterable[Pair], model: UNet, config: ConfigDict
) -> dict[str, float]:
  """Returns F1 at IoU 0.5 of each image, by its name."""
  cells = {name: reference for name, _, reference in pairs}
  images = ((name, image) for name, image, _ in pairs)
  scores = {}
  for name, maps in predict.predict_images(images, model, config.predict):
    found = segment.segment_image(maps, config.segment).cells
    scores[name] = match.score_f1(found, cells[name])
  return scores


def format_scores(scores: dict[str, float]) -> str:
  """Returns the scores as one line."""
  return "  ".join(f"{name} {score:.3f}" for name, score in scores.items())


def format_log(log: list[dict[str, float]]) -> str:
  """Returns the log as CSV: step, loss, then each validation image's F1."""
  text = io.StringIO()
  writer = csv.DictWriter(text, list(log[0]), lineterminator="\n")
  writer.writeheader()
  writer.writerows(log)
  return text.getvalue()
