/* Day 7: eight variants that are all equal, searched again and again. How lucky is the winner? */
"use strict";
play.widget("again", (figure, start, tools) => {
  const { truth, searches, variants, seeds } = start; // searches[s][variant][seed]: measured accuracies in per cent
  let done = 1;
  const used = tools.slider("Variants that are compared", { min: 1, max: variants, value: variants });
  const runs = tools.slider("Seeds of each", { min: 1, max: seeds, value: seeds });
  tools.button("Search again", () => { done = Math.min(searches.length, done + 1); });
  tools.button("Twenty searches more", () => { done = Math.min(searches.length, done + 20); });

  return (width) => {
    const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
    const found = searches.slice(0, done).map((search) => search.slice(0, used.valueAsNumber).map((v) => mean(v.slice(0, runs.valueAsNumber))));
    const winners = found.map((search) => Math.max(...search)), last = found[found.length - 1], best = last.indexOf(Math.max(...last));
    const drawing = tools.drawing(width, 200, "the means of the last search, and the winners of all searches");
    const across = tools.scale([truth - 4, truth + 4], [16, width - 16]);
    tools.svg(drawing, "line", { x1: across(truth), x2: across(truth), y1: 8, y2: 150, style: "stroke: var(--play-neutral)", "stroke-dasharray": "4 3" });
    tools.svg(drawing, "text", { x: across(truth) + 5, y: 16 }, "all are as good as this");
    last.forEach((value, i) => tools.svg(drawing, "circle", {
      cx: across(value), cy: 42, r: i === best ? 7 : 5, style: `fill: ${i === best ? "var(--play-bad)" : "none"}; stroke: var(--play-query); stroke-width: 2`,
    }));
    const bins = new Map();
    winners.forEach((value) => { const b = Math.round(value * 4) / 4; bins.set(b, (bins.get(b) || 0) + 1); });
    const tall = Math.min(9, 90 / Math.max(...bins.values()));
    bins.forEach((n, b) => tools.svg(drawing, "rect", { x: across(b) - 5, y: 150 - n * tall, width: 10, height: n * tall, style: "fill: var(--play-bad-fill)" }));
    tools.axis(drawing, across, { y: 150, count: 8, label: "accuracy in %" });
    tools.say("After {done} searches: the last winner, variant {best}, stands at {last} %. The winners' mean is {mean} %, which is {curse} points above the truth.", {
      done, best: best + 1, last: tools.number(last[best]), mean: tools.number(mean(winners)), curse: tools.number(mean(winners) - truth),
    });
  };
});
