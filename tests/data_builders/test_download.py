"""Downloads from a local server that breaks and refuses."""

import hashlib
import http.server
import socket
import threading

import pooch
import pytest

from data_builders import download
from data_builders.download import RemoteFile

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
  """Serves CONTENT at every address, in the way that the test sets."""

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.statuses = []  # of the next answers, before it serves
    self.breaks = []  # of the next transfers: bytes after which they end
    self.paths = []  # that were asked for

  @property
  def address(self):
    return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):  # noqa: N802, the base class's name
    server = self.server
    server.paths.append(self.path)
    self.send_response(server.statuses.pop(0) if server.statuses else 200)
    self.send_header("Content-Length", str(len(CONTENT)))
    self.end_headers()
    end = server.breaks.pop(0) if server.breaks else len(CONTENT)
    self.wfile.write(CONTENT[:end])

  def log_message(self, *arguments):
    pass


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
  monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)


@pytest.fixture
def server():
  with Server() as running:
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()


def make_file(server, md5=None, name="a.zip"):
  return RemoteFile(name, (f"{server.address}/{name}",), md5)


def list_files(folder):
  return {
    p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
  }


@pytest.mark.parametrize(
  ("md5", "words"),
  [
    (MD5, f"a.zip: 10240 bytes, md5 {MD5}, as published"),
    (None, f"a.zip: 10240 bytes, sha256 {SHA256}, no published sum"),
  ],
)
def test_a_file_comes_whole_and_its_sum_is_told(server, tmp_path, md5, words):
  line = download.fetch_file(make_file(server, md5), tmp_path / "new")
  assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
  assert list_files(tmp_path / "new") == {"a.zip"}
  assert line.startswith(words)
  download.fetch_file(make_file(server, md5), tmp_path / "new")
  assert server.paths == ["/a.zip"]  # What is there is not fetched again.


def test_a_broken_transfer_is_tried_again(server, tmp_path):
  server.breaks = [1000, 0]
  download.fetch_file(make_file(server), tmp_path)
  assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("md5", [MD5, None])
def test_what_stays_broken_is_no_file(server, tmp_path, capsys, md5):
  server.breaks = [1000] * 9
  assert download.fetch_files([make_file(server, md5)], tmp_path) == 1
  assert list_files(tmp_path) == set()
  assert "a.zip: " in capsys.readouterr().err


def test_a_wrong_sum_is_one_line(server, tmp_path, capsys):
  assert download.fetch_files([make_file(server, "0" * 32)], tmp_path) == 1
  assert list_files(tmp_path) == set()
  [line] = capsys.readouterr().err.splitlines()
  assert "0" * 32 in line
  assert MD5 in line


def test_a_damaged_file_is_fetched_again(server, tmp_path):
  (tmp_path / "a.zip").write_bytes(CONTENT[:-1])
  download.fetch_file(make_file(server, MD5), tmp_path)
  assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_one_missing_file_does_not_stop_the_others(server, tmp_path, capsys):
  server.statuses = [404] * (1 + download.NUM_RETRIES)
  files = [make_file(server), make_file(server, name="b/c.zip")]
  assert download.fetch_files(files, tmp_path) == 1
  assert list_files(tmp_path) == {"b/c.zip"}
  [line] = capsys.readouterr().err.splitlines()
  assert line.startswith("a.zip: 404")


def test_the_next_address_is_tried(server, tmp_path):
  server.statuses = [403] * (1 + download.NUM_RETRIES)
  addresses = tuple(f"{server.address}/{name}" for name in ("one", "two"))
  download.fetch_file(RemoteFile("a.zip", addresses), tmp_path)
  assert server.paths[-1] == "/two"


def test_no_network_is_one_line(tmp_path, monkeypatch, capsys):
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{one.getsockname()[1]}"
  files = tuple(RemoteFile(name, (f"{address}/{name}",)) for name in "ab")
  monkeypatch.setitem(download.DATASETS, "brca1", files)
  code = download.main(["--dataset=brca1", f"--output={tmp_path}"])
  output = capsys.readouterr()
  assert code == 1
  [line] = output.err.splitlines()
  assert line == f"a: cannot reach {address}/a; is there a network?"
  assert "idr0076" in output.out


def test_the_command_fetches_its_data_set(server, tmp_path, monkeypatch):
  files = tuple(make_file(server, MD5, f"part{k}/{k}.zip") for k in (1, 2))
  monkeypatch.setitem(download.DATASETS, "t1d2", files)
  assert download.main(["--dataset=t1d2", f"--output={tmp_path}"]) == 0
  assert list_files(tmp_path) == {"part1/1.zip", "part2/2.zip"}


def test_the_table_has_the_papers_four_data_sets_and_the_weights():
  assert set(download.DATASETS) == {"brca1", "brca2", "t1d1", "t1d2", "model"}
  files = [file for files in download.DATASETS.values() for file in files]
  assert len({file.name for file in files}) == len(files)
  for address in (one for file in files for one in file.addresses):
    assert pooch.utils.parse_url(address)["protocol"] in ("https", "doi")


def test_zenodos_files_are_named_by_doi_and_checked():
  for file in download.DATASETS["brca2"]:
    parsed = pooch.utils.parse_url(*file.addresses)
    assert parsed["netloc"] == "10.5281/zenodo.3518284"
    assert parsed["path"] == f"/{file.name}"
    assert len(file.md5) == 32


def test_wrong_calls_have_code_2(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert download.main([]) == 2
  assert download.main(["--dataset=brca3", "--output=a"]) == 2
  assert download.main(["--dataset=brca1", f"--output={tmp_path}/file"]) == 2
  assert download.main(["--help"]) == 0
