// The graph of who heard whom is on the page already; here its arrows and nodes tell their counts where one points.
popcomm.widgets.exchanges = (root) => {
  const readout = root.querySelector(".readout");
  const point = (mark) => {
    root.querySelectorAll(".pointed").forEach((other) => other.classList.remove("pointed"));
    mark.classList.add("pointed");
    readout.textContent = mark.dataset.text;
  };
  root.querySelectorAll("[data-text]").forEach((mark) => {
    for (const event of ["pointerenter", "pointerdown", "focus"]) mark.addEventListener(event, () => point(mark));
  });
};
