/** The answer over the photograph: a canvas of colours, and a legend of the classes in it. */

import { percent } from "./words.js";

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const DIMMED = 40; // opacity of the classes beside a highlighted one, of 255

/**
 * One channel of the answer, as large as the part of it that the photograph covers.
 * @param {{data: Uint8Array, width: number, numChannels: number}} answer
 * @param {number} channel
 * @param {{top: number, left: number, height: number, width: number}} place
 */
export function cut({ data, width: across, numChannels }, channel, { top, left, height, width }) {
  const values = new Uint8Array(height * width);
  for (let y = 0, to = 0; y < height; y++) {
    let from = ((top + y) * across + left) * numChannels + channel;
    for (let x = 0; x < width; x++, from += numChannels) values[to++] = data[from];
  }
  return { height, width, data: values };
}

/**
 * An answer in the order of the ciphertext, put back in place.
 * @param {{height: number, width: number, data: Uint8Array, numChannels: number}} answer
 * @param {Uint8Array} places Of the query, as many as its pixels.
 * @param {number} size Side of a block in pixels.
 */
export function inPlace({ height, width, data, numChannels }, places, size) {
  const restored = new Uint8Array(data.length);
  for (let y = 0, from = 0; y < height; y++) {
    for (let x = 0; x < width; x++, from++) {
      const [row, column] = [Math.floor(places[from] / size), places[from] % size];
      const to = (y - (y % size) + row) * width + (x - (x % size) + column);
      for (let c = 0; c < numChannels; c++) restored[to * numChannels + c] = data[from * numChannels + c];
    }
  }
  return { height, width, data: restored, numChannels };
}

/**
 * The classes of a map with their shares of its pixels, the largest first.
 * @param {{data: Uint8Array}} labels trainIds
 * @param {{name: string, colour: number[], train_id: number}[]} classes
 */
export function sharesOf(labels, classes) {
  const counts = new Uint32Array(256);
  for (const label of labels.data) counts[label]++;
  return classes
    .map((each) => ({ ...each, share: counts[each.train_id] / labels.data.length }))
    .filter((each) => each.share > 0)
    .sort((a, b) => b.share - a.share);
}

/** Draw a label map; with a highlighted class the others are pale. */
export function drawLabels(canvas, labels, classes, highlighted) {
  const colours = new Uint32Array(256); // pixels of no class stay clear
  for (const { colour, train_id: id } of classes) {
    colours[id] = rgba(colour, highlighted === null || highlighted === id ? 255 : DIMMED);
  }
  draw(canvas, labels, colours);
}

/** Draw how sure the model is: 0 dark, 255 bright. */
export function drawConfidence(canvas, confidence) {
  draw(canvas, confidence, Uint32Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (VIRIDIS.length - 1);
    const lower = Math.min(Math.floor(place), VIRIDIS.length - 2);
    const mixed = VIRIDIS[lower].map((from, c) => from + (place - lower) * (VIRIDIS[lower + 1][c] - from));
    return rgba(mixed, 255);
  }));
}

/**
 * Fill the legend; a class is highlighted while it is pointed at, has the focus or is pressed.
 * @param {HTMLElement} list
 * @param {ReturnType<typeof sharesOf>} shares
 * @param {(id: number | null) => void} highlight
 */
export function fillLegend(list, shares, highlight) {
  let [pressed, lit] = [null, null];
  const light = (id) => {
    if (lit !== id) highlight(lit = id);
  };
  const press = (id) => {
    pressed = pressed === id ? null : id;
    for (const button of list.querySelectorAll("button")) {
      button.ariaPressed = String(Number(button.dataset.id) === pressed);
    }
    light(pressed);
  };
  list.replaceChildren(...shares.map(({ name, colour, train_id: id, share }) => {
    const button = Object.assign(document.createElement("button"), { type: "button", ariaPressed: "false" });
    button.dataset.id = id;
    const swatch = document.createElement("i");
    swatch.style.setProperty("--c", `rgb(${colour.join(" ")})`);
    const label = Object.assign(document.createElement("span"), { textContent: name });
    const value = Object.assign(document.createElement("b"), { textContent: percent(share) });
    button.append(swatch, label, value);
    button.onpointermove = button.onfocus = () => light(id); // not where the page scrolls under a pointer at rest
    button.onpointerleave = button.onblur = () => light(pressed);
    button.onclick = () => press(id);
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
}

function draw(canvas, { height, width, data }, colours) {
  Object.assign(canvas, { height, width });
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < data.length; i++) pixels[i] = colours[data[i]];
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** A pixel as the memory of a canvas has it, in the byte order of this machine. */
function rgba([r, g, b], alpha) {
  return new Uint32Array(new Uint8ClampedArray([r, g, b, alpha]).buffer)[0];
}
