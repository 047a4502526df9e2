"""The report of all submissions: its content, that hostile texts do no harm, and how a browser shows it."""

import base64
import json
import math
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest
from grading.findings import Flag
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import svg_plots
from pages.report import MOST_STORIES, Entry, cut, write_report
from pages_seen import Seen, show_at

HOSTILE = (
    "</bdi></td><script>alert(1)</script>\"'&<img src=http://x.example/y onerror=alert(1)>\x00\x1b[31m\u202e{{table}}"
)


def make_entry(name, steps=1000, loss=1.5, flags=(), samples=(), points=(), curves=None, **facts):
    """Return a submission with 40 training points and 10 evaluations."""
    at = [steps * (i + 1) // 40 for i in range(40)]
    fall = [loss + 7 * math.exp(-8 * (i + 1) / 40) for i in range(40)]
    made = {
        "train_loss": list(zip(at, fall, strict=True)),
        "val_loss": [(step, value + 0.1) for step, value in zip(at, fall, strict=True)][3::4],
        "lr": [(step, 1e-3 * (1 - step / steps)) for step in at],
        "tokens_per_second": [(step, 7000 + step % 7) for step in at],
    }
    about = {"state": "finished", "steps": steps, "best_val_loss": loss + 0.1, "hours": steps / 3000, "GPU": "Tesla T4"}
    about |= {"differs": "--lr 0.0005", "sample": samples[-1][1] if samples else None} | facts
    return Entry(name, about, list(flags), made if curves is None else curves, list(samples), list(points))


def make_report(tmp_path, entries, title="Course of 2026"):
    write_report(entries, tmp_path / "report.html", title)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


# The page -------------------------------------------------------------------------------------------------------------


def test_all_facts_about_a_submission_are_on_the_page(tmp_path):
    flags = [Flag("problem", "the log says 1.2, the metrics say 1.6"), Flag("question", "is this Ben's curve?")]
    samples = [(500, "Tom ran."), (1000, "Once upon a time\nthere was a fox.")]
    points = [("finished", 40, 40), ("loss below 1.5", 12.5, 30)]
    anna = make_entry("anna/model", flags=flags, samples=samples, points=points, steps=12000)
    text = "\n".join(Seen(make_report(tmp_path, [anna, make_entry("ben", hours=None)])).texts)
    for known in ("anna/model", "findings", "Findings:", "1 problem, 1 question", "the log says 1.2",
                  "is this Ben's curve?", "12,000", "Tom ran.", "Once upon a time\nthere was a fox.", "52.5 of 70",
                  "12.5 of 30", "best val loss", "Tesla T4",
                  "2 submissions, 1 with problems, 1 with questions"):  # fmt: skip
        assert known in text, known


def test_without_submissions_there_is_still_a_page(tmp_path):
    assert "0 submissions" in make_report(tmp_path, [])
    bare = make_report(tmp_path, [Entry("nothing", {}), Entry("empty", {}, curves={"val_loss": []})])
    assert "nothing recorded" in bare and 'href="#s1"' in bare


def test_a_submission_s_text_is_never_html(tmp_path):
    harmless = Seen(make_report(tmp_path, [make_entry("x", samples=[(1, "x")], flags=[Flag("problem", "x")])]))
    entry = make_entry(HOSTILE, state=HOSTILE, samples=[(HOSTILE, HOSTILE)], flags=[Flag("problem", HOSTILE)])
    entry.facts[HOSTILE] = 1
    entry.points = [(HOSTILE, 1, 2)]
    page = make_report(tmp_path, [entry], title=HOSTILE)
    seen = Seen(page)
    assert seen.elements.count("script") == harmless.elements.count("script") == 1
    assert "img" not in seen.elements and not any(name.startswith("on") for name, _ in seen.attributes)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)
    assert page.count("{{table}}") == page.count("&lt;script&gt;alert(1)")  # not filled in anywhere
    assert {name for name, value in seen.attributes if "http:" in (value or "")} == set()
    page.encode("utf-8")
    make_report(tmp_path, [make_entry("\ud800", samples=[(1, "\udfff")])])


def test_the_page_loads_nothing(tmp_path):
    page = make_report(tmp_path, [make_entry("anna", samples=[(1, "x")])])
    assert "default-src 'none'" in page and not re.search(r"@import|url\(|\bsrc=|<link|https?:", page)


def test_a_long_text_is_truncated_and_its_length_shown(tmp_path):
    story = "a" * 1_000_000
    entry = make_entry("anna", samples=[(step, story) for step in range(500)], flags=[Flag("problem", story)] * 500)
    page = make_report(tmp_path, [entry])
    assert len(page) < 400_000
    assert (
        "… (1,000,000 characters in all)" in page
        and f"not shown: {500 - MOST_STORIES}" in page
        and "and 400 more" in page
    )
    assert "<bdi>anna</bdi>" in page and cut("abc", 3) == "abc"


def test_a_page_of_two_hundred_submissions_stays_small(tmp_path):
    long = [(step, 5 + math.sin(step)) for step in range(3000)]
    curves = dict.fromkeys(("train_loss", "val_loss", "lr", "tokens_per_second"), long)
    story = [(step, "Once upon a time. " * 50) for step in range(20)]
    page = make_report(tmp_path, [make_entry(f"s{i}", curves=curves, samples=story) for i in range(200)])
    assert len(page) < 12_000_000 and page.count("<section") == 200


def test_a_run_that_diverged_or_claims_too_many_steps_does_not_hide_the_others(tmp_path):
    entries = [make_entry(f"s{i}") for i in range(5)]
    entries.append(make_entry("diverged", curves={"val_loss": [(100, 2.0), (200, 1e30), (300, None), (400, 2.5)]}))
    entries.append(make_entry("edited", curves={"val_loss": [(1000, 2.0), (10**9, 1.0)]}))
    page = make_report(tmp_path, entries)
    overview = page[page.index('<div id="all">') : page.index('<div id="names">')]
    assert "Not drawn: 2 points outside 0 to 12 nats or 20,000 steps" in overview
    assert max(float(word.replace(",", "")) for word in re.findall(r'middle">([\d,.]+)<', overview)) == 1000


# The plots ------------------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.floats(), st.integers(), st.none(), st.sampled_from([1e299, -1e299, 5e-324, 1e15, 1e15 + 1, True])
)


@settings(max_examples=300, deadline=None)
@given(points=st.lists(st.tuples(VALUES, VALUES), max_size=8))
def test_a_plot_of_any_numbers_stays_in_its_box(points):
    svg = svg_plots.plot('a "label"', [(points, 'class="curve"', "")], 360, 200)
    picture = ElementTree.fromstring(svg)
    paths = [path.get("d") for path in picture.iter("path") if path.get("class") == "curve"]
    for x, y in re.findall(r"[ML](\S+) ([^MLh]+)", "".join(paths)):
        assert 0 <= float(x) <= 360 and 0 <= float(y) <= 200
    assert len(list(picture.iter("text"))) <= 16


def test_missing_values_are_gaps_and_a_single_point_is_a_dot():
    svg = svg_plots.plot(
        "", [([(0, 1), (1, 2), (2, None), (3, 1), (4, math.nan), (5, 2)], 'class="curve"', "")], 360, 200
    )
    path = re.search('class="curve" d="(.*?)"', svg)[1]
    assert [len(part.split("L")) for part in path.split("M")[1:]] == [2, 1, 1] and path.count("h0") == 3


def test_thinning_keeps_the_ends_the_extremes_and_the_gaps():
    points = [(step, math.sin(step / 300)) for step in range(10_000)]
    points[4321], points[7000] = (4321, 99.0), (7000, math.nan)
    kept = svg_plots.thinned(points)
    assert len(kept) <= svg_plots.MOST_POINTS and kept == sorted(kept, key=lambda point: point[0])
    assert {points[0], points[-1], points[4321]} <= set(kept) and any(math.isnan(value) for _, value in kept)
    assert svg_plots.thinned(points[:200]) == points[:200]


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [(0, 1000, [0, 200, 400, 600, 800, 1000]), (1.2, 3.1, [1.5, 2, 2.5, 3]), (0, 3e-3, [0, 1e-3, 2e-3, 3e-3])],
)
def test_ticks_are_round_numbers(low, high, numbers):
    assert svg_plots.ticks(low, high) == (low, high, pytest.approx(numbers))


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(browser, tmp_path):
    """Return the browser with a report of very different submissions."""
    flags = [Flag("problem", "the metrics end at step 300 of 1,000"), Flag("question", "the same curve as ben's")]
    story = "Once upon a time, there was a little fox who liked to run. " * 8
    entries = [
        make_entry("anna", 900, 1.6, samples=[(450, "Tom " * 90), (900, story)], points=[("finished", 40, 40)]),
        make_entry(
            "ben", 12000, 1.2, flags[1:], [(12000, story)], [("finished", 0, 40)], differs=" ".join(["--lr 1"] * 30)
        ),
        make_entry("carla" * 20, 80, 12.5, flags, curves={}, hours=None, state="stopped at step 80", GPU=None),
        make_entry(HOSTILE, 3000, 2.5, [Flag("problem", HOSTILE)] * 3, [(3000, HOSTILE + "x" * 5000)], state=HOSTILE),
    ]
    entries += [make_entry(f"person {i}", 1000 + i, 1.5 + i / 20, samples=[(9, story)]) for i in range(8)]
    for entry, change in zip(entries, (0.002, 1e-5, -3, -2.5, 0.5), strict=False):
        entry.facts["change"] = change
    write_report(entries, tmp_path / "report.html", "Course of 2026")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get((tmp_path / "report.html").as_uri())
    return browser


def printed(browser, tries=3):
    """Return the page as a PDF.  Try again if a busy Chromium reports "Printing failed"."""
    from selenium.common.exceptions import WebDriverException

    try:
        return base64.b64decode(browser.print_page())
    except WebDriverException:
        if tries == 1:
            raise
        time.sleep(1)
        return printed(browser, tries - 1)


def column(browser, number):
    cells = f"document.querySelectorAll('#runs tbody tr > :nth-child({number})')"
    return browser.execute_script(f"return [...{cells}].map((cell) => cell.textContent)")


def press(browser, head):
    """Press the head of a column; return the column's number, from 1, and its sort order."""
    heads = browser.find_elements("css selector", "#runs thead th")
    position = next(i for i, one in enumerate(heads) if one.text.strip() == head)
    heads[position].find_element("css selector", "button").send_keys("\n")  # by the keyboard
    return position + 1, heads[position].get_attribute("aria-sort")


def test_a_columns_head_sorts_numbers_by_value_and_texts_by_letters(shown):
    position, order = press(shown, "steps")
    rising = [80, 900, *range(1000, 1008), 3000, 12000]
    assert (order, column(shown, position)) == ("ascending", [f"{steps:,}" for steps in rising])
    position, order = press(shown, "steps")
    assert (order, column(shown, position)) == ("descending", [f"{steps:,}" for steps in reversed(rising)])
    position, _ = press(shown, "who")
    assert [name for name in column(shown, position) if "script" not in name] == [
        "anna", "ben", "carla" * 20, *(f"person {i}" for i in range(8))
    ]  # fmt: skip
    position, _ = press(shown, "change")
    assert column(shown, position)[:5] == ["-3", "-2.5", "1e-05", "0.002", "0.5"]
    for _ in range(2):
        position, _ = press(shown, "hours")
        assert column(shown, position)[-1] == "–"  # missing values come last in both directions
    position, _ = press(shown, "findings")
    position, _ = press(shown, "findings")
    assert column(shown, position)[:3] == ["3 problems", "1 problem, 1 question", "1 question"]
    assert len(shown.find_elements("css selector", "#runs thead th[aria-sort]")) == 1


def test_the_page_requests_nothing_and_runs_only_its_own_script(shown):
    press(shown, "steps")
    events = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    requested = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    assert len(requested) == 1 and requested[0].startswith("file://")
    assert shown.get_log("browser") == []
    shown.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://x.example/ onerror=alert(1)>')"
    )
    assert "Content Security Policy" in shown.get_log("browser")[0]["message"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways(shown, width):
    show_at(shown, width, 844)
    widths = shown.execute_script(
        "const box = document.querySelector('.box');"
        "return [document.documentElement.scrollWidth, innerWidth, box.scrollWidth, box.clientWidth]"
    )
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths[0] <= width == widths[1]
    assert width == 1280 or widths[2] > widths[3]  # the table scrolls in its own box


def test_pointing_at_a_name_makes_its_curve_stand_out(shown):
    def looks():
        style = lambda selector: f"getComputedStyle(document.querySelector('{selector}'))"
        copies = [style(f'#all use[href="#c{i}"]') + ".display" for i in (0, 1)]
        return shown.execute_script(f"return [{style('#all .curves')}.opacity, {copies[0]}, {copies[1]}]")

    assert looks() == ["1", "none", "none"]
    shown.execute_script("document.querySelector('#names a').focus({focusVisible: true})")
    assert looks() == ["0.2", "inline", "none"]


def test_a_name_links_to_its_section_and_the_page_works_without_scripts(shown):
    for reference in shown.find_elements("css selector", "#runs tbody a"):
        target = shown.find_element("id", reference.get_attribute("href").split("#")[1])
        assert target.find_element("css selector", "h2").text == reference.text
    shown.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    shown.refresh()
    text = shown.find_element("css selector", "body").text
    buttons = shown.find_elements("css selector", "th button")
    shown.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "person 7" in text and "Once upon a time" in text and "sort" not in text and not buttons


def test_it_prints_completely_and_with_the_earlier_stories_open(shown):
    pdf = printed(shown)
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 4
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    show_at(shown, 1047, 718)  # A4, landscape, without margins
    width = shown.execute_script("return document.documentElement.scrollWidth")
    visible = "return document.querySelector('details .story').checkVisibility({contentVisibilityAuto: true})"
    open_in_print = shown.execute_script(visible)
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 1047 and open_in_print and not shown.execute_script(visible)
