"""TFDS's own command line, also where TensorFlow is not installed.

DICEXMBD_RECORDS=request.json python -m data_builders.tfds build
    data_builders/imc_patches --data_dir=DIR

`tfds build` itself needs neither TensorFlow nor mlcroissant, but the program
`tfds` loads them for its other commands, convert_format and build_croissant.
Where one is missing, that command is left out here; the rest is `tfds` itself.
"""

import dataclasses
import importlib.util
import sys
import types

_CLI = "tensorflow_datasets.scripts.cli"
# Module of a command -> what it needs, the class that the program takes of it.
_COMMANDS = {
  "convert_format": ("tensorflow", "Args"),
  "croissant": ("mlcroissant", "CmdArgs"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absent:
  """A command that is not available, for want of a library."""

  def execute(self) -> None:
    """Refuses."""
    raise SystemExit("tfds: found no library for this command, expected it")


def leave_out_commands() -> None:
  """Puts a stand-in where a command's library is not installed."""
  package = importlib.import_module(_CLI)
  for command, (library, name) in _COMMANDS.items():
    if importlib.util.find_spec(library) is None:
      module = types.ModuleType(f"{_CLI}.{command}")
      setattr(module, name, Absent)
      sys.modules[module.__name__] = module
      # `from package import command` looks at the package first.
      setattr(package, command, module)


def run() -> None:
  """Runs the command line; ends the process."""
  leave_out_commands()
  from tensorflow_datasets.scripts.cli import main

  main.launch_cli()


if __name__ == "__main__":
  run()
