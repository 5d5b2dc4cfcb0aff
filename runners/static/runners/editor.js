// The editor of configuration files: line numbers beside the text area, and the line of an error.

const box = document.querySelector(".editor");
const lines = box?.querySelector(".editor-lines");
const area = box?.querySelector("textarea");

function number() {
  const count = area.value.split("\n").length;
  if (lines.childElementCount === count) return;
  const marked = Number(box.dataset.line || 0);
  lines.replaceChildren(
    ...Array.from({ length: count }, (_, index) => {
      const line = document.createElement("span");
      line.textContent = `${index + 1}\n`;
      line.classList.toggle("wrong", index + 1 === marked);
      return line;
    }),
  );
  lines.scrollTop = area.scrollTop;
}

function showLine(wanted) {
  const before = area.value.split("\n").slice(0, wanted - 1);
  const start = before.reduce((length, line) => length + line.length + 1, 0);
  const end = area.value.indexOf("\n", start);
  area.focus({ preventScroll: true });
  area.setSelectionRange(start, end < 0 ? area.value.length : end);
  const height = area.scrollHeight / area.value.split("\n").length;
  area.scrollTop = Math.max(0, (wanted - 5) * height);
  lines.scrollTop = area.scrollTop;
}

if (area) {
  number();
  area.addEventListener("input", number);
  area.addEventListener("scroll", () => {
    lines.scrollTop = area.scrollTop;
  });
  if (box.dataset.line) showLine(Number(box.dataset.line));
}
