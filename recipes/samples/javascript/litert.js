// LiteRT.js in Node. It is made for browsers; Node lacks a few of the things that it looks for.
import { readFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

const require = createRequire(import.meta.url);
const wasm = `${dirname(dirname(require.resolve("@litertjs/core")))}/wasm/`;
const fetchFromNetwork = globalThis.fetch;

Object.assign(globalThis, {
  self: globalThis,
  require,
  __dirname: wasm,
  GPUBuffer: class {}, // LiteRT.js asks whether its input is one
  importScripts: (path) => vm.runInThisContext(readFileSync(path, "utf8"), { filename: path }),
  fetch: async (source, options) => {
    const path = String(source).startsWith("file:") ? fileURLToPath(source) : String(source);
    if (!path.startsWith("/")) return fetchFromNetwork(source, options);
    return new Response(await readFile(path), { headers: { "Content-Type": "application/wasm" } });
  },
  Module: { printErr: (line) => line.startsWith("ERROR") && console.error(line) },
});

/** The module "@litertjs/core", ready to compile models. */
export async function loadRuntime() {
  const litert = await import("@litertjs/core");
  const { warn } = console;
  console.warn = () => {}; // it misses the graphics card, which Node does not give
  await litert.loadLiteRt(wasm);
  console.warn = warn;
  return litert;
}
