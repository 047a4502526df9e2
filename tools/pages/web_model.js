"use strict";
// The model in JavaScript: the same computation as in Python, one position at a time.
// In reading order: the tokenizer (data.py), the network (model.py), the choice of a token (generation/sampling.py),
// the form of stories and dialogues (generation/prompts.py), and the requests of the page.
// This file runs in a Web Worker, a second thread: the page stays usable while the model computes.
// In the comments, C is the hidden size, D the size of a head, V the size of the vocabulary.

// The tokenizer -------------------------------------------------------------------------------------------------------

// GPT-2's rule for cutting a text into words; tokens never cross the border of a word.
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

// A byte-level BPE tokenizer.  A token is written as one letter for each of its bytes.
class Tokenizer {
  constructor({ tokens, letters, merges, cuts_words }) {
    this.tokens = tokens; // [the letters of token 0, of token 1, ...]; null for those that are not text
    this.letters = letters; // the letter of each byte
    this.cutsWords = cuts_words;
    this.ids = new Map(tokens.map((token, id) => [token, id]));
    this.ranks = new Map(merges.map((pair, rank) => [pair, rank])); // {"a b": when this pair was learned}
    this.bytes = new Map([...letters].map((letter, byte) => [letter, byte]));
  }

  // Return the ids of a text.
  encode(text) {
    const words = this.cutsWords ? (text.match(WORDS) ?? []) : [text];
    return words.flatMap((word) => this.encodeWord(word));
  }

  // Begin with single bytes; merge the pair that was learned first, until no neighbours are a learned pair.
  encodeWord(word) {
    const parts = [...new TextEncoder().encode(word)].map((byte) => this.letters[byte]);
    for (;;) {
      let first = Infinity;
      let place = 0;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < first) {
          first = rank;
          place = i;
        }
      }
      if (first === Infinity) {
        return parts.map((part) => this.ids.get(part));
      }
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
  }

  // Return the bytes of a token.  A character may be split over several tokens, so bytes are not yet a text.
  bytesOf(id) {
    return Uint8Array.from(this.tokens[id] ?? "", (letter) => this.bytes.get(letter));
  }
}

// The network ---------------------------------------------------------------------------------------------------------

// A decoder-only transformer.  It keeps the keys and values of all positions, so a new token costs one position.
class Transformer {
  constructor(config, weights) {
    this.config = config; // the fields of ModelConfig
    this.weights = weights; // {name: Float32Array}, with the names and the order of numbers of model.py
    this.keys = []; // for each layer: (max_seq_len, C)
    this.values = [];
    for (let layer = 0; layer < config.num_layers; layer++) {
      this.keys.push(new Float32Array(config.max_seq_len * config.hidden_size));
      this.values.push(new Float32Array(config.max_seq_len * config.hidden_size));
    }
  }

  // Read the token with this id at a position -> (C,), the input of the head.
  read(id, position) {
    let x = this.row("tokens.weight", id).slice();
    if (this.config.positions === "learned") {
      add(x, this.row("positions.weight", position));
    }
    for (let layer = 0; layer < this.config.num_layers; layer++) {
      const block = `blocks.${layer}`;
      add(x, this.attention(this.norm(x, `${block}.norm1`), layer, position));
      add(x, this.feedForward(this.norm(x, `${block}.norm2`), block));
    }
    return this.norm(x, "norm");
  }

  // (C,) -> (V,): a score for every token that could come next.
  logits(x) {
    return this.linear(x, this.config.tie_embeddings ? "tokens" : "head");
  }

  // Return one row of a matrix with C columns.
  row(name, number) {
    const size = this.config.hidden_size;
    return this.weights[name].subarray(number * size, (number + 1) * size);
  }

  // Multiply x (columns,) by a matrix (rows, columns), and add the bias if there is one -> (rows,).
  // Nearly all the time is spent here.  Four sums at once: the processor does not have to wait for the last addition.
  linear(x, name) {
    const matrix = this.weights[`${name}.weight`];
    const columns = x.length;
    const rows = matrix.length / columns;
    const inFours = columns - (columns % 4);
    const y = new Float32Array(rows);
    for (let row = 0; row < rows; row++) {
      const start = row * columns;
      let sum0 = 0;
      let sum1 = 0;
      let sum2 = 0;
      let sum3 = 0;
      for (let i = 0; i < inFours; i += 4) {
        sum0 += matrix[start + i] * x[i];
        sum1 += matrix[start + i + 1] * x[i + 1];
        sum2 += matrix[start + i + 2] * x[i + 2];
        sum3 += matrix[start + i + 3] * x[i + 3];
      }
      for (let i = inFours; i < columns; i++) {
        sum0 += matrix[start + i] * x[i];
      }
      y[row] = sum0 + sum1 + sum2 + sum3;
    }
    const bias = this.weights[`${name}.bias`];
    if (bias) {
      add(y, bias);
    }
    return y;
  }

  // RMSNorm or LayerNorm: (C,) -> (C,).
  norm(x, name) {
    const isLayerNorm = this.config.norm === "layer";
    const mean = isLayerNorm ? sum(x) / x.length : 0;
    const variance = sum(x.map((value) => (value - mean) ** 2)) / x.length;
    const scale = 1 / Math.sqrt(variance + this.config.norm_epsilon);
    const weight = this.weights[`${name}.weight`];
    const y = x.map((value, i) => (value - mean) * scale * weight[i]);
    const bias = this.weights[`${name}.bias`];
    if (bias) {
      add(y, bias);
    }
    return y;
  }

  // Let a position attend to itself and to earlier ones: (C,) -> (C,).
  attention(x, layer, position) {
    const size = this.config.hidden_size;
    const headSize = size / this.config.num_heads;
    const qkv = this.linear(x, `blocks.${layer}.attention.qkv`); // (3 C,)
    const q = qkv.subarray(0, size);
    const k = qkv.subarray(size, 2 * size);
    if (this.config.positions === "rotary") {
      this.rotate(q, position);
      this.rotate(k, position);
    }
    const keys = this.keys[layer];
    const values = this.values[layer];
    keys.set(k, position * size);
    values.set(qkv.subarray(2 * size), position * size);
    const first = Math.max(0, position + 1 - (this.config.window_size ?? Infinity)); // the first position it may see
    const y = new Float32Array(size);
    for (let begin = 0; begin < size; begin += headSize) {
      // One head: its queries, keys and values are the numbers from `begin` to `begin + headSize`.
      const scores = new Float32Array(position + 1 - first);
      for (let s = 0; s < scores.length; s++) {
        const start = (first + s) * size;
        for (let i = begin; i < begin + headSize; i++) {
          scores[s] += (q[i] * keys[start + i]) / Math.sqrt(headSize);
        }
      }
      const shares = softmax(scores);
      for (let s = 0; s < shares.length; s++) {
        const start = (first + s) * size;
        for (let i = begin; i < begin + headSize; i++) {
          y[i] += shares[s] * values[start + i];
        }
      }
    }
    return this.linear(y, `blocks.${layer}.attention.output`);
  }

  // Rotate queries or keys (C,), in place.  In each head, number i forms a pair with number i + D / 2.
  rotate(x, position) {
    const headSize = this.config.hidden_size / this.config.num_heads;
    const half = headSize / 2;
    for (let i = 0; i < half; i++) {
      const angle = position * this.config.rotary_base ** (-2 * i / headSize);
      const cos = Math.cos(angle);
      const sin = Math.sin(angle);
      for (let a = i; a < x.length; a += headSize) {
        const b = a + half;
        [x[a], x[b]] = [x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin];
      }
    }
  }

  // The part of a layer that works on each token alone: (C,) -> (C,).
  feedForward(x, block) {
    const up = this.linear(x, `${block}.feed_forward.up`);
    if (this.config.mlp !== "swiglu") {
      return this.linear(up.map(gelu), `${block}.feed_forward.down`);
    }
    const gate = up.subarray(0, up.length / 2);
    const values = up.subarray(up.length / 2);
    return this.linear(gate.map((value, i) => silu(value) * values[i]), `${block}.feed_forward.down`);
  }
}

// Add y to x, in place.
function add(x, y) {
  for (let i = 0; i < x.length; i++) {
    x[i] += y[i];
  }
}

function sum(x) {
  return x.reduce((total, value) => total + value, 0);
}

// Turn scores into shares that sum to 1; the largest score is subtracted first, so that no exponential is infinite.
function softmax(scores) {
  const largest = scores.reduce((one, other) => Math.max(one, other), -Infinity);
  const shares = scores.map((score) => Math.exp(score - largest));
  const total = sum(shares);
  return shares.map((share) => share / total);
}

function silu(value) {
  return value / (1 + Math.exp(-value));
}

function gelu(value) {
  return 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3)));
}

// The choice of a token -----------------------------------------------------------------------------------------------

// Return the ids of tokens, the likeliest first.
function ranked(logits) {
  return Uint32Array.from(logits, (_, id) => id).sort((one, other) => logits[other] - logits[one]);
}

// Return {id: probability} of the tokens to draw from: temperature, then top-k, then top-p.
// ranking: from `ranked`; settings: {temperature (0: only the likeliest), topK (0: all), topP}.
function chancesOf(logits, ranking, { temperature, topK, topP }) {
  if (temperature === 0) {
    return new Map([[ranking[0], 1]]);
  }
  const kept = ranking.subarray(0, topK || ranking.length);
  const shares = softmax(Float64Array.from(kept, (id) => logits[id] / temperature));
  const chances = new Map();
  let total = 0;
  for (let i = 0; i < kept.length && total < topP; i++) {
    chances.set(kept[i], shares[i]);
    total += shares[i];
  }
  return new Map([...chances].map(([id, share]) => [id, share / total]));
}

// Draw a token: the first at which the sum of the probabilities is greater than a random number.
function draw(chances, random) {
  let total = 0;
  let drawn;
  for (const [id, chance] of chances) {
    total += chance;
    drawn = id;
    if (random < total) {
      break;
    }
  }
  return drawn;
}

// Return a function that gives random numbers in [0, 1), always the same ones for a seed (mulberry32).
// Math.random has no seed.  Python's generator gives other numbers, so the same seed gives another text there.
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
  constructor({ config, weights, tokenizer, special, never_written }) {
    this.network = new Transformer(config, weights);
    this.tokenizer = new Tokenizer(tokenizer);
    this.special = special; // {"<bos>": id, ...}
    this.banned = never_written.filter((id) => id !== special["<eos>"]);
    this.context = config.max_seq_len;
  }

  // Begin a story.  Returns what `state` returns; note: what the reader should know.
  beginStory(text, settings) {
    let ids = this.tokenizer.encode(text);
    let note = "";
    if (ids.length >= this.context) {
      ids = ids.slice(1 - this.context);
      note = "The text does not fit the model’s context: the model sees only its end.";
    }
    return this.begin([this.special["<bos>"], ...ids], settings, note);
  }

  // Begin a reply.  turns: [user's text, reply, user's text, ...], and the last one is the user's.
  // At most a quarter of the context is kept free for the reply.
  beginReply(turns, settings) {
    const room = this.context - Math.min(settings.length, Math.floor(this.context / 4));
    const parts = turns.map((text, i) => {
      const ids = this.tokenizer.encode(text.trim());
      return i % 2 ? [this.special["<assistant>"], ...ids, this.special["<eos>"]] : [this.special["<user>"], ...ids];
    });
    let note = "";
    while (parts.length > 1 && parts.flat().length + 2 > room) {
      parts.splice(0, 2);
      note = "The conversation no longer fits the model’s context: it forgets the oldest turns.";
    }
    const [question] = parts.slice(-1);
    if (question.length + 2 > room) {
      question.splice(1, question.length + 2 - room);
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
      const kept = this.ids.slice(Math.floor(this.context / 2));
      kept.forEach((earlier, position) => this.network.read(earlier, position));
      this.ids = kept;
    }
    this.hidden = this.network.read(id, this.ids.length);
    this.ids.push(id);
  }

  // Return {next}: the ten likeliest next tokens, each {id, text, own, drawn}.
  // own: the model's probability; drawn: that after temperature, top-k and top-p.
  state(settings) {
    const logits = this.network.logits(this.hidden);
    this.banned.forEach((id) => (logits[id] = -Infinity));
    const ranking = ranked(logits);
    const own = softmax(logits);
    this.chances = chancesOf(logits, ranking, settings);
    const next = [...ranking.subarray(0, 10)].map((id) => ({
      id,
      text: id === this.special["<eos>"] ? null : new TextDecoder().decode(this.tokenizer.bytesOf(id)),
      own: own[id],
      drawn: this.chances.get(id) ?? 0,
    }));
    return { next };
  }

  // Add one token, drawn or chosen.  Returns its text and what `state` returns; at the end of the text: {ended: true}.
  next(settings, chosen) {
    const id = chosen ?? draw(this.chances, this.random());
    if (id === this.special["<eos>"]) {
      return { text: this.decoder.decode(), ended: true, next: [] };
    }
    this.read(id);
    return { text: this.decoder.decode(this.tokenizer.bytesOf(id), { stream: true }), ended: false, ...this.state(settings) };
  }
}

// The weights and the requests of the page ----------------------------------------------------------------------------

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
      weights[name] = Float32Array.from(integers, (integer, i) => integer * scales[Math.floor(i / (size / rows))]);
    }
  }
  return weights;
}

// The value of each float16: 1 bit for the sign, 5 for the exponent, 10 for the fraction.
const HALVES = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
});

let writer;

const REQUESTS = {
  load: ({ model, buffer }) => {
    writer = new Writer({ ...model, weights: unpack(model.tensors, buffer) });
    return {};
  },
  story: ({ text, settings }) => writer.beginStory(text, settings),
  reply: ({ turns, settings }) => writer.beginReply(turns, settings),
  next: ({ settings, chosen }) => writer.next(settings, chosen),
  state: ({ settings }) => writer.state(settings),
};

// The page asks for one token at a time.  So it can stop at any token, and change the settings while the text grows.
self.onmessage = ({ data }) => {
  try {
    postMessage(REQUESTS[data.request](data));
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
