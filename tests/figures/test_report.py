"""The report: self-contained, safe with hostile text, and working in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path

import pytest

from tests.comparison.run_folder import LATENTS, Run, make_run
from tests.debian import can_install
from tests.figures import made_words
from tests.figures.browser import Page, browse, chromium
from tests.figures.conftest import compared
from tests.figures.made_changes import VERDICTS, write_changes
from tests.figures.test_annotator_tables import labelled
from tests.figures.test_figures import flags_of, plot
from tests.latents.scripts import TEXTS, byte_level
from tests.latents.test_token_text import pieces_of
from workflow_scripts.common import files
from workflow_scripts.common.artifacts import FitFiles
from workflow_scripts.common.characters import hidden
from workflow_scripts.common.tables import write_csv
from workflow_scripts.figures import (
    build_report,
    cards,
    report_data,
    verdict_latex,
    verdict_rows,
    verdict_table,
)
from workflow_scripts.figures.report_data import to_json
from workflow_scripts.figures.report_tables import Table
from workflow_scripts.figures.style import LOOKS

HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><img src=x onerror='window.broken = 1'>",
    "\"'`${window.broken = 1}&lt;&amp;",
    "\u202eright to left\u202c",
    "zero\u200bwidth",
    "🦊 emoji 👩\u200d🔬",
    "\u2028\u2029",
    "http://example.com/beacon.png",
    "]]>--><!--",
)


SOURCES = ("all", "web")


def report_flags(run: Run, figure: Path, output: Path) -> list[str]:
    """Return the command line of the report."""
    fits = {}
    for name, models in run.fits.items():
        seeds = {}
        for seed in run.seeds:
            named = run.root / f"autointerp/{name}/seed{seed}"
            clauses, loss = named / "selection.json", named / "loss.csv"
            left = {"live": 300, "status": 280, "nu_r": 61, "nu_e": 47, "fdr": 46}
            files.write_json(clauses, {"left_after": {f"{models[0]}_vs_{models[1]}": left}})
            rows = [
                {"model": m, "source": s, "recovered_mean": 0.9} for m in models for s in SOURCES
            ]
            write_csv(loss, rows)
            seeds[str(seed)] = {
                **run.seed_files(name, seed),
                "evaluation": str(run.root / f"crosscoder/{name}/seed{seed}/evaluation.json"),
                "clauses": str(clauses),
                "loss": str(loss),
                "explanations": [str(named / "explanations.parquet")],
                "scores": [str(named / "scores.parquet")],
            }
        if name == "it_simpo":
            contexts = run.root / "comparison/documents/direct_seed0_contexts.parquet"
            next(iter(seeds.values()))["carriers"] = str(contexts)
        fits[name] = {"models": list(models), "layer": 3, "seeds": seeds}
    pictures = {"two_axes": {"png": str(figure), "caption": "Two axes.", "section": "answer"}}
    comparison = run.root / "comparison"
    stem = comparison / "documents/direct_seed0"
    weighed = {"fit": "it_simpo", "documents": f"{stem}.parquet"}
    weighed["carriers"] = f"{stem}_carriers.parquet"
    return [
        *("--run", "made_up", "--figures", json.dumps(pictures), "--fits", json.dumps(fits)),
        *("--answer", str(comparison / "answer.json")),
        *("--changes", str(comparison / "changes.csv")),
        *("--losses", str(comparison / "losses.parquet")),
        *("--labels", str(run.root / "dataset/labels.parquet")),
        *("--documents", str(run.root / "dataset/documents.parquet")),
        *("--weighed", json.dumps({"direct": weighed})),
        *("--recovery", str(comparison / "recovery.csv")),
        *("--gaps", str(comparison / "gaps.csv")),
        *("--sensitivity", str(comparison / "sensitivity.csv")),
        *("--provenance", str(run.root / "provenance.json")),
        *("--output", str(output), "--card", str(output.with_name("card.md"))),
        *("--verdicts", str(output.with_name("verdicts.csv"))),
        *("--latex", str(output.with_name("verdicts.tex"))),
    ]


def made_report(run: Run, folder: Path, texts: Sequence[str] = made_words.TEXTS) -> Path:
    """Build the report of a run and return its path."""
    assert plot("plot_two_axes", flags_of(run, "plot_two_axes"), folder) == 0
    facts: dict[str, object] = {"config": "digest", "models": {"it": {"revision": "a" * 40}}}
    dump = "results/quickstart/activations/instructed/layer3/shard000.h5"
    facts["links"] = {dump: "results/store/0123456789abcdef/instructed/middle/shard000.h5"}
    files.write_json(run.root / "provenance.json", facts)
    page = folder / "report/index.html"
    flags = report_flags(run, folder / "plot_two_axes.png", page)
    assert build_report.main([*flags, *made_words.write_words(run, texts)]) == 0
    return page


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_report(run, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    run = make_run(folder / "run", pieces=HOSTILE, explanation=" ".join(HOSTILE))
    compared(run)
    write_changes(run, dict(zip(HOSTILE, cycle(LOOKS), strict=False)), HOSTILE)
    return made_report(run, folder, HOSTILE)


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], Path]:
    """Return what builds the page of a run with other labels and verdicts."""
    run = make_run(tmp_path_factory.mktemp("another"))
    compared(run)

    def build(verdicts: Mapping[str, str]) -> Path:
        write_changes(run, verdicts)
        return made_report(run, tmp_path_factory.mktemp("page"))

    return build


class Links(HTMLParser):
    """Collects every attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loading = ("src", "href", "srcset", "data", "action", "poster")
        self.found += [value or "" for name, value in attrs if name in loading]


def links(path: Path) -> Links:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_nothing_is_loaded_from_elsewhere(which: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    found = links(path).found
    assert found
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in found)
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"@import|url\(", text)
    assert "Content-Security-Policy" in text


def test_the_answer_stands_first_with_its_picture(run: Run, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    answer = files.read_json(run.root / "comparison/answer.json")
    topics = answer["by_labeller"]["topics"]["sentence"]
    places = (
        answer["sentence"],
        topics,
        answer["text"]["warning"],
        "data:image/png",
        'class="lines"',
        'class="question"',
    )
    found = [text.index(place) for place in places]
    assert found == sorted(found)
    assert "a" * 40 in text
    first = text.split('class="question"')[0].split("<h1>")[1]
    assert len(re.findall("<table", first)) == 1
    assert len(re.findall('<th scope="col">', first)) == 6


def test_everything_below_stands_under_one_question(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    below = text[text.index('class="question"') : text.index('id="browser"')]
    captions = re.findall(r"<caption>(.*?)</caption>", below)
    assert len(set(captions)) == len(captions)
    for part, question in (
        ("How sure each verdict is", "sure"),
        ("Planted changes and what each statistic finds", "sure"),
        ("The same question, asked of other labels", "sure"),
        ("How far predictions and activations are apart", "carries"),
        ("Whether counts of unique latents call a category", "decisions"),
        ("Crosscoders", "crosscoders"),
        ("No LLM was used.", "names"),
    ):
        opened = below.split(part)[0].rpartition('class="question" id="')[2]
        assert opened.startswith(question), part
    assert "labels: lexical" not in below


def test_labels_of_documents_by_an_llm_stand_under_the_names(run: Run, tmp_path: Path) -> None:
    made = made_report(run, tmp_path)
    files.write_json(tmp_path / "agreement.json", labelled(0.31))
    flags = report_flags(run, tmp_path / "plot_two_axes.png", made)
    assert build_report.main([*flags, f"--llm-labels={tmp_path / 'agreement.json'}"]) == 0
    fold = made.read_text(encoding="utf-8").split('id="names"')[1].split("</details>")[0]
    assert "labels of documents may not be reliable: their alpha is below 0.667" in fold
    assert "The LLM&#39;s labels of documents" in fold
    assert "0.31 (0.10 … 0.90)" in fold
    assert "&lt;b&gt;law&lt;/b&gt;" in fold


def test_clauses_and_recovered_losses_are_told(run: Run, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = list(run.fits)
    table = text.split("<caption>Latents left after each clause of the rule")[1].split("</table>")[
        0
    ]
    assert table.count("<tr") == 1 + len(names) * len(run.seeds)
    row = table.split("<tr")[2]
    places = [row.index(f">{left}<") for left in ("300", "280", "61", "47", "46")]
    assert places == sorted(places)  # as the rule goes: each clause leaves fewer
    models = run.fits[names[0]]
    assert ", ".join(f"{model} 0.900" for model in models) in text


def _unmarked(text: str) -> str:
    """Return a text of the page with the characters that it shows by number."""
    return re.sub("\ue000([0-9A-F]+)\ue001", lambda match: chr(int(match[1], 16)), text)


def test_hostile_text_stays_data(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    assert "window.broken" in text
    assert "<script>window.broken" not in text
    assert links(hostile).tags.count("script") == 2
    assert "img" in links(hostile).tags
    assert links(hostile).tags.count("img") == 1
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert raw is not None
    data = json.loads(raw.group(1))
    assert [_unmarked(piece) for piece in data[0]["pieces"]] == list(HOSTILE)
    assert "\u202e" not in text
    assert "👩\u200d🔬" in text


def test_json_in_a_page_round_trips() -> None:
    value = [*HOSTILE, "a://b", {"</script>": "<!--"}]
    text = to_json(value)
    assert json.loads(_unmarked(text)) == value
    assert not re.search(r"[<>&\u2028\u2029]|://", text)


def test_a_missing_figure_is_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = report_flags(run, tmp_path / "nope.png", tmp_path / "index.html")
    files.write_json(run.root / "provenance.json", {})
    assert build_report.main(flags) == 2
    assert "nope.png does not exist" in capsys.readouterr().err


def test_the_card_tells_the_answer(page: Path) -> None:
    card = page.with_name("card.md").read_text(encoding="utf-8")
    assert card.startswith("# What changed from it to simpo?\n\nAgainst it, simpo ")
    row = r"^\| safety refusal \| ▲ gained \| \+0\.\d+ \(\+0\.\d+ … \+0\.\d+\) \|"
    assert re.search(row, card, re.MULTILINE)
    assert "![Two axes.](../plot_two_axes.png)" in card
    documents = card.partition("## Telling documents")[2].partition("## ")[0]
    changed = [
        label.replace("_", " ") for label, verdict in VERDICTS.items() if verdict != "unchanged"
    ]
    for label in changed:
        assert documents.count(f"| {label} |") > 1
    assert documents.count("\n| ") == cards.SHOWN + 1
    assert f"- model it: {'a' * 40} (unknown)" in card


def test_figures_of_the_answer_come_first() -> None:
    names = {"shares_other": "carries", "two_axes_direct": "answer", "shares_direct": "carries"}
    figures = {
        name: build_report.Picture(png=Path(name), section=section, caption=name)
        for name, section in names.items()
    }
    shown = [picture.caption for picture in build_report.foremost(figures, "direct")]
    assert shown == ["two_axes_direct", "shares_direct", "shares_other"]


def test_the_card_warns_as_the_page_does() -> None:
    lines = verdict_table.FirstTable([], [])
    answer = {"baseline": "it", "candidate": "simpo", "text": {"description": "1 document"}}
    told = cards.card(answer, ["S."], lines, {}, Table("", [], []), {}, ["do not"], Path())
    assert "S.\n\n> **Warning:** do not\n\n| category |" in told


def test_the_verdicts_are_numbers_and_a_table_for_a_paper(page: Path) -> None:
    table = verdict_rows.read_changes(page.with_name("verdicts.csv"))
    assert set(table["label"]) == set(VERDICTS)
    latex = page.with_name("verdicts.tex").read_text(encoding="utf-8").splitlines()
    rows = [line for line in latex if line.endswith(r"\\")]
    assert len(rows) == len(VERDICTS) + 1
    assert all(row.count(" & ") == 4 for row in rows)
    assert any(row.startswith("safety refusal & gained & +0.") for row in rows)
    assert verdict_latex.plain_latex("50 % {a_b} #1\n\x1b ~^ −2…") == (
        r"50 \% \{a\_b\} \#1 U+001B \textasciitilde{}\textasciicircum{} $-$2\dots{}"
    )


def test_hostile_text_makes_no_command_of_latex(hostile: Path) -> None:
    text = hostile.with_name("verdicts.tex").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 4
        assert not re.search(r"(?<!\\)[%#_~^<>|]", row)
    assert not hidden().search(text)


def test_hostile_text_makes_no_markup_in_the_card(hostile: Path) -> None:
    card = hostile.with_name("card.md").read_text(encoding="utf-8")
    assert "<" not in card
    assert "://" not in card
    assert not hidden().search(card)
    assert cards.plain("see www.a.example, @user #12") == "see www&#46;a.example, &#64;user &#35;12"
    rows = [line for line in card.splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert columns == {6}


def test_a_page_holds_the_foremost_latents(run: Run, tmp_path: Path) -> None:
    flags = report_flags(run, tmp_path / "none.png", tmp_path / "none.html")
    fits = json.loads(flags[flags.index("--fits") + 1])
    fit = FitFiles.model_validate(fits["it_simpo"])
    whole = report_data.browser("it_simpo", fit, 2, LATENTS)
    some = report_data.browser("it_simpo", fit, 2, 150)
    assert whole["live"] == some["live"] == len(whole["columns"][0]["values"]) > 150
    held = [str(int(float(str(latent)))) for latent in some["columns"][0]["values"]]
    assert len(held) == 150
    assert held == sorted(held, key=int)
    assert set(some["contexts"]) == set(held) & set(whole["contexts"])
    assert set(whole["contexts"]) <= set(held) or set(held) <= set(whole["contexts"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    if not (chromium() or can_install()):
        pytest.skip("NO CHROMIUM, and this user cannot install it: the report is not tried in one")
    with browse() as page:
        yield page


def rows(browser: Page) -> int:
    return int(browser.evaluate("document.querySelector('#count').textContent.split(' ')[0]"))


def test_the_browser_searches_filters_and_sorts(browser: Page, page: Path) -> None:
    browser.open(page.as_uri())
    everything = rows(browser)
    assert everything == 210
    browser.type("search", "safety refusal".replace(" ", "_"))
    assert 0 < rows(browser) < everything
    browser.type("search", "")
    browser.type("fit", "2")
    browser.type("owner", "simpo")
    assert 0 < rows(browser) < everything
    browser.evaluate(
        "[...document.querySelectorAll('#latents thead button')]"
        ".find(b => b.textContent.startsWith('Δnorm')).click()"
    )
    values = browser.evaluate(
        "[...document.querySelectorAll('#latents tbody tr')].map(r => r.cells[5].textContent)"
    )
    numbers = [float(value) for value in values]
    assert numbers == sorted(numbers)
    assert browser.complaints == []
    assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)


def test_a_deep_link_lands(browser: Page, run: Run, page: Path) -> None:
    selection = files.read_parquet(run.root / "latents/it_simpo/seed0/selection.parquet")
    latent = int(selection.loc[selection["unique_to"] == "simpo", "latent"].iloc[0])
    browser.open(f"{page.as_uri()}#latent=it_simpo/{latent}")
    heading = browser.evaluate("document.querySelector('#latent h3').textContent")
    assert heading.startswith(f"Latent {latent} of it_simpo")
    assert browser.evaluate("document.activeElement.id") == "latent"
    shaded = (
        "[...document.querySelectorAll('.context .active')].filter(e => e.style.background).length"
    )
    assert browser.evaluate(shaded) > 0
    assert "U+000A" not in browser.evaluate("document.querySelector('.context p').textContent")


def test_hostile_text_is_inert_in_the_browser(browser: Page, hostile: Path) -> None:
    examples = "Object.keys(JSON.parse(document.getElementById('data').textContent)[0].contexts)[0]"
    browser.open(hostile.as_uri())
    latent = browser.evaluate(examples)
    browser.open(f"{hostile.as_uri()}#latent=pt_it/{latent}")
    assert browser.evaluate("window.broken === undefined")
    text = browser.evaluate("document.querySelector('.context p').textContent")
    for piece in HOSTILE[:3]:
        assert piece in text
    assert "U+202E" in text
    assert "U+200B" in text
    assert "🦊" in text
    assert browser.evaluate("document.querySelectorAll('#latent img, #latent script').length") == 0
    assert browser.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_sideways_scrolling_and_dark_colours(browser: Page, page: Path, width: int) -> None:
    browser.open(page.as_uri(), width, 844, dark=True)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(18, 22, 27)"


def test_a_click_leads_from_a_verdict_to_its_evidence(browser: Page, page: Path) -> None:
    browser.open(page.as_uri())
    shown = "document.querySelector('.more').getClientRects().length"
    assert browser.evaluate(shown) == 0
    browser.evaluate("document.querySelector('.lines summary').click()")
    assert browser.evaluate(shown) == 1
    assert "Sorry, I cannot help" in browser.evaluate("document.querySelector('.more').innerText")
    first = "document.querySelector('.lines td a')"
    latent = browser.evaluate(f"{first}.textContent")
    browser.evaluate(f"{first}.click()")
    browser.wait_for("!document.getElementById('latent').hidden")
    heading = browser.evaluate("document.querySelector('#latent h3').textContent")
    assert heading.startswith(f"Latent {latent} of it_simpo")
    assert browser.evaluate("document.querySelectorAll('#latent .context').length") > 0
    assert browser.complaints == []


def test_the_first_screen_shows_the_answer_and_needs_no_script(
    browser: Page, page: Path, tmp_path: Path
) -> None:
    text = page.read_text(encoding="utf-8")
    plain = tmp_path / "plain.html"
    plain.write_text(re.sub(r"<script.*?</script>", "", text, flags=re.S), encoding="utf-8")
    browser.open(plain.as_uri(), 1280, 800)
    bottom = "document.querySelector('{}').getBoundingClientRect().bottom"
    for part in (".answer", "#answer img", ".lines tbody:nth-of-type(8)"):
        assert browser.evaluate(bottom.format(part)) < 800, part
    browser.evaluate("document.querySelector('.lines summary').click()")
    assert browser.evaluate("document.querySelector('.more').getClientRects().length") == 1


def test_questions_are_folded_away_and_printed(browser: Page, page: Path) -> None:
    browser.open(page.as_uri())
    closed = "document.querySelectorAll('details.question:not([open])').length"
    everything = browser.evaluate("document.querySelectorAll('details.question').length")
    assert browser.evaluate(closed) == everything > 4
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(closed) == 0
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(closed) == everything


def test_any_script_is_shown_as_it_is_written(
    browser: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("scripts")
    tokenizer = byte_level(TEXTS.values(), 60)
    pieces = [p for text in TEXTS.values() for p in pieces_of(tokenizer, tokenizer.encode(text))[1]]
    run = make_run(folder / "run", pieces=pieces)
    compared(run)
    write_changes(run, {"poems": "gained"})
    page = made_report(run, folder).as_uri()
    browser.open(page)
    first = "Object.keys(JSON.parse(document.getElementById('data').textContent)[0].contexts)[0]"
    browser.open(f"{page}#latent=pt_it/{browser.evaluate(first)}")
    shown = browser.evaluate("document.querySelector('.context p').textContent")
    tags = re.compile("[\U000e0020-\U000e007f]")
    assert shown == tags.sub(lambda match: f"U+{ord(match[0]):X}", "".join(TEXTS.values()))
    assert browser.complaints == []


def test_hostile_labels_and_documents_are_inert(browser: Page, hostile: Path) -> None:
    browser.open(hostile.as_uri())
    assert browser.evaluate("window.broken === undefined")
    lines = browser.evaluate("document.querySelector('.lines').textContent")
    assert "<script>window.broken = 1</script>" in lines
    assert "U+202E" in lines
    assert "\u202e" not in lines
    assert "http://example.com/beacon.png" in lines
    inside = "document.querySelectorAll('.lines img, .lines script').length"
    assert browser.evaluate(inside) == 0
    assert browser.complaints == []
    assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)


def test_of_many_labels_those_without_a_change_are_folded_away(
    browser: Page, another: Callable[[Mapping[str, str]], Path]
) -> None:
    words = ("unchanged", "unchanged", "gained", "cannot tell")
    browser.open(another({f"kind_{i}": words[i % 4] for i in range(40)}).as_uri(), 390, 844)
    counts = "[...document.querySelectorAll('.lines')].map(t => t.tBodies.length)"
    assert browser.evaluate(counts) == [10, 30]
    assert "30 categories without a change" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("count", [2, 0])
def test_few_labels_or_none(
    browser: Page, another: Callable[[Mapping[str, str]], Path], count: int
) -> None:
    page = another(dict(list({"poems": "gained", "code": "cannot tell"}.items())[:count]))
    browser.open(page.as_uri())
    lines = browser.evaluate("document.querySelectorAll('.lines tbody .verdict').length")
    assert lines == count
    assert browser.evaluate("document.querySelector('#answer img').naturalWidth") > 0
    assert browser.complaints == []


def test_what_models_predict_and_say_stands_on_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    section = text[text.index('id="said"') :].split("</details>")[0]
    assert "«Paris» « is» « a city» «Paris»" in section
    assert re.search(r'rgba\(var\(--shade\), 1\.00\)"> a city<', section)
    assert re.search(r'rgba\(var\(--shade\), 0\.20\)"> is<', section)
    assert "tokens: 4.00 → 5.00" in section
    assert "How the answers differ" in section
