"""Downloads from a local server that breaks, lies, forgets and lacks Range."""

import hashlib
import http.server
import json
import socket
import threading

import pytest

from data_builders import download, fetch, published
from data_builders.published import Dataset, RemoteFile

CONTENT = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
  """Serves CONTENT at every address, in the way that the test sets."""

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.answers = {}  # path -> JSON value
    self.statuses = []  # of the next answers, before it serves
    self.breaks = []  # of the next transfers: bytes after which they end
    self.has_ranges = True
    self.tag = '"one"'
    self.requests = []  # (path, Range)

  @property
  def address(self):
    return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):  # noqa: N802, the base class's name
    server = self.server
    path = self.path
    wanted = self.headers.get("Range")
    server.requests.append((path, wanted))
    if server.statuses and (status := server.statuses.pop(0)) != 200:
      self.reply(status, b"")
    elif path in server.answers:
      self.reply(200, json.dumps(server.answers[path]).encode())
    elif wanted and server.has_ranges and self.is_same_version():
      self.reply_range(int(wanted.removeprefix("bytes=").removesuffix("-")))
    else:
      self.reply(200, CONTENT)

  def is_same_version(self):
    return self.headers.get("If-Range") == self.server.tag

  def reply_range(self, offset):
    size = len(CONTENT)
    if offset >= size:
      self.reply(416, b"", f"bytes */{size}")
    else:
      self.reply(206, CONTENT[offset:], f"bytes {offset}-{size - 1}/{size}")

  def reply(self, status, body, content_range=None):
    self.send_response(status)
    self.send_header("Content-Length", str(len(body)))
    if self.server.tag:
      self.send_header("ETag", self.server.tag)
    if content_range:
      self.send_header("Content-Range", content_range)
    self.end_headers()
    breaks = self.server.breaks
    end = breaks.pop(0) if body and breaks else len(body)
    self.wfile.write(body[:end])

  def log_message(self, *arguments):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.0)
  with Server() as running:
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()


def make_file(server, **sums):
  return RemoteFile("a.zip", (f"{server.address}/a.zip",), **sums)


def sum_content(algorithm):
  return hashlib.new(algorithm, CONTENT).hexdigest()


def list_names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_comes_whole_and_is_checked(server, tmp_path, algorithm):
  file = make_file(server, **{algorithm: sum_content(algorithm).upper()})
  line = fetch.fetch_file(file, tmp_path / "new")
  assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
  assert list_names(tmp_path / "new") == ["a.zip"]
  assert "as published" in line
  assert sum_content(algorithm) in line


def test_without_a_published_sum_the_own_one_is_told(server, tmp_path):
  line = fetch.fetch_file(make_file(server), tmp_path)
  assert f"sha256 {sum_content('sha256')}, no published sum" in line


def test_a_broken_transfer_goes_on_where_it_was(server, tmp_path):
  server.breaks = [1000, 2000]
  fetch.fetch_file(make_file(server), tmp_path)
  assert (tmp_path / "a.zip").read_bytes() == CONTENT
  assert [wanted for _, wanted in server.requests] == [
    None,
    "bytes=1000-",
    "bytes=3000-",
  ]


def test_another_call_goes_on_too(server, tmp_path, monkeypatch):
  server.breaks = [1000]
  with monkeypatch.context() as patch:
    patch.setattr(fetch, "NUM_TRIES", 1)
    with pytest.raises(fetch.DownloadError, match="1000 of 10240 bytes"):
      fetch.fetch_file(make_file(server), tmp_path)
  assert list_names(tmp_path) == ["a.zip.part", "a.zip.part.tag"]
  fetch.fetch_file(make_file(server), tmp_path)
  assert server.requests[-1][1] == "bytes=1000-"
  assert (tmp_path / "a.zip").read_bytes() == CONTENT
  assert list_names(tmp_path) == ["a.zip"]


def test_a_whole_part_only_gets_its_name(server, tmp_path):
  (tmp_path / "a.zip.part").write_bytes(CONTENT)
  (tmp_path / "a.zip.part.tag").write_text(server.tag)
  fetch.fetch_file(make_file(server), tmp_path)
  assert server.requests == [("/a.zip", f"bytes={len(CONTENT)}-")]
  assert list_names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("change", ["other version", "no tag", "no ranges"])
def test_what_cannot_go_on_starts_over(server, tmp_path, change):
  (tmp_path / "a.zip.part").write_bytes(b"x" * 500)
  if change != "no tag":
    tag = '"old"' if change == "other version" else server.tag
    (tmp_path / "a.zip.part.tag").write_text(tag)
  server.has_ranges = change != "no ranges"
  fetch.fetch_file(make_file(server), tmp_path)
  assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_that_breaks_starts_over(server, tmp_path):
  server.has_ranges = False
  server.breaks = [1000, 500]
  fetch.fetch_file(make_file(server), tmp_path)
  assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_weak_tag_is_no_promise(server, tmp_path):
  server.tag = 'W/"one"'
  server.breaks = [1000]
  fetch.fetch_file(make_file(server), tmp_path)
  assert [wanted for _, wanted in server.requests] == [None, None]
  assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_endless_breaking_ends(server, tmp_path):
  server.breaks = [0] * 99
  with pytest.raises(fetch.DownloadError, match="0 of 10240 bytes"):
    fetch.fetch_file(make_file(server), tmp_path)
  assert len(server.requests) == fetch.NUM_TRIES


@pytest.mark.parametrize("is_there", [False, True])
def test_a_wrong_sum_keeps_the_file_aside(server, tmp_path, is_there):
  if is_there:
    (tmp_path / "a.zip").write_bytes(CONTENT)
  file = make_file(server, md5="0" * 32)
  with pytest.raises(fetch.DownloadError) as error:
    fetch.fetch_file(file, tmp_path)
  assert f"md5 is {sum_content('md5')}, expected {'0' * 32}" in str(error.value)
  assert list_names(tmp_path) == ["a.zip.wrong"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
  file = make_file(server, md5=sum_content("md5"))
  fetch.fetch_file(file, tmp_path)
  fetch.fetch_file(file, tmp_path)
  assert len(server.requests) == 1


def test_passing_troubles_are_tried_again(server, tmp_path):
  server.statuses = [503, 429]
  fetch.fetch_file(make_file(server), tmp_path)
  assert len(server.requests) == 3


@pytest.mark.parametrize("status", [404, 403, 202])
def test_refusals_lead_to_the_next_address(server, tmp_path, status):
  server.statuses = [status]
  file = RemoteFile("a.zip", (f"{server.address}/one", f"{server.address}/two"))
  fetch.fetch_file(file, tmp_path)
  assert [path for path, _ in server.requests] == ["/one", "/two"]
  assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_missing_file_is_one_line(server, tmp_path):
  server.statuses = [404]
  with pytest.raises(fetch.DownloadError, match="answered 404") as error:
    fetch.fetch_file(make_file(server), tmp_path)
  assert "\n" not in str(error.value)


def make_dataset(*files):
  return Dataset(files, lambda read_json: files)


def test_one_missing_file_does_not_stop_the_others(server, tmp_path, capsys):
  server.statuses = [404]
  other = RemoteFile("b/c.zip", (f"{server.address}/c.zip",))
  dataset = make_dataset(make_file(server), other)
  assert download.download_dataset(dataset, tmp_path) == 1
  assert list_names(tmp_path) == ["b"]
  assert download.download_dataset(dataset, tmp_path) == 0
  assert list_names(tmp_path) == ["a.zip", "b"]


@pytest.fixture
def closed_address():
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    port = one.getsockname()[1]
  return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["brca1", "brca2", "t1d1", "t1d2", "model"])
def test_no_network_is_one_line(
  name, closed_address, tmp_path, monkeypatch, capsys
):
  for service in ("FIGSHARE", "FIGSHARE_API", "ZENODO", "MENDELEY"):
    monkeypatch.setattr(published, service, closed_address)
  code = download.main([f"--dataset={name}", f"--output={tmp_path}"])
  lines = capsys.readouterr().err.splitlines()
  assert code == 1
  assert len(lines) == 1
  assert "cannot reach 127.0.0.1" in lines[0]
  assert "is there a network?" in lines[0]


def redirect_services(monkeypatch, server):
  monkeypatch.setattr(published, "FIGSHARE", f"{server.address}/f")
  monkeypatch.setattr(published, "FIGSHARE_API", f"{server.address}/fapi")
  monkeypatch.setattr(published, "ZENODO", f"{server.address}/z")
  monkeypatch.setattr(published, "MENDELEY", f"{server.address}/m")


def test_figshare_tells_its_sums(server, tmp_path, monkeypatch, capsys):
  redirect_services(monkeypatch, server)
  server.answers = {
    "/fapi/projects/115347/articles?page_size=100": [{"id": 7}, {"id": 8}],
    "/fapi/articles/7/files": [
      {"id": 28298646, "computed_md5": sum_content("md5")}
    ],
    "/fapi/articles/8/files": [{"id": 28297719, "computed_md5": "0" * 32}],
  }
  assert download.main(["--dataset=brca1", f"--output={tmp_path}"]) == 1
  assert list_names(tmp_path) == ["test.zip.wrong", "train.zip"]
  output = capsys.readouterr()
  assert "train.zip: 10240 bytes, md5" in output.out
  assert "idr0076" in output.out
  assert "test.zip: md5 is" in output.err


def test_zenodo_tells_its_files(server, tmp_path, monkeypatch):
  redirect_services(monkeypatch, server)
  server.answers = {
    "/z/api/records/3518284": {
      "files": [
        {
          "key": "a.zip",
          "checksum": f"md5:{sum_content('md5')}",
          "links": {"self": f"{server.address}/content"},
        }
      ]
    }
  }
  assert download.main(["--dataset=brca2", f"--output={tmp_path}"]) == 0
  assert list_names(tmp_path) == ["a.zip"]
  assert server.requests[-1][0] == "/content"


def test_mendeley_tells_its_folders(server, tmp_path, monkeypatch):
  redirect_services(monkeypatch, server)

  def describe(name):
    return {
      "filename": name,
      "content_details": {
        "download_url": f"{server.address}/{name}",
        "sha256_hash": sum_content("sha256"),
      },
    }

  for record in ("9b262xmtm9", "xbxnfg2zfs"):
    root = f"/m/datasets/{record}"
    server.answers |= {
      f"{root}/folders/1": [
        {"id": "A", "name": "img"},
        {"id": "B", "name": "one", "parent_id": "A"},
      ],
      f"{root}/files?folder_id=root&version=1": [describe("panel.csv")],
      f"{root}/files?folder_id=A&version=1": [],
      f"{root}/files?folder_id=B&version=1": [describe("a.tiff")],
    }
  assert download.main(["--dataset=t1d2", f"--output={tmp_path}"]) == 0
  found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
  assert found == {
    f"{part}/{name}"
    for part in ("part1", "part2")
    for name in ("panel.csv", "img/one/a.tiff")
  }


@pytest.mark.parametrize(
  "answer", [{"message": "gone"}, [], [{"id": 1}], "text", None]
)
def test_an_unknown_list_leads_to_what_is_known(
  server, tmp_path, monkeypatch, capsys, answer
):
  redirect_services(monkeypatch, server)
  server.answers = {"/m/datasets/cydmwsfztj/folders/1": answer}
  assert download.main(["--dataset=t1d1", f"--output={tmp_path}"]) == 0
  assert "list of files could not be read" in capsys.readouterr().err
  assert server.requests[-1][0] == "/m/zip/cydmwsfztj/download/1"
  assert list_names(tmp_path) == ["cydmwsfztj.zip"]


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a", "..\\a", ""])
def test_names_stay_in_their_folder(name):
  with pytest.raises(ValueError, match="leaves its folder"):
    published.check_name(name)


def test_wrong_calls_have_code_2(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert download.main([]) == 2
  assert download.main(["--dataset=brca3", "--output=a"]) == 2
  assert download.main(["--dataset=brca1", f"--output={tmp_path}/file"]) == 2
  assert download.main(["--help"]) == 0
