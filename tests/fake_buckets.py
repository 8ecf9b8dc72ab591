"""Buckets in memory, for fsspec and for TensorStore, which Orbax writes with.

Both see the same objects: TensorStore over HTTP, as Google's storage answers
(JSON API: get, list, insert, delete).
"""

import contextlib
import http.server
import json
import re
import threading
import urllib.parse

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.registry import _registry
from orbax.checkpoint._src.path import gcs_utils


class Bucket(MemoryFileSystem):
  """fsspec's memory under the schemes of buckets; knows no empty folders."""

  protocol = ("s3", "gs", "gcs")
  store: dict = {}
  pseudo_dirs: list = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(re.sub(r"^\w+://", "", str(path)))

  def mkdir(self, path, create_parents=True, **kwargs):
    pass

  def makedirs(self, path, exist_ok=False):
    pass


def use_buckets(monkeypatch):
  """Makes s3:// and gs:// empty buckets in memory; returns their files."""
  monkeypatch.setattr(Bucket, "store", {})
  monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
  for scheme in Bucket.protocol:
    monkeypatch.setitem(_registry, scheme, Bucket)
  # Asks for the kind of a bucket, with a library of Google's.
  monkeypatch.setattr(gcs_utils, "get_bucket", lambda name: None)
  return fsspec.filesystem("s3")


class _Api(http.server.BaseHTTPRequestHandler):
  """Google's JSON API, as far as TensorStore asks."""

  def log_message(self, *arguments):
    pass

  def _answer(self, code, content=b"", **headers):
    if isinstance(content, dict):
      content = json.dumps(content).encode()
    self.send_response(code)
    for name, value in headers.items():
      self.send_header(name.replace("_", "-"), value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  def _split(self):
    """Returns bucket, object and query of the request."""
    url = urllib.parse.urlsplit(self.path)
    words = url.path.split("/b/")[1].split("/o")
    name = urllib.parse.unquote(words[1].lstrip("/")) if len(words) > 1 else ""
    return words[0], name, dict(urllib.parse.parse_qsl(url.query))

  def do_GET(self):
    bucket, name, query = self._split()
    if not name:
      start = f"/{bucket}/"
      names = [one.removeprefix(start) for one in sorted(Bucket.store)]
      wanted = [one for one in names if one.startswith(query.get("prefix", ""))]
      return self._answer(200, {"items": [{"name": one} for one in wanted]})
    file = Bucket.store.get(f"/{bucket}/{name}")
    if file is None:
      return self._answer(404)
    content = file.getvalue()
    asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
    if not asked:
      return self._answer(200, content, x_goog_generation="1")
    first = int(asked[1])
    last = min(int(asked[2] or len(content)), len(content) - 1)
    return self._answer(
      206,
      content[first : last + 1],
      x_goog_generation="1",
      Content_Range=f"bytes {first}-{last}/{len(content)}",
    )

  def do_POST(self):
    bucket, _, query = self._split()
    content = self.rfile.read(int(self.headers["Content-Length"]))
    path = f"/{bucket}/{query['name']}"
    if query.get("ifGenerationMatch") == "0" and path in Bucket.store:
      return self._answer(412)
    Bucket.store[path] = MemoryFile(None, path, content)
    return self._answer(200, {"name": query["name"], "generation": "1"})

  def do_DELETE(self):
    bucket, name, _ = self._split()
    found = Bucket.store.pop(f"/{bucket}/{name}", None)
    self._answer(404 if found is None else 204)


@contextlib.contextmanager
def serve_buckets(monkeypatch):
  """Lets TensorStore find the buckets at an address of this machine."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Api)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  address = f"http://127.0.0.1:{server.server_port}"
  monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
  try:
    yield
  finally:
    server.shutdown()
    server.server_close()
