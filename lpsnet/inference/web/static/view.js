// The image, the colours over it, and the class under the pointer or under the keyboard's cross.

import { cssColour, element } from "./elements.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const STEP_SHARE = 0.01; // of the longer side, a press of an arrow key; ten times that with Shift

export class View {
  constructor({ names, colours }) {
    this.names = names;
    this.colours = colours;
    this.only = null;
    this.labels = null;
    this.size = [0, 0];
    this.cross = null; // [y, x] of the keyboard's cross
    this.element = element("view");
    this.frame = element("frame");
    this.overlay = element("overlay");
    this.setOpacity(element("opacity").value / 100);
    this.connect();
  }

  connect() {
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerdown", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => this.hideTip());
    this.element.addEventListener("keydown", (event) => this.move(event));
    this.element.addEventListener("blur", () => this.hideTip());
  }

  setOpacity(opacity) {
    this.overlay.style.opacity = opacity;
  }

  /** Colour one class alone, or all where `only` is null. */
  show(only) {
    this.only = only;
    if (this.labels !== null) this.paint();
  }

  /** @param {Uint8ClampedArray} rgba the image; @param {Uint8Array} labels as large */
  draw(rgba, labels, size) {
    [this.labels, this.size] = [labels, size];
    for (const canvas of [this.frame, this.overlay]) {
      if (canvas.height !== size[0] || canvas.width !== size[1]) [canvas.height, canvas.width] = size;
    }
    this.element.style.setProperty("--ratio", size[1] / size[0]);
    this.element.hidden = false;
    element("stage").classList.add("filled");
    this.frame.getContext("2d").putImageData(new ImageData(rgba, size[1], size[0]), 0, 0);
    this.paint();
    if (this.cross) this.showCross();
  }

  paint() {
    const image = new ImageData(this.size[1], this.size[0]);
    const pixels = new Uint32Array(image.data.buffer);
    const table = this.table();
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[this.labels[i]];
    this.overlay.getContext("2d").putImageData(image, 0, 0);
  }

  /** The pixel of every class id, RGBA bytes as one number. */
  table() {
    const bytes = new Uint8Array(256 * 4);
    this.colours.forEach((colour, label) => {
      if (this.only === null || this.only === label) bytes.set([...colour, 255], 4 * label);
    });
    return new Uint32Array(bytes.buffer);
  }

  point({ clientX, clientY }) {
    if (this.labels === null) return;
    const box = this.overlay.getBoundingClientRect();
    const place = [(clientY - box.top) / box.height, (clientX - box.left) / box.width];
    this.cross = null;
    element("cross").hidden = true;
    if (place.every((share) => share >= 0 && share < 1)) this.showTip(this.pixelAt(place));
    else this.hideTip();
  }

  pixelAt(place) {
    return place.map((share, axis) => Math.min(Math.floor(share * this.size[axis]), this.size[axis] - 1));
  }

  move(event) {
    const step = STEPS[event.key];
    if (step === undefined || this.labels === null) return;
    event.preventDefault();
    const length = Math.max(1, Math.round(Math.max(...this.size) * STEP_SHARE * (event.shiftKey ? 10 : 1)));
    const from = this.cross ?? this.size.map((side) => Math.floor(side / 2));
    const moved = this.cross === null ? from : from.map((at, axis) => at + step[axis] * length);
    this.cross = moved.map((at, axis) => Math.min(Math.max(at, 0), this.size[axis] - 1));
    this.showCross();
    element("spoken").textContent = this.nameAt(this.cross);
  }

  showCross() {
    element("cross").hidden = false;
    this.place(element("cross"), this.cross);
    this.showTip(this.cross);
  }

  nameAt([y, x]) {
    return this.names[this.labels[y * this.size[1] + x]] ?? "no class";
  }

  showTip(pixel) {
    const tip = element("tip");
    const label = this.labels[pixel[0] * this.size[1] + pixel[1]];
    tip.querySelector(".text").textContent = this.nameAt(pixel);
    tip.querySelector(".swatch").style.backgroundColor = cssColour(this.colours[label] ?? [0, 0, 0]);
    tip.hidden = false;
    this.place(tip, pixel);
    tip.classList.toggle("left", pixel[1] > this.size[1] / 2);
    tip.classList.toggle("below", pixel[0] < this.size[0] / 4);
  }

  hideTip() {
    element("tip").hidden = true;
    element("cross").hidden = true;
    this.cross = null;
  }

  /** Put an element over the middle of a pixel. */
  place(which, pixel) {
    const [top, left] = pixel.map((at, axis) => `${(100 * (at + 0.5)) / this.size[axis]}%`);
    which.style.top = top;
    which.style.left = left;
  }
}
