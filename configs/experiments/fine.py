"""Half the pixel size: all sources at 0.5 um per pixel, and drawn nuclei.

    bash launch/experiments/fine.sh

Goes on from the shipped weights, which are not made by it (ablations.md), at a
pixel size where a lymphocyte's nucleus is 10 px across and the rim between two
of them more than one. Nuclei join in that people drew in fluorescence images
(dsb2018_fluo, intestine_nuclei), with a membrane drawn around them
(launch/experiments/stain_nuclei.py): dark gaps between cells, which simulated
tissue and spleen hardly have. Images without masks carry the cells that the
shipped model finds in them.

dsb2018_fluo has images of eight sizes, and a plate has one: four are trained
on. The others, the validation images of intestine_nuclei, and all of
mibi_breast and vectra_phenoptr are left for judging.
"""

from ml_collections import ConfigDict

from configs import robust, simulated

NUM_STUDIES = 12
SHARES = {
  "fine_spleen": 0.16,
  "fine_spleen_small": 0.04,
  "fine_spleen_large": 0.05,
  "fine_mibi_lymph": 0.05,
  "fine_mibi_lymph_large": 0.03,
  "fine_nuclear_imc": 0.06,
  "fine_dsb": 0.15,
  "fine_intestine": 0.18,
}


def get_config() -> ConfigDict:
  """Returns the configuration."""
  config = robust.get_config()
  config.image.pixel_size_um = 0.5
  # One view at this pixel size costs what four cost at 1 um.
  config.predict.views = 1
  config.train.data = simulated.mix_sources(
    SHARES, NUM_STUDIES, prefix="fine_study"
  )
  config.seed = 3  # Other patches than before.
  config.train.num_steps = 4000
  config.train.eval_steps = 2000
  config.train.checkpoint_steps = 250
  config.train.warmup_steps = 100
  config.train.augment.log_scale = 0.3
  config.train.augment.interpolated = 0.3
  config.train.augment.blur_px = 1.0
  config.train.augment.noise = 4.0
  config.train.augment.contrast = 0.35
  config.train.augment.intensity = 0.35
  config.train.augment.gamma = 0.2
  config.train.augment.background = 0.12
  config.train.augment.dim = 1.2
  return config
