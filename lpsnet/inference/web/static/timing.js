// How long an image takes: the last one, or the median of the last ones where they keep coming.

import { element, showPairs } from "./elements.js";

const NUM_KEPT = 30;

export class Timing {
  constructor() {
    this.clear();
  }

  clear() {
    this.kept = [];
    this.show({}, "");
  }

  /** Milliseconds of an image's parts, and of everything from reading it to drawing it. */
  update(times, whole_ms, size, moves) {
    this.kept = [...(moves ? this.kept.slice(1 - NUM_KEPT) : []), { ...times, whole_ms }];
    const names = Object.keys(this.kept[0]);
    const medians = Object.fromEntries(names.map((name) => [name, median(this.kept.map((each) => each[name]))]));
    this.show(medians, size.join(" × "), moves);
  }

  show({ prepare_ms, network_ms, labels_ms, whole_ms }, size, moves) {
    element("network").textContent = digits(network_ms);
    showPairs(element("timing"), {
      "Network’s input": size || "–",
      Preparing: `${digits(prepare_ms)} ms`,
      "Scores to labels": `${digits(labels_ms)} ms`,
      Everything: `${digits(whole_ms)} ms`,
      "Images a second": moves && digits(1000 / whole_ms),
    });
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function digits(value) {
  if (value === undefined) return "–";
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}
