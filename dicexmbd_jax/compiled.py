"""Keeps machine code from one process to the next, and from a build to its use.

Compiling the network costs more processor time than several images do, and the
loops of the masks as much again. The folder is $DICEXMBD_CACHE, by default
dicexmbd/ in the user's cache folder. A run at build time fills it; where it
cannot be written to later, it is read all the same.
"""

import atexit
import hashlib
import os
import pathlib
import platform
import shutil
import tempfile
import warnings

VARIABLE = "DICEXMBD_CACHE"
_KERNELS = pathlib.Path(__file__).parent / "masks" / "__pycache__"


def keep_machine_code() -> None:
  """Tells JAX and numba where to; to be called before they are imported.

  What the environment says of their own caches stays. Without any folder to use
  they compile in each process.
  """
  folder = find_folder()
  # Machine code of one kind of processor may not run on another.
  values = {
    "JAX_COMPILATION_CACHE_DIR": folder / f"jax-{name_processor()}",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
  }
  # Beside the package is numba's own choice, and tells processors apart.
  if os.environ.get(VARIABLE) or not is_writable(_KERNELS):
    values["NUMBA_CACHE_DIR"] = open_kernels(folder / "numba")
  for name, value in values.items():
    os.environ.setdefault(name, str(value))
  # JAX says of each program that it cannot be kept where that is so.
  warnings.filterwarnings("ignore", "Error writing persistent compilation")


def keeps_kernels() -> bool:
  """Whether the loops of the masks are kept; after keep_machine_code.

  One from the middle of what a first run compiles stands for all.
  """
  folder = pathlib.Path(os.environ.get("NUMBA_CACHE_DIR", _KERNELS))
  return any(folder.rglob("cheapest_paths.fill_costs-*.nbi"))


def find_folder() -> pathlib.Path:
  """Returns the folder of machine code; it need not be there."""
  chosen = os.environ.get(VARIABLE)
  if chosen:
    return pathlib.Path(chosen)
  user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(user) / "dicexmbd"


def name_processor() -> str:
  """Returns eight letters that tell what instructions the processor knows."""
  known = [platform.machine(), platform.processor()]
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:  # Not Linux.
    text = ""
  wanted = ("model name", "flags", "Features", "CPU part")
  known += [line for line in text.splitlines() if line.startswith(wanted)][:2]
  return hashlib.sha256("\n".join(known).encode()).hexdigest()[:8]


def open_kernels(folder: pathlib.Path) -> pathlib.Path:
  """Returns a folder for numba: this one, or a copy of it in TMPDIR.

  numba does not read a cache that it cannot write to.
  """
  if is_writable(folder):
    return folder
  copy = pathlib.Path(tempfile.mkdtemp(prefix="dicexmbd_"))
  atexit.register(shutil.rmtree, copy, ignore_errors=True)
  if folder.is_dir():
    shutil.copytree(folder, copy, dirs_exist_ok=True)
  return copy


def is_writable(folder: pathlib.Path) -> bool:
  """Whether files can be made in a folder, or it can be made."""
  while not folder.exists() and folder != folder.parent:
    folder = folder.parent
  return os.access(folder, os.W_OK)
