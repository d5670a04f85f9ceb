// The page: reads what it is about, opens the engine, and brings images from a source through the worker to the view.

import { showAbout, summary } from "./about.js";
import { Client } from "./client.js";
import { element } from "./elements.js";
import { Legend } from "./legend.js";
import { connectPlayer } from "./player.js";
import { saveLabels, saveOverlay } from "./saving.js";
import { connectSources, isLive } from "./sources.js";
import { Timing } from "./timing.js";
import { View } from "./view.js";

class App {
  constructor(page, record) {
    this.page = page;
    this.record = record;
    this.client = new Client();
    this.view = new View(record.label_space);
    this.legend = new Legend(record.label_space, (only) => this.view.show(only));
    this.timing = new Timing();
    this.player = connectPlayer(() => this.wake());
    this.source = null; // what images come from, see sources.js
    this.turn = 0; // counts what was asked for: only the last source is kept, an earlier camera must not stay on
    this.ready = null; // a promise of the engine
    this.running = false;
    this.again = false; // somebody asked for an image while one was on its way
  }

  async openEngine() {
    const choice = element("choice").value;
    element("engine").textContent = "starting";
    busy(`Loading the engine and the model (${(this.page.bytes / 1e6).toFixed(1)} MB)`);
    this.ready = this.client.ask("open", { file: this.page.file, record: this.record, choice });
    const { description, note } = await this.ready;
    element("engine").textContent = description;
    element("note").textContent = note;
    element("note").hidden = !note;
    busy("");
    problem(null);
    this.timing.clear();
    this.wake();
  }

  async setSource(open) {
    this.stop();
    const turn = this.turn;
    let source;
    try {
      source = await open();
    } catch (error) {
      return turn === this.turn ? problem(error) : undefined;
    }
    if (turn !== this.turn) return source.close();
    this.source = source;
    problem(null);
    this.timing.clear();
    this.player.show(this.source);
    element("camera").setAttribute("aria-pressed", String(this.source.kind === "camera"));
    return this.wake();
  }

  stop() {
    this.turn += 1;
    this.source?.close();
    this.source = null;
    this.player.hide();
    element("camera").setAttribute("aria-pressed", "false");
  }

  /** See to it that the source's present image is segmented, and the next ones of one that moves. */
  async wake() {
    this.again = true;
    if (this.running || this.source === null) return;
    this.running = true;
    try {
      await this.ready;
      while (this.again && this.source !== null) {
        this.again = false;
        await this.segment(this.source);
        if (isLive(this.source)) this.again = true;
      }
    } catch (error) {
      problem(error);
    } finally {
      this.running = false;
      busy("");
    }
  }

  async segment(source) {
    const start = performance.now();
    const { rgba, size } = await source.read();
    const shown = new Uint8ClampedArray(rgba);
    if (!source.moves) busy("Segmenting");
    const scale = Number(element("scale").value);
    const result = await this.client.ask("segment", { rgba, size, scale }, [rgba.buffer]);
    if (source !== this.source) return;
    element("empty").hidden = true;
    this.view.draw(shown, result.labels, size);
    this.legend.update(result.labels);
    const whole_ms = performance.now() - start - result.warm_up_ms;
    this.timing.update(result.times, whole_ms, result.input_size, source.moves);
    this.player.update();
    for (const name of ["save-overlay", "save-labels"]) element(name).disabled = false;
  }
}

function busy(text) {
  element("busy").hidden = !text;
  element("busy-text").textContent = text;
}

function problem(error) {
  element("problem").hidden = error === null;
  element("problem").textContent = error === null ? "" : error.message;
}

async function readJson(name) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name} is missing on this server (${response.status}); copy the whole folder`);
  return response.json();
}

function connectControls(app) {
  element("opacity").addEventListener("input", ({ target }) => {
    element("opacity-value").textContent = `${target.value} %`;
    app.view.setOpacity(target.value / 100);
  });
  element("choice").addEventListener("change", () => app.openEngine().catch(problem));
  element("scale").addEventListener("change", () => {
    app.timing.clear();
    app.wake();
  });
  element("scale-field").hidden = app.record.input_size !== null;
  element("save-overlay").addEventListener("click", () => saveOverlay(app.view, app.source));
  element("save-labels").addEventListener("click", () => saveLabels(app.view, app.source));
}

async function start() {
  element("plain").hidden = true;
  try {
    const [page, record] = await Promise.all([readJson("./page.json"), readJson("./record.json")]);
    document.title = `${page.name} – segmentation in this browser`;
    element("name").textContent = page.name;
    element("summary").textContent = summary(record);
    showAbout(record);
    const app = new App(page, record);
    connectControls(app);
    connectSources(page, (open) => app.setSource(open), () => app.stop());
    element("main").hidden = false;
    await app.openEngine();
  } catch (error) {
    busy("");
    problem(error);
  }
}

start();
