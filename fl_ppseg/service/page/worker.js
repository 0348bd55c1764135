/** Encrypts one picture beside the page, and is ended with all that it drew from the key. */

import { makeQuery } from "./query.js";

self.onmessage = async ({ data: { pixels, key, spec } }) => {
  try {
    const query = await makeQuery(pixels, key, spec);
    self.postMessage({ query }, [query.file.buffer]);
  } catch (error) {
    self.postMessage({ message: error.message });
  }
};
