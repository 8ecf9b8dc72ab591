import pathlib
import shutil
import zipfile

import hypothesis
import mcd_files
import numpy as np
import pytest
from hypothesis import strategies as st

from dicexmbd_jax.io.listing import get_stem, list_images, natural_key
from dicexmbd_jax.types import ImageSource

HEADER = "Start_push\tEnd_push\tPushes_duration\tX\tY\tZ\tDNA(Ir191Di)\n"


def touch(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER if path.suffix == ".txt" else "")


def list_stems(pattern):
  sources, failures = list_images(pattern)
  assert not failures
  return [source.stem for source in sources]


@pytest.mark.parametrize(
  ("name", "stem"),
  [
    ("ROI002.ome.tiff", "ROI002"),
    ("ROI002.OME.TIF", "ROI002"),
    ("a/b.c.ome.btf", "b.c"),
    ("b.home.tif", "b.home"),
    ("slide.mcd", "slide"),
    ("slide_ROI_1.txt", "slide_ROI_1"),
    ("v1.2", "v1.2"),
  ],
)
def test_stems(name, stem):
  assert get_stem(name) == stem


def test_natural_order():
  names = ["ROI10", "ROI2", "ROI2b", "10", "9", "a1b2", "a1b10"]
  assert sorted(names, key=natural_key) == [
    *("9", "10", "ROI2", "ROI2b", "ROI10", "a1b2", "a1b10"),
  ]


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.text(max_size=5)))
def test_natural_order_holds_for_any_text(names):
  assert len(sorted(names, key=natural_key)) == len(names)


def test_folder_takes_its_own_images_only(tmp_path):
  touch(tmp_path, "b.ome.tiff", "a.TIF", "c.btf", ".hidden.tiff", "notes.md")
  touch(tmp_path, "sub/d.tiff")
  (tmp_path / "readme.txt").write_text("Not an acquisition.")
  assert list_stems(tmp_path) == ["a", "b", "c"]


def test_folder_without_images_takes_its_subfolders(tmp_path):
  touch(tmp_path, "panel.csv", "s1/a.tiff", "s2/deep/b.tiff", ".git/c.tiff")
  touch(tmp_path, "masks/a.tiff", "out/run.json", "out/nuclei/b.tiff")
  touch(tmp_path, "ilastik_probabilities/a.tiff")
  assert list_stems(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("pattern", ["", "*/*.tiff", "**/*.tiff"])
def test_subfolders_of_results_are_told(tmp_path, caplog, pattern):
  touch(tmp_path, "nuclei/a.tiff", "nuclei/b.tiff", "stain/c.tiff")
  caplog.set_level("INFO")
  assert list_stems(tmp_path / pattern) == ["c"]
  (line,) = [record.getMessage() for record in caplog.records]
  assert line.startswith(f"{tmp_path / 'nuclei'}: left out")


def test_named_folder_is_taken_whatever_it_holds(tmp_path):
  touch(tmp_path, "masks/a.tiff", "masks/run.json")
  assert list_stems(tmp_path / "masks") == ["a"]


def test_files_and_patterns(tmp_path):
  touch(tmp_path, "a1.tiff", "a2.tiff", "b.tiff", "s/c.tiff", "s/t/d.tiff")
  touch(tmp_path, "out/run.json", "out/masks/a1.tiff")
  assert list_stems(tmp_path / "b.tiff") == ["b"]
  assert list_stems(tmp_path / "a*.tiff") == ["a1", "a2"]
  assert list_stems(tmp_path / "**/*.tiff") == ["a1", "a2", "b", "c", "d"]
  assert list_stems(tmp_path / "s*") == ["c"]
  assert list_stems(tmp_path / "out/masks/*") == ["a1"]


@pytest.mark.parametrize("pattern", ["", "**", "**/*.tiff", "*/**/*.tiff"])
def test_links_that_lead_back_have_an_end(tmp_path, pattern):
  touch(tmp_path, "s/t/a.tiff", "u/b.tiff")
  for name in ("s/up", "s/t/up", "u/up", "u/up_too", "u/again"):
    (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
  assert list_stems(tmp_path / pattern) == ["a", "b"]


def test_linked_folders_are_entered_once(tmp_path):
  touch(tmp_path, "away/a.tiff", "study/b.tiff", "study/s/c.tiff")
  for name in ("one", "two"):
    (tmp_path / "study" / name).symlink_to(tmp_path / "away")
  assert list_stems(tmp_path / "study/**/*.tiff") == ["a", "b", "c"]
  (tmp_path / "study/b.tiff").unlink()
  assert list_stems(tmp_path / "study") == ["a", "c"]


def test_a_name_with_brackets_is_a_name_first(tmp_path):
  touch(tmp_path, "a[1].tiff", "a1.tiff")
  assert list_stems(tmp_path / "a[1].tiff") == ["a[1]"]


def test_nothing_found_is_an_error(tmp_path):
  (tmp_path / "x.csv").touch()
  for pattern in (tmp_path, tmp_path / "nowhere", tmp_path / "*.tiff"):
    with pytest.raises(ValueError, match="found no .*expected TIFF"):
      list_images(pattern)
  with pytest.raises(ValueError, match=r"x\.csv: found a file of unknown type"):
    list_images(tmp_path / "x.csv")


def test_one_stem_twice_leaves_both_out(tmp_path):
  touch(tmp_path, "s1/a.tiff", "s2/a.ome.tiff", "s2/b.tiff")
  sources, failures = list_images(tmp_path)
  assert [source.stem for source in sources] == ["b"]
  assert {path for path, _ in failures} == {
    tmp_path / "s1/a.tiff",
    tmp_path / "s2/a.ome.tiff",
  }
  for path, message in failures:
    assert message.startswith(f"{path}: found another image named a in ")
    assert "a.tiff" in message
    assert "a.ome.tiff" in message
    assert "expected one file per name" in message


def test_archives_stand_for_their_members(tmp_path):
  with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
    archive.writestr("x/b.ome.tiff", "")
    archive.writestr("a.txt", HEADER)
    archive.writestr("readme.txt", "Nothing.")
    archive.writestr("__MACOSX/a.tiff", "")
    archive.writestr("x/.c.tiff", "")
  touch(tmp_path, "d.tiff")
  sources, failures = list_images(tmp_path)
  assert not failures
  path = tmp_path / "all.zip"
  assert sources == [
    ImageSource("a", path, "a.txt"),
    ImageSource("b", path, "x/b.ome.tiff"),
    ImageSource("d", tmp_path / "d.tiff"),
  ]


def test_broken_and_empty_archives_are_failures(tmp_path):
  touch(tmp_path, "a.tiff")
  (tmp_path / "broken.zip").write_bytes(b"PK no")
  with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
    archive.writestr("notes.md", "")
  sources, failures = list_images(tmp_path)
  assert [source.stem for source in sources] == ["a"]
  assert [path.name for path, _ in failures] == ["broken.zip", "empty.zip"]
  assert all("unreadable archive" in message for _, message in failures)


@pytest.mark.parametrize("data", [b"", b"not an mcd", bytes(1000)])
def test_unreadable_mcd_is_a_failure_and_frees_its_copies(tmp_path, data):
  touch(tmp_path, "S1_ROI_1.txt", "a.tiff")
  (tmp_path / "S1.mcd").write_bytes(data)
  sources, failures = list_images(tmp_path)
  assert [source.stem for source in sources] == ["S1_ROI_1", "a"]
  ((path, message),) = failures
  assert path == tmp_path / "S1.mcd"
  assert message.startswith(f"{path}: found unreadable data")
  assert "expected a complete .mcd file" in message


@pytest.mark.real
def test_acquisitions_are_named_as_in_steinbock(real_data):
  raw = real_data / "imc_testdata" / "raw"
  sources, failures = list_images(raw)
  assert not failures
  images = (real_data / "imc_testdata" / "img").glob("*.tiff")
  assert [s.stem for s in sources] == sorted(path.stem for path in images)
  for source in sources:
    (copy,) = source.fallbacks
    description = f"ROI_{source.acquisition:03d}_{source.acquisition}"
    assert copy.name == f"{source.path.stem}_{description}.txt"


@pytest.mark.real
def test_copies_beside_an_mcd_count_without_being_named(real_data):
  folder = real_data / "imc_testdata/raw/20210305_NE_mockData1"
  for pattern in (folder / "*.mcd", folder / "20210305_NE_mockData1.mcd"):
    sources, _ = list_images(pattern)
    assert [len(source.fallbacks) for source in sources] == [1, 1, 1]
  assert len(list_images(folder / "*.txt")[0]) == 3


@pytest.mark.real
def test_copies_go_to_the_longer_of_two_names(real_data, tmp_path):
  mcd = next((real_data / "imc_testdata/raw").rglob("*mockData1.mcd"))
  shutil.copy(mcd, tmp_path / "S1.mcd")
  shutil.copy(mcd, tmp_path / "S1_b.mcd")
  touch(tmp_path, "S1_x_1.txt", "S1_b_x_1.txt", "S1_b_ROI_002_2.txt")
  sources, _ = list_images(tmp_path)
  copies = {s.stem: [path.name for path in s.fallbacks] for s in sources}
  assert copies == {
    "S1_001": ["S1_x_1.txt"],
    "S1_002": [],
    "S1_003": [],
    "S1_b_001": ["S1_b_x_1.txt"],
    "S1_b_002": ["S1_b_ROI_002_2.txt"],
    "S1_b_003": [],
  }


@pytest.mark.real
def test_truncated_mcd_is_a_failure(real_data, tmp_path):
  mcd = next((real_data / "imc_testdata/raw").rglob("*mockData1.mcd"))
  data = mcd.read_bytes()
  path = tmp_path / "cut.mcd"
  # Beyond 95.8 % there is only a second description that nobody reads.
  for share in (0.01, 0.3, 0.7, 0.81, 0.95):
    path.write_bytes(data[: int(share * len(data))])
    sources, failures = list_images(path)
    assert (sources, len(failures)) == ([], 1)
    assert failures[0][0] == pathlib.Path(path)


def test_acquisitions_of_no_slide_are_told(tmp_path):
  counts = np.ones((2, 3, 2), np.float32)
  path = tmp_path / "s.mcd"
  blocks = [mcd_files.make_block(counts), mcd_files.make_block(counts + 1)]
  mcd_files.write_mcd(path, blocks)
  old, new = (
    f"<ID>2</ID><PanoramaID>{number}</PanoramaID>".encode("utf-16-le")
    for number in (1, 9)
  )
  assert path.read_bytes().count(old) == 1
  path.write_bytes(path.read_bytes().replace(old, new))
  sources, failures = list_images(path)
  assert [source.stem for source in sources] == ["s_001"]
  [(file, line)] = failures
  assert file == path
  assert line.startswith(f"{path}: found acquisition '2' of no slide")


def test_a_member_of_two_names_is_a_failure(tmp_path):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.tiff", b"II")
    archive.writestr("b.tiff", b"II")
  data = path.read_bytes()
  at = data.rindex(b"a.tiff")  # In the table; the header has it, too.
  path.write_bytes(data[:at] + b"a.tifX" + data[at + 6 :])
  found, failures = list_images(str(path))
  assert [image.stem for image in found] == ["b"]
  ((place, line),) = failures
  assert place.name == "a.tifX"
  assert "a.tifX: found another name in its header" in line
