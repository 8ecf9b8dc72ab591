import pytest

from dicexmbd_jax.markers import is_membrane_stain


@pytest.mark.parametrize(
  "name",
  ["CD45", "89Y_CD45", "cd 3", "E-Cadherin", "PanCK", "CK5", "NaK-ATPase"]
  + ["Cytokeratin 5", "ICSK1", "HLA-DR", "membrane", "Vimentin"],
)
def test_names_of_membrane_and_cytoplasm(name):
  assert is_membrane_stain(name)


@pytest.mark.parametrize("name", ["DNA1_Ir191", "H3", "Ki67", "CCD2", "SMA"])
def test_names_of_others(name):
  assert not is_membrane_stain(name)
