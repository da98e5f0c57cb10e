// A table with the class `sorted` can be sorted by its columns. Without this script it is a plain table.
"use strict";
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const words = column === 0;
      const before = head.getAttribute("aria-sort");
      const rising = before ? before === "descending" : words;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        words ? value(a).localeCompare(value(b)) : Number(value(a)) - Number(value(b)));
      table.tBodies[0].append(...(rising ? rows : rows.reverse()));
    });
  });
}
