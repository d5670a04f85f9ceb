// Where the pixels of a resized image lie between those of its source: one axis of bilinear sampling.

/**
 * For each of `target` pixels the two source pixels it lies between, and how far (0 to 1) from the first to the second.
 *
 * With `alignCorners` the centres of the corner pixels coincide; without, the corners of the images do.
 */
export function places(source, target, alignCorners) {
  const first = new Int32Array(target);
  const second = new Int32Array(target);
  const fraction = new Float32Array(target);
  const aligned = alignCorners && target > 1 ? (source - 1) / (target - 1) : 0;
  const step = alignCorners ? aligned : source / target;
  const origin = alignCorners ? 0 : step / 2 - 0.5;
  for (let i = 0; i < target; i++) {
    const position = Math.min(Math.max(origin + step * i, 0), source - 1);
    first[i] = Math.min(Math.floor(position), Math.max(source - 2, 0));
    second[i] = Math.min(first[i] + 1, source - 1);
    fraction[i] = position - first[i];
  }
  return { first, second, fraction };
}
