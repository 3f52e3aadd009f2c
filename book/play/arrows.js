/* Day 5: two logits and a label. The loss, and which way the gradient pushes each logit. */
"use strict";
play.widget("arrows", (figure, start, tools) => {
  const classes = ["negative", "positive"];
  const move = { min: -6, max: 6, step: 0.1, show: (x) => tools.number(x, 1) };
  const logits = classes.map((name, i) => tools.slider(`Logit of ${name}`, { ...move, value: start.logits[i] }));
  const label = tools.select("The label is", { 0: classes[0], 1: classes[1] }, String(start.label));
  const rate = tools.slider("Learning rate", { min: 0.5, max: 4, step: 0.5, value: 1, show: (x) => tools.number(x, 1) });
  let gradient = [0, 0];
  tools.button("One step downhill", () => {
    const moves = gradient.map((g) => rate.valueAsNumber * g); // before the first slider moves and the gradient with it
    logits.forEach((node, i) => { node.value = node.valueAsNumber - moves[i]; node.dispatchEvent(new Event("input")); });
  });

  return (width) => {
    const z = logits.map((node) => node.valueAsNumber), y = Number(label.value), most = Math.max(...z);
    const e = z.map((x) => Math.exp(x - most)), p = e.map((x) => x / (e[0] + e[1]));
    const loss = Math.log(e[0] + e[1]) - (z[y] - most);
    gradient = p.map((x, i) => x - (i === y ? 1 : 0));
    const drawing = tools.drawing(width, 150, "logits as bars, and an arrow for each downhill step");
    const along = tools.scale([-6.5, 6.5], [84, width - 8]);
    classes.forEach((name, i) => {
      const y0 = 14 + 48 * i, tip = along(Math.max(-6.5, Math.min(6.5, z[i] - gradient[i])));
      tools.svg(drawing, "text", { x: 76, y: y0 + 18, "text-anchor": "end", "font-weight": i === y ? "bold" : "normal" }, name);
      tools.svg(drawing, "rect", {
        x: Math.min(along(0), along(z[i])), y: y0, width: Math.abs(along(z[i]) - along(0)), height: 26, style: `fill: ${tools.shade("query", p[i])}`,
        stroke: "var(--play-query)",
      });
      const side = Math.sign(tip - along(z[i]));
      tools.svg(drawing, "path", {
        d: `M${along(z[i])},${y0 + 34}H${tip}m${-5 * side},-4l${5 * side},4l${-5 * side},4`,
        style: "fill: none; stroke: var(--play-bad); stroke-width: 2",
      });
    });
    tools.axis(drawing, along, { y: 108, count: 6, label: "logit; arrows: one step at rate 1" });
    const number = (x) => tools.number(x, 3);
    tools.say("“{label}” gets probability {p}, so the loss is {loss}. Its gradient: {g0} at negative, {g1} at positive; together {sum}.", {
      label: classes[y], p: number(p[y]), loss: number(loss), g0: number(gradient[0]), g1: number(gradient[1]),
      sum: number(gradient[0] + gradient[1]),
    });
  };
});
