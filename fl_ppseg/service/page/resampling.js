/**
 * Bilinear scaling with antialiasing, as Pillow's `Image.resize` does it: a picture becomes the same
 * query in every browser and, to one grey level (Pillow may begin with either axis), in Python.
 */

const PRECISION = 22; // bits behind the point, as Pillow has for 8-bit images

/**
 * (h w 3) -> (height width 3), scaled.
 * @param {import("./blocks.js").Picture} picture
 * @param {number} height
 * @param {number} width
 */
export function resampled(picture, height, width) {
  let { data } = picture;
  if (width !== picture.width) {
    data = alongLines(data, picture.width, width, {
      numLines: picture.height, line: [3 * picture.width, 3 * width], step: 3, numChannels: 3,
    });
  }
  if (height !== picture.height) {
    data = alongLines(data, picture.height, height, {
      numLines: 1, line: [0, 0], step: 3 * width, numChannels: 3 * width,
    });
  }
  return { height, width, data };
}

/**
 * Scale every line of values from one length to another.
 * @param {{numLines: number, line: number[], step: number, numChannels: number}} layout How many
 *   lines; values from one line to the next, in the source and in the result; values from one
 *   point of a line to the next; and how many values there are at a point.
 */
function alongLines(source, from, to, { numLines, line, step, numChannels }) {
  const result = new Uint8Array((source.length / from) * to);
  const sums = new Int32Array(numChannels);
  for (let i = 0; i < to; i++) {
    const { first, weights } = weightsOf(i, from, to);
    for (let number = 0; number < numLines; number++) {
      sums.fill(1 << (PRECISION - 1));
      let place = number * line[0] + first * step;
      for (const weight of weights) {
        for (let c = 0; c < numChannels; c++) sums[c] += source[place + c] * weight;
        place += step;
      }
      const target = number * line[1] + i * step;
      for (let c = 0; c < numChannels; c++) {
        result[target + c] = Math.min(255, sums[c] >> PRECISION);
      }
    }
  }
  return result;
}

/** Which points of the source make point i of the result, and their weights in 2^-22. */
function weightsOf(i, from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  const centre = (i + 0.5) * scale;
  const first = Math.max(0, Math.trunc(centre - reach + 0.5));
  const last = Math.min(from, Math.trunc(centre + reach + 0.5));
  const shares = Array.from({ length: last - first }, (_, k) =>
    Math.max(0, 1 - Math.abs((first + k - centre + 0.5) * (1 / reach))));
  const sum = shares.reduce((total, share) => total + share, 0);
  const weights = shares.map((share) => Math.trunc(0.5 + (share / sum) * 2 ** PRECISION));
  return { first, weights };
}
