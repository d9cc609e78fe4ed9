"use strict";
// Small pictures are enlarged without smoothing; in a blind session a key presses the button that names it.
const SMALL = 128;
for (const image of document.querySelectorAll("img:not(.chart)")) {
  const mark = () => { if (image.naturalWidth <= SMALL) image.classList.add("pixels"); };
  if (image.complete) mark(); else image.addEventListener("load", mark);
}
let answered = false;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (answered || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const found = [...document.querySelectorAll("[data-keys]")].find((one) => one.dataset.keys.split(" ").includes(event.key));
  if (found === undefined) return;
  event.preventDefault();
  answered = true;
  found.click();
});
