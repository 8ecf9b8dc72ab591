"""What the tests of several commands share."""

import pytest
import tiny_models


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
  """A tiny network that finds cells."""
  return tiny_models.write_tiny_model(tmp_path_factory.mktemp("model"))
