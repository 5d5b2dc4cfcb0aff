// The live log: polls for new lines, follows the end until the user scrolls up, survives restarts of the service.

const QUICK = 1000; // ms between polls while new lines arrive
const SLOW = 3000; // ms between polls while no new lines arrive, and before a retry if the machine does not answer
const LONGEST = 10000; // ms, the longest back-off
const KEPT = 2 * 1024 * 1024; // bytes of the log that stay in the page; earlier bytes can be fetched again

const box = document.getElementById("log");
const text = document.getElementById("log-text");
const status = document.getElementById("log-status");
const follow = document.getElementById("log-follow");
const earlier = document.getElementById("log-earlier");
const url = box.dataset.url;

let next = null; // byte offset at which the next poll begins
let first = 0; // byte offset of the first byte shown
let style = "";
let isFollowing = true;
let wait = QUICK;
let quietLooks = 0;
let timer = 0;
let isDone = false;
let isAsking = false;

function say(words, isTrouble = false) {
  if (status.textContent !== words) status.textContent = words;
  status.classList.toggle("trouble", isTrouble);
}

function setFollowing(value) {
  isFollowing = value;
  follow.setAttribute("aria-pressed", String(value));
  follow.textContent = value ? "Following" : "Follow";
  if (!value) return;
  box.scrollTop = box.scrollHeight;
  look();
}

class Away extends Error {}

async function ask(query) {
  let response;
  try {
    response = await fetch(`${url}?${new URLSearchParams(query)}`, { headers: { Accept: "application/json" } });
  } catch {
    throw new Away("The service does not answer.");
  }
  if (response.redirected) throw new Away("You are signed out. Load this page again to sign in.");
  if (response.status === 503) throw new Away("The service's database is unavailable.");
  if (!response.ok) throw new Away(`The service answers with an error (${response.status}).`);
  return response.json();
}

function chunk(html, start) {
  const element = document.createElement("div");
  element.dataset.start = start;
  element.innerHTML = html; // escaped by the service, see runners/pages/ansi.py
  return element;
}

function append(answer) {
  if (!answer.html) return;
  text.append(chunk(answer.html, answer.start));
  while (isFollowing && text.children.length > 1 && answer.next - Number(text.children[1].dataset.start) > KEPT) {
    text.firstElementChild.remove();
  }
  first = Number(text.firstElementChild.dataset.start);
  earlier.hidden = first === 0;
  if (isFollowing) box.scrollTop = box.scrollHeight;
}

async function look() {
  if (isAsking || isDone) return;
  clearTimeout(timer);
  if (!isFollowing && next !== null && next - first > KEPT) {
    say("Paused while you scroll. Follow shows the new lines."); // do not remove lines that the user reads
    return;
  }
  if (document.hidden) return; // the event visibilitychange resumes the polls
  isAsking = true;
  try {
    const answer = await ask(next === null ? {} : { from: next, style });
    if (answer.problem) {
      say(`${answer.problem} Retrying…`, true);
      wait = answer.was_asked ? Math.min(Math.max(wait * 2, SLOW), LONGEST) : SLOW;
    } else {
      append(answer);
      next = answer.next;
      style = answer.style;
      isDone = answer.done;
      quietLooks = answer.html ? 0 : quietLooks + 1;
      wait = quietLooks > 5 ? SLOW : QUICK;
      const isBehind = answer.html && answer.next < answer.size && answer.active;
      if (answer.note) say(answer.note);
      else if (isDone) say("The run has ended. This is the complete log.");
      else say(isBehind ? "Catching up…" : "Live");
      if (answer.html && answer.size - answer.next > 65536) wait = 50;
    }
  } catch (error) {
    if (!(error instanceof Away)) throw error;
    say(`${error.message} Retrying…`, true);
    wait = Math.min(Math.max(wait * 1.5, QUICK), LONGEST);
  } finally {
    isAsking = false;
  }
  if (!isDone) timer = setTimeout(look, wait);
}

box.addEventListener("scroll", () => {
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  if (isAtEnd !== isFollowing) setFollowing(isAtEnd);
});
follow.addEventListener("click", () => setFollowing(!isFollowing));

earlier.addEventListener("click", async () => {
  earlier.disabled = true;
  try {
    const answer = await ask({ before: first });
    if (answer.problem) {
      say(answer.problem, true);
      return;
    }
    const height = box.scrollHeight;
    setFollowing(false);
    text.prepend(chunk(answer.html, answer.start));
    first = answer.start;
    earlier.hidden = first === 0;
    box.scrollTop += box.scrollHeight - height; // keep the visible lines in place
  } catch (error) {
    if (!(error instanceof Away)) throw error;
    say(error.message, true);
  } finally {
    earlier.disabled = false;
  }
});

document.addEventListener("visibilitychange", look);
document.addEventListener("runChanged", look); // fetch the last lines at the end of the run
setFollowing(true);
