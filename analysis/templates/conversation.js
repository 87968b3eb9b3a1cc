// The conversation browser: a world, an episode, a step; who said what to whom, and what became of it.
popcomm.widgets.conversation = (root, data, choice) => {
  const talk = data.talk, rows = talk.rows, {el} = popcomm;
  const worlds = [...new Set(talk.episodes.map((one) => one.world))].sort((a, b) => a - b);
  const there = () => talk.episodes.filter((one) => one.world === choice.world);
  const first = talk.episodes[0];
  // Until a reader has chosen something, the newest episode is shown.
  if (!choice.touched || !talk.episodes.some((one) => one.world === choice.world && one.episode === choice.episode))
    Object.assign(choice, {world: first.world, episode: first.episode, step: null, speaker: choice.speaker || "all"});
  const name = (row) => talk.who === "member" ? `member ${talk.agents[rows.agent[row]]}` : `seat ${talk.agents[rows.agent[row]]}`;
  const numbers = (values) => values ? values.map((v) => v === null ? "-" : v).join(" ") : "";

  const heard = (row) => {
    if (!rows.heard[row].length) return el("p", {class: "heard"}, rows.said[row] ? "Nobody heard it." : null);
    return el("p", {class: "heard"}, "Heard by ", rows.heard[row].map((seat, i) => {
      const then = rows.then[row][i], weight = rows.weights[row] ? `, attention ${rows.weights[row][i].toFixed(2)}` : "";
      const did = then < 0 ? "what it then did is not here" : `then did ${numbers(rows.did[then]) || "nothing recorded"}`;
      return el("span", {class: "hearer"}, `seat ${seat}${then < 0 || talk.who !== "member" ? "" : ` (${name(then)})`}${weight}: ${did}`);
    }));
  };
  const reading = (row) => {
    const read = rows.reading[row];
    if (!talk.read || !rows.said[row]) return null;
    if (!read) return el("span", {class: "reading"}, "not said of anything in other episodes");
    const agrees = rows.label[row] < 0 ? "" : read[0] === rows.label[row] ? ", as seen" : ", not as seen";
    return el("span", {class: `reading${agrees === ", as seen" ? " hit" : ""}`},
      `read as label ${read[0]} (${Math.round(100 * read[1])}% of ${read[2]} elsewhere)${agrees}`);
  };
  const message = (row) => el("li", {class: "message", "data-row": row},
    el("p", {class: "who"}, el("b", null, name(row)), talk.who === "member" ? ` on seat ${rows.seat[row]}` : null, ": ",
      rows.said[row] ? el("code", null, numbers(rows.said[row])) : "says nothing", " ", reading(row)),
    el("p", null, rows.label[row] < 0 ? "Saw nothing with a label" : `Saw label ${rows.label[row]}`,
      `; did ${numbers(rows.did[row]) || "nothing recorded"}; reward ${popcomm.short(rows.reward[row])}. `,
      rows.seen[row] && rows.seen[row].length ? el("details", null, el("summary", null, "observation"), el("code", null, numbers(rows.seen[row]))) : null),
    heard(row));

  // All seats and steps of the episode at a glance, by what was seen.
  const strip = (one, steps, go) => {
    const seats = [...new Set(rows.seat.slice(one.start, one.stop))].sort((a, b) => a - b);
    const canvas = el("canvas", {width: steps.length * 6, height: seats.length * 6, class: "strip", "data-control": "strip",
      title: "seats from the top down, steps from left to right; coloured where a label was seen", "aria-hidden": "true"});
    const pen = canvas.getContext("2d");
    const column = new Map(steps.map((step, i) => [step, i])), line = new Map(seats.map((seat, i) => [seat, i]));
    for (let row = one.start; row < one.stop; row++) {
      pen.fillStyle = rows.label[row] < 0 ? "#8882" : `hsl(${rows.label[row] * 137.5 % 360} 60% 55%)`;
      pen.fillRect(column.get(rows.step[row]) * 6, line.get(rows.seat[row]) * 6, 5, 5);
    }
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      go(steps[Math.min(steps.length - 1, Math.floor((event.clientX - box.left) / box.width * steps.length))]);
    });
    return canvas;
  };

  let timer = null;
  if (choice.stop) choice.stop();
  const stop = choice.stop = () => { clearInterval(timer); timer = null; };
  const show = () => {
    stop();
    const one = there().find((other) => other.episode === choice.episode);
    const steps = [...new Set(rows.step.slice(one.start, one.stop))];
    if (!steps.includes(choice.step)) choice.step = steps[0];
    const seats = [...new Set(rows.seat.slice(one.start, one.stop))].sort((a, b) => a - b);
    if (choice.speaker !== "all" && !seats.includes(Number(choice.speaker))) choice.speaker = "all";
    const slider = el("input", {type: "range", min: 0, max: steps.length - 1, step: 1, "data-control": "step", "aria-label": "step"});
    const where = el("span", {class: "where"}), list = el("ul", {class: "messages", "aria-live": "polite"});
    const mark = el("span", {class: "cursor"});
    const go = (step) => {
      choice.step = step;
      choice.touched = choice.touched || begun;
      const place = steps.indexOf(step);
      slider.value = place;
      where.textContent = `step ${step} (${place + 1} of ${steps.length}), iteration ${one.iteration}`;
      mark.style.left = `${100 * place / steps.length}%`;
      mark.style.width = `${100 / steps.length}%`;
      const said = [];
      for (let row = one.start; row < one.stop; row++)
        if (rows.step[row] === step && (choice.speaker === "all" || rows.seat[row] === Number(choice.speaker))) said.push(message(row));
      list.replaceChildren(...(said.length ? said : [el("li", null, "Nobody of these was there at this step.")]));
    };
    const move = (by) => go(steps[Math.max(0, Math.min(steps.length - 1, steps.indexOf(choice.step) + by))]);
    slider.addEventListener("input", () => { stop(); go(steps[Number(slider.value)]); });
    const play = popcomm.button("play", "play", () => {
      if (timer) { stop(); play.textContent = "play"; return; }
      play.textContent = "stop";
      timer = setInterval(() => {
        if (choice.step === steps[steps.length - 1]) { stop(); play.textContent = "play"; } else move(1);
      }, 700);
    });
    root.replaceChildren(
      el("div", {class: "controls"},
        popcomm.select("world", "world", worlds.map((w) => [w, w]), choice.world, (value) => {
          choice.world = Number(value);
          choice.episode = there()[0].episode;
          choice.step = null;
          show();
        }),
        popcomm.select("episode", "episode", there().map((e) => [e.episode, e.episode]), choice.episode, (value) => {
          choice.episode = Number(value);
          choice.step = null;
          show();
        }),
        popcomm.select("speaker", "speaker", [["all", "all seats"], ...seats.map((s) => [s, `seat ${s}`])], choice.speaker,
          (value) => { choice.speaker = value; go(choice.step); })),
      el("div", {class: "controls"}, popcomm.button("back", "back", () => { stop(); move(-1); }), play,
        popcomm.button("on", "on", () => { stop(); move(1); }), where),
      slider, el("div", {class: "strips"}, strip(one, steps, go), mark), list);
    go(choice.step);
    begun = true;
  };
  let begun = false;
  // Other pictures send a reader to a message.
  popcomm.lookAt = (row) => {
    const one = talk.episodes.find((other) => other.start <= row && row < other.stop);
    Object.assign(choice, {world: one.world, episode: one.episode, step: rows.step[row], speaker: String(rows.seat[row])});
    show();
    document.getElementById("conversation").scrollIntoView();
  };
  show();
};
