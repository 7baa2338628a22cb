"use strict";

const SIZE = 28;
const STEPS = 25;
const SILENT = "The server does not answer.";
const by = (selector) => document.querySelector(selector);
const shown = {}; // Of each form: its images, how they lie, and the request that gives them.
const troubles = {}; // Of each form, and of "about": what is wrong with it.
let about = null;
let predictUrl = "";

// --- The server.

async function ask(body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(predictUrl, { method: "POST", headers, body: JSON.stringify(body) });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `the server answered ${answer.status}`);
  return content.outputs;
}

async function readAbout() {
  const answer = await fetch("/about");
  about = await answer.json();
  predictUrl = new URL(`/v1/models/${encodeURIComponent(about.model)}:predict`, location.href).href;
  by("#about").textContent = describe(about);
  const { count } = by("#draw");
  count.max = Math.min(about.max_rows, 500);
  if (Number(count.value) > Number(count.max)) count.value = count.max;
}

function describe({ version, card }) {
  if (!version) return "No version is loaded.";
  const parts = [`Version ${version}`];
  const metrics = (card && card.metrics) || {};
  const value = (name) => metrics[name] && metrics[name].value;
  if (card && card.data && card.data.span != null) parts.push(`trained on span ${card.data.span}`);
  if (value("fid") != null) {
    const times = value("fid_ratio") != null ? `, ${value("fid_ratio").toFixed(1)} times the FID of real digits` : "";
    parts.push(`FID ${value("fid").toFixed(3)}${times}`);
  }
  if (value("conditional_accuracy") != null) {
    parts.push(`conditional accuracy ${(100 * value("conditional_accuracy")).toFixed(1)} %`);
  }
  return `${parts.join(" · ")}.`;
}

function conditional() {
  const train = about.card && about.card.settings && about.card.settings.train;
  return !train || train.conditional !== false;
}

// --- Images.

const pngUrl = (cell) => `data:image/png;base64,${cell.b64}`;

function floatsToUrl(rows) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIZE, SIZE);
  rows.flat(2).forEach((value, index) => {
    const gray = Math.round((Math.min(1, Math.max(-1, value)) + 1) * 127.5);
    image.data.set([gray, gray, gray, 255], index * 4);
  });
  context.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}

function show(name, images, body, perRow) {
  shown[name] = { images, body, perRow };
  by(`#${name}-images`).replaceChildren(...images.map(({ url, alt }) => {
    const item = document.createElement("li");
    if (!url) {
      item.className = "gap";
      return item;
    }
    const image = new Image(SIZE, SIZE);
    image.src = url;
    image.alt = image.title = alt;
    item.append(image);
    return item;
  }));
}

// --- What each form draws.

const named = (digit, seed) => `${digit < 0 ? "a digit" : `a ${digit}`}, seed ${seed}`;

async function draw(form) {
  const chosen = [...form.querySelectorAll("#digits input:checked")].map((box) => Number(box.value));
  const digits = chosen.length && conditional() ? chosen : [-1];
  const [count, first] = [Number(form.count.value), Number(form.seed.value)];
  const seed = Array.from({ length: count }, (_, index) => first + index);
  const body = { inputs: { seed, digit: seed.map((_, index) => digits[index % digits.length]) } };
  const outputs = await ask(body);
  return () => show("draw", outputs.image_bytes.map((cell, index) => (
    { url: pngUrl(cell), alt: named(outputs.digit[index], seed[index]) })), body, 10);
}

async function write(form) {
  const characters = [...form.number.value];
  const digit = characters.filter((c) => c >= "0" && c <= "9").map(Number);
  if (!digit.length) throw new Error("Type at least one digit from 0 to 9.");
  const first = Number(form.seed.value);
  const seed = digit.map((_, index) => first + index);
  const body = { inputs: { seed, digit } };
  const outputs = await ask(body);
  let next = 0;
  const images = characters.map((c) => {
    if (c < "0" || c > "9") return {};
    next += 1;
    return { url: pngUrl(outputs.image_bytes[next - 1]), alt: c };
  });
  return () => show("write", images, body, images.length);
}

// Latents of a small generator of our own: those of the model's seeds stay in the model.
function latentOf(seed, size, uniform) {
  let state = seed >>> 0;
  const random = () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Array.from({ length: size }, () => (uniform ? 2 * random() - 1 : normal()));
}

// Normal latents lie near a sphere, so the way between two goes along it (White 2016).
function between(a, b, share, uniform) {
  const dot = (x, y) => x.reduce((sum, value, index) => sum + value * y[index], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)))));
  const round = !uniform && angle > 1e-6;
  const [p, q] = round
    ? [Math.sin((1 - share) * angle) / Math.sin(angle), Math.sin(share * angle) / Math.sin(angle)]
    : [1 - share, share];
  return a.map((value, index) => Number((p * value + q * b[index]).toFixed(5)));
}

async function walk(form) {
  const train = (about.card && about.card.settings && about.card.settings.train) || {};
  const uniform = train.latent === "uniform";
  const [a, b] = [form.from, form.to].map(({ value }) => latentOf(Number(value), about.latent_dim, uniform));
  const ends = conditional() ? [Number(form.first.value), Number(form.last.value)] : [-1, -1];
  const shares = Array.from({ length: STEPS }, (_, index) => index / (STEPS - 1));
  const digit = shares.map((share) => ends[share < 0.5 ? 0 : 1]);
  const latent = shares.map((share) => between(a, b, share, uniform));
  const body = { signature_name: "from_latent", inputs: { latent, digit } };
  const outputs = await ask(body);
  return () => {
    show("walk", outputs.image.map((rows, index) => (
      { url: floatsToUrl(rows), alt: `step ${index + 1} of ${STEPS}` })), body, STEPS);
    const change = ends[0] === ends[1] ? "" : " Half-way the one digit gives place to the other.";
    by("#walk-note").textContent = `These seeds are the page's own and give other digits than above.${change}`;
    standAt(form);
  };
}

function standAt(form) {
  if (!shown.walk) return;
  const place = Number(form.place.value);
  const { url, alt } = shown.walk.images[place];
  by("#walk-large").src = url;
  by("#walk-large").alt = alt;
  by("#walk-images").childNodes.forEach((item, index) => item.classList.toggle("here", index === place));
}

// --- Forms.

function keepDrawn(name, work) {
  const form = by(`#${name}`);
  const list = by(`#${name}-images`);
  let latest = 0;
  let waiting = 0;
  const refresh = async () => {
    const mine = ++latest;
    const wrong = form.querySelector("input:invalid");
    if (wrong) return tell(name, `${wrong.closest("label").textContent.trim()}: ${wrong.validationMessage}`);
    list.classList.add("busy");
    try {
      const render = await work(form);
      if (mine !== latest) return;
      render();
      tell(name, "");
      say(`${list.getAttribute("aria-label")}: ${list.querySelectorAll("img").length} images.`);
    } catch (error) {
      if (mine === latest) tell(name, error instanceof TypeError ? SILENT : error.message);
    }
    if (mine === latest) list.classList.remove("busy");
  };
  form.addEventListener("input", (event) => {
    if (event.target.name === "place") return standAt(form);
    clearTimeout(waiting);
    waiting = setTimeout(refresh, 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  addActions(name);
  return refresh;
}

function tell(name, message) {
  troubles[name] = message;
  const text = [...new Set(Object.values(troubles))].join(" ").trim();
  if (by("#trouble").textContent !== text) by("#trouble").textContent = text; // Else it is read out again.
  by("#trouble").hidden = !text;
}

function addActions(name) {
  const button = (text, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", () => shown[name] && act(shown[name]));
    return made;
  };
  by(`[data-for="${name}"]`).append(
    button("Download PNG", (what) => download(name, what)),
    button("Copy as curl", async ({ body }) => {
      await copy(`curl -s -H 'Content-Type: application/json' -d '${JSON.stringify(body)}' '${predictUrl}'`);
      say("Copied: a curl line that gives the same images.");
    }),
  );
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers have no clipboard on plain http, but on localhost.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function say(text) {
  by("#announcement").textContent = text;
}

async function download(name, { images, perRow }) {
  const scale = 4;
  const columns = Math.min(perRow, images.length);
  const canvas = document.createElement("canvas");
  canvas.width = columns * SIZE * scale;
  canvas.height = Math.ceil(images.length / columns) * SIZE * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.fillRect(0, 0, canvas.width, canvas.height);
  await Promise.all(images.map(async ({ url }, index) => {
    if (!url) return;
    const image = new Image();
    image.src = url;
    await image.decode();
    const [x, y] = [index % columns, Math.floor(index / columns)].map((n) => n * SIZE * scale);
    context.drawImage(image, x, y, SIZE * scale, SIZE * scale);
  }));
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `digits-${name}.png`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function addDigitChoices() {
  for (let digit = 0; digit < 10; digit += 1) {
    const label = document.createElement("label");
    const [box, mark] = [document.createElement("input"), document.createElement("span")];
    Object.assign(box, { type: "checkbox", value: digit });
    mark.textContent = digit;
    label.append(box, mark);
    by("#digits").append(label);
    // Those that it starts with differ, and what lies between them can be seen.
    for (const [name, chosen] of [["first", 4], ["last", 9]]) {
      by("#walk")[name].append(new Option(digit, digit, false, digit === chosen));
    }
  }
}

async function start() {
  addDigitChoices();
  try {
    await readAbout();
  } catch {
    return tell("about", SILENT);
  }
  document.querySelectorAll("[data-conditional]").forEach((part) => { part.hidden = !conditional(); });
  by("#walk-section").hidden = !about.latent_dim;
  const forms = [["draw", draw]];
  if (conditional()) forms.push(["write", write]);
  if (about.latent_dim) forms.push(["walk", walk]);
  const drawings = forms.map(([name, work]) => keepDrawn(name, work));
  by("#another").addEventListener("click", () => {
    by("#draw").seed.value = Math.floor(Math.random() * 1e9);
    drawings[0]();
  });
  drawings.forEach((refresh) => refresh());
  // A new version is picked up by the server; say so here too.
  setInterval(() => readAbout().then(() => tell("about", ""), () => tell("about", SILENT)), 30000);
}

start();
