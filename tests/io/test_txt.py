import codecs

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from txt_files import format_lines

from dicexmbd_jax import storage
from dicexmbd_jax.io import images
from dicexmbd_jax.types import ImageSource

COUNTS = np.arange(24, dtype=np.float32).reshape(3, 4, 2) / 2
LINES = format_lines(COUNTS)


def read(path):
  return images.read_every_channel(ImageSource("a", path))


def write(folder, lines, end="\n"):
  path = folder / "a.txt"
  path.write_text("\n".join(lines) + end)
  return path


def move(line, axis, value):
  values = line.split("\t")
  values["XY".index(axis) + 3] = value
  return "\t".join(values)


@hypothesis.given(st.permutations(LINES[1:]))
def test_lines_in_any_order(tmp_path_factory, lines):
  path = write(tmp_path_factory.mktemp("a"), [LINES[0], *lines])
  np.testing.assert_array_equal(read(path).stack, COUNTS)


@pytest.mark.parametrize(
  ("line", "axis", "value", "message"),
  [
    (6, "X", "0", "more than one pixel at x 0, y 1, expected one at each"),
    (6, "X", "1.5", "a pixel at x 1.5, y 1, expected whole numbers from 0"),
    (6, "Y", "-1", "a pixel at x 1, y -1, expected whole numbers from 0"),
    (6, "X", "-1", "a pixel at x -1, y 1, expected whole numbers from 0"),
    (6, "X", "", "'' in line 7, expected a number"),
    (6, "X", "nan", "'nan' in line 7, expected a number"),
    (6, "X", "1e30", "a pixel at x 1e[+]30, y 1, expected whole numbers"),
    (12, "Y", "3", r"no pixel at x 3, y 2 \(4 of 4 x 4 are missing\)"),
    (12, "X", "4", r"no pixel at x 4, y 0 \(3 of 5 x 3 are missing\)"),
    (6, "X", "9999999", r"no pixel at x 4, y 0 \(29999988 of"),
    (6, "Y", "1x", "'1x' in line 7, expected a number"),
  ],
)
def test_coordinates(tmp_path, line, axis, value, message):
  lines = LINES.copy()
  lines[line] = move(lines[line], axis, value)
  with pytest.raises(ValueError, match=rf"a\.txt: found {message}"):
    read(write(tmp_path, lines))


def test_one_line_twice_and_another_missing(tmp_path):
  lines = [*LINES[:6], LINES[5], *LINES[7:]]
  with pytest.raises(ValueError, match="more than one pixel at x 0, y 1"):
    read(write(tmp_path, lines))
  with pytest.raises(ValueError, match="no pixel at x 1, y 1 .1 of 4 x 3"):
    read(write(tmp_path, [*LINES[:6], *LINES[7:]]))


def test_cuts(tmp_path):
  """Of a file cut anywhere, a whole rectangle is read, or the cut is told."""
  text = "\n".join(LINES) + "\n"
  path = tmp_path / "a.txt"
  ends = [len("\n".join(LINES[: 1 + k])) for k in range(13)]
  for length in range(ends[0] + 2, len(text)):
    path.write_text(text[:length])
    num_lines = sum(end <= length for end in ends) - 1
    is_between = length in ends or length - 1 in ends
    height, width = max(1, num_lines // 4), min(4, num_lines)
    if is_between and height * width == num_lines:
      np.testing.assert_array_equal(read(path).stack, COUNTS[:height, :width])
      continue
    message = rf"\(truncated in line {num_lines + 2}\), expected"
    with pytest.raises(ValueError, match="no pixel" if is_between else message):
      read(path)


@pytest.mark.parametrize(
  ("line", "message"),
  [
    (LINES[6] + "\t3.000", "9 values in line 7, expected 8"),
    (LINES[6].replace("\t", "\t\t", 1), "9 values in line 7, expected 8"),
    (LINES[6].replace("\t", "", 1), "7 values .truncated in line 7., expec"),
    (LINES[6].rpartition("\t")[0], "7 values .truncated in line 7., expec"),
    (LINES[6].replace(".", ","), "'5,000' in line 7, expected a number"),
    (LINES[0], "'CD45.Pr141Di.' in line 7, expected a number"),
  ],
)
def test_lines_of_other_values(tmp_path, line, message):
  path = write(tmp_path, [*LINES[:6], line, *LINES[7:]])
  with pytest.raises(ValueError, match=rf"a\.txt: found {message}"):
    read(path)


def test_what_does_no_harm(tmp_path):
  expected = COUNTS
  for lines, end in (
    (LINES, "\n\n"),
    ([line + "\t" for line in LINES], "\n"),
    ([LINES[0], *(line + "\t" for line in LINES[1:])], "\n"),
    ([*LINES[:5], "", *LINES[5:]], "\n"),
    (
      [line.replace("CD45(Pr141Di)", '"CD45(Pr141Di)"') for line in LINES],
      "\n",
    ),
  ):
    loaded = read(write(tmp_path, lines, end))
    np.testing.assert_array_equal(loaded.stack, expected)
    assert loaded.names == ("CD45_Pr141", "DNA1_Ir191")
    assert loaded.warnings == ()


def test_a_last_line_without_an_end_warns(tmp_path):
  lines = [line.replace(".000", "").replace(".500", "") for line in LINES]
  for rows, counts in ((LINES, COUNTS), (lines, np.floor(COUNTS))):
    loaded = read(write(tmp_path, rows, ""))
    np.testing.assert_array_equal(loaded.stack, counts)
    assert loaded.warnings == (
      "the last line has no end; the file may be cut there",
    )


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (6, 5), (17, 23)])
def test_files_and_strips_do_not_matter(tmp_path, shape, is_mixed, cut_finely):
  rng = np.random.default_rng(0)
  counts = rng.integers(0, 9000, (*shape, 2)).astype(np.float32) / 8
  header, *lines = format_lines(counts)
  if is_mixed:
    lines = list(rng.permutation(lines))
  path = write(tmp_path, [header, *lines])
  whole = read(path)
  with cut_finely():
    cut = read(path)
    assert storage.is_mapped(cut.stack)
  assert not storage.is_mapped(whole.stack)
  np.testing.assert_array_equal(whole.stack, counts)
  np.testing.assert_array_equal(cut.stack, counts)


@pytest.mark.parametrize(
  "change",
  [
    lambda lines: [*lines[:90], lines[90][:-9]],
    lambda lines: [*lines[:90], lines[90] + "\t3.000", *lines[91:]],
    lambda lines: [*lines[:90], lines[90].rpartition("\t")[0], *lines[91:]],
    lambda lines: [*lines[:90], move(lines[90], "X", "-1"), *lines[91:]],
    lambda lines: [*lines[:90], move(lines[90], "Y", ""), *lines[91:]],
    lambda lines: [*lines[:90], lines[3], *lines[91:]],
    lambda lines: [*lines[:90], *lines[91:]],
    lambda lines: [*lines[:70], "", *lines[70:90], "1", "2", *lines[90:]],
    lambda lines: [*lines[:30], *["1"] * 2000, *lines[30:]],
    lambda lines: lines[:91],  # Not of a whole row.
  ],
)
def test_strips_have_the_same_errors(tmp_path, change, cut_finely):
  lines = format_lines(np.ones((17, 23, 2), np.float32))
  path = write(tmp_path, change(lines))
  with pytest.raises(ValueError, match="a.txt: found .*, expected ") as whole:
    read(path)
  with cut_finely(), pytest.raises(ValueError) as cut:
    read(path)
  assert str(cut.value) == str(whole.value)


@pytest.mark.parametrize(
  ("mark", "encoding"),
  [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"", "cp1252"),
  ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings(tmp_path, mark, encoding, newline):
  text = newline.join([*LINES, ""]).replace("CD45(", "\u03b1CD45(")
  if encoding == "cp1252":
    text = text.replace("\u03b1", "\u00b5")
  path = tmp_path / "a.txt"
  path.write_bytes(mark + text.encode(encoding))
  loaded = read(path)
  np.testing.assert_array_equal(loaded.stack, COUNTS)
  assert loaded.names[0] in ("\u03b1CD45_Pr141", "\u00b5CD45_Pr141")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "found columns '', expected Start_push End_push"),
    ("\t".join(LINES[0].split("\t")[:6]) + "\n", "found columns 'Start_push"),
    (LINES[0] + "\n", "found no pixels, expected at least one"),
    (LINES[0] + "\tCD3\n" + LINES[1], "found the column 'CD3', expected"),
  ],
)
def test_broken_headers(tmp_path, text, message):
  path = tmp_path / "a.txt"
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    read(path)
