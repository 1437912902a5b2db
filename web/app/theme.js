// Light, dark or as the system says, before the first paint. A classic script: modules
// run only after it.

(() => {
  try {
    const theme = localStorage.getItem("fanlight.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is switched off: as the system says.
  }
})();
