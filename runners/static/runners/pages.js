// The script of all pages. htmx fetches the parts of a page. This script pauses htmx in hidden tabs, shows when the
// service does not answer, opens dialogs and menus, and prevents that a form is sent twice. times.js shows the times.

const offline = document.getElementById("offline");
let lastAnswer = new Date();

function isPolled(element) {
  return element instanceof Element && element.hasAttribute("data-poll");
}

// A hidden tab sends no polls. When it becomes visible again, it polls at once.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && isPolled(event.detail.elt)) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("[data-poll]")) htmx.trigger(element, "wake");
});

// Send the ETag of a part with its next request. The response 304 has no body and means that nothing has changed: then
// keep the part.
document.addEventListener("htmx:configRequest", (event) => {
  const etag = event.detail.elt.dataset.etag;
  if (etag) event.detail.headers["If-None-Match"] = etag;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, xhr } = event.detail;
  if (xhr.status === 304) event.detail.shouldSwap = false;
  else if (elt.dataset.etag) elt.dataset.etag = xhr.getResponseHeader("ETag") ?? "";
});

// If the service does not answer a poll, keep the old content and show its time. A request that the user started is not
// retried; its error stays until the next request that the user starts.
let isAsked = false;
function away(event) {
  const isRepeated = isPolled(event.detail.elt);
  if (isRepeated && isAsked) return;
  isAsked = !isRepeated;
  const status = event.detail.xhr?.status;
  let words = "No answer from the service.";
  if (status === 503) words = "The service's database is unavailable.";
  else if (status === 403) words = "The service rejected the request. You may be signed out. Load this page again.";
  else if (status) words = `The service answers with an error (${status}).`;
  let rest = "It is not known whether the command was executed. Check before you retry it.";
  if (isRepeated) rest = `The page shows the state of ${lastAnswer.toLocaleTimeString()}. Retrying…`;
  else if (status >= 400 && status < 500) rest = "It was not done.";
  offline.textContent = `${words} ${rest}`;
  offline.hidden = false;
}
document.addEventListener("htmx:sendError", away);
document.addEventListener("htmx:timeout", away);
document.addEventListener("htmx:responseError", away);
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.xhr.status >= 400) return;
  if (isPolled(event.detail.elt)) {
    lastAnswer = new Date();
    if (isAsked) return;
  }
  isAsked = false;
  offline.hidden = true;
});

// Stop asking the machine once the run has ended.
document.addEventListener("runChanged", () => {
  if (document.querySelector("#state .status.active, #state .status.unsure")) return;
  for (const element of document.querySelectorAll("[data-while-active]")) element.remove();
});

// Dialogs: a link with data-dialog opens a dialog. Without JavaScript, the link leads to a separate page.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  const dialog = opener && document.getElementById(opener.dataset.dialog);
  if (dialog) {
    event.preventDefault();
    for (const box of dialog.querySelectorAll("[type=checkbox]")) box.checked = box.name === opener.dataset.marks;
    dialog.showModal();
  } else if (event.target.closest("[data-closes-dialog]")) {
    event.target.closest("dialog").close();
  }
});
document.addEventListener("htmx:beforeRequest", (event) => event.detail.elt.closest("dialog")?.close());

// A command takes seconds: show that it is under way, and do not send its form twice.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-busy]")) return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "1";
  const busy = form.querySelector("[data-busy-text]");
  if (busy) busy.textContent = busy.dataset.busyText;
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("[data-busy]")) {
    delete form.dataset.sent;
    const busy = form.querySelector("[data-busy-text]");
    if (busy) busy.textContent = "";
  }
});

// A preview is stale once a field of its form changes: remove the preview, and make "preview" the primary button.
function outdate(event) {
  const form = event.target.closest("form.command");
  const preview = form?.querySelector("#preview");
  if (!preview) return;
  preview.remove();
  for (const button of form.querySelectorAll("button[name=action]")) {
    button.classList.toggle("primary", button.value === "preview");
  }
}
document.addEventListener("input", outdate);
document.addEventListener("change", outdate);

// A choice fetches the fields that it makes necessary. Keep what the user types meanwhile: it is newer than the answer.
let typed = new Map();
document.addEventListener("input", (event) => {
  const { form, type, name } = event.target;
  if (form?.matches("form.command") && type !== "radio") typed.set(name, event.target);
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target.matches("form.command")) typed = new Map();
});
document.addEventListener("htmx:afterSwap", (event) => {
  for (const [name, old] of event.detail.target.matches("form.command") ? typed : []) {
    const field = document.querySelector("form.command")?.elements[name];
    if (!field) continue;
    field.value = old.value;
    if (old.type === "checkbox") field.checked = old.checked;
  }
});

// Scroll to an error or a preview that has `autofocus`.
document.querySelector(".alert[autofocus], .preview[autofocus]")?.scrollIntoView({ block: "nearest" });

// Scroll a picture that does not fit to its right end, where the newest runs are.
for (const element of document.querySelectorAll("[data-ends-right]")) element.scrollLeft = element.scrollWidth;

// A menu closes with Escape, and when the user clicks or moves the focus elsewhere.
function closeMenus(but = null) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== but) menu.open = false;
}
document.addEventListener("click", (event) => closeMenus(event.target.closest("details.menu")));
document.addEventListener("focusin", (event) => closeMenus(event.target.closest("details.menu")));
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
