const facets = [...document.querySelectorAll("select[data-facet]")];
const lost = document.getElementById("lost"), count = document.getElementById("count");
const pages = [...document.querySelectorAll("article")];
function show() {
  for (const page of pages) {
    const groups = JSON.parse(page.dataset.groups);
    page.hidden = (lost.checked && page.dataset.lost !== "1") ||
      facets.some(facet => facet.value && groups[facet.dataset.facet] !== facet.value);
  }
  count.textContent = `${pages.filter(page => !page.hidden).length} of ${pages.length} shown`;
}
for (const control of [...facets, lost]) control.addEventListener("change", show);
document.getElementById("filters").hidden = false;
show();
