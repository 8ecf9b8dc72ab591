"""The default configuration: every value, with its unit and a why.

Other configs import this one and override a few fields. Any value can be
overridden on the command line, as in --config.segment.scale=1.
"""

from ml_collections import ConfigDict, config_dict

from dicexmbd_jax.masks.settings import Settings


def get_config() -> ConfigDict:
  """Returns the default configuration."""
  config = ConfigDict()
  config.seed = 0

  # From counts to the two-channel image (paper, section 2.4.1).
  config.image = ConfigDict()
  config.image.preset = "paper"  # "paper" or "reference" (published code).
  config.image.pixel_size_um = 1.0  # What the network sees; IMC ablates 1 um.
  config.image.hot_pixel_counts = 50.0  # Above its neighbourhood by this: hot.
  config.image.clip_percentile = 99.7  # Per image, of all pixels.
  # Values below zero, as compensation leaves them: "refuse" the image, or
  # "clip" them. The tables have them as they are.
  config.image.negative = "refuse"

  # The U-Net. Width 64 with 3 inputs is the published architecture.
  config.model = ConfigDict()
  config.model.width = 16  # Channels of the first level; doubles at each.
  config.model.depth = 4  # Number of 2x2 poolings.
  config.model.in_channels = 2  # Nuclear, membrane/cytoplasm.
  config.model.dtype = "float32"  # Of the computation; "bfloat16" on GPUs.

  # Tiles cut from images of any size, so that jit compiles one shape a run.
  config.predict = ConfigDict()
  # Edge of a tile, a multiple of 2**depth; 0: 128 to 1024, for each image what
  # computes less. The answer does not depend on it.
  config.predict.tile_px = 0
  # Mirrored views of each tile whose mean is taken: 1, 4 or 8. The shipped
  # weights use 4.
  config.predict.views = 1
  # How many times larger than it is the network sees the tissue: a factor, or
  # "auto" for the one that brings each image's nuclei to the size that the
  # shipped weights find best.
  config.predict.magnification = 1.0
  # Shares of the brightest signal around: where a pixel has less in both
  # channels, it is background, whatever the network says. 0: it is not asked.
  config.predict.nuclear_evidence = 0.0
  config.predict.membrane_evidence = 0.1
  # Tiles at once on each device; 0: 1 on a processor, else up to 8, as many as
  # its memory allows.
  config.predict.batch_size = 0

  # From probabilities to cells: masks/settings.py has every setting with its
  # unit, and the presets "touching", "dice_xmbd" (the published masks) and
  # "steinbock". None means: as the preset has it.
  config.segment = ConfigDict({"preset": "touching"})
  for name in Settings.__dataclass_fields__:
    config.segment[name] = None

  # Training records, as data_builders/build.py writes them.
  config.records = ConfigDict()
  config.records.patch_px = 512  # Paper, section 2.4.1: 512 x 512, padded.
  config.records.cut = "grid"  # "grid": every pixel; "random": chance places.
  _add_placeholders(
    config.records,
    stride_px=int,  # Of the grid; less than the patch overlaps. None: no gap.
    group_pattern=str,  # On image names: their slide. None: each image alone.
  )
  config.records.num_random = 4  # Patches an image, if cut at random.
  # Panels an image is seen under: its own, and parts of it drawn at random.
  config.records.num_panels = 1
  config.records.seed = 0  # Of random places and panels.
  config.records.rim_fraction = 0.7  # train/targets.py: make_target.
  config.records.group_column = "group"  # Of the table --groups.
  config.records.salt = "dicexmbd"  # Another salt, other groups in the test.
  config.records.shares = ConfigDict()  # Of groups; they sum to 1.
  config.records.shares.train = 0.8
  config.records.shares.validation = 0.1  # Chooses the weights.
  config.records.shares.test = 0.1
  config.records.counts = ConfigDict()  # Images a split, in place of shares.
  config.records.lists = ConfigDict()  # Split -> groups or images by name.
  config.records.shard_mib = 128  # Raw; half on disk. See the builder's README.

  # Training, from records. Steps are optimizer steps.
  config.train = ConfigDict()
  # Name -> path of built records and weight, the share of patches drawn.
  config.train.data = ConfigDict(
    {"records": {"path": "records", "weight": 1.0}}
  )
  config.train.num_workers = 0  # Reading processes; 0 = threads, as fast.
  config.train.num_steps = 3000
  _add_placeholders(config.train, num_epochs=float)  # In place of num_steps.
  config.train.batch_size = 4  # Patches a step, on all devices together.
  config.train.accumulate_steps = 1  # Parts of a batch, where memory is short.
  config.train.crop_px = 160  # Several cells and their neighbours; CPU-sized.
  # Arrays of more numbers are spread over the devices (FSDP), for networks too
  # wide for one; None: every device holds all.
  _add_placeholders(config.train, shard_above=int)
  config.train.schedule = "cosine"  # "constant", "plateau" (the published).
  config.train.learning_rate = 3e-3
  config.train.warmup_steps = 100
  config.train.plateau_factor = 0.1  # Published: x 0.1 ...
  config.train.plateau_patience = 3  # ... after 3 validations without progress.
  config.train.weight_decay = 1e-3  # 0 makes AdamW Adam.
  config.train.clip_norm = 1.0  # Of the gradient, over all parameters; 0: off.
  config.train.average_decay = 0.995  # Of the weights' moving average; 0: off.
  config.train.report_steps = 50
  # None: an epoch; and as often as that.
  _add_placeholders(config.train, eval_steps=int, checkpoint_steps=int)
  config.train.keep_checkpoints = 2  # The newest; the best stays as well.
  config.train.strip_every = 5  # Validations between two pictures.
  config.train.cells_every = 0  # Validations between two cell scores; 0: end.
  config.train.cells_records = 32  # Validation records whose cells are scored.
  config.train.loss = ConfigDict()
  config.train.loss.class_weights = (1.0, 1.0, 1.0)  # Only ratios count.
  config.train.loss.dice_weight = 0.0  # 0: the paper's; 1: dice alone.
  config.train.augment = ConfigDict()  # Strengths; see train/augment.py.
  config.train.augment.contrast = 0.5  # Paper: x U[0.5, 1.5].
  config.train.augment.intensity = 0.5  # Paper: x U[0.5, 1.5].
  config.train.augment.rotation_deg = 180.0  # Paper: U[-180, 180].
  config.train.augment.interpolated = 0.25  # The rest: quarter turns only.
  config.train.augment.flip = True
  config.train.augment.noise = 6.0  # Grey levels of 255.
  config.train.augment.log_scale = 0.2  # Tissues differ in cell size.
  config.train.augment.blur_px = 0.6
  config.train.augment.gamma = 0.3
  config.train.augment.channel_dropout = 0.05
  config.train.augment.nuclear_dropout = 0.0  # No cell is found without nuclei.
  config.train.augment.poisson = 0.0  # Ions anew; 0.1 = 100 at full signal.
  config.train.augment.shift = 1.0  # Crops from all over the patch.
  config.train.augment.background = 0.0  # Smooth, beneath the signal.
  config.train.augment.dim = 0.0  # Down to exp(-1.6) = a fifth, by 1.6.
  config.train.augment.empty = 0.0  # Examples that become noise without cells.
  return config


def _add_placeholders(config: ConfigDict, **types: type) -> None:
  """Adds fields that are None until a value of their type is set."""
  for name, field_type in types.items():
    config[name] = config_dict.placeholder(field_type)
