"use strict";
// The page is whole without this script: it adds the hover of charts, the choice of curves and the image slider.

// --- charts --------------------------------------------------------------------------------------------------

const tip = document.getElementById("tip");

function tell(mark) {
  for (const other of document.querySelectorAll(".mark.near")) other.classList.remove("near");
  tip.hidden = !mark;
  if (!mark) return;
  mark.classList.add("near");
  tip.textContent = mark.getAttribute("aria-label");
  const at = mark.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
}

function shownMarks(chart) {
  return [...chart.querySelectorAll(":scope > svg > .series:not(.hidden) > .mark")];
}

// The mark under the pointer, or the nearest within 40 pixels.
function nearest(chart, x, y) {
  let best = null, least = 40;
  for (const mark of shownMarks(chart)) {
    const at = mark.getBoundingClientRect();
    const distance = Math.hypot(at.left + at.width / 2 - x, at.top + at.height / 2 - y);
    if (distance < least) [best, least] = [mark, distance];
  }
  return best;
}

// One mark of a chart can be reached by Tab, the others from there by arrow keys.
function reachable(chart) {
  const marks = shownMarks(chart);
  const current = marks.find((mark) => mark === document.activeElement) || marks[0];
  for (const mark of chart.querySelectorAll(".mark")) mark.setAttribute("tabindex", mark === current ? "0" : "-1");
}

function onKey(chart, event) {
  const marks = shownMarks(chart), at = marks.indexOf(document.activeElement);
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") tell(null);
  if (!step || at < 0) return;
  event.preventDefault();
  marks[(at + step + marks.length) % marks.length].focus();
}

for (const chart of document.querySelectorAll(".chart")) {
  const curves = [...chart.querySelectorAll(":scope > svg > .series")];
  for (const mark of chart.querySelectorAll(".mark")) {
    const title = mark.querySelector("title"); // what is shown without a script
    mark.setAttribute("aria-label", title.textContent);
    mark.setAttribute("role", "img");
    title.remove();
    mark.addEventListener("focus", () => { reachable(chart); tell(mark); });
    mark.addEventListener("blur", () => tell(null));
  }
  const svg = chart.querySelector("svg");
  svg.addEventListener("pointermove", (event) => tell(nearest(chart, event.clientX, event.clientY)));
  svg.addEventListener("pointerdown", (event) => tell(nearest(chart, event.clientX, event.clientY)));
  svg.addEventListener("pointerleave", () => tell(null));
  svg.addEventListener("keydown", (event) => onKey(chart, event));
  chart.querySelectorAll(".legend input").forEach((box, number) => {
    box.checked = true; // browsers remember what was chosen before a reload
    box.addEventListener("change", () => {
      curves[number].classList.toggle("hidden", !box.checked);
      reachable(chart);
    });
  });
  reachable(chart);
}
addEventListener("scroll", () => tell(null), { passive: true });

// --- image slider --------------------------------------------------------------------------------------------

const stage = document.getElementById("stage");

if (stage) {
  const samples = JSON.parse(document.getElementById("samples").textContent);
  const control = (name) => document.getElementById(name);
  const zooms = [0, 1, 2, 4, 8];

  function show() {
    const number = Number(control("image").value), image = samples.images[number];
    const told = [];
    for (const side of ["left", "right"]) {
      const version = Number(control(side).value), picture = stage.querySelector(`.${side}`);
      const name = samples.versions[version], measured = image.measured[version];
      const file = `images/${number}-${version}.png`;
      if (picture.getAttribute("src") !== file) picture.src = file;
      picture.alt = `${image.name}, ${name}`;
      picture.width = image.width;
      picture.height = image.height;
      told.push(`${side}: ${name}${measured ? ` (whole image ${measured})` : ""}`);
    }
    const part = `pixels ${image.left} to ${image.left + image.width - 1} across, ${image.top} to ${image.top + image.height - 1} down`;
    control("compared").textContent = `${image.name}, ${part}; ${told.join("; ")}`;
    const zoom = zooms[Number(control("zoom").value)];
    stage.style.width = zoom ? `${(zoom * image.width) / devicePixelRatio}px` : "100%";
    stage.classList.toggle("zoomed", zoom > 0);
    stage.classList.toggle("difference", control("difference").checked);
  }

  function place(percent) {
    const whole = Math.min(100, Math.max(0, percent));
    stage.style.setProperty("--place", `${whole}%`);
    control("place").value = String(Math.round(whole));
  }

  function follow(event) {
    const box = stage.getBoundingClientRect();
    place((100 * (event.clientX - box.left)) / box.width);
  }

  for (const name of ["image", "left", "right", "zoom", "difference"]) control(name).addEventListener("change", show);
  control("place").addEventListener("input", () => place(Number(control("place").value)));
  stage.addEventListener("pointerdown", (event) => {
    const ofDivider = event.target.classList.contains("divider");
    if (event.pointerType === "touch" && !ofDivider) return; // a finger elsewhere scrolls
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  place(Number(control("place").value));
  show();
}
