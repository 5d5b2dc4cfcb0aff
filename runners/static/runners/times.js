// Shows times in the reader's time zone, and updates ages such as "3 s ago". The service sends UTC, which stays visible
// without JavaScript and as the tooltip. The template filters `local_time` and `ago` write the elements.

// Formats a time like `local_time` in templatetags/formatting.py, without the name of the time zone.
function localText(date, isToTheMinute) {
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const minute = `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
  return isToTheMinute ? minute : `${minute}:${two(date.getSeconds())}`;
}

// Formats the label of a tick like runners/pages/views/history.py: `26 Nov` or `13:05`.
function tickText(date, isDay) {
  const two = (number) => String(number).padStart(2, "0");
  if (isDay) return `${two(date.getDate())} ${date.toLocaleDateString("en", { month: "short" })}`;
  return `${two(date.getHours())}:${two(date.getMinutes())}`;
}

function showLocalTimes() {
  for (const element of document.querySelectorAll("time[data-local]")) {
    const date = new Date(element.dateTime);
    const isToTheMinute = element.dataset.local === "minute";
    element.removeAttribute("data-local");
    if (!Number.isNaN(date.getTime())) element.textContent = localText(date, isToTheMinute);
  }
}

// Times within the text of drawings, which can have no <time> element.
for (const element of document.querySelectorAll("[data-times]")) {
  element.textContent = element.textContent.replace(/(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC/g, (_, day, time) =>
    localText(new Date(`${day}T${time}Z`), false),
  );
}

// The ticks of a drawing are at round times in UTC. Moves them to round times of the reader's zone.
for (const drawing of document.querySelectorAll("svg[data-step]")) {
  const [start, end] = [Date.parse(drawing.dataset.start), Date.parse(drawing.dataset.end)];
  const step = Number(drawing.dataset.step) * 1000;
  const ticks = [...drawing.querySelectorAll("[data-tick]")];
  for (const tick of ticks) {
    const offset = new Date(tick.dataset.tick).getTimezoneOffset() * 60_000;
    let time = Date.parse(tick.dataset.tick) + (((offset % step) + step) % step);
    if (time >= end) time -= ticks.length * step; // the place of the last one is free at the beginning
    if (time < start) {
      tick.remove();
      continue;
    }
    const x = ((time - start) / 1000) * Number(drawing.dataset.scale);
    const [line, label] = [tick.querySelector("line"), tick.querySelector("text")];
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    label.setAttribute("x", x);
    label.classList.toggle("edge", x < 24);
    label.textContent = tickText(new Date(time), step >= 86_400_000);
  }
}

showLocalTimes();
new MutationObserver(showLocalTimes).observe(document.body, { childList: true, subtree: true });

for (const element of document.querySelectorAll("[data-zone]")) {
  element.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "the time zone of your browser";
}

// Formats a duration like `duration` in templatetags/formatting.py.
function durationText(seconds) {
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
// The browser's clock may be wrong: use it only for the time since the response, and add that to the service's age.
setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("time[data-ago]")) {
    element.dataset.seen ??= String(Date.now());
    element.dataset.age ??= String(parse(element.textContent));
    const passed = (Date.now() - Number(element.dataset.seen)) / 1000;
    const age = Number(element.dataset.age);
    const words = `${durationText(age + passed)} ago`;
    if (element.textContent !== words) element.textContent = words;
  }
}, 1000);
function parse(words) {
  const units = { s: 1, min: 60, h: 3600, d: 86400 };
  let seconds = 0;
  for (const [, count, unit] of words.matchAll(/(\d+) (s|min|h|d)\b/g)) seconds += Number(count) * units[unit];
  return seconds;
}
