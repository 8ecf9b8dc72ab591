"""Model folders whose network is tiny, for tests of what surrounds it."""

import numpy as np

from configs import default
from dicexmbd_jax.model import unet, weights


def write_tiny_model(folder, crop_px=None):
  """Writes a network that finds cells: its maps are about its inputs.

  crop_px: what fine-tuning cuts, which has to fit into small images.
  """
  config = default.get_config()
  config.model.update({"width": 2, "depth": 1})
  config.predict.update({"tile_px": 64, "batch_size": 2})
  if crop_px is not None:
    config.train.crop_px = crop_px
  model = unet.build_model(config.model)
  # The decoder passes the nuclear and the membrane channel through.
  for block in (model.encoders[0], model.decoders[0]):
    for conv in (block.conv1, block.conv2):
      kernel = np.zeros(conv.kernel.shape, np.float32)
      kernel[1, 1, -2:, :] = np.eye(2)
      conv.kernel[...] = kernel
  head = np.array([[0.05, -0.02, -0.05], [-0.02, 0.05, -0.05]], np.float32)
  model.head.kernel[...] = head[None, None]
  model.head.bias[...] = np.array([-3.0, -3.0, 3.0], np.float32)
  weights.write_model(folder, model, config)
  return folder
