/** Unbiased random permutations, as fl_ppseg/crypto/ciphers/permutations.py specifies them. */

const MAX_LENGTH_OF_32_BITS = 1024;

/**
 * Independent uniform permutations of 0..length-1.
 * @param {(attempt: number, numBytes: number) => Promise<Uint8Array>} stream Random bytes.
 * @param {number} numRows
 * @param {number} length At most 65536.
 * @returns {Promise<Uint16Array>} numRows * length, row by row.
 */
export async function drawPermutations(stream, numRows, length) {
  const permutations = new Uint16Array(numRows * length);
  const bytesOfRow = length * (length <= MAX_LENGTH_OF_32_BITS ? 4 : 8);
  let missing = Array.from({ length: numRows }, (_, row) => row);
  for (let attempt = 0; missing.length; attempt++) {
    const bytes = await stream(attempt, missing.length * bytesOfRow);
    missing = missing.filter((row, place) => {
      const own = permutations.subarray(row * length, (row + 1) * length);
      return !sortPositions(bytes, place * bytesOfRow, own);
    });
    bytes.fill(0);
  }
  scratch.fill(0);
  return permutations;
}

/** Write the positions of random words in the order of the words; false if two of them tie. */
function sortPositions(bytes, start, positions) {
  const length = positions.length;
  const isWide = length > MAX_LENGTH_OF_32_BITS;
  const step = isWide ? 2 : 1; // of 64 bits the low half comes first
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + start, length * step);
  const mask = 2 ** Math.ceil(Math.log2(length)) - 1;
  for (let i = 0; i < length; i++) words[i * step] = (words[i * step] & ~mask) | i;
  if (isWide) new BigUint64Array(words.buffer, words.byteOffset, length).sort();
  else if (mask >= 255) sortByHighBits(words);
  else words.sort();
  positions[0] = words[0] & mask;
  for (let i = 1; i < length; i++) {
    const k = i * step;
    const isTied = (words[k] ^ words[k - step]) >>> 0 <= mask;
    if (isTied && (!isWide || words[k + 1] === words[k - 1])) return false;
    positions[i] = words[k] & mask;
  }
  return true;
}

const counts = new Uint32Array(256);
const scratch = new Uint32Array(MAX_LENGTH_OF_32_BITS);

/** Sort words whose low 8 bits ascend already, byte by byte: three times as fast as `sort`. */
function sortByHighBits(words) {
  sortByByte(words, scratch, words.length, 8);
  sortByByte(scratch, words, words.length, 16);
  sortByByte(words, scratch, words.length, 24);
  words.set(scratch.subarray(0, words.length));
}

/** Write words in the order of one of their bytes; those that are equal there keep theirs. */
function sortByByte(from, to, length, shift) {
  counts.fill(0);
  for (let i = 0; i < length; i++) counts[(from[i] >>> shift) & 255]++;
  let place = 0;
  for (let value = 0; value < 256; value++) {
    const count = counts[value];
    counts[value] = place;
    place += count;
  }
  for (let i = 0; i < length; i++) to[counts[(from[i] >>> shift) & 255]++] = from[i];
}
