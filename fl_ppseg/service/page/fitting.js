/**
 * How a photograph becomes a query, as fl_ppseg/data/views.py fits images: scaled to the model's
 * window, or kept at its own scale and padded to whole blocks.
 */

import { resampled } from "./resampling.js";

const GREY = 127; // next to 0 in the model's input

/**
 * (H W 4) RGBA as a canvas has it -> (H W 3).
 * @returns {import("./blocks.js").Picture}
 */
export function withoutAlpha({ height, width, data }) {
  const rgb = new Uint8Array(3 * height * width);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return { height, width, data: rgb };
}

/**
 * The query that a picture becomes, and where in it the picture lies.
 * @param {import("./blocks.js").Picture} picture
 * @param {{fit: string, image_size: number[], block_size: number}} spec
 */
export function fitted(picture, spec) {
  if (spec.fit === "resize") {
    const [height, width] = spec.image_size;
    return { query: resampled(picture, height, width), place: { top: 0, left: 0, height, width } };
  }
  return padded(picture, ...frameOf(picture.height, picture.width, spec));
}

/** Height and width of the whole blocks, the model's window at least, that a picture is padded to. */
export function frameOf(height, width, { image_size: least, block_size: size }) {
  return [height, width].map((side, i) => Math.max(Math.ceil(side / size) * size, least[i]));
}

/** The picture in the middle of a grey frame. */
function padded(picture, height, width) {
  const top = Math.ceil((height - picture.height) / 2);
  const left = Math.ceil((width - picture.width) / 2);
  const data = new Uint8Array(3 * height * width).fill(GREY);
  for (let y = 0; y < picture.height; y++) {
    const row = picture.data.subarray(3 * y * picture.width, 3 * (y + 1) * picture.width);
    data.set(row, 3 * ((top + y) * width + left));
  }
  const place = { top, left, height: picture.height, width: picture.width };
  return { query: { height, width, data }, place };
}
