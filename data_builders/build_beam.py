"""Builds a dataset of training records on many machines, with Apache Beam.

python -m data_builders.build_beam --images=DIR --teacher=DIR --panel=FILE
    --output=DIR [--config.records.patch_px=256] [-- --runner=FlinkRunner ...]

Takes what data_builders.build takes and, after `--`, Beam's own flags; without
any, it runs on this machine. The records are the same as there. Every machine
must see images, teacher and output under the same paths. Needs the extra
`beam`, in an environment of its own: pip install ".[beam]".

Exit code 0: done; 1: some images failed; 2: wrong call.
"""

import importlib.util
import sys
from collections.abc import Sequence

from absl import logging

from data_builders import build


def main(arguments: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""
  words = list(arguments)
  end = words.index("--") if "--" in words else len(words)
  if importlib.util.find_spec("apache_beam") is None:
    logging.error(
      "build_beam: found no Apache Beam, expected: pip install '.[beam]'"
    )
    return 2
  return build.main(words[:end], beam_words=words[end + 1 :])


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
