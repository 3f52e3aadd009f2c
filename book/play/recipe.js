/* Day 12: the recipe as a machine. Run it, kill it, change a setting, peek: which files are there, and how often was the test split read? */
"use strict";
play.widget("recipe", (figure, start, tools) => {
  const { seeds, stages, accuracies } = start, done = {}, rates = {}, tested = {};
  let rate = 0, said = "Nothing has run yet.";
  const finished = () => stages.filter((stage) => done[stage] === "finished");
  const readings = () => seeds.filter((seed) => tested[seed]).length;
  const best = seeds.reduce((a, b) => (accuracies[b] > accuracies[a] ? b : a));

  function run(until) {
    for (const stage of ["encoder", ...seeds]) {
      if (seeds.includes(stage) && stage in rates && rates[stage] !== rate) {
        said = `Refused: ${stage} belongs to a run with another learning rate. What was finished stands.`;
        return;
      }
      if (done[stage] === "finished") continue;
      rates[stage] = rate;
      if (stage === until && !done[stage]) {
        done[stage] = "checkpoint";
        said = `Killed in ${stage}: what was finished stands, ${stage} has a checkpoint.`;
        return;
      }
      done[stage] = "finished";
    }
    const other = seeds.find((seed) => seed !== best && tested[seed]);
    if (other) {
      said = `Refused: the test split has been read with ${other}, and ${best} is best on validation. A second reading would choose by the test.`;
      return;
    }
    tested[best] = true;
    done.test = done.model = "finished";
    said = `Finished: ${best} is best on validation, and it alone was read on the test split.`;
  }
  const kill = tools.select("Kill it in", Object.fromEntries(["encoder", ...seeds].map((stage) => [stage, stage])), stages[2]);
  tools.button("Run, and kill it there", () => run(kill.value));
  tools.button("Go on to the end", () => run(null));
  tools.button("Change the learning rate", () => { rate = 1 - rate; said = rate ? "The config names another learning rate now." : "The config is as it was."; });
  tools.button("Peek at the test split with every finished seed", () => {
    const unread = seeds.filter((seed) => done[seed] === "finished" && !tested[seed]);
    unread.forEach((seed) => { tested[seed] = true; });
    said = unread.length ? `Every run says “once”; the split was read ${readings()} times in all.` : "There is nothing left to peek at.";
  });

  return (width) => {
    const step = width / stages.length, drawing = tools.drawing(width, 92, "the stages of the recipe, and what each has left in its folder");
    stages.forEach((stage, i) => {
      const state = done[stage] || "nothing", color = { finished: "value", checkpoint: "key", nothing: "neutral" }[state];
      tools.svg(drawing, "rect", {
        x: i * step + 3, y: 12, width: step - 6, height: 44, rx: 5, stroke: `var(--play-${color})`,
        style: `fill: ${tools.shade(color, state === "nothing" ? 0 : 0.5)}`, "stroke-dasharray": state === "checkpoint" ? "5 3" : null,
      });
      tools.svg(drawing, "text", { x: (i + 0.5) * step, y: 38, "text-anchor": "middle", "font-size": step < 60 ? 10 : 13 }, stage);
      tools.svg(drawing, "text", { x: (i + 0.5) * step, y: 76, "text-anchor": "middle", "font-size": step < 60 ? 9 : 12 }, state);
    });
    tools.say("{said} Stages finished: {finished} of {all}. Readings of the test split, over all candidates: {readings}.", {
      said, finished: finished().length, all: stages.length, readings: readings(),
    });
  };
});
