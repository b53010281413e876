"use strict";
// The page is whole without this script but for the table of cases. It asks no network and builds text nodes only.
(() => {
  const element = (name, properties = {}, ...inner) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key === "data") Object.assign(made.dataset, value);
      else if (key.includes("-") || key === "role") made.setAttribute(key, value);
      else made[key] = value;
    }
    made.append(...inner.filter((one) => one !== null));
    return made;
  };
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const byId = (name) => document.getElementById(name);

  const navigation = document.querySelector("nav");
  for (const heading of all("main h2")) navigation.append(element("a", { href: `#${heading.id}` }, heading.dataset.short || heading.textContent), " ");

  const copy = (code, button) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const say = (word) => { button.textContent = word; setTimeout(() => { button.textContent = "copy"; }, 1600); };
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => say("copied"), () => say("selected"));
    else say("selected");
  };
  document.addEventListener("click", (event) => {
    if (event.target.matches(".copy")) copy(event.target.previousElementSibling, event.target);
  });

  // Numbers first and by size, then words; what has no figure comes last in both directions.
  const figure = (text) => {
    if (text === "inf" || text === "not finite") return Infinity;
    const found = /^[<−-]?\s*\d[\d,]*\.?\d*(?:e[+-]?\d+)?/.exec(text.trim());
    return found ? Number(found[0].replace(/[<,\s]/g, "").replace("−", "-")) : null;
  };
  const compare = (a, b) => {
    const x = typeof a === "number" ? a : figure(String(a)), y = typeof b === "number" ? b : figure(String(b));
    if (x !== null && y !== null) return x - y || 0;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const missing = (value) => value === null || value === "" || value === "-";
  const sorted = (rows, key, down) => rows
    .map((row, place) => [key(row), place, row])
    .sort((a, b) => {
      if (missing(a[0]) || missing(b[0])) return missing(a[0]) - missing(b[0]) || a[1] - b[1];
      return (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1];
    })
    .map((one) => one[2]);
  const heads = (cells, choose) => {
    for (const [place, cell] of cells.entries()) {
      const button = element("button", { type: "button" }, cell.textContent);
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        for (const other of cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        choose(place, down);
      });
    }
  };

  for (const table of all("table[data-sortable]")) {
    const body = table.tBodies[0], rows = [...body.rows];
    heads(all("thead th", table), (place, down) => body.append(...sorted(rows, (row) => row.cells[place].textContent, down)));
    if (rows.length < 9) continue;
    const input = element("input", { type: "search", placeholder: "filter rows", "aria-label": "filter rows" });
    table.before(element("label", { className: "small-filter" }, input));
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }

  const table = byId("cases");
  if (!table) return;
  const data = JSON.parse(byId("data").textContent), pool = data.pool;
  const cases = data.cases.map((row, place) => {
    const one = { place };
    data.fields.forEach((name, number) => { one[name] = row[number]; });
    for (const name of ["editor", "model", "stream"]) one[name] = pool[one[name]];
    one.word = data.verdicts[one.verdict];
    one.size = one.ratio === "inf" ? Infinity : one.ratio;
    one.checks = one.checks.map((number) => pool[number]);
    one.text = `${one.case} ${one.written} ${one.target} ${one.before} ${one.after} ${one.reasons.map((reason) => reason[1]).join(" ")}`.toLowerCase();
    return one;
  });
  const chip = (word) => element("span", { className: `chip v-${word.toLowerCase()}` }, `${data.glyphs[word]} ${word}`);
  const times = (value) => {
    if (value === null) return "–";
    if (value === Infinity) return "not finite";
    if (value < 9.995) return value < 0.005 ? "<0.01x" : `${value.toFixed(2)}x`;
    return value < 99999.5 ? `${value.toFixed(0)}x` : `${value.toExponential(1).replace("+", "").replace(".0e", "e")}x`;
  };
  const several = new Set(cases.map((one) => one.model)).size > 1;
  const columns = [
    ["case", (one) => one.case], ["editor", (one) => one.editor], ...(several ? [["model", (one) => one.model]] : []),
    ["stream", (one) => one.stream], ["verdict", (one) => one.verdict], ["perplexity", (one) => one.size],
    ...data.columns.map((name, place) => [name, (one) => one.figures[place]]),
    ["written", (one) => one.written], ["says now", (one) => one.after],
  ];

  const PAGE = 50;
  let shown = [], page = 0, key = null, down = false;
  const opened = new Set();

  const filters = byId("filters"), inputs = {};
  const field = (name, label, control) => {
    inputs[name] = control;
    control.name = name;
    control.setAttribute("aria-label", label);
    filters.append(element("label", {}, label, control));
    control.addEventListener("input", () => { page = 0; update(); });
  };
  const choice = (name, label, values) => {
    if (values.length < 2) { inputs[name] = { value: "" }; return; }
    const options = values.map((value) => element("option", { value }, value));
    field(name, label, element("select", {}, element("option", { value: "" }, "all"), ...options));
  };
  const values = (name) => [...new Set(cases.flatMap((one) => one[name]))];
  field("text", "text", element("input", { type: "search", placeholder: "case, prompt, answer, reason" }));
  choice("word", "verdict", data.verdicts.filter((word) => cases.some((one) => one.word === word)).reverse());
  for (const name of ["editor", "model", "stream"]) choice(name, name, values(name));
  choice("check", "fails check", values("checks").sort());
  const clear = element("button", { type: "button" }, "clear");
  clear.addEventListener("click", () => { for (const one of Object.values(inputs)) one.value = ""; page = 0; update(); });
  filters.append(clear);
  filters.addEventListener("submit", (event) => event.preventDefault());

  const wanted = (one) =>
    ["word", "editor", "model", "stream"].every((name) => !inputs[name].value || one[name] === inputs[name].value) &&
    (!inputs.check.value || one.checks.includes(inputs.check.value)) &&
    one.text.includes(inputs.text.value.toLowerCase());

  const body = element("tbody"), cells = columns.map(([name]) => element("th", { scope: "col" }, name));
  table.append(element("thead", {}, element("tr", {}, ...cells)), body);
  heads(cells, (place, downwards) => { [key, down, page] = [columns[place][1], downwards, 0]; update(); });

  const details = (one) => {
    const inside = element("td", { colSpan: columns.length });
    inside.append(element("p", { className: "written" }, element("b", {}, one.case), ` ${one.written ? `“${one.written}” → ` : ""}`, element("b", {}, one.target)));
    if (one.reasons.length) {
      inside.append(element("ul", { className: "reasons" }, ...one.reasons.map(([severity, said]) => element("li", {}, chip(data.verdicts[severity]), ` ${said}`))));
    }
    if (one.cause) inside.append(element("p", { className: "cause" }, element("b", {}, "Likely cause: "), one.cause));
    const asked = element("dl", { className: `asked v-${one.word.toLowerCase()}` });
    const questions = one.asked.length ? one.asked.map(([kind, graded, ...rest]) => [pool[kind], pool[graded], ...rest]) : [["the prompt", "", one.written, one.before, one.after]];
    for (const [kind, graded, prompt, before, after] of questions) {
      asked.append(
        element("dt", {}, `${kind} `, prompt ? element("q", {}, prompt) : null, " ", element("b", {}, graded)),
        element("dd", {}, element("del", {}, before || "–"), element("ins", {}, after || "–")),
      );
    }
    inside.append(asked);
    const command = one.replay.map((part) => pool[part]).join(one.case);
    if (command) inside.append(element("div", { className: "command" }, element("code", {}, command), element("button", { type: "button", className: "copy" }, "copy")));
    return element("tr", { className: "more", id: `more-${one.place}` }, inside);
  };

  const show = (one) => {
    const open = element("button", { type: "button", className: "open", "aria-expanded": String(opened.has(one.place)), title: one.case }, one.short);
    open.addEventListener("click", () => {
      opened.has(one.place) ? opened.delete(one.place) : opened.add(one.place);
      open.setAttribute("aria-expanded", String(opened.has(one.place)));
      const there = byId(`more-${one.place}`);
      if (there) there.remove();
      else row.after(details(one));
    });
    const short = (text) => element("span", { className: "short", title: text }, text || "–");
    const looks = { case: open, verdict: chip(one.word), perplexity: times(one.size), written: short(one.written ? `${one.written} → ${one.target}` : ""), "says now": short(one.after) };
    data.columns.forEach((name, place) => { looks[name] = one.figures[place] === null ? "–" : (Math.floor(one.figures[place] * 100 + 1e-9) / 100).toFixed(2); });
    const row = element("tr", { id: `case-${one.place}` }, ...columns.map(([name]) =>
      element("td", { className: ["written", "says now", "case"].includes(name) ? "text" : "", data: name === "case" ? {} : { name } }, looks[name] ?? (one[name] || "–"))));
    return opened.has(one.place) ? [row, details(one)] : [row];
  };

  const pages = byId("pages"), found = byId("found");
  const turn = (word, by) => {
    const button = element("button", { type: "button" }, word);
    button.addEventListener("click", () => { page += by; update(); byId("h-cases").scrollIntoView(); });
    pages.append(button);
    return button;
  };
  const back = turn("earlier", -1), where = element("span"), on = turn("further", 1);
  back.after(where);

  // Worst first, as the report itself.
  const worst = [...cases].sort((a, b) => b.verdict - a.verdict || (b.size ?? -1) - (a.size ?? -1) || a.place - b.place);
  const update = () => {
    shown = worst.filter(wanted);
    if (key) shown = sorted(shown, key, down);
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    body.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).flatMap(show));
    found.textContent = shown.length === cases.length ? `${cases.length} cases` : `${shown.length} of ${cases.length} cases`;
    where.textContent = `page ${page + 1} of ${last + 1}`;
    [back.disabled, on.disabled, pages.hidden] = [page === 0, page === last, last === 0];
  };
  update();

  const pick = (chosen) => {
    for (const [name, control] of Object.entries(inputs)) control.value = chosen[name] ?? "";
    page = 0;
    update();
  };
  for (const link of all("a.cell")) {
    link.addEventListener("click", () => {
      const bad = cases.some((one) => one.editor === link.dataset.editor && one.stream === link.dataset.stream && one.checks.includes(link.dataset.check));
      pick({ editor: link.dataset.editor, model: link.dataset.model, stream: link.dataset.stream, check: bad ? link.dataset.check : "" });
    });
  }
  const open = (one) => {
    pick({ text: one.case });
    opened.add(one.place);
    update();
    byId(`case-${one.place}`).scrollIntoView({ block: "center" });
    byId(`case-${one.place}`).querySelector("button").focus();
  };

  // A cloud is one path; its points are its cases, in order.
  const told = byId("point");
  for (const svg of all(".charts svg:not(.key)")) {
    const points = all(".cloud", svg).flatMap((cloud) => {
      const first = Number(cloud.dataset.first);
      const found = [...cloud.getAttribute("d").matchAll(/M([\d.]+) ([\d.]+)/g)];
      if (found.length > 300) cloud.classList.add("many");
      return found.map((point, place) => [Number(point[1]), Number(point[2]), cases[first + place]]);
    });
    if (!points.length) continue;
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "chosen");
    ring.setAttribute("r", "0");
    svg.append(ring);
    const nearest = (event) => {
      const box = svg.getBoundingClientRect(), unit = 360 / box.width;
      const x = (event.clientX - box.left) * unit, y = (event.clientY - box.top) * unit;
      let best = null, least = 20 ** 2;
      for (const point of points) {
        const far = (point[0] - x) ** 2 + (point[1] - y) ** 2;
        if (far < least) [best, least] = [point, far];
      }
      return best;
    };
    svg.addEventListener("pointermove", (event) => {
      const point = nearest(event);
      ring.setAttribute("r", point ? "6" : "0");
      svg.style.cursor = point ? "pointer" : "";
      if (!point) return;
      ring.setAttribute("cx", point[0]);
      ring.setAttribute("cy", point[1]);
      const one = point[2];
      told.textContent = `${one.case}: ${times(one.size)}, ${one.word}.${one.written ? ` “${one.written}” → ${one.target}` : ""}`;
    });
    svg.addEventListener("pointerleave", () => ring.setAttribute("r", "0"));
    svg.addEventListener("click", (event) => { const point = nearest(event); if (point) open(point[2]); });
  }
})();
