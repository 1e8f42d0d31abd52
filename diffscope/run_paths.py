"""The paths of a run's artifacts, wherever its folder lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.figures.record_run import MANIFEST
from workflow_scripts.run.paths import Paths


@dataclass(frozen=True)
class RunPaths(Paths):
    """The paths of the artifacts of a run in ``folder``; what is in the store, by its links."""

    folder: Path

    @property
    def results(self) -> str:
        """The folder of the run."""
        return str(self.folder)

    def model(self, name: str) -> Path:
        """Return the manifest of a model."""
        return (self.folder / "models" / name / MANIFEST).resolve()

    @property
    def first_tokens(self) -> Path:
        """The first token shard, which says how text is encoded."""
        return self.folder / "dataset" / "tokens" / Path(self.tokens[0]).name
