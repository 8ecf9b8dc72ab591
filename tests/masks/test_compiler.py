import numba

from dicexmbd_jax.masks import compiler


def test_compiles():
  assert compiler.compile_kernel(lambda value: value + 1)(2) == 3


def test_kernels_run_where_nothing_can_be_cached(monkeypatch):
  njit = numba.njit

  def refuse(cache=False, **options):
    if cache:
      raise RuntimeError("cannot cache function: no locator available")
    return njit(**options)

  monkeypatch.setattr(numba, "njit", refuse)
  assert compiler.compile_kernel(lambda value: value + 1)(2) == 3
