// Texts in JavaScript: from the logits to a token, and from tokens to a story or a reply.
// In reading order: the choice of a token (generation/sampling.py), a text that grows (generation/generate.py and
// prompts.py), the weights, and the requests of the page. web_model.js comes before this file.
// Both run in a Web Worker, a second thread: the page stays usable while the model computes.

// The choice of a token -----------------------------------------------------------------------------------------------

// Return the ids of all tokens, the likeliest first.
function ranked(logits) {
  return Uint32Array.from(logits, (_, id) => id).sort((one, other) => logits[other] - logits[one]);
}

// Return {id: probability} of the tokens to draw from: after temperature, top-k and top-p.
// ranking: from `ranked`; settings: {temperature (0: only the likeliest), topK (0: all), topP}.
function probabilitiesToDrawFrom(logits, ranking, { temperature, topK, topP }) {
  if (temperature === 0) {
    return new Map([[ranking[0], 1]]);
  }
  const kept = ranking.subarray(0, topK || ranking.length);
  const probabilities = softmax(Float64Array.from(kept, (id) => logits[id] / temperature));
  const chosen = new Map();
  let total = 0;
  for (let i = 0; i < kept.length && total < topP; i++) {
    chosen.set(kept[i], probabilities[i]);
    total += probabilities[i];
  }
  return new Map([...chosen].map(([id, probability]) => [id, probability / total]));
}

// Draw a token: the first at which the sum of the probabilities is greater than a random number. The likeliest tokens
// come first; in Python, those with the lowest ids.
function draw(probabilities, random) {
  let total = 0;
  let drawn;
  for (const [id, probability] of probabilities) {
    total += probability;
    drawn = id;
    if (random < total) {
      break;
    }
  }
  return drawn;
}

// Return a function that gives random numbers in [0, 1), always the same ones for a seed (mulberry32,
// by Tommy Ettinger).
// Math.random has no seed. Python's generator gives other numbers, so the same seed gives another text there.
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// A text that grows ---------------------------------------------------------------------------------------------------

// Stories and dialogues have the form of the training texts: <bos> text, or <bos> <user> text <assistant> text <eos> ...
class Writer {
  constructor(network, tokenizer, { special, never_written }) {
    this.network = network;
    this.tokenizer = tokenizer;
    this.special = special; // {"<bos>": id, ...}
    this.banned = never_written.filter((id) => id !== special["<eos>"]);
    this.context = network.config.max_seq_len;
  }

  // Begin a story. Returns what `state` returns; note: what the reader should know.
  beginStory(text, settings) {
    let ids = this.tokenizer.encode(text);
    let note = "";
    if (ids.length >= this.context) {
      ids = ids.slice(ids.length - (this.context - 1)); // <bos> needs a place, too
      note = "The text does not fit the model’s context: the model sees only its end.";
    }
    return this.begin([this.special["<bos>"], ...ids], settings, note);
  }

  // Begin a reply. turns: [user's text, reply, user's text, ...]; the last one is the user's.
  // At most a quarter of the context is kept free for the reply.
  beginReply(turns, settings) {
    const room = this.context - Math.min(settings.length, Math.floor(this.context / 4));
    const parts = turns.map((text, i) => {
      const ids = this.tokenizer.encode(text.trim());
      const isReply = i % 2 === 1;
      return isReply ? [this.special["<assistant>"], ...ids, this.special["<eos>"]] : [this.special["<user>"], ...ids];
    });
    const fits = () => parts.flat().length + 2 <= room; // 2: <bos>, and the <assistant> of the new reply
    let note = "";
    while (parts.length > 1 && !fits()) {
      parts.splice(0, 2); // the oldest turn of the user, and its reply
      note = "The conversation no longer fits the model’s context: it forgets the oldest turns.";
    }
    if (!fits()) {
      const [question] = parts;
      const tooMany = question.length + 2 - room;
      question.splice(1, tooMany); // from place 1 on: <user> stays
      note = "The message does not fit the model’s context: its beginning is left out.";
    }
    return this.begin([this.special["<bos>"], ...parts.flat(), this.special["<assistant>"]], settings, note);
  }

  begin(ids, settings, note) {
    this.ids = [];
    this.random = randomNumbers(settings.seed);
    this.decoder = new TextDecoder(); // keeps the bytes of an incomplete character until the next ones come
    for (const id of ids) {
      this.read(id);
    }
    return { ...this.state(settings), note };
  }

  // Read a token; a full context keeps its newest half, whose positions are computed again.
  read(id) {
    if (this.ids.length === this.context) {
      this.ids = this.ids.slice(Math.floor(this.context / 2));
      this.ids.forEach((kept, position) => this.network.read(kept, position));
    }
    this.hidden = this.network.read(id, this.ids.length);
    this.ids.push(id);
  }

  // Return {next}: the ten likeliest next tokens, each {id, text, own, drawn}.
  // own: the model's probability among the tokens that may be written; drawn: that after temperature, top-k and top-p.
  state(settings) {
    const logits = this.network.logits(this.hidden);
    for (const id of this.banned) {
      logits[id] = -Infinity;
    }
    const ranking = ranked(logits);
    const own = softmax(logits);
    this.probabilities = probabilitiesToDrawFrom(logits, ranking, settings);
    const next = [...ranking.subarray(0, 10)].map((id) => ({
      id,
      text: id === this.special["<eos>"] ? null : new TextDecoder().decode(this.tokenizer.bytesOf(id)),
      own: own[id],
      drawn: this.probabilities.get(id) ?? 0,
    }));
    return { next };
  }

  // Add one token, drawn or chosen. Returns its id, its text, whether the text has ended, and what `state` returns.
  next(settings, chosen) {
    const id = chosen ?? draw(this.probabilities, this.random());
    if (id === this.special["<eos>"]) {
      return { id, text: this.decoder.decode(), ended: true, next: [] };
    }
    this.read(id);
    const text = this.decoder.decode(this.tokenizer.bytesOf(id), { stream: true });
    return { id, text, ended: false, ...this.state(settings) };
  }
}

// The weights ---------------------------------------------------------------------------------------------------------

// The value of each float16: 1 bit for the sign, 5 for the exponent, 10 for the fraction.
const HALVES = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  if (exponent === 0) {
    return sign * 2 ** -14 * fraction;
  }
  return sign * 2 ** (exponent - 15) * (1 + fraction);
});

// Return {name: Float32Array} from the bytes that tools/export_web.py packed.
function unpack(tensors, buffer) {
  const weights = {};
  for (const { name, format, rows, size, start } of tensors) {
    if (format === "float32") {
      weights[name] = new Float32Array(buffer, start, size);
    } else if (format === "float16") {
      weights[name] = Float32Array.from(new Uint16Array(buffer, start, size), (bits) => HALVES[bits]);
    } else {
      const scales = new Float32Array(buffer, start, rows); // one for each row
      const integers = new Int8Array(buffer, start + 4 * rows, size);
      const columns = size / rows;
      const rowOf = (i) => Math.floor(i / columns);
      weights[name] = Float32Array.from(integers, (integer, i) => integer * scales[rowOf(i)]);
    }
  }
  return weights;
}

// The requests of the page --------------------------------------------------------------------------------------------

const writers = {}; // one for the story and one for the chat: each keeps its own text

const REQUESTS = {
  load({ model, buffer }) {
    const weights = unpack(model.tensors, buffer);
    const tokenizer = new Tokenizer(model.tokenizer);
    for (const kind of ["story", "chat"]) {
      writers[kind] = new Writer(new Transformer(model.config, weights), tokenizer, model);
    }
    return {};
  },
  story: ({ text, settings }) => writers.story.beginStory(text, settings),
  chat: ({ turns, settings }) => writers.chat.beginReply(turns, settings),
  next: ({ kind, settings, chosen }) => writers[kind].next(settings, chosen),
  state: ({ kind, settings }) => writers[kind].state(settings),
};

// The page asks for one token at a time. So it can stop at any token, and change the settings while the text grows.
self.onmessage = ({ data }) => {
  try {
    postMessage(REQUESTS[data.request](data));
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
