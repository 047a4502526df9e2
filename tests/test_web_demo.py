"""The web demo: the functions behind its buttons, and the page itself in headless Chromium, if installed."""

import html
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import web_demo
from tiny import make_model
from web_demo import Demo, bar_chart, load_models, next_tokens, parse_args

from chat_with_tinystories_model import Chat
from common.errors import UserError
from common.text import without_controls
from common.weights_files import save_model
from corpus.dialogues import Rendered
from data import train_tokenizer
from generation import writer as writer_module
from generation.generate import generate
from generation.prompts import story_prompt

PROGRAM = Path(web_demo.__file__)
TEXTS = ["Once upon a time, Tom had a cat.\nÜnï, €5!", "The dog ran away. Mia looked for it."]
SETTINGS = {"name": "tiny", "length": 30, "temperature": 0.8, "top_k": 50, "top_p": 1, "seed": 42}
PATIENCE = 30  # seconds to wait before a test fails

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Gradio, about pandas


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 290)


@pytest.fixture(scope="module")
def demo(tokenizer):
    return Demo({"tiny": make_model(vocab_size=tokenizer.vocab_size, max_seq_len=64)}, tokenizer, 200)


def settings(**changes):
    return (SETTINGS | changes).values()


def last(texts):
    return list(texts)[-1]


# The probabilities of the next token ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0}, {"top_k": 3}, {"top_k": 0}, {"top_p": 0.3}, {"temperature": 2}]
)
def test_the_bars_show_the_probabilities_that_tokens_are_drawn_with(demo, changes):
    writer = demo.writer(*settings(**changes))
    ids = story_prompt(writer, "Tom had")
    *likeliest, (_, own, drawn) = next_tokens(writer, ids, 10)
    assert len(likeliest) == 10 and all(
        one[1] >= other[1] for one, other in zip(likeliest, likeliest[1:], strict=False)
    )
    assert sum(row[1] for row in likeliest) + own == pytest.approx(1)
    assert sum(row[2] for row in likeliest) + drawn == pytest.approx(1)
    everything = next_tokens(writer, ids, 1000)
    assert all(own == drawn == 0 for token, own, drawn in everything if token in writer.rules().banned)
    chances = {token: chance for token, _, chance in likeliest}
    firsts = []
    for seed in range(300):
        writer.set(seed=seed)
        firsts.append(next(generate(writer.model, [ids], writer.sampling, writer.rules(), [0]))[0])
    for token, chance in chances.items():
        assert firsts.count(token) / 300 == pytest.approx(chance, abs=0.1) and (chance or token not in firsts)
    assert sum(token not in chances for token in firsts) / 300 == pytest.approx(drawn, abs=0.1)


def test_the_model_s_own_probabilities_do_not_depend_on_the_settings(demo):
    ids = story_prompt(demo.writer(*settings()), "Tom had")
    charts = [next_tokens(demo.writer(*settings(temperature=t, top_k=k)), ids, 10) for t, k in ((1, 0), (0.3, 4))]
    assert [row[:2] for row in charts[0]] == [row[:2] for row in charts[1]]
    assert all(own == pytest.approx(drawn) for _, own, drawn in charts[0])
    assert sum(drawn > 0 for _, _, drawn in charts[1]) == 4


def test_there_are_bars_for_a_text_longer_than_the_context_and_for_an_empty_one(demo):
    for text in ("", "Tom had a cat. " * 100):
        assert demo.bars("", text, *settings()).count("<code>") == 11


def test_special_and_invisible_tokens_are_shown_readably(demo):
    special, encode = demo.tokenizer.special, demo.tokenizer.encode
    assert demo.readable(special["<eos>"]) == "(end)"
    assert demo.readable(encode("\n")[0]) == "\u21b5"
    assert demo.readable(encode(" ")[0]) == "\u2423"
    assert demo.readable(encode("\U0001f600")[0]) == "(part of a character)"


def test_typed_html_is_escaped(demo):
    chart = bar_chart("<script>", [("<b>", 0.5, 0.0)])
    assert "<script>" not in chart and "&lt;script&gt;" in chart and "<code>&lt;b&gt;" in chart and "never" in chart


# Texts ----------------------------------------------------------------------------------------------------------------


def test_a_story_equals_that_of_step_3_and_grows_token_by_token(demo):
    writer = demo.writer(*settings())
    *_, whole = texts = list(demo.story("Tom had", *settings()))
    assert whole == "Tom had" + without_controls("".join(writer.stream(story_prompt(writer, "Tom had"))))
    assert texts[0] == "Tom had" and all(map(str.startswith, texts[1:], texts))
    assert len(set(texts)) > 15


def test_a_chat_equals_that_of_step_5(demo):
    chat, turns = Chat(demo.writer(*settings())), []
    for message in ("Hello!", "Tell me of a cat."):
        expected = "".join(chat.reply(message)).strip()
        turns, _ = last(demo.reply(f" {message}\n", turns, *settings()))
        assert turns[-1][1].strip() == expected
    assert [role for role, _ in turns] == ["user", "assistant"] * 2


def test_a_chat_reports_what_it_forgets(demo):
    turns = [("user", "Tom had a cat."), ("assistant", "The dog ran away.")] * 9
    assert last(demo.reply("Hello!", [], *settings()))[1] == ""
    assert "forgets the oldest turns" in last(demo.reply("Hello!", turns, *settings()))[1]
    assert "beginning is left out" in last(demo.reply("Mia looked. " * 15, [], *settings()))[1]


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("Tom " * 51, {}, "204 characters; the maximum is 200"), ("12345 " * 25, {}, "shorten"),
        ("Tom", {"name": "/etc/passwd"}, "choose one of the models"), ("Tom", {"seed": None}, "fill in"),
        ("Tom", {"seed": -1}, "--seed"), ("Tom", {"temperature": float("nan")}, "--temperature"),
    ],
)  # fmt: skip
def test_invalid_or_too_long_input_is_refused(demo, text, changes, said):
    with pytest.raises(UserError, match=said):
        next(demo.story(text, *settings(**changes)))
    if said != "shorten":  # the chat accepts a long message, without its beginning
        with pytest.raises(UserError, match=said):
            next(demo.reply(text, [], *settings(**changes)))
        assert said in demo.bars(text, "", *settings(**changes))


def test_an_empty_message_is_refused_and_an_empty_beginning_is_not(demo):
    with pytest.raises(UserError, match="type a message"):
        next(demo.reply(" \n", [], *settings()))
    assert last(demo.story(None, *settings()))


def test_a_lone_surrogate_does_not_break_the_page(demo):
    assert json.dumps(last(demo.story("Tom \ud83d", *settings())), ensure_ascii=False).encode()


def test_looking_inside_measures_each_model_once_and_does_not_touch_it(demo):
    before = {name: tensor.clone() for name, tensor in demo.models["tiny"].state_dict().items()}
    (frame,) = demo.inside("Tom had a cat.", "tiny")
    page = html.unescape(frame)
    assert page.startswith('<iframe srcdoc="<!') and "<h2>Ablation" in page and "<h2>Attention" in page
    measured = demo.measured["tiny"]
    assert list(demo.inside("Mia looked for it.", "tiny")) != [frame]
    assert demo.measured["tiny"] is measured
    assert all(torch.equal(before[name], tensor) for name, tensor in demo.models["tiny"].state_dict().items())
    with pytest.raises(UserError, match="choose one"):
        next(demo.inside("Tom had a cat.", "another"))
    with pytest.raises(UserError, match="the text: .* tokens"):
        next(demo.inside("Tom had. " * 20, "tiny"))


# Models and flags -----------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tokenizer, tmp_path, monkeypatch):
    """Return the working directory, with two models and a damaged one."""
    monkeypatch.chdir(tmp_path)
    tokenizer.save("bpe_tokenizer_tinystories.pkl")
    for path in ("tinystories_model/best_model.pth", "my_chat/final_model.pth"):
        Path(path).parent.mkdir()
        save_model(path, make_model(vocab_size=tokenizer.vocab_size), tokenizer.fingerprint)
    Path("tinystories_model/final_model.pth").write_bytes(b"PK\3\4 cut off")
    return tmp_path


def test_model_files_are_found_and_damaged_ones_skipped(course, tokenizer, capsys):
    assert list(load_models(None, tokenizer, "cpu")) == ["my_chat/final_model.pth", "tinystories_model/best_model.pth"]
    assert "skipped: tinystories_model/final_model.pth is damaged" in capsys.readouterr().err


def test_only_the_named_models_are_loaded(course, tokenizer):
    assert list(load_models(["my_chat/final_model.pth"], tokenizer, "cpu")) == ["my_chat/final_model.pth"]
    with pytest.raises(UserError, match="damaged"):
        load_models(["tinystories_model/final_model.pth"], tokenizer, "cpu")


def test_a_folder_without_a_model_is_refused(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="train a model first"):
        load_models(None, tokenizer, "cpu")


@pytest.mark.parametrize("flags", [["--port", "0"], ["--max_at_once", "0"], ["--max_characters", "-1"]])
def test_flags_that_make_no_sense_are_refused(flags):
    with pytest.raises(UserError, match=flags[0]):
        parse_args(flags)


def test_a_missing_gradio_gets_one_line(course):
    program = "import runpy, sys; sys.modules['gradio'] = None; sys.path[:0] = sys.argv[2:];"
    program += "sys.argv[1:] = ['--port', sys.argv[1]]; import web_demo; web_demo.run_program(web_demo.main)"
    command = [sys.executable, "-c", program, str(free_port()), str(PROGRAM.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == 'error: the demo needs Gradio, which is not installed: pip install -e ".[demo]"\n'


def test_a_port_in_use_gets_one_line(course):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, PROGRAM, "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in ended.stderr and "pass another --port" in ended.stderr


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends a Ctrl-C to a whole console")
def test_it_starts_behind_a_proxy_and_ctrl_c_ends_it(course):
    pytest.importorskip("gradio")
    environment = {"PATH": "", "http_proxy": "http://127.0.0.1:9", "PYTHONUTF8": "1"}
    command = [sys.executable, PROGRAM, "--port", str(free_port()), "--device", "cpu"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        said = iter(program.stderr.readline, "")
        assert any(line.startswith("open http://127.0.0.1:") for line in said)
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=PATIENCE) == ("", "interrupted\n")
        assert program.returncode == 130
    finally:
        program.kill()


# The page -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(demo):
    """Yield the address of the page; this process serves it, so that tests can pause the generation."""
    pytest.importorskip("gradio")
    blocks = web_demo.page(demo, max_new_tokens=60, max_at_once=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        yield web_demo.serve(blocks, "127.0.0.1", free_port())
        blocks.close(verbose=False)


@pytest.fixture
def page(browser, address):
    """Load the page, and return an object with which to click, type and read."""
    browser.get(address)
    page = Page(browser)
    page.until(lambda: "Likeliest tokens after" in page.text("#bars"))
    return page


class Page:
    def __init__(self, browser):
        self.browser = browser

    def until(self, true):
        """Wait until a function returns a true value, and return this value."""
        ends = time.monotonic() + PATIENCE
        while not (result := true()):
            assert time.monotonic() < ends, f"timed out; the page: {self.text('body')}"
            time.sleep(0.05)
        return result

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.until(lambda: self.all(selector))[0]

    def text(self, selector):
        return self.browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def value(self, selector):
        return self.one(selector).get_attribute("value")

    def type(self, selector, text):
        box = self.one(selector)
        box.send_keys("\ue009a\ue000")  # Ctrl-a, to replace the old text
        box.send_keys(text)

    def story(self):
        return self.value("#story textarea")

    def bubbles(self, who):
        return self.browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(bubble => bubble.innerText.trim())",
            f"#chat .message.{who}",
        )


@pytest.fixture
def held(monkeypatch):
    """Pause generation after 5 tokens, until `held.go` is set; `held.ended` counts the finished texts."""
    held = threading.Event()
    held.go, held.ended, held.at_once, held.most = threading.Event(), 0, 0, 0
    whole = writer_module.generate

    def generate(*arguments):
        held.at_once += 1
        held.most = max(held.most, held.at_once)
        try:
            for number, tokens in enumerate(whole(*arguments)):
                if number == 5:
                    held.set()
                    assert held.go.wait(PATIENCE)
                yield tokens
        finally:
            held.at_once -= 1
            held.ended += 1

    monkeypatch.setattr(writer_module, "generate", generate)
    yield held
    held.go.set()


@pytest.fixture
def endless(monkeypatch, demo):
    """Make generation take minutes; the event that is returned is set if it is stopped before its end."""
    ended = threading.Event()

    def generate(*arguments):
        try:
            for _ in range(100 * PATIENCE):
                time.sleep(0.02)
                yield demo.tokenizer.encode("a")
        except GeneratorExit:
            ended.set()
            raise

    monkeypatch.setattr(writer_module, "generate", generate)
    return ended


def test_a_reader_sees_the_story_grow(page, demo, held):
    page.type("#beginning textarea", "Mia looked")
    page.until(lambda: "after Mia looked" in page.text("#bars"))
    page.one("#write").click()
    begun = page.until(lambda: len(page.story()) > len("Mia looked") and page.story())
    held.go.set()
    whole = last(demo.story("Mia looked", *settings(length=60)))
    page.until(lambda: page.story() == whole)
    assert len(begun) < len(whole)
    page.until(lambda: whole[-10:].split()[-1] in page.text("#bars p"))


def test_at_temperature_0_two_stories_are_the_same(page, demo):
    before = page.text("#bars")
    page.type("#story-heat input[type=number]", "0\t")
    page.until(lambda: page.text("#bars").count("never") == 10)
    assert "never" not in before
    whole = last(demo.story(web_demo.BEGINNING, *settings(length=60, temperature=0, seed=7)))
    for _ in range(2):
        page.one("#write").click()
        page.until(lambda: page.story() == whole)
        page.one("#beginning textarea").send_keys("!\b")
        page.until(lambda: page.story() == "")


def test_a_reader_chats_two_turns_in_plain_text_and_starts_again(page, demo):
    page.all("button[role=tab]")[1].click()
    messages = ["Hello!", "Is <b>Tom</b> &amp; Mia?"]
    turns, _ = last(demo.reply(messages[0], [], *settings(length=60)))
    turns, _ = last(demo.reply(messages[1], turns, *settings(length=60)))
    replies = [" ".join(text.split()) for role, text in turns if role == "assistant"]
    shown = lambda: [" ".join(text.split()) for text in page.bubbles("bot")]
    for message, so_far in zip(messages, (replies[:1], replies), strict=True):
        page.type("#message textarea", message)
        page.one("#send").click()
        page.until(lambda so_far=so_far: shown() == so_far)
        page.until(lambda: page.value("#message textarea") == "")
    assert page.bubbles("user") == messages
    page.one("#chat button[title=Clear], #chat button[aria-label=Clear]").click()
    page.until(lambda: not page.bubbles("user"))
    page.type("#message textarea", "Hello!")
    page.one("#send").click()
    page.until(lambda: shown() == replies[:1])


def test_a_reader_looks_inside_a_model(page):
    page.all("button[role=tab]")[2].click()
    page.type("#inside-text textarea", "Tom had a cat.")
    page.one("#look").click()
    page.browser.switch_to.frame(page.one("#inside iframe"))
    page.until(lambda: page.text("#text").replace("\n", "").endswith("Tom had a cat."))
    page.all("#text .token")[2].click()
    page.until(lambda: page.text("#about h3").startswith("2: "))
    page.browser.switch_to.default_content()


def test_the_page_shows_why_an_input_is_refused(page):
    page.type("#beginning textarea", "12345 " * 25)
    page.one("#write").click()
    page.until(lambda: "shorten the prompt" in page.text("body"))


def test_the_stop_button_stops_the_generation(page, endless):
    page.one("#write").click()
    page.until(lambda: page.story().endswith("aaa"))
    page.one("#story-stop").click()
    assert endless.wait(PATIENCE)
    page.until(lambda: "aaa" in page.text("#bars p"))


def test_a_stopped_reply_stays_in_the_conversation(page, demo, endless, monkeypatch):
    page.all("button[role=tab]")[1].click()
    page.type("#message textarea", "Hello!\n")
    page.until(lambda: "aaa" in "".join(page.bubbles("bot")))
    page.one("#chat-stop").click()
    assert endless.wait(PATIENCE)
    asked = []
    monkeypatch.setattr(
        web_demo, "chat_prompt", lambda writer, turns: asked.append(turns) or Rendered([2], 0, 0, False, False)
    )
    page.type("#message textarea", "Mia?\n")
    page.until(lambda: len(page.bubbles("user")) == len(page.bubbles("bot")) == 2)
    assert [role for role, _ in asked[0]] == ["user", "assistant", "user"] and "aaa" in asked[0][1][1]
    page.one("#chat-stop").click()


@pytest.mark.parametrize("tab", ["story", "chat"])
def test_closing_the_page_stops_the_generation(page, endless, tab):
    if tab == "story":
        page.one("#write").click()
        page.until(lambda: page.story().endswith("aaa"))
    else:
        page.all("button[role=tab]")[1].click()
        page.type("#message textarea", "Hello!\n")
        page.until(lambda: page.bubbles("bot"))
    window = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    other = page.browser.current_window_handle
    page.browser.switch_to.window(window)
    page.browser.close()
    page.browser.switch_to.window(other)
    assert endless.wait(PATIENCE)


def test_no_more_texts_are_generated_at_once_than_allowed(page, address, held):
    page.one("#write").click()
    assert held.wait(PATIENCE)
    page.browser.switch_to.new_window("tab")
    page.browser.get(address)
    page.one("#write").click()
    page.until(lambda: "queue" in page.text("#story"))
    held.go.set()
    page.until(lambda: held.ended == 2)
    assert held.most == 1


def test_the_page_requests_nothing_from_other_computers(page, address):
    asked = set()
    for entry in page.browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert len(asked) > 3 and all(url.startswith((address, "data:", "blob:", "about:", "chrome")) for url in asked)
