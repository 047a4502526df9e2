// The page of look_inside.py. In reading order: small helpers, the text, attention. helpers.js comes before this file,
// inside_tables.js after it.
const data = JSON.parse(document.getElementById("data").textContent);
const tokens = data.tokens;
const attention = data.attention;

// What the reader has chosen.
let chosenToken = 0;
let chosenHead = 0; // layer * heads + head

// Helpers -------------------------------------------------------------------------------------------------------------

// Return [token, number] pairs with signs in the tokens.
function withSigns(pairs) {
  return pairs.map(([token, number]) => [signs(token), number]);
}

// Return how strongly a probability is coloured: its square root, so that 0.05 is still visible.
function shade(probability) {
  return Math.sqrt(probability);
}

// Fill a list with bars for [name, number from 0 to 1, or null if unknown]; one name may be underlined.
function showBars(list, rows, underlined = null) {
  const items = rows.map(([name, value]) => {
    const bar = element("i");
    bar.style.width = `${100 * Math.max(0, value)}%`;
    const item = element("li");
    const number = value === null ? "–" : value.toFixed(3);
    item.append(element("bdi", name), bar, element("span", number));
    item.classList.toggle("true", name === underlined);
    return item;
  });
  list.replaceChildren(...items);
}

// Return the number that an arrow key, Home or End leads to from a number below size, or null for other keys.
function movedBy(key, number, size, back, forth) {
  const targets = { [back]: number - 1, [forth]: number + 1, Home: 0, End: size - 1 };
  if (!Object.hasOwn(targets, key)) return null;
  return Math.min(Math.max(targets[key], 0), size - 1);
}

// The text ------------------------------------------------------------------------------------------------------------

const spans = findAll("#text .token");

// Describe the chosen token: its loss, its rank, and the likeliest tokens at its place.
function describeToken() {
  const token = tokens[chosenToken];
  const loss = data.loss[chosenToken];
  const rank = data.rank ? data.rank[chosenToken] : null;
  const likeliest = data.alternatives ? data.alternatives[chosenToken] : null;
  const facts = [];
  if (loss === null) {
    facts.push("not predicted: nothing stands before it");
  } else {
    facts.push(`loss ${loss.toFixed(2)}`, `probability ${Math.exp(-loss).toFixed(3)}`);
  }
  if (rank !== null) facts.push(`rank ${rank.toLocaleString("en")}`);
  find("#about h3").textContent = `${chosenToken}: ${signs(token)}`;
  find("#about .facts").textContent = facts.join(", ");
  showBars(find("#about .bars"), withSigns(likeliest || []), signs(token));
}

// Choose a token: mark it, describe it, and colour what it attends to.
function chooseToken(number) {
  spans[chosenToken].classList.remove("chosen");
  spans[chosenToken].tabIndex = -1;
  chosenToken = number;
  spans[chosenToken].classList.add("chosen");
  spans[chosenToken].tabIndex = 0;
  describeToken();
  colourByAttention();
}

// Make the tokens of the text answer to the mouse, to taps and to the keyboard.
function startText() {
  spans.forEach((span, number) => {
    span.addEventListener("pointerenter", () => chooseToken(number));
    span.addEventListener("focus", () => chooseToken(number));
    span.addEventListener("click", () => span.focus());
  });
  find("#text").addEventListener("keydown", (event) => {
    const target = movedBy(event.key, chosenToken, tokens.length, "ArrowLeft", "ArrowRight");
    if (target === null) return;
    event.preventDefault();
    spans[target].focus();
  });
  chooseToken(Math.min(1, tokens.length - 1));
}

// Attention -----------------------------------------------------------------------------------------------------------

const decoded = new Map(); // head: its pattern, decoded when it is first needed

// Return the pattern of a head as bytes, row by row: 255 is a probability of 1.
function patternOf(head) {
  if (!decoded.has(head)) {
    const bytes = Uint8Array.from(atob(attention.data[head]), (letter) => letter.charCodeAt(0));
    decoded.set(head, bytes);
  }
  return decoded.get(head);
}

// Return how much the token of a row attends to the token of a column.
function attends(head, row, column) {
  return patternOf(head)[row * tokens.length + column] / 255;
}

// Return the name of a head, such as "2.3".
function nameOf(head) {
  return `${Math.floor(head / attention.heads)}.${head % attention.heads}`;
}

// Give each token of the text the colour of the attention that the chosen token pays to it.
function colourByAttention() {
  if (!attention) return;
  spans.forEach((span, column) => {
    const percent = 100 * shade(attends(chosenHead, chosenToken, column));
    span.style.setProperty("--attention", `${percent.toFixed(0)}%`);
  });
}

// Colour the text by "loss" or by "attention".
function colourBy(kind) {
  find("#text").classList.toggle("by-attention", kind === "attention");
  find(`input[name=colour][value=${kind}]`).checked = true;
}

// Draw a pattern, one pixel for each pair of tokens: first its strength as opacity, then the colour on top of that.
function drawPattern(canvas, head) {
  const pattern = patternOf(head);
  const size = tokens.length;
  canvas.width = size;
  canvas.height = size;
  const brush = canvas.getContext("2d");
  const image = brush.createImageData(size, size);
  for (let i = 0; i < pattern.length; i++) {
    image.data[4 * i + 3] = 255 * shade(pattern[i] / 255);
  }
  brush.putImageData(image, 0, 0);
  brush.globalCompositeOperation = "source-in";
  brush.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--c0");
  brush.fillRect(0, 0, size, size);
}

// Draw the patterns of all heads, and the chosen one large.
function drawAll() {
  findAll(".pattern").forEach((button) => drawPattern(button.firstChild, Number(button.dataset.head)));
  drawPattern(find(".picture canvas"), chosenHead);
}

// Choose a head: enlarge its pattern, show its scores, and use it for the colours of the text.
function chooseHead(head) {
  chosenHead = head;
  find("#head").value = head;
  findAll(".pattern").forEach((button) => {
    button.setAttribute("aria-pressed", Number(button.dataset.head) === head);
  });
  const about = (data.heads || []).find((one) => `${one.layer}.${one.head}` === nameOf(head)) || {};
  find("#enlarged h3").textContent = about.label ? `Head ${nameOf(head)}: ${about.label}` : `Head ${nameOf(head)}`;
  showBars(find("#enlarged .bars"), Object.entries(about.scores || {}), about.label);
  drawPattern(find(".picture canvas"), head);
  colourByAttention();
}

// The row and column of the enlarged picture that the reader points at.
const pointed = { row: 0, column: 0 };

// Point at a place of the enlarged picture: mark its row and column, and say which tokens they are.
function pointAt(row, column) {
  const last = tokens.length - 1;
  pointed.row = Math.min(Math.max(row, 0), last);
  pointed.column = Math.min(Math.max(column, 0), last);
  const percent = 100 / tokens.length;
  const rowMark = find(".picture .row");
  const columnMark = find(".picture .column");
  rowMark.style.cssText = `display: block; top: ${pointed.row * percent}%; height: ${percent}%`;
  columnMark.style.cssText = `display: block; left: ${pointed.column * percent}%; width: ${percent}%`;
  const from = `‘${signs(tokens[pointed.row])}’ (${pointed.row})`;
  const to = `‘${signs(tokens[pointed.column])}’ (${pointed.column})`;
  const share = attends(chosenHead, pointed.row, pointed.column).toFixed(2);
  const isLater = pointed.column > pointed.row;
  const wording = isLater ? `${from} cannot attend to ${to}, which comes later.` : `${from} attends ${share} to ${to}.`;
  find("#pair").textContent = wording;
}

// Make the pictures and the switches answer.
function startAttention() {
  findAll(".pattern").forEach((button) => {
    button.addEventListener("click", () => {
      chooseHead(Number(button.dataset.head));
      colourBy("attention");
      find("#enlarged").scrollIntoView({ block: "nearest" });
    });
  });
  find("#head").addEventListener("change", (event) => {
    chooseHead(Number(event.target.value));
    colourBy("attention");
  });
  findAll("input[name=colour]").forEach((input) => input.addEventListener("change", () => colourBy(input.value)));
  const picture = find(".picture");
  const follow = (event) => {
    const box = picture.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * tokens.length);
    const column = Math.floor(((event.clientX - box.left) / box.width) * tokens.length);
    pointAt(row, column);
  };
  picture.addEventListener("pointermove", follow);
  picture.addEventListener("pointerdown", follow); // a finger that taps does not move
  picture.addEventListener("keydown", (event) => {
    const row = movedBy(event.key, pointed.row, tokens.length, "ArrowUp", "ArrowDown");
    const column = movedBy(event.key, pointed.column, tokens.length, "ArrowLeft", "ArrowRight");
    if (row === null && column === null) return;
    event.preventDefault();
    pointAt(row ?? pointed.row, column ?? pointed.column);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  colourBy("loss");
  chooseHead(0);
  drawAll();
}

startText();
if (attention) startAttention();
