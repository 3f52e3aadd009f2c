/* Day 1: the twelve numbers of W^Q to type into. Which token does each token look at? */
"use strict";
play.widget("look", (figure, start, tools) => {
  const { tokens, x, wq, wk, marks } = start, kinds = ["negator", "judgement", "thing"];
  const places = tokens.map((_, i) => i), dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const times = (row, matrix) => matrix[0].map((_, d) => dot(row, matrix.map((line) => line[d])));
  const keys = x.map((row) => times(row, wk));
  const table = tools.html(tools.controls, "table", { class: "play-grid" });
  const title = tools.html(table, "caption", {}, "W");
  tools.html(title, "sup", {}, "Q");
  title.append(": how much a token that … (row) looks for a … (column)");
  const head = tools.html(table, "tr");
  tools.html(head, "td");
  kinds.forEach((kind) => tools.html(head, "th", { scope: "col", style: "font-size: 0.85em" }, kind));
  const cells = wq.map((row, i) => {
    const line = tools.html(table, "tr");
    tools.html(line, "th", { scope: "row" }, marks[i]);
    return row.map((value, d) => tools.html(tools.html(line, "td"), "input", {
      type: "number", step: 0.5, min: -9, max: 9, value, "aria-label": `${marks[i]}: looks for ${kinds[d]}`,
      style: "width: 4.2em; padding-inline: 0.3em", input: () => tools.update(),
    }));
  });
  const weights = (matrix) => x.map((row) => {
    const query = times(row, matrix), scores = keys.map((key) => dot(query, key) / Math.sqrt(key.length));
    const largest = Math.max(...scores), e = scores.map((s) => Math.exp(s - largest));
    return e.map((value) => value / e.reduce((a, b) => a + b));
  });
  const first = weights(wq);
  const asked = tools.select("The sentence below speaks of", Object.fromEntries(places.map((i) => [i, tokens[i]])), "3");

  return (width) => {
    const typed = cells.map((row) => row.map((cell) => (Number.isFinite(cell.valueAsNumber) ? cell.valueAsNumber : 0)));
    const rows = weights(typed), changed = places.filter((i) => rows[i].some((value, j) => Math.abs(value - first[i][j]) > 1e-6));
    const side = Math.min(44, (width - 70) / 6), left = 56, top = 26;
    const drawing = tools.drawing(left + 6 * side + 8, top + 6 * side + 6, "the weights: rows are queries, columns are keys");
    places.forEach((i) => {
      const here = i === Number(asked.value) ? "bold" : "normal";
      tools.svg(drawing, "text", { x: left - 6, y: top + (i + 0.6) * side, "text-anchor": "end", "font-weight": here }, tokens[i]);
      tools.svg(drawing, "text", { x: left + (i + 0.5) * side, y: top - 8, "text-anchor": "middle" }, tokens[i]);
      places.forEach((j) => {
        tools.svg(drawing, "rect", {
          x: left + j * side, y: top + i * side, width: side - 2, height: side - 2, style: `fill: ${tools.shade("weight", rows[i][j])}`,
          stroke: here === "bold" ? "var(--play-weight)" : "none",
        });
        tools.svg(drawing, "text", {
          x: left + (j + 0.5) * side - 1, y: top + (i + 0.6) * side, "text-anchor": "middle", "data-play-value": `cell_${i}_${j}`,
        }, tools.number(rows[i][j]));
      });
    });
    const row = rows[Number(asked.value)], most = row.indexOf(Math.max(...row));
    tools.say("“{token}” looks most at “{most}”, with a weight of {weight}. Rows that have changed: {changed}.", {
      token: tokens[Number(asked.value)], most: tokens[most], weight: tools.number(row[most]),
      changed: changed.map((i) => `“${tokens[i]}”`).join(", ") || "none",
    });
  };
});
