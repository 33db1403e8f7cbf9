// The editor: a picture, a mask painted over it, and the tasks that use both.

import { $, ask, complain, element, model, number, pngBlob, settings } from "/page.js";

const SHOWN = 330; // pixels of the screen that a picture is brought to
const MOST_UNDONE = 20;
const MARK = [214, 40, 57]; // the colour of the mask
const HINTS = {
  inpaint: "Paint over the part to be drawn anew.",
  outpaint: "Add room at the sides; or paint the part that stays, everything else is drawn anew.",
  class: "Paint a region: it becomes the class below.",
  vary: "Keeps the coarse scales and draws the finer ones, in the painted part or everywhere.",
  upscale: "Enlarges the whole picture and renders its edges anew.",
};
const picture = $("picture");
const mask = $("mask");
const past = []; // earlier versions, as files
let current = null; // the picture as a file (Blob)
let marks = null; // ImageData of the mask: alpha 0 or 255
let last = null; // where the brush was

/** Shows a picture file, with an empty mask. */
async function open(blob) {
  const bitmap = await createImageBitmap(blob);
  const times = bitmap.width > SHOWN ? SHOWN / bitmap.width : Math.floor(SHOWN / bitmap.width);
  for (const canvas of [picture, mask]) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.style.width = `${bitmap.width * times}px`;
    canvas.style.height = `${bitmap.height * times}px`;
  }
  picture.classList.toggle("coarse", times > 1);
  picture.getContext("2d").drawImage(bitmap, 0, 0);
  $("size").textContent = `${bitmap.width} x ${bitmap.height} pixels`;
  $("brush").max = Math.max(2, Math.round(Math.max(bitmap.width, bitmap.height) / 3));
  showBrush();
  current = blob;
  URL.revokeObjectURL($("save").href);
  $("save").href = URL.createObjectURL(blob);
  $("undo").disabled = !past.length;
  $("work").hidden = false;
  wipe();
}

function wipe() {
  marks = new ImageData(mask.width, mask.height);
  for (let at = 0; at < marks.data.length; at += 4) marks.data.set(MARK, at);
  mask.getContext("2d").putImageData(marks, 0, 0);
}

function showBrush() {
  $("brush_value").textContent = `${$("brush").value} pixels`;
}

/** Where on the picture a pointer is, in its pixels. */
function place(event) {
  const box = mask.getBoundingClientRect();
  return [((event.clientX - box.left) * mask.width) / box.width, ((event.clientY - box.top) * mask.height) / box.height];
}

/** Marks, or clears, every pixel whose middle is within half a brush of a point. */
function stamp(x, y) {
  const radius = $("brush").valueAsNumber / 2;
  const alpha = document.querySelector("input[name=tool]:checked").value === "paint" ? 255 : 0;
  const [left, right] = [Math.max(0, Math.floor(x - radius)), Math.min(mask.width, Math.ceil(x + radius))];
  const [top, bottom] = [Math.max(0, Math.floor(y - radius)), Math.min(mask.height, Math.ceil(y + radius))];
  for (let row = top; row < bottom; row += 1) {
    for (let column = left; column < right; column += 1) {
      const near = Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius;
      const under = column === Math.floor(x) && row === Math.floor(y);
      if (near || under) marks.data[4 * (row * mask.width + column) + 3] = alpha;
    }
  }
  mask.getContext("2d").putImageData(marks, 0, 0, left, top, right - left, bottom - top);
}

function stroke(event) {
  const [x, y] = place(event);
  const [fromX, fromY] = last ?? [x, y];
  const steps = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY) / Math.max(1, $("brush").valueAsNumber / 4)));
  for (let step = 1; step <= steps; step += 1) {
    stamp(fromX + ((x - fromX) * step) / steps, fromY + ((y - fromY) * step) / steps);
  }
  last = [x, y];
}

const painted = () => marks.data.some((value, at) => at % 4 === 3 && value);

/** The mask as a picture file, white where marked. */
function maskFile() {
  const file = new ImageData(mask.width, mask.height);
  for (let at = 0; at < file.data.length; at += 4) {
    file.data.fill(marks.data[at + 3], at, at + 3);
    file.data[at + 3] = 255;
  }
  const canvas = element("canvas", { width: mask.width, height: mask.height });
  canvas.getContext("2d").putImageData(file, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** A file's bytes in base64. */
function base64(blob) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result.split(",")[1]));
    reader.readAsDataURL(blob);
  });
}

async function request() {
  const task = $("task").value;
  const extend = ["left", "top", "right", "bottom"].map(number);
  const extending = task === "outpaint" && extend.some((pixels) => pixels > 0);
  const marked = task !== "upscale" && !extending && painted();
  if (["inpaint", "class"].includes(task) && !marked) throw new Error("Paint over a part of the picture first.");
  if (task === "outpaint" && !marked && !extending) {
    throw new Error("Say how many pixels to add at which side, or paint the part that stays.");
  }
  return {
    ...settings(),
    task,
    image: await base64(current),
    mask: marked ? await base64(await maskFile()) : null,
    extend: extending ? extend : null,
    class: task === "upscale" || $("edit_class").value === "" ? null : Number($("edit_class").value),
    keep_scales: task === "vary" ? number("keep") : null,
    factor: number("factor"),
  };
}

async function apply() {
  complain("");
  $("apply").disabled = true;
  try {
    const edit = await request();
    $("edit_progress").textContent = "drawing…";
    const answer = await ask("/edit", edit);
    past.push(current);
    if (past.length > MOST_UNDONE) past.shift();
    await open(pngBlob(answer.image));
    $("edit_progress").textContent = "done";
    for (const side of ["left", "top", "right", "bottom"]) $(side).value = 0;
  } catch (error) {
    $("edit_progress").textContent = "";
    complain(error.message);
  }
  $("apply").disabled = false;
}

async function upload() {
  complain("");
  const [file] = $("upload").files;
  if (!file) return;
  try {
    if (file.size > model.most_upload) {
      throw new Error(`${file.name}: ${model.most_upload / 2 ** 20} MiB at most are taken; send a smaller picture.`);
    }
    await open(file).catch(() => {
      throw new Error(`${file.name}: is no picture that can be shown.`);
    });
    past.length = 0;
    $("undo").disabled = true;
  } catch (error) {
    complain(error.message);
    $("upload").value = "";
  }
}

/** Shows the fields that belong to the chosen task. */
function showTask() {
  const task = $("task").value;
  $("task_hint").textContent = HINTS[task];
  $("painting").hidden = mask.hidden = task === "upscale";
  $("room").hidden = task !== "outpaint";
  $("factor_row").hidden = task !== "upscale";
  $("keep_row").hidden = task !== "vary";
  $("class_row").hidden = task === "upscale";
}

function listen() {
  const names = { inpaint: "In-paint", outpaint: "Out-paint", class: "Change class", vary: "Vary", upscale: "Enlarge" };
  model.tasks.forEach((task) => $("task").append(element("option", { value: task, textContent: names[task] })));
  $("edit_class").append(element("option", { value: "", textContent: "none" }));
  model.classes.forEach((name, label) => {
    $("edit_class").append(element("option", { value: label, textContent: name }));
  });
  $("keep").max = model.sides.length;
  $("keep").value = Math.floor(model.sides.length / 2);
  $("task").addEventListener("change", showTask);
  $("brush").addEventListener("input", showBrush);
  mask.addEventListener("pointerdown", (event) => {
    mask.setPointerCapture(event.pointerId);
    last = null;
    stroke(event);
  });
  mask.addEventListener("pointermove", (event) => event.buttons && stroke(event));
  $("wipe").addEventListener("click", wipe);
  $("invert").addEventListener("click", () => {
    for (let at = 3; at < marks.data.length; at += 4) marks.data[at] = 255 - marks.data[at];
    mask.getContext("2d").putImageData(marks, 0, 0);
  });
  $("upload").addEventListener("change", upload);
  $("apply").addEventListener("click", apply);
  $("undo").addEventListener("click", () => open(past.pop()));
  document.addEventListener("edit", async (event) => {
    past.length = 0;
    $("upload").value = "";
    if (event.detail.label !== null) $("edit_class").value = event.detail.label;
    await open(event.detail.file);
    $("editor").scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
}

listen();
showTask();
