// The page: shows a ticket, takes strokes or a picture, and shows what its network answers.
"use strict";
const { readTicket, readPack } = kerasPopupTicket, { buildModel, softmax } = kerasPopupNetwork;
const find = (id) => document.getElementById(id), pad = find("pad");
const MAX_BYTES = 2 ** 28;
let shown = null; // {model, names, range}: the network of the ticket that is shown
let strokes = [], picture = null, drawing = false, scheduled = false;

// ---- the ticket

async function showTicket(bytes, name, options = {}) {
  const begin = performance.now(), ticket = await readTicket(bytes, { maxBytes: MAX_BYTES, ...options });
  const model = buildModel(ticket), { made } = ticket.manifest;
  const outputs = model.run(new Float32Array(count(model.inputShape)));
  const time = performance.now() - begin;
  const known = Array.isArray(made.classes) && made.classes.length === outputs.length;
  const names = Array.from(outputs, (_, i) => String(known ? made.classes[i] : i));
  // Whoever put preprocessing layers into the model feeds it pixels. Other models mostly take values up to 1.
  shown = { model, names, range: made.preprocessing?.length ? 255 : 1 };
  const weights = total(ticket.masks, "size"), kept = total(ticket.masks, "kept");
  find("bytes").textContent = `${number(ticket.bytes)} bytes`;
  find("name").textContent = name;
  find("origin").textContent = made.dataset ? `trained on ${made.dataset}` : "";
  const facts = [["random weights", number(weights)],
    ["of them kept", `${number(kept)} (${(100 * kept / weights).toFixed(0)} %)`],
    ["bits per weight, in all", (8 * ticket.bytes / weights).toFixed(2)],
    ["as float32", `${number(4 * weights)} bytes`]];
  const accuracy = made.metrics?.accuracy;
  if (typeof accuracy === "number") facts.push(["test accuracy", `${(100 * accuracy).toFixed(1)} %`]);
  facts.push(["decoded in", `${time.toFixed(0)} ms`]);
  find("facts").replaceChildren(...facts.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
  find("layers").replaceChildren(...ticket.masks.map((mask) => element("tr", {},
    ...[mask.layer, number(mask.size), number(mask.kept), number(mask.bytes)].map((cell) => element("td", {}, cell)))));
  const flags = Object.entries({ dataset: made.dataset, ...made.arguments })
    .filter(([, value]) => typeof value !== "object").map(([flag, value]) => `--${flag} ${value}`);
  find("command").hidden = !made.arguments;
  find("command").replaceChildren(...["keras-popup train", ...flags, "--out run"].flatMap((part) =>
    [element("span", {}, part), " "]), "\nkeras-popup ticket pack run"); // lines break between flags
  find("shape").textContent = model.inputShape.join(" × ") + (model.inputShape.length > 1 ? " pixels" : " values");
  makeBars();
  clear();
}

async function showFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  find("error").hidden = true;
  try {
    if (file.type.startsWith("image/")) return await showPicture(file);
    find("tasks").hidden = true;
    if (bytes[3] === 0x50 && bytes[2] === 0x50) return await showPack(bytes, file.name);
    return await showTicket(bytes, file.name);
  } catch (error) {
    find("error").hidden = false;
    find("error").textContent = `'${file.name}' cannot be used: ${error.message}.`;
  }
}

async function showPack(bytes, name) { // several tickets over one base
  const pack = await readPack(bytes, { maxBytes: MAX_BYTES });
  const base = pack.base && await readTicket(pack.base, { maxBytes: MAX_BYTES });
  const show = (task) => showTicket(task.content, `${task.name}, a task of ${name}`, { base });
  find("tasks").replaceChildren(...pack.tasks.map((task) => element("option", {}, task.name)));
  find("tasks").onchange = () => show(pack.tasks[find("tasks").selectedIndex]);
  find("tasks").hidden = false;
  await show(pack.tasks[0]);
}

async function showPicture(file) { // its centre, in the size that the network takes; grey if it takes one channel
  const [height, width, channels] = shown.model.inputShape;
  if (![1, 3].includes(channels)) throw new Error(`this network takes ${shown.model.inputShape}, and no picture`);
  const image = await createImageBitmap(file), side = Math.min(image.width / width, image.height / height);
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d");
  const [w, h] = [side * width, side * height];
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, (image.width - w) / 2, (image.height - h) / 2, w, h, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  let pixels = Float64Array.from({ length: height * width * channels }, (_, i) => {
    const [r, g, b] = data.subarray(4 * Math.floor(i / channels));
    return (channels === 3 ? [r, g, b][i % 3] : 0.2989 * r + 0.587 * g + 0.114 * b) / 255;
  });
  const border = pixels.filter((_, i) => i % width === 0 || i % width === width - 1);
  if (channels === 1 && border.reduce((sum, v) => sum + v, 0) > border.length / 2) pixels = pixels.map((v) => 1 - v);
  clear();
  picture = pixels;
  update();
}

// ---- the answer

function makeBars() {
  const rows = Math.min(shown.names.length, 10);
  find("bars").replaceChildren(...Array.from({ length: rows }, (_, i) => element("li", {},
    element("span", {}, shown.names[i]), element("div", { className: "track" }, element("div", { className: "fill" })),
    element("span", { className: "value" }))));
}

function update() {
  scheduled = false;
  if (!shown) return;
  const [height, width, channels = 1] = shown.model.inputShape;
  const pixels = picture ?? (channels === 1 && width ? kerasPopupDrawing.drawStrokes(strokes, [height, width]) : null);
  find("hint").hidden = Boolean(strokes.length);
  find("hint").textContent = channels === 1 ? "Draw a digit here" : "This network takes colours: drop a picture";
  drawPad();
  drawSeen(pixels ?? new Float64Array(0), height, width ?? 1, channels);
  const outputs = pixels && shown.model.run(pixels.map((v) => (shown.range === 255 ? Math.round(255 * v) : v)));
  const shares = outputs ? Array.from(isDistribution(outputs) ? outputs : softmax(outputs)) : shown.names.map(() => 0);
  const order = shares.map((_, i) => i);
  if (order.length > 10) order.sort((a, b) => shares[b] - shares[a]);
  const best = outputs ? shares.indexOf(Math.max(...shares)) : -1;
  [...find("bars").children].forEach((row, i) => {
    const share = shares[order[i]];
    row.className = order[i] === best ? "best" : "";
    row.children[0].textContent = shown.names[order[i]];
    row.querySelector(".fill").style.width = `${100 * share}%`;
    row.children[2].textContent = outputs ? `${(100 * share).toFixed(1)} %` : "";
  });
  find("answer").textContent = best < 0 ? "?" : shown.names[best];
  find("answer").className = best >= 0 && shown.names[best].length > 2 ? "long" : "";
  const share = (100 * shares[best]).toFixed(1);
  find("sure").textContent = best < 0 ? "Nothing drawn yet" : `The network gives it ${share} %.`;
}

const isDistribution = (values) => // whether the network ends in a softmax itself
  values.every((v) => v >= 0) && Math.abs(values.reduce((sum, v) => sum + v, 0) - 1) < 1e-3;

function drawSeen(pixels, height, width, channels) {
  const canvas = find("seen"), context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 4; c++)
      image.data[4 * i + c] = c === 3 ? 255 : 255 * (pixels[i * channels + Math.min(c, channels - 1)] ?? 0);
  context.putImageData(image, 0, 0);
}

// ---- drawing

function drawPad() {
  const side = pad.clientWidth, scale = window.devicePixelRatio || 1, context = pad.getContext("2d");
  [pad.width, pad.height] = [side * scale, side * scale];
  Object.assign(context, { lineWidth: 0.06 * pad.width, lineCap: "round", lineJoin: "round",
    strokeStyle: getComputedStyle(document.body).color });
  for (const stroke of strokes) {
    context.beginPath();
    stroke.forEach(([x, y]) => context.lineTo(x * pad.width, y * pad.width));
    if (stroke.length === 1) context.lineTo(stroke[0][0] * pad.width, stroke[0][1] * pad.width);
    context.stroke();
  }
}

const schedule = () => { if (!scheduled) { scheduled = true; requestAnimationFrame(update); } };
function clear() { [strokes, picture, drawing] = [[], null, false]; update(); }
const pointOf = (event) => {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
pad.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button) return;
  event.preventDefault();
  pad.setPointerCapture(event.pointerId);
  [picture, drawing] = [null, true];
  strokes.push([pointOf(event)]);
  schedule();
});
pad.addEventListener("pointermove", (event) => {
  if (!drawing || !event.isPrimary) return;
  for (const each of event.getCoalescedEvents?.() ?? []) strokes.at(-1).push(pointOf(each));
  strokes.at(-1).push(pointOf(event));
  schedule();
});
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { drawing = false; });

const arc = (x, y, rx, ry, from, to) => Array.from({ length: 33 }, (_, i) => {
  const angle = (from + (to - from) * i / 32) * Math.PI / 180;
  return [x + rx * Math.cos(angle), y + ry * Math.sin(angle)];
});
const EXAMPLES = [ // lines of points, in hundredths of the pad
  [arc(50, 50, 24, 36, -90, 270)],
  [[[38, 28], [52, 14], [52, 86]]],
  [[...arc(50, 34, 22, 20, -170, 30), [30, 86], [74, 86]]],
  [[...arc(48, 32, 21, 18, -160, 90), ...arc(48, 68, 24, 18, -90, 160)]],
  [[[56, 14], [27, 60], [78, 60]], [[60, 38], [58, 86]]],
  [[[70, 14], [36, 14], [34, 45], ...arc(48, 65, 24, 21, -110, 150)]],
  [[[62, 14], [38, 42], ...arc(50, 66, 20, 20, 200, -160)]],
  [[[27, 16], [73, 16], [46, 86]], [[36, 50], [68, 50]]],
  [[...arc(50, 32, 16, 17, 90, -270), ...arc(50, 68, 18, 18, -90, 270)]],
  [[...arc(48, 34, 19, 19, -20, 340), [66, 36], [58, 86]]],
];
let next = 3;
find("example").onclick = () => {
  clear();
  strokes = EXAMPLES[next].map((stroke) => stroke.map(([x, y]) => [x / 100, y / 100]));
  next = (next + 7) % 10;
  update();
};
find("clear").onclick = clear;
find("file").onchange = async ({ target }) => {
  if (target.files[0]) await showFile(target.files[0]);
  target.value = ""; // so that the same file can be opened again
};
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", over);
    if (kind === "drop" && event.dataTransfer.files[0]) showFile(event.dataTransfer.files[0]);
  });
addEventListener("resize", drawPad);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPad);

// ---- small things

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
const number = (value) => value.toLocaleString("en");
const count = (shape) => shape.reduce((all, size) => all * size, 1);
const total = (items, name) => items.reduce((all, item) => all + item[name], 0);

const { textContent: text, dataset } = find("embedded");
showFile(new File([Uint8Array.from(atob(text.trim()), (char) => char.charCodeAt(0))], dataset.name));
