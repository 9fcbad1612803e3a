"use strict";
// The explorer. Everything a model wrote is data: it enters the page by textContent alone.
// <script type="text/plain" id="index-S"> and id="chunk-S-C" are gzipped JSON in base64, unpacked when needed.
(() => {
const at = id => document.getElementById(id);
const sets = JSON.parse(at("sets").textContent);
if (!sets.length) return;
const ROW = 44, REACH = 14, EVEN = 0.1;  // pixels; pixels; weights this near to each other are about equal
const NUMBERS = ["entropy", "accuracy", "rejection", "weight"];
const unpacked = new Map();
let data, view = [], picked = -1, sort = "gap", falling = true, grid = new Map(), spots, frame = 0, asked = 0, opened = 0;
const idle = [...at("panel").childNodes];

function make(tag, options = {}, ...children) {
  const { class: name, text, ...rest } = options;
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  for (const key in rest) node.setAttribute(key, rest[key]);
  node.append(...children);
  return node;
}
const number = (x, digits = 2) => x === null || x === undefined ? "–" : x.toFixed(digits).replace("-", "−");

async function unpack(id) {
  if (!unpacked.has(id)) {
    const text = atob(at(id).textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    if (unpacked.size > 40) unpacked.delete(unpacked.keys().next().value);
    unpacked.set(id, await new Response(stream).json());
  }
  return unpacked.get(id);
}

async function open(s) {
  const request = ++opened, index = await unpack(`index-${s}`);
  if (request !== opened) return;  // another set was chosen meanwhile
  data = { set: s, ...index };
  asked++;  // a question of the previous set that is still being unpacked is not shown
  at("panel").replaceChildren(...idle);
  at("list").removeAttribute("aria-activedescendant");
  const [entropy, accuracy] = data.pair.map(k => data.columns[k].w);
  data.gap = data.id.map((_, i) => entropy[i] === null || accuracy[i] === null ? null : entropy[i] - accuracy[i]);
  at("about").textContent = sets[s].about;
  at("weighting").replaceChildren(...data.columns.map((c, k) => make("option", { value: k, text: c.label })));
  at("weighting").value = data.pair[0];
  legend();
  picked = -1;
  filter();
}

const weight = () => data.columns[at("weighting").value].w;
const COLUMNS = {
  id: { title: "question", hint: "sort by place in the task", value: () => data.id.map((_, i) => i) },
  entropy: { title: "entropy", hint: "nats over the answer clusters", value: () => data.entropy },
  accuracy: { title: "accuracy", hint: "share of right responses", value: () => data.accuracy },
  rejection: { title: "rejection", hint: "share of the largest wrong cluster", value: () => data.rejection },
  weight: { title: "weight", hint: "of the weighting chosen above", value: weight },
  gap: { title: "disagree", hint: "entropy weight minus accuracy weight, sorted by size", value: () => data.gap },
};

function filter() {
  const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const limits = NUMBERS.map(name => {
    const [low, high] = ["low", "high"].map(end => at(`${name}-${end}`).valueAsNumber);
    return { values: COLUMNS[name].value(), low, high };
  }).filter(l => !isNaN(l.low) || !isNaN(l.high));
  view = [];
  for (let i = 0; i < data.id.length; i++) {
    if (!limits.every(({ values, low, high }) => values[i] !== null && !(values[i] < low) && !(values[i] > high))) continue;
    const text = words.length ? `${data.id[i]} ${data.text[i]}`.toLowerCase() : "";
    if (words.every(word => text.includes(word))) view.push(i);
  }
  order();
}

function order() {
  const values = COLUMNS[sort].value(), size = sort === "gap" ? Math.abs : x => x, sign = falling ? -1 : 1;
  view.sort((i, j) => {
    const [a, b] = [values[i], values[j]];
    if (a === null || b === null) return (a === null) - (b === null) || i - j;  // untrained questions come last
    return sign * (size(a) - size(b)) || i - j;
  });
  at("count").textContent = `${view.length.toLocaleString("en")} of ${data.id.length.toLocaleString("en")} questions, ` +
    (sort === "gap" && falling ? "largest difference of entropy and accuracy weight first" :
      `by ${COLUMNS[sort].title}, ${falling ? "largest" : "smallest"} first`);
  head();
  at("room").style.height = `${view.length * ROW}px`;
  at("list").scrollTop = 0;
  rows();
  draw();
}

function head() {
  at("head").replaceChildren(...Object.entries(COLUMNS).map(([key, column]) => {
    const arrow = key === sort ? (falling ? " ▾" : " ▴") : "";
    const button = make("button", { type: "button", text: column.title + arrow, title: column.hint, "data-sort": key, "aria-pressed": key === sort });
    button.onclick = () => {
      falling = key === sort ? !falling : key !== "id";
      sort = key;
      order();
      at("head").querySelector(`[data-sort=${key}]`).focus();
    };
    return button;
  }));
}

function rows() {  // only those in sight exist
  const list = at("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(view.length, first + Math.ceil(list.clientHeight / ROW) + 9), elements = [], w = weight();
  for (let place = first; place < last; place++) {
    const i = view[place];
    const name = make("span", { text: data.id[i] }, make("small", { text: data.text[i] }));
    const row = make("div", { class: "row", role: "option", id: `row-${i}`, "aria-selected": i === picked, "data-question": i }, name,
      ...[data.entropy[i], data.accuracy[i], data.rejection[i], w[i], data.gap[i]].map(x => make("span", { text: number(x) })));
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", view.length);
    row.style.top = `${place * ROW}px`;
    elements.push(row);
  }
  at("room").replaceChildren(...elements);
}

async function pick(i, scroll = true) {
  picked = i;
  const request = ++asked, place = view.indexOf(i), list = at("list");
  if (scroll && place >= 0) {
    const top = place * ROW;
    if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
  }
  list.setAttribute("aria-activedescendant", `row-${i}`);
  rows();
  draw();
  const chunk = await unpack(`chunk-${data.set}-${Math.floor(i / data.chunk)}`);
  if (request === asked) show(i, chunk[i % data.chunk]);
}

function show(i, question) {
  const total = data.n[i], top = Math.max(1, ...data.columns.map(c => c.w[i] ?? 0));
  const facts = [["entropy", number(data.entropy[i], 3)], ["accuracy", number(data.accuracy[i], 3)],
    ["rejection", number(data.rejection[i], 3)], ["clusters", data.k[i]], ["responses", total]];
  const bars = data.columns.map(c => {
    const fill = make("i");
    fill.style.width = `${100 * (c.w[i] ?? 0) / top}%`;
    return make("div", { class: "bar weight", title: c.source }, make("span", { text: c.label }), make("span", {}, fill),
      make("span", { text: c.w[i] === null ? "not trained" : number(c.w[i], 3) }));
  });
  at("panel").replaceChildren(
    make("h2", { text: data.id[i] }),
    make("div", { class: "text", text: question.question || "(the question's text is not in this page)" }),
    make("p", {}, make("b", { text: "Gold answer: " }), make("span", { text: question.gold })),
    make("div", { class: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("b", { text: value }), make("span", { text: name })))),
    make("h3", { text: "Weight under each strategy (mean 1 over its examples)" }), ...bars,
    make("h3", { text: "Answers" }), ...question.clusters.map((c, k) => cluster(c, total, k === 0)),
    ...(question.hidden ? [make("p", { class: "quiet", text: `${question.hidden} smaller clusters are not listed.` })] : []));
  at("panel").scrollTop = 0;
}

function cluster(c, total, first) {
  const kind = c.correct ? "right" : "wrong", fill = make("i", { class: kind });
  fill.style.width = `${100 * c.count / total}%`;
  const label = make("span", { class: kind, text: `${c.correct ? "✓" : "✗"} ${c.answer ?? "(no answer)"}`, title: `${kind}, ${c.kind}` });
  const bar = make("span", { class: "bar" }, label, make("span", {}, fill), make("span", { text: `${c.count} of ${total}` }));
  const shown = c.responses.map(r => make("div", { class: "response" },
    make("div", { class: "quiet", text: `response ${r.sample}: ${kind}${r.cut ? ", stopped by the token limit" : ""}` }),
    make("div", { class: "text" }, ...r.text.map(part => typeof part === "string" ? part :
      make("span", { class: "left-out", text: ` [${part.toLocaleString("en")} characters left out] ` })))));
  const rest = c.count - c.responses.length;
  if (rest) shown.push(make("p", { class: "quiet", text: `${rest.toLocaleString("en")} ${c.responses.length ? "more " : ""}responses are not in this page.` }));
  const box = make("details", { class: "cluster" }, make("summary", {}, bar), ...shown);
  box.open = first;
  return box;
}

function kind(i) {
  if (data.gap[i] === null) return "hollow";
  return Math.abs(data.gap[i]) < EVEN ? "even" : data.gap[i] > 0 ? "entropy" : "accuracy";
}

function legend() {
  const words = { entropy: "entropy weighs more", accuracy: "accuracy weighs more", even: `about equal (within ${EVEN})`, hollow: "not trained" };
  at("legend").replaceChildren(...Object.entries(words).map(([key, text]) => {
    const dot = make("i", key === "hollow" ? { class: "hollow" } : {});
    if (key !== "hollow") dot.style.background = `var(--${key})`;
    return make("span", {}, dot, text);
  }), make("span", { text: `comparing ${data.pair.map(k => data.columns[k].label).join(" with ")}` }));
}

function draw() { cancelAnimationFrame(frame); frame = requestAnimationFrame(paint); }

function paint() {
  const canvas = at("scatter"), ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(`--${name}`).trim();
  const c = canvas.getContext("2d"), box = { left: 48, top: 12, width: width - 64, height: height - 54 };
  const most = data.entropy.reduce((a, b) => Math.max(a, b), 0.5) * 1.03;
  const x = i => box.left + box.width * data.entropy[i] / most, y = i => box.top + box.height * (1 - data.accuracy[i]);
  c.scale(ratio, ratio);
  c.font = "12px system-ui, sans-serif"; c.fillStyle = colour("quiet"); c.strokeStyle = colour("line");
  axis(c, box, most);
  spots = { x: new Float32Array(data.id.length), y: new Float32Array(data.id.length) };
  grid = new Map();
  const colours = Object.fromEntries(["entropy", "accuracy", "even", "hollow"].map(k => [k, colour(k === "hollow" ? "even" : k)]));
  const size = view.length > 2000 ? 2.4 : 3.2;
  c.globalAlpha = view.length > 2000 ? 0.55 : 0.75;
  for (let k = view.length - 1; k >= 0; k--) {  // first in the list on top
    const i = view[k], cell = `${Math.floor(x(i) / REACH)},${Math.floor(y(i) / REACH)}`;
    spots.x[i] = x(i); spots.y[i] = y(i);
    if (!grid.has(cell)) grid.set(cell, []);
    grid.get(cell).push(i);
    dot(c, i, size, colours[kind(i)], kind(i) === "hollow");
  }
  c.globalAlpha = 1;
  if (picked >= 0) {
    spots.x[picked] = x(picked); spots.y[picked] = y(picked);
    c.lineWidth = 2;
    dot(c, picked, 7, colour("pick"), true);
  }
  canvas.dataset.painted = view.length;
}

function dot(c, i, size, colour, hollow) {
  c.beginPath();
  c.arc(spots.x[i], spots.y[i], size, 0, 7);
  c.fillStyle = c.strokeStyle = colour;
  if (hollow) c.stroke(); else c.fill();
}

function axis(c, box, most) {
  const step = most > 2.5 ? 0.5 : most > 1 ? 0.25 : 0.1, bottom = box.top + box.height;
  c.textAlign = "center";
  for (let v = 0; v <= most; v += step) {
    const x = box.left + box.width * v / most;
    c.beginPath(); c.moveTo(x, box.top); c.lineTo(x, bottom); c.stroke();
    c.fillText(+v.toFixed(2), x, bottom + 16);
  }
  c.fillText("entropy h (nats)", box.left + box.width / 2, bottom + 34);
  c.textAlign = "right";
  for (let v = 0; v <= 4; v++) {
    const y = bottom - box.height * v / 4;
    c.beginPath(); c.moveTo(box.left, y); c.lineTo(box.left + box.width, y); c.stroke();
    c.fillText(`${25 * v}%`, box.left - 6, y + 4);
  }
  c.save();
  c.translate(12, box.top + box.height / 2); c.rotate(-Math.PI / 2); c.textAlign = "center"; c.fillText("accuracy", 0, 0);
  c.restore();
}

function near(event) {  // questions in reach of the pointer, nearest first
  const edge = at("scatter").getBoundingClientRect(), px = event.clientX - edge.left, py = event.clientY - edge.top, nearest = [];
  for (let dx = -1; dx <= 1; dx++) for (let dy = -1; dy <= 1; dy++)
    nearest.push(...grid.get(`${Math.floor(px / REACH) + dx},${Math.floor(py / REACH) + dy}`) ?? []);
  const distance = new Map(nearest.map(i => [i, Math.hypot(spots.x[i] - px, spots.y[i] - py)]));
  return nearest.filter(i => distance.get(i) <= REACH).sort((i, j) => distance.get(i) - distance.get(j) || i - j);
}

at("scatter").onclick = event => {
  const nearest = near(event);
  if (!nearest.length) return;
  const stack = nearest.filter(i => spots.x[i] === spots.x[nearest[0]] && spots.y[i] === spots.y[nearest[0]]);
  pick(stack[(stack.indexOf(picked) + 1) % stack.length]);  // again: the next of those on one spot
};
at("scatter").onmousemove = event => {
  const [i] = near(event);
  at("scatter").title = i === undefined ? "" : `${data.id[i]}: entropy ${number(data.entropy[i])}, accuracy ${number(data.accuracy[i])}`;
};
at("list").onscroll = rows;
at("list").onclick = event => {
  const row = event.target.closest("[data-question]");
  if (row) pick(+row.dataset.question, false);
};
at("list").onkeydown = event => {
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 9, PageUp: -9, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined || !view.length) return;
  event.preventDefault();
  const here = view.indexOf(picked);
  pick(view[Math.max(0, Math.min(view.length - 1, (here < 0 && step > 0 ? -1 : here) + step))]);
};
at("bar").oninput = event => { if (event.target.id !== "set") filter(); };
at("set").onchange = event => open(+event.target.value);
at("clear").onclick = () => { for (const input of at("bar").querySelectorAll("input")) input.value = ""; filter(); };
addEventListener("resize", () => { rows(); draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
at("set").replaceChildren(...sets.map((s, k) => make("option", { value: k, text: s.name })));
at("pick-set").hidden = sets.length < 2;
open(0).then(() => document.body.dataset.ready = "yes");
})();
