/* Day 4: two texts of different length as a batch. What is [UNK], what is padding, and what does a mask hold back? */
"use strict";
play.widget("padding", (figure, start, tools) => {
  const ids = new Map(start.vocabulary.map((token, i) => [token, i])), { longest } = start;
  const texts = start.texts.map((text, i) => tools.text(`Text ${i + 1}`, text));
  const masked = tools.checkbox("With the mask", true);
  const show = tools.select("The cells show", { tokens: "tokens", ids: "ids", mask: "the mask", weights: "the weights of one query" }, "tokens");

  return () => {
    const rows = texts.map((node) => {
      const words = node.value.toLowerCase().match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) || [];
      return ["[CLS]", ...words.slice(0, longest - 2).map((word) => (ids.has(word) ? word : "[UNK]")), "[SEP]"];
    });
    const wide = Math.max(...rows.map((row) => row.length)), unknown = rows.flat().filter((token) => token === "[UNK]").length;
    let leak = 0;
    rows.forEach((row, i) => {
      const line = tools.html(tools.stage, "p", { style: "line-height: 2" }, `Text ${i + 1}: `), real = row.length;
      for (let j = 0; j < wide; j++) {
        const token = j < real ? row[j] : "[PAD]", weight = masked.checked ? (j < real ? 1 / real : 0) : 1 / wide;
        if (j >= real) leak += weight / rows.length;
        const wrong = j >= real && weight > 0 && show.value === "weights";
        const text = { tokens: token, ids: String(ids.get(token)), mask: j < real ? "True" : "False", weights: tools.number(weight) }[show.value];
        tools.html(line, "span", {
          class: wrong ? "play-bad" : "", "data-play-value": `cell_${i}_${j}`,
          style: `display: inline-block; padding: 0 0.35em; margin: 0 0.15em; border: 1px ${j < real ? "solid" : "dashed"} var(--play-neutral); ` + (wrong ? "" : `background: ${tools.shade(token === "[UNK]" ? "bad" : "query", j < real ? 0.3 : 0)}`),
        }, text);
      }
    });
    tools.say("The batch has shape [2, {wide}], {padding} of its places are padding, {unknown} tokens are [UNK]. A query that likes all keys alike gives padding {leak} of its weight.", {
      wide, padding: rows.reduce((sum, row) => sum + wide - row.length, 0), unknown, leak: tools.number(leak),
    });
  };
});
