// Play, pause and seek for a video file.

import { element } from "./elements.js";

/** @param {() => void} wake called when another image is there to be segmented */
export function connectPlayer(wake) {
  let video = null;
  const player = {
    show(source) {
      video = source.kind === "video" ? source.video : null;
      element("player").hidden = video === null;
      if (video === null) return;
      element("seek").max = video.duration;
      video.addEventListener("seeked", wake);
      for (const event of ["play", "pause", "ended"]) video.addEventListener(event, () => player.update());
      player.update();
    },
    hide() {
      video = null;
      element("player").hidden = true;
    },
    update() {
      if (video === null) return;
      element("play").textContent = video.paused ? "Play" : "Pause";
      element("seek").value = video.currentTime;
      element("clock").textContent = `${clock(video.currentTime)} / ${clock(video.duration)}`;
    },
  };
  element("play").addEventListener("click", async () => {
    if (video === null) return;
    if (video.paused) await video.play();
    else video.pause();
    wake();
  });
  element("seek").addEventListener("input", ({ target }) => {
    if (video !== null) video.currentTime = Number(target.value);
  });
  return player;
}

function clock(seconds) {
  const whole = Math.floor(Number.isFinite(seconds) ? seconds : 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
