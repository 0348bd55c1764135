/** What the page says in words: sizes, shares, and what remains visible of a ciphertext. */

/** What a cipher may do to a block, as in fl_ppseg/crypto/ciphers. */
const EFFECTS = {
  "shuffle": ["moves values"],
  "shuffle-spatial": ["moves pixels"],
  "negative-positive": ["inverts"],
  "etc": ["moves pixels", "moves values", "inverts"],
};
const ALONE = {
  "etc": "each quarter of it, apart from how it was turned, inverted and coloured. Texture and outlines remain",
  "ffx": "half of its values as they were. The picture remains recognisable",
  "restricted-shuffle": "two thirds of its values in their places. The picture remains recognisable",
};
const LEFT = {
  "values": "which values it holds, though not where nor in which colour. Light, shadow and large shapes remain",
  "values inverted": "how far its values lie from mid-grey, though not where. Contrast and large shapes remain; light and colour can be guessed",
  "pixels": "which colours it holds, though not where. A coarse picture in colour remains",
  "pixels inverted": "how far its colours lie from mid-grey, though not where. Contrast and large shapes remain; light and colour can be guessed",
  "inverted": "how far each value lies from mid-grey, in its place. Outlines remain",
};
const UNNAMED = "what all parts of its cipher leave. Expect more than a coarse picture";

/**
 * What whoever holds a ciphertext can still read, in plain words.
 * @param {{cipher: string, scope: string, block_size: number}} spec
 */
export function whatRemains({ cipher, scope, block_size: size }) {
  const many = scope === "common"
    ? " One secret serves all blocks of the picture: from a large one, statistics find it, and the picture is decrypted."
    : "";
  return `of each block of ${size} × ${size} pixels, anybody who holds the encrypted ` +
    `picture can read ${leftBy(cipher)}.${many} The service also knows the map that it answers.`;
}

function leftBy(cipher) {
  if (Object.hasOwn(ALONE, cipher)) return ALONE[cipher];
  const names = cipher.split("+");
  if (!names.every((name) => Object.hasOwn(EFFECTS, name))) return UNNAMED;
  const effects = new Set(names.flatMap((name) => EFFECTS[name]));
  const moved = effects.has("moves values") ? "values" : effects.has("moves pixels") ? "pixels" : "";
  return LEFT[[moved, effects.has("inverts") ? "inverted" : ""].join(" ").trim()];
}

/** @param {number} bytes */
export function fileSize(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1000).toPrecision(3)} kB` : `${(bytes / 1e6).toPrecision(3)} MB`;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  return seconds < 1 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${seconds.toFixed(1)} s`;
}

/** A share of 1 in percent; what is there is never 0. */
export function percent(share) {
  const rounded = 100 * share;
  return rounded >= 10 ? `${Math.round(rounded)} %` : rounded >= 0.1 ? `${rounded.toFixed(1)} %` : "< 0.1 %";
}

/** 1234 -> "1,234 blocks" */
export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
