/* The model inside the page: two models answer as you type, in a worker, so that the page stays responsive. */
"use strict";
(() => {
  const here = document.currentScript.src, folder = here ? here.replace(/[^/]*$/, "") + "weights/" : "weights/";
  const NAMES = { first: "the first model (Day 5)", shipped: "the shipped model (Day 11)" };
  const models = {}; // by name: what it is, its pieces while they come, and whom to tell
  let worker = null, waiting = new Map(), number = 0;

  function script(name, failed) {
    const node = document.createElement("script");
    node.src = folder + name;
    node.onload = () => node.remove();
    node.onerror = failed;
    document.head.append(node);
  }

  /** The worker: unpacks weights and answers, one question after the other. */
  function work() {
    const encoder = makeEncoder(), loaded = {};
    onmessage = ({ data }) => {
      if (data.header) { loaded[data.name] = encoder.unpack(data.header, data.pieces); return postMessage({ ready: data.name }); }
      const model = loaded[data.name], read = encoder.read(data.text, model.tokenizer), begin = performance.now();
      const answer = read.ids ? encoder.run(model, read.ids, data.change) : {};
      const kept = data.states ? answer.states : undefined; // a test looks at every layer
      postMessage({ id: data.id, ...read, ...answer, states: kept, milliseconds: performance.now() - begin });
    };
  }
  function begin() {
    const source = `"use strict";${makeEncoder}(${work})()`;
    worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => {
      if (data.ready) { models[data.ready].ready = true; models[data.ready].tell(1); }
      else { waiting.get(data.id)(data); waiting.delete(data.id); }
    };
  }
  function ask(name, text, change = {}, states = false) {
    return new Promise((answer) => { waiting.set(++number, answer); worker.postMessage({ id: number, name, text, change, states }); });
  }

  /** Load a model, piece after piece; `tell` hears the share that has come, or an error. */
  function load(name, tell) {
    const model = models[name];
    if (model) { model.tell = tell; return tell(model.ready ? 1 : 0); }
    models[name] = { tell, pieces: [] };
    if (!worker) begin();
    script(`${name}.js`, () => { models[name].tell(NaN); delete models[name]; });
  }
  play.model = (name, header) => { models[name].header = header; next(name); };
  play.piece = (name, i, text) => { models[name].pieces[i] = text; next(name); };
  function next(name) {
    const { header, pieces, tell } = models[name];
    tell(0.98 * pieces.length / header.pieces);
    if (pieces.length < header.pieces)
      return script(`${name}-${pieces.length}.js`, () => { models[name].tell(NaN); delete models[name]; });
    worker.postMessage({ name, header, pieces });
    models[name] = { tell, header: { config: header.config }, ready: false };
  }
  play.ask = ask; // for tests

  /** A fixed order of T positions that looks like chance. */
  function shuffled(T) {
    const order = Array.from({ length: T }, (_, t) => t);
    for (let t = T - 1, x = 1; t > 0; t--) { x = (x * 16807) % 2147483647; const s = x % (t + 1); [order[t], order[s]] = [order[s], order[t]]; }
    return order;
  }

  play.widget("live-model", (figure, start, tools) => {
    const { html, svg } = tools, answers = {};
    if (!document.getElementById("live-model")) tools.controls.parentNode.id = "live-model";
    const text = tools.text("A text in English", start.text || "not a bad film at all");
    const loading = html(tools.controls, "button", { type: "button", "data-load": true, click: () => fetchModel("shipped") });
    const bar = html(tools.controls, "progress", { max: 1, value: 0, hidden: true, "aria-label": "share of the shipped model that is loaded" });
    const invitation = `Load the shipped model (${start.megabytes} MB)`;
    const cards = html(null, "div", { class: "play-cards" });
    tools.controls.after(cards);
    const card = {};
    for (const name of ["first", "shipped"]) {
      const box = html(cards, "div", { "data-model": name, class: "play-card" });
      html(box, "strong", {}, NAMES[name].replace("the", "The"));
      card[name] = html(box, "div", {}, name === "first" ? "It is loading." : "It is not loaded.");
    }
    const inside = html(null, "div", { class: "play-controls" });
    cards.after(inside);
    const place = (node) => { inside.append(node.parentNode); return node; };
    const who = place(tools.select("Look into", { first: NAMES.first, shipped: NAMES.shipped }, "first"));
    const layer = place(tools.select("Layer", { 0: "1" })), head = place(tools.select("Head", { 0: "1" }));
    const off = place(tools.checkbox("switch this head off")), hidden = place(tools.select("Hide from the others", { "": "no token" }));
    const unscaled = place(tools.checkbox("drop √dₖ")), shuffle = place(tools.checkbox("shuffle the positions"));

    function options(node, names) {
      if (node.options.length === names.length && names.every((name, i) => node.options[i].text === name)) return;
      const value = node.value;
      node.replaceChildren(...names.map((name, i) => html(null, "option", { value: node === hidden ? (i ? i - 1 : "") : i }, name)));
      node.value = value;
      if (node.selectedIndex < 0) node.selectedIndex = 0;
    }
    function count() { // the layers, heads and tokens of the model that is looked into
      const config = models[who.value]?.header?.config, numbers = (n) => Array.from({ length: n }, (_, i) => String(i + 1));
      if (config) { options(layer, numbers(config.num_layers)); options(head, numbers(config.num_heads)); }
      options(hidden, ["no token", ...(answers[who.value]?.tokens || [])]);
    }
    function change(name, T) {
      if (name !== who.value) return {};
      return {
        off: off.checked ? [[Number(layer.value), Number(head.value)]] : [],
        hidden: hidden.value === "" || Number(hidden.value) >= T ? undefined : Number(hidden.value),
        unscaled: unscaled.checked, order: shuffle.checked ? shuffled(T) : undefined,
      };
    }
    const changed = () => off.checked || hidden.value !== "" || unscaled.checked || shuffle.checked;

    /** Ask each model that is there; while one thinks, only the newest question waits. */
    const busy = {}, again = {};
    async function answer(name) {
      if (!models[name]?.ready) return;
      if (busy[name]) { again[name] = true; return; }
      busy[name] = true;
      const asked = text.value, known = answers[name]?.asked === asked ? answers[name].before || answers[name] : null;
      const plain = known || { ...(await ask(name, asked)), asked };
      const moved = name === who.value && changed() && plain.ids;
      answers[name] = moved ? { ...plain, ...(await ask(name, asked, change(name, plain.ids.length))), before: plain } : plain;
      busy[name] = false;
      if (again[name]) { again[name] = false; return answer(name); }
      show(name);
    }
    const verdict = ({ probabilities: [no, yes] }) => ({ label: yes > no ? "positive" : "negative", share: Math.max(yes, no) });
    function show(name) {
      const found = answers[name], box = card[name];
      box.replaceChildren();
      if (found.refusal) html(box, "p", { class: "play-bad" }, found.refusal);
      else {
        const { label, share } = verdict(found), line = html(box, "p", {});
        html(line, "span", { "data-label": true, class: `play-${label}` }, label);
        line.append(", probability ");
        html(line, "span", { "data-probability": true }, share.toFixed(4));
        const tokens = html(box, "p", { class: "play-tokens" });
        found.tokens.slice(0, 60).forEach((token) => { html(tokens, "code", {}, token); tokens.append(" "); });
        if (found.tokens.length > 60) tokens.append(`and ${found.tokens.length - 60} more`);
        for (const warning of found.warnings) html(box, "p", { class: "play-warning" }, warning);
        box.parentNode.dataset.milliseconds = found.milliseconds.toFixed(0);
      }
      box.parentNode.dataset.text = text.value;
      shown();
    }
    function shown() {
      count();
      tools.stage.replaceChildren();
      draw(Math.max(280, Math.min(720, tools.stage.clientWidth)));
      const sentences = ["first", "shipped"].map((name) => {
        const found = answers[name];
        if (!found) return `${NAMES[name]} is not loaded`;
        if (found.refusal) return `${NAMES[name]} has no answer`;
        const { label, share } = verdict(found), before = found.before && verdict(found.before);
        const was = before ? `, and without the changes ${before.label} with ${before.share.toFixed(2)}` : "";
        return `${NAMES[name]} says ${label} with probability ${share.toFixed(2)}${was}`;
      });
      const sentence = `${sentences.join("; ")}.`;
      tools.say(sentence[0].toUpperCase() + sentence.slice(1));
    }

    /** The weights of one head: rows are queries, columns keys. */
    function draw(width) {
      const found = answers[who.value], table = found?.weights?.[layer.value]?.[head.value];
      if (!table) return;
      const T = found.tokens.length, n = Math.min(T, 20), left = 72, top = 64, size = Math.min(30, (width - left - 4) / n);
      const name = `Layer ${Number(layer.value) + 1}, head ${Number(head.value) + 1} of ${NAMES[who.value]}`;
      const cut = (token) => (token.length > 9 ? token.slice(0, 8) + "…" : token);
      html(tools.stage, "p", { class: "play-title" }, `${name}: weights of queries (rows) on keys (columns)${n < T ? `, the first ${n} tokens` : ""}`);
      const drawing = tools.drawing(left + n * size + 30, top + n * size + 2, `${name}: a table of attention weights`);
      for (let t = 0; t < n; t++) {
        const middle = top + (t + 0.5) * size, across = left + (t + 0.5) * size;
        svg(drawing, "text", { x: left - 5, y: middle + 4, "text-anchor": "end", "font-size": 12 }, cut(found.tokens[t]));
        svg(drawing, "text", { x: across, y: top - 6, "font-size": 12, transform: `rotate(-50 ${across} ${top - 6})` }, cut(found.tokens[t]));
        for (let s = 0; s < n; s++) {
          const cell = svg(drawing, "rect", { x: left + s * size, y: top + t * size, width: size - 1, height: size - 1,
            style: `fill: color-mix(in srgb, var(--play-query) ${(100 * table[t * T + s]).toFixed(0)}%, var(--pst-color-surface))` });
          svg(cell, "title", {}, `${found.tokens[t]} → ${found.tokens[s]}: ${table[t * T + s].toFixed(2)}`);
        }
      }
    }

    function fetchModel(name) {
      const button = loading, shipped = name === "shipped";
      load(name, (share) => {
        if (shipped) {
          bar.hidden = !(share < 1);
          bar.value = share || 0;
          button.disabled = share >= 0; // once it comes, a second click would bring nothing
          button.textContent = share === 1 ? "The shipped model is loaded" : share >= 0 ? "Loading the shipped model" : invitation;
        }
        if (Number.isNaN(share)) card[name].textContent = "It could not be loaded: its files are not beside the page.";
        if (share === 1) answer(name);
      });
    }
    loading.textContent = invitation;
    const later = window.requestIdleCallback || ((f) => setTimeout(f, 200));
    const once = () => later(() => fetchModel("first")); // the page is painted first
    if (document.readyState === "complete") once(); else addEventListener("load", once);
    if (models.shipped) fetchModel("shipped");
    tools.say("The first model is loading; it answers here.");
    return () => { ["first", "shipped"].forEach((name) => (models[name]?.ready ? answer(name) : 0)); if (answers.first) shown(); };
  });
})();
