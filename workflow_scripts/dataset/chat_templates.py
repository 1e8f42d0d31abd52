"""Which chat template serves a run, and whether it is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.common.cli import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def choose_template(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], path: str | None
) -> tuple[str | None, str]:
    """Return the run's chat template and where it is from.

    Raises
    ------
    UserError
        If the file does not exist or is no text, or a model has several templates and no default.
    """
    if path is not None:
        file = Path(path)
        if not file.is_file():
            raise UserError(f"text.template: {file} does not exist: check the path")
        try:
            return file.read_text(encoding="utf-8-sig"), file.name
        except UnicodeDecodeError:
            raise UserError(f"text.template: {file} is no UTF-8 text: save it as UTF-8") from None
    for name, tokenizer in tokenizers.items():
        template: object = tokenizer.chat_template
        if isinstance(template, dict):
            if "default" not in template:
                raise UserError(
                    f"the tokenizer of {name} has the chat templates "
                    f"{', '.join(sorted(map(str, template)))} and no default: write the one to use "
                    "to a file and set text.template"
                )
            template = template["default"]
        if not template:
            continue
        if not isinstance(template, str):
            raise UserError(
                f"the chat template of {name} is no text: correct its tokenizer_config.json, or "
                "set text.template to a jinja file"
            )
        return template.removeprefix("\ufeff"), name
    return None, ""


def check_template(tokenizer: PreTrainedTokenizerBase, template: str, origin: str) -> None:
    """Check that a chat template is one in Jinja's syntax.

    Raises
    ------
    UserError
        If not; that it refuses a chat is not looked at.
    """
    from jinja2 import TemplateSyntaxError

    try:
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}], chat_template=template, tokenize=False
        )
    except TemplateSyntaxError as error:
        raise UserError(
            f"the chat template of {origin} is not valid Jinja (line {error.lineno}: "
            f"{first_line(error)}): correct it, or set text.template to another file"
        ) from None
    except Exception:  # of a template that raises; documents that it refuses are counted
        return
