/**
 * A key that this browser makes, uses for one picture, and forgets; and the random streams of it.
 *
 * It is the sub-key of fl_ppseg/crypto/keys.py, whose docstring is the specification. WebCrypto
 * holds its 32 bytes: the page can have messages signed with it and cannot read it.
 */

import { keyStream } from "./chacha20.js";

const HMAC = { name: "HMAC", hash: "SHA-256", length: 256 };
const STREAM_LABEL = "fl_ppseg/v1/stream";

/** @returns {Promise<CryptoKey>} A new key of 256 random bits that no script can read. */
export function newKey() {
  return crypto.subtle.generateKey(HMAC, false, ["sign"]);
}

/**
 * The first bytes of the random stream that a label names.
 * @param {CryptoKey} key
 * @param {string} label
 * @param {number} numBytes
 * @returns {Promise<Uint8Array>}
 */
export async function stream(key, label, numBytes) {
  // HKDF-Expand to 32 bytes is one HMAC: T(1) = HMAC(key, info | 1)
  const info = [...fields(STREAM_LABEL, label), 1];
  const streamKey = new Uint8Array(await crypto.subtle.sign("HMAC", key, Uint8Array.from(info)));
  const bytes = keyStream(streamKey, numBytes);
  streamKey.fill(0);
  return bytes;
}

/** Texts behind their lengths, so that no two lists of texts give the same bytes. */
function fields(...texts) {
  return texts.flatMap((text) => {
    const bytes = new TextEncoder().encode(text);
    return [0, 0, bytes.length >> 8, bytes.length & 255, ...bytes];
  });
}
