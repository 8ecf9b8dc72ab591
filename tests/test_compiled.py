import os

import pytest

from dicexmbd_jax import compiled


@pytest.fixture
def environment(monkeypatch, tmp_path):
  for name in list(os.environ):
    if name.startswith(("JAX_COMP", "JAX_PERS", "NUMBA_")):
      monkeypatch.delenv(name)
  monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "cache"))
  monkeypatch.setattr(compiled.os, "environ", dict(os.environ))
  return compiled.os.environ


def test_the_package_keeps_its_kernels_where_it_can(environment, tmp_path):
  compiled.keep_machine_code()
  folder = environment["JAX_COMPILATION_CACHE_DIR"]
  assert folder.startswith(str(tmp_path / "cache/jax-"))
  assert environment["NUMBA_CACHE_DIR"] == str(tmp_path / "cache/numba")


def test_without_a_folder_of_ours_kernels_lie_beside_the_package(environment):
  del environment[compiled.VARIABLE]
  compiled.keep_machine_code()
  assert "NUMBA_CACHE_DIR" not in environment


def test_what_the_environment_says_stays(environment):
  environment["JAX_COMPILATION_CACHE_DIR"] = "/mine"
  compiled.keep_machine_code()
  assert environment["JAX_COMPILATION_CACHE_DIR"] == "/mine"


@pytest.mark.parametrize("is_open", [True, False])
def test_a_package_that_is_read_only(
  environment, tmp_path, monkeypatch, is_open
):
  kernels = tmp_path / "cache/numba"
  kernels.mkdir(parents=True)
  (kernels / "kernel.nbi").write_text("code")
  closed = {compiled._KERNELS} | (set() if is_open else {kernels})
  monkeypatch.setattr(
    compiled, "is_writable", lambda folder: folder not in closed
  )
  compiled.keep_machine_code()
  folder = environment["NUMBA_CACHE_DIR"]
  assert (folder == str(kernels)) == is_open
  assert os.listdir(folder) == ["kernel.nbi"]


def test_a_folder_that_is_not_there_is_made_where_its_parent_lets(tmp_path):
  assert compiled.is_writable(tmp_path / "a/b/c")
