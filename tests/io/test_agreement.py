import pytest

from dicexmbd_jax.io.panel import read_panel
from dicexmbd_jax.io.selection import resolve_panel

PANEL = """channel,name,nuclear,membrane_cytoplasm
Ir191,DNA1,1,0
Pr141,CD45,0,1
Er170,CD8,0,1
"""


@pytest.fixture
def make_panel(tmp_path):
  def make(text):
    path = tmp_path / "panel.csv"
    path.write_text(text)
    return read_panel(path)

  return make


@pytest.mark.parametrize(
  ("names", "words"),
  [
    # Two panels in one study: CD45 and CD3 changed their metals.
    (
      ["DNA1_Ir191", "CD3_Pr141", "CD45_Nd143", "CD8_Er170"],
      ["CD45 on Nd143 and CD3 on Pr141", "CD45 on Pr141", "line 3"],
    ),
    (
      ["DNA1_Ir191", "CD8_Pr141", "CD45_Er170"],
      ["CD45 on Er170 and CD8 on Pr141", "line 3"],
    ),
    (
      ["Ir191", "Pr141", "cd-45(Nd143)", "Er170"],
      ["CD45 on Nd143 and no marker on Pr141"],
    ),
    (
      ["Ir191", "CD3_Pr141", "CD45", "Er170"],
      ["CD45 on a channel without a metal and CD3 on Pr141"],
    ),
    # As CyTOF software writes it.
    (
      ["191Ir", "CD3_18((21))141Pr", "CD45_32((44))143Nd", "CD8_9((1))170Er"],
      ["CD45 on Nd143 and CD3 on Pr141"],
    ),
    # No metal of the panel's.
    (
      ["DNA1_Ir191", "CD45_Nd143", "CD8_Er170"],
      ["CD45 (Pr141, line 3) but on Nd143 not among them"],
    ),
  ],
)
def test_a_marker_on_another_metal_is_an_error_of_both_sides(
  make_panel, names, words
):
  with pytest.raises(ValueError) as caught:
    resolve_panel(make_panel(PANEL), names, len(names), "ROI1.tiff")
  message = str(caught.value)
  assert message.startswith("ROI1.tiff: found")
  assert "\n" not in message
  assert "panel.csv" in message
  assert all(word in message for word in words)


@pytest.mark.parametrize(
  ("names", "warnings"),
  [
    (["DNA1_Ir191", "CD45_Pr141", "CD8_Er170"], ()),
    (["Ir191", "Pr141", "Er170"], ()),
    (["DNA1", "CD45", "CD8"], ()),
    (["dna-1_191Ir", "CD45_32((44))Pr141Di", "CD8a_Er170"], ()),
    (
      ["DNA1_Ir191", "CD3_Pr141", "CD8_Er170"],
      (
        "markers are called otherwise than in panel.csv: "
        "Pr141 is CD45 there, CD3 here",
      ),
    ),
    (
      ["Intercalator_Ir191", "CD45RA_Pr141", "CD80_Er170"],
      (
        "markers are called otherwise than in panel.csv: Ir191 is DNA1 there, "
        "Intercalator here; Er170 is CD8 there, CD80 here",
      ),
    ),
  ],
)
def test_a_marker_that_the_file_has_by_no_name_is_a_warning(
  make_panel, names, warnings
):
  found = resolve_panel(make_panel(PANEL), names, 3, "ROI1.tiff")
  assert found.channels == (0, 1, 2)
  assert found.names == ("DNA1", "CD45", "CD8")
  assert found.warnings == warnings


@pytest.mark.parametrize(
  ("one", "other", "is_told"),
  [
    ("Cytokeratin 5", "Cytoker", False),
    ("Collagen I", "CollagenI", False),
    ("Keratin 5", "Keratin 14", True),
    ("CD4", "CD45", True),
    ("PD-1", "PD-L1", True),
    ("HLA-DR", "HLA-ABC", True),
    ("HH3", "Total HH3", False),
  ],
)
def test_spellings_are_told_from_markers(make_panel, one, other, is_told):
  panel = make_panel(PANEL.replace("CD45", one))
  names = ["DNA1_Ir191", f"{other}_Pr141", "CD8_Er170"]
  warnings = resolve_panel(panel, names, 3, "ROI1.tiff").warnings
  assert bool(warnings) == is_told


def test_a_metal_written_twice_is_no_marker(make_panel):
  panel = make_panel(PANEL.replace("Pr141,CD45", "127I,Iodine"))
  names = ["DNA1_Ir191", "127I_I127", "CD8_Er170"]
  assert resolve_panel(panel, names, 3, "ROI1.tiff").warnings == ()


def test_a_marker_on_two_metals_may_be_named_on_one(make_panel):
  panel = make_panel(
    PANEL.replace("DNA1", "DNA").replace("Er170,CD8", "Ir193,DNA")
  )
  for names in (
    ["DNA_Ir191", "DNA_Ir193", "CD45_Pr141"],
    ["DNA_Ir191", "Ir193", "CD45_Pr141"],
  ):
    found = resolve_panel(panel, names, 3, "ROI1.tiff")
    assert (found.channels, found.warnings) == ((0, 2, 1), ())
  with pytest.raises(ValueError, match="DNA on Ir191 and CD3 on Ir193"):
    resolve_panel(
      panel, ["DNA_Ir191", "CD3_Ir193", "CD45_Pr141"], 3, "ROI1.tiff"
    )


@pytest.mark.parametrize(
  ("row", "name"),
  [
    ("141,CD45", "CD45_Nd143"),
    ("Pr141,CD45", "CD45 (143)"),
    (",CD45 (141)", "CD45 (143)"),
    (",CD45 (141)", "CD45_Nd143"),
  ],
)
def test_masses_are_compared_too(make_panel, row, name):
  text = PANEL.replace("Pr141,CD45", row)
  if row.startswith("141"):  # A column of masses alone.
    text = text.replace("Ir191", "191").replace("Er170", "170")
  panel = make_panel(text)
  names = ["DNA1", name, "CD8"]
  with pytest.raises(ValueError, match="CD45.*not among them"):
    resolve_panel(panel, names, 3, "ROI1.tiff")
  names[1] = name.replace("143", "141").replace("Nd", "Pr")
  assert resolve_panel(panel, names, 3, "ROI1.tiff").channels == (0, 1, 2)


@pytest.mark.parametrize(
  ("row", "found"),
  [
    ("Pr141,CD45_Nd143", "Pr141 and Nd143 in line 3 (CD45_Nd143)"),
    ("141Pr,143Nd", "Pr141 and Nd143 in line 3 (143Nd)"),
    ("141,CD45(Nd143)", "141 and Nd143 in line 3"),
    ("Pr141,CD45_Cd112", "Pr141 and Cd112 in line 3"),
  ],
)
def test_a_row_of_two_metals_is_an_error(make_panel, row, found):
  with pytest.raises(ValueError) as caught:
    make_panel(PANEL.replace("Pr141,CD45", row))
  assert f"panel.csv: found {found}" in str(caught.value)
  assert str(caught.value).endswith("expected one metal")


@pytest.mark.parametrize("row", ["Pr141,141Pr_CD45", "Pr141,Cd106", "141,CD45"])
def test_other_rows_are_of_one_metal(make_panel, row):
  assert make_panel(PANEL.replace("Pr141,CD45", row)).rows[1].line == 3


def test_a_metal_column_beside_numbers_is_compared(make_panel):
  text = (
    "channel,metal tag,name,nuclear,membrane_cytoplasm\n"
    "2,Ir191,DNA1,1,0\n1,Pr141,CD45,0,1\n"
  )
  panel = make_panel(text)
  assert [row.channel for row in panel.rows] == ["Pr141", "Ir191"]
  assert resolve_panel(panel, ["", ""], 2, "a.tiff").names == ("CD45", "DNA1")
  with pytest.raises(ValueError, match="CD45 on Nd143"):
    names = ["DNA1_Ir191", "CD3_Pr141", "CD45_Nd143"]
    resolve_panel(panel, names, 3, "a.tiff")
  with pytest.raises(ValueError, match="Pr141 and Nd143 in line 3"):
    make_panel(text.replace("CD45", "CD45_Nd143"))


def test_a_metal_of_two_rows_is_an_error_with_both_lines(make_panel):
  with pytest.raises(ValueError) as caught:
    make_panel(PANEL + "141Pr,CD20,0,1\n")
  assert "found Pr141 in lines 3 (CD45) and 5 (CD20)" in str(caught.value)


def test_rows_of_one_name_are_told_by_their_lines(make_panel):
  panel = make_panel(PANEL + ",CD8,0,1\n")
  with pytest.raises(ValueError, match=r"CD8 \(line 5\) ambiguous"):
    resolve_panel(panel, ["DNA1", "CD45", "CD8", "CD8", ""], 5, "a.tiff")


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\nsep=;"])
def test_a_line_that_only_names_the_separator_is_taken(make_panel, first):
  text = f"{first}\n{PANEL.replace(',', ';')}"
  assert [row.name for row in make_panel(text).rows] == ["DNA1", "CD45", "CD8"]
  with pytest.raises(ValueError, match=f"line {3 + first.count(chr(10))}"):
    make_panel(text.replace(";1;0", ";x;0"))


def test_a_separator_named_and_a_comma_in_cells(make_panel):
  text = "sep=|\nname|nuclear|membrane_cytoplasm\nA, B, C, D|1|0\n"
  assert make_panel(text).rows[0].name == "A, B, C, D"
