// The second part of the script of look_inside.py's page: the table of ablation, and the search for near tokens.

// Ablation ------------------------------------------------------------------------------------------------------------

// Sort the table by a column, the highest first; a second click reverses the order. Missing numbers come last.
function sortParts(heading, column) {
  const rising = heading.getAttribute("aria-sort") === "descending";
  findAll("#ablation thead th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const missing = rising ? Infinity : -Infinity;
  const numberIn = (row) => Number(row.cells[column].dataset.value ?? missing);
  const rows = findAll("#ablation tbody tr");
  rows.sort((a, b) => (rising ? numberIn(a) - numberIn(b) : numberIn(b) - numberIn(a)) || 0);
  find("#ablation tbody").append(...rows);
}

// Show or hide the heads, or the layers.
function filterParts(kind, isShown) {
  findAll(`#ablation tbody tr[data-kind=${kind}]`).forEach((row) => {
    row.hidden = !isShown;
  });
}

// Make the headings and the two boxes answer.
function startAblation() {
  findAll("#ablation thead button").forEach((button) => {
    button.addEventListener("click", () => sortParts(button.parentElement, Number(button.dataset.column)));
  });
  findAll("#ablation-section input").forEach((box) => {
    box.addEventListener("change", () => filterParts(box.dataset.kind, box.checked));
  });
}

// Embeddings ----------------------------------------------------------------------------------------------------------

const neighbours = new Map(Object.entries(data.neighbours || {}));
const MOST_MATCHES = 8;

// Return the tokens that fit what was typed: with a space before it, as it is, then those that begin like it.
function matchesFor(typed) {
  const wanted = typed.replaceAll("␣", " ");
  if (!wanted) return [];
  const begin = wanted.trim().toLowerCase();
  const longer = [...neighbours.keys()].filter((token) => token.trim().toLowerCase().startsWith(begin));
  longer.sort((a, b) => a.length - b.length);
  const exact = [` ${wanted}`, wanted].filter((token) => neighbours.has(token));
  return [...new Set([...exact, ...longer])].slice(0, MOST_MATCHES);
}

// Draw a word of the map above the others.
function drawLast(word) {
  const map = word.parentElement;
  if (word !== map.lastElementChild) map.append(word);
}

// Show the neighbours of a token, here and on the map.
function showNeighbours(token) {
  const near = neighbours.get(token);
  if (!near) return;
  find("#found").textContent = `Nearest to ${signs(token)}`;
  showBars(find("#neighbours"), withSigns(near));
  const names = new Set(near.map(([name]) => name));
  findAll("#map .word").forEach((word) => {
    word.classList.toggle("found", word.dataset.token === token);
    word.classList.toggle("near", names.has(word.dataset.token));
    if (names.has(word.dataset.token)) drawLast(word);
  });
}

// Search for what was typed: show the best token, and the others as buttons.
function search() {
  const matches = matchesFor(find("#search").value);
  const buttons = matches.map((token) => {
    const button = element("button", signs(token));
    button.type = "button";
    button.className = "link";
    button.addEventListener("click", () => showNeighbours(token));
    return button;
  });
  const isEmpty = find("#search").value === "";
  find("#matches").replaceChildren(...(buttons.length || isEmpty ? buttons : ["no such token on this page"]));
  if (matches.length) showNeighbours(matches[0]);
}

// Make the search box and the map answer; begin with the first token.
function startEmbeddings() {
  find("#search").addEventListener("input", search);
  findAll("#map .word").forEach((word) => {
    word.addEventListener("pointerenter", () => drawLast(word));
    word.addEventListener("click", () => showNeighbours(word.dataset.token));
  });
  showNeighbours(neighbours.keys().next().value);
}

if (find("#ablation")) startAblation();
if (neighbours.size) startEmbeddings();
