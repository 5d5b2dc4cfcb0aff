// Buttons that copy the text of another element: <button data-copy="ID" hidden>Copy</button>. Without JavaScript they stay
// hidden, and the text can be selected.

for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const words = button.textContent;
  button.hidden = !source;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(source)) ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => {
      button.textContent = words;
    }, 4000);
  });
}

// Returns false if the browser forbids it, as for pages without TLS. The text is selected then.
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return false;
  }
}
