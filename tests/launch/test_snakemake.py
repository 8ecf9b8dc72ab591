"""`launch/Snakefile`, run: a share that is killed, an image that is broken."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from dicexmbd_jax.io import listing, write
from dicexmbd_jax.runs import shards

pytest.importorskip("snakemake", reason="pip install '.[workflow]'")

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_IMAGES = 5
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Ir191,DNA1_Ir191,1,1,0
Sm152,CD45_Sm152,1,0,1
"""
# Runs the program; kills the share the first time that it has done an image.
KILLER = """
import pathlib, subprocess, sys, time
words, mark = sys.argv[1:], pathlib.Path("killed")
is_victim = "--shard=VICTIM" in words and not mark.exists()
process = subprocess.Popen([sys.executable, "-m", "dicexmbd_jax", *words])
while is_victim and process.poll() is None:
  if any(path.stem in STEMS for path in pathlib.Path("out/state").glob("*")):
    mark.touch()
    process.kill()
  time.sleep(0.01)
sys.exit(process.wait() % 256)
"""


@pytest.fixture
def study(tmp_path):
  """Images, of which one is cut off, and a panel, in a folder with a blank."""
  root = tmp_path / "with blank"
  random = np.random.default_rng(0)
  for number in range(NUM_IMAGES):
    counts = random.poisson(3, (300, 300, 2)).astype(np.float32)
    names = ("DNA1_Ir191", "CD45_Sm152")
    write.write_stack(root / f"img/ROI{number}.ome.tiff", counts, names)
  whole = root / "img/ROI0.ome.tiff"
  (root / "img/BAD.tiff").write_bytes(whole.read_bytes()[:-9000])
  (root / "panel.csv").write_text(PANEL)
  return root


def run_snakemake(root, *config):
  words = ["images=img", "panel=panel.csv", "output=out", "shares=2"]
  words += ["flags=--method=distance", "threads=1", *config]
  call = [sys.executable, "-m", "snakemake", "-s", ROOT / "launch/Snakefile"]
  return subprocess.run(
    [*call, "--cores=1", "--config", *words],
    cwd=root,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_killed_share_goes_on_and_a_broken_image_stops_nothing(study):
  sources, _ = listing.list_images(study / "img")
  shares = shards.assign_shares(sources, 2)
  victims = {s for s in shares if shares[s] == 1 - shares["BAD"]}
  code = KILLER.replace("VICTIM", f"{1 - shares['BAD']}/2")
  (study / "killer.py").write_text(code.replace("STEMS", repr(victims)))

  result = run_snakemake(study, f"program={sys.executable} killer.py")
  assert result.returncode == 0, result.stderr
  assert (study / "killed").exists()
  assert "Trying to restart job" in result.stderr
  assert "images were finished already" in result.stderr
  out = study / "out"
  record = json.loads((out / "run.json").read_text())
  assert record["num_missing"] == 0
  assert record["num_images"] == NUM_IMAGES
  assert pd.read_csv(out / "failures.csv")["image"].tolist() == ["BAD"]
  stems = {path.stem for path in (out / "masks").glob("*")}
  assert stems == {f"ROI{number}" for number in range(NUM_IMAGES)}

  again = run_snakemake(study, f"program={sys.executable} killer.py")
  assert "Nothing to be done" in again.stderr
