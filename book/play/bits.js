/* Day 6: a number's bits in three formats, and a scale that saves gradients from falling to zero. */
"use strict";
play.widget("bits", (figure, start, tools) => {
  const formats = { fp32: [8, 23], fp16: [5, 10], bf16: [8, 7] };
  const typed = tools.field("A number", start.number, { step: "any" });
  const scale = tools.slider("The loss is multiplied by 2 to the", { min: 0, max: 30, value: 0 });

  /** The nearest number that a format with so many bits of exponent and mantissa holds; ties to even. */
  function round(x, [e, m]) {
    if (x === 0 || !Number.isFinite(x)) return x;
    const bias = 2 ** (e - 1) - 1, power = Math.max(Math.floor(Math.log2(Math.abs(x))), 1 - bias), unit = 2 ** (power - m);
    const n = x / unit, low = Math.floor(n), rest = n - low;
    const whole = rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
    return Math.abs(whole * unit) >= 2 ** (bias + 1) ? Math.sign(x) * Infinity : whole * unit;
  }
  function pattern(x, [e, m]) {
    const bias = 2 ** (e - 1) - 1, size = Math.abs(x), sign = x < 0 || Object.is(x, -0) ? "1" : "0";
    if (size === Infinity) return [sign, "1".repeat(e), "0".repeat(m)];
    const small = size < 2 ** (1 - bias), power = small ? 1 - bias : Math.floor(Math.log2(size));
    const mantissa = size === 0 ? 0 : Math.round(size / 2 ** (power - m)) - (small ? 0 : 2 ** m);
    return [sign, (small ? 0 : power + bias).toString(2).padStart(e, "0"), mantissa.toString(2).padStart(m, "0")];
  }

  return (width) => {
    const x = Number.isFinite(typed.valueAsNumber) ? typed.valueAsNumber : 0, said = {};
    const parts = (line, words) => words.forEach((word, i) => tools.html(line, "code", {
      style: `color: var(--play-${["bad", "key", "query"][i]}); background: none; border: none`, // as in the chapter's figure
    }, word + " "));
    parts(tools.html(tools.stage, "p", {}, "Bits of the number: "), ["sign", "exponent", "fraction"]);
    for (const [name, format] of Object.entries(formats)) {
      const kept = round(x, format), line = tools.html(tools.stage, "p", { style: "overflow-wrap: anywhere" });
      tools.html(line, "strong", {}, `${name} `);
      parts(line, pattern(kept, format));
      said[name] = kept === 0 ? "0" : Number.isFinite(kept) ? String(Number(kept.toPrecision(9))) : tools.number(kept);
    }
    const grow = 2 ** scale.valueAsNumber, all = start.gradients.map(([power, count]) => [power + scale.valueAsNumber, count]);
    const total = all.reduce((sum, [, n]) => sum + n, 0), share = (test) => (100 * all.reduce((sum, [p, n]) => sum + (test(p) ? n : 0), 0)) / total;
    const lost = share((p) => p < -25), over = share((p) => p >= 16), drawing = tools.drawing(width, 170, "sizes of gradients as powers of two, and where fp16 ends");
    const across = tools.scale([-48, 24], [30, width - 12]), up = tools.scale([0, Math.max(...all.map(([, n]) => n))], [128, 30]);
    all.forEach(([p, n]) => tools.svg(drawing, "rect", {
      x: across(p), y: up(n), width: Math.max(1, across(1) - across(0) - 1), height: 128 - up(n),
      style: `fill: var(--play-${p < -25 || p >= 16 ? "bad" : "query"})`,
    }));
    for (const [at, word] of [[-25, "← 0 in fp16"], [16, "∞ →"]]) {
      tools.svg(drawing, "line", { x1: across(at), x2: across(at), y1: 8, y2: 128, style: "stroke: var(--play-neutral)", "stroke-dasharray": "4 3" });
      tools.svg(drawing, "text", { x: across(at) + (at < 0 ? 4 : -4), y: 18, "text-anchor": at < 0 ? "start" : "end" }, word);
    }
    tools.axis(drawing, across, { y: 128, count: width < 500 ? 4 : 8, label: "power of two of a gradient's size" });
    tools.say("fp32 keeps {fp32}, fp16 {fp16}, bf16 {bf16}. Multiplied by {grow}, {lost}\u00a0% of the gradients fall to zero in fp16, {over}\u00a0% become infinite.", {
      ...said, grow: tools.number(grow, 0), lost: tools.number(lost, 3), over: tools.number(over, 3),
    });
  };
});
