/** The service's three questions. An access token, if one is asked for, is kept in memory alone. */

const PNG = "image/png";
let token = null;

/** An answer that is none: its status, the service's own words, and when to ask again. */
export class ServiceError extends Error {
  /**
   * @param {number} status 0 where the service cannot be reached.
   * @param {string} detail
   * @param {number | null} retryAfter Seconds.
   */
  constructor(status, detail, retryAfter = null) {
    super(detail);
    Object.assign(this, { status, retryAfter });
  }

  /** Whether the same question may be answered a little later. */
  get isBusy() {
    return this.status === 429 || this.status === 503;
  }
}

/** @param {string} text Sent to this service with every further request. */
export function useToken(text) {
  token = text;
}

/** What the service is: its model, what a query must be, its classes and its limits. */
export async function askModel(signal) {
  return (await ask("/v1/model", { signal })).json();
}

/**
 * The map of a ciphertext: a PNG file, whose red holds trainIds and whose green how sure they are.
 * @param {Uint8Array} file The ciphertext.
 * @param {{height: number, width: number}} size Of the map.
 */
export async function askSegment(file, { height, width }, signal) {
  const query = new URLSearchParams({ answer: "both", height, width });
  return bytesOf(await ask(`/v1/segment?${query}`, { ...posted(file), signal }));
}

/** What an attacker's network restores from a ciphertext, a PNG file. */
export async function askReconstruction(file, signal) {
  return bytesOf(await ask("/v1/reconstruct", { ...posted(file), signal }));
}

function posted(file) {
  return { method: "POST", body: file, headers: { "Content-Type": PNG } };
}

async function bytesOf(response) {
  return new Uint8Array(await response.arrayBuffer());
}

async function ask(path, options) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const rest = { cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" };
  let response;
  try {
    response = await fetch(path, { ...options, ...rest, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "The service cannot be reached. Is it running, and are you online?");
  }
  if (response.ok) return response;
  throw new ServiceError(response.status, await detailOf(response), retryAfterOf(response));
}

/** The service's own words; they are shown as text. */
async function detailOf(response) {
  const said = await response.json().catch(() => null);
  const detail = typeof said?.detail === "string" ? said.detail.slice(0, 300) : "";
  return detail || `The service answered with status ${response.status}.`;
}

function retryAfterOf(response) {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), 60) : null;
}
