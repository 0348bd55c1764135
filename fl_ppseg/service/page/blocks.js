/** A picture as a grid of square blocks, the values of each in order (channel, y, x). */

/** @typedef {{height: number, width: number, data: Uint8Array}} Picture RGB, row by row. */
/** @typedef {{size: number, rows: number, columns: number, count: number, length: number}} Geometry */

/**
 * @param {number} height
 * @param {number} width
 * @param {number} size Side of a block in pixels, of which height and width are multiples.
 * @returns {Geometry}
 */
export function geometryOf(height, width, size) {
  const [rows, columns] = [height / size, width / size];
  if (!Number.isInteger(rows) || !Number.isInteger(columns)) {
    throw new RangeError(`${height} x ${width} pixels are no whole blocks of ${size}`);
  }
  return { size, rows, columns, count: rows * columns, length: 3 * size * size };
}

/** (H W 3) -> (N L): the values of each block. */
export function toBlocks(picture, geometry) {
  const blocks = new Uint8Array(picture.data.length);
  eachRow(geometry, picture.width, (pixel, value, channel) => {
    for (let x = 0; x < geometry.size; x++) blocks[value + x] = picture.data[pixel + 3 * x + channel];
  });
  return blocks;
}

/** (N L) -> (H W 3): the inverse of `toBlocks`. */
export function fromBlocks(blocks, geometry) {
  const [height, width] = [geometry.rows * geometry.size, geometry.columns * geometry.size];
  const data = new Uint8Array(blocks.length);
  eachRow(geometry, width, (pixel, value, channel) => {
    for (let x = 0; x < geometry.size; x++) data[pixel + 3 * x + channel] = blocks[value + x];
  });
  return { height, width, data };
}

/** Call with where each row of each channel of each block starts, in the picture and in the blocks. */
function eachRow({ size, rows, columns }, width, call) {
  let value = 0;
  for (let block = 0; block < rows * columns; block++) {
    const corner = Math.floor(block / columns) * size * width + (block % columns) * size;
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < size; y++, value += size) call(3 * (corner + y * width), value, channel);
    }
  }
}
