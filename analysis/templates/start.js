// Widgets take the place of the tables that stand on the page without scripts.
popcomm.draws = {curves: ["curves"], conversation: ["talk"], symbol: ["talk", "symbols"], pair: ["talk"], exchanges: []};

popcomm.begin = (root) => {
  const name = root.dataset.widget, held = root.contains(document.activeElement) && document.activeElement.dataset.control;
  popcomm.choices[name] = popcomm.choices[name] || {};
  popcomm.widgets[name](root, popcomm.data, popcomm.choices[name]);
  const again = held && root.querySelector(`[data-control="${held}"]`);
  if (again) again.focus();
};
// All of them from the data in the page; or, where some are fresh, those that draw these.
popcomm.start = (fresh) => {
  if (fresh) Object.assign(popcomm.data, fresh);
  else for (const block of document.querySelectorAll("script[type='application/json']"))
    popcomm.data[block.id.replace("data-", "")] = JSON.parse(block.textContent);
  for (const root of document.querySelectorAll("[data-widget]"))
    if (!fresh || popcomm.draws[root.dataset.widget].some((name) => name in fresh)) popcomm.begin(root);
};
popcomm.start();
if (document.body.dataset.live) popcomm.watch();
