"""The first half of the shipped weights' recipe: simulated tissue alone.

    bash launch/experiments/base.sh

Twenty simulated studies, since a study has one panel. What comes out has seen
no real image: its scores on real tissue are those of sources that were left
out, and it labels the images that configs/base.py adds and that have no masks.
One image of each of the first four studies is kept aside for choices.
"""

from ml_collections import ConfigDict

from configs import default

NUM_STUDIES = 20


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = default.get_config()
  # Fitted by fit_segmenter.py. Less smoothing keeps small cells apart,
  # and shallow saddles no longer cut large ones.
  config.segment.cell_correction = 1.2
  # Empty fields have few cells, and where tissue fills the image, they keep
  # their size; elsewhere the two bounds change nothing (F1 on the validation
  # images of spleen and simulated tissue within 0.001).
  config.segment.min_nucleus_threshold = 0.25
  config.segment.max_cell_threshold = 0.6
  config.segment.regularisation = 0.4
  config.segment.min_saddle_depth = 0.12
  config.segment.smoothing_px = 1.0
  config.segment.declump_smoothing_px = 0.0
  config.segment.min_diameter_px = 2.0
  config.segment.min_nucleus_area_px = 3.0
  # On validation images it added 0.004 to 0.01 to F1, at four times the
  # network's time.
  config.predict.views = 4
  # Crops of 160 px turn within 272 px. Overlapping by half, a place is seen
  # whole in one patch or another.
  config.records.patch_px = 272
  config.records.stride_px = 136
  config.records.num_panels = 3
  config.records.shares.update({"train": 1.0, "validation": 0.0, "test": 0.0})
  # Filled in by the script, for each source its own.
  config.records.lists = ConfigDict({"validation": [], "test": []})
  config.train.data = mix_sources({}, NUM_STUDIES)
  config.train.num_steps = 3000
  config.train.eval_steps = 600
  config.train.cells_records = 12
  # Strong changes: real images differ from simulated ones in ways not known.
  config.train.augment.interpolated = 0.3
  config.train.augment.log_scale = 0.25
  config.train.augment.blur_px = 1.0
  config.train.augment.channel_dropout = 0.1
  return config


def mix_sources(
  shares: dict[str, float], num_studies: int, prefix: str = "study"
) -> ConfigDict:
  """Returns `config.train.data`: `shares`, and studies of simulated tissue.

  Args:
    shares: of the patches drawn, by name of the records.
    num_studies: studies from study_0 on, which share equally in what is left.
    prefix: of their names, in place of "study".
  """
  rest = (1 - sum(shares.values())) / num_studies
  studies = {f"{prefix}_{i}": rest for i in range(num_studies)}
  return ConfigDict(
    {
      name: {"path": f"training/records/{name}", "weight": share}
      for name, share in {**studies, **shares}.items()
    }
  )
