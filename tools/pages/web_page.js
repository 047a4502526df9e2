// The page of export_web.py: it shows texts, and asks the worker (web_model.js) for one token at a time.
// In reading order: the worker; a growing text; the bars; the story and the chat; the start. helpers.js comes first.

// The worker ----------------------------------------------------------------------------------------------------------

const waiting = []; // functions that take the worker's next answers, in the order of the requests
let worker;

// Start the worker from the code in this page: a page on a disk may not load a second file.
function startWorker() {
  const code = new Blob([find("#worker").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(code));
  worker.onmessage = ({ data }) => waiting.shift()(data);
}

// Send a request; return a promise of the answer.
function ask(request, content, given = []) {
  return new Promise((resolve, reject) => {
    waiting.push((answer) => (answer.error ? reject(answer.error) : resolve(answer)));
    worker.postMessage({ request, ...content }, given);
  });
}

// Return the bytes of the weights, which are in the page as base64.
function weightsInPage() {
  const letters = atob(find("#weights").textContent.trim());
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) {
    bytes[i] = letters.charCodeAt(i);
  }
  return bytes.buffer;
}

// A growing text ------------------------------------------------------------------------------------------------------

let growing = null; // {text, ended, show: a function that shows the text}
let isWriting = false;

function settings() {
  const number = (selector) => find(selector).valueAsNumber || 0;
  return {
    length: number("#length"),
    temperature: number("#temperature"),
    topK: number("#top-k"),
    topP: number("#top-p"),
    seed: number("#seed"),
  };
}

// Begin a text.  request: "story" or "reply", with its content; show: a function that shows the text.
async function begin(request, content, show) {
  growing = { text: "", ended: false, show };
  const answer = await ask(request, { ...content, settings: settings() });
  find("#note").textContent = answer.note;
  showNext(answer.next);
}

// Add one token; chosen: its id, else the model draws it.
async function addToken(chosen) {
  const grown = growing; // a new text may begin before the answer comes
  const answer = await ask("next", { settings: settings(), chosen });
  grown.text += answer.text;
  grown.ended = answer.ended;
  grown.show(grown.text);
  showNext(answer.next);
}

// Add tokens until the text ends, is long enough, or is stopped, or until another text begins.
async function grow() {
  const grown = growing;
  const start = performance.now();
  const { length } = settings();
  let tokens = 0;
  setWriting(true);
  while (isWriting && growing === grown && !grown.ended && tokens < length) {
    await addToken();
    tokens += 1;
  }
  if (growing === grown) {
    const seconds = (performance.now() - start) / 1000;
    find("#speed").textContent = `${tokens} tokens, ${(tokens / seconds).toFixed(0)} tokens/s`;
    setWriting(false);
  }
}

function setWriting(yes) {
  isWriting = yes;
  showButtons();
}

// Let only those buttons be pressed that make sense now.
function showButtons() {
  find("#write").disabled = isWriting;
  find("#send").disabled = isWriting;
  find("#stop").disabled = !isWriting;
  find("#continue").disabled = isWriting || !growing || growing.ended;
}

// Run an action of the page; show its error, if any, instead of losing it.
async function tried(action) {
  try {
    await action();
  } catch (error) {
    setWriting(false);
    find("#note").textContent = `The model stopped (${error}). Load the page again.`;
  }
}

// The likeliest next tokens -------------------------------------------------------------------------------------------

// Show the bars: grey is the model's probability, blue the one after temperature, top-k and top-p.
function showNext(tokens) {
  const rows = tokens.map(({ id, text, own, drawn }) => {
    const button = element("button", text === null ? "(end)" : signs(text));
    button.type = "button";
    button.onclick = () => isWriting || tried(() => addToken(id));
    const bars = element("div");
    for (const share of [own, drawn]) {
      const bar = element("i");
      bar.style.width = `${100 * share}%`;
      bars.append(bar);
    }
    const row = element("li");
    row.append(button, bars, element("span", `${(100 * own).toFixed(1)}%`));
    return row;
  });
  find("#next").replaceChildren(...rows);
  showButtons();
}

// Show the bars for changed settings.
async function updateBars() {
  if (growing && !growing.ended && !isWriting) {
    const answer = await ask("state", { settings: settings() });
    showNext(answer.next);
  }
}

// The story and the chat ----------------------------------------------------------------------------------------------

function beginStory() {
  const beginning = find("#beginning").value;
  find("#story").textContent = "";
  return begin("story", { text: beginning }, (text) => (find("#story").textContent = beginning + text));
}

let turns = []; // [user's text, reply, user's text, reply, ...]

async function send() {
  const message = find("#message").value.trim();
  if (!message) {
    return;
  }
  find("#message").value = "";
  const conversation = turns; // a new one may begin before the reply is complete
  const asked = [...turns, message];
  turns.push(message, "");
  const shown = element("p");
  shown.className = "reply";
  find("#chat").append(Object.assign(element("p", message), { className: "question" }), shown);
  await begin("reply", { turns: asked }, (text) => {
    conversation[asked.length] = text.trimStart();
    shown.textContent = text.trimStart();
    shown.scrollIntoView({ block: "nearest" });
  });
  await grow();
}

function beginChat() {
  isWriting = false;
  turns = [];
  growing = null;
  find("#chat").replaceChildren();
  showNext([]);
}

function showTab(name) {
  isWriting = false;
  for (const tab of findAll("[role=tab]")) {
    tab.setAttribute("aria-selected", tab.id === `${name}-tab`);
  }
  find("#story-panel").hidden = name !== "story";
  find("#chat-panel").hidden = name !== "chat";
  return name === "story" ? beginStory() : beginChat();
}

// The start -----------------------------------------------------------------------------------------------------------

async function start() {
  find("#note").textContent = "The model is being unpacked …";
  const model = JSON.parse(find("#model").textContent);
  const buffer = weightsInPage();
  if (buffer.byteLength !== model.bytes) {
    find("#note").textContent = "This file is incomplete: copy it again.";
    return;
  }
  startWorker();
  await ask("load", { model, buffer }, [buffer]);
  connect();
  await showTab(model.is_chat ? "chat" : "story");
  document.body.dataset.ready = "yes";
}

// Give every button and field its function.
function connect() {
  const actions = {
    "#write": () => beginStory().then(grow),
    "#send": send,
    "#continue": grow,
    "#stop": () => (isWriting = false),
    "#new-chat": beginChat,
    "#story-tab": () => showTab("story"),
    "#chat-tab": () => showTab("chat"),
  };
  for (const [selector, action] of Object.entries(actions)) {
    find(selector).onclick = () => tried(action);
  }
  find("#message").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      find("#send").click();
    }
  };
  find("#beginning").onchange = () => isWriting || tried(beginStory);
  for (const field of findAll("#settings input")) {
    field.onchange = () => tried(updateBars);
  }
}

addEventListener("DOMContentLoaded", () => tried(start));
