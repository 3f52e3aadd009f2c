/* The theme labels some buttons otherwise than they read; those who speak to their machine say what they see. */
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("summary[aria-label], .search-button-field[aria-label]").forEach((node) => node.removeAttribute("aria-label"));
  document.querySelectorAll(".theme-switch-button i[title]").forEach((node) => node.removeAttribute("title"));
});
