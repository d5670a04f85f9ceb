// The worker: loads the model and segments, away from the thread that draws the page.

import { Engine, fetchBytes, oneLine } from "./engine.js";

let model = null;
let engine = null;
let queue = Promise.resolve(); // one task after another, so that no engine is closed while it works

const tasks = {
  /** Open the engine of `choice`; again for another choice. */
  async open({ file, record, choice }) {
    model ??= await fetchBytes(file);
    await engine?.close();
    engine = null;
    engine = await Engine.open(model, record, choice);
    return { description: engine.description, note: engine.note };
  },
  segment({ rgba, size, scale }) {
    if (engine === null) throw new Error("no engine is open; choose another one");
    return engine.segment(rgba, size, scale);
  },
};

async function answer(data) {
  try {
    const result = await tasks[data.task](data);
    self.postMessage({ id: data.id, result }, result.labels ? [result.labels.buffer] : []);
  } catch (error) {
    self.postMessage({ id: data.id, problem: oneLine(error) });
  }
}

self.onmessage = ({ data }) => {
  queue = queue.then(() => answer(data));
};
