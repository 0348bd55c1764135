/** What the service says of its model, and whether this page can make queries to it. */

import { whyNot } from "./ciphers.js";
import { counted } from "./words.js";

const MOST_PLACES_SIDE = 16; // a place in a block is one byte

/** Why this page cannot ask the model; null if it can. */
export function whyNotThis({ key, adapts, cipher, versions, answers, block_size: size }) {
  if (key === "none" || cipher === null) {
    return "This model reads plain pictures. This page sends encrypted ones only, so it cannot ask it.";
  }
  if (key === "shared" || adapts) {
    return "This model reads pictures under a key that is kept. This page has keys for one picture only: ask from Python, with that key.";
  }
  if (answers === "permuted" && size > MOST_PLACES_SIDE) {
    return `This page puts answers back in place for blocks of up to ${MOST_PLACES_SIDE} pixels, this model has ${size}. Ask from Python instead.`;
  }
  const reason = whyNot(cipher, versions);
  return reason && `This page cannot encrypt for this model: ${reason}. Ask from Python instead.`;
}

/** The model in two sentences. */
export function described({ name, classes, query }) {
  const [height, width] = query.image_size;
  const [size, side] = [`${width} × ${height} pixels`, query.block_size];
  const fit = query.fit === "resize" ? `are scaled to ${size}` : `of any size are padded to ${size} or more`;
  const draws = query.scope === "common" ? "all alike" : "each anew";
  return `Model ${name}, ${counted(classes.length, "class", "classes")}. Pictures ${fit} and encrypted in ` +
    `blocks of ${side} × ${side}, ${draws}, by ${query.cipher.replaceAll("+", " + ")}.`;
}
