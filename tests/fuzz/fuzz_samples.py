"""Small files of every format that is read, each with what reads it."""

import dataclasses
import io
import pathlib
import shutil
import zipfile
from collections.abc import Callable

import fuzz_readers as readers
import h5py
import ilastik
import mcd_files
import numpy as np
import PIL.Image
import tifffile
import txt_files

from dicexmbd_jax.io import ome_zarr_writer, write
from dicexmbd_jax.runs import state

HERE = pathlib.Path(__file__).parent
COUNTS = np.random.default_rng(0).poisson(5, (12, 16, 2)).astype(np.float32)
PLANES = COUNTS.transpose(2, 0, 1)
NAMES = ["CD45_Pr141", "DNA1_Ir191"]
PANEL = """channel,name,keep,nuclear,membrane_cytoplasm
Pr141,CD45,1,0,1
Ir191,DNA1,1,1,0
"""


@dataclasses.dataclass(frozen=True)
class Sample:
  """One file to damage.

  Attributes:
    name: for people and for the seed.
    path: the file.
    read: from its path to what is read, by name; see fuzz_readers.
  """

  name: str
  path: pathlib.Path
  read: Callable[[pathlib.Path], dict]


def write_samples(folder: pathlib.Path) -> list[Sample]:
  """Writes all samples, each into a folder of its own."""
  samples = []
  for name, (file, write_file, read) in _SAMPLES.items():
    place = folder / name.replace(" ", "_").replace("/", "_")
    place.mkdir()
    write_file(place / file)
    samples.append(Sample(name, place / file, read))
  return samples


def _write_mcd(path):
  blocks = [
    mcd_files.make_block(COUNTS),
    mcd_files.make_block(COUNTS + 7, slide=2),
  ]
  mcd_files.write_mcd(path, blocks)


def _write_copied_mcd(path):
  _write_mcd(path)
  txt_files.write_txt(path.with_name("a_ROI_001_1.txt"), COUNTS)


def _write_txt(path):
  txt_files.write_txt(path, COUNTS)


def _write_tiff(**options):
  return lambda path: tifffile.imwrite(path, PLANES, **options)


def _write_ome(path):
  write.write_stack(path, COUNTS, NAMES)


def _write_imagej(path):
  labels = {"axes": "CYX", "Labels": NAMES, "unit": "um"}
  options = {"imagej": True, "metadata": labels, "resolution": (1, 1)}
  tifffile.imwrite(path, PLANES, **options)


def _write_zip(method):
  def write_archive(path):
    tiff, text = io.BytesIO(), path.with_name("b.txt")
    tifffile.imwrite(tiff, PLANES, photometric="minisblack")
    _write_txt(text)
    with zipfile.ZipFile(path, "w", method) as archive:
      archive.writestr("a.tiff", tiff.getvalue())
      archive.writestr("folder/b.txt", text.read_bytes())
    text.unlink()

  return write_archive


def _write_zarr(path, version="0.4"):
  ome_zarr_writer.write_ome_zarr(path, COUNTS, NAMES, 1.0, {}, version)


def _write_zarr_zip(version):
  def write_archive(path):
    folder = path.with_suffix("")
    _write_zarr(folder, version)
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    with zipfile.ZipFile(path, "w") as archive:
      for file in files:
        archive.write(file, file.relative_to(folder))
    shutil.rmtree(folder)

  return write_archive


def _write_zarr_group(version):
  def write_store(path):
    path.parent.rmdir()
    _write_zarr(path.parent, version)

  return write_store


LABELS = np.kron(np.arange(12).reshape(3, 4), np.ones((4, 4), int))


def _write_mask(path):
  write.write_labels(path, LABELS.astype(np.int32))


def _write_png(dtype, mode=None):
  def write_picture(path):
    picture = PIL.Image.fromarray(LABELS.astype(dtype))
    (picture.convert(mode) if mode else picture).save(path)

  return write_picture


MAPS = np.random.default_rng(1).dirichlet([1, 1, 1], (12, 16))


def _write_map(path):
  write.write_probabilities(path, MAPS.astype(np.float32), 1.0)


def _write_h5(**options):
  def write_file(path):
    with h5py.File(path, "w") as file:
      data = MAPS.astype(np.float32)
      file.create_dataset("exported_data", data=data, **options)
      file["exported_data"].attrs["axistags"] = ilastik.write_tags("yxc")

  return write_file


def _write_project(path):
  strokes = np.zeros((12, 16), np.uint8)
  strokes[2:4, 3:9], strokes[6, 2:5], strokes[9:11, 10:14] = 1, 2, 3
  ilastik.write_project(path, [("img.h5", strokes, 2), ("b.h5", strokes, 2)])
  ilastik.write_forest(path, 48)


def _write_pth(path):
  path.write_bytes((HERE.parent / "data" / "torch_unet.pth").read_bytes())


def _write_panel(encoding="utf-8", separator=","):
  text = PANEL.replace(",", separator)
  return lambda path: path.write_bytes(text.encode(encoding))


def _write_deepcell(path):
  path.write_text(
    "channel,name,keep,deepcell\nPr141,CD45,1,2\nIr191,DNA1,1,1\n"
  )


def _write_sealed(path):
  values = {"key": {"panel": "a" * 64}, "files": {}, "row": {"cells": 12}}
  state.write_sealed(path, values)


def _write_share(path):
  values = {
    "command": "dicexmbd predict",
    "shard": "0/1",
    "state": "done",
    "written_unix_s": 1.0,
    "hashes": {"panel": "a" * 64},
  }
  state.write_sealed(path, values)


def _write_arrays(path):
  kernel = np.random.default_rng(2).normal(size=(3, 3, 2, 4))
  np.savez_compressed(path, kernel=kernel, bias=kernel[0, 0, 0])


def _write_regions(path):
  path.write_text(
    "image,y_px,x_px,height_px,width_px\nroi1,0,10,64,64\nroi2,5.0,1,64,64\n"
  )


def _write_history(path):
  path.write_text(
    "round,image,uncertainty\n1,roi1,0.25\n1,roi2,0.5\n2,roi1,0.1\n"
  )


_TIFF = readers.read_images
_GRAY = {"photometric": "minisblack"}
_SAMPLES = {
  "mcd": ("a.mcd", _write_mcd, readers.read_images),
  "mcd with a copy": ("a.mcd", _write_copied_mcd, readers.read_images),
  "txt": ("a.txt", _write_txt, readers.read_images),
  "tiff": ("a.tiff", _write_tiff(**_GRAY), _TIFF),
  "tiff in pages": ("a.tif", _write_tiff(**_GRAY, metadata=None), _TIFF),
  "tiff zlib": ("a.tiff", _write_tiff(**_GRAY, compression="zlib"), _TIFF),
  "tiff lzw": ("a.tiff", _write_tiff(**_GRAY, compression="lzw"), _TIFF),
  "tiff in tiles": (
    *("a.tiff", _write_tiff(**_GRAY, tile=(16, 16), compression="zlib")),
    _TIFF,
  ),
  "bigtiff": (
    "a.tiff",
    _write_tiff(**_GRAY, bigtiff=True, byteorder=">"),
    _TIFF,
  ),
  "ome": ("a.ome.tiff", _write_ome, _TIFF),
  "imagej": ("a.tif", _write_imagej, _TIFF),
  "zip": ("a.zip", _write_zip(zipfile.ZIP_DEFLATED), readers.read_images),
  "zip stored": ("a.zip", _write_zip(zipfile.ZIP_STORED), readers.read_images),
  "zarr zip": ("a.ome.zarr.zip", _write_zarr_zip("0.4"), readers.read_images),
  "zarr 3 zip": (
    *("a.ome.zarr.zip", _write_zarr_zip("0.5"), readers.read_images),
  ),
  "zarr attributes": (".zattrs", _write_zarr_group("0.4"), readers.read_store),
  "zarr 3 group": ("zarr.json", _write_zarr_group("0.5"), readers.read_store),
  "mask tiff": ("a.tiff", _write_mask, readers.read_mask),
  "mask png": ("a.png", _write_png(np.uint8), readers.read_mask),
  "mask png 16": ("a.png", _write_png(np.uint16), readers.read_mask),
  "mask png palette": ("a.png", _write_png(np.uint8, "P"), readers.read_mask),
  "png colours": ("a.png", _write_png(np.uint8, "RGB"), readers.read_colours),
  "map tiff": ("a.tiff", _write_map, readers.read_map),
  "map h5": ("a.h5", _write_h5(), readers.read_map),
  "map h5 gzip": (
    *("a.h5", _write_h5(chunks=(6, 8, 3), compression="gzip")),
    readers.read_map,
  ),
  "ilp": ("a.ilp", _write_project, readers.read_project),
  "pth": ("a.pth", _write_pth, readers.read_torch),
  "npz": ("a.npz", _write_arrays, readers.read_npz),
  "panel": ("panel.csv", _write_panel(), readers.read_panel_file),
  "panel utf-16": (
    "panel.csv",
    _write_panel("utf-16"),
    readers.read_panel_file,
  ),
  "panel tabs": (
    *("panel.csv", _write_panel(separator="\t"), readers.read_panel_file),
  ),
  "panel deepcell": ("panel.csv", _write_deepcell, readers.read_panel_file),
  "state": ("a.json", _write_sealed, readers.read_state),
  "share": ("0-of-1.json", _write_share, readers.read_share),
  "regions": ("regions.csv", _write_regions, readers.read_regions),
  "history": ("history.csv", _write_history, readers.read_history),
  "teacher.json": ("teacher.json", readers.write_teacher, readers.read_teacher),
  "forest.npz": ("forest.npz", readers.write_teacher, readers.read_teacher),
  "config.json": ("config.json", readers.write_model, readers.read_model),
  "params.npz": ("params.npz", readers.write_model, readers.read_model),
}
