"""Compiles at build time what `predict` and `segment` compile at run time.

usage: DICEXMBD_CACHE=/opt/cache python launch/compile_all.py

That is the kernels of the masks and the shipped network for every tile size.
The folder may be read-only afterwards. Kernels serve every processor of the
kind if NUMBA_CPU_NAME=generic is set, here as later; the network only those
with the same instructions.
"""

import pathlib
import subprocess
import sys
import tempfile

from dicexmbd_jax import compiled


def main() -> None:
  """Fills the folder."""
  compiled.keep_machine_code()  # Before JAX and numba are imported.
  compile_network()
  with tempfile.TemporaryDirectory() as folder:
    compile_kernels(pathlib.Path(folder))


def compile_network() -> None:
  """Runs the shipped network once for each shape that predict may show it."""
  import numpy as np

  from dicexmbd_jax import config as config_lib
  from dicexmbd_jax import magnification, predict
  from dicexmbd_jax.model import weights

  model, config = weights.read_model(config_lib.SHIPPED_MODEL)
  first_pass, network = predict.load_passes(
    model, config.predict, magnification.WINDOW_PX
  )
  edges = predict.list_tile_sizes(model, config.predict)
  # An image of a tile's size is one tile.
  images = [(edge, np.zeros((edge, edge, 2), np.float32)) for edge in edges]
  for edge, _ in network(iter(images)):
    print(f"network: {edge} px", flush=True)
  list(first_pass(iter(images[:1])))


def compile_kernels(folder: pathlib.Path) -> None:
  """Does all that predict does with an image, and masks of noise."""
  from dicexmbd_jax import config as config_lib
  from dicexmbd_jax.masks import segment
  from dicexmbd_jax.runs import kernels

  study = folder / "study"
  call("simulate", f"--output={study}", "--num_images=1", "--size_px=128")
  call(
    "predict",
    f"--images={study}/img",
    f"--panel={study}/panel.csv",
    f"--output={folder / 'predicted'}",
    "--num_workers=0",
  )
  shipped = config_lib.read_model_config(config_lib.SHIPPED_MODEL).segment
  for config in (shipped, {"preset": "dice_xmbd"}, {"preset": "steinbock"}):
    kernels.load_kernels(config)
    segment.segment_image(draw_checkerboard(), config)
  print("kernels of the masks", flush=True)


def draw_checkerboard():
  """Returns maps (48, 48, 3) full of ties, which have a loop of their own."""
  import numpy as np

  y, x = np.mgrid[:48, :48]
  nuclear = np.asarray((y // 8 + x // 8) % 2, np.float32)
  return np.stack([nuclear, 1 - nuclear, 0 * nuclear], -1)


def call(*words: str) -> None:
  """Runs a command of the program."""
  subprocess.run([sys.executable, "-m", "dicexmbd_jax", *words], check=True)


if __name__ == "__main__":
  main()
