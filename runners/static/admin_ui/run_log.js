// Fetches the end of a run's log into the page, so that the page itself never waits for a machine.
"use strict";

document.addEventListener("DOMContentLoaded", async () => {
  const section = document.getElementById("log-tail");
  const place = section?.querySelector("div");
  if (!place || !place.querySelector("a[href^='?log']")) return; // the page contains the log already
  const link = place.innerHTML;
  place.textContent = "Asking the machine…";
  try {
    const response = await fetch(section.dataset.url);
    place.innerHTML = response.ok && !response.redirected ? await response.text() : link;
  } catch (error) {
    place.innerHTML = link; // no connection: show the link again
    if (!(error instanceof TypeError)) throw error;
  }
  const log = place.querySelector("pre");
  if (log) log.scrollTop = log.scrollHeight;
});
