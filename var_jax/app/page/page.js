// Choosing classes and settings, drawing, and the gallery of pictures that grow scale by scale.

export const $ = (id) => document.getElementById(id);
export const model = await (await fetch("/model")).json();

const MOST_PICTURES = 64; // of one press of the button
const FRAME_MS = 280;
const SHOWN = 192; // pixels of the screen that a picture is brought to, in whole steps
const tiles = [];
let stopped = false;

/** Shows an error in one line, until something else is tried. */
export function complain(line) {
  $("error").textContent = line;
  $("error").hidden = !line;
}

/** The answer to a request, or an Error with the server's line. */
export async function ask(address, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("var-jax app does not answer: has it ended?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** A number as it stands in a field; an empty or half-written one, or one out of its range, is named. */
export function number(id) {
  const field = $(id);
  const { rangeUnderflow, rangeOverflow } = field.validity;
  if (!Number.isFinite(field.valueAsNumber) || rangeUnderflow || rangeOverflow) {
    const name = field.closest("label").textContent.trim().split("\n")[0].trim();
    const most = field.max && ` to ${field.max}`;
    throw new Error(`${name}: expected a number from ${field.min}${most || " up"}.`);
  }
  return field.valueAsNumber;
}

/** The sampling options of drawing and of editing. */
export function settings() {
  const kind = $("schedule").value;
  const numbers = $("schedule_numbers").value.replaceAll(" ", "");
  return {
    guidance: $("guidance").valueAsNumber,
    top_k: number("top_k"),
    top_p: number("top_p"),
    temperature: number("temperature"),
    smooth: $("smooth").checked,
    schedule: kind === "interval" || kind === "power" ? `${kind}:${numbers}` : kind,
    seed: number("seed"),
  };
}

/** A PNG file in base64 as a Blob. */
export function pngBlob(base64) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });
}

/** Whole screen pixels per pixel of a picture that wide. */
const magnified = (width) => Math.max(1, Math.round(SHOWN / width));

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A picture of the gallery: its frames, and which one is shown. */
class Tile {
  constructor(frames, name, label) {
    this.files = frames.map(pngBlob);
    this.frames = this.files.map((file) => URL.createObjectURL(file));
    this.image = element("img", { alt: name, width: model.size * magnified(model.size) });
    this.image.classList.toggle("coarse", magnified(model.size) > 1);
    this.saving = element("a", { className: "button", textContent: "Save", download: `${name}.png` });
    const editing = element("button", { type: "button", textContent: "Edit" });
    editing.addEventListener("click", () => {
      const file = this.files[this.frames.indexOf(this.image.src)];
      document.dispatchEvent(new CustomEvent("edit", { detail: { file, label } }));
    });
    const caption = element("figcaption", {}, element("span", { textContent: name, title: name }), editing, this.saving);
    this.figure = element("figure", {}, this.image, caption);
    this.show(this.frames.length);
  }

  show(scale) {
    this.image.src = this.saving.href = this.frames[scale - 1];
  }

  drop() {
    clearInterval(this.timer);
    this.frames.forEach((frame) => URL.revokeObjectURL(frame));
  }

  grow() {
    clearInterval(this.timer);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    let scale = 1;
    this.show(scale);
    this.timer = setInterval(() => {
      scale += 1;
      if (scale >= this.frames.length) clearInterval(this.timer);
      this.show(Math.min(scale, this.frames.length));
    }, FRAME_MS);
  }
}

function showScale(scale) {
  $("scale").value = scale;
  $("scale_value").textContent = `${model.sides[scale - 1]}x${model.sides[scale - 1]} (${scale} of ${model.sides.length})`;
}

function chosen() {
  const labels = [...document.querySelectorAll("#classes input:checked")].map((box) => Number(box.value));
  if ($("unlabelled").checked) labels.push(null);
  return labels;
}

async function draw() {
  complain("");
  stopped = false;
  try {
    const labels = chosen();
    if (!labels.length) throw new Error("Choose a class first, or “without a class”.");
    const each = number("per_class");
    const wanted = labels.flatMap((label) => Array.from({ length: each }, (_, index) => [label, index]));
    if (wanted.length > MOST_PICTURES) {
      throw new Error(`${wanted.length} pictures: choose ${MOST_PICTURES} at most at a time.`);
    }
    await drawn(wanted, settings());
  } catch (error) {
    complain(error.message);
  }
  $("draw").disabled = false;
  $("stop").hidden = true;
}

async function drawn(wanted, options) {
  $("draw").disabled = true;
  $("stop").hidden = false;
  tiles.forEach((tile) => tile.drop());
  tiles.length = 0;
  $("gallery").replaceChildren();
  showScale(model.sides.length);
  try {
    for (let start = 0; start < wanted.length && !stopped; start += model.most_pictures) {
      $("progress").textContent = `${start} of ${wanted.length} drawn`;
      const part = wanted.slice(start, start + model.most_pictures);
      const answer = await ask("/sample", { ...options, pictures: part });
      answer.pictures.forEach((picture, place) => add(picture.frames, part[place][0]));
    }
    $("progress").textContent = `${tiles.length} of ${wanted.length} drawn`;
  } catch (error) {
    $("progress").textContent = "";
    throw error;
  }
}

function add(frames, label) {
  const tile = new Tile(frames, label === null ? "no class" : model.classes[label], label);
  tiles.push(tile);
  $("gallery").append(tile.figure);
  $("growth").hidden = false;
  tile.grow();
}

/** All pictures at the scale that is shown, as one file. */
async function saveGrid(event) {
  event.preventDefault();
  await Promise.all(tiles.map((tile) => tile.image.decode()));
  const columns = Math.ceil(Math.sqrt(tiles.length));
  const step = model.size + 2;
  const canvas = element("canvas", { width: columns * step - 2, height: Math.ceil(tiles.length / columns) * step - 2 });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  tiles.forEach((tile, place) => {
    context.drawImage(tile.image, (place % columns) * step, Math.floor(place / columns) * step);
  });
  element("a", { href: canvas.toDataURL("image/png"), download: "pictures.png" }).click();
}

function listClasses() {
  model.classes.forEach((name, label) => {
    const box = element("input", { type: "checkbox", value: label, checked: label === 0 });
    $("classes").append(element("label", {}, box, ` ${name}`));
  });
  $("filter").addEventListener("input", () => {
    const sought = $("filter").value.trim().toLowerCase();
    for (const line of $("classes").children) line.hidden = !line.textContent.toLowerCase().includes(sought);
  });
  $("all").addEventListener("click", () => {
    document.querySelectorAll("#classes label:not([hidden]) input").forEach((box) => (box.checked = true));
  });
  $("clear").addEventListener("click", () => {
    document.querySelectorAll("#classes input").forEach((box) => (box.checked = false));
  });
}

const SCHEDULE_NUMBERS = { interval: ["From, to (0 to 1)", "0.2,0.8"], power: ["Exponent", "2"] };

/** The fields of the sampling options begin with the defaults of every command. */
function fillSettings() {
  model.schedules.forEach((kind) => $("schedule").append(element("option", { textContent: kind })));
  for (const name of ["guidance", "top_k", "top_p", "temperature", "schedule"]) $(name).value = model.defaults[name];
  $("smooth").checked = model.defaults.smooth;
}

function listen() {
  $("schedule").addEventListener("change", () => {
    const numbers = SCHEDULE_NUMBERS[$("schedule").value];
    $("schedule_row").hidden = !numbers;
    if (numbers) [$("schedule_label").textContent, $("schedule_numbers").value] = numbers;
  });
  const showGuidance = () => ($("guidance_value").textContent = $("guidance").value);
  $("guidance").addEventListener("input", showGuidance);
  showGuidance();
  $("new_seed").addEventListener("click", () => ($("seed").value = Math.floor(Math.random() * model.largest_seed)));
  $("draw").addEventListener("click", draw);
  $("stop").addEventListener("click", () => {
    stopped = true;
    $("progress").textContent += ", stopping";
  });
  $("scale").max = model.sides.length;
  $("scale").addEventListener("input", () => {
    const scale = $("scale").valueAsNumber;
    showScale(scale);
    tiles.forEach((tile) => {
      clearInterval(tile.timer);
      tile.show(scale);
    });
  });
  $("play").addEventListener("click", () => {
    showScale(model.sides.length);
    tiles.forEach((tile) => tile.grow());
  });
  $("save_grid").addEventListener("click", saveGrid);
}

listClasses();
fillSettings();
listen();
$("model").textContent = `${model.size} x ${model.size} pixels, ${model.sides.length} scales, ${model.classes.length} classes`;
$("draw").disabled = false;
