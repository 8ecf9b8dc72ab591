import pytest

from dicexmbd_jax.io import tables


def test_types_are_told_by_the_values(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("image,value\n01,2.5\n02,3\n")
  found = tables.read_table(path, texts=("image",), numbers=("value", "other"))
  assert found.to_dict("list") == {"image": ["01", "02"], "value": [2.5, 3.0]}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("a,value\nx,1\nx,1,2,3\n", "Expected 2 fields in line 3, saw 4"),
    ("", "No columns to parse"),
    ("a,value\nx,0.5&\n", "found '0.5&' in column value, expected numbers"),
    ("a,value\nx,1\ny,\n", "found 'nan' in column value"),
    ("a,value\nx,inf\n", "found 'inf' in column value"),
    ("a,value\nx,True\n", "found 'bool' in column value"),
  ],
)
def test_other_tables_are_one_line(tmp_path, content, message):
  path = tmp_path / "a.csv"
  path.write_text(content)
  with pytest.raises(ValueError, match=message) as caught:
    tables.read_table(path, numbers=("value",))
  assert str(caught.value).startswith(f"{path}: found ")
  assert "\n" not in str(caught.value)
