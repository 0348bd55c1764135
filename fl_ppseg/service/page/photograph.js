/** Reading a photograph: a file that the browser can show becomes pixels, and stays here. */

import { frameOf } from "./fitting.js";

const MOST_SIDE = 4096; // of what is read from a canvas; larger photographs are scaled down first
const WITHOUT_CHANGES = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

/**
 * @typedef {object} Photograph
 * @property {ImageData} pixels
 * @property {string} url Shows the picture; revoke it when it is no longer shown.
 * @property {number} height Of the pixels.
 * @property {number} width
 * @property {{height: number, width: number}} original Before it was scaled down.
 */

/**
 * @param {Blob | HTMLImageElement} source
 * @param {number} mostPixels That the service takes.
 * @param {{fit: string, image_size: number[], block_size: number}} spec Of the model.
 * @returns {Promise<Photograph>}
 */
export async function openPhotograph(source, mostPixels, spec) {
  checkCanvas();
  let bitmap;
  try {
    bitmap = await createImageBitmap(source, WITHOUT_CHANGES); // turned as its EXIF data says
  } catch {
    throw new Error("This is no picture that the browser can read. Choose a JPEG or PNG file of at most 100 megapixels, " +
      "and save HEIC photographs as JPEG first.");
  }
  const { height, width } = bitmap;
  const share = shareWithin(mostPixels, height, width, spec);
  const size = [Math.max(1, Math.floor(width * share)), Math.max(1, Math.floor(height * share))];
  const context = canvasOf(...size);
  context.fillStyle = "#ffffff"; // behind what is transparent
  context.fillRect(0, 0, ...size);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, ...size);
  bitmap.close();
  const pixels = context.getImageData(0, 0, ...size);
  const url = source instanceof Blob ? URL.createObjectURL(source) : source.src;
  return { pixels, url, height: size[1], width: size[0], original: { height, width } };
}

/** What the sides are multiplied by, so that neither the picture nor its query has too many pixels. */
function shareWithin(mostPixels, height, width, spec) {
  let share = Math.min(1, MOST_SIDE / Math.max(height, width), Math.sqrt(mostPixels / (height * width)));
  const pixels = () => frameOf(height * share, width * share, spec).reduce((all, side) => all * side);
  while (spec.fit === "crop" && pixels() > mostPixels && share > 0.001) share *= 0.99;
  return share;
}

/** Refuse a browser that gives pages other pixels than were drawn, against fingerprinting. */
function checkCanvas() {
  const context = canvasOf(32, 32);
  const drawn = context.createImageData(32, 32);
  drawn.data.forEach((_, i, data) => { data[i] = i % 4 === 3 ? 255 : (i * 89 + (i >> 7) * 31) & 255; });
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 32, 32).data;
  if (read.some((value, i) => value !== drawn.data[i])) {
    throw new Error("This browser changes the pixels that a page reads (protection against " +
      "fingerprinting), so the map would be wrong. Allow this page to read canvas data.");
  }
}

function canvasOf(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new Error("The picture is too large for this browser. Choose a smaller one.");
  return context;
}
