/** From the pixels of a photograph and a key to the file that is sent. */

import { encrypt, placesOf } from "./ciphers.js";
import { fitted, withoutAlpha } from "./fitting.js";
import { encodePng } from "./png.js";

/**
 * @typedef {object} Query
 * @property {Uint8Array} file The ciphertext, a PNG file: all that is sent.
 * @property {number} height Of the ciphertext, in pixels.
 * @property {number} width
 * @property {{top: number, left: number, height: number, width: number}} place Of the picture in it.
 * @property {Uint8Array | null} places What brings the pixels of an answer back, where it comes in the
 *   order of the ciphertext: never sent.
 * @property {number} milliseconds
 */

/**
 * @param {ImageData} pixels
 * @param {CryptoKey} key
 * @param {object} spec Of the model.
 * @returns {Promise<Query>}
 */
export async function makeQuery(pixels, key, spec) {
  const started = performance.now();
  const { query, place } = fitted(withoutAlpha(pixels), spec);
  const ciphertext = await encrypt(query, key, spec);
  const file = await encodePng(ciphertext);
  const places = spec.answers === "permuted" ? await placesOf(query, key, spec) : null;
  const { height, width } = query;
  return { file, height, width, place, places, milliseconds: performance.now() - started };
}
