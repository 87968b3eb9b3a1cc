// Two agents side by side: their symbols, what they say of the same thing, and how often they heard each other.
popcomm.widgets.pair = (root, data, choice) => {
  const talk = data.talk, rows = talk.rows, {el} = popcomm;
  const own = (agent) => rows.agent.map((a, row) => a === agent ? row : -1).filter((row) => row >= 0);
  const speakers = [...new Set(rows.agent.filter((_, row) => rows.said[row]))].sort((a, b) => a - b);
  const position = talk.read ? talk.read.position : -1;
  if (!speakers.includes(choice.one)) choice.one = speakers[0];
  if (!speakers.includes(choice.other)) choice.other = speakers[1];
  // What a message is read by: one position, or all of it.
  const word = (row) => position < 0 ? rows.said[row].join(" ") : String(rows.said[row][position]);

  const side = (agent) => {
    const at = own(agent), spoken = at.filter((row) => rows.said[row]);
    const symbols = spoken.flatMap((row) => rows.said[row]);
    const rewards = at.map((row) => rows.reward[row]).filter((value) => value !== null);
    const byLabel = new Map();
    for (const row of spoken) if (rows.label[row] >= 0)
      byLabel.set(rows.label[row], [...(byLabel.get(rows.label[row]) || []), word(row)]);
    return {agent, name: `${talk.who} ${talk.agents[agent]}`, messages: spoken.length, total: symbols.length,
      counts: new Map(popcomm.tally(symbols)), different: new Set(spoken.map((row) => rows.said[row].join(" "))).size,
      reward: rewards.length ? rewards.reduce((a, b) => a + b, 0) / rewards.length : null, byLabel};
  };
  const heardBy = (speaker, hearer) => own(speaker).reduce((sum, row) =>
    sum + rows.then[row].filter((then) => then >= 0 && rows.agent[then] === hearer).length, 0);
  const distance = (a, b) => {
    let bits = 0;
    for (const symbol of new Set([...a.counts.keys(), ...b.counts.keys()])) {
      const p = (a.counts.get(symbol) || 0) / a.total, q = (b.counts.get(symbol) || 0) / b.total, m = (p + q) / 2;
      bits += (p ? p * Math.log2(p / m) : 0) / 2 + (q ? q * Math.log2(q / m) : 0) / 2;
    }
    return bits;
  };

  const show = () => {
    const a = side(choice.one), b = side(choice.other), options = speakers.map((s) => [s, `${talk.who} ${talk.agents[s]}`]);
    const part = (s, symbol) => (s.counts.get(symbol) || 0) / s.total;
    const symbols = [...new Set([...a.counts.keys(), ...b.counts.keys()])]
      .sort((s, t) => Math.abs(part(a, t) - part(b, t)) - Math.abs(part(a, s) - part(b, s)) || s - t).slice(0, 10);
    const shared = [...a.byLabel.keys()].filter((label) => b.byLabel.has(label)).sort((s, t) => s - t);
    const modal = (words) => popcomm.tally(words)[0];
    const same = shared.filter((label) => modal(a.byLabel.get(label))[0] === modal(b.byLabel.get(label))[0]).length;
    const shown = (words) => { const [said, n] = modal(words); return `${said} (${popcomm.percent(n, words.length)} of ${words.length})`; };
    const what = position < 0 ? "message" : `symbol at position ${position + 1}`;
    root.replaceChildren(
      el("div", {class: "controls"},
        popcomm.select("one", "one", options, choice.one, (value) => { choice.one = Number(value); show(); }),
        popcomm.select("other", "the other", options, choice.other, (value) => { choice.other = Number(value); show(); })),
      el("p", {class: "readout", role: "status"}, a.agent === b.agent ? "These two are the same one." :
        `Their symbols are ${distance(a, b).toFixed(3)} bits apart (0: the same, 1: none in common)` +
        (shared.length ? `; of the same label they say the same ${what} most often for ${same} of ${shared.length}.` : ".")),
      popcomm.table("Side by side", ["", a.name, b.name], [
        ["messages", a.messages.toLocaleString("en"), b.messages.toLocaleString("en")],
        ["different messages", a.different, b.different], ["reward per step", popcomm.short(a.reward), popcomm.short(b.reward)],
        ["was heard by the other", heardBy(a.agent, b.agent), heardBy(b.agent, a.agent)]]),
      popcomm.table("Symbols that differ most", ["symbol", a.name, "", b.name, ""], symbols.map((symbol) => [symbol,
        `${(100 * part(a, symbol)).toFixed(1)}%`, popcomm.bar(part(a, symbol)), `${(100 * part(b, symbol)).toFixed(1)}%`, popcomm.bar(part(b, symbol))])),
      shared.length ? popcomm.table(`The commonest ${what} of the same label`, ["label", a.name, b.name],
        shared.slice(0, 20).map((label) => [`label ${label}`, shown(a.byLabel.get(label)), shown(b.byLabel.get(label))])) : "");
    popcomm.stretch(root);
  };
  show();
};
