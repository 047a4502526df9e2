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


def exported(tmp_path, model, tokenizer, weights="float16", **changes):
    """Write a page; return its path."""
    page = dataclasses.replace(Page("A model", "story", [("network", "tiny")]), **changes)
    path = tmp_path / "model.html"
    path.write_text(web_page(page, model, tokenizer, weights), encoding="utf-8")
    return path


# The JavaScript computes what Python computes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def javascript(browser, tmp_path_factory):
    """Return a function that runs a script in a page that has web_model.js, and returns its value."""
    page = tmp_path_factory.mktemp("javascript") / "page.html"
    source = (ROOT / "tools/pages/web_model.js").as_uri()
    page.write_text(f'<!doctype html><meta charset="utf-8"><script src="{source}"></script>')

    def call(script, *arguments):
        if not browser.current_url.endswith("page.html"):
            browser.get(page.as_uri())
        return browser.execute_script(script, *arguments)

    return call


MAKE_WRITER = """
const [model, content] = arguments;
const buffer = Uint8Array.from(content).buffer;
writer = new Writer({ ...model, weights: unpack(model.tensors, buffer) });
"""


def put(javascript, model, tokenizer, weights="float16"):
    """Make a model the page's `writer`, as the worker does."""
    tensors, content = packed(model, weights)
    javascript(MAKE_WRITER, for_script(model, tokenizer) | {"tensors": tensors}, list(content))


def in_browser(javascript, text, count):
    """Write a story greedily; return the ids that the network has read, the oldest dropped."""
    return javascript(
        """
        const [text, settings, count] = arguments;
        writer.beginStory(text, settings);
        const read = [];
        for (let i = 0; i < count; i++) {
          const [id] = ranked(writer.network.logits(writer.hidden)).filter((id) => !writer.banned.includes(id));
          read.push(id);
          writer.read(id);
        }
        return read;
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
    model = tiny(tokenizer, **SHAPES[name])
    put(javascript, model, tokenizer)
    round_weights(model, "float16")
    found = in_browser(javascript, TEXTS[0][:12], 2 * CONTEXT)
    ids = [tokenizer.special["<bos>"], *tokenizer.encode(TEXTS[0][:12]), *found]
    banned = [token for token in tokenizer.never_written if token != tokenizer.special["<eos>"]]
    after = list(logits_after(model, ids))[-len(found) - 1 : -1]
    for token, logits in zip(found, after, strict=True):
        logits[banned] = -torch.inf
        assert logits[token] > logits.max() - 1e-3


SPACES = "\u00a0 \u0085\u2003\ufeff\u200b\x1c"  # what counts as white space differs between languages
PARTS = ["it's", "we'll'", "<bos>", "  \n ", "½²٣1", *SPACES, "é🙂", ".,", " the"]


@settings(max_examples=60, deadline=None, database=None)
@given(texts=st.lists(st.text() | st.lists(st.sampled_from(PARTS)).map("".join), max_size=20))
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
        "return [...chancesOf(arguments[0], ranked(arguments[0]), arguments[1])]", logits.tolist(), asked
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
    content["model"]["vocab"]["</script>"] = tokenizer.vocab_size
    hostile = Tokenizer(type(tokenizer.backend).from_str(json.dumps(content)))
    page = web_page(Page("A model", "", []), make_model(vocab_size=hostile.vocab_size), hostile, "int8")
    assert Seen(page).elements.count("script") == 4


def open_page(browser, path):
    """Open a page, and wait until its model is ready or it reports why not."""
    browser.set_script_timeout(60)
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    assert wait_until(browser, "document.body.dataset.ready || !find('#note').textContent.includes('unpacked')")


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
    assert wait_until(browser, "!isWriting && find('#speed').textContent")
    return text_of(browser, "#story")


@pytest.fixture
def page(browser, tmp_path, tokenizer):
    """Return the browser with a page that contains a tiny model."""
    model = tiny(tokenizer)
    with torch.no_grad():
        model.tokens.weight[tokenizer.special["<eos>"]] = 0  # never among the 50 likeliest, so texts do not end
    open_page(browser, exported(tmp_path, model, tokenizer))
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
    assert all(url.startswith(("file:", "blob:")) for url in requests_of(page))
    assert page.get_log("browser") == []


def test_a_clicked_bar_is_the_next_token_and_settings_change_the_bars(page):
    before = text_of(page, "#story")
    bar = page.execute_script("return find('#next li:nth-child(3) button').textContent")
    click(page, "#next li:nth-child(3) button")
    assert wait_until(page, "find('#story').textContent.length > 0")
    assert before == "" and len(text_of(page, "#story")) > len("Once upon a time, there was a")
    assert text_of(page, "#story").endswith(bar.replace("␣", " ")) or "\ufffd" in bar
    widths = "return findAll('#next i').map((bar) => bar.style.width)"
    wide = page.execute_script(widths)
    put_value(page, "#temperature", "0")
    assert wait_until(page, "find('#next i:nth-child(2)').style.width === '100%'")
    assert page.execute_script(widths)[::2] == wide[::2]  # the model's own probabilities stay


def test_writing_can_be_stopped_and_continued(page):
    put_value(page, "#length", "2000")
    click(page, "#write")
    assert wait_until(page, "find('#story').textContent.length > 40")
    click(page, "#stop")
    assert wait_until(page, "!isWriting && !find('#continue').disabled")
    assert page.execute_script("return Number.parseInt(find('#speed').textContent)") < 2000
    stopped = text_of(page, "#story")
    put_value(page, "#length", "10")
    click(page, "#continue")
    assert wait_until(page, "find('#speed').textContent.startsWith('10 tokens')")
    assert text_of(page, "#story").startswith(stopped) and len(text_of(page, "#story")) > len(stopped)


def test_a_new_text_ends_the_one_before_it(page):
    put_value(page, "#length", "2000")
    click(page, "#write")
    assert wait_until(page, "find('#story').textContent.length > 40")
    page.execute_script("find('#chat-tab').click(); find('#message').value = 'Hi'; find('#send').click()")
    assert wait_until(page, "turns.length === 2 && turns[1].length > 20")
    story = text_of(page, "#story")
    assert wait_until(page, "turns[1].length > 60") and text_of(page, "#story") == story
    page.execute_script("find('#new-chat').click()")
    assert wait_until(page, "!isWriting") and page.execute_script("return turns.length") == 0


def test_a_text_may_begin_with_a_chosen_token_and_end_with_one(page, tokenizer):
    put_value(page, "#top-k", "0")
    assert wait_until(page, "!find('#continue').disabled")
    page.execute_script("addToken(arguments[0])", tokenizer.special["<eos>"])
    assert wait_until(page, "growing.ended && find('#continue').disabled")
    assert page.execute_script("return findAll('#next li').length") == 0


def test_it_chats_and_remembers_the_conversation(page):
    click(page, "#chat-tab")
    put_value(page, "#length", "12")
    for number, message in enumerate(["Hello!", " Who are you?\n"], start=1):
        page.execute_script("find('#message').value = arguments[0]", message)
        click(page, "#send")
        assert wait_until(page, f"!isWriting && turns.length === {2 * number} && turns.at(-1)")
    turns = page.execute_script("return turns")
    assert [turns[0], turns[2]] == ["Hello!", "Who are you?"]
    shown = page.execute_script("return findAll('#chat p').map((p) => p.textContent)")
    assert shown == turns
    click(page, "#new-chat")
    assert page.execute_script("return [turns.length, findAll('#chat p').length]") == [0, 0]
    assert page.get_log("browser") == []


def test_a_truncated_file_says_so(browser, tmp_path, tokenizer):
    path = exported(tmp_path, tiny(tokenizer), tokenizer)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) - 400], encoding="utf-8")
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
    before, after, same = re.search(r"([\d.]+) before and ([\d.]+) after, .* ([\d.]+)% of positions", line).groups()
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
    change = export_web.measured(model, rounded, rows)
    assert change.same > 0.95 and change.before != change.after
    assert rows.texts >= 20


def test_bits_per_byte_are_those_of_the_trainers(tmp_path):
    model, _, rows = golden_rows(tmp_path)
    expected = evaluate(model, rows, Precision(torch.device("cpu"), amp=False))
    assert export_web.measured(model, model, rows)[:2] == pytest.approx([expected["bits_per_byte"]] * 2, rel=1e-5)


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


def test_it_runs_from_a_shell(tmp_path, tokenizer):
    flags = saved(tmp_path, tokenizer)
    run(tmp_path, "tools/export_web", *flags, "--output", "my.html", "--max_eval_samples", "3")
    assert (tmp_path / "my.html").stat().st_size > 10_000
