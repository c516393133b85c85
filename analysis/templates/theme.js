"use strict";
// Before anything is painted: the reader's last choice of colours, else the system's.
const THEME = "kerzoo-report-theme";
document.documentElement.classList.add("scripted");
try {
  const chosen = localStorage.getItem(THEME);
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* a page that may not remember still works */ }
