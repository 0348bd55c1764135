/**
 * The perceptual ciphers, as the docstrings of fl_ppseg/crypto/ciphers specify them: the same bytes.
 *
 * Each is a function of blocks (N L) and of a draw: the key, the block scope, the geometry and the
 * cipher's place in a product.
 */

import { fromBlocks, geometryOf, toBlocks } from "./blocks.js";
import { stream } from "./keys.js";
import { drawPermutations } from "./permutations.js";

const FEISTEL_ROUNDS = 36;

const CIPHERS = {
  "shuffle": { version: 1, apply: shuffle },
  "shuffle-spatial": { version: 1, apply: shuffleSpatial },
  "negative-positive": { version: 2, apply: negativePositive },
  "ffx": { version: 1, apply: ffx },
  "restricted-shuffle": { version: 1, apply: restrictedShuffle },
  "etc": { version: 1, apply: etc },
};

/**
 * Why this page cannot encrypt by a cipher; null if it can.
 * @param {string} cipher Its name, or a product a+b.
 * @param {Object<string, number>} versions Of the model, by the names of ciphers.
 */
export function whyNot(cipher, versions) {
  for (const name of cipher.split("+")) {
    const own = Object.hasOwn(CIPHERS, name) ? CIPHERS[name].version : null;
    const wanted = versions[name] ?? 1;
    if (own === null) return `the cipher ${name} is not in this page`;
    if (own !== wanted) return `this page has version ${own} of the cipher ${name}, not ${wanted}`;
  }
  return null;
}

/**
 * (H W 3) -> (H W 3), encrypted block by block, the blocks in place.
 * @param {import("./blocks.js").Picture} picture Height and width are multiples of the block size.
 * @param {CryptoKey} key Of this picture alone.
 * @param {{cipher: string, scope: "common" | "per-block", block_size: number}} spec
 */
export async function encrypt(picture, key, { cipher, scope, block_size: size }) {
  const geometry = geometryOf(picture.height, picture.width, size);
  const numRows = scope === "common" ? 1 : geometry.count;
  let blocks = toBlocks(picture, geometry);
  for (const [step, name] of cipher.split("+").entries()) {
    blocks = await CIPHERS[name].apply(blocks, { key, scope, geometry, numRows, step });
  }
  return fromBlocks(blocks, geometry);
}

/**
 * Where the pixels of a ciphertext come from: the place in its block of each, by rows of the block.
 * Of ciphers that move pixels whole and may invert values, for blocks of up to 16 x 16.
 * @param {{height: number, width: number}} picture
 * @param {CryptoKey} key Of the ciphertext.
 * @param {{cipher: string, scope: "common" | "per-block", block_size: number}} spec
 * @returns {Promise<Uint8Array>} One place for each pixel of the ciphertext, row by row.
 */
export async function placesOf({ height, width }, key, { cipher, scope, block_size: size }) {
  const data = new Uint8Array(3 * height * width);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) data[to] = (y % size) * size + (x % size);
  }
  const geometry = geometryOf(height, width, size);
  const numRows = scope === "common" ? 1 : geometry.count;
  let blocks = toBlocks({ height, width, data }, geometry);
  for (const [step, name] of cipher.split("+").entries()) {
    if (name === "shuffle-spatial") {
      blocks = await CIPHERS[name].apply(blocks, { key, scope, geometry, numRows, step });
    }
  }
  return fromBlocks(blocks, geometry).data.filter((_, index) => index % 3 === 0);
}

/** The random streams of one draw, one an attempt. */
function streamOf(label, { key, scope, geometry, step }) {
  const start = `${label}/${scope}/length=${geometry.length}/step=${step}/attempt=`;
  return (attempt, numBytes) => stream(key, start + attempt, numBytes);
}

async function shuffle(blocks, draw) {
  const { length } = draw.geometry;
  const moves = await drawPermutations(streamOf("shuffle", draw), draw.numRows, length);
  return gathered(blocks, moves, length);
}

async function shuffleSpatial(blocks, draw) {
  const numPixels = draw.geometry.size ** 2;
  const pixels = await drawPermutations(streamOf("shuffle-spatial", draw), draw.numRows, numPixels);
  return gathered(blocks, pixels, numPixels, 3); // the channels of a block alike
}

async function restrictedShuffle(blocks, draw) {
  const { length } = draw.geometry;
  const numFixed = Math.floor((2 * length) / 3);
  const label = `restricted-shuffle/fixed=${numFixed}`;
  const sources = await drawPermutations(streamOf(label, draw), draw.numRows, length);
  const moves = new Uint16Array(sources.length);
  for (let row = 0; row < sources.length; row += length) {
    for (let l = 0; l < length; l++) moves[row + l] = l;
    const drawn = sources.subarray(row, row + length - numFixed);
    drawn.slice().sort().forEach((place, i) => { moves[row + place] = drawn[i]; });
  }
  sources.fill(0);
  return gathered(blocks, moves, length);
}

async function negativePositive(blocks, draw) {
  const { numRows, geometry: { length } } = draw;
  const numBytes = Math.ceil(length / 8);
  const bits = await streamOf("negative-positive/v2", draw)(0, numRows * numBytes);
  for (let from = 0, row = 0; from < blocks.length; from += length, row += numBytes) {
    if (row === bits.length) row = 0; // one row for all
    for (let l = 0; l < length; l++) {
      blocks[from + l] ^= -((bits[row + (l >> 3)] >> (l & 7)) & 1);
    }
  }
  bits.fill(0);
  return blocks;
}

async function ffx(blocks, draw) {
  const { length } = draw.geometry;
  const chosen = await drawPermutations(streamOf("ffx/positions", draw), draw.numRows, length);
  const numBytes = draw.numRows * FEISTEL_ROUNDS * 16;
  const rounds = await streamOf("ffx/rounds", draw)(0, numBytes);
  const half = Math.floor(length / 2);
  let codebook;
  for (let from = 0, row = 0; from < blocks.length; from += length, row++) {
    if (row < draw.numRows) codebook = feistelCodebook(rounds, row * FEISTEL_ROUNDS * 16);
    const positions = Math.min(row, draw.numRows - 1) * length;
    for (let i = 0; i < half; i++) {
      const l = from + chosen[positions + i];
      blocks[l] = codebook[blocks[l]];
    }
  }
  chosen.fill(0), rounds.fill(0), codebook.fill(0);
  return blocks;
}

/** What each of 256 values becomes: (a, b) -> (b, a XOR F_i(b)) of its halves, 36 times. */
function feistelCodebook(rounds, start) {
  const codebook = new Uint8Array(256);
  for (let value = 0; value < 256; value++) {
    let left = value >> 4;
    let right = value & 15;
    for (let table = start; table < start + 16 * FEISTEL_ROUNDS; table += 16) {
      const next = left ^ (rounds[table + right] & 15);
      left = right;
      right = next;
    }
    codebook[value] = (left << 4) | right;
  }
  return codebook;
}

async function etc(blocks, draw) {
  const { numRows, geometry: { size, length } } = draw;
  if (size % 2) throw new RangeError(`the cipher etc needs blocks with an even side, not ${size}`);
  const scramble = await drawPermutations(streamOf("etc/scramble", draw), numRows, 4);
  const colours = await drawPermutations(streamOf("etc/colours", draw), 4 * numRows, 3);
  const turns = await streamOf("etc/turns", draw)(0, 4 * numRows);
  const half = size / 2;
  const moves = new Uint16Array(numRows * length);
  const masks = new Uint8Array(numRows * length);
  for (let part = 0; part < 4 * numRows; part++) {
    const [row, turn, from] = [(part >> 2) * length, turns[part], scramble[part]];
    const corner = (k) => (k >> 1) * half * size + (k & 1) * half;
    for (let c = 0; c < 3; c++) {
      const source = colours[3 * part + c] * size * size + corner(from);
      const target = row + c * size * size + corner(part & 3);
      for (let y = 0; y < half; y++) {
        for (let x = 0; x < half; x++) {
          let [v, u] = turn & 4 ? [x, y] : [y, x];
          if (turn & 2) v = half - 1 - v;
          if (turn & 1) u = half - 1 - u;
          moves[target + y * size + x] = source + v * size + u;
          masks[target + y * size + x] = turn & 8 ? 255 : 0;
        }
      }
    }
  }
  const moved = gathered(blocks, moves, length);
  for (let l = 0; l < moved.length; l++) moved[l] ^= masks[l % masks.length];
  scramble.fill(0), colours.fill(0), turns.fill(0), masks.fill(0);
  return moved;
}

/**
 * (N L) -> (N L), blocks[b, moves[b, l]] with one row of moves for all, or one for each `times` of
 * the N; the moves are erased.
 */
function gathered(blocks, moves, length, times = 1) {
  const result = new Uint8Array(blocks.length);
  for (let from = 0, row = 0; from < blocks.length; row += length) {
    if (row === moves.length) row = 0;
    for (const end = from + times * length; from < end; from += length) {
      for (let l = 0; l < length; l++) result[from + l] = blocks[from + moves[row + l]];
    }
  }
  moves.fill(0);
  return result;
}
