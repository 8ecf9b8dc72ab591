import os
import zipfile

import pytest

from dicexmbd_jax.io.folders import find_files
from dicexmbd_jax.io.listing import list_images

HEADER = "Start_push\tEnd_push\tPushes_duration\tX\tY\tZ\tDNA(Ir191Di)\n"


def touch(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER if path.suffix == ".txt" else "")


def find(pattern, caplog):
  """Returns the names that are found, and the lines that are told."""
  caplog.clear()
  caplog.set_level("INFO")
  files, failures = find_files(pattern)
  assert not failures
  lines = [record.getMessage() for record in caplog.records]
  return sorted(path.name for path in files), lines


def test_a_stray_image_hides_no_folder_in_silence(tmp_path, caplog):
  touch(tmp_path, "stray.tiff", "roi1/a.tiff", "roi1/b.tiff", "roi2/s/c.tiff")
  touch(tmp_path, "masks/a.tiff", "empty/notes.md")
  names, (line,) = find(tmp_path, caplog)
  assert names == ["stray.tiff"]
  assert line == (
    f"{tmp_path}: read: 1 files here; not read: 3 files in roi1, roi2; "
    f"{tmp_path}/** stands for all"
  )
  assert find(tmp_path / "roi*", caplog) == (["a.tiff", "b.tiff", "c.tiff"], [])
  names, lines = find(tmp_path / "**", caplog)
  assert names == ["a.tiff", "b.tiff", "c.tiff", "stray.tiff"]
  assert lines == [
    f"{tmp_path}/masks: left out, holds results by its name or files"
  ]


def test_results_alone_are_told_by_name(tmp_path):
  # As `teach predict` leaves them: none of these is an image.
  touch(tmp_path, "probabilities/a.tiff", "uncertainty/a.tiff")
  with pytest.raises(
    ValueError,
    match="found no images besides results in probabilities, uncertainty, exp",
  ):
    find_files(tmp_path)


def test_steinbocks_project_stands_for_its_images(tmp_path, caplog):
  touch(tmp_path, "panel.csv", "img/a.tiff", "raw/a.mcd", "raw/a_1.txt")
  touch(tmp_path, "masks/a.tiff")
  names, lines = find(tmp_path, caplog)
  assert names == ["a.tiff"]
  assert lines[0].endswith(
    "/masks: left out, holds results by its name or files"
  )
  assert lines[1] == (
    f"{tmp_path}: read: 1 files in img; not read: 2 files in raw"
  )
  (tmp_path / "panel.csv").unlink()
  assert find(tmp_path, caplog)[0] == ["a.mcd", "a.tiff", "a_1.txt"]


def test_a_project_whose_images_are_not_made_yet(tmp_path, caplog):
  touch(tmp_path, "panel.csv", "raw/a.txt")
  (tmp_path / "img").mkdir()
  assert find(tmp_path, caplog) == (["a.txt"], [])


@pytest.mark.real
def test_real_steinbock_project(real_data):
  sources, failures = list_images(real_data / "imc_testdata")
  assert not failures
  assert {source.path.parent.name for source in sources} == {"img"}
  assert len(sources) == 15


def test_txt_files_are_images_or_told(tmp_path, caplog):
  (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbf" + HEADER.encode())
  (tmp_path / "wide.txt").write_bytes(HEADER.encode("utf-16"))
  (tmp_path / "big.txt").write_bytes(b"\xfe\xff" + HEADER.encode("utf-16-be"))
  (tmp_path / "quoted.txt").write_text('"Start_push"\t"End_push"\n')
  (tmp_path / "s_ROI_001_1.txt").write_bytes(b"")
  (tmp_path / "s_ROI_002_2.txt").write_bytes(bytes(500))
  (tmp_path / "s_ROI_003_3.txt").write_text("tart_push\tEnd_push\n")
  (tmp_path / "notes_1.txt").write_text("Ablated on Monday.")
  (tmp_path / "notes.txt").write_text("a\tb")
  (tmp_path / "done.txt").touch()
  names, (line,) = find(tmp_path, caplog)
  assert names == [
    *("big.txt", "mark.txt", "quoted.txt"),
    *(f"s_ROI_00{k}_{k}.txt" for k in (1, 2, 3)),
    "wide.txt",
  ]
  assert line.startswith(
    f"{tmp_path}: not read: done.txt, notes.txt, notes_1.txt; expected TIFF"
  )


def test_files_of_other_kinds_are_told_once(tmp_path, caplog):
  touch(tmp_path, "a.tiff", "a.png", "b.czi", "c.h5", "panel.csv", "d.md")
  names, (line,) = find(tmp_path, caplog)
  assert names == ["a.tiff"]
  assert line.startswith(f"{tmp_path}: not read: a.png, b.czi, c.h5; expected")
  assert len(find(tmp_path / "**", caplog)[1]) == 1
  caplog.clear()
  find_files(tmp_path, (".h5", ".png", ".czi"))
  assert not caplog.records
  (tmp_path / "a.tiff").unlink()
  with pytest.raises(ValueError, match="no images .a.png, b.czi, c.h5 are of"):
    find_files(tmp_path)


def test_links_to_nowhere_are_kept_to_fail(tmp_path):
  touch(tmp_path, "roi/a.tiff")
  for name in ("gone.tiff", "gone.txt", "gone.mcd", "gone.zip"):
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
  files, _ = find_files(tmp_path)
  assert sorted(path.name for path in files) == [
    *("a.tiff", "gone.mcd", "gone.tiff", "gone.txt", "gone.zip"),
  ]
  sources, failures = list_images(tmp_path)
  assert len(sources) + len(failures) == 5


def test_links_to_folders_above_end(tmp_path, caplog):
  touch(tmp_path, "roi/a.tiff")
  (tmp_path / "roi2").mkdir()
  (tmp_path / "roi2/up").symlink_to(tmp_path)
  (tmp_path / "roi2/self").symlink_to(tmp_path / "roi2/self")
  (tmp_path / "roi2/other").symlink_to(tmp_path / "roi")
  (tmp_path / "roi/back").symlink_to(tmp_path / "roi2")
  assert find(tmp_path, caplog)[0] == ["a.tiff"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_unreadable_folder_is_a_failure(tmp_path):
  touch(tmp_path, "a/a.tiff", "b/b.tiff")
  (tmp_path / "b").chmod(0)
  files, failures = find_files(tmp_path)
  (tmp_path / "b").chmod(0o700)
  assert [path.name for path in files] == ["a.tiff"]
  ((path, line),) = failures
  assert path == tmp_path / "b"
  assert line == f"{path}: found Permission denied, expected a readable folder"


def test_a_pipe_is_no_image(tmp_path, caplog):
  touch(tmp_path, "a.tiff")
  os.mkfifo(tmp_path / "b.tiff")
  names, (line,) = find(tmp_path, caplog)
  assert names == ["a.tiff"]
  assert line.startswith(f"{tmp_path}: not read: b.tiff; expected")


def test_members_of_other_kinds_are_told(tmp_path, caplog):
  path = tmp_path / "all.zip"
  with zipfile.ZipFile(path, "w") as archive:
    for name in ("a.tiff", "b.png", "in/c.zip", "panel.csv", "notes.txt"):
      archive.writestr(name, "x")
    archive.writestr("s_1.txt", "\ufeff" + HEADER)
  caplog.set_level("INFO")
  sources, failures = list_images(path)
  assert not failures
  assert [source.member for source in sources] == ["a.tiff", "s_1.txt"]
  (line,) = [record.getMessage() for record in caplog.records]
  assert line.startswith(f"{path}: not read: b.png, c.zip, notes.txt; expected")
