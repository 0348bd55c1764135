/** Reading a photograph: a file that the browser can show becomes pixels, and stays here. */

const MOST_SIDE = 4096; // of what is read from a canvas; larger photographs are scaled down first
const WITHOUT_CHANGES = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

/** @typedef {{pixels: ImageData, url: string, height: number, width: number}} Photograph */

/**
 * @param {Blob} file
 * @param {number} mostPixels That the service takes.
 * @returns {Promise<Photograph>} `url` shows the file; revoke it when it is no longer shown.
 */
export async function openPhotograph(file, mostPixels) {
  checkCanvas();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, WITHOUT_CHANGES); // turned as its EXIF data says
  } catch {
    throw new Error("This is no picture that the browser can read. Choose a PNG or JPEG file.");
  }
  const { height, width } = bitmap;
  const share = Math.min(1, MOST_SIDE / Math.max(height, width), Math.sqrt(mostPixels / (height * width)));
  const size = [Math.max(1, Math.floor(width * share)), Math.max(1, Math.floor(height * share))];
  const context = canvasOf(...size);
  context.fillStyle = "#ffffff"; // behind what is transparent
  context.fillRect(0, 0, ...size);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, ...size);
  bitmap.close();
  const pixels = context.getImageData(0, 0, ...size);
  return { pixels, url: URL.createObjectURL(file), height: size[1], width: size[0] };
}

/** Refuse a browser that gives pages other pixels than were drawn, against fingerprinting. */
function checkCanvas() {
  const context = canvasOf(32, 32);
  const drawn = context.createImageData(32, 32);
  drawn.data.forEach((_, i, data) => { data[i] = i % 4 === 3 ? 255 : (i * 89 + (i >> 7) * 31) & 255; });
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 32, 32).data;
  if (read.some((value, i) => value !== drawn.data[i])) {
    throw new Error("This browser changes the pixels that a page reads (protection against " +
      "fingerprinting), so the map would be wrong. Allow this page to read canvas data.");
  }
}

function canvasOf(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new Error("The picture is too large for this browser. Choose a smaller one.");
  return context;
}
