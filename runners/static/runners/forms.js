// Values that a click adds to a field of the form, or removes from it: statuses, sections and names of jobs.

function partsOf(field, between) {
  const parts = between.includes(",") ? field.value.split(",") : field.value.split(/[\s,]+/);
  return parts.map((part) => part.trim()).filter((part) => part);
}

document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-adds]");
  const field = chip?.closest("form")?.elements[chip.dataset.to];
  if (!field) return;
  const between = chip.dataset.between ?? " ";
  const parts = partsOf(field, between);
  const place = parts.indexOf(chip.dataset.adds);
  if (place < 0) parts.push(chip.dataset.adds);
  else parts.splice(place, 1);
  field.value = parts.join(between);
  field.dispatchEvent(new Event("input", { bubbles: true }));
  markChips();
});

// Show which of the values are in their fields.
function markChips() {
  for (const chip of document.querySelectorAll("[data-adds]")) {
    const field = chip.closest("form")?.elements[chip.dataset.to];
    const isIn = field && partsOf(field, chip.dataset.between ?? " ").includes(chip.dataset.adds);
    chip.setAttribute("aria-pressed", isIn ? "true" : "false");
  }
}
document.addEventListener("input", markChips);

// The list of jobs stays open when it is fetched again.
let isOpen = false;
document.addEventListener("htmx:beforeSwap", () => {
  isOpen = document.getElementById("chips-jobs")?.open ?? false;
});
document.addEventListener("htmx:afterSwap", () => {
  const list = document.getElementById("chips-jobs");
  if (list && isOpen) list.open = true;
  markChips();
});
