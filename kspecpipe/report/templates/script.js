"use strict";
(() => {
  // Tables whose rows can be sorted by a click on a heading.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent.trim();
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent.trim();
        const order = (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
        body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
      });
    });
  }

  const form = document.getElementById("filters");
  if (!form) return;
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  const field = (name) => document.getElementById(`f-${name}`);
  const holder = document.getElementById("all-runs");
  const runs = [...holder.children];
  const words = new Map(runs.map((run) => [run, run.textContent.toLowerCase()]));
  const orders = {
    worst: (a, b) => a.dataset.rank - b.dataset.rank,
    time: (a, b) => a.dataset.time - b.dataset.time,
    recipe: (a, b) => a.dataset.recipe.localeCompare(b.dataset.recipe) || a.dataset.rank - b.dataset.rank,
    seconds: (a, b) => b.dataset.seconds - a.dataset.seconds,
  };

  function update() {
    const text = field("text").value.trim().toLowerCase();
    const wanted = ["recipe", "mode", "flag"].map((name) => [name, field(name).value]);
    let shown = 0;
    for (const run of runs) {
      const fits = wanted.every(([name, value]) => !value || run.dataset[name] === value);
      run.hidden = !(fits && (!text || words.get(run).includes(text)));
      shown += !run.hidden;
    }
    for (const row of document.querySelectorAll("[data-run]")) {
      row.hidden = document.getElementById(row.dataset.run).hidden;
    }
    holder.append(...[...runs].sort(orders[field("sort").value]));
    field("count").textContent = `${shown} of ${runs.length} runs`;
  }
  form.addEventListener("input", update);
  update();

  // A link to something inside a closed run opens it.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const first = target.matches("article") ? target.querySelector("details") : null;
    for (let e = first || target; e; e = e.parentElement) if (e.matches("details")) e.open = true;
    const run = target.closest("article");
    if (run && run.hidden) { form.reset(); update(); }
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();
})();
