// Answers questions about kzoo.js: reads [{call, args}] as JSON from standard input, writes the results as JSON.
// A typed array is {"type": "Uint8ClampedArray", "values": [...]} both ways.
import { readFileSync } from "node:fs";

const source = readFileSync(process.argv[2]);
const kzoo = await import(`data:text/javascript;base64,${source.toString("base64")}`); // whatever Node takes .js for

const revive = (_, value) => (value?.type ? new globalThis[value.type](value.values) : value);
const tell = (_, value) =>
  ArrayBuffer.isView(value) ? { type: value.constructor.name, values: Array.from(value) } : value;

const questions = JSON.parse(readFileSync(0, "utf8"), revive);
process.stdout.write(JSON.stringify(questions.map(({ call, args }) => kzoo[call](...args)), tell));
