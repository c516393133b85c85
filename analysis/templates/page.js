for (const line of document.querySelectorAll("pre.command")) addCopyButton(line);
for (const root of document.querySelectorAll(".explorer")) drawParallel(new Explorer(root));

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
