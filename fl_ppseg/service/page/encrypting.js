/** One picture, one key: both go to a worker that is ended when the ciphertext is there. */

import { newKey } from "./keys.js";
import { makeQuery } from "./query.js";

/**
 * @param {ImageData} pixels
 * @param {object} spec Of the model.
 * @returns {Promise<import("./query.js").Query>}
 */
export async function encryptOnce(pixels, spec) {
  const key = await newKey();
  return (await inWorker(pixels, key, spec)) ?? makeQuery(pixels, key, spec);
}

/** Why this browser cannot encrypt; null if it can. */
export function whatIsMissing() {
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle) {
    return "Browsers encrypt only on pages that come by HTTPS: ask whoever runs this service for its https:// address.";
  }
  if (!globalThis.CompressionStream || !globalThis.createImageBitmap) {
    return "This browser is too old to encrypt pictures. Please use a current one.";
  }
  return null;
}

/** The query; null if workers cannot be started here. */
function inWorker(pixels, key, spec) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    const end = (settle, value) => {
      worker.terminate(); // and with it go the key and all that was drawn from it
      settle(value);
    };
    worker.onmessage = ({ data: { query, message } }) =>
      query ? end(resolve, query) : end(reject, new Error(message));
    worker.onerror = () => end(resolve, null);
    worker.postMessage({ pixels, key, spec });
  });
}
