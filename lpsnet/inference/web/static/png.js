// A label map as a PNG of 8-bit grey, whose values are the class ids: what `lpsnet segment` writes as STEM.labels.png.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY_8_BIT = [8, 0, 0, 0, 0]; // depth, colour type, compression, filter, interlace

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** @param {Uint8Array} values height x width */
export async function greyPng(values, [height, width]) {
  const rows = new Uint8Array(height * (width + 1)); // each row begins with its filter, 0
  for (let y = 0; y < height; y++) rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const pixels = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array([...bytesOf(width), ...bytesOf(height), ...GREY_8_BIT]);
  const chunks = [chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())];
  return new Blob([new Uint8Array(SIGNATURE), ...chunks], { type: "image/png" });
}

function chunk(kind, data) {
  const checked = new Uint8Array(4 + data.length);
  checked.set([...kind].map((letter) => letter.charCodeAt(0)));
  checked.set(data, 4);
  return new Blob([new Uint8Array(bytesOf(data.length)), checked, new Uint8Array(bytesOf(crc(checked)))]);
}

function bytesOf(number) {
  return [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC_TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}
