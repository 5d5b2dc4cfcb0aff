// Keyboard shortcuts: `?` shows them, `/` goes to the search field, `g` and a letter go to a page of the navigation.
// They can be switched off on their page, for people whose tools send single keys.

const SECOND_KEY_WITHIN = 1500; // milliseconds
const SEARCH = "[role=search] input:not([type=hidden]), input[type=search], .filters input:not([type=hidden])";
let goUntil = 0;

function isOn() {
  try {
    return localStorage.getItem("shortcuts") !== "off";
  } catch {
    return true; // the browser stores nothing
  }
}

function isTyping(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]") || !isOn()) return;
  const isSecond = Date.now() < goUntil;
  goUntil = 0;
  if (isSecond) {
    const link = [...document.querySelectorAll("[data-go]")].find((each) => each.dataset.go === event.key);
    if (link) {
      event.preventDefault();
      link.click();
    }
  } else if (event.key === "g") {
    goUntil = Date.now() + SECOND_KEY_WITHIN;
  } else if (event.key === "?") {
    const help = document.querySelector("[data-shortcuts]");
    if (help) location.assign(help.href);
  } else if (event.key === "/") {
    const field = [...document.querySelectorAll(SEARCH)].find((each) => each.checkVisibility());
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  }
});

const box = document.getElementById("shortcuts-on");
if (box) {
  document.getElementById("shortcuts-switch").hidden = false;
  box.checked = isOn();
  box.addEventListener("change", () => {
    try {
      localStorage.setItem("shortcuts", box.checked ? "on" : "off");
    } catch {
      box.checked = true;
    }
  });
}
