// The page's end of the worker: a question, and a promise of its answer.

export class Client {
  constructor() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.asked = 0;
    this.worker.onmessage = ({ data }) => this.settle(data);
    this.worker.onerror = (event) => this.fail(event.message || "the page's programs could not be loaded");
  }

  ask(task, details, transfer = []) {
    const id = this.asked++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, task, ...details }, transfer);
    });
  }

  settle({ id, result, problem }) {
    if (!this.waiting.has(id)) return; // given up when the worker failed
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (problem === undefined) resolve(result);
    else reject(new Error(problem));
  }

  fail(message) {
    for (const { reject } of this.waiting.values()) reject(new Error(message));
    this.waiting.clear();
  }
}
