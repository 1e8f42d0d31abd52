"""Write where a run's artifacts came from, and link the shared ones into the run's folder.

Text, trained models and activations lie in the store, where runs share them. The links give them
their place under results/<run>/ too: documents, token shards and model manifests.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from workflow_scripts.common import cli, files
from workflow_scripts.common.provenance import PACKAGE, code_digest, provenance

MANIFEST = "model.json"


def link(path: Path, target: Path) -> None:
    """Make ``path`` a relative symbolic link to ``target``.

    Raises
    ------
    UserError
        If the target does not exist, or something else than a link is in the way.
    """
    if not target.exists():
        raise cli.UserError(f"{target} does not exist: run the step that makes it")
    if path.exists() and not path.is_symlink():
        raise cli.UserError(f"{path} is in the way of a link to {target}: remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def link_model(path: Path, manifest: Path) -> None:
    """Link what lies beside a manifest that calls its own folder the model's."""
    if files.read_json(manifest)["folder"] == ".":
        for file in manifest.parent.iterdir():
            if file.is_file() and file != manifest:
                link(path.with_name(file.name), file)


def record_run(
    settings: dict[str, object],
    steps: list[str],
    links: dict[str, str],
    models: dict[str, Path],
    output: Path,
) -> None:
    """Make the links and write settings, digests of code, models and library versions.

    Parameters
    ----------
    settings
        all settings of the run
    steps
        ``stage.verb_object`` of each step
    links
        file of the store to which each link of the run leads
    models
        manifest of each model
    output
        record to write (JSON)
    """
    for path, target in links.items():
        link(Path(path), Path(target))
        if Path(target).name == MANIFEST:
            link_model(Path(path), Path(target))
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    files.write_json(
        output,
        provenance(
            __file__,
            run=settings.get("run"),
            settings=settings,
            settings_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
            code={step: code_digest(f"{PACKAGE}.{step}") for step in steps},
            models={name: files.read_json(path) for name, path in models.items()},
            links=links,
        ),
    )


main = cli.command(record_run)


if __name__ == "__main__":
    raise SystemExit(main())
