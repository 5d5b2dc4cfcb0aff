// What all pages share. htmx fetches the parts; this pauses it in hidden tabs, says when the service is away, keeps
// "3 s ago" true, opens dialogs and stops double sending.

const offline = document.getElementById("offline");
let lastAnswer = new Date();

function isPolled(element) {
  return element instanceof Element && element.hasAttribute("data-poll");
}

// A hidden tab asks nothing. When it is seen again, it asks at once.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && isPolled(event.detail.elt)) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("[data-poll]")) htmx.trigger(element, "wake");
});

// A part with an ETag is asked for with it. 304 is the empty answer that nothing has changed: what is shown stays.
document.addEventListener("htmx:configRequest", (event) => {
  const etag = event.detail.elt.dataset.etag;
  if (etag) event.detail.headers["If-None-Match"] = etag;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, xhr } = event.detail;
  if (xhr.status === 304) event.detail.shouldSwap = false;
  else if (elt.dataset.etag) elt.dataset.etag = xhr.getResponseHeader("ETag") ?? "";
});

// The service is away: what is shown stays, with the time it is from. What somebody has asked for is not tried again, and
// the words about it stay until the next request of that kind.
let isAsked = false;
function away(event) {
  const isRepeated = isPolled(event.detail.elt);
  if (isRepeated && isAsked) return;
  isAsked = !isRepeated;
  const status = event.detail.xhr?.status;
  let words = "No answer from the service.";
  if (status === 503) words = "The service's database does not answer.";
  else if (status === 403) words = "The service has refused it: you may have been signed out. Load this page again.";
  else if (status) words = `The service answers with an error (${status}).`;
  let rest = "Whether it was done cannot be told: look before you ask again.";
  if (isRepeated) rest = `Shown is what was known at ${lastAnswer.toLocaleTimeString()}. Trying again…`;
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

// The machine of an ended run is not asked any more.
document.addEventListener("runChanged", () => {
  if (document.querySelector("#state .status.active, #state .status.unsure")) return;
  document.querySelectorAll("[data-while-active]").forEach((element) => element.remove());
});

// The words are those of the template filter in_words.
function inWords(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (large, name, small, smallName) => {
    const rest = Math.floor((whole % large) / small);
    return `${Math.floor(whole / large)} ${name}${rest ? ` ${rest} ${smallName}` : ""}`;
  };
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(60, "min", 1, "s");
  if (whole < 86400) return two(3600, "h", 60, "min");
  return two(86400, "d", 3600, "h");
}
// The browser's clock may be off: only the time that passed since the answer is added to what the service said.
setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("time[data-ago]")) {
    element.dataset.seen ??= String(Date.now());
    element.dataset.age ??= String(parse(element.textContent));
    const passed = (Date.now() - Number(element.dataset.seen)) / 1000;
    const age = Number(element.dataset.age);
    const words = `${inWords(age + passed)} ago`;
    if (element.textContent !== words) element.textContent = words;
  }
}, 1000);
function parse(words) {
  const units = { s: 1, min: 60, h: 3600, d: 86400 };
  let seconds = 0;
  for (const [, count, unit] of words.matchAll(/(\d+) (s|min|h|d)\b/g)) seconds += Number(count) * units[unit];
  return seconds;
}

// Dialogs: a link with data-dialog leads to a page of its own where this does not run.
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

// A command takes seconds: say so, and do not send it twice.
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

// A preview is of what was in the form: once that changes it is gone, and previewing is what comes next.
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

// A choice asks the service for the fields that it needs. What is typed meanwhile is newer than the answer.
let typed = new Map();
document.addEventListener("input", (event) => {
  if (event.target.form?.matches("form.command") && event.target.type !== "radio") typed.set(event.target.name, event.target);
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

// `autofocus` of an error or a preview is where the eye should be, too.
document.querySelector(".alert[autofocus], .preview[autofocus]")?.scrollIntoView({ block: "nearest" });

// The newest runs are at the right end of a picture that does not fit.
for (const element of document.querySelectorAll("[data-ends-right]")) element.scrollLeft = element.scrollWidth;
