"use strict";
// Draws the page from the data in it. Whatever comes from the data becomes text (textContent), never HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { pos, texts } = data;
  const total = pos.key.length;
  const PAGE = 50;
  const PRINTED = 500;
  const SHOWN = 12;
  const MARKS = { done: "✓", open: "◐", other: "◐", failed: "✕", waiting: "○" };
  const WORDS = {
    done: "done", open: "not done, and no failure by its status", failed: "failed", waiting: "not taken up, or to be done again",
  };

  // --- small things ---

  const count = (number) => number.toLocaleString("en");
  const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
  const share = (part, whole) => `${whole ? Math.floor((100 * part) / whole) : 0} %`; // as status has it: 100 % is for all
  const status = (name) => name || "(none yet)";
  const time = (iso) => iso.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, "");

  function duration(seconds) {
    if (seconds === null) return "";
    if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 59.95) return `${Number(seconds.toFixed(1))} s`;
    const whole = Math.round(seconds);
    const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
    const first = parts.findIndex(([value]) => value);
    return parts.slice(first, first + 2).filter(([value]) => value).map(([value, unit]) => `${value} ${unit}`).join(" ");
  }

  function el(name, attributes, ...children) {
    const node = document.createElement(name);
    return fill(node, attributes, children);
  }
  function svg(name, attributes, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  }
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== ""));
    return node;
  }

  const mark = (category) => el("span", { class: `mark ${category}`, "aria-hidden": "true" }, MARKS[category]);
  const soft = (...children) => el("p", { class: "soft" }, ...children);
  const titled = (id, title, ...children) =>
    el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);
  const number = (label, text) => el("td", { class: "n", "data-label": label }, text);
  const cell = (label, ...children) => el("td", { class: "text", "data-label": label || null }, ...children);
  const table = (caption, heads, rows) =>
    el("div", { class: "wide" }, el("table", { class: "stack" }, caption ? el("caption", null, caption) : null,
      el("thead", null, el("tr", null, heads.map((head) =>
        el("th", { scope: "col", class: head.startsWith("#") ? "n" : null }, head.replace("#", ""))))),
      el("tbody", null, rows)));

  const place = new Map(pos.key.map((key, index) => [key, index]));
  const opener = (key) =>
    place.has(key)
      ? el("button", { type: "button", class: `link key${key.length > 24 ? " long" : ""}`, "aria-haspopup": "dialog", title: `History of ${key}`, onclick: () => openHistory(place.get(key)) }, key)
      : el("span", null, key);

  const stateCell = (index) => el("td", { class: "nowrap" }, mark(pos.category[index]), status(texts[pos.status[index]]));

  // --- the top ---

  function top() {
    const last = data.stretches.map((item) => item.last_at).sort().pop();
    const first = data.stretches.map((item) => item.first_at).sort()[0];
    const span = first ? `Results from ${time(first)} to ${time(last)}` : "Nothing was recorded yet";
    const nav = [["failures", "Failures"], ["status", "By status"], ["over-time", "Over time"], ["slowest", "Slowest"], ["retries", "Retries"], ["log", "The log"], ["orders", "All POs"]];
    document.getElementById("top").append(
      el("h1", null, `${data.csv_name}: ${count(data.done)} of ${plural(total, "PO")} done`),
      data.last_run ? el("p", null, `The last run ${ending(data.last_run)}.`) : null,
      soft(`${span}. As of ${time(data.made_at)}. All times are UTC.`),
      el("nav", { "aria-label": "Sections" }, nav.map(([id, name]) => el("a", { href: `#${id}` }, name))),
    );
  }

  function ending(last) {
    const left = total - data.done;
    const words = {
      "at work": "is still at work", "cut off": `was cut off with ${plural(last.interrupted, "PO")} in flight`,
      "some left": `ended with ${plural(left, "PO")} not done`, "all done": "ended with all POs done",
    };
    return `took ${last.took_s === null ? "a time that nobody can tell" : duration(last.took_s)}, recorded ${plural(last.results, "result")} and ${words[last.ending]}${last.stopped ? `, stopped by ${last.stopped}` : ""}`;
  }

  function notices() {
    const found = [];
    if (data.damage.length) found.push(`The log is damaged in ${plural(data.damage.length, "place")}; what stood there is lost. See “The log”.`);
    if (data.session) found.push(`Session ${data.session} was at work when this page was made; it shows that moment.`);
    return found.map((text) => el("p", { class: "notice" }, text));
  }

  function tiles() {
    const pending = total - data.done;
    const last = data.last_run;
    const tile = (value, name, note, category) => el("li", { class: category || null }, el("b", null, value), el("span", null, name), el("span", { class: "soft" }, note));
    return el("ul", { class: "tiles", "aria-label": "Summary" },
      tile(share(data.done, total), "done", `${count(data.done)} of ${count(total)}; done means ${data.done_words.join(", ")}`),
      tile(count(data.failed), "failed", "not done, with ERROR, FAILED or a message", data.failed ? "alarm" : null),
      tile(count(pending - data.failed), "not done otherwise", pending === data.failed ? "all that is pending has failed" : `${count(pending)} are pending in all`),
      tile(last && last.took_s !== null ? duration(last.took_s) : "–", "the last run took", last ? `with ${plural(last.results, "result")}` : "nothing was recorded yet"),
      tile(data.took_s === null ? "–" : duration(data.took_s), "a PO, typically", data.took_s === null ? "the log does not tell" : "median, from start to result"),
      tile(count(data.interrupted), "interrupted", data.interrupted === 1 ? "attempt without a result" : "attempts without a result"));
  }
  const peak = (timeline) => count(Math.max(...timeline.done.map((_, bar) => sum(timeline, bar))));
  const sum = (timeline, bar) => timeline.done[bar] + timeline.other[bar] + timeline.failed[bar];

  // --- by status ---

  function byStatus() {
    const most = Math.max(1, ...data.by_status.map((item) => item.count));
    const rows = data.by_status.map((item) => el("tr", null,
      el("th", { scope: "row" }, mark(item.category), el("button", { type: "button", class: "link", title: "Show these POs", onclick: () => show(`status:${item.status}`) }, status(item.status))),
      el("td", { class: "bar", "aria-hidden": "true" }, meter(item.count / most, item.category)),
      number("POs", count(item.count)), number("share", `${item.share_percent.toFixed(1)} %`)));
    const used = [...new Set(data.by_status.map((item) => item.category))];
    return titled("status", "By status",
      total ? table("", ["STATUS", "", "#POs", "#Share"], rows) : soft("The CSV has no rows yet."),
      el("ul", { class: "legend soft" }, used.map((category) => el("li", null, mark(category), WORDS[category]))));
  }
  const meter = (part, category) =>
    svg("svg", { class: "meter", viewBox: "0 0 100 12", preserveAspectRatio: "none" },
      svg("rect", { class: `f-${category}`, width: Math.max(0.6, 100 * part), height: 12 }));

  // --- over time ---

  function overTime() {
    const charts = data.stretches.filter((item) => item.timeline);
    if (!data.timeline) return titled("over-time", "Over time", soft("No results yet, so there is nothing to draw."));
    const box = el("div");
    const draw = (choice) => box.replaceChildren(...chart(choice === "all" ? data.timeline : charts[choice].timeline));
    draw("all");
    const name = (item) => `${sessionName(item)}, ${time(item.first_at).slice(0, 16)}: ${plural(item.results, "result")}`;
    const choose = el("p", { class: "screen" }, el("label", null, "Show ", el("select", { id: "stretch", onchange: (event) => draw(event.target.value) },
      el("option", { value: "all" }, "the whole time"), charts.map((item, index) => el("option", { value: index }, name(item))))));
    return titled("over-time", "Over time", charts.length > 1 ? choose : null, box);
  }

  function chart(timeline) {
    const kinds = [["done", "done"], ["other", "neither done nor failed"], ["failed", "failed"]];
    const totals = Object.fromEntries(kinds.map(([kind]) => [kind, timeline[kind].reduce((a, b) => a + b, 0)]));
    const width = duration(timeline.width_s);
    const all = totals.done + totals.other + totals.failed;
    const label = `${plural(all, "result")}, ${count(totals.failed)} of them failed; at most ${peak(timeline)} in ${width}`;
    const drawn = matchMedia("(max-width: 40rem)").matches ? bars(timeline, kinds, label, 420, 230) : bars(timeline, kinds, label, 1000, 260);
    return [
      el("ul", { class: "legend" }, kinds.filter(([kind]) => totals[kind]).map(([kind, words]) => el("li", null, mark(kind), `${words}: ${count(totals[kind])}`))),
      soft(`Results per ${width}`), drawn, asTable(timeline, kinds)];
  }

  function bars(timeline, kinds, label, w, h) {
    const [left, right, foot, head] = [46, 12, 26, 8];
    const n = timeline.done.length;
    const step = nice(Math.max(...timeline.done.map((_, bar) => sum(timeline, bar))));
    const most = step * Math.max(1, Math.ceil(Math.max(...timeline.done.map((_, bar) => sum(timeline, bar))) / step));
    const y = (value) => h - foot - ((h - foot - head) * value) / most;
    const slot = Math.min((w - left - right) / n, 90);
    const start = Date.parse(timeline.start);
    const root = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": label },
      svg("defs", null, svg("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        svg("rect", { class: "f-failed", width: 5, height: 5 }), svg("line", { class: "hatch", y2: 5 }))));
    for (let value = 0; value <= most; value += step) {
      root.append(svg("line", { class: value ? "grid" : "axis", x1: left, x2: w - right, y1: y(value), y2: y(value) }),
        svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, count(value)));
    }
    for (let bar = 0; bar < n; bar++) {
      let below = 0;
      const group = svg("g", null, svg("title", null, describe(timeline, bar, kinds)));
      for (const [kind] of kinds) {
        const value = timeline[kind][bar];
        if (!value) continue;
        group.append(svg("rect", { class: `f-${kind}`, fill: kind === "failed" ? "url(#hatch)" : null,
          x: left + bar * slot + slot * 0.08, width: slot * 0.84, y: y(below + value), height: y(below) - y(below + value) }));
        if (kind === "failed") group.lastChild.removeAttribute("class");
        below += value;
      }
      root.append(group);
    }
    const every = Math.max(1, Math.ceil(n / (w > 600 ? 8 : 4)));
    for (let bar = 0; bar < n; bar += every) {
      root.append(svg("line", { class: "axis", x1: left + bar * slot, x2: left + bar * slot, y1: y(0), y2: y(0) + 4 }),
        svg("text", { x: left + bar * slot, y: h - 6, "text-anchor": "start" }, tick(start, timeline.width_s, bar, n)));
    }
    return root;
  }
  function nice(most) {
    const rough = Math.max(1, most / 4);
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  }
  function tick(start, width_s, bar, n) {
    const iso = new Date(start + 1000 * width_s * bar).toISOString();
    const days = (width_s * n) / 86400;
    if (width_s >= 86400) return iso.slice(0, 10);
    if (days > 1) return `${iso.slice(5, 10)} ${iso.slice(11, 16)}`;
    return width_s < 60 ? iso.slice(11, 19) : iso.slice(11, 16);
  }
  const from = (timeline, bar) => new Date(Date.parse(timeline.start) + 1000 * timeline.width_s * bar).toISOString().slice(0, 19).replace("T", " ");
  const describe = (timeline, bar, kinds) =>
    `from ${from(timeline, bar)}: ${kinds.filter(([kind]) => timeline[kind][bar]).map(([kind, words]) => `${count(timeline[kind][bar])} ${words}`).join(", ") || "nothing"}`;
  function asTable(timeline, kinds) {
    const details = el("details", { class: "screen" }, el("summary", null, "The same as a table"));
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      const rows = timeline.done.map((_, bar) => el("tr", null, el("th", { scope: "row" }, from(timeline, bar)), kinds.map(([kind, words]) => number(words, count(timeline[kind][bar])))));
      details.append(table("", ["From (UTC)", ...kinds.map(([, words]) => `#${words}`)], rows));
    });
    return details;
  }

  // --- failures, slowest, retries ---

  function failures() {
    if (!data.failures.length) return titled("failures", "Failures by message", soft("No PO failed, and no result of the log was a failure."));
    const rows = data.failures.slice(0, 100).map((group, index) => el("tr", null,
      cell("", el("div", null, group.pattern), group.example && group.example !== group.pattern ? el("details", null, el("summary", null, "The latest one"), el("div", null, group.example)) : null),
      number("POs not done", count(group.open)), number("POs ever", count(group.pos)), number("times", count(group.times)),
      el("td", { class: "nowrap", "data-label": "last" }, group.last_at ? time(group.last_at) : ""),
      el("td", { class: "screen" }, el("button", { type: "button", class: "link nowrap", "aria-label": `Show the POs with ${group.pattern}`, onclick: () => show(`group:${index}`) }, "Show POs"))));
    return titled("failures", "Failures by message",
      soft("Messages that differ only in numbers, ids, paths or URLs are one line. Those that were overcome later are counted too."),
      table("", ["Message", "#POs not done", "#POs ever", "#Times", "Last (UTC)", ""], rows),
      data.failures.length > 100 ? soft(`and ${count(data.failures.length - 100)} rarer messages`) : null);
  }

  function slowest() {
    const most = (data.slowest.length && data.slowest[0].took_s) || 1;
    const rows = data.slowest.map((item) => el("tr", null, el("th", { scope: "row" }, opener(item.key)),
      el("td", { class: "bar", "aria-hidden": "true" }, meter(item.took_s / most, pos.category[place.get(item.key)])),
      number("took", duration(item.took_s)), stateCell(place.get(item.key))));
    return titled("slowest", "Slowest POs",
      rows.length ? soft("From “started” to its result, in the longest attempt of each PO.") : soft("The log does not tell how long POs took: nobody recorded when they were taken up."),
      rows.length ? table("", ["PO", "", "#Took", "STATUS"], rows) : null);
  }

  function retries() {
    const most = [...pos.key.keys()].filter((index) => pos.attempts[index] > 1 || pos.interrupted[index]);
    most.sort((a, b) => pos.attempts[b] - pos.attempts[a] || pos.interrupted[b] - pos.interrupted[a] || a - b);
    const rows = most.slice(0, 10).map((index) => el("tr", null, el("th", { scope: "row" }, opener(pos.key[index])),
      number("attempts", count(pos.attempts[index])), number("interrupted", count(pos.interrupted[index])),
      stateCell(index)));
    const flying = pos.in_flight.filter(Boolean).length;
    const waiting = pos.waits_until.filter(Boolean).length;
    const words = `${plural(data.retried, "PO")} ${data.retried === 1 ? "was" : "were"} taken up more than once, and ${count(data.recovered)} of them ${data.recovered === 1 ? "is" : "are"} done now. ` +
      `${plural(data.interrupted, "attempt")} ended without a result, as when a run is killed.` +
      (flying ? ` ${plural(flying, "PO")} ${flying === 1 ? "is" : "are"} in flight${data.session ? "" : ", left so by a run that died"}.` : "") +
      (waiting ? ` ${plural(waiting, "PO")} ${waiting === 1 ? "waits" : "wait"} for another attempt.` : "");
    return titled("retries", "Retries and interruptions",
      most.length ? soft(words) : soft("Every PO was taken up once at most, and nothing was interrupted."),
      rows.length ? table("", ["PO", "#Attempts", "#Interrupted", "STATUS"], rows) : null,
      most.length > 10 ? el("p", { class: "screen" }, el("button", { type: "button", class: "link", onclick: () => show("retried") }, `Show all ${count(most.length)}`)) : null);
  }

  // --- the log ---

  const sessionName = (item) => (item.session ? `Session ${item.session}` : `Segment ${item.segment}`);

  function log() {
    const stretches = data.stretches.map((item) => el("tr", null, el("th", { scope: "row" }, sessionName(item)),
      el("td", { class: "nowrap", "data-label": "first" }, time(item.first_at).slice(0, 19)), el("td", { class: "nowrap", "data-label": "last" }, time(item.last_at).slice(0, 19)),
      number("writers", count(item.writers)), number("results", count(item.results)), number("failed", count(item.failed)), number("interrupted", count(item.interrupted))));
    const findings = [
      ...data.damage.map((item) => ["✕", "Damage", item]),
      ...data.torn.map((item) => ["◐", "Torn line, nothing lost", item])];
    const copies = data.copies.map((item) => el("tr", null, el("td", { class: "nowrap", "data-label": "when" }, time(item.at).slice(0, 19)),
      cell("", item.reason), number("rows", count(item.rows)), cell("kept as", item.name)));
    return titled("log", "What the log saw",
      el("h3", null, "Sessions"),
      stretches.length ? table("Each session has a segment of the log to itself; one without a name was none, or its backup is gone.", ["Session", "First event", "Last event", "#Writers", "#Results", "#Failed", "#Interrupted"], stretches) : soft("Nothing was recorded yet."),
      el("h3", null, "Damage and torn lines"),
      findings.length ? el("ul", null, findings.slice(0, 50).map(([sign, what, item]) => el("li", { class: "text" }, `${sign} ${what}: ${item.segment}, byte ${count(item.offset_bytes)}, ${count(item.length_bytes)} bytes: ${item.reason}`))) : soft("None: every line of the log is whole."),
      findings.length > 50 ? soft(`and ${count(findings.length - 50)} more; eventcsv verify lists all`) : null,
      data.unknown.length ? soft(`${plural(data.unknown.length, "key")} with results and no row in the CSV: ${data.unknown.slice(0, SHOWN).join(", ")}${data.unknown.length > SHOWN ? " and more" : ""}`) : null,
      el("h3", null, "Edits, restores and backups"),
      data.edited ? soft("The CSV was edited since it was last brought up to date.") : null,
      data.behind ? soft(`${plural(data.behind, "result")} of the log ${data.behind === 1 ? "is" : "are"} not yet in the CSV file; they are on this page.`) : null,
      copies.length ? table("As far as the backups that are still kept tell; older ones are removed as new ones come.", ["When (UTC)", "Why a copy was kept", "#Rows", "File"], copies) : soft("No backup was made yet."));
  }

  // --- all POs ---

  const state = { text: "", filter: "", sort: "open", page: 0, found: [] };
  const rank = { failed: 0, open: 1, waiting: 2, done: 3 };
  const urgency = pos.category.map((category, index) => (pos.failed[index] ? 0 : rank[category]));
  const haystack = pos.key.map((key, index) => `${key}\n${texts[pos.status[index]]}\n${texts[pos.supplier[index]]}\n${texts[pos.message[index]]}`.toLowerCase());
  const FILTERS = {
    "": () => true, pending: (index) => pos.category[index] !== "done", failed: (index) => pos.failed[index],
    retried: (index) => pos.attempts[index] > 1 || pos.interrupted[index], interrupted: (index) => pos.interrupted[index], "in flight": (index) => pos.in_flight[index],
  };
  const SORTS = {
    open: (a, b) => urgency[a] - urgency[b] || a - b, csv: null, latest: (a, b) => (pos.at[b] > pos.at[a] ? 1 : pos.at[b] < pos.at[a] ? -1 : a - b),
    slowest: (a, b) => (pos.took_s[b] ?? -1) - (pos.took_s[a] ?? -1) || a - b, attempts: (a, b) => pos.attempts[b] - pos.attempts[a] || a - b,
  };

  function predicate(filter) {
    if (filter.startsWith("status:")) return (index) => texts[pos.status[index]] === filter.slice(7);
    if (filter.startsWith("group:")) return (index) => pos.groups[index].includes(Number(filter.slice(6)));
    return FILTERS[filter];
  }

  function search() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = predicate(state.filter);
    state.found = [];
    for (let index = 0; index < total; index++) {
      if (fits(index) && words.every((word) => haystack[index].includes(word))) state.found.push(index);
    }
    if (SORTS[state.sort]) state.found.sort(SORTS[state.sort]);
    state.page = 0;
    list();
  }

  // What no PO has takes no width.
  const COLUMNS = [
    ["Supplier", pos.supplier.some((text) => texts[text]), (index) => el("td", { class: "supplier text" }, texts[pos.supplier[index]])],
    ["Message", pos.message.some((text) => texts[text]), (index) => cell("", texts[pos.message[index]])],
    ["#Attempts", pos.attempts.some(Boolean), (index) => number("attempts", pos.attempts[index] ? count(pos.attempts[index]) : "")],
    ["#Took", pos.took_s.some((took) => took !== null), (index) => number("took", duration(pos.took_s[index]))],
    ["Last processed", pos.at.some(Boolean), (index) => el("td", { class: "nowrap", "data-label": "last processed" }, time(pos.at[index]))],
  ].filter(([, isUsed]) => isUsed);

  function list(first = state.page * PAGE, size = PAGE) {
    const rows = state.found.slice(first, first + size).map((index) => el("tr", null,
      el("th", { scope: "row" }, opener(pos.key[index])), stateCell(index), COLUMNS.map(([, , draw]) => draw(index))));
    document.getElementById("rows").replaceChildren(...rows);
    const found = state.found.length;
    const pages = Math.max(1, Math.ceil(found / PAGE));
    const range = found ? `${count(first + 1)} to ${count(Math.min(found, first + size))} of ` : "";
    document.getElementById("count").textContent = found ? `${range}${plural(found, "PO")}${found < total ? ` that match, of ${count(total)} in all` : ""}` : total ? "No PO matches. Clear the search or choose another filter." : "The CSV has no rows yet.";
    document.getElementById("page").textContent = `page ${count(state.page + 1)} of ${count(pages)}`;
    document.getElementById("previous").disabled = state.page === 0;
    document.getElementById("next").disabled = state.page >= pages - 1;
  }
  function turn(by) {
    state.page += by;
    list();
    document.getElementById("orders").scrollIntoView();
  }

  function show(filter) {
    const select = document.getElementById("filter");
    if (![...select.options].some((option) => option.value === filter)) select.append(el("option", { value: filter }, `Message: ${data.failures[Number(filter.slice(6))].pattern.slice(0, 60)}`));
    select.value = state.filter = filter;
    document.getElementById("search").value = state.text = "";
    search();
    document.getElementById("orders").scrollIntoView();
    select.focus({ preventScroll: true });
  }
  function clear() {
    document.getElementById("sort").value = state.sort = "open";
    show("");
    document.getElementById("search").focus({ preventScroll: true });
  }

  function orders() {
    let timer = 0;
    const typed = (event) => {
      state.text = event.target.value;
      clearTimeout(timer);
      timer = setTimeout(search, 80);
    };
    const option = ([value, name]) => el("option", { value }, name);
    const filters = [["", "All"], ["pending", "Not done"], ["failed", "Failed: not done, and says why"], ["retried", "Retried or interrupted"], ["interrupted", "Interrupted"], ["in flight", "In flight"]];
    return titled("orders", "All POs", el("p", { class: "soft screen" }, "Choose a PO to see its history."),
      el("form", { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
        el("div", null, el("label", { for: "search" }, "Search PO, status, supplier and message"), el("input", { id: "search", type: "search", autocomplete: "off", spellcheck: "false", oninput: typed })),
        el("div", null, el("label", { for: "filter" }, "Show"), el("select", { id: "filter", onchange: (event) => { state.filter = event.target.value; search(); } }, filters.map(option), el("optgroup", { label: "STATUS" }, data.by_status.map((item) => option([`status:${item.status}`, status(item.status)]))))),
        el("div", null, el("label", { for: "sort" }, "Order"), el("select", { id: "sort", onchange: (event) => { state.sort = event.target.value; search(); } }, [["open", "not done first"], ["csv", "as in the CSV"], ["latest", "latest first"], ["slowest", "slowest first"], ["attempts", "most attempts first"]].map(option))),
        el("button", { type: "button", class: "act", onclick: clear }, "Clear")),
      el("p", { id: "count", class: "soft", role: "status", "aria-live": "polite" }),
      el("div", { class: "wide" }, el("table", { class: "stack" }, el("thead", null, el("tr", null, ["PO", "STATUS", ...COLUMNS.map(([name]) => name)].map((head) => el("th", { scope: "col", class: head.startsWith("#") ? "n" : null }, head.replace("#", ""))))), el("tbody", { id: "rows" }))),
      el("div", { class: "paging" }, el("button", { id: "previous", type: "button", class: "act", onclick: () => turn(-1) }, "Previous"), el("span", { id: "page" }), el("button", { id: "next", type: "button", class: "act", onclick: () => turn(1) }, "Next")));
  }

  // --- the history of one PO ---

  const dialog = document.getElementById("history");

  function openHistory(index) {
    const key = pos.key[index];
    const facts = [
      texts[pos.supplier[index]], pos.attempts[index] ? plural(pos.attempts[index], "attempt") : "", pos.interrupted[index] ? `${count(pos.interrupted[index])} interrupted` : "",
      pos.took_s[index] === null ? "" : `longest ${duration(pos.took_s[index])}`, pos.in_flight[index] ? "in flight" : "",
      pos.waits_until[index] ? `waits for another attempt until ${time(pos.waits_until[index])}` : ""].filter(Boolean).join(" · ");
    const earlier = pos.earlier[index];
    dialog.replaceChildren(
      el("div", { class: "dialog-head" }, el("div", null, el("h2", { id: "history-title", class: "text" }, `History of ${key}`), el("p", null, mark(pos.category[index]), status(texts[pos.status[index]])), facts ? soft(facts) : null),
        el("button", { type: "button", class: "act", autofocus: true, onclick: () => dialog.close() }, "Close")),
      el("div", { class: "dialog-body" },
        texts[pos.message[index]] ? el("p", { class: "text" }, texts[pos.message[index]]) : null,
        earlier ? soft(`${plural(earlier, "earlier event")} ${earlier === 1 ? "is" : "are"} not on this page; eventcsv history shows all.`) : null,
        pos.events[index].length ? el("ol", { class: "events" }, pos.events[index].map(event)) : soft("The log has no event of this PO.")));
    dialog.showModal();
    dialog.scrollTop = 0;
  }
  const KINDS = ["Taken up", "Result", "Edited by hand", "Put back"];
  function event([at, kind, writer, ...cells]) {
    const pairs = [];
    for (let index = 0; index < cells.length; index += 2) pairs.push(el("dt", null, texts[cells[index]]), el("dd", null, texts[cells[index + 1]] || "(cleared)"));
    return el("li", null, el("strong", null, KINDS[kind]), ` ${time(at)} `, el("span", { class: "log" }, `by ${texts[writer]}`), pairs.length ? el("dl", null, pairs) : null);
  }
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it

  // --- together ---

  top();
  document.getElementById("main").append(...notices(), tiles(), failures(), byStatus(), overTime(), el("div", { class: "two" }, slowest(), retries()), log(), orders());
  document.getElementById("foot").append(soft(`Made by eventcsv ${data.version} from the event log and the CSV. ` +
    (data.masked ? "Passwords, tokens, e-mail addresses and queries of URLs were replaced by ***, as far as they can be told." : "Texts are as they are in the log: passwords, tokens, e-mail addresses and queries of URLs may be among them.")));
  search();
  // On paper there is no next page to turn to.
  addEventListener("beforeprint", () => list(0, PRINTED));
  addEventListener("afterprint", () => list());
})();
