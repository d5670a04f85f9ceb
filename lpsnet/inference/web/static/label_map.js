// From logits to the label of every pixel: what lpsnet/inference/label_map.py computes.
//
// A row of logits is found for each row of pixels. Along it every class is a straight line between two neighbouring
// logits, so a class that is largest at both ends is largest all the way: only where the ends differ are the classes
// compared pixel by pixel.

import { places } from "./sampling.js";

/**
 * The class with the largest logit at every pixel, of logits resized bilinearly.
 *
 * @param {Float32Array} logits K x h x w
 * @param {number[]} shape [K, h, w]
 * @param {number[]} size [H, W]
 * @returns {Uint8Array} H x W
 */
export function labelMap(logits, [classes, height, width], [rows, columns], alignCorners) {
  const y = places(height, rows, alignCorners);
  const x = places(width, columns, alignCorners);
  const labels = new Uint8Array(rows * columns);
  const line = new Float32Array(classes * width);
  const best = new Uint8Array(width);
  for (let row = 0; row < rows; row++) {
    logitsOfRow(logits, height, width, y.first[row], y.second[row], y.fraction[row], line);
    bestOfRow(line, classes, best);
    labelRow(line, classes, best, x, labels.subarray(row * columns, (row + 1) * columns));
  }
  return labels;
}

function logitsOfRow(logits, height, width, above, below, down, line) {
  for (let at = 0, offset = 0; at < line.length; offset += height * width) {
    const upper = offset + above * width;
    const lower = offset + below * width;
    for (let x = 0; x < width; x++, at++) {
      line[at] = logits[upper + x] + (logits[lower + x] - logits[upper + x]) * down;
    }
  }
}

function bestOfRow(line, classes, best) {
  const width = best.length;
  for (let x = 0; x < width; x++) {
    let label = 0;
    for (let k = 1; k < classes; k++) if (line[k * width + x] > line[label * width + x]) label = k;
    best[x] = label;
  }
}

function labelRow(line, classes, best, x, labels) {
  for (let column = 0; column < labels.length; column++) {
    const left = x.first[column];
    const right = x.second[column];
    labels[column] =
      best[left] === best[right] ? best[left] : bestBetween(line, classes, best.length, left, right, x.fraction[column]);
  }
}

function bestBetween(line, classes, width, left, right, along) {
  let label = 0;
  let largest = -Infinity;
  for (let k = 0, at = 0; k < classes; k++, at += width) {
    const logit = line[at + left] + (line[at + right] - line[at + left]) * along;
    if (logit > largest) {
      largest = logit;
      label = k;
    }
  }
  return label;
}
