"""The command line: `python -m dicexmbd_jax COMMAND --flag=value ...`.

The only place that knows flags. A command's module is imported once its flags
are read, so that --help and a wrong call answer at once.
"""

import contextlib
import dataclasses
import gc
import importlib
import logging as standard_logging
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags, logging

from dicexmbd_jax import __version__, allocator, compiled, extras, memory
from dicexmbd_jax import config as config_lib

# As shells have it: 128 and the signal's number.
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143


@dataclasses.dataclass(frozen=True)
class Flag:
  """One flag: how to define it, its default, what it is."""

  define: Callable[..., object]
  default: object
  help: str


@dataclasses.dataclass(frozen=True)
class Command:
  """One command: its flags' names, and where its configuration comes from.

  Attributes:
    help: one line.
    flags: names of its flags.
    config: "weights" (of --checkpoint or the shipped model), "file" (--config
      must be given) or None (it has no configuration).
    required: names of the flags that a call must give.
    extra: of the package, which the command cannot do without.
  """

  help: str
  flags: tuple[str, ...]
  required: tuple[str, ...]
  config: str | None = "weights"
  extra: str = ""


TEXT, TRUTH = flags.DEFINE_string, flags.DEFINE_boolean
WHOLE, REAL, TEXTS = (
  flags.DEFINE_integer,
  flags.DEFINE_float,
  flags.DEFINE_multi_string,
)

FLAGS = {
  "images": Flag(TEXT, None, "Folder, file or glob of TIFF, .mcd, .txt, .zip."),
  "panel": Flag(TEXT, None, "CSV: which channels are nuclear, membrane."),
  "output": Flag(TEXT, None, "Folder for the results; made if missing."),
  "checkpoint": Flag(
    TEXT,
    None,
    "Model folder, or a training run, whose best/ it then is; of it segment "
    "takes the settings alone. Default: the shipped one; random weights for "
    "training.",
  ),
  "pixel_size_um": Flag(
    REAL, None, "Size of the images' pixels; else their metadata's, else 1.0."
  ),
  "num_workers": Flag(
    WHOLE, None, "Processes; 0 = all in this one. Default: one per core."
  ),
  "method": Flag(
    TEXT,
    "network",
    "network, or a baseline on the two channels: distance, watershed, "
    "propagation.",
  ),
  "predicted": Flag(
    TEXTS, None, "Folder of masks, or name=FOLDER; may be given repeatedly."
  ),
  "reference": Flag(TEXT, None, "Folder or glob of reference masks."),
  "masks": Flag(
    TEXTS,
    None,
    "Another tool's masks, name=FOLDER; may be repeated. Of finetune: masks of "
    "cells; or the viewer's corrected/, of which corrected cells count, and "
    "images that were ticked as right whole.",
  ),
  "tolerance_px": Flag(
    REAL, 1.0, "How far apart outlines may lie in the boundary scores."
  ),
  "label_components": Flag(
    TRUTH, False, "Take each piece of a binary mask for a cell."
  ),
  "overwrite": Flag(TRUTH, False, "Do finished images again."),
  "allow_failures": Flag(
    TRUTH, False, "Exit code 0 where images failed, if others were done."
  ),
  "shard": Flag(
    TEXT,
    None,
    "INDEX/COUNT, as 3/16, from 0: do this share of the images only.",
  ),
  "merge": Flag(TRUTH, False, "Bring together what all shares have done."),
  "shares": Flag(
    TEXTS,
    None,
    "With --merge: a share's output folder, or a folder of such; may be "
    "repeated. Default: --output.",
  ),
  "workdir": Flag(
    TEXT,
    None,
    "Folder for weights and log; made if missing; may be gs:// or s3://.",
  ),
  "coordinator": Flag(
    TEXT,
    None,
    "Process 0's HOST:PORT where several processes train together; auto: "
    "SLURM, TPU pods and Kubernetes tell it.",
  ),
  "topology": Flag(
    TEXT,
    None,
    "Devices to compile for, KIND:SHAPE: v5e:2x4, v5p:2x2x2, v6e:2x4, h100:8, "
    "cpu:8. They need not be there.",
  ),
  "num_processes": Flag(WHOLE, None, "How many processes train together."),
  "profile_steps": Flag(
    TEXT,
    None,
    "FIRST:LAST: records these steps in WORKDIR/profile, for TensorBoard.",
  ),
  "process_id": Flag(WHOLE, None, "This one's number, from 0 on."),
  "probabilities": Flag(TEXT, None, "Folder, file or glob of maps: TIFF, .h5."),
  "classes": Flag(
    TEXT,
    None,
    "What the maps of a file are, in its order; other: none of these. Default: "
    "nucleus,membrane,background.",
  ),
  "confidence": Flag(TRUTH, False, "Also write confidence/NAME.csv."),
  "state_dict": Flag(TEXT, None, "PyTorch file (.pth) of the published net."),
  "num_images": Flag(WHOLE, 6, "Number of images."),
  "seed": Flag(WHOLE, 0, "Decides everything random."),
  "size_px": Flag(WHOLE, 500, "Edge of the images, 1 um per pixel."),
  "annotations": Flag(
    TEXT, None, "Folder of drawings, or an Ilastik project (.ilp)."
  ),
  "strokes": Flag(
    TEXT, None, "Folder of drawings. Default: the last round's templates."
  ),
  "teacher": Flag(
    TEXT,
    None,
    "Folder that `teach fit` wrote; of finetune: a teacher's probability maps.",
  ),
  "nuclei": Flag(
    TEXT, None, "Masks of nuclei; alone, nothing is said of the cells."
  ),
  "membrane": Flag(TEXT, None, "Masks of membrane/cytoplasm alone."),
  "minutes": Flag(REAL, 60.0, "What all of the work may take."),
  "labelled": Flag(
    TEXT,
    "image",
    "What the labels cover: the image, the rectangle around them, or the cells "
    "themselves.",
  ),
  "channels": Flag(
    TEXT,
    None,
    "merged (default): nuclear and membrane; all (default of .ilp): as they "
    "are.",
  ),
  "scale": Flag(WHOLE, 1, "Pixels of the maps per pixel of the image: 1 or 2."),
  "keep_forest": Flag(
    TRUTH, False, "Take the forest that an .ilp stores, and fit none."
  ),
  "uncertainty": Flag(TEXT, "margin", "margin (Ilastik's) or entropy."),
  "uncertainty_maps": Flag(TEXT, None, "Folder of `teach predict`'s maps."),
  "num_crops": Flag(WHOLE, 2, "Squares to paint in, per image."),
  "crop_px": Flag(WHOLE, 96, "Edge of these squares."),
  "results": Flag(TEXT, None, "Output folder of predict."),
  "format": Flag(
    TEXT,
    None,
    "convert: spatialdata (one store; default), geojson (QuPath), ome-zarr or "
    "steinbock. export: folder (default), onnx or bioimageio (BioImage.IO).",
  ),
  "ngff": Flag(TEXT, "0.4", "Version of OME-Zarr: 0.4 or 0.5."),
  "max_memory_gb": Flag(
    REAL,
    None,
    "What one file may take in memory; more is refused. Default: half of the "
    "machine's.",
  ),
}
# Flags of every command.
COMMON = ("max_memory_gb",)

COMMANDS = {
  "predict": Command(
    "From images to masks, tables, pictures and a report.",
    (
      "images",
      "panel",
      "output",
      "checkpoint",
      "method",
      "pixel_size_um",
      "num_workers",
      "overwrite",
      "allow_failures",
      "shard",
      "merge",
      "shares",
    ),
    ("images", "output"),
  ),
  "segment": Command(
    "From probability maps to masks alone.",
    ("probabilities", "output", "checkpoint", "classes", "num_workers")
    + ("overwrite", "confidence", "allow_failures", "shard", "merge")
    + ("shares",),
    ("probabilities", "output"),
  ),
  "evaluate": Command(
    "From masks and reference masks to scores, figures and a report.",
    ("predicted", "reference", "output", "images", "panel", "tolerance_px")
    + ("seed", "label_components"),
    ("predicted", "reference", "output"),
    config=None,
  ),
  "benchmark": Command(
    "This system, the paper's baselines and other tools on the same images.",
    ("images", "panel", "reference", "output", "masks", "checkpoint")
    + ("pixel_size_um", "num_workers", "overwrite", "tolerance_px", "seed")
    + ("label_components",),
    ("images", "reference", "output"),
  ),
  "train": Command(
    "From records to a model folder, on one device or many.",
    ("workdir", "checkpoint", "coordinator", "num_processes", "process_id")
    + ("profile_steps",),
    ("workdir",),
    config="file",
    extra="train",
  ),
  "plan": Command(
    "Whether a training step fits its devices, and what bounds it.",
    ("topology", "output"),
    ("topology",),
    config="file",
    extra="train",
  ),
  "finetune": Command(
    "From a few labelled images to a better model for their study.",
    ("images", "panel", "masks", "nuclei", "membrane", "teacher")
    + ("output", "minutes", "labelled", "checkpoint", "pixel_size_um")
    + ("seed", "overwrite"),
    ("images", "output"),
    extra="train",
  ),
  "teach fit": Command(
    "From images and brush strokes to a pixel classifier, the teacher.",
    ("images", "panel", "annotations", "output", "channels", "scale")
    + ("seed", "keep_forest", "num_workers"),
    ("annotations", "output"),
    extra="teach",
  ),
  "teach predict": Command(
    "From images and a teacher to probability and uncertainty maps.",
    ("teacher", "images", "panel", "output", "uncertainty", "num_workers")
    + ("overwrite",),
    ("teacher", "images", "output"),
    config=None,
    extra="teach",
  ),
  "teach round": Command(
    "One round of annotation: fit, predict, masks, what to paint next.",
    ("images", "panel", "strokes", "output", "seed", "num_images")
    + ("num_crops", "crop_px", "num_workers"),
    ("images", "output"),
    extra="teach",
  ),
  "teach rank": Command(
    "From uncertainty maps to the images and places to annotate next.",
    ("uncertainty_maps", "images", "panel", "annotations", "output")
    + ("num_images", "num_crops", "crop_px"),
    ("uncertainty_maps", "images", "output"),
  ),
  "convert": Command(
    "From predict's output to SpatialData, QuPath, OME-Zarr or steinbock.",
    ("results", "output", "format", "images", "panel", "ngff", "overwrite"),
    ("results", "output"),
    config=None,
  ),
  "export": Command(
    "From a training run to a small model folder, ONNX or BioImage.IO.",
    ("checkpoint", "output", "format"),
    ("output",),
    config=None,
  ),
  "import_weights": Command(
    "From the published PyTorch weights to a model folder.",
    ("state_dict", "output"),
    ("state_dict", "output"),
    config=None,
  ),
  "simulate": Command(
    "Write a study of simulated tissue with known truth.",
    ("output", "num_images", "seed", "size_px"),
    ("output",),
    config=None,
  ),
}


def main(arguments: Sequence[str]) -> int:
  """Runs one command; `arguments` are the words after the program's name.

  Returns:
    0: done; 1: some images failed; 2: wrong call; 130: interrupted by Ctrl-C;
    143: by SIGTERM.
  """
  if not arguments or arguments[0] in ("help", "-h", "--help", "-help"):
    print(describe_program())
    return 0 if arguments else 2
  if arguments[0] in ("version", "-version", "--version"):
    print(f"dicexmbd {__version__}")
    return 0
  name, rest = split_command(arguments)
  if name not in COMMANDS:
    return refuse(f"found command {name!r}, expected {', '.join(COMMANDS)}")
  if any(word in ("-h", "-help", "--help") for word in rest):
    print(describe_command(name))
    return 0
  try:
    values = parse_flags(name, rest)
  except (ValueError, flags.Error) as error:
    return refuse(f"{error}", f"see: python -m dicexmbd_jax {name} --help")
  start_logging()
  if name in ("predict", "benchmark", "train"):
    compiled.keep_machine_code()
  if name in ("predict", "benchmark", "train", "finetune"):
    allocator.keep_freed_memory()
  # Training takes it for itself later: it saves, and goes on another time.
  signal.signal(signal.SIGTERM, terminate)
  # Merging is apart from prediction, since it starts without JAX.
  is_merge = name == "predict" and values.merge
  module = "merge" if is_merge else name.replace(" ", "_")
  try:
    extras.check_extra(COMMANDS[name].extra)
    if module == "predict":
      compile_beside(values)
    return import_command(module).run(values)
  except ModuleNotFoundError as error:
    line = extras.describe_missing(error)
    if line is None:
      raise
    return refuse(f"{name}: {line}")
  except TerminatedError:
    _resending.stop()
    print("dicexmbd: terminated", file=sys.stderr)
    return TERMINATED
  except KeyboardInterrupt:
    _resending.stop()
    print("dicexmbd: interrupted", file=sys.stderr)
    return INTERRUPTED


def compile_beside(values: Any):
  """On a machine's first run, lets another process begin with the loops.

  Before this one loads JAX, since compiling is most of such a run.
  """
  is_alone = values.num_workers == 0  # As its help says.
  if values.method != "network" or is_alone or compiled.keeps_kernels():
    return
  from dicexmbd_jax.runs import pool

  if pool.count_cores() > 1:
    names = "dicexmbd_jax.runs.kernels", "load_quietly"
    # A process that may have none does without.
    with contextlib.suppress(OSError, AssertionError):
      pool.start_beside(*names, values.config.segment, True)


def import_command(module: str) -> types.ModuleType:
  """Returns a command's module, loaded without the garbage collector.

  Libraries make some hundred thousand objects, all of which stay. Looking for
  garbage among them took a seventh of the processor time of one image; later
  rounds leave them out, and come less often, since tracing makes as many.
  """
  name = f"dicexmbd_jax.commands.{module}"
  if name in sys.modules:
    return sys.modules[name]
  gc.disable()
  try:
    return importlib.import_module(name)
  finally:
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


class TerminatedError(KeyboardInterrupt):
  """SIGTERM, which ends a command as Ctrl-C does."""


def terminate(number: int, frame: types.FrameType | None):
  """Ends the command; a handler of signals."""
  del number, frame
  raise TerminatedError


class _Resending:
  """Sends lost signals once more, until the command has been told of one."""

  def __init__(self):
    self._lock = threading.Lock()
    self._is_told = False
    self._is_waiting = threading.Event()

  def start(self, number: int):
    """Sends `number` in 10 ms; nothing where one waits or is not wanted."""
    if self._is_told or self._is_waiting.is_set():
      return
    timer = threading.Timer(0.01, self._send, (number,))
    timer.daemon = True
    self._is_waiting.set()
    timer.start()

  def stop(self):
    """Sends no more: another would come while the program ends, and kill it."""
    while not self._is_told:
      try:
        with self._lock:
          self._is_told = True
      except KeyboardInterrupt:  # The last one, on its way already.
        pass

  def _send(self, number: int):
    with self._lock:
      if not self._is_told:
        self._is_waiting.clear()  # First, as this one may be lost as well.
        os.kill(os.getpid(), number)


_resending = _Resending()


def resend_lost_signal(unraisable: Any) -> None:
  """Sends SIGINT or SIGTERM once more where nobody was told of it.

  What a handler of signals raises is lost where it comes in the middle of a
  callback of the garbage collector, as JAX has one: Python prints it and goes
  on. The second signal is sent from a thread, so that it comes after that.
  """
  if not isinstance(unraisable.exc_value, KeyboardInterrupt):
    sys.__unraisablehook__(unraisable)
    return
  error: BaseException | None = unraisable.exc_value
  while error is not None:
    is_term = isinstance(error, TerminatedError)
    error = None
    try:
      _resending.start(signal.SIGTERM if is_term else signal.SIGINT)
    except KeyboardInterrupt as another:  # Came in here, and is lost as well.
      error = another


def split_command(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
  """Returns the command, of one word or two (`teach fit`), and the rest."""
  pair = " ".join(arguments[:2])
  if pair in COMMANDS:
    return pair, arguments[2:]
  return arguments[0], arguments[1:]


def parse_flags(name: str, arguments: Sequence[str]) -> types.SimpleNamespace:
  """Returns the command's flags by name, and its `config`.

  Of a command that needs a file also `file_config`, without what the call
  overrides.

  Raises:
    ValueError, flags.Error: the call is wrong; the message is one line.
  """
  command = COMMANDS[name]
  arguments, config_file, overrides = config_lib.split_arguments(
    [expand_home(word) for word in arguments]
  )
  values = define_flags(command)
  words = values([name, *arguments])[1:]
  if words:
    raise ValueError(f"found {words[0]!r}, expected flags: --name=value")
  # "" is what a variable that is not set leaves: never meant.
  missing = [
    f"--{flag}" for flag in command.required if values[flag].value in (None, "")
  ]
  if missing:
    raise ValueError(f"{name}: expected also {', '.join(missing)}")
  result = types.SimpleNamespace(**values.flag_values_dict())
  refuse_addresses(vars(result))
  if result.max_memory_gb is not None:
    memory.set_limit(result.max_memory_gb)
  memory.get_limit_gb()  # The environment's, too, must be a number.
  if getattr(result, "checkpoint", None):
    result.checkpoint = config_lib.find_model(result.checkpoint)
  if command.config == "weights":
    model = getattr(result, "checkpoint", None) or config_lib.SHIPPED_MODEL
    base = config_lib.read_model_config(model)
    plain = config_lib.read_model_config(model)
    # What was fitted to the network's maps says nothing of raw channels.
    plain.segment = config_lib.drop_fitted(plain.segment)
    is_network = getattr(result, "method", "network") == "network"
    result.config, result.baseline_config = (
      config_lib.resolve_config(one, config_file, overrides)
      for one in (base if is_network else plain, plain)
    )
  elif command.config == "file":
    if config_file is None:
      raise ValueError(f"{name}: expected also --config")
    base = config_lib.read_config_file(config_file)
    result.file_config = base
    result.config = config_lib.resolve_config(base, None, overrides)
  elif config_file or overrides:
    raise ValueError(f"{name}: found --config, expected none")
  return result


def refuse_addresses(values: Mapping[str, object]) -> None:
  """Raises a ValueError where a flag names a bucket, as gs://bucket/folder.

  Else a folder `gs:` would be made here, and lost with the machine. Images may
  be OME-Zarr there: a store, a folder or a pattern of them. Runs of training
  may lie there.
  """
  for name, value in values.items():
    for word in value if isinstance(value, list) else [value]:
      is_address = re.match(r"[A-Za-z][\w+.-]+://", str(word))
      # A folder has no suffix.
      is_store = re.search(r"(\.zarr(\.zip)?|/[^/.]*)/?$", str(word))
      is_known = name == "workdir" or (name == "images" and is_store)
      if is_address and not is_known:
        raise ValueError(
          f"--{name}: found {word}, expected a path of this machine; mount the "
          "bucket (gcsfuse, mount-s3) and name the folder"
        )


def expand_home(word: str) -> str:
  """Returns a word with ~ expanded behind = too, which shells leave alone."""
  start, mark, path = word.rpartition("=")
  if path == "~" or path.startswith("~/"):
    path = os.path.expanduser(path)
  return f"{start}{mark}{path}"


def define_flags(command: Command) -> flags.FlagValues:
  """Returns the command's flags, apart from absl's own and other commands'."""
  values = flags.FlagValues()
  for flag_name in command.flags + COMMON:
    flag = FLAGS[flag_name]
    flag.define(flag_name, flag.default, flag.help, flag_values=values)
  return values


def describe_program() -> str:
  """Returns the text of --help."""
  lines = [f"  {name:<26}{command.help}" for name, command in COMMANDS.items()]
  return "\n".join(
    [
      "Single-cell segmentation of imaging mass cytometry.",
      "usage: python -m dicexmbd_jax COMMAND --flag=value ...",
      "",
      *lines,
      "",
      "python -m dicexmbd_jax COMMAND --help tells a command's flags,",
      "python -m dicexmbd_jax --version which version this is.",
    ]
  )


def describe_command(name: str) -> str:
  """Returns the text of COMMAND --help."""
  command = COMMANDS[name]
  lines = [command.help, ""]
  for flag_name in command.flags + COMMON:
    flag = FLAGS[flag_name]
    note = "" if flag.default is None else f" Default: {flag.default}."
    if flag_name in command.required:
      note = " Required."
    lines.append(f"  --{flag_name:<18}{flag.help}{note}")
  if command.config:
    lines.append(f"  --{'config':<18}Python file with get_config().")
    lines.append(f"  --{'config.a.b':<18}Overrides one value, as in =1.")
  return "\n".join(lines)


def start_logging():
  """Plain lines on standard error; DICEXMBD_VERBOSE=1 adds tracebacks."""
  flags.FLAGS.mark_as_parsed()  # Else absl warns that it logs too early.
  logging.use_absl_handler()
  handler = logging.get_absl_handler()
  handler.setFormatter(standard_logging.Formatter("%(message)s"))
  handler.addFilter(extras.name_plugin)
  # JAX tells at length which accelerators it did not find.
  standard_logging.getLogger("jax").setLevel(standard_logging.WARNING)
  verbose = os.environ.get("DICEXMBD_VERBOSE")
  logging.set_verbosity(logging.DEBUG if verbose else logging.INFO)
  if not verbose:
    # Orbax and TFDS tell at length, and by the same logger, what they do.
    handler.addFilter(is_worth_telling)
    sys.excepthook = tell_uncaught
    threading.excepthook = hide_background_error


def is_worth_telling(record: standard_logging.LogRecord) -> bool:
  """Returns whether a line is the program's own, or a warning.

  Orbax's are tracebacks of what it raises, too.
  """
  if record.pathname.startswith(os.path.dirname(__file__)):
    return True
  is_orbax = f"{os.sep}orbax{os.sep}" in record.pathname
  return record.levelno >= standard_logging.WARNING and not is_orbax


def tell_uncaught(kind, error, trace):
  """Prints an uncaught error's traceback, unless a background thread has it.

  Libraries that write in the background hand their errors on as well.
  """
  if threading.current_thread() is threading.main_thread():
    sys.__excepthook__(kind, error, trace)


def hide_background_error(arguments: threading.ExceptHookArgs):
  """Takes a background thread's error; DICEXMBD_VERBOSE=1 shows it."""
  del arguments


def refuse(*lines: str) -> int:
  """Prints why the call is wrong; returns the exit code."""
  for line in lines:
    print(f"dicexmbd: {line}", file=sys.stderr)
  return 2


def run():
  """Entry point of the console script."""
  sys.unraisablehook = resend_lost_signal
  try:
    code = main(sys.argv[1:])
    sys.stdout.flush()
  except BrokenPipeError:  # Whoever read has seen enough: `--help | head`.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = PIPE_CLOSED
  sys.exit(code)


if __name__ == "__main__":
  run()
