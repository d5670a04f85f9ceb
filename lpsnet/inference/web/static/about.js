// What the record says about the model, in words.

import { element, showPairs } from "./elements.js";

export function summary(record) {
  const count = record.label_space.names.length;
  return `${count} ${count === 1 ? "class" : "classes"} · ${size(record)}`;
}

export function showAbout(record) {
  const { training } = record;
  const rows = {
    Architecture: record.architecture ?? "not one of lpsnet",
    Block: record.architecture && `${record.block}, ${record.interaction}`,
    Input: size(record),
    "Label space": record.label_space.name,
    "Trained on": training.data && `${training.data}${training.split ? `, split ${training.split}` : ""}`,
    Licence: record.licence || "none given",
    "Made by": record.lpsnet_version && `lpsnet ${record.lpsnet_version}`,
  };
  showPairs(element("about"), rows);
}

function size({ input_size }) {
  return input_size === null ? "images at their own size" : `images at ${input_size.join(" × ")}`;
}
