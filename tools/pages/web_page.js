// The page of export_web.py: it shows texts, and asks the worker (web_writer.js) for one token at a time.
// In reading order: the worker; the settings; a growing text; the bars; the story and the chat; the start.
// helpers.js comes before this file.

// The worker ----------------------------------------------------------------------------------------------------------

let worker;
const waiting = []; // for each request without an answer: [what to do with the answer, what to do with an error]

// Start the worker from the code in this page: a page on a disk may not load a second file.
function startWorker() {
  const code = new Blob([find("#worker").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(code));
  worker.onmessage = ({ data }) => {
    const [resolve, reject] = waiting.shift();
    if (data.error) {
      reject(data.error);
    } else {
      resolve(data);
    }
  };
  worker.onerror = (event) => {
    for (const [, reject] of waiting.splice(0)) {
      reject(event.message || "this browser allows no second thread");
    }
  };
}

// Send a request; return a promise of the answer. given: buffers that the worker gets without copying them.
function ask(request, content, given = []) {
  return new Promise((resolve, reject) => {
    waiting.push([resolve, reject]);
    worker.postMessage({ request, ...content }, given);
  });
}

// Actions run one after the other: an action of the reader stops the one before it, and begins when that has ended.
let lastAction = Promise.resolve();
let isStopped = false;

function run(action) {
  isStopped = true;
  lastAction = lastAction.then(async () => {
    isStopped = false;
    try {
      await action();
    } catch (error) {
      find("#note").textContent = `The model stopped (${error}). Load the page again.`;
    }
    setWriting(false);
  });
}

// The settings --------------------------------------------------------------------------------------------------------

// Return the number in a field, within its limits; an empty field has its default value.
function numberIn(selector) {
  const field = find(selector);
  const number = Number.isNaN(field.valueAsNumber) ? Number(field.defaultValue) : field.valueAsNumber;
  return Math.min(Math.max(number, Number(field.min)), Number(field.max));
}

function settings() {
  return {
    length: numberIn("#length"),
    temperature: numberIn("#temperature"),
    topK: numberIn("#top-k"),
    topP: numberIn("#top-p"),
    seed: numberIn("#seed"),
  };
}

// A growing text ------------------------------------------------------------------------------------------------------

// The story and the reply that is written last. next: the likeliest next tokens; show: a function that shows the text.
const texts = {
  story: { kind: "story", text: "", hasBegun: false, ended: false, next: [], show: showStory },
  chat: { kind: "chat", text: "", hasBegun: false, ended: false, next: [], show: () => {} },
};
let openText = texts.story; // the one in the open tab
let isWriting = false;

// Begin a text. content: what the worker needs to begin it.
async function begin(text, content) {
  text.text = "";
  text.show("");
  const answer = await ask(text.kind, { ...content, settings: settings() });
  text.hasBegun = true;
  text.ended = false;
  text.next = answer.next;
  find("#note").textContent = answer.note;
  showNext();
}

// Add one token; chosen: its id, else the model draws it.
async function addToken(text, chosen) {
  const answer = await ask("next", { kind: text.kind, settings: settings(), chosen });
  text.text += answer.text;
  text.ended = answer.ended;
  text.next = answer.next;
  text.show(text.text);
  showNext();
}

// Add tokens until the text ends, is long enough, or is stopped.
async function grow(text) {
  const start = performance.now();
  const { length } = settings();
  let tokens = 0;
  setWriting(true);
  while (!isStopped && !text.ended && tokens < length) {
    await addToken(text);
    tokens += 1;
  }
  if (tokens > 0) {
    const seconds = (performance.now() - start) / 1000;
    find("#speed").textContent = `${tokens} tokens, ${(tokens / seconds).toFixed(0)} tokens/s`;
  }
}

function setWriting(yes) {
  isWriting = yes;
  find("main").setAttribute("aria-busy", yes); // a screen reader waits for the whole text
  showButtons();
}

// Let only those buttons be pressed that make sense now.
function showButtons() {
  find("#stop").disabled = !isWriting;
  find("#continue").disabled = isWriting || !openText.hasBegun || openText.ended;
}

// The likeliest next tokens -------------------------------------------------------------------------------------------

// Show the bars: grey is the model's probability, blue the one after temperature, top-k and top-p.
function showNext() {
  const { next } = openText;
  find("#next").replaceChildren(...next.map((token) => barsOf(token, next)));
  showButtons();
}

// Return the line of a token; a click on it adds this token. next: all tokens that are shown.
function barsOf({ id, text, own, drawn }, next) {
  const button = element("button", text === null ? "(end)" : signs(text));
  button.type = "button";
  button.onclick = () =>
    run(async () => {
      const isStillNext = openText.next === next; // a quick second click was meant for the same place
      if (isStillNext) {
        await addToken(openText, id);
      }
    });
  const bars = element("div");
  for (const probability of [own, drawn]) {
    const bar = element("i");
    bar.style.width = `${100 * probability}%`;
    bars.append(bar);
  }
  const line = element("li");
  line.append(button, bars, element("span", `${(100 * own).toFixed(1)}%`));
  return line;
}

// Show the bars for changed settings.
async function updateBars() {
  if (openText.hasBegun && !openText.ended) {
    const answer = await ask("state", { kind: openText.kind, settings: settings() });
    openText.next = answer.next;
    showNext();
  }
}

// The story and the chat ----------------------------------------------------------------------------------------------

let beginning = ""; // of the story that is shown

function showStory(text) {
  find("#story").textContent = text && beginning + text;
}

function beginStory() {
  beginning = find("#beginning").value;
  return begin(texts.story, { text: beginning });
}

let turns = []; // [user's text, reply, user's text, reply, ...]

// Send the message, and write a reply.
async function send() {
  const message = find("#message").value.trim();
  if (!message) {
    return;
  }
  find("#message").value = "";
  const question = element("p", message);
  const reply = element("p");
  question.className = "question";
  reply.className = "reply";
  find("#chat").append(question, reply);
  const asked = [...turns, message];
  turns.push(message, "");
  texts.chat.show = (text) => {
    turns[asked.length] = text.trimStart();
    reply.textContent = text.trimStart();
    find("#chat").scrollTop = find("#chat").scrollHeight;
  };
  await begin(texts.chat, { turns: asked });
  await grow(texts.chat);
}

function beginChat() {
  turns = [];
  Object.assign(texts.chat, { text: "", hasBegun: false, next: [] });
  find("#chat").replaceChildren();
  showNext();
}

function showTab(kind) {
  openText = texts[kind];
  for (const name of ["story", "chat"]) {
    find(`#${name}-tab`).setAttribute("aria-selected", name === kind);
    find(`#${name}-panel`).hidden = name !== kind;
  }
  find("#note").textContent = "";
  find("#speed").textContent = "";
  showNext();
}

// The start -----------------------------------------------------------------------------------------------------------

// Return {model, buffer} from the page: a description, and the bytes of the weights. null: the file is incomplete.
function modelInPage() {
  try {
    const model = JSON.parse(find("#model").textContent);
    const letters = atob(find("#weights").textContent.trim());
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) {
      bytes[i] = letters.charCodeAt(i);
    }
    return bytes.length === model.bytes ? { model, buffer: bytes.buffer } : null;
  } catch {
    return null;
  }
}

async function start() {
  const content = modelInPage();
  if (content === null) {
    find("#note").textContent = "This file is incomplete: copy it again.";
    return;
  }
  startWorker();
  await ask("load", content, [content.buffer]);
  connect();
  showTab(content.model.is_chat ? "chat" : "story");
  await beginStory();
  document.body.dataset.ready = "yes";
}

// Give every button and field its function.
function connect() {
  const actions = {
    "#write": () => beginStory().then(() => grow(texts.story)),
    "#send": send,
    "#continue": () => grow(openText),
    "#stop": () => {}, // every action stops the one before it
    "#new-chat": beginChat,
    "#story-tab": () => showTab("story"),
    "#chat-tab": () => showTab("chat"),
  };
  for (const [selector, action] of Object.entries(actions)) {
    find(selector).onclick = () => run(action);
    find(selector).disabled = false;
  }
  find("#message").onkeydown = (event) => {
    const isComposing = event.isComposing || event.keyCode === 229; // 229: the same in Safari
    if (event.key === "Enter" && !event.shiftKey && !isComposing) {
      event.preventDefault();
      find("#send").click();
    }
  };
  find("#beginning").onchange = () => {
    if (!texts.story.text) {
      run(beginStory);
    }
  };
  for (const field of findAll("#settings input")) {
    field.onchange = () => {
      field.value = numberIn(`#${field.id}`);
      if (!isWriting) {
        run(updateBars);
      }
    };
  }
}

addEventListener("DOMContentLoaded", () => run(start));
