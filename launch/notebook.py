"""Runs a notebook's code cells in this process, without Jupyter.

usage: python launch/notebook.py docs/notebook.ipynb   (writes its outputs)
"""

import ast
import base64
import contextlib
import io
import json
import pathlib
import sys
from typing import Any


def run_cells(notebook: dict) -> list[list[dict]]:
  """Returns the outputs of each code cell, as a notebook stores them."""
  names: dict[str, Any] = {"__name__": "__main__"}
  cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
  return [
    run_cell("".join(cell["source"]), names, number)
    for number, cell in enumerate(cells, 1)
  ]


def run_cell(source: str, names: dict[str, Any], number: int) -> list[dict]:
  """Runs one cell; what it prints and its last expression are the outputs."""
  tree = ast.parse(source)
  last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
  printed, value = io.StringIO(), None
  with contextlib.redirect_stdout(printed):
    exec(compile(tree, f"cell {number}", "exec"), names)
    if last is not None:
      code = compile(ast.Expression(last.value), f"cell {number}", "eval")
      value = eval(code, names)
  outputs: list[dict] = []
  if printed.getvalue():
    text = split_lines(printed.getvalue())
    outputs.append({"output_type": "stream", "name": "stdout", "text": text})
  if value is not None:
    outputs.append(
      {
        "output_type": "execute_result",
        "execution_count": number,
        "metadata": {},
        "data": show_value(value),
      }
    )
  return outputs


def show_value(value: Any) -> dict[str, Any]:
  """Returns a value in the forms in which a notebook shows it."""
  if hasattr(value, "_repr_png_"):
    picture = base64.b64encode(value._repr_png_()).decode()
    return {"image/png": picture, "text/plain": ["a picture"]}
  data = {"text/plain": split_lines(repr(value))}
  if hasattr(value, "_repr_html_"):
    data["text/html"] = split_lines(value._repr_html_())
  return data


def split_lines(text: str) -> list[str]:
  """Returns lines with their ends, as notebooks store text."""
  return text.splitlines(keepends=True)


def main(path: pathlib.Path) -> None:
  """Runs a notebook and writes it back with its outputs."""
  notebook = json.loads(path.read_text())
  outputs = iter(run_cells(notebook))
  number = 0
  for cell in notebook["cells"]:
    if cell["cell_type"] == "code":
      number += 1
      cell |= {"outputs": next(outputs), "execution_count": number}
  path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
