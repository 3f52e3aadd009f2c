/* The theme labels some buttons otherwise than they read; those who speak to their machine say what they see.
   Sphinx breaks a long signature into a list without terms, and gives citations roles that ARIA has dropped: neither is a list to read. */
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("summary[aria-label], .search-button-field[aria-label]").forEach((node) => node.removeAttribute("aria-label"));
  document.querySelectorAll(".theme-switch-button").forEach((node) => node.setAttribute("aria-label", "Color mode: Light, Dark or System Settings"));
  document.querySelectorAll("dt.sig dl, dt.sig dd").forEach((node) => node.setAttribute("role", "presentation"));
  document.querySelectorAll(".citation-list, .citation-list [role]").forEach((node) => node.removeAttribute("role"));
});
