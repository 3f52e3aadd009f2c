/* Day 8: a ball in a bowl, pushed by noisy gradients. How deep does it lie at a rate that stays, and at one that falls? */
"use strict";
play.widget("ball", (figure, start, tools) => {
  const { noise, place } = start, steps = noise.length;
  const rate = tools.slider("Learning rate", { min: 0.05, max: 1.95, step: 0.05, value: 0.8, show: (x) => tools.number(x) });
  const strength = tools.slider("Noise of the gradients", { min: 0, max: 2, step: 0.25, value: 1, show: (x) => tools.number(x) });
  const falls = tools.checkbox("The rate falls to zero", false);

  return (width) => {
    let at = place;
    const path = [[0, at]], loss = (x) => (x * x) / 2;
    noise.forEach((push, step) => {
      const now = rate.valueAsNumber * (falls.checked ? 1 - step / steps : 1);
      at -= now * (at + strength.valueAsNumber * push); // the slope of x²/2 is x
      path.push([step + 1, at]);
    });
    const end = path.slice(-50).map(([, x]) => loss(x)), mean = end.reduce((a, b) => a + b, 0) / end.length;
    const floor = (rate.valueAsNumber * strength.valueAsNumber ** 2) / (2 * (2 - rate.valueAsNumber));
    const drawing = tools.drawing(width, 210, "the ball's place after each step");
    const across = tools.scale([0, steps], [36, width - 12]), up = tools.scale([-5, 5], [160, 30]);
    tools.axis(drawing, across, { y: 160, count: width < 500 ? 4 : 8, label: "step" });
    tools.axis(drawing, up, { x: 36, count: 4, label: "place (the bowl's lowest point is 0)" });
    tools.svg(drawing, "path", { d: tools.path([[0, 0], [steps, 0]].map(([x, y]) => [across(x), up(y)])), style: "stroke: var(--play-neutral)", "stroke-dasharray": "4 3" });
    const inside = path.map(([x, y]) => [across(x), up(Math.max(-5, Math.min(5, y)))]);
    tools.svg(drawing, "path", { d: tools.path(inside), style: "fill: none; stroke: var(--play-query); stroke-width: 1.5" });
    tools.say("Mean loss of the last fifty steps: {mean}. The floor of a rate that stays is {floor}. The ball ends at {end}.", {
      mean: tools.number(mean, 3), floor: tools.number(floor, 3), end: tools.number(at, 3),
    });
  };
});
