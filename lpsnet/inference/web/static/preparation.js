// From an image to what the network takes: the same function as lpsnet/inference/preprocess.py, which says why.
//
// A size is [height, width] in pixels. Images are RGBA bytes, row by row, as a canvas gives them.

import { places } from "./sampling.js";

export const MIN_INPUT = 32; // pixels; the smallest height and width that a network takes

/** The size that the network runs at for an image of `size`: the model's own, else the image's times `scale`. */
export function inputSize(size, record, scale) {
  return record.input_size ?? size.map((length) => Math.max(MIN_INPUT, Math.round(length * scale)));
}

/** 3 x height x width of `target`, float32: normalised as the record says, then resized. */
export function prepare(rgba, size, target, record) {
  const same = size[0] === target[0] && size[1] === target[1];
  const area = target[0] * target[1];
  const result = new Float32Array(3 * area);
  const channelMap = same ? null : new Float32Array(size[0] * size[1]);
  const windows = size.map((length, axis) => averagingWindow(length, target[axis]));
  for (let channel = 0; channel < 3; channel++) {
    const { mean, std } = record.normalisation;
    const own = result.subarray(channel * area, (channel + 1) * area);
    lookUp(rgba, channel, normalisedBytes(mean[channel], std[channel]), channelMap ?? own);
    if (channelMap === null) continue;
    averageRows(channelMap, size, windows[1]);
    sample(averagedColumns(channelMap, size, windows[0]), size, own, target, record.align_corners);
  }
  return result;
}

function normalisedBytes(mean, std) {
  return Float32Array.from({ length: 256 }, (_, byte) => (byte / 255 - mean) / std);
}

function lookUp(rgba, channel, table, channelMap) {
  for (let i = 0, at = channel; i < channelMap.length; i++, at += 4) channelMap[i] = table[rgba[at]];
}

/** Width of the average taken before shrinking: odd, and 1, which changes nothing, for less than halving. */
export function averagingWindow(source, target) {
  return Math.floor(Math.floor(source / target) / 2) * 2 + 1;
}

/** For each place of an axis, what enters and what leaves the sum over `window` places when it moves on by one. */
function slidingWindow(length, window) {
  const radius = (window - 1) / 2;
  const mirrored = (i) => (i < 0 ? -i : i >= length ? 2 * length - 2 - i : i); // the ends are not repeated
  return {
    first: Int32Array.from({ length: window }, (_, i) => mirrored(i - radius)),
    enters: Int32Array.from({ length }, (_, i) => mirrored(i + radius + 1)),
    leaves: Int32Array.from({ length }, (_, i) => mirrored(i - radius)),
  };
}

/** In place: each value of a row becomes the average of the `window` around it. */
function averageRows(channelMap, [height, width], window) {
  if (window === 1) return;
  const { first, enters, leaves } = slidingWindow(width, window);
  const line = new Float64Array(width);
  for (let y = 0; y < height; y++) {
    const row = channelMap.subarray(y * width, (y + 1) * width);
    line.set(row);
    let sum = 0;
    for (const x of first) sum += line[x];
    for (let x = 0; x < width; x++) {
      row[x] = sum / window;
      sum += line[enters[x]] - line[leaves[x]];
    }
  }
}

/** The same down the columns; a new array where there is something to average. */
function averagedColumns(channelMap, [height, width], window) {
  if (window === 1) return channelMap;
  const { first, enters, leaves } = slidingWindow(height, window);
  const result = new Float32Array(channelMap.length);
  const sums = new Float64Array(width);
  for (const y of first) for (let x = 0; x < width; x++) sums[x] += channelMap[y * width + x];
  for (let y = 0, at = 0; y < height; y++) {
    const enter = enters[y] * width;
    const leave = leaves[y] * width;
    for (let x = 0; x < width; x++, at++) {
      result[at] = sums[x] / window;
      sums[x] += channelMap[enter + x] - channelMap[leave + x];
    }
  }
  return result;
}

function sample(channelMap, [height, width], out, [rows, columns], alignCorners) {
  const y = places(height, rows, alignCorners);
  const x = places(width, columns, alignCorners);
  for (let row = 0, at = 0; row < rows; row++) {
    const above = y.first[row] * width;
    const below = y.second[row] * width;
    const down = y.fraction[row];
    for (let column = 0; column < columns; column++, at++) {
      const left = x.first[column];
      const right = x.second[column];
      const along = x.fraction[column];
      const upper = channelMap[above + left] + (channelMap[above + right] - channelMap[above + left]) * along;
      const lower = channelMap[below + left] + (channelMap[below + right] - channelMap[below + left]) * along;
      out[at] = upper + (lower - upper) * down;
    }
  }
}
