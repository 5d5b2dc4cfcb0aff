// The form of a profile: shows the fields that matter for the chosen runner and loader, and what the profile stands for.
// Without it all fields are there, and the rules are the server's anyway.
"use strict";

(() => {
  const PAUSE = 300; // ms after the last key before the server is asked

  function start() {
    const form = document.getElementById("runnerprofile_form");
    const place = document.getElementById("profile-preview");
    if (!form || !place || !form.elements.runner_type) return; // a page without fields to change
    const value = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");

    // What the runners and loaders say of themselves: see rules_of_form in profiles/admin/profile_form.py.
    const rules = JSON.parse(place.dataset.rules);
    const ANY = { takes: "many", mayBePath: true }; // a loader that is not chosen yet
    const loader = () => rules.loaders[value("module_loader_type")] || ANY;

    // Which fields matter. One that does not is not sent, so it is stored as empty.
    function matters() {
      const found = { modules: loader().takes !== "none" };
      const taken = rules.runners[value("runner_type")];
      for (const name of Object.values(rules.runners).flat()) found[name] = !taken || taken.includes(name);
      return found;
    }

    // Limits matter while what they limit is open. One that holds something stays visible: nothing is lost unseen.
    function limitsMatter() {
      const found = { venv_roots: loader().mayBePath && !value("modules") };
      const isShown = matters();
      for (const [limit, names] of Object.entries(rules.limits)) {
        found[limit] = names.some((name) => isShown[name] && !value(name));
      }
      return found;
    }

    function show(name, isShown) {
      form.elements[name].closest(".form-row").hidden = !isShown;
    }

    function arrange() {
      for (const [name, isShown] of Object.entries(matters())) {
        show(name, isShown);
        form.elements[name].disabled = !isShown;
      }
      for (const [name, isShown] of Object.entries(limitsMatter())) show(name, isShown || value(name) !== "");
      form.elements.modules.rows = loader().takes === "one" ? 1 : 3;
      // A heading with nothing below it is no help.
      for (const fieldset of form.querySelectorAll("fieldset.module")) {
        const rows = [...fieldset.querySelectorAll(".form-row")];
        fieldset.hidden = rows.length > 0 && rows.every((row) => row.hidden);
      }
    }

    let timer = 0;
    let asked = 0;
    async function ask() {
      const number = ++asked;
      let html;
      try {
        const response = await fetch(place.dataset.url, { method: "POST", body: new FormData(form) });
        if (!response.ok || response.redirected) return; // signed out meanwhile: saving will say so
        html = await response.text();
      } catch (error) {
        if (error instanceof TypeError) return; // no connection now; the next change asks again
        throw error;
      }
      if (number === asked) place.innerHTML = html;
    }

    function changed() {
      arrange();
      clearTimeout(timer);
      timer = setTimeout(ask, PAUSE);
    }

    form.addEventListener("input", changed);
    form.addEventListener("change", changed);
    arrange();
    ask();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
