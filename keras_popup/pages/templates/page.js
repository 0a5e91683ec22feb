"use strict";
// Sorts and filters the table; shows which trial a mark of a figure stands for.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const valueOf = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const isNumber = heads.map(head => head.classList.contains("number"));
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === (isNumber[column] ? null : "ascending") ||
      head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      const [one, two] = [valueOf(a, column), valueOf(b, column)];
      if (one === "" || two === "") return (one === "") - (two === "");  // what is missing comes last
      const order = isNumber[column] ? one - two : one.localeCompare(two);
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
  const input = table.closest("section").querySelector(".filter input");
  const count = table.closest("section").querySelector(".filter output");
  const columns = new Map(heads.map((head, column) => [head.dataset.name?.toLowerCase(), column]));
  const tests = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
    "=": (a, b) => a === b };
  function makeTest(word) {
    const parts = /^([^<>=]+)(<=|>=|<|>|=)([^<>=]+)$/.exec(word);
    const column = parts && columns.get(parts[1]);
    if (column === undefined || parts === null)
      return row => row.textContent.toLowerCase().includes(word);
    const percent = parts[3].endsWith("%"), number = parseFloat(parts[3]) / (percent ? 100 : 1);
    return row => {
      const value = valueOf(row, column);
      return isNumber[column] ? value !== "" && tests[parts[2]](Number(value), number)
        : tests[parts[2]](value.toLowerCase(), parts[3]);
    };
  }
  input?.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean).map(makeTest);
    let shown = 0;
    for (const row of body.rows) shown += !(row.hidden = !wanted.every(test => test(row)));
    count.textContent = wanted.length ? `${shown} of ${body.rows.length} shown` : "";
  });
}
const hint = document.createElement("div");
hint.id = "hint"; hint.hidden = true; document.body.append(hint);
let marked = [];
function mark(trial, event) {
  for (const each of marked) each.classList.remove("on");
  marked = trial === undefined ? [] : [...document.querySelectorAll(`[data-t="${trial}"]`)];
  for (const each of marked) each.classList.add("on");
  const row = marked.find(each => each.tagName === "TR");
  hint.hidden = !row || event.target.closest("tr") !== null;
  if (hint.hidden) return;
  hint.textContent = row.dataset.hint;
  const left = Math.min(event.clientX + 14, innerWidth - hint.offsetWidth - 8);
  hint.style.left = `${Math.max(8, left)}px`;
  hint.style.top = `${Math.max(8, event.clientY - hint.offsetHeight - 12)}px`;
}
for (const name of ["pointerover", "pointerdown"])
  document.addEventListener(name, event => mark(event.target.closest?.("[data-t]")?.dataset.t, event));
document.addEventListener("click", event => {
  const dot = event.target.closest?.("svg [data-t]");
  const row = dot && document.querySelector(`tr[data-t="${dot.dataset.t}"]`);
  if (row && matchMedia("(hover: hover)").matches) row.scrollIntoView({ block: "center" });
});
