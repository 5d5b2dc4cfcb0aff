// Adds the names and roles that screen readers need and that Django's scripts leave out.

function addNames() {
  // The hints of the filters in a pair of lists (permissions, groups): only elements with a role may have a name.
  for (const hint of document.querySelectorAll(".help-tooltip[aria-label]")) hint.setAttribute("role", "img");
  // A list with a search (select2) takes its name from its value, which is empty at first.
  for (const value of document.querySelectorAll(".select2-selection__rendered[id]")) {
    const id = value.id.replace(/^select2-(.*)-container$/, "$1");
    const label = document.querySelector(`label[for="${CSS.escape(id)}"]`);
    if (!label) continue;
    label.id ||= `${id}-label`;
    value.setAttribute("aria-labelledby", label.id);
    value.closest("[role=combobox]").setAttribute("aria-labelledby", `${label.id} ${value.id}`);
  }
}
addNames();
new MutationObserver(addNames).observe(document.body, { childList: true, subtree: true });
