import pytest

from dicexmbd_jax.io import json_file


def test_an_object_comes_back(tmp_path):
  (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null]}')
  assert json_file.read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "Expecting value"),
    (b"{", "Expecting property name"),
    (b"[" * 100_000, "maximum recursion depth"),
    (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
    (b"\xff\xfe\xfd", "can't decode|truncated data"),
    (b"[1]", "found a list in JSON, expected an object"),
    (b"null", "found a NoneType in JSON"),
  ],
)
def test_what_is_no_object_is_one_line(tmp_path, content, message):
  path = tmp_path / "a.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    json_file.read_json(path)
  assert str(caught.value).startswith(f"{path}: found ")
  assert "\n" not in str(caught.value)


def test_no_file_is_the_systems_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    json_file.read_json(tmp_path / "a.json")
