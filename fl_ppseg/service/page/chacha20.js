/** The key stream of ChaCha20 (RFC 8439), from block 0 and with nonce 0: WebCrypto has none. */

const CONSTANTS = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]; // "expand 32-byte k"
const BLOCK_BYTES = 64;

/**
 * The first `numBytes` bytes of the stream under a key that is used for nothing else.
 * @param {Uint8Array} key 32 bytes.
 * @param {number} numBytes Fewer than 2^38.
 * @returns {Uint8Array}
 */
export function keyStream(key, numBytes) {
  const words = new Uint32Array(Math.ceil(numBytes / BLOCK_BYTES) * 16);
  const state = new Uint32Array(16);
  const given = new DataView(key.buffer, key.byteOffset, 32);
  state.set(CONSTANTS);
  for (let i = 0; i < 8; i++) state[4 + i] = given.getUint32(4 * i, true);
  for (let start = 0; start < words.length; start += 16) {
    block(state, words, start);
    state[12]++;
  }
  state.fill(0);
  return inLittleEndian(words).subarray(0, numBytes);
}

/** One block of 16 words, written to `words` from `start`. */
function block(s, words, start) {
  let [x0, x1, x2, x3, x4, x5, x6, x7] = s;
  let x8 = s[8], x9 = s[9], x10 = s[10], x11 = s[11];
  let x12 = s[12], x13 = s[13], x14 = s[14], x15 = s[15];
  for (let round = 0; round < 10; round++) {
    // columns
    x0 = (x0 + x4) | 0; x12 ^= x0; x12 = (x12 << 16) | (x12 >>> 16);
    x8 = (x8 + x12) | 0; x4 ^= x8; x4 = (x4 << 12) | (x4 >>> 20);
    x0 = (x0 + x4) | 0; x12 ^= x0; x12 = (x12 << 8) | (x12 >>> 24);
    x8 = (x8 + x12) | 0; x4 ^= x8; x4 = (x4 << 7) | (x4 >>> 25);
    x1 = (x1 + x5) | 0; x13 ^= x1; x13 = (x13 << 16) | (x13 >>> 16);
    x9 = (x9 + x13) | 0; x5 ^= x9; x5 = (x5 << 12) | (x5 >>> 20);
    x1 = (x1 + x5) | 0; x13 ^= x1; x13 = (x13 << 8) | (x13 >>> 24);
    x9 = (x9 + x13) | 0; x5 ^= x9; x5 = (x5 << 7) | (x5 >>> 25);
    x2 = (x2 + x6) | 0; x14 ^= x2; x14 = (x14 << 16) | (x14 >>> 16);
    x10 = (x10 + x14) | 0; x6 ^= x10; x6 = (x6 << 12) | (x6 >>> 20);
    x2 = (x2 + x6) | 0; x14 ^= x2; x14 = (x14 << 8) | (x14 >>> 24);
    x10 = (x10 + x14) | 0; x6 ^= x10; x6 = (x6 << 7) | (x6 >>> 25);
    x3 = (x3 + x7) | 0; x15 ^= x3; x15 = (x15 << 16) | (x15 >>> 16);
    x11 = (x11 + x15) | 0; x7 ^= x11; x7 = (x7 << 12) | (x7 >>> 20);
    x3 = (x3 + x7) | 0; x15 ^= x3; x15 = (x15 << 8) | (x15 >>> 24);
    x11 = (x11 + x15) | 0; x7 ^= x11; x7 = (x7 << 7) | (x7 >>> 25);
    // diagonals
    x0 = (x0 + x5) | 0; x15 ^= x0; x15 = (x15 << 16) | (x15 >>> 16);
    x10 = (x10 + x15) | 0; x5 ^= x10; x5 = (x5 << 12) | (x5 >>> 20);
    x0 = (x0 + x5) | 0; x15 ^= x0; x15 = (x15 << 8) | (x15 >>> 24);
    x10 = (x10 + x15) | 0; x5 ^= x10; x5 = (x5 << 7) | (x5 >>> 25);
    x1 = (x1 + x6) | 0; x12 ^= x1; x12 = (x12 << 16) | (x12 >>> 16);
    x11 = (x11 + x12) | 0; x6 ^= x11; x6 = (x6 << 12) | (x6 >>> 20);
    x1 = (x1 + x6) | 0; x12 ^= x1; x12 = (x12 << 8) | (x12 >>> 24);
    x11 = (x11 + x12) | 0; x6 ^= x11; x6 = (x6 << 7) | (x6 >>> 25);
    x2 = (x2 + x7) | 0; x13 ^= x2; x13 = (x13 << 16) | (x13 >>> 16);
    x8 = (x8 + x13) | 0; x7 ^= x8; x7 = (x7 << 12) | (x7 >>> 20);
    x2 = (x2 + x7) | 0; x13 ^= x2; x13 = (x13 << 8) | (x13 >>> 24);
    x8 = (x8 + x13) | 0; x7 ^= x8; x7 = (x7 << 7) | (x7 >>> 25);
    x3 = (x3 + x4) | 0; x14 ^= x3; x14 = (x14 << 16) | (x14 >>> 16);
    x9 = (x9 + x14) | 0; x4 ^= x9; x4 = (x4 << 12) | (x4 >>> 20);
    x3 = (x3 + x4) | 0; x14 ^= x3; x14 = (x14 << 8) | (x14 >>> 24);
    x9 = (x9 + x14) | 0; x4 ^= x9; x4 = (x4 << 7) | (x4 >>> 25);
  }
  words[start] = x0 + s[0]; words[start + 1] = x1 + s[1];
  words[start + 2] = x2 + s[2]; words[start + 3] = x3 + s[3];
  words[start + 4] = x4 + s[4]; words[start + 5] = x5 + s[5];
  words[start + 6] = x6 + s[6]; words[start + 7] = x7 + s[7];
  words[start + 8] = x8 + s[8]; words[start + 9] = x9 + s[9];
  words[start + 10] = x10 + s[10]; words[start + 11] = x11 + s[11];
  words[start + 12] = x12 + s[12]; words[start + 13] = x13 + s[13];
  words[start + 14] = x14 + s[14]; words[start + 15] = x15 + s[15];
}

/** The bytes of words, the lowest first, whatever the order of this machine. */
function inLittleEndian(words) {
  const bytes = new Uint8Array(words.buffer);
  if (new Uint8Array(Uint32Array.of(1).buffer)[0] === 1) return bytes;
  const view = new DataView(words.buffer);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  return bytes;
}
