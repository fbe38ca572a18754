"use strict";

// Draws each figure of the page, when it comes near the view, from the JSON beside it.

// cmocean "dense": perceptually uniform, light to dark.
const COLOURS = [
  "rgb(230,240,240)", "rgb(191,221,229)", "rgb(156,201,226)", "rgb(129,180,227)",
  "rgb(115,154,228)", "rgb(117,127,221)", "rgb(120,100,202)", "rgb(119,74,175)",
  "rgb(113,50,141)", "rgb(100,31,104)", "rgb(80,20,66)", "rgb(54,14,36)",
].map((colour, place, all) => [place / (all.length - 1), colour]);
const INK = "#1c2333", MUTED = "#5a6375", LINE = "#e3e6ec", ACCENT = "#5a3a9e";
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const SMALL = 12;
const HOVER = {bgcolor: "#fff", bordercolor: "#b9bfcb", align: "left", font: {family: FONT, size: 13, color: INK}};

const pen = document.createElement("canvas").getContext("2d");
function textWidth(text, size) {
  pen.font = `${size}px ${FONT}`;
  return pen.measureText(text).width;
}

function luminance(colour) {
  const [red, green, blue] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// Ink or white, whichever reads better on the colour at a share of the scale.
function inkOn(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
  const parts = (k) => COLOURS[k][1].match(/\d+/g).map(Number);
  const low = parts(Math.floor(place)), high = parts(Math.ceil(place));
  const light = luminance(low.map((part, k) => part + (high[k] - part) * (place % 1)));
  return (light + 0.05) ** 2 > 1.05 * (luminance([28, 35, 51]) + 0.05) ? INK : "#fff";
}

// Plotly reads tags and entities in texts; names are neither.
function plain(name) {
  return name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function shortened(name, most) {
  const text = name.replace(/\s+/g, " ");
  const half = (most - 1) / 2;
  if (text.length <= most) return text;
  return text.slice(0, Math.ceil(half)) + "…" + text.slice(text.length - Math.floor(half));
}

function sharedLength(a, b) {
  let length = 0;
  while (length < Math.min(a.length, b.length) && a[length] === b[length]) length++;
  return length;
}

// Names as short as they can be and still differ: cut in the middle, else without what all share.
function axisNames(names, lengths) {
  const cut = (all, most) => all.map((name) => shortened(name, most));
  const differ = (all) => new Set(all).size === names.length;
  const most = lengths.find((most) => differ(cut(names, most)));
  if (most) return cut(names, most);
  const reversed = names.map((name) => [...name].reverse().join(""));
  const [head, tail] = [names, reversed].map((all) => Math.min(...all.map((name) => sharedLength(name, all[0]))));
  const parts = names.map((name) => "…" + name.slice(head, Math.max(head, name.length - tail)));
  return cut(parts, lengths.at(-1));
}

function shown(value, unit, suffix = unit.suffix) {
  if (value === null || Number.isNaN(value)) return "–";
  const number = value * unit.factor;
  const text = unit.digits === null ? String(Number(number.toPrecision(3))) : number.toFixed(unit.digits);
  return text.replace("-", "−") + suffix;
}

// The rows of a symmetric matrix from its packed upper triangle; NaN where a value is missing.
function unpacked(packed, size, diagonal) {
  const bytes = Uint8Array.from(atob(packed.values), (character) => character.charCodeAt(0));
  const flat = packed.step === null ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  const rows = Array.from({length: size}, () => new Float32Array(size).fill(diagonal));
  let place = 0;
  for (let i = 0; i < size; i++) {
    for (let j = i + 1; j < size; j++) {
      const value = flat[place++];
      rows[i][j] = rows[j][i] =
        packed.step === null ? value : value === 65535 ? NaN : value * packed.step;
    }
  }
  return rows;
}

function scaled(values, factor) {
  return Array.from(values, (value) => (value === null ? NaN : value * factor));
}

// What is read of a cell: both names, and every number there is.
function cellText(figure, td, tdx, excess, i, j) {
  const {names, floors, unit} = figure;
  const floor = (k) => `${plain(names[k])}: noise floor ${shown(floors[k], unit)}`;
  if (i === j) return floor(i);
  const value = Number.isNaN(td[i][j]) ? "no value" : shown(td[i][j], unit);
  return [
    `<b>TD ${value}</b>`, plain(names[i]), plain(names[j]), "",
    "at half the training split:", floor(i), floor(j),
    `TDX ${shown(tdx[i][j], unit)}`, `excess ${shown(excess[i][j], unit)}`,
  ].join("<br>");
}

// Sizes in pixels: square cells, room for the names, and a column for the floors.
function matrixGeometry(figure, width) {
  const size = figure.names.length;
  const names = axisNames(figure.names, innerWidth < 600 ? [14, 18] : [26, 34, 44]);
  const longest = Math.max(...names.map((name) => textWidth(name, SMALL)));
  const floors = figure.floors.some((value) => value !== null);
  const beside = floors ? 62 : 14;
  const fits = (left) => Math.min((width - left - beside) / size, size <= 8 ? 48 : 34, 960 / size);
  const named = fits(longest + 12) >= 10;
  const left = named ? longest + 12 : 4;
  const cell = fits(left);
  const below = Math.max(named ? longest : 30, floors ? textWidth("noise floor", SMALL) * 1.15 : 0);
  const column = floors ? Math.max(24, Math.min(cell, 38)) : 0;
  const gap = floors ? 10 : 0;
  const side = cell * size, whole = side + gap + column;
  const bar = Math.min(Math.max(Math.min(side, 420), 260, textWidth(figure.unit.title, 13) + 32), width - left - 8);
  return {names, named, floors, left, cell, side, gap, column, whole, bar, top: 66, bottom: below * 0.72 + 22,
    right: Math.max(8, bar - whole + 16), label: Math.max(9, Math.min(SMALL, cell * 0.9))};
}

function drawMatrix(figure, width) {
  const {names, unit} = figure;
  const size = names.length;
  const at = matrixGeometry(figure, width);
  const td = unpacked(figure.td, size, 0);
  const z = td.map((row) => scaled(row, unit.factor));
  const floors = scaled(figure.floors, unit.factor);
  const largest = [...z, floors].flat().reduce((a, b) => (b > a ? b : a), 0) || 1;
  const place = Array.from(names.keys());
  const gap = at.cell >= 6 ? 1 : 0;
  const common = {type: "heatmap", coloraxis: "coloraxis", hoverlabel: HOVER, xgap: gap, ygap: gap};
  const matrix = {...common, x: place, y: place, z};
  if (figure.tdx) {
    const tdx = unpacked(figure.tdx, size, NaN), excess = unpacked(figure.excess, size, NaN);
    matrix.customdata = td.map((_, i) => place.map((j) => cellText(figure, td, tdx, excess, i, j)));
    matrix.hovertemplate = "%{customdata}<extra></extra>";
  } else {
    matrix.hovertemplate = `<b>TD %{z:${unit.digits === null ? ".3~g" : `.${unit.digits}f`}}${unit.suffix}</b><br>%{y}<br>%{x}<extra></extra>`;
  }
  const column = {...common, x: [0], y: place, z: floors.map((value) => [value]), xaxis: "x2",
    customdata: names.map((name, i) => [`<b>Noise floor ${shown(figure.floors[i], unit)}</b><br>${plain(name)}`]),
    hovertemplate: "%{customdata}<extra></extra>"};
  const data = at.floors ? [matrix, column] : [matrix];
  if (at.cell >= 25 && size <= 20) {
    const cells = place.flatMap((i) => place.filter((j) => j !== i).map((j) => [j, i, z[i][j]]));
    data.push(numbers(cells, unit, largest));
    if (at.floors) data.push({...numbers(floors.map((v, i) => [0, i, v]), unit, largest), xaxis: "x2"});
  }
  return {data, layout: matrixLayout(figure, at, width, largest)};
}

// Values [x, y, value] written into their cells.
function numbers(cells, unit, largest) {
  const there = cells.filter(([, , value]) => !Number.isNaN(value));
  const short = {...unit, digits: unit.digits === null ? null : unit.digits - 1};
  return {type: "scatter", mode: "text", hoverinfo: "skip", showlegend: false,
    x: there.map(([x]) => x), y: there.map(([, y]) => y),
    text: there.map(([, , value]) => shown(value / unit.factor, short, "")),
    textfont: {family: FONT, size: 11, color: there.map(([, , value]) => inkOn(value / largest))}};
}

function matrixLayout(figure, at, width, largest) {
  const {names, unit} = figure;
  const size = names.length;
  const fixed = {showgrid: false, zeroline: false, ticks: "", ticklabelstandoff: 4, tickmode: "array"};
  const axis = {
    ...fixed, range: [-0.5, size - 0.5], constrain: "domain", fixedrange: at.cell >= 10,
    tickvals: Array.from(names.keys()), ticktext: (figure.tdx ? at.names : names).map(plain),
    showticklabels: at.named, tickfont: {size: at.label},
  };
  const count = `${size.toLocaleString("en")} representations, in the same order on both axes`;
  const unnamed = at.named ? {} : {title: {text: count, font: {size: SMALL, color: MUTED}}};
  const layout = {
    width: at.left + at.whole + at.right, height: at.top + at.side + at.bottom,
    margin: {l: at.left, r: at.right, t: at.top, b: at.bottom}, dragmode: at.cell >= 10 ? false : "zoom",
    xaxis: {...axis, domain: [0, at.side / at.whole], tickangle: -45, ...unnamed},
    yaxis: {...axis, range: [size - 0.5, -0.5]},
    coloraxis: {cmin: 0, cmax: largest, colorscale: COLOURS, colorbar: {
      orientation: "h", thickness: 10, outlinewidth: 0, lenmode: "pixels", len: at.bar, x: 0, xanchor: "left", xpad: 0,
      y: 1 + 8 / at.side, yanchor: "bottom", ypad: 0, nticks: 6, tickangle: 0, ticks: "", tickfont: {size: SMALL, color: MUTED},
      title: {text: `TD: ${unit.title}`, side: "top", font: {size: 13, color: INK}}}},
  };
  if (at.floors) {
    layout.xaxis2 = {...fixed, domain: [1 - at.column / at.whole, 1], range: [-0.5, 0.5], fixedrange: true,
      tickvals: [0], ticktext: ["<b>noise floor</b>"], tickangle: -45, tickfont: {size: SMALL, color: INK}};
  }
  return layout;
}

function drawGroups(figure, width) {
  const {unit, score_unit: scoreUnit} = figure;
  const groups = figure.names
    .map((name, i) => ({name, td: figure.td[i], floor: figure.floors[i], score: figure.scores[i]}))
    .filter((group) => group.score !== null && (group.td !== null || group.floor !== null))
    .map((group) => ({...group, x: group.score * scoreUnit.factor}));
  const up = (value) => (value === null ? null : value * unit.factor);
  const at = {width: Math.min(width, 560), height: innerWidth < 600 ? 390 : 480, left: 56, right: 14, top: 58, bottom: 52};
  at.across = at.width - at.left - at.right;
  at.down = at.height - at.top - at.bottom;
  const xs = groups.map((group) => group.x);
  const spread = Math.max(...xs) - Math.min(...xs) || Math.abs(xs[0]) * 0.02 || 1;
  at.x = [Math.min(...xs) - 0.16 * spread, Math.max(...xs) + 0.16 * spread];
  at.y = [0, 1.14 * Math.max(...groups.flatMap((group) => [up(group.td), up(group.floor)])) || 1];
  const hover = (group) =>
    `<b>${plain(group.name)}</b><br>TD within the group ${shown(group.td, unit)}<br>` +
    `noise floor ${shown(group.floor, unit)}, at half the training split<br>mean ${scoreUnit.title} ${shown(group.score, scoreUnit)}`;
  const common = {type: "scatter", mode: "markers", x: xs, text: groups.map(hover), hovertemplate: "%{text}<extra></extra>", hoverlabel: HOVER};
  const stems = groups.filter((group) => group.td !== null && group.floor !== null);
  const data = [
    {type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: {color: "#c3c8d4", width: 1.5},
      x: stems.flatMap((group) => [group.x, group.x, null]), y: stems.flatMap((group) => [up(group.floor), up(group.td), null])},
    {...common, name: "noise floor, at half the training split", y: groups.map((group) => up(group.floor)),
      marker: {size: 15, color: "#fff", line: {color: MUTED, width: 1.5}}},
    {...common, name: "TD between its representations", y: groups.map((group) => up(group.td)), marker: {size: 9, color: ACCENT}},
  ];
  const axis = {gridcolor: LINE, zeroline: false, fixedrange: true, tickfont: {size: SMALL, color: MUTED}, ticks: ""};
  const title = (text) => ({text, font: {size: 13, color: INK}, standoff: 10});
  const percent = (unit) => (unit.factor === 100 ? " (%)" : "");
  return {data, layout: {
    width: at.width, height: at.height, margin: {l: at.left, r: at.right, t: at.top, b: at.bottom}, dragmode: false, hovermode: "closest",
    xaxis: {...axis, range: at.x, nticks: 6, title: title(`mean held-out ${scoreUnit.title}${percent(scoreUnit)}`)},
    yaxis: {...axis, range: at.y, nticks: 7, title: title(unit.factor === 100 ? "mean TD (% differ)" : "mean TD")},
    legend: {x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", orientation: "v", traceorder: "reversed", font: {size: SMALL, color: INK}, itemclick: false, itemdoubleclick: false},
    annotations: placedLabels(groups, up, at),
  }};
}

// A label beside each point, on the side where it covers least.
function placedLabels(groups, up, at) {
  const px = (x) => ((x - at.x[0]) / (at.x[1] - at.x[0])) * at.across;
  const py = (y) => (1 - y / at.y[1]) * at.down;
  const taken = groups.flatMap(({x, td, floor}) => [td, floor].filter((v) => v !== null)
    .map((v) => ({left: px(x) - 8, right: px(x) + 8, top: py(up(v)) - 8, bottom: py(up(v)) + 8})));
  for (const {x, td, floor} of groups) {
    if (td !== null && floor !== null) {
      const ends = [py(up(td)), py(up(floor))];
      taken.push({left: px(x) - 1, right: px(x) + 1, top: Math.min(...ends), bottom: Math.max(...ends)});
    }
  }
  const overlap = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) *
    Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const outside = (box) => Math.max(0, -box.left) + Math.max(0, box.right - at.across) + Math.max(0, -box.top) + Math.max(0, box.bottom - at.down);
  return groups.map((group) => {
    const text = shortened(group.name, 22), width = textWidth(text, 13) + 4, height = 17;
    const x = px(group.x), y = py(up(group.td ?? group.floor));
    const offsets = [[0, -18], [width / 2 + 11, 0], [-width / 2 - 11, 0], [0, 18], [width / 2 + 6, -13], [-width / 2 - 6, -13], [width / 2 + 6, 13], [-width / 2 - 6, 13], [0, -32], [0, 32]];
    const boxes = offsets.map(([dx, dy], rank) => {
      const box = {dx, dy, left: x + dx - width / 2, right: x + dx + width / 2, top: y + dy - height / 2, bottom: y + dy + height / 2};
      return {...box, cost: rank + 2 * taken.reduce((sum, other) => sum + overlap(box, other), 0) + 20 * outside(box)};
    });
    const best = boxes.reduce((a, b) => (b.cost < a.cost ? b : a));
    taken.push(best);
    return {text: plain(text), x: group.x, y: up(group.td ?? group.floor), xshift: best.dx, yshift: -best.dy, showarrow: false, font: {size: 13, color: INK}};
  });
}

// Tasks of a family side by side: TD above the noise floor, and scores below in a strip of their own.
function drawTasks(figure, width) {
  const {names, unit, score_unit: scoreUnit} = figure;
  const size = names.length, place = Array.from(names.keys());
  const td = scaled(figure.td, unit.factor), floors = scaled(figure.floors, unit.factor), scores = scaled(figure.scores, scoreUnit.factor);
  const has = (values) => values.some((value) => !Number.isNaN(value));
  const at = {left: 60, right: 14, top: has(floors) ? 62 : 40};
  at.width = Math.min(width, Math.max(420, at.left + at.right + 60 * size));
  at.column = (at.width - at.left - at.right) / size;
  const named = at.column >= 18;
  const shownNames = named ? axisNames(names, [24, 16, 10]) : names;
  const longest = named ? Math.max(...shownNames.map((name) => textWidth(name, SMALL))) : 0;
  const upright = longest < at.column - 8;
  at.bottom = 44 + (named ? (upright ? 14 : longest * 0.72 + 12) : 0);
  const dot = Math.min(9, Math.max(3.5, at.column * 0.8));
  const text = names.map((name, i) => `<b>${plain(name)}</b><br>mean TD ${shown(figure.td[i], unit)}<br>` +
    `mean noise floor ${shown(figure.floors[i], unit)}, at half the training split<br>mean ${scoreUnit.title} ${shown(figure.scores[i], scoreUnit)}`);
  const common = {type: "scatter", mode: "markers", x: place, text, hovertemplate: "%{text}<extra></extra>", hoverlabel: HOVER, cliponaxis: false};
  const data = [{...common, name: "mean TD", y: td, marker: {size: dot, color: ACCENT}}];
  if (has(floors)) data.unshift({...common, name: "mean noise floor, at half the training split", y: floors, marker: {size: dot, color: "#fff", line: {color: MUTED, width: 1.2}}});
  if (has(scores)) data.push({...common, name: "score", showlegend: false, y: scores, yaxis: "y2", marker: {size: dot, color: MUTED}});
  const axis = {gridcolor: LINE, zeroline: false, fixedrange: true, tickfont: {size: SMALL, color: MUTED}, ticks: ""};
  const title = (text) => ({text, font: {size: 13, color: INK}, standoff: 10});
  const percent = (unit) => (unit.factor === 100 ? " (%)" : "");
  const count = `${size.toLocaleString("en")} task${size === 1 ? "" : "s"}`;
  return {data, layout: {
    width: at.width, height: 400 + at.top + at.bottom, margin: {l: at.left, r: at.right, t: at.top, b: at.bottom}, dragmode: false, hovermode: "closest",
    xaxis: {...axis, range: [-0.5, size - 0.5], showgrid: false, anchor: has(scores) ? "y2" : "y", tickmode: "array", tickvals: named ? place : [],
      ticktext: shownNames.map(plain), tickangle: upright ? 0 : -45, title: title(`${count}, from least to most TD`)},
    yaxis: {...axis, domain: [has(scores) ? 0.38 : 0, 1], rangemode: "tozero", nticks: 7, title: title(unit.factor === 100 ? "mean TD (% differ)" : "mean TD")},
    yaxis2: {...axis, domain: [0, 0.3], nticks: 5, title: title(`mean ${scoreUnit.title}${percent(scoreUnit)}`)},
    legend: {x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", orientation: "v", traceorder: "reversed", itemsizing: "constant", font: {size: SMALL, color: INK}, itemclick: false, itemdoubleclick: false},
  }};
}

const DRAW = {matrix: drawMatrix, groups: drawGroups, tasks: drawTasks};

function draw(plot) {
  const place = plot.querySelector(".drawing");
  const figure = JSON.parse(plot.querySelector("script").textContent);
  const width = Math.floor(plot.clientWidth);
  const {data, layout} = DRAW[figure.kind](figure, width);
  const base = {font: {family: FONT, size: 13, color: INK}, paper_bgcolor: "#fff", plot_bgcolor: figure.missing ? "#fefefe" : "#fff"};
  plot.classList.toggle("gaps", Boolean(figure.missing));
  plot.dataset.width = width;
  const config = {displaylogo: false, responsive: false, displayModeBar: false};
  return Plotly.react(place, data, {...base, ...layout}, config);
}

const plots = Array.from(document.querySelectorAll(".plot"));
const isDrawn = (plot) => "width" in plot.dataset;
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      near.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, {rootMargin: "800px"});
plots.forEach((plot) => near.observe(plot));

addEventListener("beforeprint", () => plots.filter((plot) => !isDrawn(plot)).forEach(draw));

let pending;
addEventListener("resize", () => {
  clearTimeout(pending);
  const changed = (plot) => isDrawn(plot) && Number(plot.dataset.width) !== Math.floor(plot.clientWidth);
  pending = setTimeout(() => plots.filter(changed).forEach(draw), 150);
});
