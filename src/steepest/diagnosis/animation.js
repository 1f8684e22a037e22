"use strict";
const scene = JSON.parse(document.getElementById("scene").textContent);
const slider = document.getElementById("snapshot");
const button = document.getElementById("play");
const last = scene.snapshots.length - 1;
let playing = null;

function show(frame) {
  const words = `${scene.snapshots[frame]} of ${scene.snapshots[last]}`;
  slider.value = frame;
  slider.setAttribute("aria-valuetext", `snapshot ${words}`);
  document.getElementById("shown").textContent = words;
  scene.paths.forEach((path, index) => {
    const walked = path.points.slice(0, frame + 1).filter((point) => point);
    const here = walked[walked.length - 1];
    document.getElementById(`line-${index}`).setAttribute("points", walked.map((point) => point.join()).join(" "));
    if (here) {
      document.getElementById(`end-${index}`).setAttribute("cx", here[0]);
      document.getElementById(`end-${index}`).setAttribute("cy", here[1]);
    }
    document.getElementById(`loss-${index}`).textContent = path.losses[frame];
  });
}

function pause() {
  clearInterval(playing);
  playing = null;
  button.textContent = "Play";
}

function play() {
  if (Number(slider.value) === last) show(0);
  button.textContent = "Pause";
  playing = setInterval(() => {
    show(Math.min(Number(slider.value) + 1, last));
    if (Number(slider.value) === last) pause();
  }, scene.milliseconds);
}

slider.addEventListener("input", () => {
  pause();
  show(Number(slider.value));
});
button.addEventListener("click", () => (playing === null ? play() : pause()));
document.getElementById("controls").hidden = false;
show(last);
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
