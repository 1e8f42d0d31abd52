"""Pin what a config takes from a hub: `python -m workflow_scripts.tools.pin_revisions CONFIG`.

Asks the hub for the commit behind each revision of a model or data set and writes it in place of
the revision; nothing else in the file changes, not even comments. With ``--check`` nothing is
written: each revision is looked up, and an error names one that the hub does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from workflow_scripts.common import cli, files

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pin:
    """A revision in a config: of what, and where it stands in the text."""

    repository: str
    kind: str  # model or dataset
    revision: str
    start: int
    end: int


def pins(text: str) -> list[Pin]:
    """Return the revisions of models and data sets in a config, in order."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return sorted(_pins(root), key=lambda pin: pin.start) if root is not None else []


def _pins(node: yaml.Node) -> Iterator[Pin]:
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _pins(child)
    if not isinstance(node, yaml.MappingNode):
        return
    values = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    texts = {k: v.value for k, v in values.items() if isinstance(v, yaml.ScalarNode)}
    if "revision" in texts and ("hub" in texts or texts.get("kind") == "huggingface"):
        place = values["revision"]
        yield Pin(
            texts["hub"] if "hub" in texts else texts["path"],
            "model" if "hub" in texts else "dataset",
            texts["revision"],
            place.start_mark.index,
            place.end_mark.index,
        )
    for child in values.values():
        yield from _pins(child)


def commit_of(pin: Pin) -> str:
    """Return the commit of a revision, as the hub knows it.

    Raises
    ------
    UserError
        If the hub does not answer, or has no such repository or revision.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    try:
        info = HfApi().repo_info(pin.repository, revision=pin.revision, repo_type=pin.kind)
    except (HTTPError, OSError) as error:
        raise cli.UserError(
            f"the hub gives no commit of {pin.repository} at {pin.revision} "
            f"({cli.first_line(error)}): check the name, your access to it (HF_TOKEN) and the "
            "network"
        ) from None
    if not COMMIT.fullmatch(info.sha or ""):
        raise cli.UserError(f"the hub names no commit of {pin.repository}: pin it by hand")
    return str(info.sha)


def pin_revisions(config: Path, /, *, check: bool = False) -> None:
    """Write commits in place of revisions that may change.

    Parameters
    ----------
    config
        config file (YAML)
    check
        write nothing, look up every revision
    """
    if not config.is_file():
        raise cli.UserError(f"{config} does not exist: name a config file")
    text = config.read_text(encoding="utf-8")
    try:
        pinned = pins(text)
    except yaml.YAMLError as error:
        raise cli.UserError(f"{config} is not valid YAML: {' '.join(str(error).split())}") from None
    open_ones = [pin for pin in pinned if check or not COMMIT.fullmatch(pin.revision)]
    commits = [(pin, commit_of(pin)) for pin in open_ones]
    for pin, commit in commits:
        print(f"{pin.repository}: {pin.revision} is {commit}")
    if check:
        print(f"{config}: the hub has all {len(pinned)} revisions")
        return
    for pin, commit in reversed(commits):
        text = text[: pin.start] + commit + text[pin.end :]
    if commits:
        files.write_text(config, text)
    print(f"{config}: {len(commits)} of {len(pinned)} revisions written, the others were commits")


main = cli.command(pin_revisions)


if __name__ == "__main__":
    raise SystemExit(main())
