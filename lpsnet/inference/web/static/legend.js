// The classes with their colours and shares. Pressing one shows it alone; pressing it again shows all.

import { cssColour, element, make } from "./elements.js";

export class Legend {
  /** @param {(only: number | null) => void} select called with the class to show alone, or null for all */
  constructor({ names, colours }, select) {
    this.select = select;
    this.only = null;
    this.rows = names.map((name, label) => this.makeRow(name, colours[label], label));
  }

  makeRow(name, colour, label) {
    const button = make("button", "class");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const swatch = make("span", "swatch");
    swatch.style.backgroundColor = cssColour(colour);
    const bar = make("span", "share-bar");
    const share = make("span", "share", "–");
    button.append(swatch, make("span", "text", name), share, bar);
    button.addEventListener("click", () => this.press(label));
    const item = make("li");
    item.append(button);
    element("legend").append(item);
    return { button, bar, share };
  }

  press(label) {
    this.only = this.only === label ? null : label;
    this.rows.forEach(({ button }, own) => button.setAttribute("aria-pressed", String(own === this.only)));
    this.select(this.only);
  }

  /** @param {Uint8Array} labels a class id a pixel */
  update(labels) {
    const counts = new Uint32Array(256);
    for (const label of labels) counts[label]++;
    this.rows.forEach(({ button, bar, share }, label) => {
      const percent = (100 * counts[label]) / labels.length;
      button.classList.toggle("absent", counts[label] === 0);
      share.textContent = `${percent.toFixed(1)} %`;
      bar.style.setProperty("--share", `${percent}%`);
    });
  }
}
