// Widgets take the place of the tables that stand on the page without scripts.
popcomm.start = (fresh) => {
  for (const block of document.querySelectorAll("script[type='application/json']"))
    popcomm.data[block.id.replace("data-", "")] = JSON.parse(block.textContent);
  Object.assign(popcomm.data, fresh || {});
  popcomm.undo.splice(0).forEach((undo) => undo());
  for (const root of document.querySelectorAll("[data-widget]")) {
    const name = root.dataset.widget;
    popcomm.choices[name] = popcomm.choices[name] || {};
    popcomm.widgets[name](root, popcomm.data, popcomm.choices[name]);
  }
};
popcomm.start();
if (document.body.dataset.live) popcomm.watch();
