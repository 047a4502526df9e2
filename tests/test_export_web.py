"""The page with a model in it: its JavaScript computes what Python computes, and it works in headless Chromium."""

import copy
import dataclasses
import json
import re
import sys

import export_web
import pytest
import torch
from formats.quantized import round_weights
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pages.web import Page, for_script, packed, web_page
from pages_seen import Seen, show_at
from programs import ROOT, run
from refusals import error_of
from scoring.held_out import held_out_rows
from tiny import TEXTS, make_model
from tokenizers import pre_tokenizers

from common.devices import Precision
from common.text import without_surrogates
from common.weights_files import load_model, save_model
from corpus.other_tokenizers import BYTE_LEVEL
from corpus.sources import open_dataset
from data import Tokenizer, load_tokenizer, train_tokenizer
from generation.kv_cache import KVCache
from generation.prompts import chat_prompt
from generation.sampling import Sampling, probabilities
from generation.writer import Writer
from model import ModelConfig, Transformer
from training.step import evaluate

HOSTILE = "</script><img src=http://x.example/y onerror=alert(1)>&\"'{{script}}"
SETTINGS = {"length": 40, "temperature": 0.8, "topK": 50, "topP": 1, "seed": 42}
GREEDY = SETTINGS | {"temperature": 0}
CONTEXT = 24
SHAPES = {
    "llama": {},
    "gpt2": {"arch": "gpt2"},
    "no biases": {"arch": "gpt2", "bias": False},
    "window": {"window_size": 5},
    "untied, biases": {"tie_embeddings": False, "bias": True},
    "odd sizes": {"hidden_size": 18, "num_heads": 3, "intermediate_size": 23},
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 290)


def tiny(tokenizer, **changes):
    """Return a tiny network whose predictions depend on every token that it may see."""
    return make_model(vocab_size=tokenizer.vocab_size, max_seq_len=CONTEXT, **changes)


@torch.no_grad()
def endless(model, tokenizer):
    """Return the network with a row of zeros for <eos>: it is never among the 50 likeliest tokens."""
    model.head_weight()[tokenizer.special["<eos>"]] = 0
    return model


def exported(tmp_path, model, tokenizer, weights="float16", **changes):
    """Write a page; return its path."""
    page = dataclasses.replace(Page("A model", "story", [("network", "tiny")]), **changes)
    path = tmp_path / "model.html"
    path.write_text(web_page(page, model, tokenizer, weights), encoding="utf-8")
    return path


# The JavaScript computes what Python computes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def javascript(browser, tmp_path_factory):
    """Return a function that runs a script in a page with the worker's code, and returns its value."""
    page = tmp_path_factory.mktemp("javascript") / "page.html"
    sources = [(ROOT / "tools/pages" / name).as_uri() for name in ("web_model.js", "web_writer.js")]
    scripts = "".join(f'<script src="{source}"></script>' for source in sources)
    page.write_text(f'<!doctype html><meta charset="utf-8">{scripts}')

    def call(script, *arguments):
        if not browser.current_url.endswith("page.html"):
            browser.get(page.as_uri())
        return browser.execute_script(script, *arguments)

    return call


MAKE_WRITER = """
const [model, content] = arguments;
REQUESTS.load({ model, buffer: Uint8Array.from(content).buffer });
writer = writers.story;
"""


def put(javascript, model, tokenizer, weights="float16"):
    """Make a `writer` of a model, as the worker does."""
    tensors, content = packed(model, weights)
    javascript(MAKE_WRITER, for_script(model, tokenizer) | {"tensors": tensors}, list(content))


def greedy_ids(javascript, text, count):
    """Return the ids of a story's first tokens, each the likeliest."""
    return javascript(
        """
        const [text, settings, count] = arguments;
        writer.beginStory(text, settings);
        return Array.from({ length: count }, () => writer.next(settings).id);
        """,
        text,
        GREEDY,
        count,
    )


def logits_after(model, ids):
    """Return the logits after each of some growing texts, as the cache of steps 3 and 5 computes them."""
    cache = KVCache(model, [ids[:1]])
    yield cache.fill([0])[0]
    for token in ids[1:]:
        yield cache.step(torch.tensor([token]))[0]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_the_logits_are_those_of_the_rounded_weights_past_the_context_too(
    javascript, tokenizer, no_gradients, name, weights
):
    model = tiny(tokenizer, **SHAPES[name])
    put(javascript, model, tokenizer, weights)
    round_weights(model, weights)
    ids = torch.randint(tokenizer.vocab_size, (3 * CONTEXT,), generator=torch.Generator().manual_seed(1)).tolist()
    found = javascript(
        """
        writer.ids = [];
        return arguments[0].map((id) => {
          writer.read(id);
          return [...writer.network.logits(writer.hidden)];
        });
        """,
        ids,
    )
    expected = torch.stack(list(logits_after(model, ids)))
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_text_is_the_same_unless_two_logits_are_nearly_equal(javascript, tokenizer, no_gradients, name):
    model = endless(tiny(tokenizer, **SHAPES[name]), tokenizer)
    put(javascript, model, tokenizer)
    round_weights(model, "float16")
    found = greedy_ids(javascript, TEXTS[0][:12], 2 * CONTEXT)
    ids = [tokenizer.special["<bos>"], *tokenizer.encode(TEXTS[0][:12]), *found]
    banned = [token for token in tokenizer.never_written if token != tokenizer.special["<eos>"]]
    after = list(logits_after(model, ids))[-len(found) - 1 : -1]
    for token, logits in zip(found, after, strict=True):
        logits[banned] = -torch.inf
        assert logits[token] > logits.max() - 1e-3


SPACES = "\u00a0 \u0085\u2003\ufeff\u200b\x1c"  # what counts as white space differs between languages
PARTS = ["it's", "we'll'", "<bos>", "  \n ", "½²٣1", *SPACES, "é🙂", ".,", " the"]


# Only characters that Python knows: the library and a browser may disagree about those of the newest Unicode.
KNOWN = st.text(st.characters(exclude_categories=["Cn"]))


@settings(max_examples=60, deadline=None, database=None)
@given(texts=st.lists(KNOWN | st.lists(st.sampled_from(PARTS)).map("".join), max_size=20))
def test_texts_are_cut_into_the_same_words_and_ids(javascript, tokenizer, texts):
    texts = [without_surrogates(text) for text in [*texts, *TEXTS]]
    library = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = [[text[slice(*place)] for _, place in library.pre_tokenize_str(text)] for text in texts]
    put(javascript, tiny(tokenizer), tokenizer)
    assert javascript("return arguments[0].map((text) => text.match(WORDS) ?? [])", texts) == words
    found = javascript("return arguments[0].map((text) => writer.tokenizer.encode(text))", texts)
    assert found == [tokenizer.encode(text) for text in texts]


def test_bytes_of_tokens_are_the_same(javascript, tokenizer):
    put(javascript, tiny(tokenizer), tokenizer)
    written = [token for token in range(tokenizer.vocab_size) if token not in tokenizer.never_written]
    found = javascript("return arguments[0].map((id) => [...writer.tokenizer.bytesOf(id)])", written)
    assert found == [list(tokenizer.bytes_of(token)) for token in written]


@settings(max_examples=60, deadline=None, database=None)
@given(words=st.lists(st.integers(0, 8), min_size=1, max_size=9).filter(lambda words: len(words) % 2 == 1))
@example(words=[60])
def test_a_conversation_becomes_the_same_ids_and_forgets_the_same_turns(javascript, tokenizer, words):
    model = tiny(tokenizer)
    put(javascript, model, tokenizer)
    texts = ["cat " * count for count in words]
    writer = Writer(model, tokenizer, Sampling(max_new_tokens=SETTINGS["length"]))
    roles = ("user", "assistant")
    prompt = chat_prompt(writer, [(roles[i % 2], text) for i, text in enumerate(texts)])
    found, note = javascript(
        "const { note } = writer.beginReply(...arguments); return [writer.ids, note]", texts, SETTINGS
    )
    assert found == prompt.ids
    assert bool(note) == bool(prompt.dropped or prompt.question_cut)


@pytest.mark.parametrize("changes", [{}, {"temperature": 0}, {"topK": 3}, {"topK": 0}, {"topP": 0.5}, {"topP": 1e-9}])
def test_tokens_are_drawn_with_the_same_probabilities(javascript, changes):
    logits = torch.randn(40, generator=torch.Generator().manual_seed(2))
    asked = SETTINGS | changes
    chances, tokens = probabilities(logits[None], asked["temperature"], asked["topK"], asked["topP"])
    expected = torch.zeros(40).scatter(0, tokens[0], chances[0])
    found = javascript(
        "const [logits, settings] = arguments;return [...probabilitiesToDrawFrom(logits, ranked(logits), settings)]",
        logits.tolist(),
        asked,
    )
    dense = torch.zeros(40)
    for token, chance in found:
        dense[token] = chance
    torch.testing.assert_close(dense, expected, rtol=1e-5, atol=1e-6)
    drawn = javascript(
        "const random = randomNumbers(7); const chances = new Map(arguments[0]);"
        "return Array.from({ length: 4000 }, () => draw(chances, random()))",
        found,
    )
    shares = torch.bincount(torch.tensor(drawn), minlength=40) / 4000
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_strangers_texts_are_never_html(tokenizer):
    model = tiny(tokenizer)
    harmless = Seen(web_page(Page("A model", "story", [("loss", "1")]), model, tokenizer, "int8"))
    page = web_page(Page(HOSTILE, "story", [(HOSTILE, HOSTILE)]), model, tokenizer, "int8")
    seen = Seen(page)
    assert seen.elements.count("script") == harmless.elements.count("script") == 4
    assert "img" not in seen.elements
    assert not any(name in ("src", "href") or name.startswith("on") for name, _ in seen.attributes)
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(|<link|importScripts|XMLHttpRequest|fetch\(|https?:(?!//x\.example)", page)


def test_a_vocabulary_with_html_in_it_stays_text(tokenizer):
    content = json.loads(tokenizer.backend.to_str())
    content["model"]["vocab"][HOSTILE] = tokenizer.vocab_size
    hostile = Tokenizer(type(tokenizer.backend).from_str(json.dumps(content)))
    seen = Seen(web_page(Page("A model", "chat", []), make_model(vocab_size=hostile.vocab_size), hostile, "int8"))
    assert seen.elements.count("script") == 4 and "img" not in seen.elements


def open_page(browser, path):
    """Open a page, and wait until its model is ready or it reports why not."""
    browser.set_script_timeout(60)
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    assert wait_until(browser, "document.body.dataset.ready || find('#note').textContent.startsWith('This file')")


def wait_until(browser, condition):
    """Wait for a condition in JavaScript; return whether it came true."""
    return browser.execute_async_script(
        "const done = arguments[0]; let tries = 0;"
        f"const look = () => ({condition}) ? done(true) : ++tries > 500 ? done(false) : setTimeout(look, 20);"
        "look();"
    )


def text_of(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def click(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def put_value(browser, selector, value):
    """Type a value into a field, and leave the field."""
    browser.execute_script(
        "const field = document.querySelector(arguments[0]);"
        "field.value = arguments[1]; field.dispatchEvent(new Event('change'));",
        selector,
        value,
    )


def write_story(browser):
    click(browser, "#write")
    wait_until_idle(browser)
    return text_of(browser, "#story")


def wait_until_idle(browser):
    """Wait until all actions have ended."""
    browser.execute_async_script("const done = arguments[0]; lastAction.then(done)")


@pytest.fixture
def page(browser, tmp_path, tokenizer):
    """Return the browser with a page that contains a tiny model."""
    open_page(browser, exported(tmp_path, endless(tiny(tokenizer), tokenizer), tokenizer))
    return browser


def requests_of(browser):
    """Return the addresses of all requests that a page has made."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def test_it_writes_a_story_the_same_one_for_a_seed_without_any_request(page):
    first = write_story(page)
    assert first.startswith("Once upon a time, there was a") and len(first) > 50
    assert write_story(page) == first
    put_value(page, "#seed", "7")
    assert write_story(page) != first
    put_value(page, "#length", "5")
    write_story(page)
    assert text_of(page, "#speed").startswith("5 tokens")
    assert page.get_log("browser") == []


def test_the_only_requests_are_the_file_itself_and_the_worker_in_it(page):
    write_story(page)
    first, *others = requests_of(page)
    assert first == page.current_url
    assert len(others) <= 1 and all(url.startswith("blob:") for url in others)


def test_a_clicked_bar_is_the_next_token_and_settings_change_the_bars(page):
    before = text_of(page, "#story")
    bar = page.execute_script("return find('#next li:nth-child(3) button').textContent")
    click(page, "#next li:nth-child(3) button")
    wait_until_idle(page)
    assert before == "" and len(text_of(page, "#story")) > len("Once upon a time, there was a")
    assert text_of(page, "#story").endswith(bar.replace("␣", " ")) or "\ufffd" in bar
    widths = "return findAll('#next i').map((bar) => bar.style.width)"
    wide = page.execute_script(widths)
    put_value(page, "#temperature", "0")
    wait_until_idle(page)
    assert page.execute_script(widths)[1] == "100%"
    assert page.execute_script(widths)[::2] == wide[::2]  # the model's own probabilities stay


def test_a_second_click_before_the_bars_have_changed_adds_nothing(page):
    added = []
    for clicks in (1, 2):
        page.execute_script("run(beginStory)")
        wait_until_idle(page)
        page.execute_script("for (let i = 0; i < arguments[0]; i++) find('#next button').click()", clicks)
        wait_until_idle(page)
        added.append(page.execute_script("return texts.story.text"))
    assert added[0] == added[1] != ""


def test_writing_can_be_stopped_and_continued(page):
    put_value(page, "#length", "2000")
    click(page, "#write")
    assert wait_until(page, "find('#story').textContent.length > 40")
    click(page, "#stop")
    wait_until_idle(page)
    assert 0 < page.execute_script("return Number.parseInt(find('#speed').textContent)") < 2000
    stopped = text_of(page, "#story")
    put_value(page, "#length", "10")
    click(page, "#continue")
    wait_until_idle(page)
    assert text_of(page, "#speed").startswith("10 tokens")
    assert text_of(page, "#story").startswith(stopped) and len(text_of(page, "#story")) > len(stopped)


def test_a_text_may_end_with_a_chosen_token(page, tokenizer):
    page.execute_script("run(() => addToken(texts.story, arguments[0]))", tokenizer.special["<eos>"])
    wait_until_idle(page)
    assert page.execute_script("return [openText.ended, find('#continue').disabled, openText.next.length]") == [
        True,
        True,
        0,
    ]


@pytest.mark.parametrize(
    "clicks",
    [
        ["#write", "#write"], ["#write", "#chat-tab"], ["#chat-tab", "#send", "#story-tab"],
        ["#chat-tab", "#send", "#new-chat"], ["#chat-tab", "#send", "#send"], ["#write", "#stop", "#continue"],
        ["#continue", "#continue"],
    ],
)  # fmt: skip
def test_quick_clicks_do_no_harm(page, clicks):
    put_value(page, "#length", "6")
    wait_until_idle(page)
    page.execute_script(
        "find('#message').value = 'Hi'; for (const selector of arguments[0]) find(selector).click();", clicks
    )
    wait_until_idle(page)
    story, chat, note = page.execute_script("return [texts.story.text, turns, find('#note').textContent]")
    assert "stopped" not in note and page.get_log("browser") == []
    shown = text_of(page, "#story")
    assert shown == ("Once upon a time, there was a" + story if story else "")
    assert page.execute_script("return findAll('#chat p').map((p) => p.textContent)") == chat
    assert not page.execute_script("return isWriting")
    page.execute_script("run(() => showTab('story'))")
    click(page, "#write")
    wait_until_idle(page)
    assert text_of(page, "#speed").startswith("6 tokens")


def test_both_tabs_keep_their_texts(page):
    put_value(page, "#length", "8")
    story = write_story(page)
    click(page, "#chat-tab")
    page.execute_script("find('#message').value = 'Hi'")
    click(page, "#send")
    wait_until_idle(page)
    chat = page.execute_script("return turns")
    click(page, "#story-tab")
    click(page, "#continue")
    wait_until_idle(page)
    assert text_of(page, "#story").startswith(story) and len(text_of(page, "#story")) > len(story)
    click(page, "#chat-tab")
    wait_until_idle(page)
    assert page.execute_script("return [turns, findAll('#chat p').map((p) => p.textContent)]") == [chat, chat]


@pytest.mark.parametrize(
    ("selector", "typed", "used"),
    [("#top-p", "", 1), ("#top-p", "0", 0.05), ("#temperature", "-1", 0), ("#length", "0", 1), ("#top-k", "-5", 0)],
)
def test_an_impossible_setting_becomes_a_possible_one(page, selector, typed, used):
    put_value(page, selector, typed)
    assert page.execute_script("return Number(find(arguments[0]).value)", selector) == used
    assert len(write_story(page)) > 0 and "stopped" not in text_of(page, "#note")


def test_it_chats_and_remembers_the_conversation(page):
    click(page, "#chat-tab")
    put_value(page, "#length", "12")
    for message in ("Hello!", " Who are you?\n"):
        page.execute_script("find('#message').value = arguments[0]", message)
        click(page, "#send")
        wait_until_idle(page)
    turns = page.execute_script("return turns")
    assert [turns[0], turns[2]] == ["Hello!", "Who are you?"] and turns[1] and turns[3]
    shown = page.execute_script("return findAll('#chat p').map((p) => p.textContent)")
    assert shown == turns
    click(page, "#new-chat")
    wait_until_idle(page)
    assert page.execute_script("return [turns.length, findAll('#chat p').length]") == [0, 0]
    assert page.get_log("browser") == []


@pytest.mark.parametrize(
    ("place", "further"),
    [
        ('id="weights"', 0),
        *(('id="weights">', 400 + more) for more in range(4)),
        ('id="model">', 300),
        ("</html>", -60),
    ],
)
def test_a_truncated_file_says_so(browser, tmp_path, tokenizer, place, further):
    path = exported(tmp_path, tiny(tokenizer), tokenizer)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: whole.rindex(place) + len(place) + further], encoding="utf-8")
    open_page(browser, path)
    assert text_of(browser, "#note") == "This file is incomplete: copy it again."


@pytest.mark.parametrize("width", [360, 1300])
def test_the_page_does_not_scroll_sideways(page, width):
    show_at(page, width, 800)
    widest = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widest <= width


# The program ----------------------------------------------------------------------------------------------------------


def saved(folder, tokenizer, **changes):
    """Save a tokenizer and a tiny model; return the flags that name them."""
    tokenizer.save(folder / "tokenizer.pkl")
    model = Transformer(ModelConfig(tokenizer.vocab_size, 1, 16, 2, 24, 32, dropout=0.0, **changes))
    save_model(folder / "model.pth", model, tokenizer.fingerprint)
    return [str(folder / "model.pth"), "--tokenizer_path", str(folder / "tokenizer.pkl")]


def main(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["export_web.py", *map(str, flags)])
    export_web.main()


def test_it_prints_what_rounding_changed_and_writes_the_card(monkeypatch, capsys, said, tmp_path):
    golden = ROOT / "tests/golden"
    main(
        monkeypatch, golden / "story/best_model.pth", "--tokenizer_path", golden / "bpe_tokenizer_tinystories.pkl",
        "--output", tmp_path / "my.html", "--dataset", golden / "stories", "--cache_dir", tmp_path / "cache",
        "--license", "MIT", "--title", "Ana's",
    )  # fmt: skip
    (line,) = [line for line in said if line.startswith("weights: int8")]
    numbers = re.search(r"([\d.]+) before and ([\d.]+) after rounding, .* ([\d.]+)% of positions", line)
    before, after, same = numbers.groups()
    assert float(before) == pytest.approx(float(after), rel=0.01) and float(same) > 95
    summary = json.loads((golden / "story/summary.json").read_text())
    assert float(before) == pytest.approx(summary["best_bits_per_byte"], rel=1e-3)
    seen = " ".join(Seen((tmp_path / "my.html").read_text(encoding="utf-8")).texts)
    for known in ("7,024 in all", "validation loss (nats per token)", "MIT", "Ana's", f"{before} before", "--dataset"):
        assert known in seen, known
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'my.html'} (0.")


def golden_rows(tmp_path):
    """Return (model, tokenizer, validation rows) of the golden run."""
    golden = ROOT / "tests/golden"
    tokenizer = load_tokenizer(golden / "bpe_tokenizer_tinystories.pkl")
    model, _ = load_model(golden / "story/best_model.pth", tokenizer)
    args = export_web.parse_args(["m.pth", "--output", "x.html", "--cache_dir", str(tmp_path)])
    splits = open_dataset(str(ROOT / "sample_data/stories"))
    return model, tokenizer, held_out_rows(model.config.max_seq_len, tokenizer, splits, args, False)


@pytest.mark.parametrize("weights", ["int8", "float16"])
def test_rounding_keeps_the_likeliest_token_of_the_golden_model(tmp_path, weights):
    model, tokenizer, rows = golden_rows(tmp_path)
    rounded = copy.deepcopy(model)
    round_weights(rounded, weights)
    change = export_web.compare(model, rounded, rows)
    assert change.same > 0.95 and change.before != change.after
    assert rows.texts >= 20


def test_bits_per_byte_are_those_of_the_trainers(tmp_path):
    model, _, rows = golden_rows(tmp_path)
    expected = evaluate(model, rows, Precision(torch.device("cpu"), amp=False))
    assert export_web.compare(model, model, rows)[:2] == pytest.approx([expected["bits_per_byte"]] * 2, rel=1e-5)


def test_unusable_input_gets_one_line(monkeypatch, tmp_path, tokenizer):
    flags = saved(tmp_path, tokenizer)
    output = ["--output", tmp_path / "my.html"]
    assert "something.html" in error_of(main, monkeypatch, *flags, "--output", tmp_path / "my.txt")
    assert "at least 1" in error_of(main, monkeypatch, *flags, *output, "--max_eval_samples", "0")
    assert "no file none.pth" in error_of(main, monkeypatch, "none.pth", *flags[1:], *output)
    assert "--mlp gelu_exact" in error_of(
        main, monkeypatch, *saved(tmp_path, tokenizer, arch="gpt2", mlp="gelu_exact"), *output
    )
    assert not (tmp_path / "my.html").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL]}}, "another way than GPT-2"),
        ({"ignore_merges": True}, "ignore_merges"),
        ({"typed": "<name>"}, "the token <name>"),
    ],
)
def test_a_tokenizer_that_cuts_texts_in_another_way_is_refused(tokenizer, changes, part):
    content = json.loads(tokenizer.backend.to_str())
    content["pre_tokenizer"] = changes.get("pre_tokenizer", BYTE_LEVEL)
    content["model"]["ignore_merges"] = changes.get("ignore_merges", False)
    backend = type(tokenizer.backend).from_str(json.dumps(content))
    if "typed" in changes:
        backend.add_tokens([changes["typed"]])
    assert part in error_of(export_web.check_tokenizer, Tokenizer(backend), "t.pkl")


def test_a_model_without_records_is_taken_for_a_story_model_unless_the_shell_says_chat(
    monkeypatch, said, tmp_path, tokenizer
):
    flags = [*saved(tmp_path, tokenizer), "--output", tmp_path / "my.html", "--max_eval_samples", "2"]
    for kind in ([], ["--kind", "chat"]):
        main(monkeypatch, *flags, *kind)
        page = (tmp_path / "my.html").read_text(encoding="utf-8")
        assert f'"is_chat":{"true" if kind else "false"}' in page
    assert sum("pass --kind chat" in line for line in said) == 1


def test_it_runs_from_a_shell(tmp_path, tokenizer):
    flags = saved(tmp_path, tokenizer)
    run(tmp_path, "tools/export_web", *flags, "--output", "my.html", "--max_eval_samples", "3")
    assert (tmp_path / "my.html").stat().st_size > 10_000
