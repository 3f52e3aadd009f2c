/* Day 10: one temperature for all answers. What does it do to accuracy, loss and calibration? */
"use strict";
play.widget("temperature", (figure, start, tools) => {
  const { logits, correct } = start; // of each answer the logit of what it said, and whether that was right
  const heat = tools.slider("Temperature", { min: 0.3, max: 4, step: 0.1, value: 1, show: (x) => tools.number(x, 1) });
  const bins = tools.slider("Bins", { min: 1, max: 20, value: 10 });

  return (width) => {
    const sure = logits.map((z) => 1 / (1 + Math.exp(-z / heat.valueAsNumber))), n = bins.valueAsNumber;
    const groups = [...Array(n)].map(() => ({ n: 0, sure: 0, right: 0 }));
    let loss = 0, right = 0;
    sure.forEach((p, i) => {
      const group = groups[Math.min(n - 1, Math.floor((p - 0.5) * 2 * n))];
      group.n += 1; group.sure += p; group.right += correct[i];
      right += correct[i];
      loss -= Math.log(correct[i] ? p : 1 - p);
    });
    const full = groups.filter((group) => group.n), all = sure.length;
    const error = full.reduce((sum, group) => sum + Math.abs(group.right - group.sure) / all, 0);
    const side = Math.min(width, 420), drawing = tools.drawing(side, 250, "accuracy against confidence; on the line a model is as often right as it believes");
    const across = tools.scale([0.5, 1], [44, side - 14]), up = tools.scale([0, 1], [200, 30]);
    tools.axis(drawing, across, { y: 200, count: 5, label: "confidence" });
    tools.axis(drawing, up, { x: 44, count: 4, label: "accuracy" });
    tools.svg(drawing, "path", { d: tools.path([[0.5, 0.5], [1, 1]].map(([x, y]) => [across(x), up(y)])), style: "stroke: var(--play-neutral)" });
    full.forEach((group) => tools.svg(drawing, "circle", {
      cx: across(group.sure / group.n), cy: up(group.right / group.n), r: 3 + 12 * Math.sqrt(group.n / all),
      style: "fill: var(--play-query-fill); fill-opacity: 0.6; stroke: var(--play-query)",
    }));
    ["above the line: too shy", "below the line: too sure"].forEach((word, i) =>
      tools.svg(drawing, "text", { x: side - 14, y: 172 + 18 * i, "text-anchor": "end" }, word));
    tools.say("Calibration error {error} points, loss {loss}, mean confidence {mean}\u00a0%. Accuracy: {accuracy}\u00a0%, whatever the temperature.", {
      error: tools.number(100 * error, 1), loss: tools.number(loss / all, 3), mean: tools.number((100 * sure.reduce((a, b) => a + b)) / all, 1),
      accuracy: tools.number((100 * right) / all, 1),
    });
  };
});
