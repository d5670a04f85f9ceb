// Where images come from: an image file, a video file, the camera.
//
// A source has a kind, a name, `moves` (whether images keep coming), `read()` that gives the present image as RGBA
// bytes and its size [H, W], and `close()`.

import { element } from "./elements.js";

/** Whether the next image of a source comes without anybody asking for it. */
export function isLive(source) {
  return source.moves && !(source.video.paused || source.video.ended);
}

/**
 * Connect the buttons, dropping and pasting.
 *
 * @param {(open: () => Promise<object>) => void} use called with what opens the source chosen
 * @param {() => void} stop
 */
export function connectSources(page, use, stop) {
  const useFile = (file) => file && use(() => openFile(file));
  for (const kind of ["image", "video"]) {
    const input = element(`${kind}-file`);
    element(kind).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      useFile(input.files[0]);
      input.value = ""; // so that the same file may be chosen again
    });
  }
  element("choose").addEventListener("click", () => element("image-file").click());
  element("camera").addEventListener("click", ({ currentTarget }) => {
    if (currentTarget.getAttribute("aria-pressed") === "true") stop();
    else use(openCamera);
  });
  element("example-offer").hidden = page.example === null;
  element("example").addEventListener("click", () => use(() => openExample(page.example)));
  connectDropping(useFile);
}

function connectDropping(useFile) {
  const stage = element("stage");
  for (const event of ["dragenter", "dragover"]) {
    document.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      stage.classList.add("dragged-over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) stage.classList.remove("dragged-over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("dragged-over");
    useFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => useFile(event.clipboardData.files[0]));
}

function openFile(file) {
  return file.type.startsWith("video/") ? openVideo(file) : openImage(file, file.name);
}

async function openExample(name) {
  const response = await fetch(name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`the example ${name} is missing on this server (${response.status})`);
  return openImage(await response.blob(), name);
}

/** An image's bytes as stored: turned as its EXIF data says, not converted between colour spaces. */
async function openImage(blob, name) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, options);
  } catch {
    throw new Error(`${name} is not an image that this browser can read; PNG, JPEG and WebP always are`);
  }
  const reader = new Reader();
  return {
    kind: "image",
    name,
    moves: false,
    read: async () => reader.read(bitmap, bitmap.width, bitmap.height),
    close: () => bitmap.close(),
  };
}

async function openVideo(file) {
  const video = makeVideo();
  video.src = URL.createObjectURL(file);
  video.loop = true;
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error(`${file.name} is not a video that this browser can play`));
  });
  await video.play();
  return moving("video", file.name, video, () => URL.revokeObjectURL(video.src));
}

async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("the camera is there for pages from https and localhost only");
  const video = makeVideo();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Error(`the camera cannot be used: ${error.message}`);
  }
  await video.play();
  return moving("camera", "camera", video, () => video.srcObject.getTracks().forEach((track) => track.stop()));
}

function makeVideo() {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  return video;
}

function moving(kind, name, video, release) {
  const reader = new Reader();
  let shown = -1; // the media time of the image read last
  const read = async () => {
    while (!video.paused && video.currentTime === shown) await nextDrawing();
    shown = video.currentTime;
    return reader.read(video, video.videoWidth, video.videoHeight);
  };
  const close = () => {
    video.pause();
    release();
  };
  return { kind, name, moves: true, video, read, close };
}

function nextDrawing() {
  return new Promise((resolve) => setTimeout(resolve, 4));
}

/** Reads pixels through a canvas, which it keeps. */
class Reader {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  read(drawable, width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    this.context.drawImage(drawable, 0, 0);
    return { rgba: this.context.getImageData(0, 0, width, height).data, size: [height, width] };
  }
}
