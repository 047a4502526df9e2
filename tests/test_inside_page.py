"""The page of look_inside.py: its sections, that hostile texts do no harm, and how it answers in a browser."""

import base64
import json
import math
import random
import re

import pytest
from inside.embeddings import KINDS
from inside.heads import KINDS as SCORES
from pages.inside import inside_page, marked_stories, name_some, write_inside_page
from pages_seen import Seen

HOSTILE = "</script><img src=http://x.example/y onerror=alert(1)>&\"'\u202e\x1b\ud800{{data}}"
WORDS = [
    "Once",
    " upon",
    " a",
    " time",
    ",",
    " there",
    " was",
    " cat",
    " dog",
    " Lily",
    " Tom",
    ".",
    "\n",
    " ran",
    " 3",
]
SECTIONS = ["text", "attention", "lens", "ablation", "without", "embeddings", "training"]


def make_content(length=40, layers=2, heads=2, words=40):
    """Return the content of a page, the same at each call, with every section."""
    chance = random.Random(1)
    tokens = ["<bos>", *(WORDS[i % len(WORDS)] for i in range(length - 1))]
    loss = [None, *(chance.expovariate(0.6) for _ in tokens[1:])]
    names = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
    parts = names + [f"layer:{layer}" for layer in range(layers)]
    scored = []
    for i, _ in enumerate(names):
        scores = {score: 0.9 if j == i else 0.05 for j, score in enumerate(SCORES)}
        label = SCORES[i] if i < len(SCORES) else None
        scored.append({"layer": i // heads, "head": i % heads, "label": label, "scores": scores})
    steps = list(range(0, 1001, 100))
    rising = [step / 1100 for step in steps]
    vocabulary = [f" word{i}" for i in range(words)]
    ten = [[word, 0.4 / (i + 1)] for i, word in enumerate(WORDS[:10])]
    return {
        "model": "tinystories_model/best_model.pth",
        "shape": f"{layers} layers x 256, {heads} heads",
        "dataset": "sample_data/stories, 100 stories",
        "tokens": tokens,
        "loss": loss,
        "rank": [None, *(1 + int(math.exp(value)) for value in loss[1:])],
        "alternatives": [None, *([*ten] for _ in tokens[1:])],
        "attention": [[make_pattern(length, layer * heads + head) for head in range(heads)] for layer in range(layers)],
        "heads": scored,
        "lens": [
            [[tokens[(i + 1) % length] if (i + row) % 2 else " the", (row + 1) / (layers + 1)] for i in range(length)]
            for row in range(layers + 1)
        ],
        "lens_loss": [[5.0 - row] * (length - 1) + [None] for row in range(layers + 1)],
        "ablation": {
            "loss": 1.523,
            "tokens": 20311,
            "names_loss": 0.31,
            "rows": [
                {"part": part, "zero": (i - 1) / 50, "mean": (i - 1) / 80, "names_zero": i / 9, "names_mean": -i / 20}
                for i, part in enumerate(parts)
            ],
        },
        "without": {
            "parts": ["1.1", "layer:1"],
            "prompt": "Once upon a time",
            "with_them": "Once upon a time there was a cat. The cat ran.",
            "without_them": "Once upon a time there was a dog. The the the.",
        },
        "embeddings": {
            "words": [
                {"token": word, "x": chance.gauss(0, 1), "y": chance.gauss(0, 1), "kind": KINDS[i % len(KINDS)]}
                for i, word in enumerate(vocabulary)
            ],
            "kinds": list(KINDS),
            "variance": [0.07, 0.05],
            "neighbours": {
                word: [[vocabulary[(i + j) % words], 1 - j / 11] for j in range(1, 11)]
                for i, word in enumerate(vocabulary)
            },
        },
        "training": {
            "steps": steps,
            "models": [f"step {step}" for step in steps],
            "heads": {"1.0": {"induction": rising, "same token": [0.01] * 11}, "0.1": {"previous token": rising}},
            "losses": {
                "loss on the text": [5 - value for value in rising],
                "Lily": [8 - 2 * value for value in rising],
            },
            "moved": rising,
        },
    }


def make_pattern(length, number):
    """Return the rows of a pattern: half on the token at some distance before, the rest on the first one."""
    rows = []
    for place in range(length):
        row = [0.0] * (place + 1)
        row[0] += 0.498
        row[max(place - number - 1, 0)] += 0.502
        rows.append(row)
    return rows


def data_of(page):
    """Return the data that the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def hostile(value):
    """Return content in which each text is hostile, but for the names of parts and of encoded patterns."""
    if isinstance(value, dict):
        kept = {"attention": value.get("attention"), "part": value.get("part")}
        changed = {key: hostile(item) for key, item in value.items()}
        return changed | {key: item for key, item in kept.items() if key in value}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_has_every_section_and_is_the_same_each_time():
    page = inside_page(make_content())
    assert re.findall(r'<section id="(\w+)-section">', page) == SECTIONS
    assert page == inside_page(make_content())
    text = "\n".join(Seen(page).texts)
    for known in ("2 layers x 256, 2 heads", "after layer 1", "+0.0800", "-0.0200", "the loss is 1.5230", "20,311",
                  "word3", "cat.", "7.0% and 5.0%", "Heads: score for “induction”, over steps"):  # fmt: skip
        assert known in text, known
    assert "Heads: score for “same token”" not in text  # it never reached 0.3


@pytest.mark.parametrize("missing", [*SECTIONS[1:], "rank", "alternatives", "heads", "lens_loss", "shape", "dataset"])
def test_a_section_without_data_is_left_out(missing):
    content = make_content()
    del content[missing]
    page = inside_page(content)
    sections = re.findall(r'<section id="(\w+)-section">', page)
    assert sections == [section for section in SECTIONS if section != missing]


def test_the_smallest_page_has_only_the_text():
    page = inside_page({"model": "m.pth", "tokens": ["<bos>"], "loss": [None]})
    assert re.findall(r'<section id="(\w+)-section">', page) == ["text"]
    assert data_of(page)["tokens"] == ["<bos>"]


def test_strangers_texts_are_never_html():
    harmless = Seen(inside_page(make_content()))
    content = hostile(make_content())
    content["embeddings"]["neighbours"] = {HOSTILE: [[HOSTILE, 0.5]]}
    content["training"]["losses"] = {HOSTILE: [1.0, 2.0]}
    content["training"]["heads"] = {HOSTILE: {HOSTILE: [1.0, 2.0]}}
    page = inside_page(content)
    seen = Seen(page)
    assert seen.elements.count("script") == harmless.elements.count("script") == 2
    assert "img" not in seen.elements
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    assert page.count("{{data}}") > 10  # not filled in anywhere
    assert data_of(page)["tokens"][0].startswith("</script><img src=http://x.example/y onerror=alert(1)>&\"'\ufffd")


def test_the_page_loads_nothing():
    page = inside_page(make_content())
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(|\bsrc=|<link|https?:", page)


def test_attention_and_numbers_arrive_unchanged():
    content = make_content()
    content["loss"][5] = math.nan
    data = data_of(inside_page(content))
    pattern = base64.b64decode(data["attention"]["data"][1])
    assert len(pattern) == 40 * 40
    assert (pattern[20 * 40], pattern[20 * 40 + 18], sum(pattern[20 * 40 : 21 * 40])) == (127, 128, 255)
    assert data["loss"][5] is None
    assert data["loss"][6] == pytest.approx(content["loss"][6], rel=1e-4)
    assert data["neighbours"][" word3"][0][0] == " word4"


def test_parts_are_sorted_by_the_rise_and_unknown_ones_come_last():
    content = make_content()
    content["ablation"]["rows"][4]["zero"] = None
    table = re.search(r'<table id="ablation">.*?</table>', inside_page(content), re.DOTALL)[0]
    assert re.findall(r'<th scope="row"><bdi>(.*?)</bdi>', table) == ["layer:1", "1.1", "1.0", "0.1", "0.0", "layer:0"]


def test_the_first_word_that_differs_is_marked():
    stories = {"parts": ["0.1"], "with_them": "The cat sat.", "without_them": "The car sat."}
    assert marked_stories(stories) == [
        ("with 0.1", "The ", "cat", " sat."),
        ("without 0.1", "The ", "car", " sat."),
    ]
    stories["without_them"] = "The cat"
    assert [story[1:] for story in marked_stories(stories)] == [("The ", "cat", " sat."), ("The ", "cat", "")]
    stories["without_them"] = stories["with_them"]
    assert [story[1:] for story in marked_stories(stories)] == [("The cat sat.", "", "")] * 2


def test_names_on_the_map_do_not_overlap():
    places = [{"token": "word", "x": x, "y": y} for x in (0, 10, 100) for y in (0, 5, 20)]
    name_some(places)
    assert [(place["x"], place["y"]) for place in places if place["named"]] == [(0, 0), (0, 20), (100, 0), (100, 20)]


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(browser, tmp_path):
    """Return the browser with a page that has every section."""
    write_inside_page(make_content(), tmp_path / "inside.html")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get((tmp_path / "inside.html").as_uri())
    return browser


def text_of(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def test_the_page_answers_without_an_error(shown):
    assert text_of(shown, "#about h3") == "1: Once"
    shown.execute_script("document.querySelectorAll('.token')[8].focus()")
    assert text_of(shown, "#about h3") == "8: ␣cat"
    assert "loss" in text_of(shown, "#about .facts")
    assert text_of(shown, "#about .bars .true bdi") == "␣cat"

    shown.find_element("css selector", ".pattern[data-head='2']").click()
    assert text_of(shown, "#enlarged h3") == "Head 1.0: same token"
    shades = shown.execute_script(
        "return [...document.querySelectorAll('.token')].map((span) => span.style.getPropertyValue('--attention'))"
    )
    assert [i for i, shade in enumerate(shades) if shade == "71%"] == [0, 5]  # the square root of a half
    shown.execute_script("pointAt(8, 5)")
    assert text_of(shown, "#pair") == "‘␣cat’ (8) attends 0.50 to ‘,’ (5)."

    shown.find_element("css selector", "button[data-column='4']").click()
    assert text_of(shown, "#ablation tbody th bdi") == "0.0"  # its loss on names falls least
    shown.find_element("css selector", "#ablation-section input[data-kind=head]").click()
    assert text_of(shown, "#ablation tbody tr:not([hidden]) th bdi") == "layer:0"

    shown.find_element("css selector", "#search").send_keys("word7")
    assert text_of(shown, "#found") == "Nearest to ␣word7"
    assert text_of(shown, "#neighbours bdi") == "␣word8"
    assert shown.get_log("browser") == []


def test_the_script_needs_no_optional_data(shown, tmp_path):
    few = make_content()
    for name in ("rank", "alternatives", "lens", "ablation"):
        del few[name]
    few["heads"] = [{"layer": 0, "head": 0, "label": None, "scores": {"name copying": math.nan}}]
    del few["embeddings"]["words"]
    bare = {"model": "m.pth", "tokens": ["<bos>"], "loss": [None]}
    for content in (few, bare):
        write_inside_page(content, tmp_path / "inside.html")
        shown.get((tmp_path / "inside.html").as_uri())
        assert text_of(shown, "#about .facts")
    assert text_of(shown, "#about h3") == "0: <bos>"
    assert shown.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_does_not_scroll_sideways(shown, width):
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    widest = shown.execute_script("return document.documentElement.scrollWidth")
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widest <= width
