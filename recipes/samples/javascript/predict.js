// Says what pictures show, with a LiteRT file and its card alone: node predict.js MODEL.tflite PICTURE...
//
// kzoo.js beside it is the one of every page that `kzoo page` writes; it knows how a picture becomes pixels.
import { readFileSync } from "node:fs";
import sharp from "sharp";
import { checkCard, classAreas, imageShape, namesOf, predict, toMask, topClasses } from "./kzoo.js";
import { loadRuntime } from "./litert.js";

const [modelPath, ...picturePaths] = process.argv.slice(2);
if (picturePaths.length === 0) {
  console.error("usage: node predict.js MODEL.tflite PICTURE...");
  process.exit(2);
}

const card = checkCard(JSON.parse(readFileSync(`${modelPath}.json`, "utf8")));
const litert = await loadRuntime();
const model = await litert.loadAndCompile(new Uint8Array(readFileSync(modelPath)), { accelerator: "wasm" });

for (const path of picturePaths) {
  const picture = await readPicture(path);
  const probabilities = await predict(litert, model, card, picture);
  console.log(JSON.stringify({ image: path, answer: tell(probabilities, picture) }));
}
model.delete();

/** An upright picture as RGBA, whatever its file holds. */
async function readPicture(path) {
  const upright = sharp(path).rotate().toColourspace("srgb").ensureAlpha();
  const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data };
}

/** The five best classes, or the share of the area of each. */
function tell(probabilities, picture) {
  const names = namesOf(card.output);
  if (card.output.task === "classification") return topClasses(probabilities, names);
  const shape = [...imageShape(card).slice(0, 2), names.length];
  return classAreas(toMask(probabilities, shape, picture, card.pixels), names);
}
