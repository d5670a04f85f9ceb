// The network in ONNX Runtime: on the GPU through WebGPU where it gives the processor's labels, else on WebAssembly.

import * as ort from "./runtime/onnxruntime.js";
import { labelMap } from "./label_map.js";
import { inputSize, prepare } from "./preparation.js";

const PROVIDERS = { webgpu: "WebGPU", wasm: "WebAssembly" };
const MAX_THREADS = 8;
const TRIED_SIZE = [96, 160]; // pixels; what WebGPU is tried on, for models that take any size
const MIN_AGREEMENT = 0.99; // of the labels of WebGPU and WebAssembly

export class Engine {
  /**
   * Load the engine and a model.
   *
   * @param {Uint8Array} model an ONNX file
   * @param {object} record what the model says about itself
   * @param {"auto" | "webgpu" | "wasm"} choice
   */
  static async open(model, record, choice) {
    await loadRuntime();
    const reference = await openSession(model, "wasm");
    if (choice === "wasm") return new Engine(reference, record, "wasm", "");
    const refusal = await whyNotWebGpu();
    if (refusal) return new Engine(reference, record, "wasm", choice === "webgpu" ? refusal : "");
    try {
      const session = await openSession(model, "webgpu");
      const agreement = await compare(session, reference, record);
      if (agreement >= MIN_AGREEMENT) {
        await reference.release();
        return new Engine(session, record, "webgpu", "");
      }
      return new Engine(reference, record, "wasm", `WebGPU agrees on ${(100 * agreement).toFixed(1)} % of labels only`);
    } catch (error) {
      return new Engine(reference, record, "wasm", `WebGPU cannot run this model: ${oneLine(error)}`);
    }
  }

  constructor(session, record, provider, note) {
    this.session = session;
    this.record = record;
    this.provider = provider;
    this.note = note; // why WebGPU is not used although it was asked for or is there
    this.warm = "";
  }

  get description() {
    const threads = ort.env.wasm.numThreads;
    const count = this.provider === "wasm" ? `, ${threads} ${threads === 1 ? "thread" : "threads"}` : "";
    return `${PROVIDERS[this.provider]}${count}`;
  }

  close() {
    return this.session.release();
  }

  /** Labels (H x W bytes) of an RGBA image of `size` [H, W], the size the network ran at, and milliseconds. */
  async segment(rgba, size, scale) {
    const target = inputSize(size, this.record, scale);
    const start = performance.now();
    const input = prepare(rgba, size, target, this.record);
    const prepared = performance.now();
    await this.warmUp(input, target);
    const started = performance.now();
    const { logits, shape } = await run(this.session, input, target, this.record);
    const computed = performance.now();
    const labels = labelMap(logits, shape, size, this.record.align_corners);
    const times = {
      prepare_ms: prepared - start,
      network_ms: computed - started,
      labels_ms: performance.now() - computed,
    };
    return { labels, input_size: target, times, warm_up_ms: started - prepared };
  }

  /** WebGPU compiles its programs on the first image of a size; that is not what the next ones take. */
  async warmUp(input, target) {
    if (this.provider === "webgpu" && this.warm !== String(target)) await run(this.session, input, target, this.record);
    this.warm = String(target);
  }
}

async function loadRuntime() {
  if (ort.env.wasm.wasmBinary) return;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS) : 1;
  ort.env.wasm.wasmBinary = await unzipped(await fetchBytes("./runtime/onnxruntime.wasm.gz"));
}

/** The bytes of a file beside this one; servers are asked whether a copy kept from before is still right. */
export async function fetchBytes(url) {
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url} is missing on this server (${response.status}); copy the whole folder`);
  return new Uint8Array(await response.arrayBuffer());
}

async function unzipped(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer; // the server has unzipped it already
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function openSession(model, provider) {
  return ort.InferenceSession.create(model, { executionProviders: [provider], logSeverityLevel: 3 });
}

async function whyNotWebGpu() {
  if (!navigator.gpu) return "this browser has no WebGPU, or gives it to pages from https and localhost only";
  return (await navigator.gpu.requestAdapter()) ? "" : "this browser finds no GPU for WebGPU";
}

async function run(session, input, [height, width], record) {
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", input, [1, 3, height, width]) };
  const { [session.outputNames[0]]: output } = await session.run(feeds);
  const [, ...shape] = output.dims;
  const classes = record.label_space.names.length;
  if (output.dims.length !== 4 || shape[0] !== classes) {
    throw new Error(`the model gives logits of shape ${output.dims.join(" x ")} for ${classes} classes; export it again`);
  }
  const logits = output.data;
  if (!logits.every(Number.isFinite)) throw new Error("the network's logits hold NaN or infinity");
  return { logits, shape };
}

/** The share of labels, at the size of the logits, that two sessions have in common on an image of waves. */
async function compare(session, other, record) {
  const size = session.inputMetadata[0].shape.slice(2);
  const tried = size.every(Number.isInteger) ? size : TRIED_SIZE;
  const input = Float32Array.from({ length: 3 * tried[0] * tried[1] }, (_, i) => 2 * Math.sin(i * i * 1e-4 + i * 0.03));
  const results = [await run(session, input, tried, record), await run(other, input, tried, record)];
  const [own, theirs] = results.map(({ logits, shape }) => labelMap(logits, shape, shape.slice(1), true));
  return own.filter((label, i) => label === theirs[i]).length / own.length;
}

export function oneLine(error) {
  const text = String(error?.message ?? error).replace(/\s+/g, " ").trim() || "unknown error";
  return text.length <= 200 ? text : `${text.slice(0, 120)} … ${text.slice(-77)}`;
}
