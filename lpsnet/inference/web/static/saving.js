// Saving what is shown, as `lpsnet segment` names it: STEM.overlay.png and STEM.labels.png.

import { greyPng } from "./png.js";

export async function saveLabels(view, source) {
  download(await greyPng(view.labels, view.size), `${stem(source)}.labels.png`);
}

export function saveOverlay(view, source) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = view.size;
  const context = canvas.getContext("2d");
  context.drawImage(view.frame, 0, 0);
  context.globalAlpha = Number(view.overlay.style.opacity);
  context.drawImage(view.overlay, 0, 0);
  canvas.toBlob((blob) => download(blob, `${stem(source)}.overlay.png`), "image/png");
}

function stem(source) {
  return source === null ? "image" : source.name.replace(/\.[^.]*$/, "");
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
