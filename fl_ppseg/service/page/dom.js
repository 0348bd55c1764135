/** The few things that the page does with its elements. */

/** @param {string} id */
export const $ = (id) => document.getElementById(id);

/** Show a line, or hide it where there is none. */
export function tell(id, message = null) {
  const line = $(id);
  (line.querySelector("span") ?? line).textContent = message ?? "";
  line.hidden = message === null;
}

/** Have a screen reader say something. */
export function announce(message) {
  $("status").textContent = message;
}

export function show(ids, isShown = true) {
  for (const id of ids) $(id).hidden = !isShown;
}

/** Show a PNG file in an image. */
export function showImage(id, file, alt) {
  const image = $(id);
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(new Blob([file], { type: "image/png" }));
  Object.assign(image, { alt, hidden: false });
}
