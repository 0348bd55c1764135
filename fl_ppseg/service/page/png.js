/**
 * PNG files of 8 bits a value, written and read to the byte: a canvas may change values (colour
 * management, protection against fingerprinting), and a changed ciphertext is another picture.
 */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;
const RGB = 2;
const NUM_CHANNELS = { [GREY]: 1, [RGB]: 3 };

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/**
 * The file of a picture, RGB or grey without alpha, not filtered: ciphertexts do not gain by it.
 * @param {{height: number, width: number, data: Uint8Array}} picture
 * @returns {Promise<Uint8Array>}
 */
export async function encodePng({ height, width, data }) {
  const length = data.length / height;
  const rows = new Uint8Array(height * (length + 1));
  for (let y = 0; y < height; y++) rows.set(data.subarray(y * length, (y + 1) * length), y * (length + 1) + 1);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, length === width ? GREY : RGB, 0, 0, 0], 8);
  const packed = await through(new CompressionStream("deflate"), rows);
  const chunks = [chunk("IHDR", header), chunk("IDAT", packed), chunk("IEND", new Uint8Array())];
  return joined([Uint8Array.from(SIGNATURE), ...chunks]);
}

/**
 * The values of a grey or RGB file, row by row.
 * @param {Uint8Array} file
 * @returns {Promise<{height: number, width: number, numChannels: number, data: Uint8Array}>}
 */
export async function decodePng(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (SIGNATURE.some((byte, i) => file[i] !== byte)) throw new TypeError("not a PNG file");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [bits, colour, , , interlaced] = file.subarray(24, 29);
  const numChannels = NUM_CHANNELS[colour];
  if (bits !== 8 || !numChannels || interlaced) {
    throw new TypeError(`expected a PNG file of 8 bits, grey or RGB, got ${bits} bits, type ${colour}`);
  }
  const packed = [];
  for (let start = 8; start < file.length; ) {
    const length = view.getUint32(start);
    const name = String.fromCharCode(...file.subarray(start + 4, start + 8));
    if (name === "IDAT") packed.push(file.subarray(start + 8, start + 8 + length));
    start += length + 12;
  }
  const rows = await through(new DecompressionStream("deflate"), joined(packed));
  if (rows.length !== height * (width * numChannels + 1)) throw new TypeError("a PNG file is cut off");
  return { height, width, numChannels, data: unfiltered(rows, height, width * numChannels, numChannels) };
}

/** The values of filtered rows, each behind the number of its filter. */
function unfiltered(rows, height, length, step) {
  const data = new Uint8Array(height * length);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (length + 1)];
    for (let x = 0, at = y * length; x < length; x++, at++) {
      const left = x < step ? 0 : data[at - step];
      const above = y ? data[at - length] : 0;
      const corner = x < step || !y ? 0 : data[at - length - step];
      data[at] = rows[y * (length + 1) + 1 + x] + predicted(filter, left, above, corner);
    }
  }
  return data;
}

function predicted(filter, left, above, corner) {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return above;
  if (filter === 3) return (left + above) >> 1;
  const [toLeft, toAbove] = [Math.abs(above - corner), Math.abs(left - corner)];
  const toCorner = Math.abs(left + above - 2 * corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}

function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) bytes[4 + i] = name.charCodeAt(i);
  bytes.set(content, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < bytes.length - 4; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  view.setUint32(content.length + 8, (crc ^ 0xffffffff) >>> 0);
  return bytes;
}

async function through(stream, bytes) {
  const out = new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer();
  return new Uint8Array(await out);
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let place = 0;
  for (const part of parts) {
    all.set(part, place);
    place += part.length;
  }
  return all;
}
