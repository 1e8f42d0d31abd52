"""Show which latents fire on a text: ``python -m workflow_scripts.tools.fire RUN FIT "text"``.

Prints every token with the strongest latents that are unique to a model, and their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import diffscope
from workflow_scripts.common import cli
from workflow_scripts.common.characters import hidden
from workflow_scripts.figures.category_rows import Row, rows_of

LONGEST = 120
"""Characters of an explanation that are shown."""


def lines(firing: diffscope.Firing, models: tuple[str, ...], most: int) -> Iterator[str]:
    """Yield the tokens, each with at most so many latents unique to each model."""
    unique = {model: firing.unique(model, most) for model in models}
    for position, token in enumerate(firing.tokens):
        yield f"{position:4} {token!r}{'' if firing.read[position] else ' (not read)'}"
        for model, table in unique.items():
            for row in rows_of(table[table["position"] == position]):
                yield f"       {model}: {described(row)}"
    counts = ", ".join(f"{t['latent'].nunique()} unique to {m}" for m, t in unique.items())
    yield f"{firing.active['latent'].nunique()} latents fire; shown: {counts}"


def described(row: Row) -> str:
    """Return a latent that fires on a token, on one line."""
    names = [row.text("category").replace("_", " "), row.text("explanation")]
    text = " ".join(": ".join(filter(None, names)).split())
    shown = hidden().sub(lambda match: f"U+{ord(match[0]):04X}", text)
    shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
    share = f"{100 * row.number('share_of_largest'):.0f} % of its largest"
    return f"latent {row.count('latent')}, {row.number('activation'):.2f} ({share}) {shown or '–'}"


def fire(
    run: Path,
    fit: str,
    text: str,
    /,
    seed: int | None = None,
    most: int = 3,
    chat: bool = False,
) -> None:
    """Print the tokens of a text with the strongest latents that are unique to either model.

    Parameters
    ----------
    run
        folder of the run, results/<run>
    fit
        name of the fit
    text
        text to read
    seed
        seed of the fit; none: the first
    most
        latents of each model that are shown at a token
    chat
        the text is the user's turn of a chat

    Raises
    ------
    UserError
        If there is no such run or fit, or it cannot read the text.
    """
    opened = diffscope.open_run(run).fit(fit, seed)
    firing = opened.fire([{"role": "user", "content": text}] if chat else text)
    print(f"{fit}, seed {opened.seed}, layer {opened.layer}: {' and '.join(opened.models)}")
    for line in lines(firing, opened.models, most):
        print(line, flush=True)


main = cli.command(fire)


if __name__ == "__main__":
    raise SystemExit(main())
