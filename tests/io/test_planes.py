import zipfile

import numpy as np
import pytest
import tifffile

from dicexmbd_jax.io import images, listing, source
from dicexmbd_jax.types import Panel, PanelRow

COUNTS = np.arange(36, dtype=np.float32).reshape(3, 4, 3)


@pytest.fixture
def panel(tmp_path):
  rows = (
    PanelRow("Ir191", "DNA1", True, True, False),
    PanelRow("Pr141", "CD45", True, False, True),
    PanelRow("Nd142", "CD3", False, False, False),
  )
  return Panel(tmp_path / "panel.csv", rows)


def write_planes(folder, names, counts=COUNTS, **options):
  """Writes one file per channel, in the order of the names."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, plane in zip(names, np.moveaxis(counts, -1, 0), strict=False):
    tifffile.imwrite(folder / name, plane, photometric="minisblack", **options)


def list_stems(pattern, panel):
  sources, failures = listing.list_stacks(pattern, panel)
  assert not failures
  return [one.stem for one in sources]


@pytest.mark.parametrize(
  "names",
  [
    ["DNA1.tiff", "CD45.tiff", "CD3.tiff"],
    ["191Ir.tif", "141Pr.tif", "142Nd.tif"],
    ["Ir191_DNA1.ome.tiff", "Pr141_CD45.ome.tiff", "Nd142_CD3.ome.tiff"],
    ["roi_1_DNA1.tiff", "roi_1_CD45.tiff", "roi_1_CD3.tiff"],
    ["DNA1_roi_1.tiff", "CD45_roi_1.tiff", "CD3_roi_1.tiff"],
    ["roi_DNA1_raw.tiff", "roi_CD45_raw.tiff", "roi_CD3_raw.tiff"],
    ["dna-1.tiff", "cd45.tiff", "other.tiff"],
  ],
)
def test_one_file_per_channel(tmp_path, panel, names):
  study = tmp_path / "study"
  write_planes(study / "fov2", names, COUNTS)
  write_planes(study / "fov10", names, COUNTS + 100)
  sources, failures = listing.list_stacks(study, panel)
  assert not failures
  assert [one.stem for one in sources] == ["fov2", "fov10"]
  for one, added in zip(sources, (0, 100), strict=True):
    loaded = images.read_image(one, panel)
    np.testing.assert_array_equal(loaded.stack, COUNTS[..., :2] + added)
    assert loaded.stack.dtype == np.float32
    assert loaded.names == ("DNA1", "CD45")
    assert (loaded.nuclear, loaded.membrane) == ((0,), (1,))
    assert images.describe_image(one, loaded)["source_file"] == one.stem


def test_channels_in_any_order(tmp_path, panel):
  names = ["DNA1.tiff", "CD45.tiff", "CD3.tiff"]
  for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
    folder = tmp_path / "".join(map(str, order))
    write_planes(folder, [names[k] for k in order], COUNTS[..., order])
    (one,) = listing.list_stacks(folder, panel)[0]
    loaded = images.read_image(one, panel)
    np.testing.assert_array_equal(loaded.stack, COUNTS[..., :2])


@pytest.mark.parametrize("inner", ["TIFs", "ome_tiffs", "channels"])
def test_folders_of_files_are_named_after_those_above(tmp_path, panel, inner):
  for name in ("fov1", "fov2"):
    write_planes(tmp_path / name / inner, ["DNA1.tiff", "CD45.tiff"])
  assert list_stems(tmp_path, panel) == ["fov1", "fov2"]
  assert list_stems(tmp_path / "*/*/*.tiff", panel) == ["fov1", "fov2"]


def test_numbered_channels_are_taken_in_their_order(tmp_path, panel):
  for name, added in (("A_1", 0), ("B", 50)):
    files = [f"{name}_C{k}.tiff" for k in (0, 1, 2)]
    write_planes(tmp_path / "all", files, COUNTS + added)
  sources, failures = listing.list_stacks(tmp_path / "all", panel)
  assert not failures
  assert [one.stem for one in sources] == ["A_1", "B"]
  loaded = images.read_image(sources[1], panel)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., :2] + 50)
  (tmp_path / "all/B_C1.tiff").unlink()
  assert list_stems(tmp_path / "all", panel) == ["A_1", "B_C0", "B_C2"]


@pytest.mark.parametrize(
  "form", ["{0}_{1}.tiff", "{1}-{0}.tiff", "x_{0} {1}.ome.tiff"]
)
def test_several_images_in_one_folder(tmp_path, panel, form):
  for image, added in (("ROI_1", 0), ("ROI_2", 50)):
    files = [form.format(image, name) for name in ("DNA1", "CD45", "CD99")]
    write_planes(tmp_path, files, COUNTS + added)
  sources, failures = listing.list_stacks(tmp_path, panel)
  assert not failures
  front = "x_" if form.startswith("x") else ""
  assert [one.stem for one in sources] == [f"{front}ROI_1", f"{front}ROI_2"]
  for one, added in zip(sources, (0, 50), strict=True):
    loaded = images.read_image(one, panel)
    np.testing.assert_array_equal(loaded.stack, COUNTS[..., :2] + added)
    assert len(one.planes) == 3


def test_several_images_in_one_folder_need_a_panel(tmp_path):
  for image in ("ROI_1", "ROI_2"):
    write_planes(tmp_path, [f"{image}_DAPI.tiff", f"{image}_CD45.tiff"])
  sources, failures = listing.list_stacks(tmp_path, None)
  assert not sources
  assert len(failures) == 2


def test_without_a_panel_nothing_is_guessed(tmp_path):
  for name in ("fov1", "fov2"):
    write_planes(tmp_path / name, ["DAPI.tiff", "CD45.tiff", "CD3.tiff"])
  write_planes(tmp_path / "fov3", ["141Pr.tiff", "142Nd.tiff"])
  sources, failures = listing.list_stacks(tmp_path, None)
  assert not sources
  assert [path.name for path, _ in failures] == ["fov1", "fov2", "fov3"]
  assert [line for _, line in failures] == [
    f"{tmp_path}/{name}: found {count} files of one channel each ({files}), "
    "expected a panel that tells what they are"
    for name, count, files in (
      ("fov1", 3, "CD3, CD45, DAPI"),
      ("fov2", 3, "CD3, CD45, DAPI"),
      ("fov3", 2, "141Pr, 142Nd"),
    )
  ]


@pytest.mark.parametrize(
  "names",
  [
    ["a.tiff", "b.tiff"],
    ["DAPI_1.tiff", "DAPI_2.tiff"],
    ["p1_DAPI.tiff", "p2_DAPI.tiff"],
    ["DNA_control.tiff", "liver.tiff"],
    ["sample_c1.tiff", "sample_c2.tiff"],
  ],
)
def test_images_of_one_channel_stay_images(tmp_path, names):
  write_planes(tmp_path, names)
  stems = [name.removesuffix(".tiff") for name in names]
  assert list_stems(tmp_path, None) == stems


def test_a_stack_beside_channels_is_an_image_of_its_own(tmp_path, panel):
  write_planes(tmp_path / "fov", ["DNA1.tiff", "CD45.tiff", "CD3.tiff"])
  tifffile.imwrite(tmp_path / "fov/whole.tiff", np.moveaxis(COUNTS, -1, 0))
  assert list_stems(tmp_path, panel) == ["fov", "whole"]


def test_a_missing_channel_is_told(tmp_path, panel):
  write_planes(tmp_path / "fov", ["CD3.tiff", "CD45.tiff", "CD8.tiff"])
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  with pytest.raises(ValueError, match=r"fov: found 3 channels .*DNA1 .*not"):
    images.read_image(one, panel)


def test_files_that_do_not_fit_each_other(tmp_path, panel):
  write_planes(tmp_path / "fov", ["DNA1.tiff"])
  write_planes(tmp_path / "fov", ["CD45.tiff"], COUNTS[:2])
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  message = r"CD45\.tiff: found \(2, 4\) pixels, expected \(3, 4\) as in DNA1"
  with pytest.raises(ValueError, match=message):
    images.read_image(one, panel)
  (tmp_path / "fov/CD45.tiff").write_bytes(b"II*\0")
  with pytest.raises(ValueError, match=r"CD45\.tiff: found .*, expected"):
    images.read_image(one, panel)


def test_many_channels_take_no_more_than_they_may(tmp_path, monkeypatch):
  metals = [f"Nd{mass}" for mass in range(141, 151)]
  rows = tuple(PanelRow(None, metal, True, True, False) for metal in metals)
  panel = Panel(tmp_path / "panel.csv", rows)
  counts = np.zeros((3, 4, 10), np.float32)
  write_planes(tmp_path / "fov", [f"{metal}.tiff" for metal in metals], counts)
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  assert images.read_image(one, panel).stack.shape == (3, 4, 10)
  monkeypatch.setenv("DICEXMBD_MAX_MEMORY_GB", repr(479 / 10**9))
  message = "fov: found 10 channels of 4 x 3 pixels"
  with pytest.raises(ValueError, match=message):
    images.read_image(one, panel)


def test_pixel_size_of_all_channels(tmp_path, panel):
  options = {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.5}}
  write_planes(tmp_path / "f", ["DNA1.ome.tiff", "CD45.ome.tiff"], **options)
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  assert images.read_image(one, panel).pixel_size_um == 0.5
  write_planes(tmp_path / "f", ["DNA1.ome.tiff"])
  loaded = images.read_image(one, panel)
  assert loaded.pixel_size_um is None
  assert loaded.warnings == (
    "channels tell different pixel sizes; these are ignored",
  )


def test_hash_depends_on_every_channel(tmp_path, panel):
  write_planes(tmp_path / "fov", ["CD3.tiff", "CD45.tiff", "DNA1.tiff"])
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  hashes = {source.hash_source(one)}
  for name in ("CD3.tiff", "CD45.tiff", "DNA1.tiff"):
    write_planes(tmp_path / "fov", [name], COUNTS + 9)
    hashes.add(source.hash_source(one))
  assert len(hashes) == 4
  # A name tells which channel a file is.
  (tmp_path / "fov/CD3.tiff").rename(tmp_path / "fov/CD4.tiff")
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  assert source.hash_source(one) not in hashes


def test_channels_in_an_archive(tmp_path, panel):
  write_planes(tmp_path / "fov", ["DNA1.tiff", "CD45.tiff"])
  path = tmp_path / "all.zip"
  with zipfile.ZipFile(path, "w") as archive:
    for file in (tmp_path / "fov").iterdir():
      archive.write(file, f"in/fov7/{file.name}")
  (one,) = listing.list_stacks(path, panel)[0]
  assert one.stem == "fov7"
  loaded = images.read_image(one, panel)
  np.testing.assert_array_equal(loaded.stack, COUNTS[..., :2])
  assert len(source.hash_source(one)) == 64


@pytest.mark.real
def test_real_stack_in_one_file_per_channel(real_data, tmp_path):
  from dicexmbd_jax.io.panel import read_panel

  folder = real_data / "imc_testdata"
  panel = read_panel(folder / "panel.csv")
  (stack,) = listing.list_images(folder / "img/*mockData1_001.tiff")[0]
  expected = images.read_image(stack, panel)
  names = [f"{row.channel}.tiff" for row in panel.rows]
  write_planes(tmp_path / "mock", names, tifffile.imread(stack.path).T)
  (one,) = listing.list_stacks(tmp_path, panel)[0]
  loaded = images.read_image(one, panel)
  np.testing.assert_array_equal(loaded.stack.transpose(1, 0, 2), expected.stack)
