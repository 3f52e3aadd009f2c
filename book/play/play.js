/* The frame of all widgets: native controls, an SVG, one sentence that says the result. AUTHORS.md says how to use it.
   A classic script without dependencies, so that a page works from a file, too. */
"use strict";
window.play = (() => {
  const widgets = {}, built = new WeakSet();

  function create(parent, node, attributes, text) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
    }
    if (text != null) node.textContent = text;
    if (parent) parent.append(node);
    return node;
  }
  const html = (parent, tag, attributes, text) => create(parent, document.createElement(tag), attributes, text);
  const svg = (parent, tag, attributes, text) =>
    create(parent, document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, text);

  /** A number as the book prints it; what is no number is named. */
  const number = (x, digits = 2) =>
    Number.isNaN(x) ? "NaN" : Math.abs(x) === Infinity ? (x < 0 ? "−∞" : "∞") : x.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");

  /** A straight line from one interval to another, and its ticks. */
  function scale([a, b], [c, d]) {
    const to = (x) => c + ((x - a) / (b - a)) * (d - c);
    to.invert = (y) => a + ((y - c) / (d - c)) * (b - a);
    to.ticks = (count = 5) => {
      const rough = Math.abs(b - a) / count, power = 10 ** Math.floor(Math.log10(rough));
      const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
      const first = Math.ceil(Math.min(a, b) / step - 1e-9), found = [];
      for (let i = first; i * step <= Math.max(a, b) + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
      return found;
    };
    return to;
  }

  /** An axis at the bottom (`y` fixed) or at the left (`x` fixed) of a drawing. */
  function axis(parent, to, { x, y, count, label, format = String }) {
    const group = svg(parent, "g", { class: "play-axis" });
    for (const tick of to.ticks(count)) {
      const at = to(tick);
      svg(group, "line", y != null ? { x1: at, x2: at, y1: y, y2: y + 4 } : { x1: x - 4, x2: x, y1: at, y2: at });
      svg(group, "text", y != null ? { x: at, y: y + 17, "text-anchor": "middle" } : { x: x - 7, y: at + 4, "text-anchor": "end" },
        format(tick).replace("-", "−"));
    }
    const ends = to.ticks(count).map(to), middle = (ends[0] + ends.at(-1)) / 2;
    if (label && y != null) svg(group, "text", { x: middle, y: y + 34, "text-anchor": "middle" }, label);
    if (label && y == null) svg(group, "text", { x: x - 7, y: Math.min(...ends) - 12, "text-anchor": "start" }, label);
    return group;
  }

  /** The points as the `d` of an SVG path; points that are no numbers leave a gap. */
  const path = (points) => points.map(([x, y], i) =>
    !Number.isFinite(y) ? "" : (i && Number.isFinite(points[i - 1][1]) ? "L" : "M") + x.toFixed(1) + "," + y.toFixed(1)).join("");

  /** A fill that text can stand on: `share` from 0 to 1 of a palette colour over the page. */
  const shade = (color, share) =>
    `color-mix(in srgb, var(--play-${color}-fill) ${(60 * Math.max(0, Math.min(1, share || 0))).toFixed(0)}%, var(--pst-color-background))`;

  function makeTools(figure, live) {
    const controls = html(live, "div", { class: "play-controls" });
    const stage = html(live, "div", { class: "play-stage" });
    const output = html(live, "p", { "data-play-output": true, "aria-live": "polite" });
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let draw = null, frame = 0;

    function labelled(text, node, place = controls) {
      const label = html(place, "label", { class: "play-control" });
      label.append(html(null, "span", {}, text), node);
      node.addEventListener("input", () => tools.update());
      return node;
    }
    const tools = {
      controls, stage, output, html, svg, number, scale, axis, path, shade, still,
      /** Draw again: the stage is emptied, and what the widget returned is called with the width in pixels. */
      update() {
        if (!draw) return;
        stage.replaceChildren();
        draw(Math.max(280, Math.min(720, live.clientWidth - 2)));
      },
      begin(f) { draw = f; tools.update(); },
      /** The result in words. `{name}` stands for `values.name`; tests read it from there. */
      say(sentence, values = {}) {
        output.replaceChildren(...sentence.split(/(\{\w+\})/).map((part) => {
          const name = part.slice(1, -1);
          return /^\{\w+\}$/.test(part) ? html(null, "span", { "data-play-value": name }, String(values[name])) : part;
        }));
      },
      slider(text, { min, max, step = 1, value, show = String }) {
        const node = html(null, "input", { type: "range", min, max, step, value });
        labelled(text, node);
        const shown = html(node.parentNode, "span", { class: "play-shown", "aria-hidden": "true" });
        const say = () => { shown.textContent = show(node.valueAsNumber); node.setAttribute("aria-valuetext", shown.textContent); };
        node.addEventListener("input", say);
        say();
        return node;
      },
      select(text, options, value) {
        const node = html(null, "select");
        for (const [key, name] of Object.entries(options)) html(node, "option", { value: key, selected: key === value }, name);
        return labelled(text, node);
      },
      checkbox(text, checked = false) { return labelled(text, html(null, "input", { type: "checkbox", checked })); },
      field(text, value, { min, max, step = "any" } = {}) {
        return labelled(text, html(null, "input", { type: "number", min, max, step, value }));
      },
      text(text, value) { return labelled(text, html(null, "textarea", { rows: 2 }, value)); },
      button(text, click) {
        return html(controls, "button", { type: "button", click: () => { click(); tools.update(); } }, text);
      },
      /** A table of buttons; Tab enters it, arrows move in it, Space or Enter presses. `name(i, j)` is read aloud. */
      grid(title, rows, columns, name, press) {
        const table = html(controls, "table", { class: "play-grid" });
        html(table, "caption", {}, title);
        const head = html(table, "tr");
        html(head, "td");
        columns.forEach((column) => html(head, "th", { scope: "col" }, column));
        const buttons = rows.map((row, i) => {
          const line = html(table, "tr");
          html(line, "th", { scope: "row" }, row);
          return columns.map((_, j) => html(html(line, "td"), "button", {
            type: "button", "aria-label": name(i, j), tabindex: i || j ? -1 : 0,
            click: () => { focus(i, j); press(i, j); tools.update(); },
            keydown: (event) => {
              const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
              if (move) { event.preventDefault(); focus(i + move[0], j + move[1]); }
            } }));
        });
        function focus(i, j) {
          const next = buttons[i]?.[j];
          if (!next) return;
          buttons.flat().forEach((button) => button.setAttribute("tabindex", button === next ? 0 : -1));
          next.focus();
        }
        return buttons;
      },
      /** A drawing on the stage; `title` says what it shows to those who do not see it. */
      drawing(width, height, title) {
        return svg(stage, "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
      },
      /** Follow the pointer over a node of a drawing; give the same by a control, for the keyboard. */
      drag(node, moved) {
        const root = node.ownerSVGElement || node;
        node.style.touchAction = "none"; // a finger drags, the page stays
        node.style.cursor = "grab";
        node.addEventListener("pointerdown", (event) => {
          const back = root.getScreenCTM().inverse(); // now: a redrawn stage no longer holds this drawing
          const at = (e) => { const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(back); moved(p.x, p.y); };
          const ends = ["pointerup", "pointercancel"];
          const end = () => { removeEventListener("pointermove", at); ends.forEach((name) => removeEventListener(name, end)); };
          addEventListener("pointermove", at);
          ends.forEach((name) => addEventListener(name, end));
          at(event);
        });
      },
      /** Call `step` with 0 … 1 for so many milliseconds; at once with 1 for those who want no motion. */
      animate(duration, step) {
        cancelAnimationFrame(frame);
        if (still) return step(1);
        const begin = performance.now();
        const next = (now) => {
          const t = Math.min(1, (now - begin) / duration);
          step(t);
          if (t < 1 && live.isConnected) frame = requestAnimationFrame(next);
        };
        frame = requestAnimationFrame(next);
      },
    };
    return tools;
  }

  function build(figure) {
    const name = figure.dataset.play, written = document.querySelector(`script[data-play-start="${name}"]`);
    if (!widgets[name] || built.has(figure)) return;
    built.add(figure);
    const caption = figure.querySelector("figcaption");
    if (caption) figure.prepend(caption); // the question stands before what answers it
    const live = html(figure, "div", { class: "play-live", role: "group", "aria-label": caption ? null : name });
    if (caption) { caption.id ||= `play-${name}-caption`; live.setAttribute("aria-labelledby", caption.id); }
    figure.classList.add("play-on");
    let tools;
    function begin() {
      if (tools) live.replaceChildren();
      tools = makeTools(figure, live);
      const draw = widgets[name](figure, written ? JSON.parse(written.textContent) : {}, tools);
      if (!figure.querySelector("[data-play-reset]"))
        html(live, "button", { type: "button", "data-play-reset": true, click: again }, "Reset");
      tools.begin(draw || (() => {}));
    }
    function again() { begin(); figure.querySelector("[data-play-reset]").focus(); }
    begin();
    let width = live.clientWidth;
    new ResizeObserver(() => { if (live.clientWidth !== width) { width = live.clientWidth; tools.update(); } }).observe(live);
  }

  function ready() { document.querySelectorAll("figure[data-play]").forEach(build); }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  return {
    html, svg, number, scale, path, shade,
    /** Register a widget: `build(figure, start, tools)` makes its controls and returns what draws it. */
    widget(name, build) { widgets[name] = build; if (document.readyState !== "loading") ready(); },
  };
})();
