// The worker: loads the model and segments, away from the thread that draws the page.

import { Engine, fetchBytes, oneLine } from "./engine.js";

let model = null;
let engine = null;

const tasks = {
  /** Open the engine of `choice`; again for another choice. */
  async open({ file, record, choice }) {
    model ??= await fetchBytes(file);
    engine = await Engine.open(model, record, choice);
    return { description: engine.description, provider: engine.provider, note: engine.note };
  },
  segment: ({ rgba, size, scale }) => engine.segment(rgba, size, scale),
};

self.onmessage = async ({ data }) => {
  try {
    const result = await tasks[data.task](data);
    self.postMessage({ id: data.id, result }, result.labels ? [result.labels.buffer] : []);
  } catch (error) {
    self.postMessage({ id: data.id, problem: oneLine(error) });
  }
};
