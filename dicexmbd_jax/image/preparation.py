"""From a loaded image to what the network sees, in prediction and training.

The record builder, the trainer's validation and the predictor call the same two
functions, so that a network never sees other pixels than it was trained on.
"""

from typing import Any

from dicexmbd_jax.image import channels, resample
from dicexmbd_jax.types import Image, LoadedImage, Stack


def merge_loaded(
  loaded: LoadedImage, config: Any
) -> tuple[Image, tuple[str, ...]]:
  """Makes the two-channel image of one loaded image, on its own grid.

  Args:
    loaded: as io.images.read_image gives it.
    config: the config's section `image`.

  Returns:
    The image, float32 (y, x, 2) in 0..255, and warnings, one line each.

  Raises:
    ValueError: counts that are not finite and positive, unless the config
      clips them, or no nuclear marker; it does not name the file.
  """
  stack: Stack = loaded.stack
  lines: tuple[str, ...] = ()
  # Teachers of before have no such value.
  if config.get("negative", "refuse") == "clip":
    stack, lines = channels.clip_negative(stack, loaded.names)
  channels.check_stack(stack, loaded.names)
  image, warnings = channels.merge_channels(
    stack, loaded.nuclear, loaded.membrane, config, loaded.names
  )
  return image, (*lines, *warnings)


def to_network_grid(image: Image, pixel_size_um: float, config: Any) -> Image:
  """Returns the image at the network's pixel size.

  Args:
    image: float32 (y, x, 2).
    pixel_size_um: of the image.
    config: the config's section `image`: pixel_size_um is the network's.

  Raises:
    ValueError: a pixel size that is not a positive, finite number.
  """
  shape = resample.resampled_shape(
    image.shape[:2], pixel_size_um, config.pixel_size_um
  )
  return resample.resample_image(image, shape)
