// Curves against one axis, with bands where there are intervals; the nearest number is read out where one points.
popcomm.colours = ["#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#e69f00", "#8a8f95"];

popcomm.ticks = (low, high, most) => {
  const rough = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) || rough;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
};
popcomm.brief = (value) => Math.abs(value) >= 1e6 ? `${Number((value / 1e6).toPrecision(3))}M` :
  Math.abs(value) >= 1e3 ? `${Number((value / 1e3).toPrecision(3))}k` : String(Number(value.toPrecision(3)));

// series: [{label, x, y, low?, high?}]; null in y is a gap.
popcomm.lines = (xName, yName, series) => {
  const holder = popcomm.el("div", {class: "lines"});
  const readout = popcomm.el("p", {class: "readout", role: "status"}, "Point at the curve for its numbers.");
  const draw = () => {
    const width = Math.max(260, holder.clientWidth || 600), height = 260, left = 52, bottom = 34, top = 10, right = 10;
    const numbers = (key) => series.flatMap((s) => s[key] || []).filter((v) => v !== null && Number.isFinite(v));
    const xs = numbers("x"), ys = [...numbers("y"), ...numbers("low"), ...numbers("high")];
    if (!xs.length || !ys.length) return holder.replaceChildren("Nothing was measured.");
    const range = (values) => {
      const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
      return low === high ? [low - (Math.abs(low) || 1) * 0.5, high + (Math.abs(high) || 1) * 0.5] : [low, high];
    };
    const [x0, x1] = range(xs), [y0, y1] = range(ys);
    const X = (x) => left + (x - x0) / (x1 - x0) * (width - left - right);
    const Y = (y) => height - bottom - (y - y0) / (y1 - y0) * (height - bottom - top);
    const svg = popcomm.svg("svg", {width, height, role: "img", "aria-label": `${yName} against ${xName}`});
    for (const at of popcomm.ticks(y0, y1, 4)) {
      svg.append(popcomm.svg("line", {x1: left, x2: width - right, y1: Y(at), y2: Y(at), class: "grid"}),
        popcomm.svg("text", {x: left - 6, y: Y(at) + 4, "text-anchor": "end"}, popcomm.brief(at)));
    }
    for (const at of popcomm.ticks(x0, x1, width / 110))
      svg.append(popcomm.svg("text", {x: X(at), y: height - bottom + 16, "text-anchor": "middle"}, popcomm.brief(at)));
    svg.append(popcomm.svg("text", {x: width - right, y: height - 3, "text-anchor": "end"}, xName));
    series.forEach((s, i) => {
      const colour = popcomm.colours[i % popcomm.colours.length];
      if (s.low) {
        const there = s.x.map((_, k) => k).filter((k) => s.low[k] !== null && s.high[k] !== null);
        const edge = (key, ks) => ks.map((k) => `${X(s.x[k]).toFixed(1)},${Y(s[key][k]).toFixed(1)}`);
        if (there.length > 1)
          svg.append(popcomm.svg("polygon", {points: [...edge("high", there), ...edge("low", there.slice().reverse())].join(" "),
            fill: colour, opacity: 0.16}));
      }
      let path = "", open = false;
      s.x.forEach((x, k) => {
        if (s.y[k] === null) { open = false; return; }
        path += `${open ? "L" : "M"}${X(x).toFixed(1)},${Y(s.y[k]).toFixed(1)}`;
        open = true;
      });
      svg.append(popcomm.svg("path", {d: path, fill: "none", stroke: colour, "stroke-width": 1.8, class: "curve"}));
      if (s.x.length < 3)
        s.x.forEach((x, k) => s.y[k] !== null && svg.append(popcomm.svg("circle", {cx: X(x), cy: Y(s.y[k]), r: 3, fill: colour})));
    });
    const mark = popcomm.svg("line", {y1: top, y2: height - bottom, class: "mark", visibility: "hidden"});
    svg.append(mark);
    const point = (event) => {
      const box = svg.getBoundingClientRect();
      const wanted = x0 + (event.clientX - box.left - left) / (width - left - right) * (x1 - x0);
      const said = series.map((s) => {
        let k = -1;
        s.x.forEach((x, j) => { if (s.y[j] !== null && (k < 0 || Math.abs(x - wanted) < Math.abs(s.x[k] - wanted))) k = j; });
        if (k < 0) return null;
        mark.setAttribute("x1", X(s.x[k]));
        mark.setAttribute("x2", X(s.x[k]));
        mark.setAttribute("visibility", "visible");
        const sure = s.low && s.low[k] !== null ? ` [${popcomm.short(s.low[k])}, ${popcomm.short(s.high[k])}]` : "";
        return `${s.label ? s.label + ": " : ""}${popcomm.short(s.y[k])}${sure} at ${popcomm.short(s.x[k])}`;
      });
      readout.textContent = said.filter(Boolean).join("; ");
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    holder.replaceChildren(svg);
  };
  // Also for the first time: the width is known once the holder is on the page.
  let drawn = -1;
  new ResizeObserver(() => { if (holder.clientWidth !== drawn) { drawn = holder.clientWidth; draw(); } }).observe(holder);
  const key = series.length > 1 || (series[0] && series[0].label) ? popcomm.el("p", {class: "key"}, series.map((s, i) =>
    popcomm.el("span", null, popcomm.svg("svg", {width: 14, height: 10},
      popcomm.svg("rect", {width: 14, height: 4, y: 3, fill: popcomm.colours[i % popcomm.colours.length]})), ` ${s.label}`))) : null;
  return popcomm.el("div", null, holder, key, readout);
};

popcomm.widgets.curves = (root, data, choice) => {
  const {x, measures} = data.curves, names = Object.keys(measures);
  if (!names.includes(choice.measure))
    choice.measure = names.find((name) => name === "charts/agent_episodic_return") || names.find((name) => name === "charts/reward") || names[0];
  const show = () => root.replaceChildren(
    popcomm.el("div", {class: "controls"}, popcomm.select("measure", "measure", names.map((name) => [name, name]), choice.measure,
      (value) => { choice.measure = value; show(); })),
    popcomm.lines(x, choice.measure, measures[choice.measure] || []));
  show();
};
