/* Day 11: one query, three keys. Where do the arrows of the scores' gradient die? */
"use strict";
play.widget("two-keys", (figure, start, tools) => {
  const { scores, values, target } = start, places = scores.map((_, i) => i);
  const move = { min: -6, max: 6, step: 0.5, show: (x) => tools.number(x, 1) };
  const s = places.map((i) => tools.slider(`Score of key ${i + 1}`, { ...move, value: scores[i] }));
  const v = places.map((i) => tools.slider(`Value of key ${i + 1}`, { ...move, value: values[i] }));
  const wanted = tools.slider("The output should be", { ...move, value: target });

  return (width) => {
    const z = s.map((node) => node.valueAsNumber), value = v.map((node) => node.valueAsNumber), most = Math.max(...z);
    const e = z.map((x) => Math.exp(x - most)), total = e.reduce((a, b) => a + b), a = e.map((x) => x / total);
    const out = a.reduce((sum, x, i) => sum + x * value[i], 0), up = out - wanted.valueAsNumber;
    const da = value.map((x) => up * x), mean = a.reduce((sum, x, i) => sum + x * da[i], 0);
    const ds = a.map((x, i) => x * (da[i] - mean));
    const drawing = tools.drawing(width, 190, "weights as bars; arrows show where each score should go");
    const high = tools.scale([0, 1], [150, 20]), step = (width - 60) / places.length;
    tools.axis(drawing, high, { x: 40, count: 4, label: "weight" });
    places.forEach((i) => {
      const x = 56 + i * step, wide = Math.min(70, step - 44), tip = Math.max(-60, Math.min(60, 60 * ds[i]));
      tools.svg(drawing, "rect", { x, y: high(a[i]), width: wide, height: 150 - high(a[i]), style: "fill: var(--play-weight-fill)" });
      tools.svg(drawing, "text", { x: x + wide / 2, y: 168, "text-anchor": "middle" }, `key ${i + 1}`);
      tools.svg(drawing, "text", { x: x + wide / 2, y: 184, "text-anchor": "middle" }, tools.number(a[i]));
      const side = Math.sign(tip) || 1, from = 85;
      tools.svg(drawing, "path", {
        d: `M${x + wide + 16},${from}V${from + tip}m-5,${-5 * side}l5,${5 * side}l5,${-5 * side}`,
        style: `fill: none; stroke: var(--play-bad); stroke-width: ${Math.abs(ds[i]) < 0.01 ? 1 : 3}`,
      });
    });
    const number = (x) => tools.number(x, 3);
    tools.say("Output {out}, wanted {target}. Gradient of the scores: {ds1}, {ds2}, {ds3}; longest {longest}. Gradient of the weights, averaged by the weights: {mean}.", {
      out: number(out), target: number(wanted.valueAsNumber), ds1: number(ds[0]), ds2: number(ds[1]), ds3: number(ds[2]),
      longest: number(Math.max(...ds.map(Math.abs))), mean: number(mean),
    });
  };
});
