"""Makes tests/data/torch_unet.pth and .npz: what PyTorch says of a random net.

    python tests/make_torch_reference.py    (needs torch; run once)

The network has the names and the order of the published state dict
(conv1..conv9, up6..up9, conv10), width 2, and statistics and biases that are
not trivial.
"""

import pathlib

import numpy as np
import torch
from torch import nn

WIDTH, SEED = 2, 0
FOLDER = pathlib.Path(__file__).parent / "data"


class Double(nn.Module):
  """Twice: convolution, BatchNorm, ReLU."""

  def __init__(self, num_in, num_out):
    super().__init__()
    self.conv = nn.Sequential(
      nn.Conv2d(num_in, num_out, 3, padding=1),
      nn.BatchNorm2d(num_out),
      nn.ReLU(),
      nn.Conv2d(num_out, num_out, 3, padding=1),
      nn.BatchNorm2d(num_out),
      nn.ReLU(),
    )

  def forward(self, x):
    return self.conv(x)


class Network(nn.Module):
  """The published layout for any width."""

  def __init__(self, width, num_in=3):
    super().__init__()
    widths = [num_in, *(width * 2**level for level in range(5))]
    for i in range(5):
      setattr(self, f"conv{i + 1}", Double(widths[i], widths[i + 1]))
    for i in range(4):
      small, large = widths[4 - i], widths[5 - i]
      setattr(self, f"up{i + 6}", nn.ConvTranspose2d(large, small, 2, 2))
      setattr(self, f"conv{i + 6}", Double(large, small))
    self.conv10 = nn.Conv2d(width, 3, 1)

  def forward(self, x):
    skips = []
    for i in range(1, 6):
      x = getattr(self, f"conv{i}")(x)
      if i < 5:
        skips.append(x)
        x = nn.functional.max_pool2d(x, 2)
    for i in range(6, 10):
      x = torch.cat([getattr(self, f"up{i}")(x), skips.pop()], 1)
      x = getattr(self, f"conv{i}")(x)
    return self.conv10(x)


def make_network(width=WIDTH, seed=SEED):
  """Returns a random network whose BatchNorms are not the identity."""
  torch.manual_seed(seed)
  network = Network(width).eval()
  for name, values in network.state_dict().items():
    if name.endswith("running_mean"):
      values.normal_(0, 0.5)
    elif name.endswith("running_var"):
      values.uniform_(0.5, 2)
    elif name.endswith("bias"):
      values.normal_(0, 0.3)
  return network


def main():
  """Writes the state dict, an input and the logits."""
  network = make_network()
  rng = np.random.default_rng(SEED)
  image = rng.standard_normal((1, 32, 48, 3)).astype(np.float32)
  with torch.no_grad():
    logits = network(torch.from_numpy(image).permute(0, 3, 1, 2))
  FOLDER.mkdir(exist_ok=True)
  torch.save(network.state_dict(), FOLDER / "torch_unet.pth")
  np.savez_compressed(
    FOLDER / "torch_unet.npz",
    image=image,
    logits=logits.permute(0, 2, 3, 1).numpy(),
  )


if __name__ == "__main__":
  main()
