/* Day 2: a mask to click, and ways to apply it. Which of them keeps rows whole, numbers finite and gradients alive? */
"use strict";
play.widget("mask", (figure, start, tools) => {
  const { tokens, scores, values } = start, places = tokens.map((_, i) => i);
  const mask = start.mask.map((row) => [...row]);
  const way = tools.select("The mask is applied as", {
    scores: "score × 0", weights: "weight × 0", infinity: "score − ∞",
    repaired: "score − ∞, then NaN to 0", lowest: "lowest number, then zeros",
  }, "scores");
  const shown = tools.select("The cells show", { weights: "the weights", gradient: "the gradient by the scores" }, "weights");
  const name = (i, j) => `query ${tokens[i]}, key ${tokens[j]}`;
  const cells = tools.grid("Rows are queries, columns keys. A click forbids a key to a query, or allows it.",
    tokens, tokens, name, (i, j) => { mask[i][j] = !mask[i][j]; });

  /** One row of weights, and the gradient of what the query receives, Σⱼ wⱼ vⱼ, by its scores. */
  function row(s, allowed) {
    const how = way.value, added = how === "infinity" || how === "repaired";
    const entered = s.map((x, j) => allowed[j] ? x : added ? -Infinity : how === "scores" ? 0 : how === "lowest" ? -3.4e38 : x);
    const largest = Math.max(...entered), e = entered.map((x) => Math.exp(x - largest));
    const total = e.reduce((a, b) => a + b), soft = e.map((x) => x / total); // −∞ − (−∞) is NaN, here as in Python
    const after = how === "weights" || how === "lowest";
    const weights = soft.map((w, j) => how === "repaired" && Number.isNaN(w) ? 0 : after && !allowed[j] ? 0 : w);
    const back = values.map((v, j) => (after && !allowed[j]) || (how === "repaired" && Number.isNaN(soft[j])) ? 0 : v);
    const mean = soft.reduce((sum, w, j) => sum + w * back[j], 0);
    const kept = (j) => how === "scores" || how === "lowest" ? Number(allowed[j]) : 1; // does this score enter at all?
    return { weights, gradient: soft.map((w, j) => (kept(j) ? w * (back[j] - mean) : 0)) };
  }

  return () => {
    const rows = places.map((i) => row(scores[i], mask[i]));
    const count = (test) => rows.reduce((n, r, i) => n + r[test[0]].filter((x, j) => test[1](x, i, j)).length, 0);
    const sums = rows.map((r) => r.weights.reduce((a, b) => a + b));
    places.forEach((i) => places.forEach((j) => {
      const value = rows[i][shown.value][j], cell = cells[i][j];
      const wrong = Number.isNaN(value) || (!mask[i][j] && value !== 0);
      cell.textContent = tools.number(value);
      cell.dataset.playValue = `cell_${i}_${j}`;
      cell.classList.toggle("play-bad", wrong);
      cell.style.background = wrong ? "none" : tools.shade(shown.value === "weights" ? "query" : "value", 2 * Math.abs(value));
      cell.style.borderStyle = mask[i][j] ? "solid" : "dashed";
      cell.setAttribute("aria-pressed", mask[i][j]);
      cell.setAttribute("aria-label", `${name(i, j)}: ${mask[i][j] ? "allowed" : "forbidden"}, ${cell.textContent}`);
    }));
    const list = tools.html(tools.stage, "p", {}, "Row sums: ");
    sums.forEach((sum, i) => {
      const empty = !mask[i].some(Boolean), right = Math.abs(sum - (empty ? 0 : 1)) < 1e-6;
      tools.html(list, "span", { class: right ? "" : "play-bad" }, `${tokens[i]} ${tools.number(sum)}${i < 5 ? ", " : ""}`);
    });
    const leak = rows.flatMap((r, i) => r.weights.filter((w, j) => !mask[i][j] && !Number.isNaN(w))).reduce((a, b) => a + b, 0);
    tools.say(
      "{whole} of {all} rows sum to one. Forbidden keys hold a weight of {leak} in all. NaN: {nan} of the weights, {lost} of the gradients.",
      {
        whole: sums.filter((sum) => Math.abs(sum - 1) < 1e-6).length, all: tokens.length,
        leak: tools.number(leak),
        nan: count(["weights", Number.isNaN]), lost: count(["gradient", Number.isNaN]),
      });
  };
});
