/* The book's encoder once more, in plain JavaScript: text to tokens (Days 4 and 9), tokens to a verdict (Days 1 to 4).
   Everything stands inside one function without outer names, so that its text can be handed to a worker. */
"use strict";
function makeEncoder() {
  /* 1. Text to tokens ------------------------------------------------------------------------------------ */

  const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // as Python's \s
  const WORDS = new RegExp(`[\\p{L}\\p{N}_]+|[^\\p{L}\\p{N}_${SPACE}]`, "gu");
  const words = (text) => text.toLowerCase().match(WORDS) || [];

  const CHINESE = /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
  const LETTER = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";

  /** What the library `tokenizers` does before it cuts: clean text, no accents, lower case, replacements. */
  function normalize(text, replacements) {
    text = text.replace(/[\t\n\r]/g, " ").replace(/[\ufffd\p{Cc}\p{Cf}\p{Co}]/gu, "").replace(/[\p{Z}]/gu, " ");
    text = text.replace(CHINESE, " $& ").normalize("NFD").replace(/\p{Mn}/gu, "");
    text = Array.from(text, (letter) => letter.toLowerCase()).join(""); // letter by letter: no final sigma
    for (const [pattern, content] of replacements) {
      const source = pattern.replace("(?i)", "").replaceAll("\\w", LETTER).replaceAll("\\b", `(?!${LETTER})`);
      text = text.replace(new RegExp(source, pattern.startsWith("(?i)") ? "giu" : "gu"), () => content);
    }
    return text;
  }

  /** The longest known piece first; a word that cannot be cut is unknown as a whole. */
  function cut(word, ids) {
    const letters = Array.from(word), found = [];
    if (letters.length > 100) return ["[UNK]"];
    for (let begin = 0, end; begin < letters.length; begin = end) {
      for (end = letters.length; end > begin; end--) {
        const piece = (begin ? "##" : "") + letters.slice(begin, end).join("");
        if (ids.has(piece)) { found.push(piece); break; }
      }
      if (end === begin) return ["[UNK]"];
    }
    return found;
  }

  function pieces(text, tokenizer) {
    const parts = normalize(text, tokenizer.replacements).match(/[!-/:-@[-`{-~\p{P}]|[^ !-/:-@[-`{-~\p{P}]+/gu) || [];
    return parts.flatMap((word) => cut(word, tokenizer.ids));
  }

  const tokenize = (text, tokenizer) => (tokenizer.replacements ? pieces(text, tokenizer) : words(text));

  /** The tokens that are read, what to warn of, or why there is no answer: the rules of `minitransformer predict`. */
  function read(text, tokenizer) {
    text = text.replace(/^\ufeff+/, "").replace(/[\r\n]+$/, "");
    if (/\p{Cs}/u.test(text)) return { refusal: "The text holds half of a character." };
    const empty = "an empty text has no sentiment.";
    const all = tokenize(text, tokenizer), limit = tokenizer.maxLength, kept = all.slice(0, limit - 2), warnings = [];
    if (!/[^\p{C}\p{Z}]/u.test(text) || !all.length) return { refusal: `The text is empty, and ${empty}` };
    if (text.includes("\0")) return { refusal: "The text holds a NUL." };
    if (all.length + 2 > limit) warnings.push(`The text has ${all.length + 2} tokens, of which the first ${limit} are read.`);
    const unknown = kept.filter((token) => token === "[UNK]" || !tokenizer.ids.has(token)).length;
    if (2 * unknown > kept.length) warnings.push(`The text is mostly unknown to the model, ${unknown} of its tokens.`);
    const id = (token) => tokenizer.ids.get(token) ?? tokenizer.ids.get("[UNK]");
    return { tokens: ["[CLS]", ...kept, "[SEP]"], ids: ["[CLS]", ...kept, "[SEP]"].map(id), warnings };
  }

  /* 2. Weights --------------------------------------------------------------------------------------------- */

  /** Fifteen bits in each character; numbers of 8 bits or fewer with one scale for each row, or floats. */
  function unpack(header, texts) {
    let piece = 0, place = 0, held = 0, bits = 0;
    function take(n) {
      while (bits < n) {
        if (place === texts[piece].length) { piece += 1; place = 0; }
        held = ((held & ((1 << bits) - 1)) << 15) | (texts[piece].charCodeAt(place++) - 0x3000);
        bits += 15;
      }
      bits -= n;
      return (held >>> bits) & ((1 << n) - 1);
    }
    function floats(n) {
      const bytes = new Uint8Array(4 * n);
      for (let i = 0; i < bytes.length; i++) bytes[i] = take(8);
      return new Float32Array(bytes.buffer);
    }
    const tensors = {};
    for (const { name, shape, width } of header.tensors) {
      const size = shape.reduce((a, b) => a * b, 1), row = shape.at(-1);
      if (width === 32) { tensors[name] = floats(size); continue; }
      const scales = floats(size / row), values = tensors[name] = new Float32Array(size), middle = (1 << (width - 1)) - 1;
      for (let i = 0; i < size; i++) values[i] = (take(width) - middle) * scales[Math.floor(i / row)];
      for (let rest = (size * width) % 8; rest % 8; rest++) take(1); // a tensor fills its last byte
    }
    const ids = new Map(header.tokens.split(" ").map((token, i) => [token, i]));
    const tokenizer = { ids, maxLength: header.max_length, replacements: header.replacements };
    return { config: header.config, tensors, tokenizer };
  }

  /* 3. The encoder: a matrix is one Float32Array, row after row ----------------------------------------------- */

  /** x Wᵀ + b for T rows. Four rows of x share each number of W that is read. */
  function linear({ tensors }, name, x, T) {
    const W = tensors[`${name}.weight`], b = tensors[`${name}.bias`], N = b.length, C = W.length / N;
    const out = new Float32Array(T * N);
    for (let t = 0; t < T; t += 4) {
      const t1 = Math.min(t + 1, T - 1), t2 = Math.min(t + 2, T - 1), t3 = Math.min(t + 3, T - 1);
      const r0 = x.subarray(t * C, t * C + C), r1 = x.subarray(t1 * C, t1 * C + C);
      const r2 = x.subarray(t2 * C, t2 * C + C), r3 = x.subarray(t3 * C, t3 * C + C);
      for (let n = 0; n < N; n++) {
        let s0 = b[n], s1 = b[n], s2 = b[n], s3 = b[n];
        for (let c = 0, w = n * C; c < C; c++, w++) {
          const weight = W[w];
          s0 += weight * r0[c]; s1 += weight * r1[c]; s2 += weight * r2[c]; s3 += weight * r3[c];
        }
        out[t * N + n] = s0; out[t1 * N + n] = s1; out[t2 * N + n] = s2; out[t3 * N + n] = s3;
      }
    }
    return out;
  }

  function layerNorm(model, name, x, T) {
    const weight = model.tensors[`${name}.weight`], bias = model.tensors[`${name}.bias`], C = weight.length;
    const out = new Float32Array(x.length);
    for (let t = 0; t < T; t++) {
      let mean = 0, variance = 0;
      for (let c = 0; c < C; c++) mean += x[t * C + c] / C;
      for (let c = 0; c < C; c++) variance += (x[t * C + c] - mean) ** 2 / C;
      const size = Math.sqrt(variance + (model.config.layer_norm_eps ?? 1e-5));
      for (let c = 0; c < C; c++) out[t * C + c] = ((x[t * C + c] - mean) / size) * weight[c] + bias[c];
    }
    return out;
  }

  function softmax(row) {
    const largest = Math.max(...row), e = row.map((s) => Math.exp(s - largest)), sum = e.reduce((a, b) => a + b);
    return e.map((value) => value / sum);
  }

  /** The error function to seven digits (Abramowitz and Stegun, 7.1.26). */
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - sum * Math.exp(-x * x));
  }
  const ACTIVATIONS = { gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)), relu: (x) => Math.max(0, x) };

  const add = (x, y) => x.map((value, i) => value + y[i]);

  /** Attention of all heads in layer l; `change` may switch heads off, hide a token, or forget the root of d_k. */
  function attend(model, l, x, T, change) {
    const name = `encoder.layers.${l}.self_attn`, C = model.config.d_model, H = model.config.num_heads, D = C / H;
    const [q, k, v] = ["q", "k", "v"].map((part) => linear(model, `${name}.${part}_proj`, x, T));
    const out = new Float32Array(T * C), weights = [];
    for (let h = 0; h < H; h++) {
      const table = new Float32Array(T * T);
      for (let t = 0; t < T; t++) {
        const scores = new Float64Array(T);
        for (let s = 0; s < T; s++) {
          for (let d = h * D; d < h * D + D; d++) scores[s] += q[t * C + d] * k[s * C + d];
          if (!change.unscaled) scores[s] /= Math.sqrt(D);
          if (change.hidden === s && s !== t) scores[s] = -Infinity; // others do not see it; it still sees itself
        }
        table.set(softmax(scores), t * T);
        if (change.off?.some(([layer, head]) => layer === l && head === h)) continue;
        for (let s = 0; s < T; s++)
          for (let d = h * D; d < h * D + D; d++) out[t * C + d] += table[t * T + s] * v[s * C + d];
      }
      weights.push(table);
    }
    return { out: linear(model, `${name}.out_proj`, out, T), weights };
  }

  function feedForward(model, l, x, T) {
    const name = `encoder.layers.${l}.feed_forward`, activation = ACTIVATIONS[model.config.activation];
    return linear(model, `${name}.linear2`, linear(model, `${name}.linear1`, x, T).map(activation), T);
  }

  function embed({ config, tensors }, ids, change) {
    const C = config.d_model, x = new Float32Array(ids.length * C);
    const table = tensors["encoder.embedding.weight"], places = tensors["encoder.positions.encoding"];
    const kind = tensors["encoder.token_types.weight"];
    ids.forEach((id, t) => {
      const place = change.order ? change.order[t] : t;
      for (let c = 0; c < C; c++) x[t * C + c] = table[id * C + c] + places[place * C + c] + (kind ? kind[c] : 0);
    });
    return x;
  }

  /** Token ids to probabilities, with every layer's stream and every head's weights on the way. */
  function run(model, ids, change = {}) {
    const { config } = model, T = ids.length, C = config.d_model, norm = (name, x) => layerNorm(model, name, x, T);
    let x = embed(model, ids, change);
    if (config.embedding_norm) x = norm("encoder.embedding_norm", x);
    const states = [x], weights = [];
    for (let l = 0; l < config.num_layers; l++) {
      const [norm1, norm2] = [1, 2].map((i) => `encoder.layers.${l}.norm${i}`);
      const attention = attend(model, l, config.norm_first ? norm(norm1, x) : x, T, change);
      weights.push(attention.weights);
      x = add(x, attention.out);
      if (!config.norm_first) x = norm(norm1, x);
      x = add(x, feedForward(model, l, config.norm_first ? norm(norm2, x) : x, T));
      if (!config.norm_first) x = norm(norm2, x);
      states.push(x);
    }
    if (config.norm_first) x = norm("encoder.norm", x);
    const pooled = new Float32Array(C), rows = config.pooling === "mean" ? T : 1; // the mean of all, or [CLS] alone
    for (let t = 0; t < rows; t++) for (let c = 0; c < C; c++) pooled[c] += x[t * C + c] / rows;
    const logits = Array.from(linear(model, "classifier", pooled, 1));
    return { logits, probabilities: softmax(logits), states, weights };
  }

  return { tokenize, read, unpack, run };
}
