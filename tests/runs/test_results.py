from dicexmbd_jax.runs import results


def test_the_report_leaves_out_how_the_weights_were_trained():
  run = {
    "command": "predict",
    "config": {
      "image.preset": "paper",
      "predict.views": 4,
      "records.patch_px": 272,
      "seed": 1,
      "segment.preset": "touching",
      "train.augment.blur_px": 0.3,
    },
    "model": {"name": "base", "sha256": "0"},
    "versions": {"dicexmbd_jax": "1", "jax": "2"},
    "finished": "today",
    "device": "cpu",
    "seconds": {"total": 1.0},
  }
  assert [*results.describe_run(run)["details"]] == [
    "command",
    "weights (SHA-256)",
    "config.image.preset",
    "config.predict.views",
    "config.segment.preset",
    "dicexmbd_jax",
    "jax",
  ]
