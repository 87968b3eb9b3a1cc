// One symbol: how often it is said, of what, by whom, when in an episode and over training, and where.
popcomm.widgets.symbol = (root, data, choice) => {
  const talk = data.talk, rows = talk.rows, {el} = popcomm, trained = data.symbols;
  const said = (row) => rows.said[row] && rows.said[row].every(Number.isInteger) ? rows.said[row] : [];
  const all = rows.said.flatMap((_, row) => said(row));
  const tally = popcomm.tally(all), times = new Map(tally);
  if (!times.has(choice.symbol)) choice.symbol = tally[0][0];
  const labels = popcomm.tally(rows.label.filter((label, row) => label >= 0 && said(row).length));
  const labelled = labels.reduce((sum, one) => sum + one[1], 0), share = new Map(labels);

  const show = () => {
    const symbol = choice.symbol;
    const where = rows.said.map((_, row) => row).filter((row) => said(row).includes(symbol));
    const told = where.filter((row) => rows.label[row] >= 0), of = popcomm.tally(told.map((row) => rows.label[row]));
    const sayers = popcomm.tally(where.map((row) => rows.agent[row]));
    const steps = new Map();
    for (const row of rows.said.keys()) if (said(row).length) {
      const step = rows.step[row], at = steps.get(step) || [0, 0];
      steps.set(step, [at[0] + said(row).filter((s) => s === symbol).length, at[1] + said(row).length]);
    }
    const inOrder = [...steps].sort((a, b) => a[0] - b[0]);
    const episodes = [{label: "", x: inOrder.map((one) => one[0]), y: inOrder.map(([, [n, d]]) => n / d)}];
    const over = trained && trained.counts[symbol] && trained.env_steps.length > 1 ? [{label: "", x: trained.env_steps,
      y: trained.counts[symbol].map((n, c) => trained.totals[c] ? n / trained.totals[c] : null)}] : null;
    root.replaceChildren(
      el("div", {class: "controls"}, popcomm.select("symbol", "symbol",
        tally.map(([s, n]) => [s, `${s} (${n.toLocaleString("en")})`]), symbol, (value) => { choice.symbol = Number(value); show(); })),
      el("p", {class: "readout", role: "status"}, `Symbol ${symbol} is said ${popcomm.counted(times.get(symbol), "time")}, ` +
        `${popcomm.percent(times.get(symbol), all.length)} of all symbols, in ${popcomm.counted(where.length, "message")} by ` +
        `${sayers.length} of ${popcomm.counted(new Set(rows.agent.filter((_, row) => said(row).length)).size, talk.who)}.`),
      labelled ? popcomm.table("What its speakers saw", ["label", "share", "", "share in all messages"], of.slice(0, 8).map(([label, n]) =>
        [`label ${label}`, popcomm.percent(n, told.length), popcomm.bar(n / told.length), popcomm.percent(share.get(label), labelled)])) : "",
      el("h3", null, "In an episode: its share of all symbols, by step"), popcomm.lines("step", "share", episodes),
      over ? el("div", null, el("h3", null, "Over training: its share of all symbols"), popcomm.lines("environment steps", "share", over)) : "",
      el("p", null, "Said, for instance, by ", where.slice(0, 5).map((row, i) => [i ? ", " : "",
        popcomm.button("look", `${talk.who} ${talk.agents[rows.agent[row]]} at step ${rows.step[row]}: ${said(row).join(" ")}`,
          () => popcomm.lookAt(row))])));
    popcomm.stretch(root);
  };
  show();
};
