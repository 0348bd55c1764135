/** The ways in which a picture comes to the page: a file, the camera, the clipboard, a drop, a sample scene. */

import { $ } from "./dom.js";

const SAMPLES = "#samples button";
const INPUTS = ["file", "camera"];

/**
 * @param {(source: Blob | HTMLImageElement, name: string, alt: string) => void} choose
 * @param {(message: string) => void} refuse Told where there is no file.
 */
export function listenForPictures(choose, refuse) {
  const chooseFirst = ([file], how) => {
    if ($("file").disabled) return;
    press(null);
    if (file) choose(file, file.name, "Your picture");
    else refuse(`What was ${how} is no file. Save the picture on this device, and choose its file.`);
  };
  for (const input of INPUTS.map($)) {
    input.onchange = () => {
      if (input.files.length) chooseFirst(input.files, "chosen");
      input.value = ""; // so that the same file can be chosen again
    };
  }
  for (const button of document.querySelectorAll(SAMPLES)) {
    button.onclick = () => {
      press(button);
      const image = button.querySelector("img");
      choose(image, image.src.split("/").pop(), image.alt);
    };
  }
  document.onpaste = ({ target, clipboardData }) => {
    if (!target.closest("form")) chooseFirst(clipboardData.files, "pasted");
  };
  document.ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
  document.ondragleave = () => $("drop").classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    chooseFirst(event.dataTransfer.files, "dropped");
  };
}

/** Let pictures be chosen, or not. */
export function setChoosing(isPossible) {
  for (const control of [...document.querySelectorAll(SAMPLES), ...INPUTS.map($)]) control.disabled = !isPossible;
}

function press(button) {
  for (const each of document.querySelectorAll(SAMPLES)) each.ariaPressed = String(each === button);
}
