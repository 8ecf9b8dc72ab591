"""What an install may leave out, and which extra of the package brings it.

The base install runs `predict`, `segment` and `evaluate`; more needs an extra,
as in `pip install 'dicexmbd-jax[train]'`.
"""

import importlib.util
import logging

# Extra -> packages that it brings and the base lacks, as they are imported.
EXTRAS = {
  "train": (
    *("array_record", "grain", "importlib_resources", "pooch", "requests"),
    *("tensorboardX", "tensorflow_datasets"),
  ),
  "teach": ("roifile", "sklearn"),
  "export": ("onnx",),
  "spatialdata": ("spatialdata",),
  "remote": ("aiohttp", "fsspec", "gcsfs", "s3fs"),
}

# What JAX warns of where it finds no plugin for a device -> the extra.
PLUGINS = {
  "CUDA-enabled jaxlib is not installed": "gpu",
  "TPU-enabled jaxlib or libtpu is not installed": "tpu",
}


def check_extra(extra: str) -> None:
  """Raises a ModuleNotFoundError where a package of an extra is missing.

  Args:
    extra: one of EXTRAS; "": none is needed.
  """
  for package in EXTRAS.get(extra, ()):
    if importlib.util.find_spec(package) is None:
      raise ModuleNotFoundError(describe_package(package), name=package)


def describe_missing(error: Exception) -> str | None:
  """Returns one line on what to install; None: no extra brings it.

  Args:
    error: an ImportError whose `name`, or that of the error that it came of, is
      a package of EXTRAS or a module in it; None is returned for all others.
  """
  if not isinstance(error, ImportError):
    return None
  name = error.name or getattr(error.__cause__, "name", None) or ""
  package = name.partition(".")[0]
  known = any(package in packages for packages in EXTRAS.values())
  return describe_package(package) if known else None


def describe_package(package: str) -> str:
  """Returns one line on what to install for a package of EXTRAS."""
  extra = next(name for name, some in EXTRAS.items() if package in some)
  return f"found no package {package}, {_describe_extra(extra)}"


def name_plugin(record: logging.LogRecord) -> bool:
  """Makes JAX's warning of a device without a plugin name the extra.

  A filter of a handler; True, since every record passes.
  """
  for text, extra in PLUGINS.items():
    if text in str(record.msg):
      record.msg = f"{record.msg} {_describe_extra(extra).capitalize()}"
  return True


def _describe_extra(extra: str) -> str:
  return f"expected the extra {extra}: pip install 'dicexmbd-jax[{extra}]'"
