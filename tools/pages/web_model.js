"use strict";
// The model in JavaScript: the same computation as in Python, one position at a time. Numbers are stored in float32;
// JavaScript adds and multiplies them in float64, so the last digits differ.
// In reading order: the tokenizer (data.py), and the network (model.py). web_writer.js follows this file.
// In the comments, C is the hidden size, D the size of a head, V the size of the vocabulary.

// The tokenizer -------------------------------------------------------------------------------------------------------

// GPT-2's rule for cutting a text into words; tokens never cross the border of a word. \p{White_Space} is what Python's
// library means by \s; JavaScript's own \s has one character less (U+0085) and one more (U+FEFF).
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

// A byte-level BPE tokenizer. A token is written as one visible letter for each of its bytes: the space is Ġ, so the
// token " cat" is written Ġcat.
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
      let bestRank = Infinity;
      let place = 0;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < bestRank) {
          bestRank = rank;
          place = i;
        }
      }
      if (bestRank === Infinity) {
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

  // Read the token with this id at a position -> (C,), the input of the head: `hidden` in model.py, for one position.
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

  // LayerNorm, or RMSNorm, which does not subtract the mean: (C,) -> (C,).
  norm(x, name) {
    const isLayerNorm = this.config.norm === "layer";
    const mean = isLayerNorm ? sum(x) / x.length : 0;
    const meanSquare = sum(x.map((value) => (value - mean) ** 2)) / x.length; // the variance, in a LayerNorm
    const scale = 1 / Math.sqrt(meanSquare + this.config.norm_epsilon);
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
    const firstSeen = Math.max(0, position + 1 - (this.config.window_size ?? Infinity));
    const y = new Float32Array(size);
    for (let begin = 0; begin < size; begin += headSize) {
      // One head: its queries, keys and values are the numbers from `begin` to `begin + headSize`.
      const scores = new Float32Array(position + 1 - firstSeen);
      for (let s = 0; s < scores.length; s++) {
        const start = (firstSeen + s) * size;
        for (let i = begin; i < begin + headSize; i++) {
          scores[s] += (q[i] * keys[start + i]) / Math.sqrt(headSize);
        }
      }
      const weights = softmax(scores); // how much of each position's values is taken
      for (let s = 0; s < weights.length; s++) {
        const start = (firstSeen + s) * size;
        for (let i = begin; i < begin + headSize; i++) {
          y[i] += weights[s] * values[start + i];
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

// Turn scores into probabilities; the largest score is subtracted first, so that no exponential is infinite.
function softmax(scores) {
  const largest = scores.reduce((one, other) => Math.max(one, other), -Infinity);
  const exponentials = scores.map((score) => Math.exp(score - largest));
  const total = sum(exponentials);
  return exponentials.map((value) => value / total);
}

function silu(value) {
  return value / (1 + Math.exp(-value));
}

function gelu(value) {
  return 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3)));
}
