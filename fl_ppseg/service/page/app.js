/** The page: choose a picture, encrypt it here, see what the service gets, read its answer. */

import { cut, drawConfidence, drawLabels, fillLegend, inPlace, sharesOf } from "./answer.js";
import { ServiceError, askModel, askReconstruction, askSegment } from "./api.js";
import { listenForPictures, setChoosing } from "./choosing.js";
import { $, announce, show, showImage, tell } from "./dom.js";
import { encryptOnce, whatIsMissing } from "./encrypting.js";
import { described, whyNotThis } from "./model.js";
import { askForToken, patiently } from "./patience.js";
import { openPhotograph } from "./photograph.js";
import { decodePng } from "./png.js";
import { labelFile, overlayFile, save } from "./saving.js";
import { counted, duration, fileSize, percent, whatRemains } from "./words.js";

const MOST_ANSWER_SIDE = 1024; // of the map, in pixels; the model's own output is coarser
const LINES = ["choose-error", "send-error", "attack-error", "save-error"];
const OF_A_PICTURE = ["photograph", "ciphertext", "key", "again", "send", "remains", "attack"];
const ASKING = ["again", "send", "attack-switch"];

const state = { model: null, photograph: null, name: "", query: null, labels: null, confidence: null };
let current = new AbortController(); // of the ciphertext that is shown; another one ends its requests

/** Ask what the model takes; pictures can be chosen once that is known. */
async function start() {
  tell("unreachable");
  const missing = whatIsMissing();
  if (missing) return refuse(missing);
  let model;
  try {
    model = await askModel();
  } catch (error) {
    $("model").textContent = "";
    return error.status === 401 ? askForToken(start) : tell("unreachable", error.message);
  }
  const reason = whyNotThis(model.query);
  if (reason) return refuse(reason);
  state.model = model;
  $("model").textContent = described(model);
  $("remains").querySelector("span").textContent = whatRemains(model.query);
  return setChoosing(true);
}

/** Say why nothing can be asked here, whatever one tries. */
function refuse(reason) {
  $("model").textContent = "";
  tell("unreachable", reason);
  show(["reload"], false);
}

/** Take a new picture, and drop all that was of the one before. */
async function choose(source, name, alt) {
  startAnew();
  const { signal } = current;
  const { limits, query } = state.model;
  let photograph;
  try {
    photograph = await openPhotograph(source, limits.max_pixels, query);
  } catch (error) {
    if (!signal.aborted) refusePicture(error.message);
    return;
  }
  if (signal.aborted) return URL.revokeObjectURL(photograph.url);
  if (state.photograph) URL.revokeObjectURL(state.photograph.url);
  Object.assign(state, { photograph, name: name.replace(/\.[^.]*$/, "") });
  Object.assign($("photograph"), { src: photograph.url, alt, hidden: false });
  const aspect = photograph.width / photograph.height;
  for (const frame of document.querySelectorAll(".frame")) frame.style.setProperty("--aspect", aspect);
  await encrypt();
  $("pair").scrollIntoView({ block: "nearest" });
}

/** Say what is wrong with a picture, and show nothing of the one before. */
function refusePicture(message) {
  startAnew();
  show(OF_A_PICTURE, false);
  setBusy(false);
  caption();
  tell("choose-error", message);
}

function setBusy(isBusy) {
  $("pair").ariaBusy = String(isBusy);
  $("gets-empty").textContent = isBusy ? "Encrypting…" : "The encrypted picture";
}

async function encrypt() {
  const { signal } = current;
  announce("Encrypting in this browser.");
  let query;
  try {
    query = await encryptOnce(state.photograph.pixels, state.model.query);
  } catch (error) {
    if (!signal.aborted) refusePicture(`The picture could not be encrypted: ${error.message}`);
    return;
  }
  if (signal.aborted) return;
  setBusy(false);
  state.query = query;
  const { file, height, width, milliseconds } = query;
  const number = (height * width) / state.model.query.block_size ** 2;
  showImage("ciphertext", file, "The encrypted picture: what it shows is scrambled block by block");
  $("encrypted").textContent = `${counted(number, "block")} encrypted in ${duration(milliseconds)}`;
  show(["restored"], false);
  caption();
  show(["key", "again", "send", "remains"]);
  show(["kept"], query.places !== null);
  show(["attack"], state.model.reconstruct);
  for (const id of ASKING) $(id).disabled = false;
  announce("Encrypted, and the key is forgotten. Nothing has been sent yet.");
}

/** What is shown of what the service gets. */
function caption() {
  if (!$("restored").hidden) {
    $("gets-caption").textContent = "What an attacker's network restores from it. A larger network, trained for longer, restores more.";
    return;
  }
  if (!state.query) {
    $("gets-caption").textContent = "What the service gets, and nothing else.";
    return;
  }
  const { file, height, width, isSent } = state.query;
  const size = `${width} × ${height} pixels, ${fileSize(file.length)}`;
  $("gets-caption").textContent = `What the service gets, and nothing else: ${size}. ${isSent ? "Sent." : "Not sent yet."}`;
}

/** Drop the ciphertext and its answer, and end what was asked about them. */
function startAnew() {
  current.abort();
  current = new AbortController();
  Object.assign(state, { query: null, labels: null, confidence: null });
  setBusy(true);
  for (const line of LINES) tell(line);
  show(["result", "stop", "restored"], false);
  show(["waiting"]);
  for (const id of ASKING) $(id).disabled = true; // until there is another ciphertext
  $("attack-switch").checked = false;
  $("send").textContent = "Send it and get the map";
}

/** The size of the map that is asked for, and where in it the photograph lies. */
function answerSize() {
  const { height, width, place, places } = state.query;
  if (state.model.query.fit === "crop") return { size: { height, width }, place };
  if (places) return { size: { height, width }, place: { top: 0, left: 0, height, width } };
  const [from, across] = [state.photograph.height, state.photograph.width];
  const share = Math.min(1, MOST_ANSWER_SIDE / Math.max(from, across));
  const size = { height: Math.max(1, Math.round(from * share)), width: Math.max(1, Math.round(across * share)) };
  return { size, place: { top: 0, left: 0, ...size } };
}

async function segment(signal) {
  const { size, place } = answerSize();
  let answer = await decodePng(await askSegment(state.query.file, size, signal));
  if (answer.numChannels !== 3 || answer.height !== size.height || answer.width !== size.width) {
    throw new ServiceError(0, "The service answered with a map of another size or kind.");
  }
  const { places } = state.query;
  if (places) answer = inPlace(answer, places, state.model.query.block_size);
  return { labels: cut(answer, 0, place), confidence: cut(answer, 1, place) };
}

async function send() {
  const { signal } = current;
  Object.assign($("send"), { disabled: true, textContent: "Waiting for the answer…" });
  state.query.isSent = true;
  caption();
  announce("Sent. Waiting for the answer.");
  const started = performance.now();
  const answer = await patiently(() => segment(signal), "send-error", signal, send);
  if (signal.aborted) return;
  Object.assign($("send"), { disabled: false, textContent: "Send it and get the map" });
  if (!answer) return;
  const hasFocus = [$("send"), document.body].includes(document.activeElement);
  show(["send"], false);
  if (hasFocus) $("answer").focus({ preventScroll: true }); // not lost with the button
  Object.assign(state, answer);
  showAnswer(performance.now() - started);
}

function showAnswer(milliseconds) {
  const shares = sharesOf(state.labels, state.model.classes);
  const told = shares.slice(0, 4).map(({ name, share }) => `${name} ${percent(share)}`).join(", ");
  $("summary").textContent = `${counted(shares.length, "class", "classes")} found; answered in ${duration(milliseconds)}.`;
  Object.assign($("under"), { src: state.photograph.url, alt: $("photograph").alt });
  $("map").ariaLabel = `Map of the classes: ${told}`;
  const { labels, model: { classes } } = state;
  fillLegend($("legend"), shares, (id) => drawLabels($("map"), labels, classes, id));
  $("view-labels").checked = true;
  showView("labels");
  show(["waiting"], false);
  show(["result"]);
  announce(`The map is here: ${told}.`);
  $("answer").scrollIntoView({ block: "nearest" });
}

function showView(view) {
  show(["legend"], view === "labels");
  show(["scale"], view === "confidence");
  if (view === "labels") drawLabels($("map"), state.labels, state.model.classes, null);
  else drawConfidence($("map"), state.confidence);
}

async function showRestored() {
  const isWanted = $("attack-switch").checked;
  const { signal } = current;
  if (isWanted) {
    state.query.isSent = true;
    caption();
    const question = () => askReconstruction(state.query.file, signal);
    const file = await patiently(question, "attack-error", signal, showRestored);
    if (signal.aborted || !$("attack-switch").checked) return;
    if (!file) {
      $("attack-switch").checked = false;
      return;
    }
    showImage("restored", file, "What an attacker's network restores from the encrypted picture");
    announce("What an attacker restores is shown in place of the encrypted picture.");
  }
  show(["restored"], isWanted);
  show(["ciphertext"], !isWanted);
  caption();
}

/** Make a file of the answer, and hand it to the browser's downloads. */
async function keep(made, name) {
  tell("save-error");
  try {
    save(await made(), name);
    announce(`${name} is saved.`);
  } catch (error) {
    tell("save-error", `This cannot be saved: ${error.message}`);
  }
}

const saveLabels = () =>
  keep(() => labelFile(state.labels, state.photograph.original), `${state.name}_labelTrainIds.png`);
const saveOverlay = () =>
  keep(() => overlayFile(state.photograph.pixels, $("map"), $("opacity").value / 100), `overlay_${state.name}.png`);

function listen() {
  listenForPictures(choose, refusePicture);
  $("reload").onclick = start;
  $("again").onclick = encryptAgain;
  $("save-labels").onclick = saveLabels;
  $("save-overlay").onclick = saveOverlay;
  $("send").onclick = send;
  $("attack-switch").onchange = showRestored;
  $("opacity").oninput = () => $("map").style.setProperty("--opacity", $("opacity").value / 100);
  for (const id of ["view-labels", "view-confidence"]) $(id).onchange = () => showView($(id).value);
}

async function encryptAgain() {
  startAnew();
  await encrypt();
  if (document.activeElement === document.body) $("again").focus({ preventScroll: true }); // it was disabled meanwhile
}

setChoosing(false);
listen();
start();
