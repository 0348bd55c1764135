/** Asking a service that may be busy, or may want a token first. */

import { useToken } from "./api.js";
import { $, show, tell } from "./dom.js";

const MOST_TRIES = 5;
const USUAL_WAIT = 2; // seconds, where a busy service names none

/**
 * Ask, and while the service is busy ask again when it says so.
 * @template T
 * @param {() => Promise<T>} question
 * @param {string} line Where errors are shown.
 * @param {AbortSignal} signal
 * @param {() => void} again What to do once there is a token.
 * @returns {Promise<T | null>} null where there is no answer, and the line says why.
 */
export async function patiently(question, line, signal, again) {
  tell(line);
  for (let tries = 1; ; tries++) {
    try {
      return await question();
    } catch (error) {
      if (signal.aborted) return null;
      if (error.status === 401) askForToken(again);
      else if (!error.isBusy || tries === MOST_TRIES) tell(line, error.message);
      else if (await pause(error.retryAfter ?? USUAL_WAIT, line, signal)) continue;
      return null;
    }
  }
}

/** Ask for a token, then go on with what needed it. */
export function askForToken(goOn) {
  const form = $("token");
  form.hidden = false;
  $("token-field").focus();
  form.onsubmit = (event) => {
    event.preventDefault();
    useToken($("token-field").value);
    form.reset();
    form.hidden = true;
    goOn();
  };
}

/** Wait; false if that was stopped. */
async function pause(seconds, line, signal) {
  tell(line, `The service is busy. Asking again in ${Math.ceil(seconds)} s.`);
  show(["stop"]);
  const isOver = await new Promise((resolve) => {
    setTimeout(resolve, 1000 * seconds, true);
    $("stop").onclick = () => resolve(false);
    signal.addEventListener("abort", () => resolve(false));
  });
  if (signal.aborted) return false; // the line and the button are those of another picture now
  show(["stop"], false);
  tell(line);
  return isOver;
}
