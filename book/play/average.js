/* Day 9: an average of the weights. How much of the beginning is left, and how much of the noise? */
"use strict";
play.widget("average", (figure, start, tools) => {
  const { path } = start;
  const share = tools.slider("The average reaches back 1/(1 − β) steps, here", { min: 1, max: 1000, value: 500 });
  const steps = tools.slider("Steps of the run", { min: 10, max: path.length - 1, step: 10, value: 300 });

  return (width) => {
    const beta = 1 - 1 / share.valueAsNumber, n = steps.valueAsNumber;
    let mean = path[0];
    const averaged = [[0, mean]];
    for (let step = 1; step <= n; step++) { mean = beta * mean + (1 - beta) * path[step]; averaged.push([step, mean]); }
    const drawing = tools.drawing(width, 210, "a weight that wanders, and its average");
    const all = path.slice(0, n + 1), across = tools.scale([0, n], [40, width - 12]);
    const up = tools.scale([Math.min(...all) - 0.2, Math.max(...all) + 0.2], [160, 14]);
    tools.axis(drawing, across, { y: 160, count: width < 500 ? 4 : 8, label: "step" });
    tools.axis(drawing, up, { x: 40, count: 4, label: "weight" });
    tools.svg(drawing, "path", { d: tools.path(all.map((y, x) => [across(x), up(y)])), style: "fill: none; stroke: var(--play-neutral)" });
    tools.svg(drawing, "path", { d: tools.path(averaged.map(([x, y]) => [across(x), up(y)])), style: "fill: none; stroke: var(--play-bad); stroke-width: 3" });
    tools.say("β is {beta}. After {steps} steps {left} % of the average is still the start. It stands at {mean}, the weight itself at {weight}.", {
      beta: tools.number(beta, 4), steps: n, left: tools.number(100 * beta ** n, 1), mean: tools.number(mean, 3), weight: tools.number(path[n], 3),
    });
  };
});
