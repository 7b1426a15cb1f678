// Tables of the class "sortable" are sorted by a click on a header: numbers the largest first.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.onclick = () => {
      const isNumber = header.classList.contains("number");
      const now = header.getAttribute("aria-sort") ?? (isNumber ? "ascending" : "descending");
      const sign = now === "ascending" ? -1 : 1;
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const inWords = (a, b) => a.localeCompare(b, "en", { numeric: true });
      const order = (a, b) => isNumber ? value(a) - value(b) : inWords(value(a), value(b));
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => sign * order(a, b)));
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    };
  });
}
