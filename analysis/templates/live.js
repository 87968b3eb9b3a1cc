// While a run is watched: ask the page's own server for what is new, and put it in place without a reload.
popcomm.live = {every: 1500, seen: "", version: null};

popcomm.standing = (rows) => {
  const body = document.querySelector("table[data-table='Where it stands'] tbody");
  if (body) body.replaceChildren(...Object.entries(rows).map(([name, value]) => popcomm.el("tr", null,
    popcomm.el("th", {scope: "row"}, name), popcomm.el("td", null, value))));
};
popcomm.replace = async () => {
  const text = await (await fetch("/")).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const open = [...document.querySelectorAll("main > section > details")].map((one) => one.open);
  document.querySelector("main").replaceWith(fresh.querySelector("main"));
  document.querySelectorAll("main > section > details").forEach((one, i) => { one.open = Boolean(open[i]); });
  document.querySelectorAll("script[type='application/json']").forEach((one) => one.remove());
  fresh.querySelectorAll("script[type='application/json']").forEach((one) => document.body.append(one));
};
popcomm.ask = async () => {
  const {live} = popcomm;
  if (popcomm.busy) return;
  try {
    const told = await (await fetch(`/live.json?seen=${encodeURIComponent(live.seen)}`)).json();
    const another = live.version !== null && live.version !== told.version;
    live.version = told.version;
    if (another) {
      await popcomm.replace();
      popcomm.start();
      // Pictures take longer than numbers: those in the page may be older than what was told before.
      live.seen = "";
      return popcomm.ask();
    }
    if (told.seen !== live.seen) {
      live.seen = told.seen;
      popcomm.start(told.data);
      popcomm.standing(told.standing);
    }
    document.getElementById("live").textContent = told.status;
  } catch (error) {
    document.getElementById("live").textContent = "No answer: popcomm watch has ended. What is here stays.";
  }
};
popcomm.watch = async () => {
  await popcomm.ask();
  setTimeout(popcomm.watch, popcomm.live.every);
};
// Nothing changes under a finger.
addEventListener("pointerdown", () => { popcomm.busy = true; });
for (const event of ["pointerup", "pointercancel"]) addEventListener(event, () => { popcomm.busy = false; });
