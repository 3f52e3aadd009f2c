/* Day 3: positions as clocks. Move query and key: what does their dot product depend on? */
"use strict";
play.widget("clock", (figure, start, tools) => {
  const { last } = start, places = [...Array(2 * last + 1).keys()].map((i) => i - last);
  const query = tools.slider("Position of the query", { min: 0, max: last, value: start.query });
  const key = tools.slider("Position of the key", { min: 0, max: last, value: start.key });
  const hands = tools.slider("Pairs of sine and cosine", { min: 1, max: 8, value: start.pairs });
  tools.button("Both one token further", () => {
    if (Math.max(query.valueAsNumber, key.valueAsNumber) >= last) return;
    for (const node of [query, key]) { node.value = node.valueAsNumber + 1; node.dispatchEvent(new Event("input")); }
  });

  return (width) => {
    const q = query.valueAsNumber, k = key.valueAsNumber, pairs = hands.valueAsNumber;
    const speeds = [...Array(pairs).keys()].map((i) => 10000 ** (-i / pairs));
    const product = (distance) => speeds.reduce((sum, speed) => sum + Math.cos(speed * distance), 0);
    const size = Math.min(72, width / pairs), drawing = tools.drawing(width, size + 190, "clocks with a hand for query and key, and the dot product by distance");
    speeds.forEach((speed, i) => {
      const x = (i + 0.5) * size, y = size / 2 + 2, r = size / 2 - 6;
      tools.svg(drawing, "circle", { cx: x, cy: y, r, style: "fill: none; stroke: var(--play-neutral)" });
      for (const [at, color, wide] of [[q, "query", 3], [k, "key", 2]])
        tools.svg(drawing, "line", {
          x1: x, y1: y, x2: x + r * Math.cos(speed * at), y2: y - r * Math.sin(speed * at),
          style: `stroke: var(--play-${color}); stroke-width: ${wide}`, "stroke-dasharray": color === "key" ? "4 3" : null,
        });
    });
    const across = tools.scale([-last, last], [46, width - 12]), up = tools.scale([-pairs, pairs], [size + 150, size + 34]);
    tools.axis(drawing, across, { y: size + 150, count: width < 500 ? 4 : 10, label: "position of the query less that of the key" });
    tools.axis(drawing, up, { x: 46, count: 4, label: "dot product" });
    tools.svg(drawing, "path", { d: tools.path(places.map((d) => [across(d), up(product(d))])), style: "fill: none; stroke: var(--play-neutral)" });
    tools.svg(drawing, "circle", { cx: across(q - k), cy: up(product(q - k)), r: 6, style: "fill: var(--play-weight)" });
    tools.say("Query at {query}, key at {key}: {distance} apart, dot product {score} of at most {most}.", {
      query: q, key: k, distance: tools.number(q - k, 0), score: tools.number(product(q - k), 3), most: pairs,
    });
  };
});
