"use strict";
// What a mark of a chart says is shown at once beside the pointer, on telephones after a tap.
const tip = document.getElementById("tip");
for (const title of document.querySelectorAll(".chart title")) {
  const mark = title.parentElement;
  const text = title.textContent;
  title.remove(); // or the browser would show it too
  mark.classList.add("says");
  mark.addEventListener("pointerenter", (event) => show(text, event));
  mark.addEventListener("pointermove", (event) => show(text, event));
  mark.addEventListener("pointerleave", () => { tip.hidden = true; });
}
function show(text, event) {
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 18;
  const top = below + tip.offsetHeight < innerHeight ? below : event.clientY - tip.offsetHeight - 12;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}
