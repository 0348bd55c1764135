/** What may be kept of an answer: the label map at the picture's own size, and the view of it. */

import { encodePng } from "./png.js";

/**
 * The label map as a grey PNG file: trainIds, the nearest for each pixel of the picture.
 * @param {{height: number, width: number, data: Uint8Array}} labels
 * @param {{height: number, width: number}} original
 * @returns {Promise<Blob>}
 */
export async function labelFile({ height: down, width: across, data }, { height, width }) {
  const values = new Uint8Array(height * width);
  const columns = Uint32Array.from({ length: width }, (_, x) => nearest(x, width, across));
  for (let y = 0, to = 0; y < height; y++) {
    const row = nearest(y, height, down) * across;
    for (let x = 0; x < width; x++) values[to++] = data[row + columns[x]];
  }
  return new Blob([await encodePng({ height, width, data: values })], { type: "image/png" });
}

/** The point of a line of `from` points in which the middle of point i of `to` lies. */
function nearest(i, to, from) {
  return Math.floor(((2 * i + 1) * from) / (2 * to));
}

/**
 * The map over the picture as a PNG file, as large as the picture that was encrypted.
 * @param {ImageData} pixels
 * @param {HTMLCanvasElement} map
 * @param {number} opacity 0..1
 * @returns {Promise<Blob>}
 */
export async function overlayFile(pixels, map, opacity) {
  const { height, width } = pixels;
  const canvas = Object.assign(document.createElement("canvas"), { height, width });
  const context = canvas.getContext("2d");
  context.putImageData(pixels, 0, 0);
  context.globalAlpha = opacity;
  context.drawImage(map, 0, 0, width, height);
  const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!file) throw new Error("the picture is too large for this browser");
  return file;
}

/** Hand a file to the browser's downloads. */
export function save(file, name) {
  const url = URL.createObjectURL(file);
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // it may still be read
}
