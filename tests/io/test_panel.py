import pytest

from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.types import PanelRow

STEINBOCK = (
  "channel,name,keep,ilastik,deepcell,cellpose\n"
  "Ir191,DNA1,1,1,1.0,\n"
  "Pr141,CD45,1,,2.0,2.0\n"
  "Yb172,CD3,0,,,\n"
)


def write(tmp_path, text, encoding="utf-8"):
  path = tmp_path / "panel.csv"
  path.write_bytes(text.encode(encoding))
  return path


def test_steinbock_layout(tmp_path):
  panel = read_panel(write(tmp_path, STEINBOCK))
  assert panel.rows == (
    PanelRow("Ir191", "DNA1", True, True, False),
    PanelRow("Pr141", "CD45", True, False, True),
    PanelRow("Yb172", "CD3", False, False, False),
  )


def test_published_layout_keeps_every_row_and_lets_groups_overlap(tmp_path):
  text = (
    ",marker,nuclear,membrane_cytoplasm\r\n"
    "0,undefined,0,0\r\n1,Fibronectin,1,1\r\n2,undefined,0,0\r\n"
  )
  panel = read_panel(write(tmp_path, text))
  assert [row.name for row in panel.rows] == [
    "undefined",
    "Fibronectin",
    "undefined",
  ]
  assert panel.rows[1] == PanelRow(None, "Fibronectin", True, True, True)
  assert all(row.is_kept for row in panel.rows)


def test_own_layout_and_loose_spelling(tmp_path):
  text = (
    "\ufeffChannel; NAME ;Keep;Nuclear;Membrane Cytoplasm\r\n"
    " Ir191 ; DNA1 ;TRUE; 1 ;0\r\n\r\n;;;;\r\nPr141;\u00b5-CD45;FALSE;;1.0\r\n"
  )
  rows = read_panel(write(tmp_path, text)).rows
  assert rows == (
    PanelRow("Ir191", "DNA1", True, True, False),
    PanelRow("Pr141", "\u00b5-CD45", False, False, True),
  )


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
  text = "name\tnuclear\tmembrane_cytoplasm\n\u00b5A\t1\t1\n"
  assert read_panel(write(tmp_path, text, encoding)).rows[0].name == "\u00b5A"


def test_numbered_channels_are_no_names(tmp_path):
  text = "channel,Target,marker,nuclear,membrane_cytoplasm\n0,X,A,1,0\n1,,B,0,1"
  rows = read_panel(write(tmp_path, text)).rows
  assert [(row.channel, row.name) for row in rows] == [(None, "A"), (None, "B")]


@pytest.mark.parametrize("form", ["{}", "Channel {}", "ch{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_in_another_order_are_places(tmp_path, form, first):
  lines = ["channel,name,nuclear,membrane_cytoplasm"]
  for place, row in (
    (1, "DAPI,1,0"),
    (3, "CK,0,1"),
    (0, "A,0,0"),
    (2, "B,0,0"),
  ):
    lines.append(f"{form.format(place + first)},{row}")
  rows = read_panel(write(tmp_path, "\n".join(lines))).rows
  assert [row.name for row in rows] == ["A", "DAPI", "B", "CK"]
  assert [row.is_nuclear for row in rows] == [False, True, False, False]
  assert {row.channel for row in rows} == {None}


def test_numbers_need_not_count_to_tell_the_order(tmp_path):
  text = "channel,name,nuclear,membrane_cytoplasm\n5,CD3,0,0\n9,CD45,0,1\n"
  rows = read_panel(write(tmp_path, text + "2,DNA1,1,0\n")).rows
  assert [(row.channel, row.name) for row in rows] == [
    *((None, "DNA1"), (None, "CD3"), (None, "CD45"))
  ]


@pytest.mark.parametrize("numbers", ["1,1,2", "4,,5"])
def test_numbers_in_order_leave_the_rows_as_they_are(tmp_path, numbers):
  assert list_numbered(tmp_path, numbers) == ["A", "B", "C"]


@pytest.mark.parametrize("numbers", ["3,3,1", "2,,1"])
def test_numbers_that_tell_no_order_are_refused(tmp_path, numbers):
  with pytest.raises(ValueError, match=r"found \d, .*, 1 in column channel"):
    list_numbered(tmp_path, numbers)


def list_numbered(tmp_path, numbers):
  lines = ["channel,name,nuclear,membrane_cytoplasm"]
  for number, name in zip(numbers.split(","), "ABC", strict=True):
    lines.append(f"{number},{name},1,0")
  return [
    row.name for row in read_panel(write(tmp_path, "\n".join(lines))).rows
  ]


def test_masses_are_no_places(tmp_path):
  text = "channel,name,nuclear,membrane_cytoplasm\n191,A,1,0\n141,B,0,1"
  assert [row.name for row in read_panel(write(tmp_path, text)).rows] == [
    "A",
    "B",
  ]


def test_name_falls_back_to_the_channel(tmp_path):
  text = "channel,name,nuclear,membrane_cytoplasm\nIr191,,1,1\n"
  assert read_panel(write(tmp_path, text)).rows[0].name == "Ir191"


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", ["no columns", "nuclear"]),
    ("name,keep\nA,1\n", ["name, keep", "membrane_cytoplasm"]),
    ("name,nuclear\nA,1\n", ["membrane_cytoplasm"]),
    ("nuclear,membrane_cytoplasm\n1,1\n", ["name"]),
    ("name,nuclear,membrane_cytoplasm\nA,2,1\n", ["'2'", "nuclear", "line 2"]),
    ("name,nuclear,membrane_cytoplasm\nA,x,1\n", ["'x'", "0 or 1"]),
    ("name,deepcell\nA,3\n", ["'3'", "deepcell", "line 2"]),
    ("name,nuclear,membrane_cytoplasm\nA,0,1\n", ["no nuclear channel"]),
    ("name,nuclear,membrane_cytoplasm\n", ["no nuclear channel"]),
    ("name,nuclear,membrane_cytoplasm\n,1,1\n", ["no name in line 2"]),
    ("name,nuclear,membrane_cytoplasm\nA,1,1,7\n", ["4 cells in line 2"]),
    ("name\0,nuclear\n", ["binary"]),
  ],
)
def test_bad_panels_are_named_in_one_line(tmp_path, text, words):
  path = write(tmp_path, text)
  with pytest.raises(ValueError) as caught:
    read_panel(path)
  message = str(caught.value)
  assert "\n" not in message
  assert message.startswith(f"{path}: found")
  assert all(word in message for word in [*words, "expected"])


def test_missing_panel(tmp_path):
  with pytest.raises(ValueError, match=r"nowhere\.csv: found No such file"):
    read_panel(tmp_path / "nowhere.csv")


@pytest.mark.real
@pytest.mark.parametrize(
  ("path", "rows", "nuclear", "membrane", "kept"),
  [
    ("brca2_reference/panels/BRCA1.csv", 50, 14, 21, 50),
    ("brca2_reference/panels/BRCA2.csv", 52, 7, 12, 52),
    ("brca2_reference/panels/T1D1.csv", 37, 8, 26, 37),
    ("brca2_reference/panels/T1D2.csv", 46, 11, 15, 46),
    ("imc_testdata/panel.csv", 5, 1, 1, 5),
    ("imc_testdata/raw/panel.csv", 5, 1, 1, 5),
    ("spleen_imc/panel.csv", 25, 3, 8, 13),
    ("mibi_lymph/panel.csv", 10, 2, 8, 10),
  ],
)
def test_real_panels(real_data, path, rows, nuclear, membrane, kept):
  panel = read_panel(real_data / path)
  assert len(panel.rows) == rows
  assert sum(row.is_nuclear for row in panel.rows) == nuclear
  assert sum(row.is_membrane for row in panel.rows) == membrane
  assert sum(row.is_kept for row in panel.rows) == kept


def test_a_cell_without_an_end(tmp_path):
  cells = "0" * 200_000
  path = write(tmp_path, f"name,nuclear,membrane_cytoplasm\nDNA,1,{cells}\n")
  with pytest.raises(ValueError, match="field larger than .* in line 2, expec"):
    read_panel(path)


@pytest.mark.parametrize("place", ["header", "name", "flag"])
def test_cells_without_end_are_one_short_line(tmp_path, place):
  long = "x" * 70_000
  text = "channel,name,keep,nuclear,membrane_cytoplasm\nIr191,DNA1,1,1,0\n"
  at = {"header": "keep", "name": "DNA1", "flag": "1,1"}[place]
  (tmp_path / "panel.csv").write_text(text.replace(at, long, 1))
  with pytest.raises(ValueError, match="found a cell of 700") as caught:
    read_panel(tmp_path / "panel.csv")
  assert len(str(caught.value)) < 1000
