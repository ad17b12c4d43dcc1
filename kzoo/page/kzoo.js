/**
 * From a picture to an answer, in the browser: what Python's kzoo does with a LiteRT file and its card.
 *
 * 1. Pixels: a picture as the image that the model takes, equal to `kzoo.images.Pixels`.
 * 2. Numbers: pixels as the file's input, the file's output as numbers.
 * 3. Answers: numbers as probabilities, classes and masks, equal to `kzoo.output.Output`.
 * 4. Runtime: a file in LiteRT.js.
 * 5. Page: what index.html shows.
 *
 * Parts 1 to 4 touch no document and run in Node too. Nothing here sends anything anywhere.
 *
 * @typedef {{width: number, height: number, data: Uint8ClampedArray}} Picture  RGBA, as ImageData has it
 * @typedef {{width: number, height: number, channels: number, data: Uint8ClampedArray|Float32Array}} Image
 * @typedef {{resize: "stretch"|"crop"|"pad", crop: number, interpolation: "bilinear"|"bicubic"}} Pixels  of a card
 * @typedef {{shape: number[], dtype: string, scale?: number, zero_point?: number}} Told  of a tensor, in a card
 * @typedef {{task: string, values: string, units: number, class_names: string[]|null}} Output  of a card
 */

/** What the user can mend; its message is shown as it is. */
export class Mistake extends Error {}

// ---------------------------------------------------------------------------------------------------- 1. Pixels

const SLIMMEST = 50; // a picture is cropped to this many times its shorter side before it is enlarged
const PRECISION = 22; // bits of Pillow's weights behind the point

/** Pillow's filters: how far they reach, and their weight at a distance. */
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: bicubic },
};

/** Pillow's arithmetic: 8 bits in fixed point, maps of numbers in floating point. */
const BYTES = {
  array: Uint8ClampedArray,
  weight: (w) => Math.trunc(w * 2 ** PRECISION + (w < 0 ? -0.5 : 0.5)),
  finish: (sum) => (sum + 2 ** (PRECISION - 1)) >> PRECISION,
};
const FLOATS = { array: Float32Array, weight: (w) => w, finish: (sum) => sum };

function bicubic(x) {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/**
 * The pixels of 0 to 255 that a model takes of a picture: `shape` (height, width, channels), 3 channels or 1 (grey).
 *
 * @param {Picture} picture  upright, of any size
 * @param {number[]} shape
 * @param {Pixels} pixels
 * @returns {Uint8ClampedArray}
 */
export function toPixels(picture, [height, width, channels], pixels) {
  let image = toChannels(picture, channels);
  if (pixels.resize === "crop") {
    const short = SLIMMEST * Math.min(image.width, image.height); // a sliver would be enlarged far beyond what is kept
    image = centre(image, Math.min(image.height, short), Math.min(image.width, short));
  }
  const size = resizedSize(image.width, image.height, [height, width], pixels);
  return centre(resize(image, size.width, size.height, pixels.interpolation), height, width).data;
}

/** A picture without its alpha, on white, as RGB or grey. */
export function toChannels({ width, height, data }, channels) {
  const flat = new Uint8ClampedArray(width * height * channels);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    const alpha = data[from + 3];
    const red = overWhite(data[from], alpha);
    const green = overWhite(data[from + 1], alpha);
    const blue = overWhite(data[from + 2], alpha);
    if (channels === 1) {
      flat[to++] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16; // ITU-R 601-2, as Pillow has it
    } else {
      flat[to++] = red;
      flat[to++] = green;
      flat[to++] = blue;
    }
  }
  return { width, height, channels, data: flat };
}

/** One channel with its alpha on white, in the integers of Pillow's `alpha_composite`. */
function overWhite(value, alpha) {
  if (alpha === 255) return value;
  const sum = (value * alpha + 255 * (255 - alpha) + 0x80) * 128;
  return ((sum >> 8) + sum) >> 15;
}

/** Size of the whole picture before it is cropped or padded to (height, width). */
function resizedSize(pictureWidth, pictureHeight, [height, width], { resize, crop }) {
  if (resize === "stretch") return { width, height };
  if (resize === "crop") [height, width] = [Math.floor(height / crop), Math.floor(width / crop)];
  const taller = pictureHeight * width >= pictureWidth * height; // than what it must fit
  if (taller === (resize === "crop")) {
    return { width, height: Math.max(1, Math.floor((width * pictureHeight) / pictureWidth)) };
  }
  return { width: Math.max(1, Math.floor((height * pictureWidth) / pictureHeight)), height };
}

/**
 * Rows and columns of the model's (height, width) that show a picture and no border.
 *
 * @returns {{top: number, left: number, height: number, width: number}}
 */
export function shownWindow(picture, [height, width], pixels) {
  const size = resizedSize(picture.width, picture.height, [height, width], pixels);
  return {
    top: Math.max(0, -halfEven(size.height - height)),
    left: Math.max(0, -halfEven(size.width - width)),
    height: Math.min(height, size.height),
    width: Math.min(width, size.width),
  };
}

/** Half of a whole number; a half is rounded to the even neighbour, as Python rounds. */
function halfEven(number) {
  const below = Math.floor(number / 2);
  return number % 2 === 0 || below % 2 === 0 ? below : below + 1;
}

/** The centre of an image, with a black border where it is too small. */
function centre(image, height, width) {
  if (image.width === width && image.height === height) return image;
  return cut(image, { top: halfEven(image.height - height), left: halfEven(image.width - width), height, width });
}

/** A window of an image; what lies outside of the image is 0. */
function cut({ width, height, channels, data }, window) {
  const part = new data.constructor(window.width * window.height * channels);
  const [left, right] = [Math.max(0, window.left), Math.min(width, window.left + window.width)];
  for (let row = 0; row < window.height; row++) {
    const y = window.top + row;
    if (y < 0 || y >= height || left >= right) continue;
    const line = data.subarray((y * width + left) * channels, (y * width + right) * channels);
    part.set(line, (row * window.width + left - window.left) * channels);
  }
  return { width: window.width, height: window.height, channels, data: part };
}

/**
 * An image of another size, as `PIL.Image.resize` gives it: what is left out is averaged (antialiasing).
 *
 * @param {Image} image  Bytes are computed in fixed point, numbers in floating point.
 */
export function resize(image, width, height, interpolation) {
  const [lost, narrowed] = [image.height - height, image.width - width];
  const columnsFirst = lost > Math.max(0, 2 * narrowed); // as Pillow does since 13; before, rows always came first
  for (const alongRows of columnsFirst ? [false, true] : [true, false]) {
    const [length, size] = alongRows ? [image.width, width] : [image.height, height];
    if (length !== size) image = resizeAxis(image, alongRows, size, interpolation);
  }
  return image;
}

/** One pass of the convolution, along the rows or along the columns. */
function resizeAxis({ width, height, channels, data }, alongRows, size, interpolation) {
  const { array, weight, finish } = data instanceof Float32Array ? FLOATS : BYTES;
  const length = alongRows ? width : height;
  const lines = alongRows ? height : 1; // read one after the other,
  const step = alongRows ? channels : width * channels; // from one place of a line to the next
  const places = taps(length, size, interpolation, weight);
  const resized = new array(lines * size * step);
  let to = 0;
  for (let line = 0; line < lines; line++) {
    for (const { first, weights } of places) {
      const from = (line * length + first) * step;
      for (let offset = 0; offset < step; offset++) {
        let sum = 0;
        for (let tap = 0, at = from + offset; tap < weights.length; tap++, at += step) sum += data[at] * weights[tap];
        resized[to++] = finish(sum);
      }
    }
  }
  return { width: alongRows ? size : width, height: alongRows ? height : size, channels, data: resized };
}

/** For each of `size` places the places of `length` that it is made of: the first one, and a weight for each. */
function taps(length, size, interpolation, weight) {
  const filter = FILTERS[interpolation];
  const scale = length / size;
  const stretch = Math.max(1, scale); // the filter reaches over all that is left out
  return Array.from({ length: size }, (_, place) => {
    const middle = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(middle - filter.reach * stretch + 0.5));
    const end = Math.min(length, Math.trunc(middle + filter.reach * stretch + 0.5));
    const plain = Array.from({ length: end - first }, (_, tap) => filter.weight((tap + first - middle + 0.5) / stretch));
    const sum = plain.reduce((total, each) => total + each, 0);
    return { first, weights: Float64Array.from(plain, (each) => weight(each / sum)) };
  });
}

// --------------------------------------------------------------------------------------------------- 2. Numbers

const INTEGERS = { uint8: Uint8Array, int32: Int32Array };

/** Pixels as the file's input: floats, or integers that stand for `scale * (integer - zero_point)`. */
export function quantize(pixels, { dtype, scale = 1, zero_point: zero = 0 }) {
  if (dtype === "float32") return Float32Array.from(pixels);
  const integers = new INTEGERS[dtype](pixels.length);
  const step = Math.fround(scale);
  const [low, high] = dtype === "uint8" ? [0, 255] : [-(2 ** 31), 2 ** 31 - 1];
  pixels.forEach((pixel, index) => {
    integers[index] = Math.min(high, Math.max(low, roundEven(Math.fround(pixel / step)) + zero));
  });
  return integers;
}

/** The nearest whole number; a half is rounded to the even neighbour, as NumPy rounds. */
function roundEven(number) {
  const below = Math.floor(number);
  const rest = number - below;
  if (rest !== 0.5) return Math.round(number);
  return below % 2 === 0 ? below : below + 1;
}

/** The numbers that a file's output stands for. */
export function dequantize(values, { scale = 1, zero_point: zero = 0 }) {
  if (values instanceof Float32Array) return values;
  return Float32Array.from(values, (value) => (value - zero) * Math.fround(scale));
}

// --------------------------------------------------------------------------------------------------- 3. Answers

/** Number of classes; one unit tells two of them apart. */
export const countClasses = (output) => Math.max(2, output.units);

/** Names of the classes, or their numbers. */
export const namesOf = (output) => output.class_names ?? Array.from({ length: countClasses(output) }, (_, i) => `${i}`);

/** Whether each class is there or not, whatever the others are: several sigmoids of one picture. */
export const isMultiLabel = (output) =>
  output.task === "classification" && output.values === "sigmoid" && output.units > 1;

/**
 * Probabilities of every class, for one picture or for each pixel of one.
 *
 * @param {Float32Array} numbers  (pixels · units)
 * @param {Output} output
 * @returns {Float32Array}  (pixels · classes)
 */
export function toProbabilities(numbers, { values, units }) {
  if (units === 1) {
    const second = values === "logits" ? numbers.map((number) => 0.5 * (1 + Math.tanh(number / 2))) : numbers;
    return Float32Array.from({ length: 2 * second.length }, (_, i) => (i % 2 ? second[i >> 1] : 1 - second[i >> 1]));
  }
  if (values !== "logits") return numbers;
  const probabilities = new Float32Array(numbers.length);
  for (let start = 0; start < numbers.length; start += units) {
    const logits = numbers.subarray(start, start + units);
    const highest = logits.reduce((most, each) => Math.max(most, each), -Infinity);
    const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
    const sum = powers.reduce((total, power) => total + power, 0);
    powers.forEach((power, unit) => (probabilities[start + unit] = power / sum));
  }
  return probabilities;
}

/** The most probable classes, best first: name, index and probability of each. */
export function topClasses(probabilities, names, count = 5) {
  const indices = Array.from(probabilities, (_, index) => index);
  indices.sort((one, other) => probabilities[other] - probabilities[one] || one - other);
  return indices.slice(0, count).map((index) => ({ name: names[index], index, probability: probabilities[index] }));
}

/** Index of the largest of each `count` numbers. */
export function bestOf(numbers, count) {
  return Uint32Array.from({ length: numbers.length / count }, (_, group) => {
    let best = 0;
    for (let index = 1; index < count; index++) {
      if (numbers[group * count + index] > numbers[group * count + best]) best = index;
    }
    return best;
  });
}

/**
 * The part of a picture that a model sees, as shares of its width and height.
 *
 * @returns {{left: number, top: number, width: number, height: number}}
 */
export function seenPart(picture, [height, width], pixels) {
  if (pixels.resize !== "crop") return { left: 0, top: 0, width: 1, height: 1 };
  const short = SLIMMEST * Math.min(picture.width, picture.height);
  const kept = { width: Math.min(picture.width, short), height: Math.min(picture.height, short) };
  const size = resizedSize(kept.width, kept.height, [height, width], pixels);
  const across = (width * kept.width) / size.width / picture.width;
  const down = (height * kept.height) / size.height / picture.height;
  return { left: (1 - across) / 2, top: (1 - down) / 2, width: across, height: down };
}

/**
 * One class of a heat map at the size of the part of the picture that the model sees: 0 to 1, of what speaks for it.
 *
 * @param {{shape: number[], numbers: Float32Array}} heatmap  (height, width, units), of any size
 * @param {number} unit
 * @param {number[]} shape  (height, width, channels) of the model's images
 * @returns {Float32Array}  (size.height · size.width)
 */
export function toHeat({ shape: [rows, columns, units], numbers }, unit, [height, width], picture, pixels, size) {
  const plane = Float32Array.from({ length: rows * columns }, (_, place) => Math.max(0, numbers[place * units + unit]));
  const map = resize({ width: columns, height: rows, channels: 1, data: plane }, width, height, "bilinear");
  const shown = cut(map, shownWindow(picture, [height, width], pixels));
  const heat = resize(shown, size.width, size.height, "bilinear").data;
  const most = heat.reduce((highest, each) => Math.max(highest, each), 0);
  return most > 0 ? heat.map((each) => each / most) : heat;
}

/**
 * Index of the most probable class of each pixel, after a bilinear resizing to the size of the picture.
 *
 * @param {Float32Array} probabilities  (height · width · classes) of the model
 * @param {number[]} shape  (height, width, classes)
 * @param {{width: number, height: number}} picture  size of what was given to `toPixels`
 * @param {Pixels} pixels  which say where in the map the picture is
 * @param {{width: number, height: number}} size  of the mask; default: that of the picture
 * @returns {Uint32Array}
 */
export function toMask(probabilities, [height, width, channels], picture, pixels, size = picture) {
  const whole = { width, height, channels, data: probabilities };
  const map = cut(whole, shownWindow(picture, [height, width], pixels));
  return bestOf(resize(map, size.width, size.height, "bilinear").data, channels);
}

/** Share of the area of each class, largest first, of those that are there. */
export function classAreas(mask, names) {
  const counts = new Array(names.length).fill(0);
  mask.forEach((index) => counts[index]++);
  return counts
    .map((count, index) => ({ name: names[index], index, share: count / mask.length }))
    .filter((area) => area.share > 0)
    .sort((one, other) => other.share - one.share);
}

// --------------------------------------------------------------------------------------------------- 4. Runtime

const HEATMAP = "heatmap"; // name of the output of class activation maps

const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]); // a module of one function that uses it

/** Whether WebAssembly computes several numbers at once here, which LiteRT.js needs. */
export const hasSimd = () => typeof WebAssembly === "object" && WebAssembly.validate(SIMD);

/** The card of a file, which `kzoo export` wrote beside it; raises where it is of another kind. */
export function checkCard(card) {
  if (card?.kzoo_card === undefined) throw new Mistake("The card of the model is no card of kzoo. Export it again.");
  if (card.kzoo_card < 2) throw new Mistake("The card of the model is of an old kzoo. Export the model again.");
  if (!["float32", ...Object.keys(INTEGERS)].includes(card.input.dtype)) {
    throw new Mistake(`The file takes ${card.input.dtype}, which LiteRT.js does not. Export it with --io float32.`);
  }
  const { input, output, inputs = {} } = card;
  const known = ["classification", "segmentation"].includes(output.task) && output.values !== "unknown";
  if (!known || Object.keys(inputs).length > 1) {
    throw new Mistake("The file is not of one picture and its classes; nothing else is shown.");
  }
  if (input.shape[0] !== 1) throw new Mistake(`The file takes ${input.shape[0]} pictures at once. Export it for one.`);
  const whole = output.task === "classification" || [1, 2].every((side) => output.shape[side] === input.shape[side]);
  if (!whole) throw new Mistake("The file gives maps of another size than its image; these are not shown.");
  return card;
}

/**
 * What the file answers to pixels, as numbers; and where it sees each class, if it tells that too.
 *
 * @param {object} litert  the module "@litertjs/core", after `loadLiteRt`
 * @param {object} model  what `litert.loadAndCompile` gave
 * @param {object} card
 * @param {Uint8ClampedArray} pixels  what `toPixels` gave
 * @returns {Promise<{numbers: Float32Array, heatmap: {shape: number[], numbers: Float32Array}|null}>}
 */
export async function run(litert, model, card, pixels) {
  const names = model.getOutputDetails().map((output) => output.name);
  const input = new litert.Tensor(quantize(pixels, card.input), card.input.shape);
  let outputs = [];
  try {
    outputs = await model.run([input]);
    const numbers = dequantize(await outputs[card.answer ? names.indexOf(card.answer) : 0].data(), card.output);
    const told = card.outputs?.[HEATMAP];
    if (!told) return { numbers, heatmap: null };
    const heat = dequantize(await outputs[names.indexOf(HEATMAP)].data(), told);
    return { numbers, heatmap: { shape: told.shape.slice(1), numbers: heat } };
  } finally {
    [input, ...outputs].forEach((tensor) => tensor.delete()); // memory of WebAssembly is not collected
  }
}

/**
 * What the file says of a picture: the probabilities of every class, of the picture or of each of its pixels.
 *
 * @returns {Promise<Float32Array>}
 */
export async function predict(litert, model, card, picture) {
  const pixels = toPixels(picture, imageShape(card), card.pixels);
  return toProbabilities((await run(litert, model, card, pixels)).numbers, card.output);
}

/** Height, width and channels of the images that a file takes. */
export const imageShape = (card) => card.input.shape.slice(1);

// ------------------------------------------------------------------------------------------------------ 5. Page

const MOST_PIXELS = 100_000_000; // of a picture, as in Python
const LARGEST_SHOWN = 640; // pixels of the longer side of what is drawn
const SMALL = 200; // up to this many it is enlarged
const RUNS = 20; // of which the time is told
const SAID_EVERY = 3000; // milliseconds, of what a camera shows
const TOLERANCE = 0.02; // of a probability: an integer's step, or the arithmetic of a graphics card

const find = (id) => document.getElementById(id);

/** What the page knows: what it was told, the model that runs, and what it is busy with. */
const page = {
  told: null, // page.json
  card: null,
  litert: null,
  bytes: null, // of the file
  model: null, // that LiteRT.js compiled
  threads: 1,
  times: [], // in milliseconds
  stream: null, // of the camera
  heat: null, // the last heat map, and what it is of
};

/** Loads everything, and listens. */
async function start() {
  if (!hasSimd()) throw new Mistake("This browser has no WebAssembly with SIMD; use one of 2023 or later.");
  page.told = JSON.parse(await fetchText("page.json"));
  page.card = checkCard(JSON.parse(await fetchText("model.tflite.json")));
  showFacts();
  page.bytes = new Uint8Array(await (await fetchFile("model.tflite")).arrayBuffer());
  await loadRuntime(page.told.runtime);
  const devices = page.litert.getWebGpuDevice() ? ["webgpu", "wasm"] : ["wasm"];
  await inTurn(() => useDevice(devices[0]));
  find("of-devices").hidden = devices.length === 1;
  listen();
  showExamples();
  document.querySelector("main").hidden = false;
  find("status").textContent = "";
}

async function fetchFile(path) {
  const response = await fetch(path).catch(() => ({ ok: false }));
  if (!response.ok) throw new Mistake(`${path} is not in the page's folder, or the server is gone.`);
  return response;
}

const fetchText = async (path) => (await fetchFile(path)).text();

/** LiteRT.js, with one thread for each core where the server lets pages share memory. */
async function loadRuntime({ wasm, network }) {
  try {
    page.litert = await import("@litertjs/core");
    self.Module = { printErr: (line) => (line.startsWith("ERROR") ? console.error(line) : console.debug(line)) };
    const threads = self.crossOriginIsolated && (await page.litert.supportsFeature("relaxedSimd"));
    const runtime = await page.litert.loadLiteRt(new URL(wasm, location.href).href, { threads });
    page.threads = threads ? runtime.liteRtWasm.getThreadCount() : 1;
  } catch (error) {
    console.warn(error);
    throw new Mistake(
      network
        ? "LiteRT.js could not be loaded; this page loads it from the network. A page with a copy works without."
        : "LiteRT.js is missing or broken in the folder litert. Make the page again.",
    );
  }
}

let turn = Promise.resolve();

/** Does one thing with the model after the other: nothing takes it away from what still computes. */
function inTurn(work) {
  const result = turn.then(work);
  turn = result.catch(() => {});
  return result;
}

/** Compiles the model for a device, and runs it once; what a graphics card does not run, the processor does. */
async function useDevice(device) {
  page.model?.delete();
  page.model = null;
  const options = device === "webgpu" ? { accelerator: device, gpuOptions: { precision: "fp32" } } : { accelerator: device };
  try {
    page.model = await page.litert.loadAndCompile(page.bytes, options);
    await run(page.litert, page.model, page.card, new Uint8ClampedArray(count(imageShape(page.card))));
  } catch (error) {
    if (device === "wasm") throw new Mistake(`LiteRT.js does not run this model: ${error.message ?? error}`);
    console.warn(error);
    return useDevice("wasm");
  }
  const used = page.model.options.accelerator;
  find("device").value = used;
  page.times = [];
  find("latency").textContent = "not run yet";
  find("backend").textContent =
    used === "webgpu" ? "WebGPU" : page.threads > 1 ? `WebAssembly, ${page.threads} threads` : "WebAssembly, 1 thread";
}

const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** Runs what the user asked for; whatever goes wrong is told in the page. */
async function attempt(work) {
  find("error").hidden = true;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Mistake)) console.error(error);
    find("status").textContent = "";
    find("error").textContent = error instanceof Mistake ? error.message : `Something went wrong: ${error.message ?? error}`;
    find("error").hidden = false;
  }
}

function listen() {
  const give = (files) => attempt(() => answerFile(files));
  find("choose").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", async () => {
    await give(find("file").files);
    find("file").value = ""; // so that the same file may be chosen again
  });
  document.addEventListener("paste", (event) => event.clipboardData.files.length && give(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // or the browser opens the picture in place of the page
    find("stage").classList.add("over");
  });
  document.addEventListener("dragleave", () => find("stage").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    find("stage").classList.remove("over");
    give(event.dataTransfer.files);
  });
  find("camera").addEventListener("click", () => attempt(page.stream ? stopCamera : startCamera));
  find("opacity").addEventListener("input", () => (find("mask").style.opacity = find("opacity").value / 100));
  find("device").addEventListener("change", () => attempt(() => inTurn(() => useDevice(find("device").value))));
  find("heat").addEventListener("change", () => attempt(showHeat));
  find("check").addEventListener("click", () => attempt(check));
}

async function answerFile(files) {
  if (files.length === 0) throw new Mistake("That holds no picture; drop or paste the file of one.");
  stopCamera();
  await answer(await decode(files[0], files[0].name));
}

/** A picture from a file, upright, in its own colours and with its alpha, as Python reads it. */
export async function decode(blob, name) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  try {
    return await createImageBitmap(blob, options);
  } catch {
    throw new Mistake(`${name} cannot be read as a picture; give a PNG, JPEG, WebP, GIF, BMP or AVIF file.`);
  }
}

/** The pixels of a bitmap or of a camera's frame. */
export function readPixels(source, width, height) {
  if (width * height > MOST_PIXELS) throw new Mistake("The picture has more than 100 million pixels; reduce it.");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Shows a picture and what the model says of it. */
async function answer(source, width = source.width, height = source.height) {
  const picture = readPixels(source, width, height);
  const pixels = toPixels(picture, imageShape(page.card), page.card.pixels);
  const { numbers, heatmap } = await inTurn(async () => {
    const begun = performance.now();
    const found = await run(page.litert, page.model, page.card, pixels);
    showTime(performance.now() - begun);
    return found;
  });
  const probabilities = toProbabilities(numbers, page.card.output);
  const size = drawPicture(source, width, height);
  if (page.card.output.task === "segmentation") showMap(probabilities, picture, size);
  else showClasses(probabilities);
  page.heat = heatmap && { heatmap, picture: { width, height }, size };
  if (heatmap) offerHeat(probabilities);
}

function showTime(milliseconds) {
  page.times = [...page.times, milliseconds].slice(-RUNS);
  const sorted = page.times.toSorted((one, other) => one - other);
  const median = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  const runs = sorted.length === 1 ? "1 run" : `median of ${sorted.length} runs`;
  find("latency").textContent = `${median.toFixed(median < 10 ? 2 : 0)} ms, ${runs}`;
}

/** Draws a picture at a size for the eye; returns that size. */
function drawPicture(source, width, height) {
  const longer = Math.max(width, height);
  const factor = Math.min(1, LARGEST_SHOWN / longer);
  const size = { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
  for (const canvas of [find("picture"), find("mask")]) {
    Object.assign(canvas, size);
    canvas.classList.toggle("enlarged", longer <= SMALL);
    canvas.style.width = `${((longer <= SMALL ? LARGEST_SHOWN / 2 : LARGEST_SHOWN) * size.width) / Math.max(size.width, size.height)}px`;
  }
  find("picture").getContext("2d").drawImage(source, 0, 0, size.width, size.height);
  find("picture").hidden = false;
  find("hint").hidden = true;
  return size;
}

/** The five best classes, with bars. */
function showClasses(probabilities) {
  const { output } = page.card;
  const best = topClasses(probabilities, namesOf(output));
  const rows = best.map(({ name, probability }) => {
    const fill = make("span");
    fill.style.width = `${100 * probability}%`;
    return row(name, percent(probability), wrap("span", "bar", fill));
  });
  find("answer").replaceChildren(...rows);
  find("kind").textContent = isMultiLabel(output)
    ? "Probability of each class by itself, best first."
    : "Probability of each class, best first.";
  const [first] = best;
  const sure = isMultiLabel(output) && first.probability < 0.5 ? "No class" : `${first.name}, ${percent(first.probability)}`;
  say(sure);
}

/** The class of each pixel, over the picture, and a legend with the shares of the area. */
function showMap(probabilities, picture, size) {
  const { output, pixels } = page.card;
  const classes = countClasses(output);
  const mask = toMask(probabilities, [...imageShape(page.card).slice(0, 2), classes], picture, pixels, size);
  const image = new ImageData(size.width, size.height);
  mask.forEach((index, pixel) => image.data.set([...page.told.colours[index], 255], 4 * pixel));
  find("mask").getContext("2d").putImageData(image, 0, 0);
  find("mask").style.opacity = find("opacity").value / 100;
  find("mask").hidden = find("shown-opacity").hidden = false;
  const areas = classAreas(mask, namesOf(output));
  const rows = areas.map(({ name, index, share }) => {
    const swatch = make("span", "swatch");
    swatch.style.background = `rgb(${page.told.colours[index].join(" ")})`;
    return row(name, share < 0.0005 ? "< 0.1 %" : percent(share, 1), swatch);
  });
  find("answer").replaceChildren(...rows);
  find("kind").textContent = "Share of the area of each class, largest first.";
  say(areas.slice(0, 3).map(({ name, share }) => `${name}, ${percent(share, 0)}`).join("; "));
}

/** Lets the user choose which of the best classes the heat map is of, and shows that of the best. */
function offerHeat(probabilities) {
  const best = topClasses(probabilities, namesOf(page.card.output));
  const options = best.map(({ name, index }) => Object.assign(make("option"), { value: index, textContent: name }));
  find("heat").replaceChildren(...options);
  find("of-heat").hidden = find("shown-opacity").hidden = false;
  showHeat();
}

/** Lays over the picture what speaks for a class, the more the brighter; around it stays dark. */
function showHeat() {
  const { heatmap, picture, size } = page.heat;
  const { card } = page;
  const chosen = Number(find("heat").value);
  const unit = card.output.units === 1 ? 0 : chosen;
  const against = card.output.units === 1 && chosen === 0; // one unit speaks for the second of two classes
  const told = against ? { ...heatmap, numbers: heatmap.numbers.map((number) => -number) } : heatmap;
  const part = seenPart(picture, imageShape(card), card.pixels);
  const seen = { width: Math.round(part.width * size.width), height: Math.round(part.height * size.height) };
  const heat = toHeat(told, unit, imageShape(card), picture, card.pixels, seen);
  const image = new ImageData(seen.width, seen.height);
  heat.forEach((share, pixel) => image.data.set(heatColour(share), 4 * pixel));
  const context = find("mask").getContext("2d");
  context.fillStyle = `rgb(${heatColour(0).slice(0, 3).join(" ")})`;
  context.fillRect(0, 0, size.width, size.height);
  context.putImageData(image, Math.round(part.left * size.width), Math.round(part.top * size.height));
  find("mask").style.opacity = find("opacity").value / 100;
  find("mask").hidden = false;
}

/** From black over red and yellow to white, by lightness, for eyes that see no colours too. */
const heatColour = (share) => [765 * share, 765 * share - 255, 765 * share - 510, 255];

const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;

/** Lets a screen reader say the answer: each that is new, of a camera no more often than one can listen. */
function say(answer) {
  const now = performance.now();
  if (answer === say.last || (page.stream && now - say.at < SAID_EVERY)) return;
  [say.last, say.at] = [answer, now];
  find("said").textContent = answer;
}

function make(tag, className = "") {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

function wrap(tag, className, ...children) {
  const element = make(tag, className);
  element.append(...children);
  return element;
}

/** A class in the list: its name, a number, and a mark before or below. */
function row(name, number, mark) {
  mark.setAttribute("aria-hidden", "true");
  const [before, after] = mark.className === "swatch" ? [[mark], []] : [[], [mark]];
  return wrap("li", "", ...before, wrap("bdi", "", name), wrap("span", "share", number), ...after);
}

async function startCamera() {
  const devices = navigator.mediaDevices;
  if (!devices) throw new Mistake("A browser gives the camera to pages of https or localhost alone; choose a picture.");
  try {
    page.stream = await devices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const why = { NotAllowedError: "was refused", NotFoundError: "was not found", NotReadableError: "is in use elsewhere" };
    throw new Mistake(`The camera ${why[error.name] ?? `cannot be used (${error.name})`}. Allow it, or choose a picture.`);
  }
  find("camera").textContent = "Stop the camera";
  find("camera").setAttribute("aria-pressed", "true");
  const video = make("video");
  Object.assign(video, { srcObject: page.stream, muted: true, playsInline: true });
  try {
    await video.play();
    const { stream } = page;
    while (page.stream === stream) {
      await answer(video, video.videoWidth, video.videoHeight);
      await new Promise(requestAnimationFrame);
    }
  } finally {
    video.srcObject = null;
    stopCamera();
  }
}

function stopCamera() {
  page.stream?.getTracks().forEach((track) => track.stop());
  page.stream = null;
  find("camera").textContent = "Start the camera";
  find("camera").setAttribute("aria-pressed", "false");
}

/** A button for each picture that its maker put into the page. */
function showExamples() {
  const named = page.told.examples.filter((example) => example.name !== null);
  for (const { name, picture } of named) {
    const image = make("img");
    Object.assign(image, { src: picture, alt: name, decoding: "async" });
    const button = wrap("button", "plain", image);
    button.type = "button";
    button.addEventListener("click", () => attempt(async () => {
      stopCamera();
      await answer(await decodeStored(picture));
    }));
    find("examples").append(button);
  }
  find("of-examples").hidden = named.length === 0;
}

const decodeStored = async (path) => decode(await (await fetchFile(path)).blob(), path);

/** Computes the stored pictures again, and tells how far pixels and answers are from Python's. */
async function check() {
  stopCamera();
  find("checked").textContent = "Checking…";
  const worst = { levels: 0, probability: 0, same: 0, decided: 0 };
  for (const example of page.told.examples) await checkExample(example, worst);
  const agrees = worst.levels <= 1 && worst.probability <= TOLERANCE && (worst.heat ?? 0) <= TOLERANCE;
  const many = page.told.examples.length === 1 ? "1 picture" : `${page.told.examples.length} pictures`;
  find("checked").className = agrees ? "agrees" : "differs";
  find("checked").textContent =
    `${agrees ? "Agrees with" : "Differs from"} Python on ${many}: pixels differ by at most ${worst.levels} of 255, ` +
    `probabilities by at most ${worst.probability.toPrecision(2)}; ` +
    `the best class is the same in ${percent(worst.same / worst.decided, 1)}` +
    (worst.heat === undefined ? "." : `; heat maps differ by at most ${worst.heat.toPrecision(2)} of their highest.`);
}

async function checkExample({ picture, pixels, step, probabilities: expected, heatmap }, worst) {
  const [height, width, channels] = imageShape(page.card);
  const stored = await decodeStored(picture);
  const found = toPixels(readPixels(stored, stored.width, stored.height), [height, width, channels], page.card.pixels);
  const wanted = toChannels(readPixels(await decodeStored(pixels), width, height), channels).data;
  found.forEach((level, index) => (worst.levels = Math.max(worst.levels, Math.abs(level - wanted[index]))));
  const classes = countClasses(page.card.output);
  const answered = await inTurn(() => run(page.litert, page.model, page.card, found));
  const numbers = toProbabilities(answered.numbers, page.card.output);
  const compared = page.card.output.task === "segmentation" ? everyNth(numbers, [height, width, classes], step) : numbers;
  compared.forEach((number, index) => {
    worst.probability = Math.max(worst.probability, Math.abs(number - expected[index]));
  });
  const [ours, python] = [bestOf(compared, classes), bestOf(expected, classes)];
  worst.same += ours.filter((best, index) => best === python[index]).length;
  worst.decided += ours.length;
  if (heatmap) worst.heat = Math.max(worst.heat ?? 0, relativeDifference(answered.heatmap.numbers, heatmap));
}

/** The largest difference over the largest number. */
function relativeDifference(numbers, expected) {
  const most = expected.reduce((highest, each) => Math.max(highest, Math.abs(each)), 0);
  const difference = expected.reduce((worst, each, index) => Math.max(worst, Math.abs(each - numbers[index])), 0);
  return most > 0 ? difference / most : difference;
}

/** The numbers of every n-th row and column of a map. */
function everyNth(map, [height, width, channels], step) {
  const kept = [];
  for (let row = 0; row < height; row += step) {
    for (let column = 0; column < width; column += step) {
      const start = (row * width + column) * channels;
      kept.push(...map.subarray(start, start + channels));
    }
  }
  return Float32Array.from(kept);
}

const tellMeasured = ([metric, { value, images }]) => [
  metric.replaceAll("_", " ").replace("iou", "IoU").replace(/^./, (first) => first.toUpperCase()),
  `${value.toPrecision(4)} on ${images} images`,
];

/** What the card tells, for people. */
function showFacts() {
  const { card, told } = page;
  const { resize, crop, interpolation } = card.pixels;
  const [height, width, channels] = imageShape(card);
  const fitted = { stretch: "stretched", pad: "padded with black", crop: crop < 1 ? `centre, ${crop} of the side` : "centre" };
  const facts = {
    Name: card.model,
    Precision: card.precision,
    Size: `${(told.size_bytes / 1e6).toFixed(2)} MB`,
    Takes: `${width} × ${height} pixels, ${channels === 1 ? "grey" : "RGB"}, as ${card.input.dtype}`,
    "A picture is": `${fitted[resize]}, ${interpolation}`,
    Gives: card.output.meaning,
    Classes: `${countClasses(card.output)}`,
    ...Object.fromEntries(Object.entries(card.measured ?? {}).map(tellMeasured)),
    Licence: card.license,
    "Made by": `kzoo ${told.kzoo}, LiteRT.js ${told.runtime.version}${told.runtime.network ? " from the network" : ""}`,
  };
  for (const [name, fact] of Object.entries(facts)) {
    if (typeof fact === "string") find("facts").append(wrap("dt", "", name), wrap("dd", "", fact));
  }
  find("how").append(...(card.how ?? []).map((sentence) => wrap("li", "", sentence)));
  find("of-how").hidden = card.how === undefined;
  if (told.runtime.network) find("about").textContent += " LiteRT.js is loaded from the network.";
}

if (typeof document !== "undefined" && location.protocol !== "file:") await attempt(start);
