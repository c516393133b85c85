// A table that is sorted and filtered here: its rows come as JSON, and a part of them is drawn.
const texts = JSON.parse(document.getElementById("texts").textContent);
const say = (key, values) => texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const FIRST_ROWS = 30;
const MORE_ROWS = 200;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function addCopyButton(line) {
  const code = line.firstElementChild;
  const button = element("button", { type: "button" }, say("copy"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = say("copied");
    } catch { getSelection().selectAllChildren(code); }
  });
  line.append(button);
}

class Explorer {
  constructor(root) {
    const data = JSON.parse(root.querySelector("script").textContent);
    this.root = root;
    this.columns = data.columns;
    this.data = data;
    this.rows = data.rows.map(([arm, status, cells, keys, command], place) => ({
      arm, status, cells, keys, command, place, text: cells.join(" ").toLowerCase(),
    }));
    this.table = root.querySelector("table");
    this.form = root.querySelector("form");
    this.sort = null;
    this.listeners = [];
    this.makeHeadings();
    this.fillChoices();
    this.form.addEventListener("input", () => this.update());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => { this.sort = null; this.update(); }));
    this.more = root.querySelector("[data-more]");
    this.every = root.querySelector("[data-every]");
    this.more.addEventListener("click", () => this.show(this.limit + MORE_ROWS));
    this.every.addEventListener("click", () => this.show(Infinity));
    this.update();
  }

  makeHeadings() {
    this.headings = this.columns.map((column, place) => {
      const button = element("button", { type: "button", title: say("sort", { column: column.label }) }, column.label);
      button.addEventListener("click", () => this.sortBy(place));
      const heading = element("th", { scope: "col", className: column.numeric ? "number" : "" }, button);
      return heading;
    });
    this.table.tHead.append(element("tr", {}, ...this.headings));
  }

  fillChoices() {
    for (const name of ["arm", "status"]) {
      const levels = [...new Set(this.rows.map((row) => row[name]))];
      this.form.elements[name].append(...levels.map((level) => new Option(level, level)));
      this.form.elements[name].parentElement.hidden = levels.length < 2;
    }
    const isStopped = this.rows.some((row) => row.status === "stopped");
    this.form.elements.hide_stopped.parentElement.hidden = !isStopped;
  }

  sortBy(place) {
    const again = this.sort && this.sort.place === place;
    this.sort = { place, direction: again ? -this.sort.direction : 1 };
    this.update();
  }

  update() {
    const { query, arm, status, hide_stopped: hide } = this.form.elements;
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.chosen = this.rows.filter((row) =>
      (!arm.value || row.arm === arm.value) &&
      (!status.value || row.status === status.value) &&
      !(hide.checked && row.status === "stopped") &&
      words.every((word) => row.text.includes(word)));
    if (this.sort) this.order(this.sort.place, this.sort.direction);
    this.headings.forEach((heading, place) => {
      if (!this.sort || this.sort.place !== place) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", this.sort.direction > 0 ? "ascending" : "descending");
    });
    this.show(FIRST_ROWS);
    this.listeners.forEach((listener) => listener(this.chosen));
  }

  // What has no number stays at the end whichever way the others are sorted.
  order(place, direction) {
    const numeric = this.columns[place].numeric;
    const key = (row) => (numeric ? row.keys[place] : row.cells[place]);
    const compare = (a, b) =>
      typeof a === "number" && typeof b === "number" ? a - b
        : String(a).localeCompare(String(b), undefined, { numeric: true });
    this.chosen.sort((one, two) => {
      const a = key(one), b = key(two);
      if (a === null || b === null) return (a === null) - (b === null) || one.place - two.place;
      return direction * compare(a, b) || one.place - two.place;
    });
  }

  show(limit) {
    this.limit = limit;
    const shown = this.chosen.slice(0, limit);
    this.table.tBodies[0].replaceChildren(...shown.map((row) => this.makeRow(row)));
    const left = this.chosen.length - shown.length;
    this.more.hidden = left <= 0;
    this.every.hidden = left <= MORE_ROWS;
    this.more.textContent = say("more", { count: Math.min(left, MORE_ROWS) });
    const counts = { shown: shown.length, chosen: this.chosen.length, total: this.rows.length };
    this.form.querySelector("output").textContent = say(left > 0 ? "first" : "shown", counts);
  }

  makeRow(row) {
    const cells = row.cells.map((text, place) => {
      const className = this.columns[place].numeric ? "number" : text.length > 32 ? "words" : "";
      const isLast = place === row.cells.length - 1;
      return element("td", { className }, isLast && row.command ? this.makeOpener(row, text) : text);
    });
    return element("tr", { className: row.status === "stopped" ? "stopped" : "" }, ...cells);
  }

  makeOpener(row, text) {
    const button = element("button", { type: "button", className: "opener", title: say("command") }, text);
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => {
      const line = button.closest("tr");
      const isOpen = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!isOpen));
      if (isOpen) line.nextElementSibling.remove();
      else line.after(this.makeDetail(row));
    });
    return button;
  }

  makeDetail(row) {
    const line = element("pre", { className: "command" }, element("code", {}, row.command));
    addCopyButton(line);
    return element("tr", { className: "detail" }, element("td", { colSpan: this.columns.length }, line));
  }
}
