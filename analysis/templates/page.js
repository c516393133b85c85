for (const line of document.querySelectorAll("pre.command")) addCopyButton(line);
for (const root of document.querySelectorAll(".explorer")) drawParallel(new Explorer(root));

// Of many methods the first few are shown; a button shows the others.
for (const table of document.querySelectorAll(".standings")) {
  const count = table.querySelectorAll(".other").length;
  if (!count) continue;
  const button = element("button", { type: "button" });
  const label = () => {
    const isWhole = table.classList.contains("whole");
    button.setAttribute("aria-expanded", String(isWhole));
    button.textContent = isWhole ? say("fewer_methods") : say("more_methods", { count });
  };
  button.addEventListener("click", () => { table.classList.toggle("whole"); label(); });
  label();
  table.after(element("p", { className: "tools" }, button));
}

const themeButton = document.getElementById("theme");
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const labelTheme = () => {
  themeButton.textContent = isDark() ? themeButton.dataset.light : themeButton.dataset.dark;
};
themeButton.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem(THEME, theme); } catch { /* it holds for this visit */ }
  labelTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", labelTheme);
labelTheme();
