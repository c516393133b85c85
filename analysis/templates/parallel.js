// One line for each trial through its factors to its last loss; one path for each arm and style.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000, HEIGHT = 330, TOP = 34, BOTTOM = 14, LEFT = 130, RIGHT = 60;
const MAX_TICKS = 10;
const DODGE = 8; // arms that run through the same levels run beside each other, not over each other

function svgElement(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Where each row lies between 0 (bottom) and 1 on an axis; null where it has no value there.
function makeAxis(axis, rows) {
  const value = (row) => (axis.numeric ? row.keys[axis.column] : row.cells[axis.column]);
  const label = (row) => row.cells[axis.column];
  const known = rows.filter((row) => value(row) !== null);
  const levels = new Map(known.map((row) => [value(row), label(row)]));
  const sorted = [...levels.keys()];
  if (axis.numeric) sorted.sort((a, b) => a - b);
  if (!axis.outcome && (!axis.numeric || levels.size <= MAX_TICKS)) {
    const at = new Map(sorted.map((level, i) => [level, sorted.length > 1 ? i / (sorted.length - 1) : 0.5]));
    const step = Math.ceil(sorted.length / MAX_TICKS);
    const ticks = sorted.filter((_, i) => i % step === 0).map((level) => [at.get(level), levels.get(level)]);
    return { place: (row) => (value(row) === null ? null : at.get(value(row))), ticks };
  }
  const low = sorted[0], high = Math.max(sorted[sorted.length - 1], low + 1e-12);
  const scale = low > 0 && high / low > 20 ? Math.log : (x) => x;
  const share = (x) => (scale(x) - scale(low)) / (scale(high) - scale(low));
  const nearest = (part) => sorted.reduce((a, b) => (Math.abs(share(b) - part) < Math.abs(share(a) - part) ? b : a));
  const marked = new Set([0, 0.25, 0.5, 0.75, 1].map(nearest));
  const ticks = [...marked].map((level) => [share(level), levels.get(level)]);
  return { place: (row) => (value(row) === null ? null : share(value(row))), ticks };
}

function drawParallel(explorer) {
  const figure = explorer.root.querySelector(".parallel");
  const { axes, colors } = explorer.data;
  if (axes.length < 2) return;
  figure.hidden = false;
  const drawing = figure.querySelector("svg");
  drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const made = axes.map((axis) => makeAxis(axis, explorer.rows));
  const x = (i) => LEFT + (i * (WIDTH - LEFT - RIGHT)) / (axes.length - 1);
  const y = (share) => HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  const arms = [...new Set(explorer.rows.map((row) => row.arm))];
  const aside = (arm) => DODGE * (arms.indexOf(arm) / Math.max(1, arms.length - 1) - 0.5);
  const lines = svgElement("g", { fill: "none" });
  const frame = svgElement("g", {});
  axes.forEach((axis, i) => {
    frame.append(svgElement("line", { class: "axis", x1: x(i), x2: x(i), y1: y(0), y2: y(1) }));
    frame.append(svgElement("text", { class: "title", x: x(i), y: 16, "text-anchor": "middle" }, axis.label));
    for (const [share, text] of made[i].ticks) {
      const shown = text.length > 16 ? `${text.slice(0, 15)}…` : text;
      const tick = svgElement("text", { class: "tick", x: x(i) - 7, y: y(share) + 4, "text-anchor": "end" }, shown);
      if (axis.label === "Arm" && colors[text]) tick.style.fill = colors[text];
      frame.append(tick);
    }
  });
  drawing.replaceChildren(lines, frame);
  const update = (rows) => {
    const paths = new Map();
    for (const row of rows) {
      const points = made
        .map((axis, i) => [x(i), axis.place(row), axes[i].outcome ? 0 : aside(row.arm)])
        .filter(([, share]) => share !== null);
      const isWhole = row.status === "finished" && points.length === made.length;
      const key = JSON.stringify([row.arm, isWhole]);
      const path = points
        .map(([at, share, off], i) => `${i ? "L" : "M"}${at.toFixed(0)} ${(y(share) + off).toFixed(1)}`)
        .join("");
      paths.set(key, (paths.get(key) || "") + path);
    }
    lines.replaceChildren(...[...paths].map(([key, d]) => {
      const [arm, isWhole] = JSON.parse(key);
      const path = svgElement("path", { d, class: isWhole ? "whole" : "broken" });
      path.style.stroke = colors[arm] || "var(--ink)";
      return path;
    }));
    drawing.classList.toggle("dense", rows.length > 300);
    drawing.setAttribute("aria-label", say("parallel_text", { shown: rows.length }));
  };
  explorer.listeners.push(update);
  update(explorer.chosen);
}
