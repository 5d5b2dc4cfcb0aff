// The form of a profile: shows the fields that apply to the chosen runner and loader, and a preview of the profile.
// Without JavaScript all fields are shown. The server checks all rules in either case.
"use strict";

(() => {
  const PAUSE = 300; // ms after the last key before the server is asked

  function start() {
    const form = document.getElementById("runnerprofile_form");
    const place = document.getElementById("profile-preview");
    if (!form || !place || !form.elements.runner_type) return; // a page without fields to change
    const value = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");

    // The rules of the runners and loaders: see rules_of_form in profiles/admin/profile_form.py.
    const rules = JSON.parse(place.dataset.rules);
    const ANY = { takes: "many", mayBePath: true }; // a loader that is not chosen yet
    const loader = () => rules.loaders[value("module_loader_type")] || ANY;

    // Return which fields apply. A field that does not apply is disabled: browsers do not send it, so it is stored as empty.
    function matters() {
      const found = { modules: loader().takes !== "none" };
      const taken = rules.runners[value("runner_type")];
      for (const name of Object.values(rules.runners).flat()) found[name] = !taken || taken.includes(name);
      return found;
    }

    // A limit applies while a field that it limits is empty. A limit with a value stays visible, so nobody loses it unnoticed.
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
      // Hide a section that shows no field.
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
        if (!response.ok || response.redirected) return; // the session has ended: the next save shows the login
        html = await response.text();
      } catch (error) {
        if (error instanceof TypeError) return; // no connection: the next change sends the request again
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
