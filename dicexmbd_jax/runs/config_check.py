"""Looks at the sections of a configuration that every prediction reads."""

from ml_collections import ConfigDict

from dicexmbd_jax import predict
from dicexmbd_jax.image import channels
from dicexmbd_jax.io import metadata
from dicexmbd_jax.masks.settings import resolve_settings


def check_prediction(config: ConfigDict) -> None:
  """Raises ValueError, one line, for values that nobody can predict with.

  Args:
    config: its sections image, predict and segment are looked at.
  """
  resolve_settings(config.segment)
  channels.check_config(config.image)
  size_um = config.image.pixel_size_um
  metadata.check_pixel_size("config.image.pixel_size_um", size_um)
  predict.check_config(config.predict, config.model.depth)
