"""Two minutes of a processor, to see that all works.

    python -m dicexmbd_jax simulate --output=training/tiny_study \
      --num_images=6 --size_px=200
    python -m data_builders.build --config=configs/tiny.py \
      --images=training/tiny_study/img --panel=training/tiny_study/panel.csv \
      --teacher=training/tiny_study/truth/masks --output=training/tiny
    python -m dicexmbd_jax train --config=configs/tiny.py --workdir=DIR

Measured: 2.0 minutes of processor time, training loss 0.41, validation loss
0.44, F1 against the teacher's cells 0.54. The batch goes evenly on 8 devices,
as launch/fake_devices.sh and launch/two_processes.sh have.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  """Returns the configuration of records and training."""
  config = default.get_config()
  config.model.update({"width": 8, "depth": 3})
  config.records.patch_px = 100
  config.records.counts = ConfigDict({"train": 4, "validation": 2, "test": 0})
  config.train.data = ConfigDict(
    {"simulated": {"path": "training/tiny", "weight": 1.0}}
  )
  config.train.update(
    {"num_steps": 200, "batch_size": 8, "crop_px": 64, "warmup_steps": 10}
    | {"eval_steps": 100}
  )
  config.train.augment.interpolated = 0.0  # The patches have no rim to turn.
  return config
