"""Config files as YAML has them, refused where YAML itself would stay silent.

Snakemake reads them too, and merges what several hold; it lets a key that stands twice pass.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from workflow_scripts.common.cli import UserError, quoted

DEEPEST = 40
"""Levels of nesting; settings have six."""


def check_file(path: Path) -> None:
    """Check that a file is a mapping of text keys, each once.

    Raises
    ------
    UserError
        If it is none, with the line; a file that is not there is Snakemake's to refuse.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        return
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: no UTF-8: save the file in this encoding") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        blanks = ": indent with blanks, not tabs" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{path}, line {line}: no YAML ({error.problem}){blanks}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(
            f"{path} is nested more than {DEEPEST} levels deep: it is no config"
        ) from None
    if node is None:
        raise UserError(f"{path} is empty: it has no settings (config/README.md lists them)")
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{_place(path, node)}: a config is a mapping, `run: name` and so on")
    _check(path, node, 1, set())


def _check(path: Path, node: yaml.Node, depth: int, seen: set[int]) -> None:
    """Check the keys of a node and of those below it; aliases of one that was seen are fine."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if depth > DEEPEST:
        raise UserError(f"{_place(path, node)}: nested more than {DEEPEST} levels deep")
    if isinstance(node, yaml.MappingNode):
        _check_keys(path, node)
        for _, value in node.value:
            _check(path, value, depth + 1, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check(path, value, depth + 1, seen)


def _check_keys(path: Path, node: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        where = _place(path, key)
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{where}: a key is one word, not a list or a mapping")
        name = str(key.value)
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:int"):
            kind = key.tag.rpartition(":")[2]
            raise UserError(
                f"{where}: YAML reads the key {quoted(name)} as {kind}: put it in quotes"
            )
        if name in first:
            raise UserError(
                f"{where}: {quoted(name)} stands in line {first[name]} too, which would not count: "
                "delete one"
            )
        first[name] = key.start_mark.line + 1


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
