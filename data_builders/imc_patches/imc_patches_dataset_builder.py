"""A TFDS dataset of patches: image, teacher's target, what is padding."""

import contextlib
import pathlib
import shutil
from typing import Any

import tensorflow_datasets as tfds

from data_builders import jobs, parts, report, shuffle
from dicexmbd_jax.runs.failures import FailureLog
from dicexmbd_jax.runs.progress import Progress
from dicexmbd_jax.train import records


class _OwnInfo(tfds.core.DatasetInfo):
  """What is known of a dataset; nobody else is asked for it."""

  def initialize_from_bucket(self) -> None:
    """Does nothing; TFDS would leave an empty folder in TMPDIR."""


class Builder(tfds.core.dataset_builder.FileReaderBuilder):
  """Cuts images and their teacher's maps or masks into records."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "Schema 1."}

  def __init__(self, *, request: jobs.Request, **kwargs: Any):
    """Takes the request.

    Args:
      request: what to build from what.
      **kwargs: of TFDS: data_dir and so on.
    """
    self.request = request
    kwargs["file_format"] = "array_record"
    super().__init__(**kwargs)

  @property
  def root(self) -> pathlib.Path:
    """The output folder: what was given as data_dir."""
    return pathlib.Path(self._data_dir_root)

  def download_and_prepare(
    self, *, keeps_parts: bool = False, **kwargs: Any
  ) -> None:
    """Builds the dataset unless it is there; nothing is downloaded.

    What a killed build had begun to write is removed, but for the images'
    parts, which are used.

    Args:
      keeps_parts: whether the parts stay once the dataset is written.
      **kwargs: of TFDS.
    """
    folder = pathlib.Path(self.data_dir)
    for path in folder.parent.glob(f"incomplete.*_{folder.name}"):
      shutil.rmtree(path)
    super().download_and_prepare(**kwargs)
    if not keeps_parts:
      shutil.rmtree(self.root / parts.FOLDER, ignore_errors=True)
    # TFDS makes these for every dataset; full ones are someone else's.
    with contextlib.suppress(OSError):
      (self.root / "downloads" / "extracted").rmdir()
      (self.root / "downloads").rmdir()

  def _info(self) -> tfds.core.DatasetInfo:
    return _OwnInfo(
      builder=self,
      description=(
        "Patches of imaging mass cytometry (nuclear, membrane/cytoplasm) with "
        "a teacher's probabilities of nucleus, membrane/cytoplasm, background."
      ),
      features=records.make_features(self.request.config.records.patch_px),
      citation=_read_citation(),
      # The schema's number, since its folder is what travels.
      metadata=tfds.core.MetadataDict(schema=records.SCHEMA_VERSION),
    )

  def _download_and_prepare(self, dl_manager, download_config) -> None:
    """Makes the images' parts, in processes, and writes the splits of them."""
    del dl_manager, download_config  # Nothing is downloaded.
    shard_bytes = self.request.config.records.shard_mib << 20
    splits = [
      shuffle.write_split(
        chosen, self._get_filename_template(split), shard_bytes
      )
      for split, chosen in self._deal_parts().items()
    ]
    self.info.set_splits(tfds.core.SplitDict(splits))

  def _deal_parts(self) -> dict[str, list[parts.Part]]:
    """Makes the images' parts and deals them out to the splits."""
    plan = jobs.plan_build(self.request)
    found, log = self._make_parts(plan)
    report.write_report(self.root, plan, found, log)
    if not found:
      raise ValueError(
        f"{self.request.images}: found no image that can be used, see "
        f"{self.root / 'failures.csv'}"
      )
    by_split: dict[str, list[parts.Part]] = {}
    for item in plan.items:
      if item.pair.stem in found:
        chosen = by_split.setdefault(item.split, [])
        chosen.append(found[item.pair.stem])
    return by_split

  def _make_parts(
    self, plan: jobs.Plan
  ) -> tuple[dict[str, parts.Part], FailureLog]:
    log = FailureLog()
    for stem, file, line in plan.failures:
      log.add(stem, file, ValueError(line))
    print(
      f"{len(plan.items)} images with a teacher: {plan.teacher.kind} in "
      f"{plan.teacher.pattern}"
    )
    old: list[str] = []
    with Progress(len(plan.items)) as progress:

      def tell(item: jobs.Item, result: parts.Part | Exception) -> None:
        stem = item.pair.stem
        if isinstance(result, Exception):
          log.add(stem, parts.blame_file(item, result), result)
          return
        if result.is_old:
          old.append(stem)
          progress.skip()
        else:
          progress.tell(f"{stem}: {result.num_patches} patches")

      found = parts.make_parts(
        plan.items,
        plan.job,
        self.root / parts.FOLDER,
        self.request.num_workers,
        tell,
      )
    if old:
      print(f"{len(old)} images were done before")
    return found, log


def _read_citation() -> str:
  path = pathlib.Path(__file__).with_name("CITATIONS.bib")
  return path.read_text(encoding="utf-8").strip()
