import io

import numpy as np
import pandas as pd
import pytest

from dicexmbd_jax.io import tables, write


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


def test_numbers_come_back_to_the_bit(tmp_path):
  rng = np.random.default_rng(0)
  scales = 10.0 ** rng.integers(-30, 30, (500, 3))
  table = pd.DataFrame(rng.normal(size=(500, 3)) * scales, columns=[*"abc"])
  table["n"] = np.arange(500) - 250
  table["is_odd"] = table["n"] % 2 == 1
  table["gaps"] = np.where(table["is_odd"], np.nan, table["a"])
  table["nothing"] = np.nan
  write.write_table(tmp_path / "a.csv", table)
  found = tables.read_table(tmp_path / "a.csv")
  pd.testing.assert_frame_equal(found, table, check_exact=True)


@pytest.mark.parametrize(
  "text",
  [
    "a,b\n1,2\n3,4\n",
    "a,b\n1,2\n3,4",
    "a,b\n,\n,2\n",
    "a,b,c\n,,\n,,\n1,,2\n",
    "a,b\n1,2.5\n-3,\n",
    "a,b\nTrue,1\nFalse,2\n",
    "a,b\nTrue,1\n,2\n",
    "a,b\n1e-05,1\n1e300,2\n",
    "a,b\n0.5,99999999999999999999\n1.5,2\n",
    "a,b\n1,9223372036854775808\n3,4\n",
    "a,b\n01,2\n02,3\n",
    "a,b\n.5,2\n1.,3\n",
    "a,b\ninf,2\nnan,3\n",
    "a,b\nx,2\ny,3\n",
    "a,a\n1,2\n",
    '"a,x",b\n1,2\n',
    "a,b\n",
    "a\n1\n\n3\n",
    "a,b\n1,2\n3\n",
    "a,b\r\n1,2\r\n",
    "a,b\n1,2\n\n3,4\n",
    "\u00e9,b\n1,2\n",
  ],
)
def test_tables_are_read_as_pandas_does(tmp_path, text):
  (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
  found = tables.read_table(tmp_path / "a.csv")
  expected = pd.read_csv(io.StringIO(text), float_precision="round_trip")
  pd.testing.assert_frame_equal(found, expected, check_exact=True)
