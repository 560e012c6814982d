// Copy a table, in its current order, as tab-separated text, which spreadsheets and pandas.read_clipboard read.
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const rows = [...button.parentElement.querySelector("table").rows];
    const text = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t")).join("\n");
    button.textContent = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not allowed");
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}
