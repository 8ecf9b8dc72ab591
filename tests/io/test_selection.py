import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from dicexmbd_jax.io.names import make_unique, parse_name
from dicexmbd_jax.io.selection import resolve_panel
from dicexmbd_jax.types import Panel, PanelRow

FILE = pathlib.Path("ROI1.tiff")


def make_panel(*rows):
  """Rows as (channel, name, letters of keep, nuclear, membrane)."""
  return Panel(
    pathlib.Path("panel.csv"),
    tuple(
      PanelRow(channel, name, "k" in flags, "n" in flags, "m" in flags)
      for channel, name, flags in rows
    ),
  )


PANEL = make_panel(
  ("In113", "Junk", ""),
  ("Ir191", "DNA1", "kn"),
  ("Ir193", "DNA2", "kn"),
  ("Pr141", "CD45", "km"),
  ("Yb172", "CD3", "k"),
)


@pytest.mark.parametrize(
  ("text", "metal"),
  [
    ("Ir191", "Ir191"),
    ("191Ir", "Ir191"),
    ("ir191", "Ir191"),
    ("Ir191Di", "Ir191"),
    ("Ir(191)", "Ir191"),
    ("DNA1_Ir191", "Ir191"),
    ("Ir191_DNA1", "Ir191"),
    ("DNA1(Ir191Di)", "Ir191"),
    ("191Ir_DNA1", "Ir191"),
    ("CD45 Pr141", "Pr141"),
    ("Cytoker_651((3356))Pr141_Pr141", "Pr141"),
    ("80ArAr", "ArAr80"),
    ("CD45", None),
    ("CD107", None),
    ("P53", None),
    ("Ki67", None),
    ("HLA-DR", None),
    ("Xe999", None),
    ("Cd117", None),  # A marker: no isotope of cadmium is as heavy.
    ("Nd143_Cd117", "Nd143"),
    ("CD3 (140)", None),
  ],
)
def test_metals_are_told_from_markers(text, metal):
  assert parse_name(text).metal == metal


@pytest.mark.parametrize(
  "text",
  ["", "0", "Channel 1", "C1", "Channel:0:0", "ch03", "page 2", "NA", "12-3"],
)
def test_generic_names_name_nothing(text):
  assert parse_name(text).markers == frozenset()


@pytest.mark.parametrize("text", ["CD3", "H3", "dsDNA", "E-Cadherin", "\u03b2"])
def test_real_names_name_something(text):
  assert parse_name(text).markers


def test_asked_rows_are_found_by_name_in_any_order():
  names = ["Yb172", "141Pr_CD45", "DNA2_Ir193", "Xe131", "Ir191_DNA1"]
  selection = resolve_panel(PANEL, names, 5, FILE)
  assert selection.channels == (4, 2, 1, 0)
  assert selection.names == ("DNA1", "DNA2", "CD45", "CD3")
  assert selection.nuclear == (0, 1)
  assert selection.membrane == (2,)


def test_markers_decide_without_metals():
  names = ["cd-45", "CD 3", "dna_1", "DNA2", "Collagen"]
  assert resolve_panel(PANEL, names, 5, FILE).channels == (2, 3, 0, 1)


def test_metals_decide_against_equal_markers():
  panel = make_panel(("Ir193", "DNA", "kn"), ("Pr141", "CD45", "km"))
  names = ["DNA_Ir191", "DNA_Ir193", "CD45_Pr141"]
  assert resolve_panel(panel, names, 3, FILE).channels == (1, 2)


def test_channels_that_are_not_asked_for_may_be_missing_or_extra():
  names = ["CD3", "CD45", "DNA1", "DNA2"]
  assert resolve_panel(PANEL, names, 4, FILE).channels == (2, 3, 1, 0)
  assert resolve_panel(PANEL, [*names, "X", "Y"], 6, FILE).channels == (
    *(2, 3, 1, 0),
  )


@pytest.mark.parametrize(
  "names", [[], [""] * 5, [f"Channel {i}" for i in "01234"]]
)
def test_without_names_all_rows_are_the_channels(names):
  assert resolve_panel(PANEL, names, 5, FILE).channels == (1, 2, 3, 4)


def test_without_names_kept_rows_are_the_channels():
  assert resolve_panel(PANEL, [], 4, FILE).channels == (0, 1, 2, 3)


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6, 30])
def test_any_other_count_is_an_error_that_names_both_sides(num_channels):
  with pytest.raises(ValueError) as caught:
    resolve_panel(PANEL, [], num_channels, FILE)
  message = str(caught.value)
  assert f"ROI1.tiff: found {num_channels} channel(s)" in message
  assert "5 rows (4 kept) of panel.csv" in message


def test_kept_count_does_not_help_where_a_used_row_is_not_kept():
  panel = make_panel(("Ir191", "DNA", "n"), ("Pr141", "CD45", "km"))
  with pytest.raises(ValueError, match="found 1 channel"):
    resolve_panel(panel, [], 1, FILE)
  assert resolve_panel(panel, [], 2, FILE).nuclear == (0,)


def test_a_missing_channel_is_named_with_what_was_found():
  with pytest.raises(ValueError) as caught:
    resolve_panel(PANEL, ["CD3", "DNA1", "DNA2", "CD8", "CD20"], 5, FILE)
  message = str(caught.value)
  assert "found 5 channels CD3, DNA1, DNA2, CD8, CD20" in message
  assert "panel.csv: CD45 (Pr141) not among them" in message


def test_a_shift_by_one_row_is_refused():
  names = ["Ir191", "Ir193", "Pr141", "Xe131", "In113"]
  with pytest.raises(ValueError, match=r"CD3 \(Yb172\) not among them"):
    resolve_panel(PANEL, names, 5, FILE)


def test_repeated_names_go_by_position_if_the_whole_sequence_agrees():
  panel = make_panel(
    (None, "undefined", "k"),
    (None, "H3", "kn"),
    (None, "H3", "k"),
    (None, "CD45", "km"),
  )
  selection = resolve_panel(panel, ["0", "H3", "h3", "CD45"], 4, FILE)
  assert selection.channels == (0, 1, 2, 3)
  assert selection.names == ("undefined", "H3", "H3_2", "CD45")
  for names in (["H3", "H3", "CD45", "0"], ["H3", "H3", "CD45"]):
    with pytest.raises(ValueError, match="ambiguous"):
      resolve_panel(panel, names, len(names), FILE)


def test_two_rows_cannot_share_a_channel():
  panel = make_panel(("Ir191", "DNA1", "kn"), ("Ir191", "DNA2", "km"))
  with pytest.raises(ValueError, match="ambiguous"):
    resolve_panel(panel, ["Ir191", "Ir193"], 2, FILE)


def test_partly_named_files_go_by_position_if_the_names_agree():
  names = ["", "Ir191", "Channel 3", "", "CD3"]
  assert resolve_panel(PANEL, names, 5, FILE).channels == (1, 2, 3, 4)
  with pytest.raises(ValueError):
    resolve_panel(PANEL, ["Ir191", "", "", "", ""], 5, FILE)


def test_without_a_panel_two_channels_will_do():
  selection = resolve_panel(None, [], 2, FILE)
  assert (selection.nuclear, selection.membrane) == ((0,), (1,))
  swapped = resolve_panel(None, ["Membrane", "Nuclei"], 2, FILE)
  assert (swapped.nuclear, swapped.membrane) == ((0,), (1,))
  assert swapped.channels == (1, 0)
  assert swapped.names == ("Nuclei", "Membrane")


@pytest.mark.parametrize(
  ("names", "nuclear"),
  [
    (["DAPI", "E-cadherin"], 0),
    (["E-cadherin", "ROI1_DAPI"], 1),
    (["Membrane", "dsDNA"], 1),
    (["Membrane", "panCK"], 1),
    (["CD45", "CD3"], 0),  # No name tells: by order.
    (["CD45", "H3"], 1),
    (["Membrane_1", "Nuclear_1"], 1),
    (["PanCK", "nuclear stain"], 1),
    (["Na/K-ATPase", "Nuclei_sum"], 1),
    (["Nucleolin", "SYTOX Green"], 0),
    (["cell without nuclei", "nuclei"], 1),
    (["whole cell (nuclei + cytoplasm)", "nuclei"], 1),
    (["anti-nuclear envelope", "DAPI"], 1),
    (["Channel 1", "Channel 2"], 0),
    (["DAPI", ""], 0),
    (["", "DAPI"], 1),
  ],
)
def test_without_a_panel_names_tell_which_is_nuclear(names, nuclear):
  found = resolve_panel(None, names, 2, FILE)
  assert (found.nuclear, found.membrane) == ((0,), (1,))
  assert found.channels == (nuclear, 1 - nuclear)
  # The same for all files of a study: they are columns of its tables.
  assert found.names == ("nuclear", "membrane")


def test_mibi_files_may_name_the_mass_behind_the_marker():
  names = ["CD3 (140)", "dsDNA (89)", "CD45 (141)"]
  panel = make_panel((None, "dsDNA", "n"), (None, "CD45", "m"))
  assert resolve_panel(panel, names, 3, FILE).channels == (1, 2)
  panel = make_panel((None, "DNA (191)", "n"), (None, "CD45 (154)", "m"))
  names = ["DNA (193)", "DNA (191)", "CD45 (154)"]
  assert resolve_panel(panel, names, 3, FILE).channels == (1, 2)
  names = ["DNA", "CD45 (154)"]
  assert resolve_panel(panel, names, 2, FILE).channels == (0, 1)
  panel = make_panel((None, "DNA", "n"), (None, "CD45", "m"))
  names = ["DNA (193)", "DNA (191)", "CD45 (154)"]
  with pytest.raises(ValueError, match="DNA ambiguous"):
    resolve_panel(panel, names, 3, FILE)


def test_marker_names_that_look_like_metals_do_not_hide_these():
  panel = make_panel(("Ir191", "DNA", "n"), ("Nd143", "Cd117", "m"))
  names = ["Nd143_Cd117", "Ir191_DNA"]
  assert resolve_panel(panel, names, 2, FILE).channels == (1, 0)


def test_without_a_panel_one_channel_is_nuclear():
  selection = resolve_panel(None, [], 1, FILE)
  assert (selection.nuclear, selection.membrane) == ((0,), ())


@pytest.mark.parametrize("num_channels", [3, 40])
def test_without_a_panel_other_files_need_one(num_channels):
  with pytest.raises(
    ValueError, match=f"found {num_channels} channel.*a panel"
  ):
    resolve_panel(None, [], num_channels, FILE)


def test_a_panel_refuses_two_channels_unless_these_say_what_they_are():
  with pytest.raises(ValueError, match="found 2 channel"):
    resolve_panel(PANEL, [], 2, FILE)
  names = ["nuclear", "membrane_cytoplasm"]
  assert resolve_panel(PANEL, names, 2, FILE).names == tuple(names)


def test_unique_names():
  names = ["A", "A", "A_2", "A", "B"]
  assert make_unique(names) == ("A", "A_3", "A_2", "A_4", "B")


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.sampled_from(["A", "A_2", "A_3", "B"])))
def test_unique_names_are_unique_and_keep_first_uses(names):
  unique = make_unique(names)
  assert len(set(unique)) == len(names)
  assert all(
    unique[i] == name for i, name in enumerate(names) if name not in names[:i]
  )


@hypothesis.settings(deadline=None)
@hypothesis.given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_order_of_the_file_does_not_matter(order, dropped):
  metals = [
    "Ir191",
    "Ir193",
    "Pr141",
    "Yb172",
    "Dy161",
    "Gd156",
    "Y89",
    "In115",
  ]
  rows = [(metal, f"M{i}", "knm") for i, metal in enumerate(metals)]
  panel = make_panel(*rows)
  names = [metals[i] for i in order if i not in dropped]
  if dropped:
    with pytest.raises(ValueError):
      resolve_panel(panel, names, len(names), FILE)
  else:
    selection = resolve_panel(panel, names, len(names), FILE)
    assert [names[i] for i in selection.channels] == metals
