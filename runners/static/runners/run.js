// The page of a run: its title and icon tell the state, also in a tab in the background, and a notification of the
// browser tells the end to people who have asked for it.

const HIDDEN = 20000; // ms between polls of a hidden tab that has to tell the end

const page = document.getElementById("run");
const icon = document.querySelector("link[rel=icon]");
const tell = document.getElementById("tell-browser");
const note = document.getElementById("tell-note");
const key = `tell-run-${page.dataset.run}`;
let told = !state()?.active; // nothing is told about a run that has ended before this page was opened
let timer = 0;

function state() {
  const element = document.querySelector("#state .state");
  return element && { ...element.dataset, active: element.dataset.active === "1" };
}

// `facts`: the data of the element that shows the state: title, tone, icon, words and active.
function show(facts) {
  document.title = facts.title;
  if (icon.getAttribute("href") !== facts.icon) icon.setAttribute("href", facts.icon);
  if (facts.active || told) return;
  told = true;
  if (isWanted()) {
    localStorage.removeItem(key);
    const notification = new Notification(facts.title, { body: facts.words, icon: facts.icon, tag: key });
    notification.addEventListener("click", () => {
      window.focus();
      notification.close();
    });
  }
  update();
}

function isWanted() {
  return "Notification" in window && Notification.permission === "granted" && localStorage.getItem(key) === "1";
}

function update() {
  if (!tell) return;
  tell.hidden = told;
  tell.setAttribute("aria-pressed", String(isWanted()));
}

function read() {
  const facts = state();
  if (facts) show(facts);
}

async function lookWhileHidden() {
  clearTimeout(timer);
  if (!document.hidden || told) return;
  try {
    const response = await fetch(page.dataset.end, { headers: { Accept: "application/json" } });
    if (response.ok && !response.redirected) show(await response.json());
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // no connection: ask again later
  }
  timer = setTimeout(lookWhileHidden, HIDDEN);
}

tell?.addEventListener("click", async () => {
  if (isWanted()) {
    localStorage.removeItem(key);
    note.textContent = "This browser will not tell you.";
  } else if (!("Notification" in window) || !window.isSecureContext) {
    note.textContent = "This browser cannot notify you here: notifications need HTTPS. The title of this tab changes.";
  } else if ((await Notification.requestPermission()) === "granted") {
    localStorage.setItem(key, "1");
    note.textContent = "This browser tells you when the run ends, while this page stays open in a tab.";
  } else {
    note.textContent = "The browser does not allow notifications of this site: change this in its settings.";
  }
  update();
});

document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.target.id === "state") read();
});
document.addEventListener("visibilitychange", () => {
  timer = setTimeout(lookWhileHidden, HIDDEN);
});
read();
update();
